"""Animated pictures, by Pillow: GIF, WebP, PNG, AVIF."""

import contextlib
from fractions import Fraction

import numpy as np

from readers.files import as_place, opened, reading
from readers.moving import BadClip, Clip, Frame, check_frame
from readers.pictures import as_seen, open_image

SUFFIXES = (".gif", ".webp", ".png", ".avif")
UNSAID = 100  # ms a frame where a file says 0, as browsers show it


def is_animated(path):
    with reading(path), opened(as_place(path)) as file, open_image(file) as image:
        return getattr(image, "n_frames", 1) > 1


def clip(path, domain):
    with reading(path), opened(as_place(path)) as file, open_image(file) as image:
        still = int(bool(image.info.get("default_image")))  # of a PNG: shown where it cannot move, and no frame
        numbers, loops = range(still, image.n_frames), image.info.get("loop", 1)
        check_frame(path, image.width, image.height, domain.limit)
        image.seek(1)
        with contextlib.suppress(Exception):  # of a damaged frame, which the reading of it tells
            image.load()  # only then does a WebP say how long it is shown
        rate = 1 / shown_for(image)
    found = Clip(rate, len(numbers), None, loops=loops)

    def read():
        time = Fraction(0)
        with opened(as_place(path)) as file, open_image(file) as image:
            for count, number in enumerate(numbers):
                try:
                    image.seek(number)
                    seen = np.asarray(as_seen(image, domain.channels))
                except Exception as error:  # decoders raise what they like
                    if not count:
                        raise BadClip(path, error) from error
                    found.problems.append(
                        f"{path} is damaged or cut short: {count} of {len(numbers)} frames could be read"
                    )
                    return
                yield Frame(seen.reshape(*seen.shape[:2], -1), time, shown_for(image))
                time += shown_for(image)

    found.read = read
    return found


def shown_for(image):
    """Seconds for which the present frame is shown."""
    return Fraction(image.info.get("duration") or UNSAID).limit_denominator(1000) / 1000
