"""The shape of one image: how it is resized, padded, cut out, mirrored and turned. Arrays are H×W×C of any type."""

import numpy as np
from PIL import Image

# ---------------------------------------------------------------------------------------------------------------------
# Sizes: (height, width) of an image and of --load_height, --load_width to what it is resized to
# ---------------------------------------------------------------------------------------------------------------------


def squash(size, load):
    return load


def scale(size, factor):
    return tuple(max(1, round(side * factor)) for side in size)


def scale_width(size, load):
    return scale(size, load[1] / size[1])


def scale_shorter(size, load):
    """Keeps the shape; covers the load size in both directions."""
    return scale(size, max(load[0] / size[0], load[1] / size[1]))


def keep(size, load):
    return tuple(size)


def allowed(length, multiple, least):
    """The fewest pixels, of at least ``length`` and ``least``, that ``multiple`` divides: a side that networks take."""
    length = max(length, least)
    return length + -length % multiple


PREPROCESS = {
    "resize_and_crop": squash,
    "scale_width_and_crop": scale_width,
    "scale_shorter_and_crop": scale_shorter,
    "crop": keep,
    "none": keep,
}


# ---------------------------------------------------------------------------------------------------------------------
# Pixels
# ---------------------------------------------------------------------------------------------------------------------


def squeezed(array):
    """An array …×C without its last axis where there is one channel, as most files of one hold it."""
    return array.squeeze(-1) if array.shape[-1] == 1 else array


def resize(array, size, low, high):
    """H×W×C to ``size`` (height, width) in its own type, by Pillow's antialiased bicubic of 8 bits or of float32.

    As with 8 bits, its overshoot at edges is clipped to the range from ``low`` to ``high``.
    """
    if array.shape[:2] == tuple(size):
        return array
    return np.stack([resize_plane(array[..., i], size, low, high) for i in range(array.shape[-1])], -1)


def resize_plane(plane, size, low, high):
    """Width first and then height, as Pillow does, which clips after each of them."""
    height, width = size
    if plane.dtype == np.uint8:
        return resampled(plane, width, height)
    wide = np.clip(resampled(plane.astype(np.float32), width, len(plane)), low, high)
    resized = np.clip(resampled(wide, width, height), low, high)
    return in_type(resized, plane.dtype)


def in_type(values, dtype):
    """Numbers as ``dtype``: rounded where that is of whole numbers, of which the least and the largest stand for all
    beyond them. (As a float the largest may be one more than the type can hold.)"""
    dtype = np.dtype(dtype)
    if dtype.kind == "f" or values.dtype == dtype:
        return values.astype(dtype, copy=False)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    above = values >= most
    return np.where(above, most, np.where(above, 0, values.round()).clip(least).astype(dtype))


def resampled(plane, width, height):
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def pad(array, least):
    """H×W×C, where it is smaller than ``least`` (height, width) padded by reflection, evenly on both sides."""
    missing = [max(0, whole - side) for side, whole in zip(array.shape, least, strict=False)]
    if not any(missing):
        return array
    return np.pad(array, [(n // 2, n - n // 2) for n in missing] + [(0, 0)] * (array.ndim - 2), mode="reflect")


def centre_crop(array, size):
    """The middle (height, width) of H×W×C, padded where that is more than there is."""
    array = pad(array, size)
    top, left = ((whole - part) // 2 for whole, part in zip(array.shape, size, strict=False))
    return array[top : top + size[0], left : left + size[1]]


def random_crop(array, size, random, flip="horizontal", rotate90=False):
    """Cut (height, width) from H×W[×C] at random, and mirror it half of the time, as ``flip`` allows; with ``rotate90``
    turn it by some number of right angles."""
    array = pad(array, size)
    top, left = (random.integers(whole - part, endpoint=True) for whole, part in zip(array.shape, size, strict=False))
    crop = array[top : top + size[0], left : left + size[1]]
    if flip != "none" and random.random() < 0.5:
        crop = crop[:, ::-1]
    if flip == "both" and random.random() < 0.5:
        crop = crop[::-1]
    return np.rot90(crop, random.integers(4)) if rotate90 else crop


def vary_saturation(array, strength, random):
    """Multiply the saturation of each pixel of uint8 H×W×3 by its own factor from [1 − strength, 1 + strength].

    The brightest channel (the value of HSV) stays as it is, so black stays black and no mask changes.
    """
    factor = random.uniform(1 - strength, 1 + strength, array.shape[:2])[..., None]
    value = array.max(-1, keepdims=True).astype(float)
    return np.clip(value - factor * (value - array), 0, 255).round().astype(np.uint8)
