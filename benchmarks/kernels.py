"""What float32 on a CPU gains in seven places: wide 3×3 convolutions, those to an image, those behind an upsampling,
gradients of weights, instance norm in channels_last, spectral norm, denormal numbers.

    OMP_NUM_THREADS=1 python benchmarks/kernels.py

Milliseconds of processor time, forward and backward, torch's way beside ours; "error" is the largest difference over
the standard deviation of the result.
"""

import argparse

from common import medians, show  # first: it makes the folder above importable

# isort: split
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrizations

from convolutions import RowByRow, Winograd, convolve_doubled, pad, weight_gradient
from layers import InstanceNorm2d
from runtime.errors import exit_cleanly
from spectral_norm import normalise

CONVOLUTIONS = [
    "2x256x256x32",
    "1x256x256x32",
    "2x256x256x16",
    "2x256x128x64",
    "2x128x128x32",
    "2x128x64x128",
    "2x64x64x16",
]
TO_IMAGES = ["2x16x64", "2x64x128", "1x64x256", "1x16x512"]
DOUBLED = ["2x256x128x32", "2x128x64x64", "2x64x32x16", "2x32x16x32"]
GRADIENTS = ["2x256x256x34x3", "2x128x64x130x3", "2x64x3x134x7", "2x3x64x134x7", "2x64x64x18x3", "2x32x16x66x3"]
NORMS = ["2x256x32x32", "2x64x128x128", "2x64x16x16"]
WEIGHTS = ["16x3x4x4", "64x64x3x3", "512x256x3x3"]
CPU = torch.device("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convolutions", nargs="*", default=CONVOLUTIONS, help="N×C×K×size, padded by reflection")
    parser.add_argument("--to_images", nargs="*", default=TO_IMAGES, help="N×C×size, of 7×7 to 3 channels")
    parser.add_argument("--doubled", nargs="*", default=DOUBLED, help="N×C×K×size before the upsampling")
    parser.add_argument("--gradients", nargs="*", default=GRADIENTS, help="N×C×K×size×k, padded already")
    parser.add_argument("--norms", nargs="*", default=NORMS, help="N×C×H×W")
    parser.add_argument("--weights", nargs="*", default=WEIGHTS, help="of a convolution, normalised: K×C×k×k")
    parser.add_argument("--positions", type=int, default=1024, help="of an attention whose softmax has denormals")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    tables = (
        [convolution(*sizes(text), arguments.rounds) for text in arguments.convolutions],
        [to_image(*sizes(text), arguments.rounds) for text in arguments.to_images],
        [doubled(*sizes(text), arguments.rounds) for text in arguments.doubled],
        [gradient(*sizes(text), arguments.rounds) for text in arguments.gradients],
        [norm(*sizes(text), arguments.rounds) for text in arguments.norms],
        [weight(*sizes(text), arguments.rounds) for text in arguments.weights],
        [denormal(arguments.positions, arguments.rounds)],
    )
    for rows in filter(None, tables):
        show(rows, None, CPU)


def sizes(text):
    return map(int, text.split("x"))


def beside(torchs, ours, inputs, rounds, name):
    """A row: forward and backward of both functions of ``inputs``."""
    functions, results = {"torch": torchs, "ours": ours}, {}
    versions = {}
    for kind, function in functions.items():
        results[kind] = function(*inputs)
        gradient = torch.ones_like(results[kind])
        versions[f"{kind} forward"] = lambda function=function: function(*inputs)
        versions[f"{kind} backward"] = lambda kind=kind, gradient=gradient: torch.autograd.grad(
            results[kind], inputs, gradient, retain_graph=True
        )
    seconds = medians(versions, CPU, rounds)
    error = (results["ours"] - results["torch"]).abs().max() / results["torch"].std()
    return {
        name: "×".join(map(str, inputs[0].shape)),
        **{k: 1e3 * s for k, s in seconds.items()},
        "error": error.item(),
    }


def channels_last(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()


def layer(n, channels, filters, size, kernel=3):
    """x, weight and bias of a convolution."""
    x, weight = channels_last(n, channels, size, size), channels_last(filters, channels, kernel, kernel)
    return x, weight, torch.randn(filters, requires_grad=True)


def reflected(x, weight, bias):
    return F.conv2d(pad(x, (1, 1, 1, 1), "reflect"), weight, bias)


def convolution(n, channels, filters, size, rounds):
    row = beside(reflected, Winograd.apply, layer(n, channels, filters, size), rounds, "convolution")
    return row | {"convolution": f"{row['convolution']} to {filters}"}


def to_image(n, channels, size, rounds):
    """The last convolution of a generator, on what is padded already."""
    return beside(F.conv2d, RowByRow.apply, layer(n, channels, 3, size + 6, 7), rounds, "7×7 to 3 channels")


def doubled(n, channels, filters, size, rounds):
    """A 3×3 convolution behind an upsampling to twice the size."""

    def plain(x, weight, bias):
        return reflected(F.interpolate(x, scale_factor=2), weight, bias)

    row = beside(plain, convolve_doubled, layer(n, channels, filters, size), rounds, "twice the size")
    return row | {"twice the size": f"{row['twice the size']} to {filters}"}


def gradient(n, channels, filters, size, kernel, rounds):
    """The gradient of a convolution's weight alone."""
    x, weight, _ = layer(n, channels, filters, size, kernel)
    x = x.detach()
    result = F.conv2d(x, weight)
    of_result = torch.ones_like(result)
    versions = {
        "torch": lambda: torch.autograd.grad(result, weight, of_result, retain_graph=True)[0],
        "ours": lambda: weight_gradient(of_result, x, kernel),
    }
    torchs, ours = (version() for version in versions.values())
    error = (ours - torchs).abs().max() / torchs.std()
    seconds = medians(versions, CPU, rounds)
    name = f"{kernel}×{kernel}, {'×'.join(map(str, x.shape))} to {filters}"
    return {"gradient of a weight": name, **{k: 1e3 * s for k, s in seconds.items()}, "error": error.item()}


def norm(*shape_and_rounds):
    *shape, rounds = shape_and_rounds
    return beside(
        lambda x: F.group_norm(x, shape[1]), InstanceNorm2d(shape[1]), (channels_last(*shape),), rounds, "instance norm"
    )


def weight(filters, channels, height, width, rounds):
    """A spectrally normalised weight, each time with its power iteration."""
    norms = []
    for change in (parametrizations.spectral_norm, normalise):
        torch.manual_seed(0)
        change(layer := torch.nn.Conv2d(channels, filters, (height, width)))
        norms += layer.parametrizations.weight
    return beside(*norms, (channels_last(filters, channels, height, width),), rounds, "normalised weight")


def denormal(positions, rounds):
    """The product of an attention with its values, as its softmax comes, and with what is denormal as 0."""
    torch.set_flush_denormal(False)  # as torch is by itself
    attention, values = (50 * torch.randn(positions, positions)).softmax(1), torch.randn(positions, 256)
    share = ((attention > 0) & (attention < torch.finfo(torch.float32).tiny)).float().mean().item()

    def product(flush):
        torch.set_flush_denormal(flush)
        attention @ values

    seconds = medians({"as they are": lambda: product(False), "as 0": lambda: product(True)}, CPU, rounds)
    return {"positions": positions, "share of denormals": share, **{name: 1e3 * s for name, s in seconds.items()}}


if __name__ == "__main__":
    exit_cleanly(main)
