"""DICOM, by pydicom."""

from itertools import cycle

import numpy as np

from readers import integers
from readers.codestreams import check_size
from readers.files import Contents, library

DEFLATED = "1.2.840.10008.1.2.1.99"
RUN_LENGTHS = "1.2.840.10008.1.2.5"
FLOATS = {b"\xe0\x7f\x08\0": np.dtype(np.float32), b"\xe0\x7f\x09\0": np.dtype(np.float64)}  # tags of pixels


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
    bits = scan.get("BitsStored", 16)
    if tag not in FLOATS and scan.get("HighBit", bits - 1) != bits - 1:  # as PS3.5, section 8.1.1, has it
        raise ValueError(f"its {bits} bits do not begin with the lowest; save it anew")
    frames, samples = int(scan.get("NumberOfFrames", 1) or 1), int(scan.get("SamplesPerPixel", 1))
    rescales = rescales_of(scan, frames)
    plain = set(rescales) == {integers.PLAIN}
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


def rescales_of(scan, frames):
    """(slope, intercept) of each frame, or one pair for all."""

    def of(groups, otherwise):
        found = next(iter(groups.get("PixelValueTransformationSequence") or ()), groups)
        said = found.get("RescaleSlope"), found.get("RescaleIntercept")
        return tuple(other if value is None else float(value) for value, other in zip(said, otherwise, strict=True))

    shared = of(next(iter(scan.get("SharedFunctionalGroupsSequence") or ()), {}), of(scan, integers.PLAIN))
    own = [of(groups, shared) for groups in scan.get("PerFrameFunctionalGroupsSequence") or ()]
    return own if len(own) == frames else [shared]


def pixel_range(scan, rescales):
    """(least, greatest, type) of the pixels, by their bits and ``rescales``."""
    stored = integers.ends(int(scan.get("BitsStored", 16)), bool(scan.get("PixelRepresentation", 0)))
    return integers.rescaled(stored, rescales)


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
