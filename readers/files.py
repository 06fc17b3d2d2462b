"""Where images lie, and the one door through which their files are opened."""

import contextlib
import io
import os
import struct
import zlib
from typing import NamedTuple

import numpy as np

from runtime.errors import NOTHING_LEFT, UserError, first_line
from runtime.files import open_regular
from runtime.libraries import library as optional_library

FEW = 16  # more channels are rare, and so are images that are no wider or higher


class BadImage(UserError):
    """A file that looks like an image by its name and cannot be read as one."""

    def __init__(self, path, reason):
        super().__init__(str(path), reason)  # both, so that the error survives the way out of a worker process

    @property
    def path(self):
        return self.args[0]

    def __str__(self):
        path, reason = self.args
        return f"{path} is not a readable image ({reason}); remove it or add --skip_bad_images"


class NothingLeft(UserError):
    """The machine has too little memory, or too many open files, to read an image."""


@contextlib.contextmanager
def reading(path):
    """Whatever goes wrong inside is the file's fault, and raised as BadImage; but a UserError is no file's fault, and
    neither is what is raised as NothingLeft."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error …
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in NOTHING_LEFT:
            why = getattr(error, "strerror", None) or "out of memory"
            raise NothingLeft(
                f"{path} cannot be read now ({why}); try a smaller --n_cpu, where there is one"
            ) from error
        reason = getattr(error, "strerror", None) or first_line(error, type(error).__name__)
        raise BadImage(path, reason) from error


def library(name):
    """An optional library that reads or writes a kind of file; raises UserError where it is missing."""
    return optional_library(name, "this kind of file", "requirements-data.txt")


class Contents(NamedTuple):
    """What a file holds, as its header says: ``count`` images of height × width × channels.

    ``load(part)`` decodes one of them to an array H×W or H×W×C. ``low`` and ``high``: what its pixels can be, where
    that is less than their type can hold.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    load: object
    count: int = 1
    low: float = None
    high: float = None
    picture: bool = False  # 8 bits, to be loaded as a person sees it
    viewable: bool = False  # of more bits, but could be loaded so, too

    @property
    def floats(self):
        return np.dtype(self.dtype).kind == "f"


class Place(str):
    """The path of an image, as if archives and volumes were folders: ``scans.zip/a.png``, ``head.nii.gz/012``.

    The image is number ``part`` in the bytes of ``file`` from ``offset`` on; ``size`` is None where that is the whole
    file. ``name`` is the name whose suffix tells the format. ``packed``: as how many bytes a zip holds it, behind a
    header of its own; ``deflated``: whether those are to be inflated.
    """

    def __new__(cls, path, file=None, name=None, offset=0, size=None, packed=None, deflated=False, part=0):
        place = super().__new__(cls, path)
        place.file, place.name = file or os.fspath(path), name or os.fspath(path)
        place.offset, place.size, place.packed, place.deflated, place.part = offset, size, packed, deflated, part
        return place

    def parts(self, count):
        """The places of the images in a file that may hold several."""
        where = self.file, self.name, self.offset, self.size, self.packed, self.deflated
        digits = max(3, len(str(count - 1)))
        return [Place(f"{self}/{part:0{digits}}", *where, part) for part in range(count)]


def as_place(path):
    return path if isinstance(path, Place) else Place(os.fspath(path))


def files_of(places):
    """The files in which ``places`` lie, each once."""
    return sorted({as_place(place).file for place in places})


def over(limit, size):
    """How errors end where something takes ``size`` GiB, and more than ``limit`` are not to be taken."""
    return f"{size:.3g} GiB, and --decoded_limit is {limit:g}; raise that if you trust it"


@contextlib.contextmanager
def opened(place, limit=float("inf")):
    """The bytes of an image file, to be read: the only place where one is opened.

    Each call opens the file anew, so that the loader's processes share no position in it. ``limit``: GiB to which a
    packed member of an archive may grow. Raises ValueError above it.
    """
    if place.deflated and place.size > limit * 2**30:
        raise ValueError(f"it unpacks to {over(limit, place.size / 2**30)}")
    with open_regular(place.file) as file:
        if place.size is None:
            yield file
        else:
            yield io.BytesIO(member(file, place))


class Nameless:
    """An open file that does not say where it lies: a library cannot look for others beside it, as FFmpeg does for a
    pattern in the name, and tifffile for the files that an OME-TIFF names."""

    def __init__(self, file):
        self.read, self.seek, self.tell, self.readinto = file.read, file.seek, file.tell, file.readinto


LOCAL_HEADER = struct.Struct("<26x2H")  # of a zip's member: its last fields, the lengths of name and extra field


def member(file, place):
    """The bytes of one member of an archive."""
    file.seek(place.offset)
    if place.packed is None:
        content = file.read(place.size)
    else:
        name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(name + extra, os.SEEK_CUR)
        content = file.read(place.packed)
        if place.deflated:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, max(place.size, 1))  # 0 is no bound
    if len(content) != place.size:
        raise ValueError(f"{place.file} is cut short or damaged")
    return content
