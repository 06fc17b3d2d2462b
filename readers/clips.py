"""Moving pictures: videos, animated pictures, numbered frames. The frames come one by one, in their order."""

import re
from fractions import Fraction
from pathlib import Path

from readers import animations, videos
from readers.archives import is_archive
from readers.domains import load_pixels
from readers.files import BadImage
from readers.folders import OTHER_IMAGES
from readers.formats import READERS, suffix_of
from readers.moving import Clip, Frame


def is_clip(path):
    """Whether a file is a clip: an animated picture, or of a suffix that neither images nor archives have."""
    if not Path(path).is_file() or Path(path).suffix.lower() in ("", *OTHER_IMAGES) or is_archive(path):
        return False
    suffix = suffix_of(Path(path).name)
    return animations.is_animated(path) if suffix in animations.SUFFIXES else suffix not in READERS


def open_clip(path, domain):
    """The Clip of a file. Raises UserError: BadClip where it is none, or another where a library is missing."""
    module = animations if suffix_of(Path(path).name) in animations.SUFFIXES else videos
    return module.clip(Path(path), domain)


def numbered(places, domain, rate, skip_bad=False):
    """The Clip of images in their order, ``rate`` a second. Bad ones are raised as BadImage, or left out."""
    rate = Fraction(rate).limit_denominator(1001)

    def read():
        for number, place in enumerate(places):
            try:
                yield Frame(load_pixels(place, domain), number / rate, 1 / rate)
            except BadImage as error:
                if not skip_bad:
                    raise
                clip.problems.append(f"{error.path} cannot be read, and is left out")

    clip = Clip(rate, len(places), read)
    return clip


def by_number(name):
    """A key for sorting names that hold numbers: frame_9 comes before frame_10."""
    parts = re.split(r"(\d+)", str(name))  # text and numbers by turns
    parts[1::2] = [(len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2])]
    return parts
