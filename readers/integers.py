"""Whole numbers of so many bits: what they can be, and the type that holds them."""

import numpy as np

PLAIN = 1.0, 0.0  # slope and intercept that change nothing


def ends(bits, signed):
    """The least and the greatest whole number of so many ``bits``."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def smallest_type(low, high):
    """The smallest type of whole numbers that holds ``low`` and ``high``; float32 where none does."""
    kinds = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)
    fitting = (kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return np.dtype(next(fitting, np.float32))


def rescaled(stored, rescales):
    """(least, greatest, type) of whole numbers with the ends ``stored`` after each of ``rescales``, a slope and an
    intercept: whole numbers where both are whole, else float32."""
    values = [slope * end + intercept for slope, intercept in rescales for end in stored]
    low, high = min(values), max(values)
    whole = all(number.is_integer() for rescale in rescales for number in rescale)
    return low, high, smallest_type(low, high) if whole else np.dtype(np.float32)
