"""The pages: what their data say, and, where there is a Chromium, what a browser makes of them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import TINY, noise_image

from reporting import pages

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def data(path):
    name, text = Path(path).read_text().split(" = ", 1)
    return json.loads(text.rstrip(";\n"))


def rendered(page):
    """The document as a browser leaves it."""
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000", "--dump-dom"]
    return subprocess.run([*command, page.resolve().as_uri()], capture_output=True, text=True, timeout=120).stdout


def test_the_page_of_a_training_run(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=2", "--no_tensorboard").code == 0
    run_data = data("images/tiny/data.js")
    assert run_data["grids"] == [2, 4, 6] and run_data["step"] == 6
    assert run_data["options"]["img_height"] == 16
    assert [step for step, _ in run_data["series"]["G"]][-1] == 6
    html = (workplace / "images/tiny/index.html").read_text()
    assert "http" not in html and "style.css" not in html and "#curves {" in html  # no network, and no second file
    page = rendered(workplace / "images/tiny/index.html")
    assert "tiny: step 6" in page and 'src="6.png"' in page and 'max="2"' in page
    assert '<div id="samples">' in page
    assert page.count("<polyline") >= len(run_data["series"]) and "points=" in page
    assert "<td>img_height</td><td>16</td>" in page


def test_a_run_without_grids_has_a_page_of_curves(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--sample_interval=0").code == 0
    assert data("images/tiny/data.js")["grids"] == []
    page = rendered(workplace / "images/tiny/index.html")
    assert "tiny: step 3" in page and "<polyline" in page and '<div id="samples" hidden="">' in page


def test_the_page_of_translations(workplace, run):
    (workplace / "datasets/tiny/testA/a b#<i>.png").write_bytes((workplace / "datasets/tiny/testA/0.png").read_bytes())
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 0
    folder = workplace / "results/tiny/epoch_1"
    rows = data(folder / "data.js")
    assert len(rows) == 4 + 3
    for _, _, source, output in rows:
        assert (folder / unquote(source)).exists() and (folder / unquote(output)).exists()
    page = rendered(folder / "index.html")
    assert "7 of 7" in page and "AtoB a b#&lt;i&gt;.png" in page and page.count('loading="lazy"') == 14


def test_an_image_on_another_drive_has_its_whole_address(tmp_path, monkeypatch):
    def other_drive(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    pages.write_results(tmp_path, [("AtoB", "a b.png", tmp_path / "a b.png", tmp_path / "c.png")])
    assert data(tmp_path / "data.js")[0][2] == f"file://{tmp_path}/a%20b.png"


def test_ten_thousand_translations(tmp_path):
    noise_image(0).save(tmp_path / "x.png")
    image = tmp_path / "x.png"
    pages.write_results(tmp_path, [("AtoB", f"{i}.png", image, image) for i in range(10_000)])
    page = rendered(tmp_path / "index.html")
    assert "10000 of 10000" in page and page.count("<figure") == 10_000


def test_a_resumed_run_goes_on_with_its_curves(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--no_tensorboard").code == 0
    before = data("images/tiny/data.js")["series"]["G"]
    assert run("cycle_gan", *TINY, "--n_epochs=2", "--no_tensorboard", "--epoch=1").code == 0
    after = data("images/tiny/data.js")["series"]["G"]
    assert after[: len(before)] == before and [step for step, _ in after] == sorted({step for step, _ in after})
    assert after[-1][0] == 6


def test_the_page_keeps_the_other_direction(tmp_path):
    for name in ("x.png", "é#.png"):
        noise_image(0).save(tmp_path / name)

    def directions():
        return [row[0] for row in data(tmp_path / "data.js")]

    for direction, name in (("BtoA", "é#.png"), ("AtoB", "x.png"), ("AtoB", "x.png")):
        pages.write_results(tmp_path, [(direction, name, tmp_path / "x.png", tmp_path / name)])
    assert directions() == ["AtoB", "BtoA"]
    (tmp_path / "é#.png").unlink()
    pages.write_results(tmp_path, [("AtoB", "x.png", tmp_path / "x.png", tmp_path / "x.png")])
    assert directions() == ["AtoB"]


DAMAGED = {"empty": "", "number": "var results = 3;\n", "numbers": "[[1, 2, 3, 4]]", "nested": "[" * 10**5}
DAMAGED["no name"] = '[["", "", "", "\\u0000"]]'


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_page_begins_anew(tmp_path, content):
    (tmp_path / "data.js").write_text(content)
    pages.write_results(tmp_path, [])
    assert data(tmp_path / "data.js") == []
