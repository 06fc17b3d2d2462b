"""Translated slices, put together to NIfTI volumes in the space of their sources."""

import gzip
from collections import Counter, defaultdict

import numpy as np

from readers.files import as_place
from readers.geometry import squeezed
from readers.nifti import volume_like
from runtime import files


class Volumes:
    """Gathers the translated slices of ``places`` along ``axis``, and writes each volume when it has all of them."""

    def __init__(self, places, axis):
        self.axis = axis
        self.counts = Counter(as_place(place).name for place in places)
        self.slices = defaultdict(dict)

    def add(self, place, array, path):
        """Take the slice H×W×C from ``place`` for the volume at ``path``, whose source it lies in. Returns whether that
        was its last one, and the volume is written."""
        slices = self.slices[place.name]
        slices[place.part] = np.rot90(array, -1)  # readers.nifti.nifti turned it
        if len(slices) < self.counts[place.name]:
            return False
        volume = np.stack([slices[part] for part in sorted(slices)], self.axis)
        del self.slices[place.name]
        volume = squeezed(volume)
        volume = volume.astype(np.float32) if volume.dtype == np.float16 else volume  # which NIfTI does not have
        content = volume_like(place, volume)
        files.write(path, gzip.compress(content) if path.suffix.lower() == ".gz" else content)
        return True

    @property
    def incomplete(self):
        """The names of volumes that lack slices."""
        return sorted(self.slices)
