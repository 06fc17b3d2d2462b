"""The ten dearest operations of a training step, for each recipe, by the time that they take themselves.

    OMP_NUM_THREADS=1 python benchmarks/operations.py [--json FILE] [-- --amp off]

Sizes are those of train_step.py. What stands behind ``--`` are flags of cycle_gan.py. (Why this is not profile.py:
torch imports a module of that name, Python's own.)
"""

import argparse

from common import show  # first: it makes the folder above importable

# isort: split
from torch.profiler import ProfilerActivity, profile
from train_step import SMALL_NETWORKS, stepper

from registry import RECIPES
from runtime.device import pick_device
from runtime.errors import exit_cleanly
from trainer import CycleGAN

DEAREST = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--size", type=int, help="crops (default: 64 on a CPU, 256 on a GPU)")
    parser.add_argument("--steps", type=int, default=10, help="that are looked at")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    gpu = device.type == "cuda"
    size = arguments.size or (256 if gpu else 64)
    flags = [*([] if gpu else SMALL_NETWORKS), f"--device={device}", f"--img_height={size}", f"--img_width={size}"]
    rows = []
    for recipe in arguments.recipes:
        step = stepper(CycleGAN, [f"--recipe={recipe}", *flags, *arguments.flags], device)
        rows += dearest(step, device, arguments.steps, {"recipe": recipe, "size": size})
    show(rows, arguments.json, device)


def dearest(step, device, steps, names):
    """A row for each of the ``DEAREST`` operations of ``step()``: milliseconds of one step, its share, calls."""
    for _ in range(3):
        step()
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()

    def own(event):
        return event.self_device_time_total if gpu else event.self_cpu_time_total

    events = profiler.key_averages()
    total = sum(map(own, events))
    return [
        {
            **names,
            "operation": event.key,
            "ms": own(event) / steps / 1e3,
            "share": own(event) / total,
            "calls": event.count / steps,
        }
        for event in sorted(events, key=own, reverse=True)[:DEAREST]
    ]


if __name__ == "__main__":
    exit_cleanly(main)
