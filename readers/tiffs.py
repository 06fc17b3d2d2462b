"""TIFF: 8-bit pictures by Pillow, all others by tifffile."""

import importlib.util

import numpy as np
from PIL import UnidentifiedImageError

from readers import pictures
from readers.codestreams import check_size
from readers.files import Contents, Nameless, library

SAMPLES = "S"  # tifffile's letters for axes: channels within a page,
CHANNELS = "C"  # and pages that are channels
UNPACKED = 1
TO_A_SIZE = {2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000}  # unpacked to what the file around them says
STREAMS = {7, 33003, 33004, 33005, 33007, 34712, 34892}  # JPEG and JPEG 2000, which say themselves how large they are


def contents(file, ways, suffix):
    """One image, or a stack of pages, which are its channels or, with ``--pages images``, images."""
    by_pillow = None
    try:
        image = pictures.open_image(file)
        deep = max(image.tag_v2.get(258, (8,))) > 8  # BitsPerSample
        found = pictures.contents(pictures.rewound(file), ways, suffix)
        if image.n_frames == 1 and not (deep and found.picture):
            by_pillow = found
    except (UnidentifiedImageError, SyntaxError):  # Pillow knows no such number or order of channels
        pass
    if by_pillow and (by_pillow.picture or importlib.util.find_spec("tifffile") is None):
        return by_pillow
    file.seek(0)
    series = library("tifffile").TiffFile(Nameless(file)).series[0]
    if len(series.shape) < 2:
        raise ValueError("it has no height and width")
    return stack(series, ways.pages, viewable=by_pillow is not None)


def stack(series, pages, viewable):
    """A tifffile series as Contents."""
    if missing := set("YX") - set(series.axes):
        raise ValueError(f"it has no axes {missing}, but {series.axes}")
    height, width = (series.shape[series.axes.index(axis)] for axis in "YX")
    others = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YX"]
    inner = "".join(axis for axis, _ in others if pages == "channels" or axis in SAMPLES + CHANNELS)
    outer = "".join(axis for axis, _ in others if axis not in inner)
    sizes = dict(others)
    channels, count = (int(np.prod([sizes[axis] for axis in axes], dtype=int)) for axes in (inner, outer))

    def load(part):
        one = len(series.pages) == count > 1  # of many pages, only this one
        source = series.pages[part] if one else series
        check_packed([source] if one else filter(None, series.pages))
        axes, array = source.axes, decode(source)
        order = [axes.index(axis) for axis in (*outer, *"YX", *inner) if axis in axes]
        array = array.transpose(order).reshape(-1, height, width, channels)
        return array[part if len(array) > 1 else 0]

    return Contents(height, width, channels, series.dtype, load, count, viewable=viewable and channels == 1)


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
