"""How evenly the gradient of a critic on features comes back to the pixels: python benchmarks/hatching.py

For heads that are new, on training images of a data set, and for each depth alone: the lowest and the highest gradient
(root mean square) over the 4×4 positions of a grid, relative to all; and its power at stripes of two pixels (down,
across, checks) and of eight, relative to the mean over all frequencies.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from critics import FeatureCritic, build_backbone, head
from datasets import UnpairedImages, find_side, list_images
from options import parse_training
from runtime.errors import exit_cleanly

SIZE, IMAGES = 64, 48


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="satellite2relief")
    parser.add_argument("--backbone", default="efficientnet_lite1")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    backbone, x = build_backbone(arguments.backbone), photographs(arguments.dataset)
    print("stride  features  lowest  highest  stripes of 2: down  across  checks; of 8: down  across  checks")
    for stride in FeatureCritic.STRIDES:
        features = backbone(x, (stride,))[0]
        gradient = gradient_of(lambda images, stride=stride: backbone(images, (stride,))[0] * FeatureCritic.SCALE, x)
        low, high = positions(gradient)
        powers = "  ".join(f"{power(gradient, size, *at):.2f}" for size in (2, 8) for at in ((1, 0), (0, 1), (1, 1)))
        print(f"{stride:6}  {features.std().item():8.1f}  {low:.2f}  {high:.2f}  {powers}")


def photographs(name):
    """IMAGES crops of trainA: N×3×SIZE×SIZE in [-1, 1]."""
    options = parse_training([f"--img_height={SIZE}", f"--img_width={SIZE}", "--flip=none"])[0]
    paths = (list_images(find_side(f"datasets/{name}", "train", side)) for side in "AB")
    dataset = UnpairedImages(*paths, options)
    return torch.stack([dataset[i]["A"] for i in range(IMAGES)])


def gradient_of(network, x):
    """The gradient of the generators' least squares at images ``x``, through a new head."""
    x = x.clone().requires_grad_()
    maps = network(x)
    return torch.autograd.grad((head(maps.shape[1], 64)(maps) - 1).square().mean(), x)[0]


def positions(gradient):
    """The lowest and the highest root mean square at the positions of a 4×4 grid, away from the borders."""
    inner = gradient[:, :, 16:48, 16:48].square().mean((0, 1)).reshape(8, 4, 8, 4).mean((0, 2))
    relative = (inner / inner.mean()).sqrt()
    return relative.min().item(), relative.max().item()


def power(gradient, period, down, across):
    """The gradient's power at stripes of ``period`` pixels, over the mean power of all frequencies but 0."""
    spectrum = torch.fft.fft2(gradient).abs().square().mean((0, 1))
    spectrum[0, 0] = 0
    return (spectrum[down * SIZE // period, across * SIZE // period] / spectrum.mean()).item()


if __name__ == "__main__":
    exit_cleanly(main)
