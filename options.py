"""The flags of training, and the reading of every program's command line; other projects' spellings.

Flags can be written with _ or -, on/off flags as --attention and --no_attention. What leaves this file is complete:
every option has its value, and those that depend on others are worked out.
"""

import importlib.util
import sys
from itertools import chain
from pathlib import Path

from inference.flags import (
    APP,
    EVALUATE,
    EXPORT,
    FEATURE_FLAG,
    IMPORT,
    MACHINE,
    SIDES,
    TRANSLATE,
    WHERE,
    check_evaluation,
    check_export,
)
from registry import (
    AUGMENTATIONS,
    BACKBONES,
    CRITICS,
    GAN_LOSSES,
    GENERATORS,
    MASKS,
    NORMS,
    OPTIMIZERS,
    PENALTIES,
    RECIPES,
    crops_for,
    networks_with,
    parameters,
    weighted_by,
)
from runtime.errors import UserError, counted, did_you_mean, tell
from runtime.flags import (
    BLOCKS,
    ENDLESS,
    FILTERS,
    NATURAL,
    PIXELS,
    POSITIVE,
    WEIGHT,
    Flag,
    build_parser,
    complete,
    interval,
    number,
    some_of,
    start,
    underscored,
    zero_or,
)
from runtime.spellings import ELSEWHERE, OTHER_FLAGS, OTHER_NAMES, OTHER_VALUES, flags_in, spelt_here

__version__ = "1.0.0"

# ---------------------------------------------------------------------------------------------------------------------
# The flags of training; those of the other programs stand in inference/flags.py
# ---------------------------------------------------------------------------------------------------------------------

SCALED_BOTH = "preprocess", "resize_and_crop", "scale_shorter_and_crop"  # the choices that use --load_height, too
SCALED = *SCALED_BOTH, "scale_width_and_crop"  # those that use --load_width
CUT = *SCALED, "crop"  # those that cut a crop

TRAIN = {
    "data": [
        *WHERE,
        Flag("img_height", 256, "height of the training crops, in pixels", PIXELS, needs=CUT),
        Flag("img_width", 256, "width of the training crops, in pixels", PIXELS, needs=CUT),
        Flag("load_factor", 1.12, "images are resized to so many times the crop before it is cut",
             number(float, 1, 100), needs=SCALED),
        Flag("load_height", lambda options: round(options.load_factor * options.img_height),
             "the height to which they are resized (default: by --load_factor)", PIXELS, needs=SCALED_BOTH),
        Flag("load_width", lambda options: round(options.load_factor * options.img_width),
             "the width to which they are resized (default: by --load_factor)", PIXELS, needs=SCALED),
        *SIDES,
        Flag("preprocess", "resize_and_crop", "how an image comes to its crop: resize_and_crop squashes it to the load "
             "size; scale_width… and scale_shorter… keep its aspect ratio; crop does not resize; none takes whole "
             "images, cut to a multiple of what the networks take", str,
             ("resize_and_crop", "scale_width_and_crop", "scale_shorter_and_crop", "crop", "none")),
        Flag("small", "pad", "images smaller than the crop: padded by reflection, or refused", str, ("pad", "refuse"),
             needs=CUT),
        Flag("flip", "horizontal", "how crops are mirrored at random", str, ("none", "horizontal", "both")),
        Flag("rotate90", False, "turn crops at random by right angles, for images without an up", bool),
        Flag("saturation_noise", 0.0, "how much the saturation of each pixel of A varies", number(float, 0, 1)),
        Flag("cache", 2.0, "GiB of memory for decoded and resized training images, used where they fit; 0 for none",
             WEIGHT),
        Flag("download", True, "fetch a known data set that is missing", bool),
        Flag("dataset_url", "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets", "where NAME.zip is fetched from",
             needs=("download",)),
    ],
    "networks": [
        Flag("recipe", "attention", "a set of defaults; flags given by hand overrule it", str,
             tuple(RECIPES), fixed=True),
        Flag("gen_net", "attention", "the generators", str, tuple(GENERATORS), fixed=True),
        Flag("dis_net", "attention", "the critics", str, tuple(CRITICS), fixed=True),
        Flag("backbone", "efficientnet_lite1", "the frozen network of the critics features and features+patch", str,
             tuple(BACKBONES), fixed=True),
        Flag("feature_size", 0, "resize crops for the backbone, to so many pixels of the shorter side; 0: as they are",
             zero_or(number(int, 16, 2**12)), fixed=True),
        Flag("feature_mixing", False, "mix the backbone's channels and depths by fixed random convolutions", bool,
             fixed=True),
        Flag("patch_share", 0.1, "how strongly the patch critic of features+patch pulls, as a share of the pull of the "
             "other; on maps 0.2 was better after 1,000 s of one core", number(float, 0, 100)),
        Flag("ngf", 64, "filters in the generators' first convolution", FILTERS, fixed=True),
        Flag("ndf", 64, "filters in the critics' first convolution", FILTERS, fixed=True),
        Flag("n_residual_blocks", 9, "residual blocks in the generators", BLOCKS, fixed=True),
        Flag("norm", "instance", "norm in the generators, and in the critics but the attention one", str,
             tuple(NORMS), fixed=True),
        Flag("dropout", False, "dropout in the generators' residual blocks", bool, fixed=True),
        Flag("attention", True, "self-attention in generators and critics", bool, fixed=True),
        Flag("spectral_norm", True, "spectral norm on all convolutions that no norm follows", bool, fixed=True),
        Flag("mask", "none", "the part that is translated: none = the whole image, given = where A is not black, "
             "learned = what attention networks find", str, tuple(MASKS), fixed=True),
        Flag("mask_threshold", 32, "given masks: brightest channel, of 255, up to which a pixel is black",
             number(int, 0, 255), fixed=True, needs=("mask", "given")),
        Flag("mask_freeze_epoch", 30, "learned masks: epoch from which they are fixed", NATURAL,
             needs=("mask", "learned")),
    ],
    "objective": [
        Flag("gan_mode", "wgan-gp", "the adversarial loss", str, tuple(GAN_LOSSES)),
        Flag("penalty", lambda options: "wgan-gp" if options.gan_mode == "wgan-gp" else "none",
             "the critics' penalty (default: wgan-gp with that loss, else none)", str, tuple(PENALTIES)),
        Flag("lambda_gp", 10.0, "weight of the wgan-gp penalty", WEIGHT, needs=("penalty", *weighted_by("lambda_gp"))),
        Flag("lambda_r1", 0.01, "weight of the r1 penalty", WEIGHT, needs=("penalty", *weighted_by("lambda_r1"))),
        Flag("penalty_interval", 4, "k: take the penalty at each k-th step, with k times its weight", POSITIVE,
             needs=("penalty",)),
        Flag("lambda_cyc", 10.0, "weight of the cycle loss", WEIGHT),
        Flag("lambda_id", 10.0, "weight of the identity loss", WEIGHT),
        Flag("diffaugment", "none", "vary what the critics see, where images are few: " + ",".join(AUGMENTATIONS) +
             ", or some of them", some_of(AUGMENTATIONS)),
        Flag("n_critic", 1, "critic steps for each generator step, each on a new batch: an epoch has so many times "
             "fewer generator steps", POSITIVE),
        Flag("critic_first", False, "the critics' step comes before the generators'", bool),
    ],
    "training": [
        Flag("minutes", 0.0, "train for so long: the learning rate falls linearly in the second half; 0 for --n_epochs",
             WEIGHT),
        Flag("n_epochs", lambda options: ENDLESS if options.minutes else 200,
             "epochs in all; one is as many images as the larger side has (default: 200; with --minutes no limit)",
             POSITIVE),
        Flag("epoch", 0, "resume after this epoch, or after the latest; 0 starts from scratch; auto resumes after the "
             "latest where there is one", start),
        Flag("init_from", None, "start with the generators, and the networks' shapes, of this checkpoint: a file, or a "
             "run's folder", fixed=True),
        Flag("batch_size", 1, "images of each side in a step, in each process", POSITIVE),
        Flag("optimizer", "muon", "adam; or muon, which is Adam for all weights but those of convolutions", str,
             tuple(OPTIMIZERS), fixed=True),
        Flag("lr", 2e-4, "learning rate", WEIGHT),
        Flag("b1", 0.5, "Adam's decay of the first moment", number(float, 0, 1)),
        Flag("b2", 0.999, "Adam's decay of the second moment", number(float, 0, 1)),
        Flag("decay_epoch", lambda options: options.n_epochs // 2,
             "epoch from which lr falls linearly to 0 (default: half of --n_epochs)", NATURAL),
        Flag("ema_decay", 0.999, "decay of the average (EMA) of the generators, which grids and translations use",
             number(float, 0, 1)),
        Flag("seed", 0, "decides every random draw", number(int, 0, 2**32), fixed=True),
        Flag("amp", "auto", "precision of the networks; losses, penalty and weights stay float32; auto is bf16 on a "
             "GPU or CPU that gains by it, else off (docs/performance.md)", str, ("auto", "off", "bf16", "fp16")),
        Flag("tf32", True, "let a GPU that can compute float32 products in TF32, those of the penalty too", bool),
        Flag("compile", False, "compile both objectives: minutes at the start, faster steps; a last batch of an epoch "
             "that is not full is left out", bool),
        Flag("checkpoint_activations", False, "compute the generators' activations twice instead of keeping them: the "
             "same result with less memory", bool),
        Flag("on_nan", "stop", "what to do at a value that is not finite", str, ("stop", "rollback")),
        *MACHINE,
    ],
    "output": [
        Flag("sample_interval", 100, "steps between sample grids; 0 for none", NATURAL),
        Flag("checkpoint_interval", lambda options: 0 if options.minutes else 5,
             "epochs between checkpoints; 0 for one at the end (default: 5; with --minutes 0)", NATURAL),
        Flag("checkpoint_every", lambda options: "10m" if options.minutes else "0",
             "steps between checkpoints besides, or minutes as in 10m; 0 for none (default: 0; with --minutes 10m)",
             interval),
        Flag("keep", 3, "full checkpoints kept for resuming; older ones keep the generators alone, and are removed "
             "where they lie within an epoch", POSITIVE),
        Flag("eval_interval", 0, "epochs between evaluations on the test folders (evaluate.py), with "
             "--minutes once more at the end; 0 for none", NATURAL),
        FEATURE_FLAG._replace(needs=("eval_interval",)),
        Flag("patience", 0, "stop after so many evaluations in a row that are not the best; 0 for never", NATURAL),
        Flag("tensorboard", lambda options: importlib.util.find_spec("tensorboard") is not None,
             "write scalars and grids for TensorBoard (default: where it is installed)", bool),
        Flag("images_dir", "images", "where sample grids go, in a folder for each run"),
    ],
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------------
# Reading a command line
# ---------------------------------------------------------------------------------------------------------------------


def parse_training(argv=None):
    """The command line of cycle_gan.py: (options, given), as ``parse`` returns them, checked against each other."""
    options, given = parse(TRAIN, "Train a CycleGAN on two folders of images.", argv)
    if options.epoch == 0 and not options.init_from:  # else the checkpoint's options are still to come
        check(options)
    return options, given


def parse_translation(argv=None):
    """The command line of test.py: its options."""
    options, given = parse(TRANSLATE, "Translate images with a trained CycleGAN.", argv)
    if options.onnx and not given.keys() & {"name", "dataset_name"}:
        options.name = options.dataset_name = Path(options.onnx).absolute().parent.name  # exports/NAME/AtoB.onnx
    return options


def parse_evaluation(argv=None):
    """The command line of evaluate.py: its options."""
    options, given = parse(EVALUATE, "Measure translations: distances to real images, and to a known truth.", argv)
    if "checkpoint" in given and "dataset_name" not in given and not (options.real or options.fake):
        raise UserError("--checkpoint says nothing of images: name the data set by --dataset_name")
    check_evaluation(options)
    check_range("range", options.range)
    return options


def parse_import(argv=None):
    """The command line of import_weights.py: its options, and its files as ``files``."""
    options, given = parse(IMPORT, "Make a checkpoint of weights that pytorch-CycleGAN-and-pix2pix saved.", argv,
                           files="its files: generators AtoB and BtoA, or one of them, and critics")  # fmt: skip
    if bool(options.files) == bool(options.pretrained):
        raise UserError("name files of pytorch-CycleGAN-and-pix2pix, or a published model by --pretrained; not both")
    if options.files and not options.name:
        raise UserError("--name is missing: what the imported model is to be called")
    if unused := given.keys() & ({"pretrained_url"} if options.files else {"direction"}):
        raise UserError(f"--{unused.pop()} goes with {'--pretrained' if options.files else 'files'}; leave it out")
    return options


def parse_export(argv=None):
    """The command line of export.py: its options."""
    options = parse(EXPORT, "Write a trained CycleGAN in a form that others can use.", argv)[0]
    check_export(options)
    return options


def parse_app(argv=None):
    """The command line of app.py: its options."""
    return parse(APP, "Translate in a browser with the models that were trained here.", argv)[0]


def command_line(groups, description):
    """The parser for ``groups`` that knows the other spellings too."""
    parser = build_parser(groups, description, OTHER_NAMES, OTHER_VALUES)
    parser.add_argument("--version", action="version", version=f"Attention CycleGAN {__version__}")
    others = parser.add_argument_group("other CycleGANs' spellings")
    flags = {flag.name for group in groups.values() for flag in group}
    parser.elsewhere = {name: here for name, here in ELSEWHERE if flags_in(here) <= flags}
    for name, alias in OTHER_FLAGS.items():
        if alias.stands_for in flags:
            others.add_argument(f"--{name}", type=alias.type, metavar=name.upper().split("_")[-1], help=alias.help)
    return parser


def parse(groups, description, argv=None, files=None):
    """Read a command line. Returns (options, given): a complete namespace, and what was given by hand.

    What was not given is the recipe's, and what the recipe leaves open is the table's default. ``files`` is the help
    for the words that are no flags; they become the list ``options.files``.
    """
    words = [underscored(word) for word in (sys.argv[1:] if argv is None else argv)]
    parser = command_line(groups, description)
    if files:
        parser.add_argument("files", nargs="*", default=[], help=files)
    given = spelt_here(vars(parser.parse_args(words)))
    named_files = given.pop("files", None)
    usual = {flag.name: flag.default for flag in chain(*groups.values())}
    if "name" in given and "dataset_name" in usual:
        given.setdefault("dataset_name", given["name"])  # and not the default, which would be fetched
    recipe = given.get("recipe", usual.get("recipe"))  # test.py has none
    defaults = RECIPES.get(recipe, {})
    if unknown := sorted(defaults.keys() - usual.keys()):
        raise UserError(f"the recipe {recipe} sets {unknown[0]}, which is no flag{did_you_mean(unknown[0], usual)}")
    options = complete(groups, {**defaults, **given})
    if files:
        options.files = named_files
    return options, given


# ---------------------------------------------------------------------------------------------------------------------
# What the images decide, and what must fit together
# ---------------------------------------------------------------------------------------------------------------------


def adapt_to_images(options, given, channels, size=None):
    """Set what the training images decide: the ``channels`` of each side, and the crop where ``size`` is given.

    Raises UserError where that contradicts other options; ``given``: the names of those given by hand.
    """
    options.channels_A, options.channels_B = channels["A"], channels["B"]
    if size:
        multiple, _ = crops_for(options)
        options.img_height, options.img_width = (side - side % multiple for side in size)
        options.load_height, options.load_width = options.img_height, options.img_width
    if options.channels_A != options.channels_B:
        if "channels_out" not in parameters(GENERATORS[options.gen_net]):
            raise UserError(
                f"A and B have unlike channels, and --gen_net {options.gen_net} has no parameter channels_out"
            )
        differ = f"the channels of A are {options.channels_A} and those of B {options.channels_B}"
        if options.lambda_id and "lambda_id" in given:
            raise UserError(f"{differ}: an identity loss needs equal numbers; leave --lambda_id out")
        if options.lambda_id:
            tell(f"{differ}: there is no identity loss between them, and --lambda_id is 0")
        options.lambda_id = 0.0
    check(options)


def smallest_step(options, images, processes):
    """How many samples a step needs at least, the last one of an epoch of so many ``images``, in so many processes.

    Raises UserError where there are fewer images, or too few steps for ``--n_critic``.
    """
    smallest = processes * (options.batch_size if options.compile else 1)
    if images < smallest:
        needed = f"{processes} processes; start fewer"
        if options.compile:
            needed = f"a step of {smallest}; take a smaller --batch_size, or leave --compile out"
        raise UserError(f"{images} images are too few for {needed}")
    steps = options.n_epochs * -(-images // (processes * options.batch_size))  # at most
    if steps < options.n_critic:
        made = f"{counted(steps, 'step')} of this run, and no generator would be trained"
        raise UserError(f"--n_critic {options.n_critic} is more than the {made}; make it smaller, or train longer")
    return smallest


def without_effect(options, given):
    """A line for each flag ``given`` by hand that does nothing beside the others."""
    if "eval_interval" in given and options.eval_interval > options.n_epochs and not options.minutes:
        yield f"--eval_interval {options.eval_interval} does nothing here: there are {options.n_epochs} epochs"
    for flag in (flag for flag in chain(*TRAIN.values()) if flag.name in given):
        needs = [flag.needs] if flag.needs else networks_with(flag.name) if flag in TRAIN["networks"] else []
        if needs and not any(in_use(options, *need) for need in needs):
            needed = (f"--{other} {' or '.join(values)}".rstrip() for other, *values in needs)
            yield f"--{flag.name} does nothing here: it goes with {', or with '.join(needed)}"


def in_use(options, other, *values):
    """Whether the option ``other`` has one of ``values``; anything but none, 0 and off where there are none."""
    value = getattr(options, other)
    return value in values if values else value not in (0, "none")


def check(options):
    """Raise UserError where training options do not fit together."""
    for side in "AB":
        check_range(f"range_{side}", getattr(options, f"range_{side}"))
    if len(options.show_channels) != 3:
        raise UserError(f"--show_channels takes three numbers, as in 3 2 1, not {len(options.show_channels)}")
    if options.patience and not options.eval_interval:
        raise UserError("--patience counts evaluations; add --eval_interval, or --patience 0")
    if options.rotate90 and options.img_height != options.img_width:
        raise UserError("--rotate90 needs square crops: --img_height as large as --img_width, and no --preprocess none")
    critic = CRITICS[options.dis_net]
    if options.penalty != "none" and options.norm == "batch" and critic.norm:
        raise UserError("a penalty needs the critic's gradient at each image: --norm batch goes with --penalty none")
    if options.penalty != "none" and not critic.penalty:
        raise UserError(
            f"--dis_net {options.dis_net} has no second derivative: it goes with --penalty none, and so with another "
            "--gan_mode than wgan-gp, such as lsgan"
        )
    if options.checkpoint_activations and options.norm == "batch":
        raise UserError("--checkpoint_activations would count each batch twice in the averages of --norm batch")
    multiple, least = crops_for(options)
    for side in ("height", "width"):
        crop, loaded = getattr(options, f"img_{side}"), getattr(options, f"load_{side}")
        if crop < least or crop % multiple:
            raise UserError(
                f"--img_{side} must be divisible by {multiple} and at least {least} for --gen_net "
                f"{options.gen_net} and --dis_net {options.dis_net}, not {crop}"
            )
        if loaded < crop and in_use(options, *(SCALED_BOTH if side == "height" else SCALED)):
            raise UserError(f"--img_{side} {crop} is larger than --load_{side} {loaded}, from which it is cut")


def check_range(name, span):
    """Raise UserError where ``span`` is neither ["auto"] nor a low and a high number."""
    if span != ["auto"] and ("auto" in span or len(span) != 2 or not span[0] < span[1]):
        raise UserError(f"--{name} takes auto, or a lower and a higher number, not {' '.join(map(str, span))}")
