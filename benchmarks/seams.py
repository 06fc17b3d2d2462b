"""Whether tiles show: a large image translated whole, and in tiles in several ways.

    python benchmarks/seams.py --checkpoint saved_models/topo2relief --image map.png --tile 128

"error": mean absolute difference from the image translated whole, of 255. "step": mean absolute difference between
neighbouring pixels across the lines where a tile begins or ends, over the same everywhere; 1 where no seam shows.
``--grid`` saves the results side by side. Passes: 1 lets each tile be normalised by itself; in 2, 3 … instance norms
take the statistics gathered over all tiles in the pass before (tiles.py).
"""

import argparse

from common import show  # first: it makes the folder above importable

# isort: split
import time
from pathlib import Path

import torch
from torchvision.utils import save_image

from datasets import load_image, to_tensor
from inference.tiles import starts, translate_in_tiles
from runtime import checkpoints
from translators import load_translators
from utils import pick_device


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder with checkpoints")
    parser.add_argument("--image", required=True)
    parser.add_argument("--size", type=int, default=512, help="the image's top left corner of this size")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--grid", help="file for a picture")
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    state = checkpoints.load(arguments.checkpoint, "latest")[1]
    translators = load_translators(state, device)
    image = to_tensor(load_image(Path(arguments.image)))[:, : arguments.size, : arguments.size]

    def translate(images):
        return translators.translate("A", images.to(device))[0]

    def tiled(passes):
        return translate_in_tiles(translate, translators, image, arguments.tile, 4, passes)

    ways = {
        "whole": lambda: translate(image[None])[0].cpu(),
        "cut, side by side": lambda: cut(image, translate, arguments.tile),
    }
    ways |= {f"blended, {passes} passes": lambda passes=passes: tiled(passes) for passes in (1, 2, 3, 4)}
    results, rows = {}, []
    for way, run in ways.items():
        begin = time.perf_counter()
        results[way] = run()
        seconds = time.perf_counter() - begin
        error = (results[way] - results["whole"]).abs().mean().item() * 127.5
        rows.append({"way": way, "error": error, "step": step(results[way], arguments.tile), "s": seconds})
    show(rows, arguments.json, device)
    if arguments.grid:
        save_image(torch.stack([image, *results.values()]), arguments.grid, nrow=4, normalize=True, value_range=(-1, 1))


def cut(image, translate, tile):
    """Tiles without overlap."""
    result = torch.empty_like(image)
    for top in range(0, image.shape[1], tile):
        for left in range(0, image.shape[2], tile):
            part = image[:, top : top + tile, left : left + tile]
            result[:, top : top + tile, left : left + tile] = translate(part[None])[0].cpu()
    return result


def step(image, tile):
    """How much larger the steps from column to column are at the borders of tiles, blended or cut, than anywhere."""
    steps = image.diff(dim=2).abs().mean((0, 1))
    width = image.shape[2]
    borders = {left for left in starts(width, tile) if left} | {left + tile for left in starts(width, tile)[:-1]}
    borders |= set(range(tile, width, tile))
    return (steps[torch.tensor(sorted(borders)) - 1].mean() / steps.mean()).item()


if __name__ == "__main__":
    main()
