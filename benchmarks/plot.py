"""Quality against computing time, drawn from lines of experiment.py: a panel a data set, a colour a recipe.

    python benchmarks/plot.py docs/quality.svg "lsgan=--recipe lsgan --amp bf16" "classic=--recipe classic"

Each recipe is LABEL=FLAGS, with flags as they stand behind ``--``. A dot is the mean over both directions and all seeds
with a budget, the bar behind it goes from the lowest to the highest seed.
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

from runtime.errors import exit_cleanly

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
    recipes = dict(recipe.split("=", 1) for recipe in arguments.recipes)
    panels = {
        name: {label: points(lines, name, flags, arguments.measure) for label, flags in recipes.items()}
        for name in arguments.datasets
    }
    draw(panels, arguments.measure, arguments.out)


def points(lines, dataset, flags, measure):
    """Seconds → (lowest, mean, highest) over the seeds, of plain runs with these flags."""
    found = defaultdict(list)
    for line in lines:
        plain = not line.get("variants") and "images" not in line
        if plain and (line.get("dataset"), line.get("flags")) == (dataset, flags) and measure in line["AtoB"]:
            found[line["seconds"]].append((line["AtoB"][measure] + line["BtoA"][measure]) / 2)
    return {seconds: (min(x), sum(x) / len(x), max(x)) for seconds, x in sorted(found.items())}


def draw(panels, measure, path):
    """Data set → recipe → ``points`` as a picture: a panel a data set."""
    if not any(any(recipes.values()) for recipes in panels.values()):
        sys.exit("no line has these data sets and flags")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.2), sharex=True, layout="constrained")
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
    axes[0].legend()
    save(figure, path)


def save(figure, path):
    """Write ``figure`` in the format of the name; an SVG is the same file each time."""
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    exit_cleanly(main)
