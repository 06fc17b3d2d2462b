"""Quality against computing time, drawn from lines of experiment.py: a panel a data set, a colour a recipe.

    python benchmarks/plot.py docs/quality.svg "lsgan=--recipe lsgan --optimizer muon" --json FILE

Each recipe is LABEL=FLAGS, with flags as they stand in the lines: experiment.py always names the optimizer there. A dot
is the mean over both directions and all seeds with a budget, the bar behind it goes from the lowest to the highest
seed. Where a seed is there twice, its first line counts.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

sys.path.insert(0, str(Path(__file__).parent.parent))

from runtime.errors import UserError, exit_cleanly

matplotlib.use("Agg")
pyplot.style.use("tableau-colorblind10")
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "the same file each time"}

RESULTS = Path(__file__).parent / "results" / "experiments.jsonl"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("recipes", nargs="+", help="LABEL=FLAGS")
    parser.add_argument("--json", type=Path, nargs="+", default=[RESULTS], help="files of lines")
    parser.add_argument("--measure", default="KID")
    parser.add_argument("--datasets", nargs="+", default=["topo2relief", "satellite2relief"])
    arguments = parser.parse_args()
    lines = [json.loads(line) for path in arguments.json for line in path.read_text().splitlines()]
    recipes = dict(map(labelled, arguments.recipes))
    if len(recipes) < len(arguments.recipes):
        raise UserError("two recipes have the same label")
    panels = {
        name: {label: points(lines, name, flags, arguments.measure) for label, flags in recipes.items()}
        for name in arguments.datasets
    }
    check_drawn(panels, arguments.measure)
    draw(panels, arguments.measure, arguments.out)


def labelled(recipe):
    """LABEL=FLAGS as (label, flags)."""
    label, given, flags = recipe.partition("=")
    if not given:
        raise UserError(f"{recipe} is no LABEL=FLAGS")
    return label, flags


def check_drawn(panels, measure):
    """Raise UserError where one of a panel's recipes has no points."""
    for name, recipes in panels.items():
        if missing := [label for label, found in recipes.items() if not found]:
            raise UserError(f"no line has the flags of {', '.join(missing)}, and {measure} on {name}")


def points(lines, dataset, flags, measure):
    """Seconds → (lowest, mean, highest) over the seeds, of plain runs with these flags."""
    found = defaultdict(dict)
    for line in lines:
        plain = not line.get("variants") and "images" not in line
        if plain and (line.get("dataset"), line.get("flags")) == (dataset, flags) and measure in line.get("AtoB", ()):
            mean = (line["AtoB"][measure] + line["BtoA"][measure]) / 2
            found[line["seconds"]].setdefault(line["seed"], mean)
    seeds = {seconds: list(found[seconds].values()) for seconds in sorted(found)}
    return {seconds: (min(x), sum(x) / len(x), max(x)) for seconds, x in seeds.items()}


def draw(panels, measure, path):
    """Data set → recipe → ``points`` as a picture: a panel a data set."""
    size = 4.5 * len(panels) + 2, 3.2
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, sharex=True, layout="constrained")
    axes = np.atleast_1d(axes)
    ticks = sorted({seconds for recipes in panels.values() for found in recipes.values() for seconds in found})
    for axis, (name, recipes) in zip(axes, panels.items(), strict=True):
        for label, found in recipes.items():
            seconds, numbers = list(found), np.array(list(found.values())).reshape(-1, 3).T
            low, mean, high = numbers
            axis.errorbar(seconds, mean, (mean - low, high - mean), marker="o", markersize=4, capsize=3, label=label)
        axis.set(title=name, xlabel="seconds of one core", xscale="log", ylim=(0, None))
        axis.set_xticks(ticks, [f"{seconds:g}" for seconds in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"{measure}, mean of both directions")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    save(figure, path)


def save(figure, path):
    """Write ``figure`` in the format of the name; an SVG is the same file each time."""
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    exit_cleanly(main)
