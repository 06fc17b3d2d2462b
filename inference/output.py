"""Where translations go: their names and formats, and what a page shows of them."""

from pathlib import Path

from inference.previews import Previews
from inference.volumes import Volumes
from inference.writers import check_format, output_names
from readers.files import as_place
from readers.formats import suffix_of
from readers.survey import VOLUMES
from runtime.errors import UserError


class Output:
    """Takes the translations of ``places`` below ``root``, from the domain ``origin`` to ``target``, into ``folder``.

    ``wanted`` is ``--output_format``. Raises UserError where that cannot hold what the target domain is.
    """

    def __init__(self, folder, places, root, origin, target, wanted):
        self.folder, self.places = folder, [as_place(place) for place in places]
        self.volumes = None
        if self._as_volumes(target, wanted):
            self.volumes = Volumes(self.places, origin.slice_axis)
            self.names = [Path(place).relative_to(root) for place in self.places]
        else:
            check_format(wanted, target)
            self.names = output_names(self.places, root, origin, target, wanted)
        self.previews = Previews(folder.with_name(f"{folder.name}_previews"), origin, target)

    def _as_volumes(self, target, wanted):
        """Whether slices are put together again: where both sides are volumes, or where it is asked for."""
        possible = all(suffix_of(place.name) in VOLUMES for place in self.places)
        if wanted == "nii.gz" and not possible:
            raise UserError("--output_format nii.gz puts slices of NIfTI volumes together; for others take tif or npy")
        return wanted == "nii.gz" or (wanted == "trained" and possible and target.suffix in VOLUMES)

    def save(self, writers, index, array, image, translation):
        """Write the translation ``array`` of place number ``index``; ``image`` and ``translation``, C×H×W in [-1, 1],
        are what previews show. Returns (name, picture of the input, picture of the translation)."""
        place, name = self.places[index], self.names[index]
        path = self.folder / name
        if self.volumes:
            slices = self.volumes.counts[place.name]
            self.volumes.add(place, array, path.parent if slices > 1 else path)
        else:
            writers.save(array, path)
        shown = self.previews.of_input(writers, place, name, image)
        return name, shown, self.previews.of_output(writers, path, name, translation)
