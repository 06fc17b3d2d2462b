"""What the last, smaller batch of an epoch costs under --compile: seconds for a step on it, and compilations.

    python benchmarks/remainder.py [--json FILE] [-- flags of cycle_gan.py]

The first step on a batch of a new size compiles again, in minutes; hence cycle_gan.py leaves such a batch out.
"""

import argparse
import time

from common import show, synchronize  # first: it makes the folder above importable

# isort: split
import torch
from torch._dynamo.utils import counters
from train_step import SMALL_NETWORKS

from options import parse_training
from runtime.device import pick_device
from runtime.errors import exit_cleanly
from trainer import CycleGAN


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    small = [] if device.type == "cuda" else [*SMALL_NETWORKS, "--img_height=64", "--img_width=64"]
    options = parse_training([*small, "--recipe=classic", "--batch_size=4", "--compile", *arguments.flags])[0]
    model, rows = CycleGAN(options, device), []
    for what, size in (("first step", 4), ("second step", 4), ("remainder", 3), ("the next epoch's", 4)):
        batch = {side: torch.rand(size, 3, options.img_height, options.img_width, device=device) for side in "AB"}
        before = counters["stats"]["unique_graphs"]
        begin = time.perf_counter()
        for update in model.updates(1):
            update(batch)
        synchronize(device)
        seconds = time.perf_counter() - begin
        rows.append({"step": what, "batch": size, "s": seconds, "graphs": counters["stats"]["unique_graphs"] - before})
    show(rows, arguments.json, device)


if __name__ == "__main__":
    exit_cleanly(main)
