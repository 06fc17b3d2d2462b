"""One short training under a fixed budget of computing time, and what came of it: a line of JSON.

    python benchmarks/experiment.py --dataset topo2relief --seconds 240 --seed 0 -- --recipe classic

What stands behind ``--`` are flags of cycle_gan.py. The budget is processor time of one thread, so two trainings may
run side by side on two cores; the learning rate is constant for half of it and then falls linearly to 0. Measured are
the averaged generators on the test folders: KID by the features of EfficientNet-Lite0, SSIM, and the agreement of the
coasts (coast.py). ``--grid`` saves a picture.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from coast import agreement, styles, water

from cycle_gan import grid_images
from datasets import UnpairedImages, WholeImages, epoch_batches, find_side, list_images, load_batches, to_bytes
from metrics import build_features, pair_distances, set_distances
from options import parse_training
from trainer import CycleGAN, lr_factor
from utils import LossLog, SampleGrid

SMALL = [
    "--img_height",
    "64",
    "--img_width",
    "64",
    "--ngf",
    "16",
    "--ndf",
    "16",
    "--n_residual_blocks",
    "3",
    "--n_cpu",
    "0",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="topo2relief")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", help="file for a sample grid")
    parser.add_argument("--json", help="file to which the line is appended")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    flags = [*SMALL, f"--dataset_name={arguments.dataset}", f"--seed={arguments.seed}", *arguments.flags]
    options = parse_training(flags)[0]
    torch.manual_seed(options.seed)
    model = CycleGAN(options, torch.device("cpu"))
    log, steps = train(model, options, arguments.seconds)
    line = {
        "dataset": arguments.dataset,
        "flags": " ".join(arguments.flags),
        "seed": arguments.seed,
        "seconds": arguments.seconds,
        "steps": steps,
        "losses": {name: round(value, 4) for name, value in log.items()},
        **evaluate(model.average.module, arguments.dataset),
    }
    print(json.dumps(line))
    if arguments.json:
        with open(arguments.json, "a") as file:
            file.write(json.dumps(line) + "\n")
    if arguments.grid:
        folder = f"datasets/{arguments.dataset}"
        SampleGrid(*(grid_images(folder, side, [], options) for side in "AB")).save(
            model.average.module, arguments.grid
        )


def train(model, options, seconds):
    """Train for so many seconds of processor time; returns the mean losses of the last 50 steps, and the steps."""
    paths = (list_images(find_side(f"datasets/{options.dataset_name}", "train", side)) for side in "AB")
    dataset = UnpairedImages(*paths, options)
    schedule = epoch_batches(len(dataset), options.batch_size, 0, 10**6)
    model.start_epoch(0)
    log, begin, steps, means = LossLog(), time.process_time(), 0, {}
    for steps, batch in enumerate(load_batches(dataset, schedule, 0), start=1):
        share = (time.process_time() - begin) / seconds
        if share >= 1:
            break
        model.scale_lr(lr_factor(1000 * share, 1000, 500))
        for half_step in model.half_steps(steps):
            log.add(steps, half_step(batch))
        if steps % 50 == 0:
            means = log.read()
    return means, steps


@torch.inference_mode()
def evaluate(translators, name):
    """Direction → numbers."""
    style, numbers = styles(name), {}
    images = {side: whole_images(f"datasets/{name}", side) for side in "AB"}
    features = build_features("efficientnet_lite0", "cpu")
    for source, target in ("AB", "BA"):
        fake = torch.cat([translators.translate(source, batch)[0] for batch in images[source].split(8)])
        fake, truth = (to_bytes(x) for x in (fake, images[target]))
        distances = set_distances(*(torch.cat([features(part) for part in x.split(16)]) for x in (fake, truth)))
        pairs = {measure: values.mean().item() for measure, values in pair_distances(fake, truth).items()}
        coast = agreement(water(fake, style[target]), water(truth, style[target]))
        numbers[f"{source}to{target}"] = {
            key: round(value, 4) for key, value in {**distances, **pairs, "coast": coast}.items()
        }
    return numbers


def whole_images(folder, side):
    """The test images, N×3×H×W in [-1, 1]; they are equally large."""
    images = WholeImages(list_images(find_side(folder, "test", side)), multiple=4)
    return torch.stack([images[i]["image"] for i in range(len(images))])


if __name__ == "__main__":
    main()
