"""How much translated clips flicker, measured against a motion that is known: a Markdown table.

    python datasets/earth.py topo2relief --clip 240
    python benchmarks/flicker.py --checkpoint saved_models/topo2relief

Flicker is the mean absolute difference between a frame and the frame before, moved by the known motion, in 1/255 of
the range. Such moving interpolates, so that even the real clips have some. At --steady 1e-6 the grid follows the
picture, and norms do not remember. Sharpness is the mean absolute value of the
Laplacian, in the same unit; KID compares quarters of every third frame with those of the true clip; L1 is to the truth.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from common import show

from inference.steady import Steady
from readers.clips import by_number
from readers.domains import to_bytes, to_tensor
from readers.pictures import load_image
from reporting.metrics import build_features, set_distances
from runtime.device import pick_device
from runtime.errors import exit_cleanly
from translators import load

EDGE = 8  # pixels at the border of a frame that are not compared


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="saved_models/topo2relief")
    parser.add_argument("--clip", type=Path, default=Path("datasets/topo2relief_clip"))
    parser.add_argument("--frames", type=int, help="only so many of them")
    parser.add_argument("--steady", type=float, nargs="+", default=[0, 1e-6, 0.5, 0.9, 0.98])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--film", help="instead of measuring, write this WebP: input, frame by frame, steady")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = pick_device("auto")
    translators = load(arguments.checkpoint, device=device).translators
    windows = json.loads((arguments.clip / "windows.json").read_text())[: arguments.frames]
    clip, truth = (load_clip(arguments.clip / side, len(windows)) for side in "AB")
    if arguments.film:
        return film([clip, *(translated(translators, clip, strength, 1) for strength in (0, 0.9))], arguments.film)
    measure = Measure(windows, clip, truth, build_features("efficientnet_lite0", device))
    rows = [measure("input", clip), measure("truth", truth)]
    for strength, passes in [*((strength, 1) for strength in arguments.steady), (0.9, 2)]:
        name = "two passes" if passes > 1 else f"steady {strength:g}" if strength else "frame by frame"
        rows.append(measure(name, translated(translators, clip, strength, passes)))
        print(rows[-1], flush=True)
    show(rows, arguments.json, device)


def load_clip(folder, count):
    """Frames N×3×H×W in [-1, 1]."""
    return torch.stack([to_tensor(load_image(path)) for path in sorted(folder.iterdir(), key=by_number)[:count]])


@torch.inference_mode()
def translated(translators, clip, strength, passes):
    """The clip from A to B, as test.py translates it."""
    steady = Steady(translators, strength, passes)
    for number in range(passes):
        if number:
            steady.again()
        batches = (steady.translate(frames, lambda x: steady.networks.translate("A", x)[0]) for frames in clip.split(4))
        result = [frame for batch in batches for frame in batch]
    return torch.stack(result).clamp(-1, 1)


def film(clips, path):
    """Write clips N×3×H×W in [-1, 1] side by side, 24 frames a second."""
    pictures = [Image.fromarray(frame) for frame in to_bytes(torch.cat(clips, 3)).permute(0, 2, 3, 1).numpy()]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=42, loop=0, quality=80)


class Measure:
    """What there is to say of a clip N×3×H×W in [-1, 1] that shows the ``windows`` (x, y, scale) of a map."""

    def __init__(self, windows, clip, truth, features):
        self.windows, self.truth, self.features = windows, truth, features
        self.base, self.real = self.flicker(clip), self.features_of(truth)

    @torch.inference_mode()
    def __call__(self, name, clip):
        flicker, distances = self.flicker(clip), set_distances(self.features_of(clip), self.real)
        return {
            "clip": name,
            "flicker": flicker,
            "over the input's": flicker / self.base,
            "sharpness": sharpness(clip),
            "KID": distances["KID"],
            "KID error": distances["KID error"],
            "L1": (clip - self.truth).abs().mean().item() * 127.5,
        }

    def flicker(self, clip):
        pairs = zip(clip, clip[1:], self.windows, self.windows[1:], strict=False)
        differences = [difference(*pair) for pair in pairs]
        return sum(differences) / len(differences) * 127.5

    @torch.inference_mode()
    def features_of(self, clip):
        """Of the quarters of every third frame."""
        side = clip.shape[2] // 2
        quarters = clip[::3].unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        pixels = (quarters + 1) * 127.5
        return torch.cat([self.features(part.round()) for part in pixels.split(16)])


def difference(before, now, window_before, window):
    """The mean absolute difference of ``now`` and ``before``, C×H×W, where both show the same places."""
    side = now.shape[-1]
    x, y, scale = window
    x_before, y_before, scale_before = window_before
    from_middle = torch.arange(side) + 0.5 - side / 2
    columns = (x + scale * from_middle - x_before) / scale_before + side / 2  # in the frame before
    rows = (y + scale * from_middle - y_before) / scale_before + side / 2
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None] / side * 2 - 1
    moved = F.grid_sample(before[None], grid, "bicubic", "border", align_corners=False)[0].clamp(-1, 1)
    inside = [(at > EDGE) & (at < side - EDGE) for at in (rows, columns)]
    return (now - moved).abs()[:, inside[0]][:, :, inside[1]].mean().item()


def sharpness(clip):
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
    return F.conv2d(clip, kernel, groups=3).abs().mean().item() * 127.5


if __name__ == "__main__":
    exit_cleanly(main)
