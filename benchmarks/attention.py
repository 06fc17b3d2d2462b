"""Self-attention, forward and backward, against the softmax written out: time and memory as positions grow.

python benchmarks/attention.py [--json FILE]
"""

import argparse

from common import medians, peak_memory, show  # first: it makes the folder above importable

# isort: split
import torch
from textbook import write_out_attention

from models import SelfAttention
from runtime.device import pick_device
from runtime.errors import exit_cleanly

CHANNELS = 256


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 96, 128])
    parser.add_argument("--dtype", default=None, help="float32 or bfloat16 (default: bfloat16 on a GPU)")
    parser.add_argument("--limit", type=float, default=8, help="GiB that the written-out matrix may take")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    rows = [measure(side, device, dtype, arguments) for side in arguments.sides]
    show(rows, arguments.json, device)


def measure(side, device, dtype, arguments):
    """One row of the table; None for the written-out attention where its matrices, kept twice, would not fit."""
    fits = 2 * side**4 * dtype.itemsize <= arguments.limit * 2**30
    versions = {explicit: stepper(side, device, dtype, explicit) for explicit in ([False, True] if fits else [False])}
    seconds = medians(versions, device, arguments.rounds)
    del versions
    memory = {kind: peak_memory(stepper, device, side, device, dtype, kind) for kind in seconds}
    row = {
        "positions": f"{side}×{side}",
        "type": str(dtype).removeprefix("torch."),
        "written out ms": 1e3 * seconds[True] if True in seconds else None,
        "ms": 1e3 * seconds[False],
        "written out MiB": memory.get(True),
        "MiB": memory[False],
    }
    print(row, flush=True)
    return row


def stepper(side, device, dtype, explicit):
    """A function that goes forward and backward once."""
    torch.manual_seed(0)
    attention = SelfAttention(CHANNELS).to(device, dtype)
    if explicit:
        write_out_attention(attention)
    x = torch.randn(1, CHANNELS, side, side, device=device, dtype=dtype, requires_grad=True)
    return lambda: attention(x).sum().backward()


if __name__ == "__main__":
    exit_cleanly(main)
