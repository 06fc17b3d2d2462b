"""One short training under a fixed budget of computing time, and what came of it: a line of JSON.

    python benchmarks/experiment.py --dataset topo2relief --seconds 240 --seed 0 -- --recipe classic

What stands behind ``--`` are flags of cycle_gan.py; ``--variant`` (variants.py) tries what those do not offer. The
budget on a CPU is processor time of one thread, so two trainings may run side by side on two cores; on a GPU it is the
clock's. The learning rate is constant for half of it and then falls linearly to 0. Measured are the averaged generators
on the test folders: what evaluate.py measures, by the features of EfficientNet-Lite0, and the coasts (coast.py) of
translations in float32. ``--grid`` saves a picture.
"""

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from coast import agreements, styles
from variants import change

from datasets import UnpairedImages, epoch_batches, load_batches
from options import parse_evaluation, parse_training
from readers.domains import PICTURES, pictures_of
from readers.folders import find_side, list_images
from reporting.grids import SampleGrid
from reporting.loss_log import LossLog
from reporting.metrics import Evaluation, check_measure
from reporting.monitor import grid_images
from runtime import jsonl
from runtime.device import flush_denormals, pick_device
from runtime.errors import exit_cleanly
from trainer import CycleGAN
from utils import EMA, lr_factor

SMALL = ["--img_height=64", "--img_width=64", "--ngf=16", "--ndf=16", "--n_residual_blocks=3", "--n_cpu=0"]


def main():
    parser = training_parser(__doc__, "topo2relief", 240)
    parser.add_argument("--images", type=int, help="train on so many images a side, drawn by the seed (all)")
    parser.add_argument(
        "--ema_decays", type=float, nargs="*", default=[],
        help="more values of --ema_decay, a line for each: they do not change the training, so one is enough",
    )  # fmt: skip
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flush_denormals()

    options = options_of(arguments.dataset, arguments.seed, arguments.flags)
    check_measure("efficientnet_lite0", options)
    model = build(options, arguments.variant)
    averages = {f"--ema_decay {decay:g}": EMA(model.translators, decay) for decay in arguments.ema_decays}
    log, steps = train(model, options, arguments.seconds, images=arguments.images, averages=averages.values())
    measure = Measure(model, arguments.dataset)
    drawn = {"images": arguments.images} if arguments.images else {}
    for flag, average in {"": model.average, **averages}.items():
        line = {**setting(arguments, options, flag), **drawn, "steps": steps, "losses": log, **measure(average)}
        keep(line, arguments.json)
    if arguments.grid:
        save_grid(model.average.module, options, model.device, arguments.grid)


def training_parser(description, dataset, seconds):
    """A parser of what short trainings have in common, with these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=dataset)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", action="append", default=[], help="NAME=VALUE of variants.py; can be repeated")
    parser.add_argument("--grid", help="file for a sample grid")
    parser.add_argument("--json", help="file to which the line is appended")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    return parser


def options_of(dataset, seed, flags):
    """The options of a short training of small networks."""
    return parse_training([*SMALL, f"--dataset_name={dataset}", f"--seed={seed}", *flags])[0]


def build(options, variants=()):
    """The CycleGAN that is trained, as the seed draws it."""
    torch.manual_seed(options.seed)
    model = CycleGAN(options, pick_device(options.device))
    change(model, variants)
    return model


def keep(line, path):
    """Print ``line`` as JSON, and append it to the file ``path`` if there is one."""
    print(json.dumps(line))
    if path:
        jsonl.append(Path(path), line)


def save_grid(translators, options, device, path):
    """The first test images of each side with their translations, as a picture."""
    shown = (grid_images(f"datasets/{options.dataset_name}", side, [], options, PICTURES) for side in "AB")
    SampleGrid(*(images.to(device) for images in shown)).save(translators, path)


def setting(arguments, options, flag):
    """The part of a line that says what was trained; ``flag`` is one more of cycle_gan.py, or empty."""
    return {
        "dataset": arguments.dataset,
        "variants": arguments.variant,
        "flags": f"{with_optimizer(arguments.flags, options)} {flag}".strip(),
        "seed": arguments.seed,
        "seconds": arguments.seconds,
    }


def with_optimizer(flags, options):
    """The words ``flags`` as text in which the optimizer is always named. Lines without it are older, and of Adam."""
    text = " ".join(flags)
    return text if "--optimizer" in text else f"{text} --optimizer {options.optimizer}".strip()


def train(model, options, seconds, every=math.inf, watch=None, images=None, averages=()):
    """Train for so many seconds; returns the mean losses since the last 50 steps, and the steps.

    ``images``: on so many of each side, drawn by the seed, and without it on all. ``watch`` is called after each
    ``every`` seconds with those that have gone by; what it takes does not count. ``averages`` follow the generators.
    """
    paths = [list_images(find_side(f"datasets/{options.dataset_name}", "train", side)) for side in "AB"]
    if images:
        paths = [random.Random(options.seed).sample(side, images) for side in paths]
    dataset = UnpairedImages(*paths, options)
    schedule = epoch_batches(len(dataset), options.batch_size, 0, 10**6)
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    model.set_schedule(0)
    log, begin, steps, means, due = LossLog(), clock(), 0, {}, every
    for steps, batch in enumerate(load_batches(dataset, schedule, 0), start=1):
        gone = clock() - begin
        if gone >= due:
            watch(gone)
            begin, due = clock() - gone, due + every
        share = gone / seconds
        if share >= 1:
            break
        model.scale_lr(lr_factor(1000 * share, 1000, 500))
        batch |= {side: batch[side].to(model.device) for side in "AB"}
        for update in model.updates(steps):
            log.add(steps, update(batch))
            for average in averages if update == model.update_G else ():
                average.update_parameters(model.translators)
        if steps % 50 == 0:
            means = log.read()
    return {name: round(value, 4) for name, value in means.items()}, steps - 1  # the last batch came too late


class Measure:
    """Measures averaged generators, those of ``model`` unless others are given, on the test folders of a data set:
    direction → numbers."""

    def __init__(self, model, name):
        self.model, self.styles = model, styles(name)
        options = parse_evaluation(["--features=efficientnet_lite0"])
        self.folders = {side: find_side(f"datasets/{name}", "test", side) for side in "AB"}
        device, amp, domains = model.device, model.amp, pictures_of(model.options)
        self.evaluation = Evaluation(self.folders, options, device, model.translators, amp, domains)

    @torch.inference_mode()
    def __call__(self, average=None):
        average = (average or self.model.average).module
        numbers = self.evaluation(average)
        if self.styles:
            for direction, coast in agreements(average, self.folders, self.styles, self.model.device).items():
                numbers[direction]["coast"] = coast
        return {direction: {key: round(x, 4) for key, x in row.items()} for direction, row in numbers.items()}


if __name__ == "__main__":
    exit_cleanly(main)
