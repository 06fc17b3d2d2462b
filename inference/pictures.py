"""Pictures in memory, translated one by one: for notebooks, pipelines and pages."""

import numpy as np
import torch
from PIL import Image

from datasets import pad, to_bytes, to_tensor
from readers.pictures import as_seen


class PictureTranslator:
    """Translates pictures by ``translators``, which are on ``device`` and take images of ``channels``."""

    def __init__(self, translators, channels, device):
        self.translators, self.channels, self.device = translators, channels, device

    @torch.inference_mode()
    def __call__(self, picture, direction=None):
        """A PIL image of any mode and size to its translation, of the same size, RGB or L.

        ``direction``: "AtoB" or "BtoA"; without it the only one that there is, or AtoB. Raises UserError where the
        checkpoint has no generator for it.
        """
        side = self.translators.pick(direction)[0][0]
        array = np.asarray(as_seen(picture, self.channels))
        padded = pad(array, self.translators.multiple, self.translators.min_size)
        translated, _ = self.translators.translate(side, to_tensor(padded)[None].to(self.device))
        height, width = array.shape[:2]
        pixels = to_bytes(translated)[0, :, :height, :width].permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(pixels.squeeze(-1) if self.channels == 1 else pixels)
