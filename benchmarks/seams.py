"""Large images: translated whole, in strips as ``test.py --tile`` does it (inference/tiles.py), and in other ways.

    python benchmarks/seams.py --checkpoint saved_models/topo2relief --size 512 2048 --tile 128

The images are squares from the middle of ``--image``, or of a map of the Earth (pip install -r requirements-demo.txt).
Each way runs in a process of its own. "error" is the mean absolute difference from the image translated whole, of 255,
and "99 %" what as many of the values stay below. "CPU s" is what the process computed and "s" how long it took, which
other work on the machine disturbs more. "MiB" is the growth of the process, or of what it has on a GPU.

"side by side": each tile is an image of its own. In the ways below it, tiles share a quarter of their side and are
blended, and differ in the mean and variance that their norms take: those of the whole image scaled down to one tile
("thumbnail", https://arxiv.org/abs/2103.11784), or those gathered over all tiles in the pass before.
"""

import argparse

from common import CLEAR, ROOT, resident, show, synchronize  # first: it makes the folder above importable

# isort: split
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.utils import save_image

from inference.tiles import SingleDirection, translate_in_tiles
from layers import LayerNorm2d
from readers.domains import to_tensor
from readers.pictures import load_image
from runtime import checkpoints
from runtime.device import pick_device
from runtime.errors import exit_cleanly
from translators import load_translators

sys.path.append(str(ROOT / "datasets"))
from earth import load_map


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder with checkpoints")
    parser.add_argument("--image", type=Path, help="default: the map ETOPO1")
    parser.add_argument("--size", type=int, nargs="+", default=[512])
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="beside whole and side by side")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--grid", help="file for a picture")
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    image = to_tensor(load_image(arguments.image) if arguments.image else load_map("topo"))
    rows = []
    for size in arguments.size:
        square = middle(image, size)
        results = {}
        for way in dict.fromkeys(["whole", "side by side", *arguments.ways]):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                threads = torch.get_num_threads()
                results[way], costs = process.submit(measure, way, square, arguments, threads).result()
            error = (results[way] - results["whole"]).abs() * 127.5
            most = error.flatten().kthvalue(math.ceil(0.99 * error.numel())).values.item()
            rows.append({"size": size, "way": way, "error": error.mean().item(), "99 %": most, **costs})
    show(rows, arguments.json, pick_device(arguments.device))
    if arguments.grid:
        pictures = torch.stack([square, *results.values()])
        save_image(pictures, arguments.grid, nrow=4, normalize=True, value_range=(-1, 1))


def middle(image, size):
    top, left = ((length - size) // 2 for length in image.shape[1:])
    return image[:, top : top + size, left : left + size].clone()


@torch.inference_mode()
def measure(way, image, arguments, threads):
    """The translation, on the CPU, and what it costs: time in the fastest round, memory in the first."""
    torch.set_num_threads(threads)
    device = pick_device(arguments.device)
    network = SingleDirection(load_translators(checkpoints.load(arguments.checkpoint, "latest")[1], device), "A")
    run = partial(WAYS[way], network, tile=arguments.tile, device=device)
    run(image[:, : 2 * arguments.tile, : 2 * arguments.tile])  # to warm up
    before = start_of_peak(device)
    times = []
    for _ in range(arguments.rounds):
        synchronize(device)
        begin = time.perf_counter(), time.process_time()
        result = run(image)
        synchronize(device)
        times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        if len(times) == 1:
            memory = peak(device) - before
    seconds, busy = map(min, zip(*times, strict=True))
    return result, {"s": seconds, "CPU s": busy, "MiB": memory}


def start_of_peak(device):
    """MiB in use now, from where ``peak`` counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text("5")
    return peak(device)


def peak(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident("VmHWM") if CLEAR.exists() else math.nan


# ---------------------------------------------------------------------------------------------------------------------
# The ways: functions of (network, image, tile, device)
# ---------------------------------------------------------------------------------------------------------------------


def whole(network, image, tile, device):
    return network(image[None].to(device))[0].cpu()


def side_by_side(network, image, tile, device):
    result = torch.empty_like(image)
    for top in range(0, image.shape[1], tile):
        for left in range(0, image.shape[2], tile):
            part = image[:, top : top + tile, left : left + tile]
            result[:, top : top + tile, left : left + tile] = whole(network, part, tile, device)
    return result


def thumbnail(network, image, tile, device):
    moments = {}

    def noted(norm, x):
        moments[norm] = moments_of(norm, x)
        return normalized(x, moments[norm])

    small = F.interpolate(image[None], (tile, tile), mode="bilinear", antialias=True)[0]
    with norms_by(noted, network):
        whole(network, small, tile, device)
    with norms_by(lambda norm, x: normalized(x, moments[norm]), network):
        return blended(network, image, tile, device)


def in_passes(network, image, tile, device, passes):
    """Each tile normalised by itself in the first pass, then by the moments over all tiles in the pass before."""
    moments = {}
    for _ in range(passes - 1):
        gathered = {}

        def noted(norm, x, moments=moments, gathered=gathered):
            own = moments_of(norm, x)
            gathered.setdefault(norm, []).append(own)
            return normalized(x, moments.get(norm, own))

        with norms_by(noted, network):
            side_by_side(network, image, tile, device)
        moments = {norm: over_all(parts) for norm, parts in gathered.items()}
    with norms_by(lambda norm, x: normalized(x, moments[norm]), network):
        return blended(network, image, tile, device)


WAYS = {
    "whole": whole,
    "side by side": side_by_side,
    "strips": translate_in_tiles,
    "thumbnail": thumbnail,
    **{f"{passes} passes": partial(in_passes, passes=passes) for passes in (2, 4, 8, 16)},
}


@contextmanager
def norms_by(function, network):
    """Inside, the norms of ``network`` that look at the image are ``function(norm, x)``."""
    norms = [module for module in network.modules() if isinstance(module, (nn.InstanceNorm2d, LayerNorm2d))]
    for norm in norms:
        norm.forward = partial(function, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def moments_of(norm, x):
    """Mean and variance as ``norm`` takes them."""
    variance, mean = torch.var_mean(x, (1, 2, 3) if isinstance(norm, LayerNorm2d) else (2, 3), False, keepdim=True)
    return mean, variance


def normalized(x, moments):
    mean, variance = moments
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def over_all(parts):
    """The mean and variance of a whole from those of equally large parts."""
    means, variances = (torch.stack(values) for values in zip(*parts, strict=True))
    return means.mean(0), variances.mean(0) + means.var(0, unbiased=False)


def blended(network, image, tile, device):
    """Tiles that share a quarter of their side, weighted by how far a pixel is from the border."""
    _, height, width = image.shape
    ramp = (torch.arange(tile) + 0.5).minimum(tile - 0.5 - torch.arange(tile)).clamp(max=tile // 4)
    weights = ramp[:, None] * ramp
    result, total = torch.zeros_like(image), torch.zeros(height, width)
    for top in starts(height, tile):
        for left in starts(width, tile):
            place = ..., slice(top, top + tile), slice(left, left + tile)
            result[place] += weights * whole(network, image[place], tile, device)
            total[place] += weights
    return result / total


def starts(length, tile):
    return [*range(0, length - tile, tile - tile // 4), length - tile]


if __name__ == "__main__":
    exit_cleanly(main)
