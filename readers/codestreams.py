"""A JPEG, JPEG-LS or JPEG 2000 inside a TIFF or DICOM: how large it says it is, before anyone decodes it.

Their decoders allocate by what the stream says, not by the file around it.
"""

import struct

from runtime.errors import counted

STANDALONE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # those in front of height and width; the last is JPEG-LS's
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: its first marker, and that of its size
OPACITY, CMYK = (1, 2), b"\1\0\0\0\0\0\x0c"  # kinds of a channel; the beginning of a box of colours
BOXES = b"\0\0\0\x0cjP  "  # of a JP2: the first one


def check_size(stream, most):
    """Raise ValueError where ``stream`` holds more numbers (pixels times channels) than ``most``, or does not say how
    many."""
    if (said := size(stream)) is None:
        raise ValueError("what is packed in it does not say how large it is; save it with another compression")
    height, width, channels = said
    if height * width * channels > most:
        promised = f"{width}×{height}, {counted(channels, 'channel')}"
        raise ValueError(f"what is packed in it is of {promised}: more than fits in it")


def size(stream):
    """(height, width, channels) that ``stream``, or its beginning, says; None where it does not."""
    said = next((size(stream) for start, size in SIZES.items() if stream.startswith(start)), None)
    return said if said and min(said) >= 1 else None


def jpeg(stream):
    """(height, width, channels), or None where no frame header is found."""
    at = 2
    while (at := stream.find(b"\xff", at)) >= 0 and at + 10 <= len(stream):
        marker = stream[at + 1]
        if marker in FRAMES:
            return struct.unpack_from(">HHB", stream, at + 5)
        if marker in (0x00, 0xFF):  # no marker yet
            at += 1
        else:
            at += 2 if marker in STANDALONE else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def jpeg_2000(stream):
    """(height, width, channels) of a JPEG 2000, bare or in the boxes of a JP2, or None."""
    if not (start := codestream(stream)):
        return None
    width, height, left, top = struct.unpack_from(">4I", start, 8)
    return height - top, width - left, int.from_bytes(start[40:42], "big")


def jpeg_2000_depth(stream):
    """(bits, whether they have a sign) of the first channel of a JPEG 2000, bare or in boxes, or None."""
    start = codestream(stream)
    return (start[42] % 128 + 1, start[42] >= 128) if start else None


def is_picture(stream, channels):
    """Whether the boxes of a JP2 call the last of its channels transparency, or all of them CMYK."""
    header = stream[: first_box(stream) or 0]
    definitions, colours = header.partition(b"cdef")[2], header.partition(b"colr")[2]
    entries = definitions[2 : 2 + 6 * int.from_bytes(definitions[:2], "big")]
    kinds = {number: kind for number, kind, _ in struct.iter_unpack(">3H", entries[: len(entries) // 6 * 6])}
    return kinds.get(channels - 1) in OPACITY or colours.startswith(CMYK)


def codestream(stream):
    """The first bytes of a bare JPEG 2000, or of the first among the boxes of a JP2: all that is asked of it here."""
    at = 0 if stream.startswith(CODESTREAM) else first_box(stream)
    start = b"" if at is None else stream[at : at + 43]
    return start if start.startswith(CODESTREAM) and len(start) == 43 else None


def first_box(stream):
    """Where the first codestream among the boxes of a JP2 begins, or None."""
    at = 0
    while at + 16 <= len(stream):
        length, kind = struct.unpack_from(">I4s", stream, at)
        start = at + 8
        if length == 1:  # a longer one follows
            length, start = int.from_bytes(stream[start : start + 8], "big"), start + 8
        if kind == b"jp2c":
            return start
        if kind == b"jp2h" and b"pclr" in stream[start : at + length]:  # a palette, which makes many channels of one
            return None
        if length < 8:  # up to the end, or nonsense
            return None
        at += length
    return None


SIZES = {b"\xff\xd8": jpeg, CODESTREAM: jpeg_2000, BOXES: jpeg_2000}
