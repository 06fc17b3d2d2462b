"""How much computing it takes until translations are as good as those of the published CycleGAN after 200 s.

    python benchmarks/time_to_quality.py --json FILE --plot FILE.png -- --recipe lsgan

Trains as experiment.py does (a budget of processor time of one thread; the learning rate is constant for half of it,
then falls to 0) and measures on the way, which takes nothing from the budget. A level is reached at the first
measurement from which on all are at least as good. Each training is a line of JSON, appended to --json; the table and
the plot are of all lines there (``--seeds`` with nothing behind it trains nothing).
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from common import table
from experiment import Measure, build, options_of, train, with_optimizer

from runtime import jsonl
from runtime.errors import exit_cleanly

SMALLER_IS_BETTER = {"KID": True, "SSIM": False, "coast": False}
LEVELS = {  # data set → number → from A to B, from B to A: the published CycleGAN after 200 s of this budget
    "topo2relief": {"KID": (0.329, 0.311), "SSIM": (0.528, 0.368), "coast": (0.851, 0.919)},
    "satellite2relief": {"KID": (0.410, 0.427), "SSIM": (0.395, 0.382), "coast": (0.723, 0.726)},
}
DIRECTIONS = "AtoB", "BtoA"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(LEVELS), choices=LEVELS)
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument(
        "--every", type=float, default=5, help="seconds between two measurements; --seconds is a multiple"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--json", required=True, help="file to which the lines are appended, and that is shown")
    parser.add_argument("--plot", help="file for a plot (needs matplotlib)")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for dataset in arguments.datasets:
            jsonl.append(Path(arguments.json), follow(dataset, seed, arguments))
    lines = [json.loads(line) for line in Path(arguments.json).read_text().splitlines()]
    print(table(rows(lines)))
    if arguments.plot:
        plot(lines, arguments.plot)


def follow(dataset, seed, arguments):
    """One training: its settings and its course, numbers at so many seconds."""
    options = options_of(dataset, seed, arguments.flags)
    model = build(options)
    measure, course = Measure(model, dataset), []

    def watch(seconds):
        course.append({"seconds": round(min(seconds, arguments.seconds), 1), **measure()})
        print(dataset, seed, course[-1], flush=True)

    _, steps = train(model, options, arguments.seconds, arguments.every, watch)
    settings = {name: getattr(arguments, name) for name in ("seconds", "every")}
    flags = with_optimizer(arguments.flags, options)
    return {"dataset": dataset, "flags": flags, "seed": seed, **settings, "steps": steps, "course": course}


def reached(course, level, smaller):
    """The seconds of the first of ``course``, pairs (seconds, number), from which on all are as good as ``level``;
    None where the last one is not."""
    first = None
    for seconds, number in reversed(course):
        if number > level if smaller else number < level:
            break
        first = seconds
    return first


def times(line):
    """(number, direction) → the seconds until its level, or None, of one training."""
    return {
        (name, direction): reached(
            [(point["seconds"], point[direction][name]) for point in line["course"]], levels[i], SMALLER_IS_BETTER[name]
        )
        for name, levels in LEVELS[line["dataset"]].items()
        for i, direction in enumerate(DIRECTIONS)
    }


def rows(lines):
    """A row for each setting: the median of the seconds to each level, and how many seeds got there."""
    settings = dict.fromkeys((line["dataset"], line["flags"], line["seconds"]) for line in lines)
    found = []
    for dataset, flags, seconds in settings:
        same = [
            line for line in lines if (line["dataset"], line["flags"], line["seconds"]) == (dataset, flags, seconds)
        ]
        taken = [times(line) for line in same]
        row = {"data set": dataset, "flags": f"`{flags}`", "budget": seconds, "steps": mean_steps(same)}
        for name, direction in taken[0]:
            row[f"{name} {direction}"] = shown([one[name, direction] for one in taken])
        found.append(
            row | {"all six": shown([max(one.values()) if None not in one.values() else None for one in taken])}
        )
    return found


def mean_steps(lines):
    return round(statistics.mean(line["steps"] for line in lines))


def shown(seconds):
    """The median of those that got there, and how many did, where not all: "12.5 (2 of 3)"."""
    there = [x for x in seconds if x is not None]
    if not there:
        return "–"
    return f"{statistics.median(there):.3g}" + (
        "" if len(there) == len(seconds) else f" ({len(there)} of {len(seconds)})"
    )


def plot(lines, path):
    """A panel for each data set, number and direction; a line for each training; the level dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys((line["flags"], line["seconds"]) for line in lines))
    datasets = [name for name in LEVELS if any(line["dataset"] == name for line in lines)]
    figure, axes = pyplot.subplots(
        len(datasets), 6, figsize=(18, 3 * len(datasets)), squeeze=False, layout="constrained"
    )
    for row, dataset in zip(axes, datasets, strict=True):
        panels = [(name, i) for name in SMALLER_IS_BETTER for i in range(2)]
        for axis, (name, i) in zip(row, panels, strict=True):
            for line in (line for line in lines if line["dataset"] == dataset):
                kind = kinds.index((line["flags"], line["seconds"]))
                label = f"{line['flags']}, {line['seconds']:g} s" if line["seed"] == 0 else None
                points = [(point["seconds"], point[DIRECTIONS[i]][name]) for point in line["course"]]
                axis.plot(*zip(*points, strict=True), color=f"C{kind}", linewidth=1, label=label)
            axis.axhline(LEVELS[dataset][name][i], color="black", linestyle="--", linewidth=1)
            axis.set_title(f"{dataset}: {name} {DIRECTIONS[i]}", fontsize=9)
            axis.set_xlabel("s")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=60)


if __name__ == "__main__":
    exit_cleanly(main)
