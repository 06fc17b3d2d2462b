"""Whether a run gets there sooner from another run's networks (--init_from) than from scratch.

    python benchmarks/fine_tuning.py --seed 0 --json benchmarks/results/fine_tuning.jsonl

Trains on topo2relief, then on satellite2relief twice: from those networks, and from scratch, with the same budget of
processor time on one thread, as in experiment.py. Meanwhile KID is measured on the test folders by the features of
EfficientNet-Lite0, the mean of both directions; that takes nothing from the budget.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from experiment import SMALL, keep, train, with_optimizer

from options import parse_evaluation, parse_training
from readers.domains import pictures_of, plain
from readers.folders import find_side
from reporting.metrics import Evaluation
from resuming import start_from
from runtime import checkpoints
from runtime.device import flush_denormals
from runtime.errors import exit_cleanly
from trainer import CycleGAN

CPU = torch.device("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="topo2relief")
    parser.add_argument("--target", default="satellite2relief")
    parser.add_argument("--source_seconds", type=float, default=120)
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--every", type=float, default=20, help="seconds between two measurements")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to which the lines are appended")
    parser.add_argument("flags", nargs="*", default=["--recipe=lsgan"], help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flush_denormals()

    common = [*SMALL, f"--seed={arguments.seed}", *arguments.flags]
    with tempfile.TemporaryDirectory() as folder:
        model, options = build([*common, f"--dataset_name={arguments.source}"])
        train(model, options, arguments.source_seconds)
        generators = model.average.module.state_dict()
        origin = dict(options=vars(options), given=[], domains=plain(pictures_of(options)))
        position = dict(epoch=1, sample=0, steps=0, data={}, **origin)
        checkpoints.save(folder, {**position, "generators": generators}, keep=1)
        settings = {name: value for name, value in vars(arguments).items() if name != "json"}
        settings["flags"] = with_optimizer(arguments.flags, options)
        for start, flags in {"scratch": [], arguments.source: [f"--init_from={folder}"]}.items():
            curve = follow([*common, *flags, f"--dataset_name={arguments.target}"], arguments)
            keep({"from": start, **settings, "kid": curve}, arguments.json)


def build(flags):
    """A CycleGAN as cycle_gan.py starts it: (model, options)."""
    options, given = parse_training(flags)
    source = None
    if options.init_from:
        _, source = checkpoints.find(options.init_from)
        options, _ = start_from(given, source["options"])
    torch.manual_seed(options.seed)
    model = CycleGAN(options, CPU)
    if source:
        model.start_from(source)
    return model, options


def follow(flags, arguments):
    """Train, and measure on the way: a list of (seconds, KID)."""
    model, options = build(flags)
    folders = {side: find_side(f"datasets/{options.dataset_name}", "test", side) for side in "AB"}
    settings = parse_evaluation(["--features=efficientnet_lite0"])
    evaluation = Evaluation(folders, settings, CPU, model.translators, model.amp, pictures_of(options))
    curve = []

    def measure(seconds):
        numbers = evaluation(model.average.module)
        curve.append((round(seconds), round(sum(x["KID"] for x in numbers.values()) / len(numbers), 4)))

    measure(0)
    train(model, options, arguments.seconds, arguments.every, measure)
    return curve


if __name__ == "__main__":
    exit_cleanly(main)
