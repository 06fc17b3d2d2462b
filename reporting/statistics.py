"""Distances between sets of images that need no pretrained network: no critic can have learned to please one.

A measure is a pair of functions and an entry in ``MEASURES``. The first describes images, uint8 N×3×H×W, by a list of
tensors, one for each scale, whose first axis may be of any length; its other argument is the torch.Generator for its
random draws. The second compares two such lists, those of translations and of real images, and returns numbers by name.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F

PATCH, PATCHES, DIRECTIONS = 7, 128, 512
MOST = 2**16  # patches of a set and scale that are compared: those of 512 images, drawn among those of all
AT_ONCE = 64  # directions: projections are as many numbers as there are patches, for each
SMALLEST = 16  # pixels of the shorter side at the coarsest scale
BLUR = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def blurred(images):
    """Images N×C×H×W through a 5×5 binomial filter, continued by reflection."""
    kernel = torch.outer(BLUR, BLUR).to(images).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])


def gaussian_pyramid(images):
    """Images N×C×H×W, and the same at 1/2, 1/4 … of the size while they have SMALLEST pixels: a list."""
    levels = [images]
    while min(levels[-1].shape[2:]) >= 2 * SMALLEST:
        levels.append(blurred(levels[-1])[..., ::2, ::2])
    return levels


def laplacian_pyramid(images):
    """The smallest level of the Gaussian pyramid, then what each level has beyond the next one, the finest first
    (https://doi.org/10.1109/TCOM.1983.1095851). So scales of the same place compare where images differ in size."""
    levels = gaussian_pyramid(images)
    details = []
    for level, below in pairwise(levels):
        raised = torch.zeros_like(level)
        raised[..., ::2, ::2] = 4 * below
        details.append(level - blurred(raised))
    return [levels[-1], *details]


def laplacian_patches(images, draw):
    """PATCHES patches of 7×7 pixels at random places of each image, from each level: float16 M×3×7×7. ``draw``
    is the generator for the places."""
    described = []
    for level in laplacian_pyramid(images.float()):
        n, _, height, width = level.shape
        if min(height, width) < PATCH:
            break  # the first: the others are larger
        windows = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # N×C×H'×W'×7×7, a view
        image = torch.arange(n).repeat_interleave(PATCHES)
        y, x = (torch.randint(side - PATCH + 1, (n * PATCHES,), generator=draw) for side in (height, width))
        described.append(windows[image, :, y, x].half())
    return described


def sliced_wasserstein(fake, real):
    """The sliced Wasserstein distance of such patches (https://arxiv.org/abs/1710.10196, section 5), times 1000: mean
    over the scales. Each channel of each set is brought to mean 0 and variance 1 first, as there: contrast and
    colour do not count.

    Where the sets are as large, the patches of their first images lie at the same places, and so on: sets that are
    equal, image by image, have 0. With other places such sets have 8 to 17 (docs/experiments.md)."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for levels in zip(fake, real, strict=False):
        least = min(MOST, *map(len, levels))
        orders = [torch.randperm(len(patches), generator=draw) for patches in levels]
        if len(orders[0]) == len(orders[1]):  # of as many images, patches of the same places
            orders[1] = orders[0]
        sets = []
        for patches, order in zip(levels, orders, strict=True):
            chosen = patches[order[:least]].float()
            spread, mean = torch.std_mean(chosen, (0, 2, 3), keepdim=True)
            sets.append(((chosen - mean) / spread.clamp(min=1e-6)).flatten(1))
        directions = F.normalize(torch.randn(sets[0].shape[1], DIRECTIONS, generator=draw), dim=0)
        apart = []
        for some in directions.split(AT_ONCE, 1):
            ours, theirs = ((each @ some).sort(0).values for each in sets)
            apart.append((ours - theirs).abs().mean().item())
        found.append(sum(apart) / len(apart))
    return {"SWD": 1000 * sum(found) / len(found) if found else math.nan}


def gradients(images, draw):
    """The mean length of the brightness's gradient in each image, at scales of 1, 2 and 4 pixels: N each."""
    grey = images.float().mean(1, keepdim=True)
    described = []
    for level in gaussian_pyramid(grey)[:3]:
        down, right = level[..., 1:, :-1] - level[..., :-1, :-1], level[..., :-1, 1:] - level[..., :-1, :-1]
        described.append(torch.hypot(down, right).mean((1, 2, 3)))
    return described


def sharpness(fake, real):
    """Mean gradient of translations over that of real images, at each scale: 1 where they are as sharp, below 1 where
    they are blurred, above 1 where they have noise or hatching."""
    pairs = zip(fake, real, strict=False)
    return {
        f"sharpness {2**level}": (ours.mean() / theirs.mean().clamp(min=1e-6)).item()
        for level, (ours, theirs) in enumerate(pairs)
    }


class Measure(NamedTuple):
    """``describe(images, draw)`` and ``compare(fake, real)``, as above."""

    describe: object
    compare: object


MEASURES = {
    "patches": Measure(laplacian_patches, sliced_wasserstein),
    "gradients": Measure(gradients, sharpness),
}
