"""NIfTI volumes, by nibabel."""

import gzip
import io
import math

import numpy as np

from readers import integers
from readers.files import Contents, library, opened, over

READ_OVER = 256  # bytes between two voxels of a slice that nibabel rather reads than skips
SPACE = (  # the fields of a NIfTI header that say where its voxels lie
    *("pixdim", "xyzt_units", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
MOST_BEFORE_VOXELS = 2**24  # bytes of a NIfTI file: its header, and what programs note there
AS_STORED = np.array([[0, 1], [1, 1], [2, 1]])  # axis and direction of each of a file's axes, as nibabel has them


def nifti(file, ways, suffix):
    """The slices of a volume along ``--slice_axis``; a fourth axis is channels.

    The axes are those of a patient, from left to right, from back to front and upwards, whichever way the file holds
    them; slices are turned so that the second of their two axes points up. Whole numbers with a slope and an intercept
    that are whole, too, stay such.
    """
    volume = open_volume(file, suffix)
    shape = [*volume.shape, 1, 1, 1, 1][: max(4, len(volume.shape))]
    if len(shape) > 4 and max(shape[4:]) > 1 or not volume.shape:
        raise ValueError(f"its shape is {volume.shape}, not that of a volume or of one with channels")
    low, high, dtype = voxel_range(volume)
    turn = orientation(volume)
    in_file = np.argsort(turn[:, 0])  # which of the file's axes is each of the patient's
    axis = in_file[ways.slice_axis]
    count = shape[axis]
    columns, rows = (shape[i] for i in in_file if i != axis)
    if min(columns, rows) == 1 < count:
        size = "×".join(str(shape[i]) for i in in_file)
        raise ValueError(f"a volume of {size} has no images along --slice_axis {ways.slice_axis}")
    between = (count - 1) * math.prod(shape[:axis]) * volume.get_data_dtype().itemsize
    whole = math.prod(shape) * volume.get_data_dtype().itemsize / 2**30
    if between <= READ_OVER and whole > ways.limit:
        raise ValueError(f"for one slice all of it is read, {over(ways.limit, whole)}")

    def load(part):
        chosen = [slice(None)] * len(volume.shape)
        if axis < len(chosen):
            first = part if turn[axis, 1] > 0 else count - 1 - part
            chosen[axis] = slice(first, first + 1)
        pixels = np.asanyarray(volume.dataobj[tuple(chosen)])
        pixels = pixels.reshape([1 if i == axis else n for i, n in enumerate(shape[:4])])
        pixels = library("nibabel").apply_orientation(pixels, turn).reshape(columns, rows, shape[3])
        return np.rot90(pixels.astype(dtype, copy=False))

    return Contents(rows, columns, shape[3], dtype, load, count, low, high)


def voxel_range(volume):
    """(least, greatest, type) of the voxels; None for the first two where these are what the type can hold."""
    stored, rescale = volume.get_data_dtype(), (volume.dataobj.slope, volume.dataobj.inter)  # its header forgot them
    if rescale == integers.PLAIN or stored.kind not in "iuf":  # others are refused
        return None, None, stored
    if stored.kind == "f":
        return None, None, np.dtype(np.float32)
    return integers.rescaled(integers.ends(8 * stored.itemsize, stored.kind == "i"), [rescale])


def orientation(volume):
    """How ``volume`` lies: of each of its three axes, which one it is of left to right, back to front and upwards (the
    nearest where it is oblique), and 1, or -1 for the other way. As it is stored where its header does not say."""
    nibabel, header = library("nibabel"), volume.header
    if not (header["sform_code"] or header["qform_code"]):
        return AS_STORED
    try:
        found = nibabel.io_orientation(header.get_best_affine())
    except (ValueError, nibabel.spatialimages.HeaderDataError):  # it is no rotation, or not of numbers
        return AS_STORED
    return found.astype(int) if np.isfinite(found).all() else AS_STORED


def open_volume(file, suffix):
    """nibabel's image of an open file, its pixels not loaded yet."""
    nibabel = library("nibabel")
    stream = gzip.GzipFile(fileobj=file) if suffix.endswith(".gz") else file
    start = stream.read(1024)
    kinds = [nibabel.Nifti1Image, nibabel.Nifti2Image]
    kind = next((kind for kind in kinds if kind.header_class.may_contain_header(start)), None)
    if kind is None:
        raise ValueError("it is not a NIfTI file")
    offset = int(kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)["vox_offset"])
    if offset > MOST_BEFORE_VOXELS:
        raise ValueError(f"it has {offset} bytes before its voxels")
    stream.seek(0)
    before = io.BytesIO(stream.read(max(offset, len(start))))  # not more than this can be noted there
    header = kind.header_class.from_fileobj(before)
    return kind(kind.ImageArrayProxy(stream, header.copy()), None, header)


def volume_like(place, array):
    """The bytes of a NIfTI volume whose voxels lie in space as those of the one at ``place``; those of ``array`` are as
    ``nifti`` turns them."""
    nibabel = library("nibabel")
    with opened(place) as file:
        source = open_volume(file, place.name.lower())
    header, back = source.header, nibabel.orientations.ornt_transform(AS_STORED, orientation(source))
    array = nibabel.apply_orientation(array, back)
    image = nibabel.Nifti1Image(array, None, dtype=array.dtype)
    for field in SPACE:  # as they are: what a scanner wrote is kept, where it is wrong, too
        image.header[field] = header[field]
    return image.to_bytes()
