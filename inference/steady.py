"""Clips without flicker. What differs between two translations of nearly the same frame has two causes.

- A network that halves its image twice treats pixels by their place on a grid of 4×4. Where a camera moves, the picture
  slides over that grid, and every detail is drawn anew in another way. Here the grid follows the picture: each frame is
  laid on it so that its content keeps its place there, to a fraction of a pixel, and lifted from it again.
- Norms bring each frame to a mean of 0 and a variance of 1 by itself, so what enters at one side changes the colours at
  the other. Here they take an exponential average of mean and variance over the shot so far; or, in a second pass, the
  mean over the whole shot.

Both begin anew where there is a cut. The first pass looks at nothing but the past.
"""

import copy
import math

import numpy as np
import torch
from torch import nn

from inference.motion import follow, moved
from inference.tiles import advance, normalize
from layers import LayerNorm2d
from readers.geometry import allowed

NORMS = {nn.InstanceNorm2d: (2, 3), LayerNorm2d: (1, 2, 3)}  # over which dimensions they take mean and variance


class Steady:
    """Translates the frames of one clip, to be given in their order, by a copy of ``translators`` that shares weights.

    ``strength`` in [0, 1): the share of the past in the statistics of the norms; at 0 each frame is translated by
    itself. ``passes``: 2 where a second one shall follow, see ``again``. ``networks`` is the copy.
    """

    def __init__(self, translators, strength, passes=1):
        self.multiple, self.least = translators.multiple, translators.min_size
        self.moves, self.past = strength > 0, Past(strength, passes)
        self.networks = with_memory(translators, self.past) if self.moves else translators
        self.before, self.way = None, (0.0, 0.0)

    def again(self):
        """To be called after the last frame: from here on comes the second pass over the same frames."""
        self.past.whole, self.past.shot, self.before = True, -1, None

    def translate(self, frames, translate):
        """The next frames, N×C×H×W in [-1, 1], to their translations, a list of C'×H×W on the same device.

        ``translate`` is a function that calls ``networks``: N×C×H'×W' of allowed sizes to N×C'×H'×W'.
        """
        height, width = frames.shape[2:]
        self.past.frames = []
        corners = [self._follow(frame) for frame in frames] if self.moves else [((0, 0), (0, 0))] * len(frames)
        sizes = [allowed(side, self.multiple, self.least) + self.moves * self.multiple for side in (height, width)]
        laid = [lay(frame, *corner, sizes) for frame, corner in zip(frames, corners, strict=True)]
        translations = translate(torch.stack(laid))
        return [lift(*one, height, width) for one in zip(translations, corners, strict=True)]

    def _follow(self, frame):
        """The upper left corner for the next frame, C×H×W, on the grid: whole pixels (y, x), and fractions. Tells the
        norms of it."""
        step = follow(frame, self.before)
        self.way = (self.way[0] + step[0], self.way[1] + step[1]) if step is not None else (0.0, 0.0)
        self.past.add(cut=step is None)
        self.before = frame
        whole = [math.floor(0.5 - way) for way in self.way]
        return tuple(w % self.multiple for w in whole), tuple(-way - w for way, w in zip(self.way, whole, strict=True))


def lay(image, corner, fraction, sizes):
    """C×H×W within a larger one of ``sizes``, its upper left at ``corner`` plus ``fraction``; continued by reflection
    on all sides."""
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), (before, size - side - before), mode="reflect")).to(image.device)
        for side, before, size in zip(image.shape[1:], corner, sizes, strict=True)
    )
    image = image[:, rows][:, :, columns]
    return moved(image, *fraction) if any(fraction) else image


def lift(image, corner, height, width):
    """The way back from ``lay``."""
    (y, x), fraction = corner
    image = moved(image, *(-part for part in fraction)) if any(fraction) else image
    return image[:, y : y + height, x : x + width]


# ---------------------------------------------------------------------------------------------------------------------
# Norms with a memory
# ---------------------------------------------------------------------------------------------------------------------


class Past:
    """What the norms of a network have in common. ``frames``: those in it now, as (shot, place in the shot).
    ``whole``: whether all of the clip has been seen before."""

    def __init__(self, strength, passes):
        self.strength, self.passes, self.whole = strength, passes, False
        self.shot, self.place, self.frames = -1, 0, []

    def add(self, cut):
        """One more frame; ``cut``: with which a shot begins."""
        self.shot, self.place = (self.shot + 1, 0) if cut else (self.shot, self.place + 1)
        self.frames.append((self.shot, self.place))


class SteadyNorm(nn.Module):
    """A norm without parameters whose mean and variance over ``dims`` are those of the frames before, too."""

    def __init__(self, dims, eps, past):
        super().__init__()
        self.dims, self.eps, self.past = dims, eps, past
        self.average = None  # 2×C: of the means, of the variances
        self.sums = []  # of each shot: the sum of what there was to average, and the number of frames

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, self.dims, unbiased=False)
        own = torch.stack([mean.reshape(len(x), -1), variance.reshape(len(x), -1)], 1)  # N×2×C
        mean, variance = self.settle(own)[..., None, None].unbind(1)
        return ((wide - mean) * torch.rsqrt(variance + self.eps)).to(x.dtype)

    def settle(self, own):
        """From the frames' own statistics, N×2×C, to those by which they are normalised."""
        return torch.stack([self._settle(*each) for each in zip(own, self.past.frames, strict=True)])

    def _settle(self, own, frame):
        shot, place = frame
        if self.past.whole:
            total, count = self.sums[shot]
            return total / count
        # The mean of all frames, until there are so many that an average with a limited memory begins to forget.
        share = max(1 - self.past.strength, 1 / (place + 1))
        self.average = torch.lerp(self.average, own, share) if place else own
        if self.past.passes > 1:
            total, count = self.sums.pop() if place else (0, 0)
            self.sums.append((total + own, count + 1))
        return self.average


@advance.register
def steady_norm(layer: SteadyNorm, x):
    return normalize(x, layer.dims, layer.eps, lambda own: layer.settle(own[None])[0])


def with_memory(translators, past):
    """A copy of ``translators`` with the same weights, whose norms share the ``past``.

    Norms with parameters or running statistics stay as they are; so do ONNX files, into which one cannot look.
    """
    if not isinstance(translators, nn.Module):
        return translators
    networks = copy.deepcopy(translators, {id(weight): weight for weight in translators.parameters()})
    for module in list(networks.modules()):
        for name, layer in module.named_children():
            dims = next((dims for kind, dims in NORMS.items() if isinstance(layer, kind)), None)
            if dims and not any(True for _ in layer.parameters()) and not any(True for _ in layer.buffers()):
                setattr(module, name, SteadyNorm(dims, layer.eps, past))
    return networks
