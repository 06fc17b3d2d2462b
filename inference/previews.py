"""Pictures of what a browser cannot show: the rest of a page shows the files themselves."""

import hashlib
import os
from pathlib import Path

from readers.domains import to_bytes, to_colours
from readers.files import as_place
from readers.formats import suffix_of

SHOWN = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".avif")
LONGEST = 255  # bytes, of a file's name


class Previews:
    """Writes PNGs of 8 bits into ``folder``, where the files of the domains ``origin`` and ``target`` need them."""

    def __init__(self, folder, origin, target):
        self.folder, self.origin, self.target = Path(folder), origin, target

    def of_input(self, place, name):
        """The path of a picture of the input at ``place``: itself, where browsers show it."""
        place = as_place(place)
        there = self.origin.picture and place.size is None and suffix_of(place.name) in SHOWN
        return Path(place) if there else self._path("inputs", name)

    def of_output(self, path, name):
        """The path of a picture of the translation at ``path``: that, where browsers show it."""
        there = self.target.picture and suffix_of(path.name) in SHOWN
        return path if there else self._path("translations", name)

    def _path(self, kind, name):
        title = f"{name.name}.png"
        if len(os.fsencode(title)) > LONGEST:
            title = f"{hashlib.sha256(os.fsencode(name.name)).hexdigest()}.png"
        return self.folder / kind / name.with_name(title)

    def writes(self, path):
        """Whether the picture at ``path`` is one of these, and not a file that browsers show."""
        return path.is_relative_to(self.folder)

    def write(self, writers, paths, *images):
        """Write those of the ``paths`` of input and translation that are previews; the images are C×H×W in [-1, 1]."""
        for path, image, domain in zip(paths, images, (self.origin, self.target), strict=True):
            if self.writes(path):
                writers.save(to_bytes(to_colours(image[None], domain))[0].permute(1, 2, 0).cpu().numpy(), path)
