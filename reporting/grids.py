"""Sample grids: the same test images, there and back, at every call."""

import io

import torch

from readers.domains import PICTURES, to_colours
from runtime import files


class SampleGrid:
    """The same few test images at every call, so that two grids of a run can be compared.

    ``real_A`` and ``real_B`` are N×C×H×W in [-1, 1], of ``domains`` {"A", "B"}, which say how they are shown. Each row
    of the picture is A | A→B | A→B→A | B | B→A | B→A→B, with the mask behind each real image where there are masks.
    """

    def __init__(self, real_A, real_B, domains=None):
        self.domains = domains or dict.fromkeys("AB", PICTURES)
        rows = min(len(real_A), len(real_B))
        self.real = {"A": real_A[:rows], "B": real_B[:rows]}

    @torch.no_grad()
    def save(self, translators, path):
        """Translate there and back (in eval mode) and write one PNG."""
        # Imported here, because it takes two seconds, for which --help and test.py need not wait.
        from torchvision.utils import make_grid, save_image

        columns = []
        for side, real in self.real.items():
            mask, fake, back = translators.cycle(side, real)
            shown = [] if mask is None else [mask.expand_as(real) * 2 - 1]
            other = "B" if side == "A" else "A"
            columns += [to_colours(image, self.domains[side]) for image in (real, *shown)]
            columns += [to_colours(fake, self.domains[other]), to_colours(back, self.domains[side])]
        cells = torch.stack(columns, dim=1).flatten(0, 1)  # N·columns×C×H×W, row by row
        picture = io.BytesIO()
        grid = make_grid(cells.float().cpu(), nrow=len(columns), normalize=True, value_range=(-1, 1))
        save_image(grid, picture, format="png")
        files.write(path, picture.getvalue())
