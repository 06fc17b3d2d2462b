"""The demo data sets: tiles with a coast, no place in both styles, whole or absent. On made-up maps."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image


@pytest.fixture
def earth(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "datasets")
    spec = importlib.util.spec_from_file_location("earth", ROOT / "datasets" / "earth.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WIDTH", 400)
    monkeypatch.setattr(module, "HEIGHT", 200)
    y, x = np.mgrid[:200, :400]
    sea = np.sin(x / 17) + np.cos(y / 13) > 0.3
    relief = np.stack([np.where(sea, 100, 200), x % 256, np.where(sea, 200, 100)], -1).astype(np.uint8)
    maps = {"relief": relief, "topo": 255 - relief, "satellite": relief // 2}
    maps["elevation"] = (np.where(sea, 0, 500 + 17 * x).astype(np.uint16))[..., None]
    maps["bands"] = np.stack([relief[..., 0].astype(np.uint16) * band for band in range(13)], -1)
    monkeypatch.setattr(module, "load_map", maps.__getitem__)
    module.maps = maps
    return module


def build(earth, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["earth.py", *map(str, flags)])
    earth.main()


def tiles(folder):
    def load(path):
        return np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))

    return {path.stem: load(path) for path in folder.iterdir()}


@pytest.mark.parametrize("tile", [16, 25, 40])
@pytest.mark.parametrize("name", ["topo2relief", "satellite2relief", "elevation2satellite", "thirteen"])
def test_tiles_have_coasts_never_overlap_and_are_dealt_out_once(earth, monkeypatch, tmp_path, name, tile):
    build(earth, monkeypatch, name, "--root", tmp_path, "--tile", tile)
    sides = {side: tiles(tmp_path / name / side) for side in ("trainA", "trainB", "testA", "testB")}
    assert sides["testA"].keys() == sides["testB"].keys()
    trained_A, trained_B, tested = (set(sides[side]) for side in ("trainA", "trainB", "testA"))
    assert not trained_A & trained_B and not (trained_A | trained_B) & tested
    assert abs(len(trained_A) - len(trained_B)) <= 1 and tested
    style_A, style_B = earth.DATASETS[name]
    covered = np.zeros((200, 400), int)
    for side, images in sides.items():
        source = earth.maps[style_A if side.endswith("A") else style_B]
        for file, image in images.items():
            y, x = int(file[1:5]), int(file[7:11])
            expected = source[y : y + tile, x : x + tile]
            assert image.dtype == expected.dtype and (image == expected.squeeze()).all()
            assert name != "elevation2satellite" or y + tile <= 200 * 5 / 6
            assert 0.08 <= earth.water(earth.maps["relief"][y : y + tile, x : x + tile]).mean() <= 0.80
            covered[y : y + tile, x : x + tile] += side != "testB"
    assert covered.max() == 1


def test_more_tiles_overlap_within_a_side_and_never_across_sides(earth, monkeypatch, tmp_path):
    def sides(root, *flags):
        build(earth, monkeypatch, "topo2relief", "--root", tmp_path / root, "--tile", 20, *flags)
        folder = tmp_path / root / "topo2relief"
        return {side: tiles(folder / side) for side in ("trainA", "trainB", "testA")}

    plain = sides("plain")
    looser = sides("looser", "--coast", "0.01", "0.99")
    more = sides("more", "--coast", "0.01", "0.99", "--overlap", "0.5")
    assert len(plain["trainA"]) < len(looser["trainA"]) < len(more["trainA"])
    seen = {}
    for side, images in more.items():
        for name in images:
            y, x = int(name[1:5]), int(name[7:11])
            for pixel in [(y + i, x + j) for i in range(20) for j in range(20)]:
                assert seen.setdefault(pixel, side) == side
    assert json.loads((tmp_path / "more/topo2relief/about.json").read_text())["overlap"] == 0.5
    assert "overlap" not in json.loads((tmp_path / "plain/topo2relief/about.json").read_text())


def test_the_seed_decides_and_building_again_changes_nothing(earth, monkeypatch, tmp_path, capsys):
    for root, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(earth, monkeypatch, "topo2relief", "--root", tmp_path / root, "--tile", 16, "--seed", seed)
    names = [set(tiles(tmp_path / root / "topo2relief" / "trainA")) for root in "abc"]
    assert names[0] == names[1] != names[2]
    before = (tmp_path / "a" / "topo2relief").stat()
    build(earth, monkeypatch, "topo2relief", "--root", tmp_path / "a", "--tile", 16)
    assert (tmp_path / "a" / "topo2relief").stat() == before and "already there" in capsys.readouterr().out


def test_elevation_is_metres_and_500_with_the_sea_at_0(earth, monkeypatch, tmp_path):
    h5py = pytest.importorskip("h5py")
    steps = np.full((80, 160), 255, np.uint8)
    steps[:, 80:] = np.repeat(np.arange(20, 100), 80).reshape(80, 80)
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file["Altitude"] = steps
    monkeypatch.setattr(earth, "installed", lambda *names: tmp_path / "map.h5")
    found = earth.elevation("elevation")
    assert found.dtype == np.uint16 and found.shape == (200, 400, 1)
    assert not found[:, :195].any() and found[:, 205:].all()
    middle = (np.arange(200) + 0.5) * 80 / 200 - 0.5  # of each row, in rows of the file
    np.testing.assert_allclose(found[3:-3, 300, 0], ((20 + middle) * 28 - 450 + 500)[3:-3], atol=3)


def test_an_interrupted_build_leaves_nothing(earth, monkeypatch, tmp_path):
    saved = []

    def interrupt(self, path):
        saved.append(path)
        if len(saved) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(earth, monkeypatch, "topo2relief", "--root", tmp_path, "--tile", 16)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_replaced_unasked(earth, monkeypatch, tmp_path, capsys):
    build(earth, monkeypatch, "topo2relief", "--root", tmp_path, "--tile", 16)
    with pytest.raises(SystemExit, match="2"):
        build(earth, monkeypatch, "topo2relief", "--root", tmp_path, "--tile", 20)
    assert "--force" in capsys.readouterr().err
    build(earth, monkeypatch, "topo2relief", "--root", tmp_path, "--tile", 20, "--force")
    assert json.loads((tmp_path / "topo2relief" / "about.json").read_text())["tile"] == 20
    (tmp_path / "satellite2relief").mkdir()
    with pytest.raises(SystemExit, match="2"):
        build(earth, monkeypatch, "satellite2relief", "--root", tmp_path, "--force")
    assert "not made by this script" in capsys.readouterr().err


def test_what_appears_while_it_is_built_stays(earth, monkeypatch, tmp_path, capsys):
    unpaired = sys.modules["unpaired"]
    write_about = unpaired.written

    def meanwhile(settings):
        (tmp_path / "topo2relief").mkdir(exist_ok=True)
        (tmp_path / "topo2relief" / "mine.png").touch()
        return write_about(settings)

    monkeypatch.setattr(unpaired, "written", meanwhile)
    with pytest.raises(SystemExit, match="2"):
        build(earth, monkeypatch, "topo2relief", "--root", tmp_path, "--tile", 16)
    assert "not made by this script" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "topo2relief").iterdir()] == ["mine.png"]


@pytest.mark.parametrize(("flags", "expected"), [(["--tile=4"], "between 8"), (["--tile=200"], "smaller --tile"),
                                                 (["--test_share=1"], "between 0 and 1"),
                                                 (["--overlap=1"], "between 0 and 0.9"),
                                                 (["--coast", "0.5", "0.2"], "a lower and")])  # fmt: skip
def test_bad_settings(earth, monkeypatch, tmp_path, capsys, flags, expected):
    with pytest.raises(SystemExit, match="2"):
        build(earth, monkeypatch, "topo2relief", "--root", tmp_path, *flags)
    assert expected in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_clip_shows_both_maps_through_the_same_windows(earth, monkeypatch, tmp_path, capsys):
    """Half a map's pixel is what a nearest pixel may be off; the made-up maps are steep, so coasts are compared."""
    monkeypatch.setattr(earth, "SIDE", 16)
    build(earth, monkeypatch, "topo2relief", "--root", tmp_path, "--clip", 12)
    folder = tmp_path / "topo2relief_clip"
    windows = json.loads((folder / "windows.json").read_text())
    A, B = tiles(folder / "A"), tiles(folder / "B")
    assert len(windows) == 12 and A.keys() == B.keys() == {f"{i:04d}" for i in range(12)}
    for i, (x, y, scale) in enumerate(windows):
        assert 0.8 <= scale <= 1 and (x, y, scale) == tuple(earth.window(i / 12))
        at = [np.floor(middle + scale * (np.arange(16) + 0.5 - 8)).astype(int) for middle in (y, x)]
        expected = earth.water(earth.maps["relief"][np.ix_(*at)])
        assert (earth.water(B[f"{i:04d}"]) == expected).mean() > 0.85
        assert (np.abs(A[f"{i:04d}"].astype(int) + B[f"{i:04d}"] - 255) <= 1).all()  # the other map is 255 - x
    build(earth, monkeypatch, "topo2relief", "--root", tmp_path, "--clip", 12)
    assert "already there" in capsys.readouterr().out
    for flags in (["topo2relief", "--clip=1"], ["elevation2satellite", "--clip=9"]):
        with pytest.raises(SystemExit, match="2"):
            build(earth, monkeypatch, *flags, "--root", tmp_path)
        assert "--clip takes at least 2 frames" in capsys.readouterr().err
