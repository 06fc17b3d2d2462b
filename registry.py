"""Every choice that has a name: what the command line offers, and where the code that builds it stands.

To add one: write its class or function, and one entry here. Nothing in this file imports torch, so that ``--help``
answers at once.
"""

import importlib
import inspect
import math
from typing import NamedTuple


class Entry(NamedTuple):
    """``where`` is "module:name"; ``keywords`` are given to it besides what else it takes (but not to GAN losses,
    augmentations and formats, which have none)."""

    where: str
    keywords: dict = {}


class Network(NamedTuple):
    """An Entry with what images have to be: at least ``min_size`` pixels a side, divisible by ``multiple``
    (``sizes_for``).

    A generator translates N×C×H×W in [-1, 1] to the same, or to ``channels_out`` channels where it has that parameter;
    a critic scores it by patch maps N×K×H'×W'; kinds of masks are in translators.py. Each is a module class whose
    parameters, where they are called like flags (ngf, norm, dropout …), get those flags' values.
    ``norm``: whether ``--norm`` has a meaning for it; ``features``: whether it looks through ``--backbone``;
    ``penalty``: whether it has the second derivative that penalties need.
    """

    where: str
    min_size: int
    multiple: int = 1
    keywords: dict = {}
    norm: bool = True
    features: bool = False
    penalty: bool = True


class Penalty(NamedTuple):
    """A function (critic, real, fake) → scalar, and the flag that holds its weight."""

    where: str
    weight: str


GENERATORS = {
    "attention": Network("models:GeneratorResNet", min_size=8, multiple=4),
    "resnet": Network("models:GeneratorResNet", min_size=8, multiple=4, keywords=dict(upsample="transposed")),
    "notebook": Network("models:GeneratorNotebook", min_size=16, multiple=8),
}
CRITICS = {
    "attention": Network("critics:CriticAttention", min_size=8, norm=False),
    "patchgan": Network("critics:PatchGAN", 32, keywords=dict(strides=(2, 2, 2, 2), pad_before_score=True)),
    "patch70": Network("critics:PatchGAN", 32),
    "features": Network("critics:FeatureCritic", 32, norm=False, features=True),
    "features+patch": Network("critics:FeaturesAndPatches", 32, features=True, penalty=False),
    "notebook": Network("critics:PatchGAN", 32, keywords=dict(strides=(2, 2, 2, 2), activation="relu", bias=False)),
}
BACKBONES = {  # functions (purpose, requirements) → frozen network of images to feature maps
    "efficientnet_lite0": Entry("runtime.pretrained:Backbone", dict(version=0)),
    "efficientnet_lite1": Entry("runtime.pretrained:Backbone", dict(version=1)),
    "efficientnet_lite2": Entry("runtime.pretrained:Backbone", dict(version=2)),
}
NORMS = {
    "instance": Entry("layers:InstanceNorm2d"),
    "layer": Entry("layers:LayerNorm2d"),
    "batch": Entry("torch.nn:BatchNorm2d"),
    "none": Entry("torch.nn:Identity"),
}
MASKS = {
    "none": Network("translators:NoMasks", min_size=1),
    "given": Network("translators:GivenMasks", min_size=1),
    "learned": Network("translators:LearnedMasks", min_size=8, multiple=4),
}
GAN_LOSSES = {
    "wgan-gp": Entry("losses:Wasserstein"),
    "lsgan": Entry("losses:LeastSquares"),
    "vanilla": Entry("losses:Vanilla"),
    "hinge": Entry("losses:Hinge"),
}
PENALTIES = {
    "none": None,
    "wgan-gp": Penalty("losses:gradient_penalty", weight="lambda_gp"),
    "r1": Penalty("losses:r1_penalty", weight="lambda_r1"),
}
AUGMENTATIONS = {
    "color": Entry("utils:vary_color"),
    "translation": Entry("utils:vary_position"),
    "cutout": Entry("utils:cut_out"),
}
OPTIMIZERS = {  # called with weights, lr, (b1, b2) and fused=True
    "adam": Entry("torch.optim:Adam"),
    "muon": Entry("muon:Muon"),
}
FEATURES = {
    "inception": Entry("reporting.metrics:Inception"),
    "efficientnet_lite0": Entry("reporting.metrics:EfficientNetLite", dict(version=0)),
    "efficientnet_lite1": Entry("reporting.metrics:EfficientNetLite", dict(version=1)),
}
FORMATS = {  # functions (translators, direction, metadata, options) → name of a file, its bytes, a line about it
    "onnx": Entry("inference.onnx_export:encode"),
    "pytorch-cyclegan": Entry("inference.pytorch_cyclegan:encode"),
}

# Recipes: sets of defaults of the command line
PLAIN = dict(attention=False, spectral_norm=False, gan_mode="lsgan")
CLASSIC = dict(PLAIN, gen_net="resnet", dis_net="patchgan", lambda_id=5.0, optimizer="adam")  # as published
RECIPES = {
    "attention": {},
    "lsgan": dict(PLAIN, dis_net="patch70"),
    "features": dict(PLAIN, dis_net="features"),
    "features+patch": dict(PLAIN, dis_net="features+patch", batch_size=4, lr=4e-4),
    "classic": CLASSIC,
    "notebook": dict(
        CLASSIC, gen_net="notebook", dis_net="notebook", n_residual_blocks=6, norm="batch", lambda_id=0.0,
        critic_first=True, img_height=128, img_width=128, load_factor=1.0, batch_size=16,
    ),
    "segmentation": dict(CLASSIC, mask="given", saturation_noise=0.1),
}  # fmt: skip


def weighted_by(flag):
    """The names of the penalties whose weight is that ``flag``."""
    return [name for name, penalty in PENALTIES.items() if penalty and penalty.weight == flag]


def sizes_for(options):
    """What sides images need to be translated: (the number that divides them, the least)."""
    networks = GENERATORS[options.gen_net], MASKS[options.mask]
    return math.lcm(*(network.multiple for network in networks)), max(network.min_size for network in networks)


def crops_for(options):
    """What sides crops need to train with: as ``sizes_for``, for the critics as well."""
    (multiple, least), critic = sizes_for(options), CRITICS[options.dis_net]
    return math.lcm(multiple, critic.multiple), max(least, critic.min_size)


def load(entry):
    """The class or function that ``entry`` names."""
    module, name = entry.where.split(":")
    return getattr(importlib.import_module(module), name)


def parameters(entry):
    """The names of the parameters of what ``entry`` names."""
    return inspect.signature(load(entry)).parameters.keys()


def networks_with(option):
    """Which networks have a parameter ``option``: a list of (flag that chooses one, *names)."""
    tables = {"gen_net": GENERATORS, "dis_net": CRITICS}
    found = {flag: [name for name in table if option in parameters(table[name])] for flag, table in tables.items()}
    return [(flag, *names) for flag, names in found.items() if names]


def build(entry, options):
    """Call what ``entry`` names with its keywords, and every option that it has a parameter for."""
    accepted = parameters(entry)
    from_options = {name: value for name, value in vars(options).items() if name in accepted}
    return load(entry)(**{**from_options, **entry.keywords})
