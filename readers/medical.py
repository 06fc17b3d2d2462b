"""Scans: DICOM by pydicom, NIfTI volumes by nibabel."""

import gzip
import io
import math

import numpy as np

from readers.codestreams import check_size
from readers.files import Contents, library, opened

DEFLATED = "1.2.840.10008.1.2.1.99"
RUN_LENGTHS = "1.2.840.10008.1.2.5"
READ_OVER = 256  # bytes between two voxels of a slice that nibabel rather reads than skips
MOST_BEFORE_VOXELS = 2**24  # bytes of a NIfTI file: its header, and what programs note there


def dicom(file, ways, suffix):
    """A DICOM image in the units of its rescale (for CT, Hounsfield units); frames are channels, or images.

    It stays of whole numbers where slope and intercept are whole.
    """
    pydicom = library("pydicom")
    check_not_deflated(file)
    scan = pydicom.dcmread(file, stop_before_pixels=True)
    if "Rows" not in scan or not file.read(1):
        raise ValueError("a DICOM file without pixels")
    frames, samples = int(scan.get("NumberOfFrames", 1) or 1), int(scan.get("SamplesPerPixel", 1))
    slope, intercept = float(scan.get("RescaleSlope", 1)), float(scan.get("RescaleIntercept", 0))
    bits, signed = int(scan.get("BitsStored", 16)), bool(scan.get("PixelRepresentation", 0))
    stored = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    low, high = sorted(slope * value + intercept for value in stored)
    whole = slope.is_integer() and intercept.is_integer()
    dtype = np.dtype(smallest_integer(low, high) if whole else np.float32)

    def load(part):
        from readers import dicom_codecs  # not before pydicom is known to be installed

        file.seek(0)
        whole = pydicom.dcmread(file)
        index = part if as_images else None
        check_frames(whole, frames, index)
        dicom_codecs.ready(whole.file_meta.TransferSyntaxUID)
        pixels = library("pydicom.pixels").pixel_array(whole, index=index, allow_excess_frames=False)
        pixels = np.concatenate(list(pixels.reshape(-1, scan.Rows, scan.Columns, samples)), -1)
        return pixels if (slope, intercept) == (1, 0) else (pixels * slope + intercept).astype(dtype)

    as_images = ways.pages == "images"
    channels, count = (samples, frames) if as_images else (samples * frames, 1)
    return Contents(scan.Rows, scan.Columns, channels, dtype, load, count, low, high)


def check_frames(scan, frames, part):
    """Raise ValueError where what is packed in frame ``part``, or in any for None, a JPEG for instance, is more than it
    has room for."""
    syntax = scan.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == RUN_LENGTHS:
        return
    encaps = library("pydicom.encaps")
    table = [scan.get(f"ExtendedOffsetTable{end}") for end in ("", "Lengths")]
    where = {"number_of_frames": frames, "extended_offsets": tuple(table) if all(table) else None}
    one = None if part is None else [encaps.get_frame(scan.PixelData, part, **where)]
    for stream in one or encaps.generate_frames(scan.PixelData, **where):
        check_size(stream, scan.Rows * scan.Columns * int(scan.get("SamplesPerPixel", 1)))


def check_not_deflated(file):
    """Raise ValueError where pydicom would inflate the whole file, to whatever that is, before it says how much."""
    reader = library("pydicom.filereader")
    reader.read_preamble(file, False)
    if reader._read_file_meta_info(file).get("TransferSyntaxUID") == DEFLATED:
        raise ValueError("it is deflated as a whole; save it with another transfer syntax")
    file.seek(0)


def smallest_integer(low, high):
    """The smallest integer type that holds ``low`` and ``high``."""
    kinds = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)
    return next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


def nifti(file, ways, suffix):
    """The slices of a volume along ``--slice_axis``, turned so that its second axis points up; a fourth axis is
    channels."""
    volume = open_volume(file, suffix)
    shape = [*volume.shape, 1, 1, 1, 1][: max(4, len(volume.shape))]
    if len(shape) > 4 and max(shape[4:]) > 1 or not volume.shape:
        raise ValueError(f"its shape is {volume.shape}, not that of a volume or of one with channels")
    scaled = volume.header.get_slope_inter() not in ((None, None), (1.0, 0.0))
    dtype = np.dtype(np.float32) if scaled else volume.get_data_dtype()
    axis = ways.slice_axis
    count = shape[axis]
    columns, rows = (n for i, n in enumerate(shape[:3]) if i != axis)
    if min(columns, rows) == 1 < count:
        raise ValueError(f"a volume of {shape[0]}×{shape[1]}×{shape[2]} has no images along --slice_axis {axis}")
    between = (count - 1) * math.prod(shape[:axis]) * volume.get_data_dtype().itemsize
    whole = math.prod(shape) * volume.get_data_dtype().itemsize / 2**30
    if between <= READ_OVER and whole > ways.limit:
        raise ValueError(f"for one slice all its {whole:.1f} GiB are read, and --decoded_limit is {ways.limit:g}")

    def load(part):
        chosen = [slice(None)] * len(volume.shape)
        if axis < len(chosen):
            chosen[axis] = part
        pixels = np.asanyarray(volume.dataobj[tuple(chosen)]).reshape(columns, rows, shape[3])
        return np.rot90(pixels.astype(dtype, copy=False))

    return Contents(rows, columns, shape[3], dtype, load, count)


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


def affine_of(place):
    """Where the voxels of the volume at ``place`` lie in space: 4×4."""
    with opened(place) as file:
        return open_volume(file, place.name.lower()).affine
