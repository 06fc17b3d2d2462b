"""Pictures of what a browser cannot show: the rest of a page shows the files themselves."""

from pathlib import Path

from readers.domains import to_bytes, to_colours
from readers.files import as_place
from readers.formats import suffix_of

SHOWN = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".avif")


class Previews:
    """Writes PNGs of 8 bits into ``folder``, where the files of the domains ``origin`` and ``target`` need them."""

    def __init__(self, folder, origin, target):
        self.folder, self.origin, self.target = Path(folder), origin, target

    def of_input(self, writers, place, name, image):
        """The path of a picture of the input at ``place``, whose pixels are ``image`` C×H×W in [-1, 1]."""
        place = as_place(place)
        there = self.origin.picture and place.size is None and suffix_of(place.name) in SHOWN
        return Path(place) if there else self._write(writers, "inputs", name, image, self.origin)

    def of_output(self, writers, path, name, image):
        """The path of a picture of the translation at ``path``."""
        there = self.target.picture and suffix_of(path.name) in SHOWN
        return path if there else self._write(writers, "translations", name, image, self.target)

    def _write(self, writers, kind, name, image, domain):
        path = self.folder / kind / name.with_name(f"{name.name}.png")
        writers.save(to_bytes(to_colours(image[None], domain))[0].permute(1, 2, 0).cpu().numpy(), path)
        return path
