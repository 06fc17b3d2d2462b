"""Pictures of 8 bits, and of 16 as a person sees them, by Pillow."""

import contextlib

import numpy as np
from PIL import Image, ImageOps

from runtime.errors import UserError


class BadImage(UserError):
    """A file that looks like an image by its name and cannot be read as one."""

    def __init__(self, path, reason):
        super().__init__(str(path), reason)  # both, so that the error survives the way out of a worker process

    @property
    def path(self):
        return self.args[0]

    def __str__(self):
        path, reason = self.args
        return f"{path} is not a readable image ({reason}); remove it or add --skip_bad_images"


@contextlib.contextmanager
def reading(path):
    """Whatever goes wrong inside is the file's fault, and raised as BadImage."""
    try:
        yield
    except Exception as error:  # Pillow's decoders raise what they like: OSError, SyntaxError, struct.error …
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadImage(path, reason) from error


def load_image(path, channels=3):
    """Decode a file as a person sees it: upright, 8 bits, RGB (L for 1 channel), alpha over white. Raises BadImage."""
    with reading(path), Image.open(path) as image:
        return as_seen(image, channels)


def as_seen(image, channels=3):
    """An image of any mode as a person sees it: upright, 8 bits, RGB (L for 1 channel), alpha over white."""
    return flatten(ImageOps.exif_transpose(image)).convert("RGB" if channels == 3 else "L")


def flatten(image):
    """An image of any mode to one of 8 bits a channel without transparency."""
    if image.mode.startswith(("I", "F")):
        return eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def eight_bits(image):
    """Gray of 16 or 32 bits, or floats in [0, 1], to 8 bits. ``Image.convert`` would clip instead of scaling."""
    values = np.asarray(image, dtype=np.float64)
    white = 1.0 if image.mode == "F" else 65535.0
    return Image.fromarray((np.clip(values / white, 0, 1) * 255).round().astype(np.uint8))
