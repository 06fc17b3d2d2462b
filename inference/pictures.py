"""Pictures in memory, translated one by one: for notebooks, pipelines and pages."""

import numpy as np
import torch
from PIL import Image

from datasets import pad
from readers.domains import to_pixels, to_tensor
from readers.pictures import as_seen


class PictureTranslator:
    """Translates pictures and arrays by ``translators``, on ``device``, between the ``domains`` {"A", "B"}."""

    def __init__(self, translators, domains, device):
        self.translators, self.domains, self.device = translators, domains, device

    @torch.inference_mode()
    def __call__(self, picture, direction=None):
        """A PIL image of any mode and size to its translation, of the same size, RGB or L.

        Where the domain is not of 8-bit pictures, arrays H×W[×C] of its type come in and go out. ``direction``: "AtoB"
        or "BtoA"; without it the only one that there is, or AtoB. Raises UserError where the checkpoint has no
        generator for it.
        """
        source, target = self.translators.pick(direction)[0].split("to")
        here, there = self.domains[source], self.domains[target]
        array = np.asarray(as_seen(picture, here.channels) if here.picture else picture)
        padded = pad(array, self.translators.multiple, self.translators.min_size)
        translated, _ = self.translators.translate(source, to_tensor(padded, here)[None].to(self.device))
        height, width = array.shape[:2]
        pixels = to_pixels(translated[:, :, :height, :width], there)[0]
        pixels = pixels.squeeze(-1) if there.channels == 1 else pixels
        return Image.fromarray(pixels) if there.picture else pixels
