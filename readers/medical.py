"""Scans: DICOM by pydicom, NIfTI volumes by nibabel."""

import gzip
import io
import math
from itertools import cycle

import numpy as np

from readers import integers
from readers.codestreams import check_size
from readers.files import Contents, library, opened, over

DEFLATED = "1.2.840.10008.1.2.1.99"
RUN_LENGTHS = "1.2.840.10008.1.2.5"
FLOATS = {b"\xe0\x7f\x08\0": np.dtype(np.float32), b"\xe0\x7f\x09\0": np.dtype(np.float64)}  # tags of pixels
READ_OVER = 256  # bytes between two voxels of a slice that nibabel rather reads than skips
SPACE = (  # the fields of a NIfTI header that say where its voxels lie
    *("pixdim", "xyzt_units", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
MOST_BEFORE_VOXELS = 2**24  # bytes of a NIfTI file: its header, and what programs note there


def dicom(file, ways, suffix):
    """A DICOM image in the units of its rescale (for CT, Hounsfield units); frames are channels, or images.

    It stays of whole numbers where slope and intercept are whole. Without a rescale MONOCHROME1, whose least number is
    white, is turned round.
    """
    scan = header(file)
    tag = file.read(4)  # of the pixels
    if "Rows" not in scan or not tag:
        raise ValueError("a DICOM file without pixels")
    if scan.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise ValueError("its pixels are numbers of a palette; save it in colours")
    if "ModalityLUTSequence" in scan:
        raise ValueError("its units are in a table (Modality LUT); save it with a slope and an intercept")
    frames, samples = int(scan.get("NumberOfFrames", 1) or 1), int(scan.get("SamplesPerPixel", 1))
    rescales = rescales_of(scan, frames)
    plain = set(rescales) == {PLAIN}
    low, high, dtype = (None, None, FLOATS[tag]) if tag in FLOATS else pixel_range(scan, rescales)
    negative = scan.get("PhotometricInterpretation") == "MONOCHROME1" and plain and low is not None

    def load(part):
        from readers import dicom_codecs  # not before pydicom is known to be installed

        file.seek(0)
        whole = library("pydicom").dcmread(file)
        index = part if as_images else None
        check_frames(whole, frames, index)
        dicom_codecs.ready(whole.file_meta.TransferSyntaxUID)
        pixels = library("pydicom.pixels").pixel_array(whole, index=index, allow_excess_frames=False)
        pixels = pixels.reshape(-1, scan.Rows, scan.Columns, samples)
        if not plain:
            own = rescales[part : part + 1] if as_images and len(rescales) > 1 else rescales
            pixels = [(one * slope + intercept).astype(dtype) for one, (slope, intercept) in zip(pixels, cycle(own))]
        pixels = np.concatenate(list(pixels), -1)
        return (low + high - pixels.astype(np.int64) if negative else pixels).astype(dtype, copy=False)

    as_images = ways.pages == "images"
    channels, count = (samples, frames) if as_images else (samples * frames, 1)
    return Contents(scan.Rows, scan.Columns, channels, dtype, load, count, low, high)


def header(file):
    """What a DICOM file says before its pixels. Raises ValueError."""
    pydicom = library("pydicom")
    try:
        check_not_deflated(file)
        return pydicom.dcmread(file, stop_before_pixels=True)
    except pydicom.errors.InvalidDicomError:
        raise ValueError("it does not begin as a DICOM file does (DICM after 128 bytes); write it anew") from None


PLAIN = 1.0, 0.0  # slope and intercept that change nothing


def rescales_of(scan, frames):
    """(slope, intercept) of each frame, or one pair for all."""

    def of(groups, otherwise):
        found = next(iter(groups.get("PixelValueTransformationSequence") or ()), groups)
        said = found.get("RescaleSlope"), found.get("RescaleIntercept")
        return tuple(other if value is None else float(value) for value, other in zip(said, otherwise, strict=True))

    shared = of(next(iter(scan.get("SharedFunctionalGroupsSequence") or ()), {}), of(scan, PLAIN))
    own = [of(groups, shared) for groups in scan.get("PerFrameFunctionalGroupsSequence") or ()]
    return own if len(own) == frames else [shared]


def pixel_range(scan, rescales):
    """(least, greatest, type) of the pixels, by their bits and ``rescales``."""
    stored = integers.ends(int(scan.get("BitsStored", 16)), bool(scan.get("PixelRepresentation", 0)))
    values = [slope * end + intercept for slope, intercept in rescales for end in stored]
    low, high = min(values), max(values)
    whole = all(number.is_integer() for rescale in rescales for number in rescale)
    return low, high, integers.smallest_type(low, high) if whole else np.dtype(np.float32)


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
        raise ValueError(f"for one slice all of it is read, {over(ways.limit, whole)}")

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


def volume_like(place, array):
    """The bytes of a NIfTI volume of ``array``, whose voxels lie in space as those of the one at ``place``."""
    with opened(place) as file:
        header = open_volume(file, place.name.lower()).header
    image = library("nibabel").Nifti1Image(array, None, dtype=array.dtype)
    for field in SPACE:  # as they are: what a scanner wrote is kept, where it is wrong, too
        image.header[field] = header[field]
    return image.to_bytes()
