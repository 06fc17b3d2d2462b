"""The plot of experiments: means over seeds and directions, in a picture that is well-formed."""

import json
import sys
import xml.etree.ElementTree as tree

import pytest

from runtime.errors import UserError

plot = pytest.importorskip("plot", reason="needs matplotlib: pip install -r requirements-dev.txt")


def line(dataset, flags, seed, seconds, kids, **more):
    numbers = {side: {"KID": kid} for side, kid in zip(("AtoB", "BtoA"), kids, strict=True)}
    return {"dataset": dataset, "flags": flags, "seed": seed, "seconds": seconds, **numbers, **more}


LINES = [
    line("maps", "--recipe lsgan", 0, 200, (0.2, 0.1)),
    line("maps", "--recipe lsgan", 1, 200, (0.4, 0.3)),
    line("maps", "--recipe lsgan", 0, 400, (0.1, 0.1)),
    line("maps", "--recipe lsgan", 0, 400, (9, 9)),  # the same seed once more
    line("maps", "--recipe lsgan", 0, 400, (9, 9), variants=["norm=all"]),
    line("maps", "--recipe lsgan", 0, 400, (9, 9), images=10),
    line("maps", "--recipe lsgan --lr 1", 0, 400, (9, 9)),
    line("other", "--recipe lsgan", 0, 400, (9, 9)),
    {"dataset": "maps", "flags": "--recipe lsgan", "seed": 0, "seconds": 400, "course": []},  # of another program
]


def test_points_are_of_plain_runs_with_these_flags():
    found = plot.points(LINES, "maps", "--recipe lsgan", "KID")
    assert list(found) == [200, 400]
    assert found[200] == pytest.approx((0.15, 0.25, 0.35)) and found[400] == pytest.approx((0.1, 0.1, 0.1))
    assert plot.points(LINES, "maps", "--recipe lsgan", "SWD") == {}


def test_the_picture_has_a_dot_for_each_mean_at_its_height(tmp_path, monkeypatch):
    lines, out = tmp_path / "lines.jsonl", tmp_path / "out.svg"
    lines.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    words = ["plot.py", str(out), "a <b>=--recipe lsgan", "--json", str(lines), "--datasets", "maps", "other"]
    monkeypatch.setattr(sys, "argv", words)
    plot.main()
    dots, *_ = plot.pyplot.gcf().axes[0].lines
    assert dots.get_xdata().tolist() == [200, 400] and dots.get_ydata() == pytest.approx([0.25, 0.1])
    root = tree.fromstring(out.read_text())
    assert "a <b>" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    for wrong, complaint in (
        ([*words, "none"], "no line has the flags of a <b>, and KID on none"),
        ([*words, "--measure=SWD"], "and SWD on maps"),
        ([*words[:3], "b=--recipe features", *words[3:]], "no line has the flags of b, and KID on maps"),
        ([*words[:3], "features", *words[3:]], "features is no LABEL=FLAGS"),
        ([*words[:3], *words[2:]], "two recipes have the same label"),
    ):
        monkeypatch.setattr(sys, "argv", wrong)
        with pytest.raises(UserError, match=complaint):
            plot.main()
