"""NumPy's files: .npy, memory-mapped, and .npz with one array. Never with pickled objects."""

import math
import os
import zipfile

import numpy as np
from numpy.lib import format as npy_format

from readers.files import FEW, Contents

LONGEST = 10000  # bytes of a header, as NumPy bounds it, but after reading it
HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def npy(file, ways, suffix):
    """An array H×W or H×W×C; of a file on the disk, only what is asked for is read."""
    shape, fortran, dtype = header(file)
    start = file.tell()
    promised = start + math.prod(shape) * dtype.itemsize
    if file.seek(0, 2) < promised:
        raise ValueError(f"its header promises {promised} bytes and it holds {file.tell()}")
    order = "F" if fortran else "C"
    if hasattr(file, "getbuffer"):  # in an archive
        array = np.ndarray(shape, dtype, file.getbuffer(), start, order=order)
    else:
        array = np.memmap(file, dtype, "r", start, shape, order)
    return contents(shape, dtype, lambda part: array)


def npz(file, ways, suffix):
    """The one array of an .npz."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} arrays, not one: {', '.join(names)}")
        with archive.open(names[0]) as member:
            shape, _, dtype = header(member)
            if archive.getinfo(names[0]).file_size < math.prod(shape) * dtype.itemsize:
                raise ValueError("its header promises more than it holds")

    def load(part):
        file.seek(0)
        (array,) = np.load(file, allow_pickle=False).values()
        return array

    return contents(shape, dtype, load)


def header(file):
    """(shape, whether in Fortran's order, type) of a .npy file. Raises ValueError."""
    version = npy_format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"it is of NumPy's format {version}, which is not known here")
    width = 2 * version[0]  # bytes of its length
    length = int.from_bytes(file.read(width), "little")
    if length > LONGEST:
        raise ValueError(f"its header has {length} bytes")
    file.seek(-width, os.SEEK_CUR)
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded; save it as numbers")
    return shape, fortran, dtype


def contents(shape, dtype, load):
    if len(shape) not in (2, 3):
        raise ValueError(f"its shape is {shape}, not (height, width) or (height, width, channels)")
    if len(shape) == 3 and shape[0] <= FEW < shape[2]:
        raise ValueError(
            f"its shape is {shape}, and channels come last: if the first axis is theirs, np.moveaxis(array, 0, -1)"
        )
    sizes = *shape[:2], shape[2] if len(shape) == 3 else 1
    return Contents(*sizes, dtype, load)
