"""How to compute a layer norm over a whole image: forward and backward, in several ways.

    python benchmarks/layer_norm.py                  (on a GPU: --device cuda --dtype bfloat16)

"one plane" makes each image one plane of an instance norm, as LayerNorm2d once did. The others are named after what
they call; "ours" is what LayerNorm2d picks for the device (layers.py).
"""

import argparse

from common import medians, show  # first: it makes the folder above importable

# isort: split
from functools import partial

import torch
import torch.nn.functional as F

from layers import InstanceNorm2d, LayerNorm2d, standardize
from runtime.device import pick_device
from runtime.errors import exit_cleanly

WAYS = {
    "one plane": lambda x: InstanceNorm2d(1)(x.flatten(1, 2).unsqueeze(1)).view_as(x),
    "group_norm": partial(F.group_norm, num_groups=1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "var_mean": partial(standardize, eps=LayerNorm2d.eps),
    "ours": LayerNorm2d(None),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["1x16x64x64", "2x64x256x256"], help="N×C×H×W, with an x")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    device, dtype = pick_device(arguments.device), getattr(torch, arguments.dtype)
    rows = []
    for shape in arguments.shapes:
        x = torch.randn(*map(int, shape.split("x")), device=device, dtype=dtype).requires_grad_()
        calls = max(1, 2**20 // x.numel())
        seconds = medians({way: partial(step, norm, x) for way, norm in WAYS.items()}, device, arguments.rounds, calls)
        rows.append({"shape": shape} | {f"{way} ms": 1e3 * s for way, s in seconds.items()})
    show(rows, arguments.json, device)


def step(norm, x):
    torch.autograd.grad(norm(x), x, x)


if __name__ == "__main__":
    exit_cleanly(main)
