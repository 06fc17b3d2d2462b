"""Quality against computing time as an SVG, from lines of experiment.py: a panel a data set, a colour a recipe.

    python benchmarks/plot.py docs/quality.svg "lsgan=--recipe lsgan --amp bf16" "classic=--recipe classic"

Each recipe is LABEL=FLAGS, with flags as they stand behind ``--``. A dot is the mean over both directions and all seeds
with a budget, the bar behind it goes from the lowest to the highest seed.
"""

import argparse
import json
import math
from collections import defaultdict
from html import escape
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "experiments.jsonl"
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # of Okabe and Ito: told apart by all eyes
WIDTH, HEIGHT, LEFT, TOP = 300, 220, 48, 26


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("recipes", nargs="+", help="LABEL=FLAGS")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--measure", default="KID")
    parser.add_argument("--datasets", nargs="+", default=["topo2relief", "satellite2relief"])
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.json.read_text().splitlines()]
    recipes = dict(recipe.split("=", 1) for recipe in arguments.recipes)
    panels = {
        name: {label: points(lines, name, flags, arguments.measure) for label, flags in recipes.items()}
        for name in arguments.datasets
    }
    arguments.out.write_text(svg(panels, arguments.measure))


def points(lines, dataset, flags, measure):
    """Seconds → (lowest, mean, highest) over the seeds, of plain runs with these flags."""
    found = defaultdict(list)
    for line in lines:
        plain = not line.get("variants") and "images" not in line
        if plain and (line.get("dataset"), line.get("flags")) == (dataset, flags) and measure in line["AtoB"]:
            found[line["seconds"]].append((line["AtoB"][measure] + line["BtoA"][measure]) / 2)
    return {seconds: (min(x), sum(x) / len(x), max(x)) for seconds, x in sorted(found.items())}


def svg(panels, measure):
    """The picture of data set → recipe → ``points``."""
    everything = [(s, y) for recipes in panels.values() for each in recipes.values() for s, y in each.items()]
    if not everything:
        raise SystemExit("no line has these data sets and flags")
    seconds = sorted({s for s, _ in everything})
    top = 1.05 * max(high for _, (_, _, high) in everything)
    first, last = math.log(seconds[0] / 1.25), math.log(seconds[-1] * 1.25)

    def x(s):
        return LEFT + (WIDTH - LEFT - 8) * (math.log(s) - first) / (last - first)

    def y(value):
        return HEIGHT - 34 - (HEIGHT - 34 - TOP) * value / top

    labels = list(dict.fromkeys(label for recipes in panels.values() for label in recipes))
    parts = []
    for column, (name, recipes) in enumerate(panels.items()):
        marks = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(name)}</text>']
        for value in ticks(top):
            marks.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - 8}" stroke="#ddd"/>')
            marks.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
        for s in seconds:
            marks.append(f'<text x="{x(s):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{s:g} s</text>')
        for label, found in recipes.items():
            marks.append(curve(found, x, y, COLOURS[labels.index(label) % len(COLOURS)], labels.index(label)))
        parts.append(f'<g transform="translate({column * WIDTH} 0)">{"".join(marks)}</g>')
    below = HEIGHT + 4
    for i, label in enumerate(labels):
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<circle cx="{LEFT + 4}" cy="{below + 16 * i}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 14}" y="{below + 4 + 16 * i}">{escape(label)}</text>')
    width, height = WIDTH * len(panels), below + 16 * len(labels)
    title = f"{escape(measure)}, mean of both directions, against computing time"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" role="img"><title>{title}</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def curve(found, x, y, colour, place):
    """Dots with their spread, and the line through them; recipes stand side by side."""
    aside = 3 * place - 4
    line = " ".join(f"{x(s) + aside:.1f},{y(mean):.1f}" for s, (_, mean, _) in found.items())
    marks = [f'<polyline points="{line}" fill="none" stroke="{colour}"/>']
    for s, (low, mean, high) in found.items():
        at = f"{x(s) + aside:.1f}"
        marks.append(f'<path d="M{at} {y(low):.1f}V{y(high):.1f}" stroke="{colour}" stroke-width="3" opacity=".4"/>')
        marks.append(f'<circle cx="{at}" cy="{y(mean):.1f}" r="3.5" fill="{colour}"/>')
    return "".join(marks)


def ticks(top):
    """Four or five round numbers from 0 on, up to ``top``."""
    step = 10 ** math.floor(math.log10(top))
    step = next(step * factor for factor in (0.2, 0.25, 0.5, 1, 2) if top / (step * factor) < 6)
    return [round(i * step, 10) for i in range(int(top / step) + 1)]


if __name__ == "__main__":
    main()
