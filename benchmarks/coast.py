"""Whether a translated map of the demo data sets has its coast where the true one has it.

A pixel is water where its blue exceeds its green by more than the map's own threshold. On the true test maps, which
show the same places, the rules of the elevation and the satellite map agree with that of the shaded relief to a
balanced accuracy of 0.96 and 0.93 (``python benchmarks/coast.py``).
"""

import sys
from pathlib import Path

import torch
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

BLUE_OVER_GREEN = {"topo": -26, "satellite": -3, "relief": 6}  # of 255


def water(images, style):
    """Which pixels of uint8 images N×3×H×W in the colours of ``style`` are water: boolean N×H×W."""
    green, blue = images[:, 1].short(), images[:, 2].short()
    return blue - green > BLUE_OVER_GREEN[style]


def agreement(found, true):
    """Balanced accuracy of two boolean maps: the mean of the shares of true water and of true land that were found.

    0.5 is what a map of one kind, or a random one, reaches.
    """
    return ((found & true).sum() / true.sum() + (~found & ~true).sum() / (~true).sum()).item() / 2


def styles(name):
    """The styles of A and B of the data set ``name``, e.g. topo2relief."""
    return dict(zip("AB", name.split("2"), strict=True))


def main():
    from datasets import find_side, list_images, load_image

    for name in ("topo2relief", "satellite2relief"):
        style, maps = styles(name), {}
        for side in "AB":
            paths = list_images(find_side(f"datasets/{name}", "test", side))
            images = torch.stack([pil_to_tensor(load_image(path)) for path in paths])
            maps[side] = water(images, style[side])
        print(f"{style['A']} against {style['B']}: {agreement(maps['A'], maps['B']):.3f}")


if __name__ == "__main__":
    main()
