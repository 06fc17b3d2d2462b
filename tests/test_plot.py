"""The plot of experiments: means over seeds and directions, in a picture that is well-formed."""

import json
import sys
import xml.etree.ElementTree as tree

import plot
import pytest


def line(dataset, flags, seed, seconds, kids, **more):
    numbers = {side: {"KID": kid} for side, kid in zip(("AtoB", "BtoA"), kids, strict=True)}
    return {"dataset": dataset, "flags": flags, "seed": seed, "seconds": seconds, **numbers, **more}


LINES = [
    line("maps", "--recipe lsgan", 0, 200, (0.2, 0.1)),
    line("maps", "--recipe lsgan", 1, 200, (0.4, 0.3)),
    line("maps", "--recipe lsgan", 0, 400, (0.1, 0.1)),
    line("maps", "--recipe lsgan", 0, 400, (9, 9), variants=["norm=all"]),
    line("maps", "--recipe lsgan", 0, 400, (9, 9), images=10),
    line("maps", "--recipe lsgan --lr 1", 0, 400, (9, 9)),
    line("other", "--recipe lsgan", 0, 400, (9, 9)),
]


def test_points_are_of_plain_runs_with_these_flags():
    found = plot.points(LINES, "maps", "--recipe lsgan", "KID")
    assert list(found) == [200, 400]
    assert found[200] == pytest.approx((0.15, 0.25, 0.35)) and found[400] == pytest.approx((0.1, 0.1, 0.1))
    assert plot.points(LINES, "maps", "--recipe lsgan", "SWD") == {}


@pytest.mark.parametrize(
    ("top", "expected"),
    [(0.57, [0, 0.1, 0.2, 0.3, 0.4, 0.5]), (1.1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (90, [0, 20, 40, 60, 80])],
)
def test_ticks_are_round(top, expected):
    assert plot.ticks(top) == pytest.approx(expected)


def test_the_picture_has_a_dot_for_each_mean_at_its_height(tmp_path, monkeypatch):
    lines, out = tmp_path / "lines.jsonl", tmp_path / "out.svg"
    lines.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    words = [out, "a <b>=--recipe lsgan", "--json", lines, "--datasets", "maps"]
    monkeypatch.setattr(sys, "argv", ["plot.py", *map(str, words)])
    plot.main()
    root = tree.fromstring(out.read_text())
    dots = [float(each.get("cy")) for each in root.iter("{http://www.w3.org/2000/svg}circle") if each.get("r") == "3.5"]
    zero = plot.HEIGHT - 34
    assert len(dots) == 2 and (zero - dots[0]) / (zero - dots[1]) == pytest.approx(2.5, rel=0.01)
    assert "a <b>" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
