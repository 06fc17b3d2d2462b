"""Pictures, by Pillow: those of 8 bits as a person sees them, those of 16 or 32 bits as they are."""

import functools
import io
import logging
import math

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from readers.files import BadImage, Contents, as_place, library, opened, over, reading
from readers.geometry import squeezed
from runtime.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "JPEG2000")  # some others start programs
Image.MAX_IMAGE_PIXELS = None  # --decoded_limit bounds them instead, and can be raised
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what stops it is raised as well
OPTIONAL = {".webp": "webp", ".avif": "avif", ".jp2": "jpg_2000", ".j2k": "jpg_2000"}  # in Pillow's names
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, TILE_WIDTH, TILE_LENGTH, SAMPLE_FORMAT = (  # tags of TIFF
    256, 257, 258, 262, 274, 322, 323, 339,
)  # fmt: skip
MINISWHITE, SIGNED = 0, 2  # a photometric interpretation, a sample format
LARGEST_TILE = 2**26  # numbers: those of a small TIFF may be larger than itself
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
NOTES = "exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"  # where Pillow finds an orientation


def contents(file, ways, suffix):
    """A file that Pillow reads: 8-bit pictures; gray of 16 or 32 bits and floats; by imagecodecs, 16-bit colour PNG."""
    if suffix in OPTIONAL and not features.check(OPTIONAL[suffix]):
        raise UserError(f"this Pillow cannot read {suffix} files; install one that can: pip install --upgrade pillow")
    image = open_image(file)
    height, width = upright_size(image)
    if sixteen_bit_colour(image):
        channels = len(image.tile[0][3].split(";")[0]) + ("transparency" in image.info)
        # Pillow's own method here, unlike ``orientation``: it finds one behind the pixels, too
        load = lambda part: turned(png_decode(rewound(file).read()), image.getexif().get(ORIENTATION))  # noqa: E731
        return Contents(height, width, channels, np.dtype(np.uint16), load, viewable=True)
    dtype = dtype_of(image)
    if dtype != np.uint8:
        load = lambda part: np.asarray(ImageOps.exif_transpose(image)).astype(dtype, copy=False)  # noqa: E731
        return Contents(height, width, 1, dtype, load, viewable=is_shown(image))
    channels = 1 if image.mode in ("1", "L") else 3
    return Contents(height, width, channels, dtype, None, picture=True)


def open_image(file):
    """Pillow's image of an open file, not decoded yet. Raises UnidentifiedImageError where Pillow knows none, and
    ValueError for a TIFF with tiles that are larger than itself, each of which would be unpacked as a whole."""
    try:
        image = Image.open(file, formats=known_formats())
    except UnidentifiedImageError:  # which names the file once more
        empty = not rewound(file).read(1)
        raise UnidentifiedImageError("it is empty" if empty else "it does not begin as a picture does") from None
    if image.format == "TIFF" and {TILE_WIDTH, TILE_LENGTH} <= set(image.tag_v2):
        tile, bands = (image.tag_v2[TILE_WIDTH], image.tag_v2[TILE_LENGTH]), len(image.getbands())
        check_tile(tile, bands, image.width * image.height * bands)
    return image


def check_tile(sides, channels, numbers):
    """Raise ValueError where a tile of these ``sides`` has more numbers than its image, of so many, and than any may
    have."""
    if math.prod(sides) * channels > max(numbers, LARGEST_TILE):
        raise ValueError(f"its tiles of {'×'.join(map(str, sides))} are larger than itself")


@functools.cache
def known_formats():
    """Those of FORMATS that this Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def rewound(file):
    file.seek(0)
    return file


def sixteen_bit_colour(image):
    """Whether a PNG has 16 bits in each of several channels, of which Pillow would keep 8."""
    return image.format == "PNG" and len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in image.tile)


def upright_size(image):
    """(height, width) as a person sees it, without decoding."""
    width, height = image.size
    if image.format == "TIFF":  # some versions of Pillow have turned the former already
        width, height = image.tag_v2[WIDTH], image.tag_v2[HEIGHT]
    return (width, height) if orientation(image) in TURNED else (height, width)


def orientation(image):
    """The EXIF orientation that a header gives, or None. Pillow's own method would decode a PNG for it."""
    noted = image.format == "TIFF" or not set(NOTES).isdisjoint(image.info)
    return Image.Image.getexif(image).get(ORIENTATION) if noted else None


def png_decode(content):
    return library("imagecodecs").png_decode(content)  # not needed where nothing but headers is read


def turned(array, orientation):
    """H×W×C as a person sees it, by its EXIF ``orientation``."""
    array = array.swapaxes(0, 1) if orientation in TURNED else array
    array = array[::-1] if orientation in (3, 4, 7, 8) else array
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def seen_size(path):
    """(height, width) of an image file as a person sees it, without decoding. Raises BadImage."""
    place = as_place(path)
    with reading(place), opened(place) as file, open_image(file) as image:
        return upright_size(image)


def load_image(path, channels=3, limit=float("inf")):
    """Decode a file, or a page of it, as a person sees it: upright, 8 bits, RGB (L for 1 channel), alpha over white.

    Raises BadImage, also where it would take more than ``limit`` GiB.
    """
    place = as_place(path)
    with reading(place), opened(place, limit) as file, open_picture(file) as image:
        if place.part:
            image.seek(place.part)
        if not is_shown(image):
            raise BadImage(
                place, "its numbers are not those of a picture: of 8 or 16 bits, without a sign, 0 for black"
            )
        numbers = image.width * image.height * len(image.getbands())
        if (size := numbers * dtype_of(image).itemsize / 2**30) > limit:
            raise BadImage(place, f"it would take {over(limit, size)}")
        return as_seen(image, channels)


def dtype_of(image):
    """The type of the numbers that a Pillow image is decoded to."""
    if not image.mode.startswith(("I", "F")):
        return np.dtype(np.uint8)
    return np.dtype({"I": np.int32, "F": np.float32}.get(image.mode, np.uint16))


def is_shown(image):
    """Whether ``as_seen`` shows an image as it is meant. Not a TIFF that has numbers with a sign, or of more than 8
    bits with 0 for white, or whole ones of other than 16."""
    if image.format != "TIFF":
        return True
    tags = image.tag_v2
    negative = image.mode.startswith(("I", "F")) and tags.get(PHOTOMETRIC) == MINISWHITE
    scaled_wrongly = image.mode.startswith("I") and max(tags.get(BITS, (16,))) != 16
    return not (negative or scaled_wrongly or SIGNED in tags.get(SAMPLE_FORMAT, (1,)))


def open_picture(file):
    """``open_image``, for a model of 8-bit pictures. Raises ValueError where it is none."""
    try:
        return open_image(file)
    except UnidentifiedImageError:
        raise ValueError("it is no 8-bit picture, which these images are to be, or damaged") from None


def as_seen(image, channels=3):
    """An image of any mode as a person sees it: upright, 8 bits, RGB (L for 1 channel), alpha over white."""
    seen = flatten(ImageOps.exif_transpose(image)).convert("RGB")  # not all modes can become gray at once
    return seen if channels == 3 else seen.convert("L")


def flatten(image):
    """An image of any mode to one of 8 bits a channel without transparency."""
    if image.mode.startswith(("I", "F")):
        return eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def eight_bits(image):
    """Gray of 16 or 32 bits, or floats in [0, 1], to 8 bits, the one that stands for transparent to white.
    ``Image.convert`` would clip instead of scaling. Raises ValueError for other floats."""
    values = np.array(image, dtype=np.float32)
    if image.mode == "F" and not (np.abs(values - 0.5) < 0.51).all():  # nor NaN
        raise ValueError("its floats are not between 0 and 1, as those of a picture are")
    white = 1.0 if image.mode == "F" else 65535.0
    values[values == image.info.get("transparency")] = white
    values *= np.float32(255 / white)  # in place, since images may be large
    return Image.fromarray(values.clip(0, 255, out=values).round(out=values).astype(np.uint8))


def encode_png(array):
    """H×W×C of 8 or 16 bits as the bytes of a PNG."""
    if array.dtype == np.uint8 or array.shape[-1] == 1:
        buffer = io.BytesIO()
        Image.fromarray(squeezed(array)).save(buffer, "PNG")
        return buffer.getvalue()
    return library("imagecodecs").png_encode(np.ascontiguousarray(array))
