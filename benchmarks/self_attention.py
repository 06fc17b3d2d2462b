"""Attention forward and backward in three ways, at full networks' width: time and memory as positions grow.

python benchmarks/self_attention.py [--json FILE]
"""

import argparse

from common import medians, peak_memory, show  # first: it makes the folder above importable

# isort: split
import torch

from attention import attend, attend_by_kernels, attend_in_full
from runtime.device import pick_device
from runtime.errors import exit_cleanly

CHANNELS = 256
WAYS = {"in full": attend_in_full, "torch's kernels": attend_by_kernels, "ours": attend}  # ours is torch's on a GPU


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64, 96, 128])
    parser.add_argument("--dtype", default=None, help="float32 or bfloat16 (default: bfloat16 on a GPU)")
    parser.add_argument("--limit", type=float, default=8, help="GiB that all weights at once may take")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    rows = [measure(side, device, dtype, arguments) for side in arguments.sides]
    show(rows, arguments.json, device)


def measure(side, device, dtype, arguments):
    """One row of the table; None for the weights at once where they, kept twice, would not fit."""
    fits = 2 * side**4 * dtype.itemsize <= arguments.limit * 2**30
    ways = [way for way in WAYS if fits or way != "in full"]
    seconds = medians({way: stepper(way, side, device, dtype) for way in ways}, device, arguments.rounds)
    memory = {way: peak_memory(stepper, device, way, side, device, dtype) for way in ways}
    row = {
        "positions": f"{side}×{side}",
        "type": str(dtype).removeprefix("torch."),
        **{f"{way} ms": 1e3 * seconds[way] if way in seconds else None for way in WAYS},
        **{f"{way} MiB": memory.get(way) for way in WAYS},
    }
    print(row, flush=True)
    return row


def stepper(way, side, device, dtype):
    """A function that goes forward and backward once, for one image."""
    torch.manual_seed(0)
    widths = CHANNELS // 8, CHANNELS // 8, CHANNELS
    qkv = [torch.randn(1, side * side, width, device=device, dtype=dtype, requires_grad=True) for width in widths]
    return lambda: torch.autograd.grad(WAYS[way](*qkv).sum(), qkv)


if __name__ == "__main__":
    exit_cleanly(main)
