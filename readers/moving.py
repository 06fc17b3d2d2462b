"""What every kind of moving picture is read as."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from readers.files import BadImage, over


class Frame(NamedTuple):
    """``array`` H×W×C of the domain's type, as a person sees it: upright, alpha over white. ``time``: from when it is
    shown, and ``duration``: for how long, in seconds, as Fractions."""

    array: np.ndarray
    time: Fraction
    duration: Fraction


@dataclass
class Clip:
    """``read()`` gives the Frames, anew from the first at each call. ``rate``: frames a second, in the mean. ``count``:
    how many the file says it holds, or None. ``aspect``: a pixel's width by its height. ``sound``: the path of the
    video whose sound goes with it, or None. ``loops``: how often an animation is shown, 0 for ever.

    ``problems``: what turned out to be damaged, each a sentence.
    """

    rate: Fraction
    count: int
    read: object
    aspect: Fraction = Fraction(1)
    sound: object = None
    loops: int = 0
    problems: list = field(default_factory=list)


class BadClip(BadImage):
    """A file that cannot be read as a clip."""

    def __str__(self):
        path, reason = self.args
        return f"{path} is no image, and not a readable video ({reason})"


def check_frame(path, width, height, limit):
    """Raise BadClip where a frame, of 4 bytes a pixel, would take more than ``limit`` GiB."""
    if (size := width * height * 4 / 2**30) > limit:
        raise BadClip(path, f"a frame takes {over(limit, size)}")
