"""Translations on their way to files: in the target domain's type, range and format, never through fewer bits."""

import itertools
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from readers.files import as_place, library
from readers.formats import suffix_of
from readers.geometry import squeezed
from readers.pictures import encode_png
from runtime.errors import UserError
from runtime.files import replacing

# ---------------------------------------------------------------------------------------------------------------------
# One function for each format: (array H×W×C, open file, suffix)
# ---------------------------------------------------------------------------------------------------------------------


MOST_PIXELS = {"JPEG": 65500, "WEBP": 16383}  # a side, by their encoders


def write_png(array, file, suffix):
    file.write(encode_png(array))


def write_picture(array, file, suffix):
    """8 bits in the format of the suffix, with as little loss as that has. Raises UserError where it is too large."""
    image = Image.fromarray(squeezed(array))
    kind = Image.registered_extensions()[suffix]
    if max(image.size) > (most := MOST_PIXELS.get(kind, math.inf)):
        raise UserError(f"a {kind} file has {most} pixels a side at most; take --output_format png, not {suffix[1:]}")
    image.save(file, kind, quality=95, subsampling=0, lossless=True)  # JPEG reads the first two, WebP the last


def write_tiff(array, file, suffix):
    """Channels interleaved. 8-bit pictures by Pillow, so that nothing else is needed for them."""
    if array.dtype == np.uint8 and array.shape[-1] in (1, 3):
        return write_picture(array, file, suffix)
    colour = array.shape[-1] == 3
    pixels = squeezed(array)
    library("tifffile").imwrite(
        file, np.ascontiguousarray(pixels), photometric="rgb" if colour else "minisblack",
        planarconfig="contig" if pixels.ndim == 3 else None, metadata=None,
    )  # fmt: skip


def write_npy(array, file, suffix):
    np.save(file, np.ascontiguousarray(squeezed(array)), allow_pickle=False)


LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp")  # or of 8 bits at most
WRITERS = {
    ".png": write_png,
    **dict.fromkeys(LOSSY, write_picture),
    **dict.fromkeys((".tif", ".tiff"), write_tiff),
    ".npy": write_npy,
}


def output_suffix(place, origin, target, wanted):
    """The suffix for the translation of ``place`` from domain ``origin`` to ``target``; ``wanted`` is --output_format.

    A picture that becomes a picture keeps its own, and others get that of the target's training files.
    """
    if wanted != "trained":
        return f".{wanted}"
    suffix = suffix_of(as_place(place).name) if origin.picture and target.picture else target.suffix
    return suffix if can_hold(suffix, target) else ".png" if target.picture else ".tif"


def can_hold(suffix, domain):
    """Whether a file of that format can hold images of ``domain``; those of 8 bits may suffer the loss of a JPEG."""
    if suffix not in WRITERS:
        return False
    if suffix in LOSSY:
        return domain.dtype == "uint8" and domain.channels in (1, 3)
    return suffix != ".png" or (domain.dtype in ("uint8", "uint16") and domain.channels in (1, 3))


def check_format(wanted, domain):
    """Raise UserError where ``--output_format`` cannot hold what the target domain is."""
    if wanted != "trained" and not can_hold(f".{wanted}", domain):
        raise UserError(f"--output_format {wanted} cannot hold {domain}; take tif or npy")


def output_names(places, root, origin, target, wanted):
    """The name below the output folder for the translation of each of ``places`` below ``root``; all differ. An image
    that keeps its format keeps its name."""
    names = [Path(place).relative_to(root) for place in places]
    suffixes = [output_suffix(place, origin, target, wanted) for place in places]
    keeps = [suffix_of(name.name) == suffix for name, suffix in zip(names, suffixes, strict=True)]
    given, taken = {}, set()
    for i in sorted(range(len(names)), key=lambda i: not keeps[i]):
        given[i] = next(path for path in possible_names(names[i], suffixes[i]) if path not in taken)
        taken.add(given[i])
    return [given[i] for i in range(len(names))]


def possible_names(name, suffix):
    """Names for the translation of the image ``name`` in the format ``suffix``, the best first."""
    own = suffix_of(name.name)
    usual = name.name if own == suffix else name.name[: len(name.name) - len(own)] + suffix
    numbered = (f"{name.name}_{number}{suffix}" for number in itertools.count(2))  # an archive may have one twice
    return map(name.with_name, itertools.chain([usual, name.name + suffix], numbered))  # the second: a.dcm and a.npy


# ---------------------------------------------------------------------------------------------------------------------
# Writing while the next images are translated
# ---------------------------------------------------------------------------------------------------------------------


class Writers:
    """Encodes and writes images in threads, so that translating need not wait; an error comes out at the next call."""

    THREADS = 4

    def __init__(self):
        self.pool, self.pending = ThreadPoolExecutor(self.THREADS), deque()

    def save(self, array, path):
        """Take ``array`` over to be written; waits while many are still to be written."""
        self.pending.append(self.pool.submit(save_image, array, path))
        if len(self.pending) > 4 * self.THREADS:
            self.pending.popleft().result()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.pool.shutdown(cancel_futures=exception[0] is not None)
        for written in self.pending if exception[0] is None else ():
            written.result()


def save_image(array, path):
    """Write H×W×C in the format of the path's suffix."""
    suffix = path.suffix.lower()
    with replacing(path) as file:
        WRITERS[suffix](array, file, suffix)
