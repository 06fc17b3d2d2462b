"""Every flag of the command line, once: name, default, check and help. All entry points are parsed here.

Flags can be written with _ or -, on/off flags as --attention and --no_attention.
"""

import argparse
import difflib
import sys
from typing import NamedTuple

from runtime.errors import UserError

__version__ = "1.0.0"


def number(kind, least, below=None):
    """A check for argparse: text to ``kind``, at least ``least`` and, if given, less than ``below``."""

    def check(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= least or (below is not None and not value < below):
            what = "a whole number" if kind is int else "a number"
            limit = "" if below is None else f" and below {below}"
            raise argparse.ArgumentTypeError(f"must be {what} of at least {least}{limit}, not {text!r}")
        return value

    return check


def image_side(text):
    """A check for argparse: pixels that the generator can halve twice."""
    side = number(int, 8)(text)
    if side % 4:
        raise argparse.ArgumentTypeError(
            f"must be divisible by 4, since the generator halves it twice; {side // 4 * 4} and {side // 4 * 4 + 4} are"
        )
    return side


def gpu(text):
    """A check for argparse: the number of a GPU, or -1 for none, to a torch device's name."""
    which = number(int, -1)(text)
    return "cpu" if which < 0 else f"cuda:{which}"


def epoch(text):
    """A check for argparse: an epoch's number, ``latest`` or ``best``."""
    return text if text in ("latest", "best") else number(int, 0)(text)


def interval(text):
    """A check for argparse: a number of steps, or of minutes with an m behind it."""
    number(float, 0.01)(text[:-1]) if text.endswith("m") else number(int, 0)(text)
    return text


def folder_name(text):
    """A check for argparse: one folder's name, not a path."""
    if not text or text in (".", "..") or "/" in text or "\\" in text:
        raise argparse.ArgumentTypeError(f"must be a folder's name, not {text!r}; the path before it is --dataset_dir")
    return text


class Flag(NamedTuple):
    """One option. ``fixed`` ones shape the networks or the random draws: a resumed run cannot change them."""

    name: str
    default: object
    help: str
    type: object = str
    choices: tuple = None
    fixed: bool = False
    alias: str = None  # the same flag's name in another CycleGAN


POSITIVE, NATURAL, WEIGHT = number(int, 1), number(int, 0), number(float, 0)
WHERE = [
    Flag("dataset_name", "monet2photo", "folder with trainA, trainB, testA, testB under --dataset_dir", folder_name),
    Flag("dataset_dir", "datasets", "where the data sets lie"),
    Flag("checkpoint_dir", "saved_models", "where checkpoints lie, in a folder for each data set"),
]
MACHINE = [
    Flag("device", "auto", "cpu, cuda, cuda:1, mps …; auto takes a GPU where there is one"),
    Flag("n_cpu", None, "processes that load images, 0 for none (default: the cores, at most 4)", NATURAL),
    Flag("skip_bad_images", False, "go on without the images that cannot be read, and count them", bool),
]
FEATURES = Flag("features", "inception", "whose features FID, KID, precision and recall compare", str,
                ("inception", "efficientnet_lite0"))  # fmt: skip

# Names that other CycleGANs have for these networks, and an earlier revision for a recipe.
SPELLINGS = {
    "best": dict(recipe="lsgan"),
    "resnet_9blocks": dict(gen_net="resnet", n_residual_blocks=9),
    "resnet_6blocks": dict(gen_net="resnet", n_residual_blocks=6),
    "n_layers": dict(dis_net="patch70"),
    "basic": dict(dis_net="patch70"),
}

PLAIN = dict(attention=False, spectral_norm=False, gan_mode="lsgan", lambda_id=5.0)
RECIPES = {
    "attention": {},
    "lsgan": dict(PLAIN, dis_net="patch70", lambda_id=10.0),
    "classic": dict(PLAIN, gen_net="resnet", dis_net="patchgan"),
    "notebook": dict(
        PLAIN, gen_net="notebook", dis_net="notebook", n_residual_blocks=6, norm="batch", lambda_id=0.0,
        critic_first=True, img_height=128, img_width=128, load_factor=1.0, batch_size=16,
    ),
    "segmentation": dict(PLAIN, gen_net="resnet", dis_net="patchgan", mask="given", saturation_noise=0.1),
}  # fmt: skip

TRAIN = {
    "data": [
        *WHERE,
        Flag("img_height", 256, "height of the training crops, in pixels", image_side, alias="crop_height"),
        Flag("img_width", 256, "width of the training crops, in pixels", image_side, alias="crop_width"),
        Flag("load_height", None, "height to which images are resized before the crop", POSITIVE),
        Flag("load_width", None, "width to which images are resized before the crop", POSITIVE),
        Flag("load_factor", 1.12, "the same as a multiple of the crop, where it is not given", number(float, 1)),
        Flag("channels", 3, "3 for colour, 1 for gray", int, (1, 3), fixed=True),
        Flag("saturation_noise", 0.0, "how much the saturation of each pixel of A varies", number(float, 0, 1)),
        Flag("cache", 2.0, "GiB of memory for decoded and resized training images, used where they fit; 0 for none",
             WEIGHT),
        Flag("download", True, "fetch a known data set that is missing", bool),
        Flag("dataset_url", "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets", "where NAME.zip is fetched from"),
    ],
    "networks": [
        Flag("recipe", "attention", "a set of defaults; flags given by hand overrule it", str,
             (*RECIPES, "best"), fixed=True),
        Flag("gen_net", "attention", "the generators", str,
             ("attention", "resnet", "notebook", "resnet_9blocks", "resnet_6blocks"), fixed=True),
        Flag("dis_net", "attention", "the critics", str,
             ("attention", "patchgan", "patch70", "notebook", "n_layers", "basic"), fixed=True),
        Flag("ngf", 64, "filters in the generators' first convolution", POSITIVE, fixed=True),
        Flag("ndf", 64, "filters in the critics' first convolution", POSITIVE, fixed=True),
        Flag("n_residual_blocks", 9, "residual blocks in the generators", NATURAL, fixed=True),
        Flag("norm", "instance", "norm in the generators, and in the critics but the attention one", str,
             ("instance", "batch", "none"), fixed=True),
        Flag("dropout", False, "dropout in the generators' residual blocks", bool, fixed=True),
        Flag("attention", True, "self-attention in generators and critics", bool, fixed=True),
        Flag("spectral_norm", True, "spectral norm on all convolutions that no norm follows", bool, fixed=True),
        Flag("mask", "none", "where translations differ from their images", str, ("none", "given", "learned"),
             fixed=True),
        Flag("mask_threshold", 32, "given masks: brightest channel, of 255, up to which a pixel is black",
             number(int, 0, 255), fixed=True),
        Flag("mask_freeze_epoch", 30, "learned masks: epoch from which they are fixed", NATURAL),
    ],
    "objective": [
        Flag("gan_mode", "wgan-gp", "the adversarial loss", str, ("wgan-gp", "lsgan", "vanilla", "hinge")),
        Flag("penalty", None, "the critics' penalty (default: wgan-gp with that loss, else none)", str,
             ("none", "wgan-gp", "r1")),
        Flag("lambda_gp", 10.0, "weight of the wgan-gp penalty", WEIGHT),
        Flag("lambda_r1", 0.01, "weight of the r1 penalty", WEIGHT),
        Flag("lambda_cyc", 10.0, "weight of the cycle loss", WEIGHT, alias="lamda"),
        Flag("lambda_id", 10.0, "weight of the identity loss", WEIGHT),
        Flag("idt_coef", None, "the same as a multiple of --lambda_cyc; overrules --lambda_id", WEIGHT),
        Flag("n_critic", 1, "critic steps for each generator step", POSITIVE),
        Flag("critic_first", False, "the critics' step comes before the generators'", bool),
    ],
    "training": [
        Flag("n_epochs", 200, "epochs in all; one is as many images as the larger side has", POSITIVE, alias="epochs"),
        Flag("epoch", 0, "resume after this epoch, or after the latest; 0 starts anew", epoch),
        Flag("batch_size", 1, "images of each side in a step, in each process", POSITIVE),
        Flag("lr", 2e-4, "Adam's learning rate", number(float, 0)),
        Flag("b1", 0.5, "Adam's decay of the first moment", number(float, 0, 1)),
        Flag("b2", 0.999, "Adam's decay of the second moment", number(float, 0, 1)),
        Flag("decay_epoch", None, "epoch from which lr falls linearly to 0 (default: half of --n_epochs)", NATURAL),
        Flag("ema_decay", 0.999, "memory of the averaged generators, used for grids and translation",
             number(float, 0, 1)),
        Flag("seed", 0, "decides every random draw", NATURAL, fixed=True),
        Flag("amp", None, "precision of the networks; losses, penalty and weights stay float32 (default: bf16 on a GPU "
             "that has it, else off)", str, ("off", "bf16", "fp16")),
        Flag("tf32", True, "let a GPU that can compute float32 products in TF32", bool),
        Flag("compile", False, "compile both half steps: minutes at the start, faster steps", bool),
        Flag("checkpoint_activations", False, "compute the generators' activations twice instead of keeping them: the "
             "same result with less memory", bool),
        Flag("on_nan", "stop", "what to do at a value that is not finite", str, ("stop", "rollback")),
        *MACHINE,
    ],
    "output": [
        Flag("sample_interval", 100, "steps between sample grids; 0 for none", NATURAL),
        Flag("checkpoint_interval", 5, "epochs between checkpoints; 0 for one at the end", NATURAL),
        Flag("checkpoint_every", "0", "steps between checkpoints besides, or minutes as in 10m; 0 for none", interval),
        Flag("keep", 3, "full checkpoints kept for resuming; older ones keep the generators alone", POSITIVE),
        Flag("eval_interval", 0, "epochs between evaluations on the test folders (evaluate.py); 0 for none", NATURAL),
        FEATURES,
        Flag("patience", 0, "stop after so many evaluations in a row that are not the best; 0 for never", NATURAL),
        Flag("tensorboard", None, "write scalars and grids for TensorBoard (default: where it is installed)", bool),
        Flag("images_dir", "images", "where sample grids go, in a folder for each data set"),
    ],
}  # fmt: skip

TRANSLATE = {
    "what to translate": [
        *WHERE,
        Flag("epoch", "latest", "the checkpoint after this epoch, the latest, or the best", epoch),
        Flag("input", None, "a folder or an image to translate instead of the test folders"),
        Flag("output", None, "where the translations of --input go (default: under --results_dir)"),
        Flag("direction", None, "default: both, as far as there are test folders, or AtoB with --input", str,
             ("AtoB", "BtoA")),
        Flag("results_dir", "results", "where translations go, in a folder for each data set and epoch"),
    ],
    "machine": [
        Flag("batch_size", 4, "images translated at once, where their sizes agree", POSITIVE),
        Flag("tile", 0, "translate images larger than this in strips of as many pixels as a square of this side has; "
             "0 for whole images", number(int, 0)),
        *MACHINE,
    ],
}  # fmt: skip


EVALUATE = {
    "what to measure": [
        *WHERE,
        Flag("epoch", "latest", "the checkpoint after this epoch, the latest, or the best", epoch),
        Flag("checkpoint", None, "a checkpoint's file, instead of --checkpoint_dir and --epoch"),
        Flag("direction", None, "default: both", str, ("AtoB", "BtoA")),
        Flag("real", None, "measure two folders instead, without a model: this one"),
        Flag("fake", None, "and the translations in this one"),
        FEATURES,
        Flag("json", None, "file for the numbers (default: metrics.json under --results_dir)"),
        Flag("results_dir", "results", "where numbers go, in a folder for each data set and epoch"),
    ],
    "machine": [
        Flag("batch_size", 8, "images measured at once, where their sizes agree", POSITIVE),
        *[flag for flag in MACHINE if flag.name != "n_cpu"],
    ],
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the nearest flag for a misspelt one."""

    def error(self, message):
        known = [option for option in self._option_string_actions if option.startswith("--")]
        unknown = next((word for word in message.split() if word.startswith("--") and word not in known), "")
        near = difflib.get_close_matches(unknown, known, n=1) if "unrecognized" in message else []
        hint = f"did you mean {near[0]}?" if near else "--help shows every flag"
        raise UserError(f"{message}; {hint}")


def build_parser(groups, description):
    """A parser for a table of flags that yields only what was given by hand."""
    parser = Parser(
        description=description,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
    )
    for title, flags in groups.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            names = [f"--{name}" for name in (flag.name, flag.alias) if name]
            if flag.type is bool:
                shown = {True: " (default: on)", False: " (default: off)", None: ""}[flag.default]
                group.add_argument(*names, action="store_true", help=flag.help + shown)
                group.add_argument(f"--no_{flag.name}", action="store_false", dest=flag.name, help="the opposite")
            else:
                shown = "" if flag.default is None else f" (default: {flag.default})"
                metavar = None if flag.choices else flag.name.upper().split("_")[-1]
                group.add_argument(*names, dest=flag.name, type=flag.type, choices=flag.choices, metavar=metavar,
                                   help=flag.help.replace("%", "%%") + shown)  # fmt: skip
    parser.add_argument("--gpu_ids", dest="device", type=gpu, metavar="ID", help="--device by number, -1 for the CPU")
    return parser


def parse_training(argv=None):
    """The command line of cycle_gan.py: (options, given), as ``parse`` returns them."""
    return parse(TRAIN, "Train a CycleGAN on two folders of images.", argv)


def parse_translation(argv=None):
    """The command line of test.py: its options."""
    return parse(TRANSLATE, "Translate images with a trained CycleGAN.", argv)[0]


def parse_evaluation(argv=None):
    """The command line of evaluate.py: its options."""
    return parse(EVALUATE, "Measure translations: distances to real images, and to a known truth.", argv)[0]


def parse(groups, description, argv=None):
    """Read a command line. Returns (options, given): a namespace with every flag, and what was given by hand.

    What was not given is the recipe's, and what the recipe leaves open is the table's default.
    """
    words = [underscored(word) for word in (sys.argv[1:] if argv is None else argv)]
    given = vars(build_parser(groups, description).parse_args(words))
    for name in ("gen_net", "dis_net", "recipe"):
        if meant := SPELLINGS.get(given.get(name)):
            given = {**meant, **given, name: meant[name]}
    defaults = {flag.name: flag.default for flags in groups.values() for flag in flags}
    recipe = RECIPES.get({**defaults, **given}.get("recipe"), {})  # test.py has none
    return argparse.Namespace(**{**defaults, **recipe, **given}), given


def underscored(word):
    """--some-flag=a-value → --some_flag=a-value."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else word


def chosen_penalty(options):
    """``--penalty``; where it is not given, the Wasserstein loss has its own and the others none."""
    return options.penalty or ("wgan-gp" if options.gan_mode == "wgan-gp" else "none")


HERE_AND_NOW = ("dataset_name", "checkpoint_dir", "device", "n_cpu", "epoch")  # never taken from a checkpoint


def resume(options, given, saved):
    """The options of a resumed run: those it was ``saved`` with, overruled by what is ``given`` by hand now.

    Raises UserError where a given option contradicts the networks or the random draws of the checkpoint.
    """
    fixed = [flag.name for flags in TRAIN.values() for flag in flags if flag.fixed]
    for name in fixed:
        if name in given and given[name] != saved[name]:
            raise UserError(
                f"--{name} {given[name]} contradicts the checkpoint, which was trained with {saved[name]}; "
                "leave the flag out to resume, or leave --epoch out to start anew"
            )
    saved = {name: value for name, value in saved.items() if name not in HERE_AND_NOW}
    return argparse.Namespace(**{**vars(options), **saved, **given})
