"""TIFF: 8-bit pictures by Pillow, all others by tifffile."""

import importlib.util
import logging
import math
from itertools import count

import numpy as np
from PIL import UnidentifiedImageError

from readers import pictures
from readers.codestreams import check_size
from readers.files import FEW, Contents, Nameless, library, over
from readers.pictures import BITS, MINISWHITE, PHOTOMETRIC, SAMPLE_FORMAT

SAMPLES = "S"  # tifffile's letters for axes: channels within a page,
CHANNELS = "C"  # and pages that are channels
KIND, SAMPLES_PER_PIXEL, EXTRA_SAMPLES = 254, 277, 338  # tags
NODATA = 42113  # GDAL's
BESIDE = 1 | 4  # kinds of pages: a smaller copy, a mask
PALETTE = 3  # a photometric interpretation
COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # samples of others: RGB, CMYK, YCbCr, Lab
ALPHA = (1,), (2,)  # extra samples
UNPACKED = 1
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what stops it is raised as well
TO_A_SIZE = {2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000}  # unpacked to what the file around them says
STREAMS = {7, 33003, 33004, 33005, 33007, 34712, 34892}  # JPEG and JPEG 2000, which say themselves how large they are


def contents(file, ways, suffix):
    """One image, or a stack of pages, which are its channels or, with ``--pages images``, images."""
    by_pillow, negative = None, False
    try:
        image = pictures.open_image(file)
        if image.format != "TIFF":  # whatever its name
            return pictures.contents(pictures.rewound(file), ways, suffix)
        shown, negative = shows_all(image.tag_v2), image.tag_v2.get(PHOTOMETRIC) == MINISWHITE
        found = pictures.contents(pictures.rewound(file), ways, suffix)
        if (shown or not found.picture) and of_one_page(image):
            by_pillow = found
    except (UnidentifiedImageError, SyntaxError):  # Pillow knows no such number or order of channels
        pass
    if by_pillow and (by_pillow.picture or not negative and importlib.util.find_spec("tifffile") is None):
        return by_pillow
    return stack(series_of(file, ways.pages), ways, viewable=by_pillow is not None and by_pillow.viewable)


def shows_all(tags):
    """Whether Pillow shows all that a TIFF with these ``tags`` holds: 8 bits without a sign, and no band beside the
    colours but one of transparency."""
    samples, extra = tags.get(SAMPLES_PER_PIXEL, 1), tuple(tags.get(EXTRA_SAMPLES, ()))
    colours = COLOURS.get(tags.get(PHOTOMETRIC), 1)
    eight = max(tags.get(BITS, (8,))) <= 8 and set(tags.get(SAMPLE_FORMAT, (1,))) == {1}
    return eight and (samples == colours or samples == colours + 1 and extra in ALPHA)


def of_one_page(image):
    """Whether all pages of Pillow's ``image`` but the first are smaller copies of it, or masks."""
    for page in count(1):
        try:
            image.seek(page)
        except EOFError:
            return True
        if not image.tag_v2.get(KIND, 0) & BESIDE:
            return False


def series_of(file, pages):
    """The tifffile series of an open file that is read. Raises ValueError where pages of others would be left out."""
    tifffile = library("tifffile")
    file.seek(0)
    found = tifffile.TiffFile(Nameless(file)).series
    if None in found[0].pages:  # one of the files of an OME-TIFF: its pages are its own
        file.seek(0)
        found = tifffile.TiffFile(Nameless(file), is_ome=False).series
    first, *others = [series for series in found if not series.keyframe.subfiletype & BESIDE] or found
    if others and (pages == "images" or not all(is_smaller(series.keyframe, first.keyframe) for series in others)):
        raise ValueError("its pages are of several sizes or kinds; save them as files of their own")
    return first


def is_smaller(page, other):
    """Whether a page may be a smaller copy of another one, though it does not say so."""
    return page.imagelength < other.imagelength and page.imagewidth < other.imagewidth


def stack(series, ways, viewable):
    """A tifffile series as Contents. Raises ValueError where one image takes all to be read, and they are too many."""
    axes, shape = series.axes, series.shape
    if series.keyframe.photometric == PALETTE and not series.keyframe.is_imagej:  # whose palettes merely show numbers
        raise ValueError("its pixels are numbers of a palette; save it in colours")
    if missing := set("YX") - set(axes):
        raise ValueError(f"it has no axes {missing}, but {axes}")
    upright = [axes.index(axis) for axis in "YX"]
    outer = [i for i, axis in enumerate(axes) if ways.pages == "images" and axis not in "YX" + SAMPLES + CHANNELS]
    inner = [i for i in range(len(axes)) if i not in upright + outer]
    height, width = (shape[i] for i in upright)
    many, channels = (math.prod(shape[i] for i in places) for places in (outer, inner))
    if ways.pages == "channels" and channels > width and width <= FEW and height > FEW:
        raise ValueError(
            f"its {channels} pages are of {width}×{height}, as tifffile writes {channels}×{height}×{width}: "
            f"write it with planarconfig='contig' if the {width} are its channels, or read it with --pages images"
        )
    orientation = series.keyframe.tags.valueof(pictures.ORIENTATION)
    pages = pages_of(series, outer, many) if many > 1 else None
    whole = math.prod(shape) * series.dtype.itemsize / 2**30
    if pages is None and many > 1 and whole > ways.limit:
        raise ValueError(f"for one image all of it is read, {over(ways.limit, whole)}")

    def load(part):
        chosen = series.pages if pages is None else [series.pages[place] for place in pages[part]]
        check_packed(filter(None, chosen))
        if pages is None:
            array = decode(series)
        else:  # along the outer axes it is one
            array = np.stack([decode(page) for page in chosen])
            array = array.reshape([1 if i in outer else n for i, n in enumerate(shape)])
        array = array.transpose(outer + upright + inner).reshape(-1, height, width, channels)
        return pictures.turned(as_meant(array[part if len(array) > 1 else 0], series.keyframe), orientation)

    seen = (width, height) if orientation in pictures.TURNED else (height, width)
    return Contents(*seen, channels, series.dtype, load, many, viewable=viewable and channels == 1)


def pages_of(series, outer, many):
    """N×P: which P pages of a tifffile ``series`` make each of its ``many`` images, which go on along the axes at the
    places ``outer``; None where its pages are not each of one image."""
    page = series.keyframe.axes
    between = len(series.axes) - len(page)  # axes along which one page follows another
    shape = series.shape[:between]
    alike = series.axes.endswith(page) and max(outer) < between and len(series.pages) == math.prod(shape)
    if not alike or None in series.pages:
        return None
    order = outer + [i for i in range(between) if i not in outer]
    return np.arange(len(series.pages)).reshape(shape).transpose(order).reshape(many, -1)


def as_meant(array, page):
    """The numbers of a TIFF as its tags mean them: turned round where 0 is white, and NaN where GDAL's tag says that a
    float stands for no data."""
    if page.photometric == MINISWHITE and array.dtype.kind in "bu":
        return array ^ array.dtype.type(2**page.bitspersample - 1)  # all bits: the greatest number less each
    nodata = str(page.tags.valueof(NODATA, "")).strip()
    if nodata and array.dtype.kind == "f":
        return np.where(array == array.dtype.type(number(nodata)), array.dtype.type("nan"), array)
    return array


def number(nodata):
    try:
        return float(nodata)
    except ValueError:
        raise ValueError(f"its tag GDAL_NODATA is {nodata!r}, which is no number") from None


def decode(source):
    """The pixels of a tifffile page or series. Raises UserError where only imagecodecs can decompress them."""
    try:
        return source.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            library("imagecodecs")
        raise


def check_packed(pages):
    """Raise ValueError where what is packed in a page could be more than the page. Raises UserError without
    imagecodecs."""
    for page in pages:
        key = page.keyframe
        if key.compression == UNPACKED:
            continue
        library("imagecodecs")  # what tifffile unpacks without it has no bound
        if key.compression not in TO_A_SIZE | STREAMS:
            raise ValueError(f"it is packed by {key.compression!s}; save it with another compression")
        numbers = key.imagedepth * key.imagelength * key.imagewidth * key.samplesperpixel
        if key.is_tiled:
            pictures.check_tile(key.tile, key.samplesperpixel, numbers)
        if key.compression in STREAMS:
            for stream, _ in key.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
                if stream is not None:
                    check_size(stream, max(numbers, pictures.LARGEST_TILE))
