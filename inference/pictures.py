"""Pictures in memory, translated one by one: for notebooks, pipelines and pages."""

import numpy as np
import torch
from PIL import Image

from inference.steady import Steady
from readers.domains import fitting, to_pixels, to_tensor
from readers.geometry import squeezed
from readers.pictures import as_seen
from runtime.device import tf32_for
from runtime.errors import UserError

SEEN = "bool", "uint8", "uint16", "float32"  # types of arrays that can be pictures; floats in [0, 1]


class PictureTranslator:
    """Translates pictures and arrays by ``translators``, on ``device``, between the ``domains`` {"A", "B"}."""

    def __init__(self, translators, domains, device):
        self.translators, self.domains, self.device = translators, domains, device

    def __call__(self, picture, direction=None):
        """A PIL image of any mode and size to its translation, of the same size, RGB or L.

        Where the domain is not of 8-bit pictures, arrays H×W[×C] of its type come in and go out. ``direction``: "AtoB"
        or "BtoA"; without it the only one that there is, or AtoB. Raises UserError where the checkpoint has no
        generator for it, or ``picture`` is not what that takes.
        """
        return next(self.translate_frames([picture], direction, steady=0.0))

    def translate_frames(self, frames, direction=None, steady=0.9):
        """Pictures or arrays, as they come from a camera, to their translations: a generator that waits for no later
        frame. ``steady`` is that of test.py; a frame of another size begins a new shot.

        ``for picture in load("saved_models/NAME").translate_frames(frames): …``
        """
        source, target = self.translators.pick(direction)[0].split("to")
        here, there = self.domains[source], self.domains[target]
        clip = Steady(self.translators, steady)
        for frame in frames:
            array = seen(frame, here) if here.picture else as_array(frame, here)
            with torch.inference_mode(), tf32_for(self.domains):
                images = to_tensor(array, here)[None].to(self.device)
                translated = clip.translate(images, lambda x: clip.networks.translate(source, x)[0])[0]
            pixels = squeezed(to_pixels(translated[None], there)[0])
            yield Image.fromarray(pixels) if there.picture else pixels


def seen(frame, domain):
    """A PIL image, or an array H×W[×3], as an array of ``domain``, which is of 8-bit pictures. Raises UserError where
    it is neither."""
    try:
        if isinstance(frame, np.ndarray) and frame.dtype.name not in SEEN:
            raise TypeError
        picture = frame if isinstance(frame, Image.Image) else Image.fromarray(frame)
        if not min(picture.size):
            raise ValueError("it is empty")
        return np.asarray(as_seen(picture, domain.channels))
    except ValueError as error:
        raise UserError(f"this picture cannot be translated: {error}") from error
    except (TypeError, AttributeError):
        what = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"this direction takes PIL images, or arrays H×W[×3] of uint8, not {what}") from None


def as_array(frame, domain):
    """An array H×W[×C] of ``domain``, all finite. Raises UserError where it has other channels or numbers. (Floats that
    hold whole numbers are as good: so nibabel reads volumes.)"""
    array = np.asarray(frame)
    picture = isinstance(frame, Image.Image) and array.dtype == np.uint8
    numbers = array.dtype.kind in "buif" and array.size
    if array.ndim not in (2, 3) or (*array.shape, 1)[2] != domain.channels or picture or not numbers:
        what = f"{type(frame).__name__} {array.shape} of {array.dtype}"
        raise UserError(f"this direction takes arrays H×W×C of {domain}, not {what}")
    try:
        return fitting(array, domain)
    except ValueError as error:
        raise UserError(f"this array cannot be translated: {error}") from error
