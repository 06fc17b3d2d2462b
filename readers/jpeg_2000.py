"""JPEG 2000: pictures, and gray of 16 bits, by Pillow; others by imagecodecs, since Pillow scales or cuts them."""

from readers import codestreams, integers, pictures
from readers.files import Contents, library

HEAD = 2**20  # bytes in which the codestream begins
BY_PILLOW = (1, 8, False), (3, 8, False), (1, 16, False)  # channels, bits, sign
ONE_MORE = (2, 8, False), (4, 8, False)  # and of these pictures: the last band may be infrared


def contents(file, ways, suffix):
    """One image. Raises ValueError above 16 bits."""
    start = file.read(HEAD)
    size, depth = codestreams.size(start), codestreams.jpeg_2000_depth(start)
    if not (size and depth) or is_whole_by_pillow(start, size[2], *depth):  # the former may be of another format
        return pictures.contents(pictures.rewound(file), ways, suffix)
    bits, signed = depth
    if bits > 16:
        raise ValueError(f"its numbers have {bits} bits; up to 16 can be read")
    low, high = integers.ends(bits, signed)
    load = lambda part: library("imagecodecs").jpeg2k_decode(pictures.rewound(file).read())  # noqa: E731
    return Contents(*size, integers.smallest_type(low, high), load, low=low, high=high)


def is_whole_by_pillow(start, channels, bits, signed):
    """Whether Pillow keeps all that is in a JPEG 2000 of so many channels and bits."""
    kind = channels, bits, signed
    shallow = channels in (1, 3) and bits < 8 and not signed
    return kind in BY_PILLOW or shallow or kind in ONE_MORE and codestreams.is_picture(start, channels)
