"""Images too large to be translated whole: in overlapping tiles, blended, that share their statistics."""

from contextlib import contextmanager

import torch
from torch import nn


def overlap(tile):
    """The pixels that a tile shares with the next one."""
    return tile // 4


def starts(length, tile):
    """Where tiles begin so that they cover ``length`` pixels, the last one ending with them."""
    return [*range(0, length - tile, tile - overlap(tile)), length - tile]


def window(tile, first, last):
    """The weights of a tile's rows or columns: falling linearly towards the tiles before and behind it."""
    fade = overlap(tile)
    ramp = (torch.arange(fade) + 0.5) / fade
    weights = torch.ones(tile)
    if not first:
        weights[:fade] = ramp
    if not last:
        weights[-fade:] *= ramp.flip(0)
    return weights


class SharedStatistics:
    """Lets the instance norms of ``network`` take mean and variance over all tiles of an image, instead of each tile's.

    Each tile normalised by itself would be as bright and as rich in contrast as the next one, which shows as seams.
    """

    def __init__(self, network):
        self.norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm2d)]

    @contextmanager
    def gathered(self):
        """Notes the statistics of what reaches the norms inside."""
        sums = {}

        def note(norm, inputs):
            values = inputs[0].transpose(0, 1).flatten(1).double()
            total, squares, count = sums.get(norm, (0, 0, 0))
            sums[norm] = total + values.sum(1), squares + values.square().sum(1), count + values.shape[1]

        hooks = [norm.register_forward_pre_hook(note) for norm in self.norms]
        yield
        for hook in hooks:
            hook.remove()
        for norm, (total, squares, count) in sums.items():
            mean = total / count
            norm.running_mean = mean.float()
            norm.running_var = (squares / count - mean.square()).float()
            norm.track_running_stats = True  # in eval mode, instead of the input's own

    def forget(self):
        """Each image by itself again."""
        for norm in self.norms:
            norm.running_mean = norm.running_var = None
            norm.track_running_stats = False


def translate_in_tiles(translate, network, image, tile, batch_size, passes=2):
    """``translate`` (images N×C×h×w to the same) on ``image`` C×H×W, in tiles of at most ``tile``²; to the CPU.

    ``network`` is what ``translate`` runs, in eval mode. Of several passes, each takes the statistics that the one
    before it gathered over the tiles; the last one is the result.
    """
    _, height, width = image.shape
    tile_height, tile_width = min(tile, height), min(tile, width)
    places = [(top, left) for top in starts(height, tile_height) for left in starts(width, tile_width)]
    groups = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]

    def tiles(group):
        return torch.stack([image[:, top : top + tile_height, left : left + tile_width] for top, left in group])

    statistics = SharedStatistics(network)
    for _ in range(passes - 1):
        with statistics.gathered():
            for group in groups:
                translate(tiles(group))
    blended, weight = torch.zeros(image.shape), torch.zeros(height, width)
    for group in groups:
        for (top, left), translated in zip(group, translate(tiles(group)).float().cpu(), strict=True):
            rows = window(tile_height, top == 0, top + tile_height == height)
            columns = window(tile_width, left == 0, left + tile_width == width)
            weights = rows[:, None] * columns
            blended[:, top : top + tile_height, left : left + tile_width] += weights * translated
            weight[top : top + tile_height, left : left + tile_width] += weights
    statistics.forget()
    return blended / weight
