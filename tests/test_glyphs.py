"""The data sets of icons: families on one side, both styles of a test icon under one name."""

import importlib.util
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw


@pytest.fixture
def glyphs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "datasets")
    spec = importlib.util.spec_from_file_location("glyphs", ROOT / "datasets" / "glyphs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(glyphs, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["glyphs.py", *map(str, flags)])
    glyphs.main()


def squares(tile):
    """Ten families of two: outlined squares for A, filled ones for B, each of another size."""

    def pair(size):
        images = [Image.new("RGB", (4 * tile, 4 * tile), "white") for _ in "AB"]
        for image, fill in zip(images, (None, "black"), strict=True):
            ImageDraw.Draw(image).rectangle((4, 4, size, size), fill, "black", 4)
        return images

    return {f"f{i}": [(f"f{i}-{j}", lambda size=20 + 4 * i + 2 * j: pair(size)) for j in range(2)] for i in range(10)}


def test_families_stay_together_and_only_tests_have_both_styles(glyphs, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(glyphs.DATASETS, "outline2filled", squares)
    build(glyphs, monkeypatch, "outline2filled", "--root", tmp_path, "--tile", 24)
    folder = tmp_path / "outline2filled"
    names = {side: {path.stem for path in (folder / side).iterdir()} for side in ("trainA", "trainB", "testA", "testB")}
    assert names["testA"] == names["testB"] and len(names["testA"]) == 4
    families = [{name[:2] for name in names[side]} for side in ("trainA", "trainB", "testA")]
    assert sum(map(len, families)) == 10 == len(set.union(*families))
    for side, dark in (("trainA", False), ("trainB", True)):
        for path in (folder / side).iterdir():
            image = np.asarray(Image.open(path))
            assert image.shape == (24, 24, 3)
            assert (image[3, 3] == 0).all() == dark  # the inside of the square
    build(glyphs, monkeypatch, "outline2filled", "--root", tmp_path, "--tile", 24)
    assert "already there" in capsys.readouterr().out


def test_each_training_side_has_an_icon(glyphs):
    hands = glyphs.make.__globals__["deal"](range(259), 0.999, 0)
    assert {side: len(icons) for side, icons in hands.items()} == {"test": 257, "trainA": 1, "trainB": 1}


@pytest.mark.parametrize(
    ("root", "told"),
    [("file", "File exists; choose another --root"), ("file/below", "Not a directory; choose another --root")],
)
def test_a_place_that_cannot_be_written_is_named(glyphs, monkeypatch, tmp_path, capsys, root, told):
    monkeypatch.setitem(glyphs.DATASETS, "outline2filled", squares)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        build(glyphs, monkeypatch, "outline2filled", "--root", tmp_path / root, "--tile", 24)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and told in error and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_settings_of_before_that_cannot_be_read_are_others(glyphs, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(glyphs.DATASETS, "outline2filled", squares)
    (tmp_path / "outline2filled").mkdir()
    (tmp_path / "outline2filled/about.json").write_bytes(b'{"name": \xff')
    flags = "outline2filled", "--root", tmp_path, "--tile", 24
    with pytest.raises(SystemExit) as stop:
        build(glyphs, monkeypatch, *flags)
    assert stop.value.code == 2 and "add --force to replace it" in capsys.readouterr().err
    build(glyphs, monkeypatch, *flags, "--force")
    assert (tmp_path / "outline2filled/trainA").is_dir()


def test_without_the_package_it_says_what_to_install(glyphs, monkeypatch, tmp_path, capsys):
    def missing(name):
        raise glyphs.installed.__globals__["metadata"].PackageNotFoundError(name)

    monkeypatch.setattr(glyphs.installed.__globals__["metadata"], "distribution", missing)
    for name in glyphs.DATASETS:
        with pytest.raises(SystemExit, match="2"):
            build(glyphs, monkeypatch, name, "--root", tmp_path)
        assert "pip install -r requirements-glyphs.txt" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


def test_icons_are_pairs_of_the_same_shape(glyphs):
    families = glyphs.icons(24)
    assert len(families) > 300 and {"account", "account-alert"} <= {name for name, _ in families["account"]}
    for family in list(families)[::60]:
        outlined, filled = (255 - np.asarray(image.reduce(4)).astype(int).mean(2) for image in families[family][0][1]())
        assert 0 < outlined.sum() <= filled.sum() * 1.3  # filling takes as much ink, or more
        assert (np.minimum(outlined, filled).sum()) > 0.5 * outlined.sum()  # most of it at the same places


def test_the_ink_of_an_emoji_is_where_the_emoji_is_black(glyphs, monkeypatch):
    monkeypatch.setattr(type(ROOT), "glob", one_emoji)
    ((_, pair),) = glyphs.emoji(24)["1F34E"]
    ink, colour = (np.asarray(image).astype(int) for image in pair())
    assert set(np.unique(ink)) == {0, 255}
    assert ((ink[..., 0] == 0) == (colour.max(2) < 64)).all() and (ink[..., 0] == 0).any()
    assert (colour.max(2) - colour.min(2) > 100).mean() > 0.1  # a red apple


def one_emoji(self, pattern):
    return [self / "1F34E.svg", self / "1F34E-200D.svg"] if pattern == "*.svg" else []
