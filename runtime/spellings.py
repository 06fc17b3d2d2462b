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
    "beta2": "b2", "num_threads": "n_cpu", "checkpoints_dir": "checkpoint_dir",
    "save_epoch_freq": "checkpoint_interval",
}  # fmt: skip
OF_CYCLE = Alias("lambda_id", WEIGHT, "sets --lambda_id to so many times --lambda_cyc; a resumed run keeps that number",
                 lambda factor: Derived(lambda options: factor * options.lambda_cyc))  # fmt: skip
OTHER_FLAGS = {
    "gpu_ids": Alias("device", gpu, "--device by number, -1 for the CPU", lambda device: device),
    "idt_coef": OF_CYCLE, "lambda_identity": OF_CYCLE,
}  # fmt: skip
SET = "--dataset_dir and, of the folder in it, --dataset_name"
# Flags without a counterpart of the same meaning, several names with spaces between, and what to give here. Of two
# lines for a name the later one holds, where the program has the flags that it speaks of.
GIVE_INSTEAD = (
    ("dataroot", SET),
    ("dataroot", f"--input, for a folder of images; for a data set {SET}"),
    ("dataset_mode easy_label", "nothing: A and B are never paired"),
    ("model", "nothing: there is no other"),
    ("phase", "nothing: cycle_gan.py trains, and test.py translates testA and testB"),
    ("suffix", "--name"),
    ("netG netD norm ngf ndf no_dropout input_nc output_nc n_layers_D which_model_netG which_model_netD normG normD "
     "no_antialias stylegan2_G_num_downsampling",
     "nothing: networks are as they were trained"),
    ("which_model_netG", "--gen_net"),
    ("which_model_netD", "--dis_net"),
    ("n_layers_D", "--dis_net: patch70 has three layers, patchgan four"),
    ("normG normD", "--norm"),
    ("no_antialias no_antialias_up", "nothing: there are no anti-aliased networks"),
    ("stylegan2_G_num_downsampling", "nothing: there are no networks of StyleGAN2"),
    ("init_type init_gain", "nothing: weights are drawn with a deviation of 0.02"),
    ("load_size crop_size loadSize fineSize preprocess resize_or_crop aspect_ratio",
     "nothing: images are translated at their own size"),
    ("no_flip", "nothing: images are translated as they are"),
    ("load_size loadSize", "--load_height and --load_width"),
    ("crop_size fineSize", "--img_height and --img_width"),
    ("resize_or_crop", "--preprocess"),
    ("no_flip", "--flip none"),
    ("lambda_A lambda_B", "--lambda_cyc, for both directions"),
    ("identity", "--lambda_id, that number times --lambda_cyc"),
    ("no_lsgan", "--gan_mode vanilla"),
    ("lambda_L1", "nothing: there is no pix2pix"),
    ("lambda_GAN", "--lambda_cyc and --lambda_id, whose weights are relative to it"),
    ("CUT_mode lambda_NCE nce_idt nce_layers nce_T nce_includes_all_negatives_from_minibatch num_patches netF netF_nc "
     "flip_equivariance",
     "nothing: there is no contrastive loss"),
    ("n_epochs_decay niter_decay", "--decay_epoch, with --n_epochs for all of them"),
    ("niter", "--n_epochs, for all of them"),
    ("lr_policy lr_decay_iters", "nothing: the rate falls linearly from --decay_epoch on"),
    ("pool_size", "nothing: the replay buffer holds 50 images"),
    ("serial_batches", "nothing: B is drawn at random"),
    ("max_dataset_size", "nothing: put fewer images into the folders"),
    ("nThreads num_workers workers", "--n_cpu"),
    ("dataset", "--dataset_name"),
    ("image_size img_size size", "--img_height and --img_width"),
    ("learning_rate", "--lr"),
    ("cpu", "--device cpu"),
    ("continue_train epoch_count resume", "--epoch latest"),
    ("which_epoch load_iter", "--epoch"),
    ("pretrained_name", "--init_from"),
    ("save_latest_freq save_by_iter", "--checkpoint_every"),
    ("display_freq evaluation_freq", "--sample_interval"),
    ("display_ncols display_id display_server display_env display_port display_winsize update_html_freq no_html "
     "use_wandb wandb_project_name print_freq", "nothing: images/NAME/index.html shows losses and grids"),
    ("verbose", "nothing: the first lines of a training name its networks"),
    ("num_test ntest how_many", "nothing: all images are translated"),
    ("eval", "nothing: translations are without dropout"),
    ("direction which_direction", "nothing: exchange the folders trainA and trainB"),
    ("which_direction model_suffix", "--direction"),
)  # fmt: skip
ELSEWHERE = [(name, here) for names, here in GIVE_INSTEAD for name in names.split()]
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
