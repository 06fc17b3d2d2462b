"""How far stripes of two and four pixels stand out of translations after a short training.

    python benchmarks/stripes.py --dataset satellite2relief --seconds 200 --seed 0 -- --recipe features

Strides of 2, up to two of them, leave their mark at these periods alone. So the power of the luminance there is divided
by the median around it: 1 where nothing stands out. Of three kinds of images, and of the real ones of the other side:
translations of test images, of the same with one colour each, and of these with faint noise. Training and ``--variant``
are those of experiment.py.
"""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from experiment import build, keep, options_of, save_grid, setting, train, training_parser

from datasets import sample_images
from readers.domains import PICTURES
from readers.folders import find_side, list_images
from runtime.device import flush_denormals
from runtime.errors import exit_cleanly

SIZE, IMAGES, NOISE = 64, 64, 0.02  # noise: a standard deviation, of images in [-1, 1]
# Where the strides' grid shows, in cycles over the image down and across
HALF, QUARTER = SIZE // 2, SIZE // 4
STRIPES = {
    "2 straight": [(HALF, 0), (0, HALF)],
    "2 checks": [(HALF, HALF)],
    "4 straight": [(QUARTER, 0), (0, QUARTER)],
    "4 slanted": [(QUARTER, QUARTER), (QUARTER, SIZE - QUARTER)],
    "4 by 2": [(QUARTER, HALF), (HALF, QUARTER)],
}


def main():
    arguments = training_parser(__doc__, "satellite2relief", 200).parse_args()
    torch.set_num_threads(1)
    flush_denormals()
    options = options_of(arguments.dataset, arguments.seed, arguments.flags)
    model = build(options, arguments.variant)
    _, steps = train(model, options, arguments.seconds)
    average = model.average.module.eval()
    keep({**setting(arguments, options, ""), "steps": steps, **directions(average, options)}, arguments.json)
    if arguments.grid:
        save_grid(average, options, model.device, arguments.grid)


@torch.inference_mode()
def directions(translators, options):
    """What the translations of each direction show, "AtoB" and "BtoA"."""
    sides = {side: first_images(options, side) for side in "AB"}
    return {
        f"{here}to{there}": shown(generator, sides[here], sides[there])
        for here, there, generator in (("A", "B", translators.G_AB), ("B", "A", translators.G_BA))
    }


def first_images(options, side):
    """The first test images of a side: N×3×SIZE×SIZE in [-1, 1]."""
    paths = list_images(find_side(f"datasets/{options.dataset_name}", "test", side))[:IMAGES]
    return sample_images(paths, len(paths), PICTURES, options)


def shown(generator, images, real):
    """The stripes of the translated ``images`` and of the ``real`` ones; and what becomes of one colour, without noise
    and with it: the standard deviation over pixels away from the borders, where padding shows, and the stripes."""

    def translated(images):
        return torch.cat([generator(image[None]) for image in images])

    def deviation(images):
        return round(images[:, :, QUARTER:-QUARTER, QUARTER:-QUARTER].std((2, 3)).mean().item(), 4)

    flat = images.mean((2, 3), keepdim=True).repeat(1, 1, SIZE, SIZE)
    noisy = translated(flat + NOISE * torch.randn(flat.shape))
    return {
        "translated": stripes(translated(images)),
        "real": stripes(real),
        "flat": deviation(translated(flat)),
        "noisy": deviation(noisy),
        "noisy stripes": stripes(noisy),
    }


def stripes(images):
    """For images N×C×SIZE×SIZE and each of STRIPES: the highest power there over the median around it."""
    window = torch.hann_window(SIZE)  # periodic: no stripes of the borders
    grey = images.float().mean(1)
    grey = (grey - grey.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(grey).abs().square().mean(0)
    return {
        name: round(max((power[at] / around(power, *at)).item() for at in places), 2)
        for name, places in STRIPES.items()
    }


def around(power, down, across):
    """The median power at 3 to 5 frequencies' distance, without the lowest, which pictures are full of."""

    def frequency(index):
        return min(index % SIZE, -index % SIZE)

    steps = range(-5, 6)
    ring = [
        power[(down + y) % SIZE, (across + x) % SIZE]
        for y in steps
        for x in steps
        if max(abs(y), abs(x)) >= 3 and frequency(down + y) + frequency(across + x) > 6
    ]
    return torch.stack(ring).median()


if __name__ == "__main__":
    exit_cleanly(main)
