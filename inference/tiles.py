"""Images too large to be translated whole: in strips of as many pixels as a tile, layer by layer.

A norm needs the mean and variance of the whole image, so no strip may pass it before all have reached it. Therefore all
strips pass one layer before any passes the next, and wait in between: in memory or, where they are many, in a temporary
file. A convolution reads with each strip the rows above and below that it looks at. So the translation is that of the
whole image, up to rounding, except for self-attention, which looks at a grid of positions all over it (``attend``).
"""

import math
from dataclasses import replace
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import fx, nn

from convolutions import (
    Conv2d,
    ConvTranspose2d,
    Decoder,
    ReflectConv2d,
    convolve_padded,
    doubling_kernel,
    folding_pays,
    in_pairs,
    pad,
    winograd,
    winograd_pays,
)
from inference.activations import Activation, kept
from layers import InstanceNorm2d, LayerNorm2d
from models import SelfAttention
from runtime.errors import UserError


@torch.inference_mode()
def translate_in_tiles(network, image, tile, device):
    """``network`` (N×C×H×W to as many pixels, in eval mode on ``device``) on ``image`` C×H×W, from the CPU to the CPU.

    A layer computes ``tile``² pixels at a time, but at least one row. Raises UserError where the network cannot be
    followed, or where there is no room for the temporary file.
    """
    translated = activation_of(network, image, tile, device)
    result = None
    for top, bottom in translated.strips():
        rows = translated.read(top, bottom)[0].cpu()
        if result is None:
            result = image.new_empty(len(rows), *image.shape[1:])
        result[:, top:bottom] = rows
    return result


def activation_of(network, image, tile, device):
    """What ``network`` makes of ``image``, as an Activation whose strips have ``tile``² pixels."""
    _, height, width = image.shape

    def read(top, bottom):
        return image[None, :, top:bottom].to(device, memory_format=torch.channels_last, copy=True)

    count = math.ceil(height * width / tile**2)
    return LayerByLayer(network).run(Activation(height, width, count, read))


class SingleDirection(nn.Module):
    """``translators`` as the network that translates images of domain ``side``, "A" or "B"."""

    def __init__(self, translators, side):
        super().__init__()
        self.translators, self.side = translators, side

    def forward(self, x):
        return self.translators.translate(self.side, x)[0]


class LayerByLayer(fx.Interpreter):
    """Runs a network on an Activation. What its layers do is found by ``torch.fx``, which follows its ``forward``."""

    def __init__(self, network):
        try:
            graph = Layers().trace(network)
        except fx.proxy.TraceError as error:
            raise cannot_follow(error) from error
        super().__init__(network, graph=graph)
        self.extra_traceback = False  # messages stay as they are

    def run_node(self, node):
        in_place = node.op == "call_module" and getattr(self.fetch_attr(node.target), "inplace", False)
        if in_place and any(len(source.users) > 1 for source in node.all_input_nodes):
            raise cannot_follow(f"{node.target}, which overwrites what others read")
        value = super().run_node(node)
        computed_often = node.op != "placeholder" and len(node.users) > 1
        return kept(value) if computed_often and isinstance(value, Activation) else value

    def call_module(self, target, args, kwargs):
        given = [*args, *kwargs.values()]
        if len(given) != 1:
            raise cannot_follow(f"{target}, which takes {len(given)} arguments")
        return advance(self.fetch_attr(target), *given)

    def call_function(self, function, args, kwargs):
        if function is getattr and args[1] == "dtype":
            return args[0].read(0, 1).dtype
        if function is torch.cat and (args[1:] or tuple(kwargs.values())) == (1,):  # channels, as in a U-Net
            return across(lambda *rows: torch.cat(rows, 1), *args[0])
        if function.__name__ not in POINTWISE:
            raise cannot_follow(function.__name__)
        return across(function, *args, **kwargs)

    def call_method(self, name, args, kwargs):
        return self.call_function(getattr(torch.Tensor, name), args, kwargs)


class Layers(fx.Tracer):
    """Takes networks apart into the layers that ``advance`` knows."""

    def is_leaf_module(self, module, name):
        """A class that derives from one of those layers and computes otherwise is taken apart, as any network."""
        known = any(type(module).forward is kind.forward for kind in advance.registry.keys() - {object})
        return known or super().is_leaf_module(module, name)


def cannot_follow(what):
    return UserError(f"--tile knows no way through {what}: teach it in inference/tiles.py, or translate without --tile")


# ---------------------------------------------------------------------------------------------------------------------
# Layers: ``advance(layer, x)`` is the Activation behind a layer
# ---------------------------------------------------------------------------------------------------------------------


@singledispatch
def advance(layer, x):
    raise cannot_follow(type(layer).__name__)


def across(function, *arguments, **named):
    """Rows by themselves: ``function`` of the same rows of all activations among ``arguments``."""
    x = next(argument for argument in arguments if isinstance(argument, Activation))

    def read(top, bottom):
        rows = [a.read(top, bottom) if isinstance(a, Activation) else a for a in arguments]
        result = function(*rows, **named)
        if result.shape[2:] != (bottom - top, x.width):
            raise cannot_follow(f"{function} from {rows[0].shape} to {result.shape}")
        return result

    return replace(x, read=read)


POINTWISE = {
    "add",
    "sub",
    "mul",
    "gt",
    "getitem",
    "amax",
    "ones_like",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "clamp",
    "to",
}  # what masks and residual blocks call
for kind in (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.Identity):
    advance.register(kind, across)


@advance.register(nn.Conv2d)
@advance.register(Conv2d)
@advance.register(ReflectConv2d)
def convolve(layer, x):
    if layer.padding_mode == "circular" or isinstance(layer.padding, str):
        raise cannot_follow(layer)
    (reach, stride, padding), (reach_x, stride_x, padding_x) = geometry(layer)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode

    def read(top, bottom):
        first, last = top * stride - padding, (bottom - 1) * stride - padding + reach
        rows = x.read(max(first, 0), min(last, x.height))
        rows = pad(rows, (padding_x, padding_x, max(-first, 0), max(last - x.height, 0)), mode)
        if isinstance(layer, ReflectConv2d):
            pays = winograd_pays(rows[:, :, 2:, 2:], layer.weight)
            return (winograd if pays else convolve_padded)(rows, layer.weight, layer.bias)
        return F.conv2d(rows, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)

    height = (x.height + 2 * padding - reach) // stride + 1
    return Activation(height, (x.width + 2 * padding_x - reach_x) // stride_x + 1, x.count, read)


@advance.register(nn.ConvTranspose2d)
@advance.register(ConvTranspose2d)
def convolve_transposed(layer, x):
    (reach, stride, padding), (reach_x, stride_x, padding_x) = geometry(layer)
    more, more_x = layer.output_padding
    rest = layer.stride, (0, padding_x), layer.output_padding, layer.groups, layer.dilation

    def read(top, bottom):
        # Row i of x adds to ``reach`` rows, from i · stride − padding on.
        first = max(math.ceil((top + padding - reach + 1) / stride), 0)
        last = min((bottom - 1 + padding) // stride + 1, x.height)
        rows = F.conv_transpose2d(x.read(first, last), layer.weight, layer.bias, *rest)
        begin = top - (first * stride - padding)
        return rows[:, :, begin : begin + bottom - top]

    height = (x.height - 1) * stride - 2 * padding + reach + more
    return Activation(height, (x.width - 1) * stride_x - 2 * padding_x + reach_x + more_x, x.count, read)


def geometry(layer):
    """How many pixels a convolution's kernel spans, its stride and its padding: of rows, and of columns."""
    sizes = zip(layer.kernel_size, layer.dilation, layer.stride, layer.padding, strict=True)
    return [(dilation * (kernel - 1) + 1, stride, padding) for kernel, dilation, stride, padding in sizes]


@advance.register
def decode(layers: Decoder, x):
    for layer, convolution in in_pairs(layers):
        if convolution and folding_pays(x.read(0, 1)):
            x = double(convolution, x)
        else:
            x = advance(layer, x)
            x = advance(convolution, x) if convolution else x
    return x


def double(layer, x):
    """``convolve_doubled``."""
    kernel = doubling_kernel(layer.weight)

    def read(top, bottom):
        first, last = (top - 1) // 2, bottom // 2 + 1  # the rows of x that these are made of, and one beyond each edge
        rows = pad(x.read(max(first, 0), min(last, x.height)), (1, 1, first < 0, last > x.height), "replicate")
        rows = F.conv_transpose2d(rows, kernel, layer.bias, stride=2, padding=(0, 3))
        begin = top - 2 * first + 1
        return rows[:, :, begin : begin + bottom - top]

    return Activation(2 * x.height, 2 * x.width, x.count, read)


@advance.register
def enlarge(layer: nn.Upsample, x):
    by = layer.scale_factor
    if layer.mode != "nearest" or not (isinstance(by, float) and by.is_integer()):
        raise cannot_follow(layer)
    scale = int(by)

    def read(top, bottom):
        first = top // scale
        return layer(x.read(first, math.ceil(bottom / scale)))[:, :, top - first * scale : bottom - first * scale]

    return Activation(x.height * scale, x.width * scale, x.count, read)


@advance.register
def batch_norm(layer: nn.BatchNorm2d, x):
    if layer.running_mean is None:  # it takes those of its images
        raise cannot_follow(layer)
    return across(layer, x)


@advance.register(nn.InstanceNorm2d)
@advance.register(InstanceNorm2d)
def instance_norm(layer, x):
    if layer.affine or layer.track_running_stats:
        raise cannot_follow(layer)
    return normalize(x, (2, 3), layer.eps)


@advance.register
def layer_norm(layer: LayerNorm2d, x):
    return normalize(x, (1, 2, 3), layer.eps)


def normalize(x, dims, eps, settle=lambda statistics: statistics):
    """x minus its mean over ``dims``, over its standard deviation there.

    ``settle`` makes of the statistics of x, (mean, variance) × C, those by which it is normalised.
    """
    parts = []

    def note(rows):
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean = rows.mean(dims, keepdim=True)
        variance = (rows - mean).square().mean(dims, keepdim=True)
        parts.append((torch.tensor(rows.shape[2]), mean.flatten(), variance.flatten()))

    x = kept(x, note)
    mean, variance = settle(torch.stack(merge(*map(torch.stack, zip(*parts, strict=True)))))

    def by_the_whole(rows):
        of_channels = (moment.expand(rows.shape[1]).contiguous() for moment in (mean, variance))
        return F.batch_norm(rows, *of_channels, eps=eps)

    return across(by_the_whole, x)


def merge(counts, means, variances):
    """Mean and variance of a whole, from those of its parts (parts×C) and the numbers of their values (parts).

    The variance of the whole is the mean of the parts' own plus the variance of their means. Unlike the mean of squares
    minus the square of the mean, this loses nothing to rounding where the mean is large (Chan, Golub, LeVeque 1983).
    """
    shares = (counts / counts.sum(dtype=torch.double)).unsqueeze(1)
    each, own = means.cpu().double(), variances.cpu().double()  # the CPU first: not every device has doubles
    mean = (shares * each).sum(0)
    variance = (shares * (own + (each - mean).square())).sum(0)
    return mean.to(means), variance.to(means)


SEEN = 32 * 32  # positions of the grid below; or as many as a strip has, where that is more


@advance.register
def attend(layer: SelfAttention, x):
    """Every position looks at all of the image, but at a grid of positions."""
    x = kept(x)
    in_a_strip = x.width * max(bottom - top for top, bottom in x.strips())
    step = grid_step(x.height, x.width, max(in_a_strip, SEEN))
    middle = (min(step, x.height) - 1) // 2, (min(step, x.width) - 1) // 2
    grid = [x.read(row, row + 1)[..., middle[1] :: step] for row in range(middle[0], x.height, step)]
    seen = torch.cat(grid, dim=2)
    return across(lambda rows: layer(rows, seen), x)


def grid_step(height, width, limit):
    """The smallest step by which a grid over height×width has at most ``limit`` positions."""
    step = 1
    while math.ceil(height / step) * math.ceil(width / step) > limit:
        step += 1
    return step
