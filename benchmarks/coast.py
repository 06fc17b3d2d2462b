"""Whether a translated map of the demo data sets has its coast where the true one has it.

A pixel is water where its blue exceeds its green by more than the map's own threshold. On the true test maps, which
show the same places, the rules of the elevation and the satellite map agree with that of the shaded relief to a
balanced accuracy of 0.96 and 0.93 (``python benchmarks/coast.py``).
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from datasets import WholeImages
from readers.domains import to_bytes
from readers.folders import find_side, list_images
from runtime.errors import exit_cleanly

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
    """The styles of A and B of the data set ``name``, e.g. topo2relief; None where it is not of maps with a coast."""
    found = name.split("2")
    return dict(zip("AB", found, strict=True)) if BLUE_OVER_GREEN.keys() >= set(found) else None


def true_maps(folders):
    """The test images {"A", "B"} of a data set, N×3×H×W in [-1, 1] each; they are equally large."""
    images = {side: WholeImages(list_images(folder), multiple=4) for side, folder in folders.items()}
    return {side: torch.stack([maps[i]["image"] for i in range(len(maps))]) for side, maps in images.items()}


def agreements(translators, folders, style, device):
    """Direction → agreement of the translated maps' coasts with the true ones'. ``style``: of A and B, as by styles."""
    true = true_maps(folders)
    found = {}
    for source, target in ("AB", "BA"):
        fakes = [translators.translate(source, maps.to(device))[0].cpu() for maps in true[source].split(8)]
        fake, truth = (water(to_bytes(maps), style[target]) for maps in (torch.cat(fakes), true[target]))
        found[f"{source}to{target}"] = agreement(fake, truth)
    return found


def main():
    for name in ("topo2relief", "satellite2relief", "topo2satellite"):
        style = styles(name)
        maps = true_maps({side: find_side(f"datasets/{name}", "test", side) for side in "AB"})
        A, B = (water(to_bytes(maps[side]), style[side]) for side in "AB")
        print(f"{style['A']} against {style['B']}: {agreement(A, B):.3f}")


if __name__ == "__main__":
    exit_cleanly(main)
