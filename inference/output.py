"""Where translations go: their names and formats, and what a page shows of them."""

import os
from pathlib import Path

from inference.previews import Previews
from inference.volumes import Volumes
from inference.writers import check_format, output_names
from readers.files import as_place, files_of
from readers.folders import side_sources
from readers.formats import suffix_of
from readers.survey import VOLUMES
from runtime.errors import UserError
from runtime.folders import check_apart


def check_output(folder, options):
    """Raise UserError where ``folder`` lies in ``--input`` or in the data set, and would be read later."""
    check_apart(folder, [options.input, *side_sources(Path(options.dataset_dir) / options.dataset_name)])


class Output:
    """Where translations go in ``direction``: those of ``places`` below ``root`` to ``folder``.

    ``domains`` are {"A", "B"}; ``wanted`` is ``--output_format``. Raises UserError where that cannot hold what the
    target domain is.
    """

    def __init__(self, direction, folder, places, root, domains, wanted):
        self.direction, self.folder, self.root = direction, Path(folder), root
        self.places = [as_place(place) for place in places]
        self.origin, self.target = (domains[side] for side in direction.split("to"))
        self.volumes, self.zipped = None, wanted == "nii.gz"
        self.written = set()  # paths of files, by ``save``
        if self._as_volumes(self.target, wanted):
            self.volumes = Volumes(self.places, self.origin.slice_axis)
            self.names = [Path(place).relative_to(root) for place in self.places]
            self._check_volumes()
        else:
            check_format(wanted, self.target)
            self.names = output_names(self.places, root, self.origin, self.target, wanted)
        unnamed = self.folder.name in ("", "..")  # as "." is
        named = Path(os.path.abspath(self.folder)) if unnamed else self.folder
        previews = named.parent / f"{named.name}_previews"
        self.previews = Previews(previews, self.origin, self.target)

    def sources(self):
        """The files that are read."""
        return files_of(self.places)

    def files(self):
        """The paths of all files that may be written."""
        for place, name in zip(self.places, self.names, strict=True):
            path = self.path(place, name)
            shown = self.previews.of_input(place, name), self.previews.of_output(path, name)
            yield from (path, *filter(self.previews.writes, shown))

    def folders(self):
        """The folders below which those lie."""
        previews = self.previews.folder
        return {self.folder, *(previews for path in self.files() if path.is_relative_to(previews))}

    def path(self, place, name):
        """The file for a translation: for a slice of several, that of its volume."""
        path = self.folder / name
        path = path.parent if self.volumes and self.volumes.counts[place.name] > 1 else path
        return path.with_name(f"{path.name}.gz") if self.zipped and path.suffix.lower() == ".nii" else path

    def _as_volumes(self, target, wanted):
        """Whether slices are put together again: where both sides are volumes, or where it is asked for."""
        possible = all(suffix_of(place.name) in VOLUMES for place in self.places)
        if wanted == "nii.gz" and not possible:
            raise UserError("--output_format nii.gz puts slices of NIfTI volumes together; for others take tif or npy")
        return wanted == "nii.gz" or (wanted == "trained" and possible and target.suffix in VOLUMES)

    def _check_volumes(self):
        """Raise UserError where two volumes would be written to one file."""
        sources = {}
        for place, name in zip(self.places, self.names, strict=True):
            path = self.path(place, name)
            if sources.setdefault(path, place.name) != place.name:
                raise UserError(f"{sources[path]} and {place.name} would both become {path}; rename one of them")

    def save(self, writers, index, array, image, translation):
        """Write the translation ``array`` of place number ``index``; ``image`` and ``translation``, C×H×W in [-1, 1],
        are what previews show. Returns (name, picture of the input, picture of the translation)."""
        place, name = self.places[index], self.names[index]
        path = self.path(place, name)
        if self.volumes:
            complete = self.volumes.add(place, array, path)
        else:
            complete = True
            writers.save(array, path)
        shown = self.previews.of_input(place, name), self.previews.of_output(path, name)
        self.previews.write(writers, shown, image, translation)
        self.written.update([path] if complete else [], filter(self.previews.writes, shown))
        return name, *shown
