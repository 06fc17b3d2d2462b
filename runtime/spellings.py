"""What other CycleGANs, and earlier versions of this one, call the flags of options.py, and their values."""

import re
from typing import NamedTuple

from runtime.download import PRETRAINED
from runtime.errors import UserError
from runtime.flags import WEIGHT, Derived, gpu


class Alias(NamedTuple):
    """A flag that stands for another one, whose value is ``meaning(its value)``."""

    stands_for: str
    type: object
    help: str
    meaning: object


OTHER_NAMES = {
    "crop_height": "img_height", "crop_width": "img_width", "epochs": "n_epochs", "lamda": "lambda_cyc",
    "input_nc": "channels_A", "output_nc": "channels_B", "netG": "gen_net", "netD": "dis_net", "beta1": "b1",
    "num_threads": "n_cpu", "checkpoints_dir": "checkpoint_dir", "save_epoch_freq": "checkpoint_interval",
}  # fmt: skip
OF_CYCLE = Alias("lambda_id", WEIGHT, "sets --lambda_id to so many times --lambda_cyc; a resumed run keeps that number",
                 lambda factor: Derived(lambda options: factor * options.lambda_cyc))  # fmt: skip
OTHER_FLAGS = {
    "gpu_ids": Alias("device", gpu, "--device by number, -1 for the CPU", lambda device: device),
    "idt_coef": OF_CYCLE, "lambda_identity": OF_CYCLE,
}  # fmt: skip
SET = "--dataset_dir and, of the folder in it, --dataset_name"
ELSEWHERE = (  # flags without a counterpart of the same meaning, and what to give here: the last that a program has
    ("dataroot", SET),
    ("dataroot", f"--input, for a folder of images; for a data set {SET}"),
    ("load_size", "--load_height and --load_width"),
    ("crop_size", "--img_height and --img_width"),
    ("lambda_A", "--lambda_cyc, for both directions"),
    ("lambda_B", "--lambda_cyc, for both directions"),
    ("n_epochs_decay", "--decay_epoch, with --n_epochs for all of them"),
    ("continue_train", "--epoch latest"),
    ("epoch_count", "--epoch latest"),
    ("no_flip", "--flip none"),
    ("save_latest_freq", "--checkpoint_every"),
    ("display_freq", "--sample_interval"),
    ("max_dataset_size", "nothing: put fewer images into the folders"),
    ("num_test", "nothing: all images are translated"),
    ("model", "nothing: there is no other"),
    ("niter", "--n_epochs, for all of them"),
    ("niter_decay", "--decay_epoch, with --n_epochs for all of them"),
    ("direction", "nothing: exchange the folders trainA and trainB"),
    ("which_direction", "nothing: exchange the folders trainA and trainB"),
    ("which_direction", "--direction"),
)
OTHER_VALUES = {
    ("gen_net", "resnet_9blocks"): dict(gen_net="resnet", n_residual_blocks=9),
    ("gen_net", "resnet_6blocks"): dict(gen_net="resnet", n_residual_blocks=6),
    ("dis_net", "n_layers"): dict(dis_net="patch70"),
    ("dis_net", "basic"): dict(dis_net="patch70"),
    ("gan_mode", "wgangp"): dict(gan_mode="wgan-gp"),
    ("recipe", "best"): dict(recipe="lsgan"),
    **{
        ("pretrained", file): dict(pretrained=name)
        for name, files in PRETRAINED.items()
        for file in files
        if file and file not in PRETRAINED
    },
}


def flags_in(text):
    """The names of the flags that ``text`` speaks of."""
    return set(re.findall(r"--(\w+)", text))


def spelt_here(given):
    """``given`` in the words of the tables. Raises UserError where two of them speak of the same flag."""
    ours, said = {}, {}
    for name, value in given.items():
        if alias := OTHER_FLAGS.get(name):
            meant = {alias.stands_for: alias.meaning(value)}
        elif not isinstance(value, list) and (name, value) in OTHER_VALUES:
            meant = OTHER_VALUES[name, value]
        else:
            meant = {name: value}
        for flag in meant:
            if flag in said:
                raise UserError(f"--{said[flag]} and --{name} both speak of --{flag}; leave one of them out")
            said[flag] = name
        ours |= meant
    return ours
