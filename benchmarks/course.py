"""How good a run was hour by hour: its evaluations and, for maps with a coast, the coasts of its checkpoints.

    python benchmarks/course.py --dataset_name satellite2relief --out docs/satellite128.svg --json FILE

After a training with ``--minutes`` and ``--eval_interval``. Draws KID, SWD, SSIM and the balanced accuracy of coasts
(coast.py) against the hours of training; prints the first, the middle and the last of each.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from coast import agreements, styles
from plot import pyplot, save

from readers.folders import find_side
from runtime import checkpoints, jsonl
from runtime.errors import exit_cleanly
from translators import load_translators

MEASURES, DIRECTIONS, CPU = ("KID", "SWD", "SSIM", "coast"), ("AtoB", "BtoA"), torch.device("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    name = arguments.dataset_name
    saves, style = Path("saved_models") / name, styles(name)
    course = {f"{measure} {direction}": [] for measure in MEASURES for direction in DIRECTIONS}
    steps, hours = [0], [0.0]
    for each in checkpoints.listed(saves):
        state = checkpoints.load_file(each.path)
        steps.append(state["steps"])
        hours.append(state["seconds"] / 3600)
        for direction, value in (coasts(name, style, state) if style else {}).items():
            course[f"coast {direction}"].append((hours[-1], value))
    for line in jsonl.read(Path(f"images/{name}/scalars.jsonl"), lambda row: "step" in row):
        for key in course.keys() & line.keys():
            course[key].append((float(np.interp(line["step"], steps, hours)), line[key]))
    course = {key: points for key, points in course.items() if points}
    for key, points in course.items():
        shown = (points[0], points[len(points) // 2], points[-1])
        print(key, *(f"{value:.3f} after {hour:.2f} h" for hour, value in shown))
    draw(course, arguments.out)
    if arguments.json:
        arguments.json.write_text(json.dumps(course, indent=1) + "\n")


@torch.inference_mode()
def coasts(name, style, state):
    """Direction → agreement of a checkpoint's translations of the test maps with the true ones."""
    folders = {side: find_side(Path("datasets") / name, "test", side) for side in "AB"}
    return agreements(load_translators(state, CPU), folders, style, CPU)


def draw(course, path):
    """The ``course``, name → [(hour, value)], as a picture: a panel a measure."""
    shown = [measure for measure in MEASURES if any(key.startswith(measure) for key in course)]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(3 * len(shown), 2.8), layout="constrained", squeeze=False)
    for axis, measure in zip(axes[0], shown, strict=True):
        for direction in DIRECTIONS:
            axis.plot(*zip(*course[f"{measure} {direction}"], strict=True), label=direction)
        axis.set(title=measure, xlabel="hours")
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    save(figure, path)


if __name__ == "__main__":
    exit_cleanly(main)
