"""Weights in the layout of pytorch-CycleGAN-and-pix2pix: its ResNet generator is our ``resnet``, its critic our
``patch70``.

Both programs have the same layers in the same order, and number them differently. Theirs counts paddings as layers, has
no biases where a batch norm follows, and in its old files keeps statistics of instance norms, which nobody reads.
"""

import io
import json
from argparse import Namespace
from typing import NamedTuple

import torch

from critics import build_critic
from models import build_generator
from readers.domains import Domain
from runtime.errors import UserError, dimensions
from runtime.flags import MOST_BLOCKS
from runtime.weights import load_tensors

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
BLOCKS = (6, 9)  # its --netG resnet_6blocks and resnet_9blocks
NAMES = {"AtoB": "A", "BtoA": "B"}  # of its generators


class Imported(NamedTuple):
    """A network in our layout: "generator" or "critic", the options that shape it, and its state_dict. The channels are
    those of the generator from A to B, and of the critic of A."""

    kind: str
    options: dict
    state: dict


class Layer(NamedTuple):
    """A convolution's name there and here, and whether a norm follows; that one's number is then the next."""

    theirs: str
    ours: str
    norm: bool = True


def generator_layers(n_residual_blocks, dropout):
    """The convolutions of a generator, in order."""
    layers = [Layer("model.1", "encoder.0"), Layer("model.4", "encoder.3"), Layer("model.7", "encoder.6")]
    for i in range(n_residual_blocks):
        theirs, ours = f"model.{10 + i}.conv_block", f"transformer.{i}.block"
        layers += [
            Layer(f"{theirs}.1", f"{ours}.0"),
            Layer(f"{theirs}.{5 + dropout}", f"{ours}.{3 + dropout}"),
        ]
    up = 10 + n_residual_blocks
    layers += [Layer(f"model.{up}", "decoder.0"), Layer(f"model.{up + 3}", "decoder.3")]
    return [*layers, Layer(f"model.{up + 7}", "decoder.6", norm=False)]


def critic_layers():
    """The convolutions of a critic, whose numbers are the same there and here."""
    return [Layer(f"model.{number}", f"model.{number}", norm=number not in (0, 11)) for number in (0, 2, 5, 8, 11)]


def next_to(name):
    """``a.b.3`` → ``a.b.4``."""
    before, number = name.rsplit(".", 1)
    return f"{before}.{int(number) + 1}"


# ---------------------------------------------------------------------------------------------------------------------
# In
# ---------------------------------------------------------------------------------------------------------------------


def read_pytorch_cyclegan(path):
    """The network in a file, as Imported; what shapes it is found from its tensors. Raises UserError."""
    state = {name.removeprefix("module."): tensor for name, tensor in load_tensors(path).items()}
    try:
        return convert(state)
    except Foreign as error:
        raise UserError(f"{path} cannot be imported: {error}") from None


class Foreign(Exception):
    """Weights of another network than those that this file knows; the message says what is different."""


def convert(state):
    """Name → tensor in their layout to Imported. Raises Foreign."""
    if any(name.endswith(".filt") for name in state):
        raise Foreign(
            "it has the blur-pool layers of CUT, which our generators lack (its --no_antialias with --no_antialias_up "
            "leaves them out)"
        )
    if (first := shape_of(state, "model.1.weight"))[2:] == (7, 7):
        kind, (options, layers) = "generator", shape_generator(state, first)
        expected = on_meta(build_generator, options)
    elif (first := shape_of(state, "model.0.weight"))[2:] == (4, 4):
        kind, (options, layers) = "critic", shape_critic(state, first)
        expected = on_meta(build_critic, options)
    else:
        raise Foreign("it is neither a ResNet generator nor a 70×70 critic of pytorch-CycleGAN-and-pix2pix")
    return Imported(kind, options, renamed(state, layers, options["norm"], expected))


def shape_of(state, name):
    return tuple(state[name].shape) if name in state else ()


def shape_generator(state, first):
    """The options that shape the generator, and its layers; ``first`` is the shape of its first weight."""
    n_residual_blocks = len({name.split(".")[1] for name in state if ".conv_block." in name})
    if n_residual_blocks >= MOST_BLOCKS:
        raise Foreign(f"it has {n_residual_blocks} residual blocks")
    dropout = len(shape_of(state, "model.10.conv_block.6.weight")) == 4  # without, a norm stands in this place
    last = shape_of(state, f"model.{17 + n_residual_blocks}.weight") or first[1:]
    options = dict(gen_net="resnet", ngf=first[0], n_residual_blocks=n_residual_blocks)
    options |= dict(channels_A=first[1], channels_B=last[0])
    options |= dict(norm=norm_of(state, "model.1", "model.2"), dropout=dropout, attention=False, spectral_norm=False)
    return options, generator_layers(n_residual_blocks, dropout)


def shape_critic(state, first):
    """The options that shape the critic, and its layers; ``first`` is the shape of its first weight."""
    options = dict(dis_net="patch70", ndf=first[0], norm=norm_of(state, "model.2", "model.3"))
    return options | dict(channels_A=first[1], attention=False, spectral_norm=False), critic_layers()


def norm_of(state, convolution, norm):
    """Which norm follows ``convolution``: a batch norm has weights, and only an instance norm leaves biases to it."""
    if f"{norm}.weight" in state:
        return "batch"
    return "instance" if f"{convolution}.bias" in state else "none"


def on_meta(build, options):
    """The state_dict of the network that ``options`` shape, without any memory for it."""
    for channels in (options["channels_A"], options.get("channels_B", 3)):
        if channels not in (1, 3):
            raise Foreign(f"its images have {channels} channels, where ours have 1 or 3")
    with torch.device("meta"):
        return build(Namespace(**options)).state_dict()


def renamed(state, layers, norm, expected):
    """``state`` in our layout, equal to ``expected`` in names and shapes. Raises Foreign."""
    names = {layer.theirs: layer.ours for layer in layers}
    names |= {next_to(layer.theirs): next_to(layer.ours) for layer in layers if layer.norm}
    ours = {}
    for name, tensor in state.items():
        layer, _, what = name.rpartition(".")
        if what in STATISTICS and norm != "batch":
            continue
        if layer not in names or (new := f"{names[layer]}.{what}") not in expected:
            raise Foreign(f"it has {name}, which has no place in a network of that kind")
        if tensor.shape != expected[new].shape:
            found, needed = dimensions(tensor.shape), dimensions(expected[new].shape)
            raise Foreign(f"its {name} is {found}, where {needed} is needed{advice(tensor, new)}")
        ours[new] = tensor.detach().to(expected[new].dtype, copy=True)

    left_out = {f"{layer.ours}.bias" for layer in layers if layer.norm and norm != "instance"}
    left_out |= {name for name in expected if name.endswith("num_batches_tracked")}  # by torch before 0.4.1
    if missing := expected.keys() - ours.keys() - left_out:
        raise Foreign(f"there is nothing for {min(missing)} of our network of that kind")
    return {name: ours.get(name, torch.zeros(tensor.shape, dtype=tensor.dtype)) for name, tensor in expected.items()}


def advice(tensor, name):
    """What a wrong shape in the decoder may mean."""
    resized = name in ("decoder.0.weight", "decoder.3.weight") and tensor.ndim == 4
    return " (an ordinary convolution, not a transposed one)" if resized else ""


# ---------------------------------------------------------------------------------------------------------------------
# Out
# ---------------------------------------------------------------------------------------------------------------------


def encode(translators, direction, about, options):
    """One averaged generator as that program's test.py reads it: (name, bytes, a line about it).

    ``about`` says how it was trained. Raises UserError where that program has no such generators.
    """
    trained, (here, there) = Namespace(**json.loads(about["options"])), direction.split("to")
    if reason := no_counterpart(trained):
        raise UserError(f"pytorch-CycleGAN-and-pix2pix has no generators {reason}; export to another format")
    content = io.BytesIO()
    torch.save(published(translators.generator(here).state_dict(), trained), content)
    flags = f"--netG resnet_{trained.n_residual_blocks}blocks --ngf {trained.ngf} --norm {trained.norm}"
    flags += f" --input_nc {translators.channels[here]} --output_nc {translators.channels[there]}"
    flags += "" if trained.dropout else " --no_dropout"
    flags += " --eval" if trained.dropout or trained.norm == "batch" else ""
    said = f"{direction}, for that program's test.py --model test --model_suffix _{NAMES[direction]} {flags}"
    for side, told in json.loads(about["domains"]).items():
        if not (domain := Domain(**told)).whole_picture:
            said += f"; it reads 8-bit pictures, and those of {side} are {domain}, which go in as -1 to 1"
    return f"latest_net_G_{NAMES[direction]}.pth", content.getvalue(), said


def no_counterpart(options):
    """Why generators of that shape do not exist there, or None."""
    if options.gen_net != "resnet":
        return f"like --gen_net {options.gen_net}"
    if options.attention:
        return "with self-attention"
    if options.mask != "none":
        return f"with --mask {options.mask}"
    if options.norm not in ("instance", "batch"):
        return f"with --norm {options.norm} and biases"
    if options.n_residual_blocks not in BLOCKS:
        return f"of {options.n_residual_blocks} residual blocks, only of {' and '.join(map(str, BLOCKS))}"
    return None


def published(state, options):
    """The state_dict of one of our ``resnet`` generators, spectral norm folded, in their layout."""
    theirs = {}
    for layer in generator_layers(options.n_residual_blocks, options.dropout):
        theirs[f"{layer.theirs}.weight"] = state[f"{layer.ours}.weight"]
        bias = state[f"{layer.ours}.bias"]
        if not layer.norm or options.norm == "instance":
            theirs[f"{layer.theirs}.bias"] = bias
        else:  # what the bias adds, the norm subtracts with the mean
            norm = {what: state[f"{next_to(layer.ours)}.{what}"] for what in ("weight", "bias", *STATISTICS)}
            norm["running_mean"] = norm["running_mean"] - bias
            theirs |= {f"{next_to(layer.theirs)}.{what}": tensor for what, tensor in norm.items()}
    return theirs
