"""Images per second of the loader alone, by worker processes, cold and warm, against what the training step consumes.

    python benchmarks/loader.py [--json FILE]

Cold: nothing is decoded yet (the files may be in the system's memory). Warm: --cache holds every image. "without":
--cache 0. An image here is a sample, one of each side. Appetite: samples per second of the training step of the same
flags, which are those of cycle_gan.py behind ``--``, but for the penalty, which is due at each step.
"""

import argparse
import time

from common import medians, show, training_images  # first: it makes the folder above importable

# isort: split
from train_step import SMALL_NETWORKS, stepper

from datasets import UnpairedImages, epoch_batches, load_batches
from options import parse_training
from runtime.device import pick_device
from runtime.errors import exit_cleanly
from trainer import CycleGAN


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", default="datasets/topo2relief")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--epochs", type=int, default=3, help="warm epochs that are timed")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    defaults = [] if device.type == "cuda" else [*SMALL_NETWORKS, "--img_height=64", "--img_width=64"]
    words = [*defaults, f"--device={device}", *arguments.flags]
    options = parse_training(words)[0]
    appetite = options.batch_size / medians({"": stepper(CycleGAN, words, device)}, device, 5, 3)[""]

    paths, rows = training_images(arguments.folder), []
    for workers in arguments.workers:
        without = rate(UnpairedImages(*paths.values(), parse_training([*words, "--cache=0"])[0]), options, workers, 1)
        cached = UnpairedImages(*paths.values(), options)
        cold, warm = (rate(cached, options, workers, epochs) for epochs in (1, arguments.epochs))
        row = {"workers": workers, "without": without, "cold": cold, "warm": warm, "appetite": appetite}
        rows.append({**row, "warm / appetite": warm / appetite})
        print(rows[-1], flush=True)
    show(rows, arguments.json, device)


def rate(dataset, options, workers, epochs):
    """Samples per second over whole epochs, the start of the workers not counted."""
    schedule = epoch_batches(len(dataset), options.batch_size, 0, epochs)
    batches = load_batches(dataset, schedule, workers, pin_memory=options.device.startswith("cuda"))
    next(batches)
    begin = time.perf_counter()
    samples = sum(len(batch["A"]) for batch in batches)
    return samples / (time.perf_counter() - begin)


if __name__ == "__main__":
    exit_cleanly(main)
