"""Which reader reads which file: one table, by suffix.

To add a format: write a function (file, ways, suffix) → Contents, and one entry here. ``file`` is open for reading, and
stays so until the pixels are loaded; ``ways`` has the attributes of a Domain that say how to read: ``pages``,
``slice_axis``. Libraries that not everyone has are imported inside the function, by ``readers.files.library``. A
format that Pillow opens stands in ``FORMATS`` in readers/pictures.py, too. Only what is marked ``picture=True``, which
Pillow has to open, becomes a picture again; arrays of 8 bits are numbers, and their translations TIFF.
"""

import contextlib
import importlib
import math
import os
from typing import NamedTuple

import numpy as np

from readers.files import BadImage, as_place, opened, over, reading
from runtime.errors import counted


class Reader(NamedTuple):
    """``where`` is "module:function". ``parts``: whether a file may hold several images: "never", "always" or, as
    pages, where ``--pages images`` is given."""

    where: str
    parts: str = "never"


PICTURE = Reader("readers.pictures:contents")
READERS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".avif"), PICTURE),
    **dict.fromkeys((".jp2", ".j2k"), Reader("readers.jpeg_2000:contents")),
    **dict.fromkeys((".tif", ".tiff"), Reader("readers.tiffs:contents", parts="pages")),
    ".npy": Reader("readers.arrays:npy"),
    ".npz": Reader("readers.arrays:npz"),
    ".dcm": Reader("readers.dicom:dicom", parts="pages"),
    **dict.fromkeys((".nii", ".nii.gz"), Reader("readers.nifti:nifti", parts="always")),
}


def suffix_of(name):
    """The suffix of a file's name that the table knows, or ""."""
    name = os.path.basename(name).lower()
    endings = (name[i:] for i, letter in enumerate(name) if letter == "." and i)
    return next((ending for ending in endings if ending in READERS), "")


@contextlib.contextmanager
def contents(place, ways):
    """The Contents of the file in which ``place`` lies, for as long as it is open. Raises BadImage, UserError."""
    place = as_place(place)
    suffix = suffix_of(place.name)
    module, name = READERS.get(suffix, PICTURE).where.split(":")
    with reading(place), opened(place, ways.limit) as file:
        found = as_numbers(getattr(importlib.import_module(module), name)(file, ways, suffix))
        check(place, found, ways.limit)
        yield found


def as_numbers(found):
    """Contents of booleans as whole numbers, 0 and 1; others as they are."""
    if found.dtype != bool:
        return found
    return found._replace(dtype=np.dtype(np.uint8), load=lambda part: found.load(part).view(np.uint8), low=0, high=1)


def check(place, found, limit):
    """Raise BadImage for what no network takes, and for what would take more than ``limit`` GiB."""
    dtype = np.dtype(found.dtype)
    if dtype.kind not in "uif":
        raise BadImage(place, f"its pixels are of the type {dtype}, not real numbers")
    if min(found.height, found.width, found.channels, found.count) < 1:
        raise BadImage(place, "it holds no pixels")
    if found.count > (place.packed or place.size or os.path.getsize(place.file)):
        raise BadImage(place, f"its header promises {found.count} images, more than it has bytes")
    size = math.prod((found.height, found.width, found.channels, dtype.itemsize)) / 2**30
    if size > limit:
        shape = f"{found.width}×{found.height}, {counted(found.channels, 'channel')}"
        raise BadImage(place, f"its {shape} take {over(limit, size)}")


def expand(places, ways):
    """``places`` of files to those of the images in them: a volume is one for each slice."""
    several = {"always"} | ({"pages"} if ways.pages == "images" else set())
    for place in map(as_place, places):
        if READERS.get(suffix_of(place.name), PICTURE).parts not in several:
            yield place
            continue
        try:
            with contents(place, ways) as found:
                count = found.count
        except BadImage:
            count = 1  # the check of all headers will name it
        yield from place.parts(count) if count > 1 else [place]
