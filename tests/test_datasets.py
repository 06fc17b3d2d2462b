"""Files of every kind come out as a person sees them; samples depend on (seed, epoch, position) alone."""

import json
import os
import shutil
import types
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import TINY, equal, make_dataset, noise_image
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets import (
    BadImage,
    UnpairedImages,
    WholeImages,
    epoch_batches,
    group_by_size,
    load_batches,
    random_crop,
    sample_images,
    to_tensor,
    vary_saturation,
)
from options import parse_training
from readers import headers
from readers.domains import PICTURES, load_pixels
from readers.files import Contents
from readers.folders import find_side, list_images
from readers.geometry import centre_crop
from readers.headers import FILE, KnownHeaders, read_headers
from readers.pictures import load_image
from runtime.errors import UserError

# ---- files ----


def test_images_are_found_in_sub_folders_and_through_links_but_not_in_circles(tmp_path):
    make_dataset(tmp_path / "set", sides=("a", "b/c"))
    (tmp_path / "set" / "notes.txt").write_text("no image")
    (tmp_path / "set" / ".hidden.png").write_text("no image")
    make_dataset(tmp_path / "set", sides=("a/.ipynb_checkpoints",))
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    make_dataset(tmp_path / "elsewhere", sides=("d",), count=1)
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "UPPER.JPG").write_bytes(b"")
    found = [os.path.relpath(path, tmp_path / "set") for path in list_images(tmp_path / "set")]
    assert found == sorted(["UPPER.JPG", "a/0.png", "a/1.png", "a/2.png", "b/c/0.png", "b/c/1.png", "b/c/2.png",
                            "link/d/0.png"])  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_hidden_folders_of_an_archive_are_left_out(tmp_path, kind):
    make_dataset(tmp_path / "in", sides=("a", ".ipynb_checkpoints", "a/.cache"), count=1)
    archive = shutil.make_archive(str(tmp_path / "trainA"), kind, tmp_path / "in")  # the names in a tar begin with ./
    assert [os.path.relpath(str(path), archive) for path in list_images(archive)] == ["a/0.png"]


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere is missing"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no images"):
        list_images(tmp_path)


# ---- one image ----

RED, GREEN, BLUE, WHITE, GRAY = (254, 0, 0), (0, 255, 0), (0, 0, 254), (255, 255, 255), (128, 128, 128)


def palette(transparent=None):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *GREEN])
    return image, {} if transparent is None else {"transparency": transparent}


def half_transparent():
    return Image.new("RGBA", (8, 8), (0, 0, 0, 127)), {}


def sixteen_bits():
    return Image.fromarray(np.full((8, 8), 128 * 257, dtype=np.uint16)), {}


@pytest.mark.parametrize(
    ("suffix", "make", "expected"),
    [
        (".png", lambda: (Image.new("RGB", (8, 8), RED), {}), RED),
        (".webp", lambda: (Image.new("RGB", (8, 8), RED), {"lossless": True}), RED),
        (".bmp", lambda: (Image.new("RGB", (8, 8), RED), {}), RED),
        (".tiff", lambda: (Image.new("RGB", (8, 8), RED), {}), RED),
        (".jpg", lambda: (Image.new("RGB", (8, 8), RED), {"quality": 100}), RED),
        (".png", lambda: (Image.new("L", (8, 8), 128), {}), GRAY),
        (".png", lambda: (Image.new("1", (8, 8), 1), {}), WHITE),
        (".png", palette, GREEN),
        (".png", lambda: palette(transparent=1), WHITE),
        (".png", half_transparent, GRAY),
        (".png", lambda: (Image.new("LA", (8, 8), (0, 0)), {}), WHITE),
        (".tif", lambda: (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), {}), (255, 0, 0)),
        (".jpg", lambda: (Image.new("CMYK", (8, 8), (255, 255, 0, 0)), {"quality": 100}), (0, 0, 255)),
        (".png", sixteen_bits, GRAY),
        (".tif", sixteen_bits, GRAY),
        (".tif", lambda: (Image.new("F", (8, 8), 128 / 255), {}), GRAY),
    ],
)
def test_every_kind_of_file_comes_out_as_a_person_sees_it(tmp_path, suffix, make, expected):
    image, saving = make()
    path = tmp_path / f"image{suffix}"
    image.save(path, **saving)
    loaded = load_image(path)
    assert loaded.mode == "RGB" and loaded.size == (8, 8)
    assert np.abs(np.asarray(loaded).astype(int) - expected).max() <= 2
    assert load_image(path, channels=1).mode == "L"


def test_rotated_photos_stand_upright(tmp_path):
    image = Image.new("RGB", (16, 8), "black")
    image.paste("white", (0, 0, 8, 8))  # white at the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    path = tmp_path / "rotated.png"
    image.save(path, exif=exif)
    upright = load_image(path)
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2)) == WHITE and upright.getpixel((4, 14)) == (0, 0, 0)


def test_tensors_span_minus_one_to_one():
    array = np.array([[[0, 51, 255]]], dtype=np.uint8)
    torch.testing.assert_close(to_tensor(array), torch.tensor([-1, -0.6, 1]).view(3, 1, 1))
    assert to_tensor(array[..., 0]).shape == (1, 1, 1)


@pytest.mark.parametrize("content", [b"", b"not an image", "truncated"])
def test_broken_files_are_named(tmp_path, content):
    path = tmp_path / "broken.png"
    noise_image(0, 64, 64).save(path)
    path.write_bytes(path.read_bytes()[:3000] if content == "truncated" else content)
    with pytest.raises(BadImage, match="broken.png is not a readable image"):
        load_image(path)


def test_headers_are_checked_and_the_bad_ones_named_or_left_out(tmp_path):
    make_dataset(tmp_path, sides=("a",))
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(BadImage, match=r"1\.png"):
        read_headers(list_images(tmp_path / "a"), skip_bad=False)
    assert [os.path.basename(path) for path in read_headers(list_images(tmp_path / "a"), skip_bad=True)] == [
        "0.png",
        "2.png",
    ]


# ---- samples ----


@settings(max_examples=40)
@given(height=st.integers(2, 20).map(lambda n: 4 * n), width=st.integers(2, 20).map(lambda n: 4 * n),
       image=st.tuples(st.integers(1, 90), st.integers(1, 90)), seed=st.integers(0, 2**32))  # fmt: skip
def test_crops_have_the_size_whatever_the_image(tmp_path_factory, height, width, image, seed):
    path = tmp_path_factory.getbasetemp() / "any_size.png"
    noise_image(0, *image).save(path)
    resized = load_pixels(path, PICTURES, lambda size: (height + seed % 7, width + seed % 5))
    assert random_crop(resized, (height, width), np.random.default_rng(seed)).shape == (height, width, 3)


def test_crops_move_and_flip():
    ramp = np.tile(np.arange(72, dtype=np.uint8), (72, 1))
    crops = [random_crop(ramp, (64, 64), np.random.default_rng(seed)) for seed in range(400)]
    flipped = sum(int(crop[0, 0]) > int(crop[0, -1]) for crop in crops)
    assert 150 < flipped < 250
    assert {int(crop[0].min()) for crop in crops} == set(range(9))


def test_images_are_resized_to_the_load_size_before_the_crop(tmp_path):
    def load_size(**flags):
        return UnpairedImages([], [], training_options(**flags)).load_size

    assert load_size(img_height=64, img_width=256) == (72, 287)
    assert load_size(load_factor=1) == (8, 12)
    assert load_size(load_height=30, load_width=40) == (30, 40)


@settings(max_examples=30)
@given(strength=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_the_noise_changes_saturation_alone(strength, seed):
    image = np.asarray(noise_image(seed, 20, 20)).copy()
    image[:5] = 0
    noisy = vary_saturation(image, strength, np.random.default_rng(seed))
    assert (noisy.max(-1) == image.max(-1)).all()  # value stays, and with it every mask
    assert (noisy[:5] == 0).all()
    order = np.argsort(image, axis=-1, kind="stable")
    assert (np.diff(np.take_along_axis(noisy, order, -1).astype(int), axis=-1) >= 0).all()
    value, low = image.max(-1).astype(int), image.min(-1).astype(int)
    moved = np.abs((value - noisy.min(-1)) - (value - low))
    assert (moved <= strength * (value - low) + 0.51).all()


def test_the_noise_is_in_training_samples_of_A_alone(tmp_path):
    plain, noisy = (unpaired(tmp_path / n, saturation_noise=s) for n, s in (("a", 0), ("b", 0.3)))
    a, b = plain[0], noisy[0]
    assert torch.equal(a["B"], b["B"]) and not torch.equal(a["A"], b["A"])
    assert torch.equal(a["A"].amax(0), b["A"].amax(0))


def test_the_folders_of_segmentation_sets_are_recognised(tmp_path):
    (tmp_path / "realTrain").mkdir()
    assert find_side(tmp_path, "train", "B").name == "realTrain"
    assert find_side(tmp_path, "train", "A").name == "trainA"  # the name that a message will show
    (tmp_path / "trainB").mkdir()
    assert find_side(tmp_path, "train", "B").name == "trainB"


def unpaired(tmp_path, n_A=5, n_B=3, **more):
    make_dataset(tmp_path / "set", sides=("trainA",), count=n_A)
    make_dataset(tmp_path / "set", sides=("trainB",), count=n_B)
    paths = (list_images(tmp_path / "set" / side) for side in ("trainA", "trainB"))
    return UnpairedImages(*paths, training_options(**more))


def training_options(**more):
    flags = dict(img_height=8, img_width=12) | more
    return parse_training([f"--{name}={value}" if value is not True else f"--{name}" for name, value in flags.items()])[
        0
    ]


@pytest.mark.parametrize(("n_A", "n_B"), [(5, 3), (3, 5), (4, 4), (3, 6)])
def test_an_epoch_shows_A_in_shuffled_order_and_draws_B(tmp_path, monkeypatch, n_A, n_B):
    dataset = unpaired(tmp_path, n_A, n_B, cache=0)
    assert len(dataset) == max(n_A, n_B)
    seen = []
    monkeypatch.setattr("readers.domains.load_image", lambda path, *_: (seen.append(path), noise_image(0))[1])
    epochs = []
    for epoch in range(30):
        seen.clear()
        for position in range(len(dataset)):
            sample = dataset[epoch * len(dataset) + position]
            assert sample["A"].shape == sample["B"].shape == (3, 8, 12)
        epochs.append((seen[0::2], seen[1::2]))
    for order_A, _ in epochs:
        counts = [order_A.count(path) for path in dataset.paths_A]
        assert max(counts) - min(counts) <= (n_A < n_B) and sum(counts) == len(dataset)
    assert len({tuple(order_A) for order_A, _ in epochs}) > 5
    assert len({tuple(order_B) for _, order_B in epochs}) > 5
    if 2 * n_A <= n_B:  # the second time through A has an order of its own
        assert any(order_A[:n_A] != order_A[n_A : 2 * n_A] for order_A, _ in epochs)
    assert any(len(set(order_B)) < len(order_B) for _, order_B in epochs)  # drawn, not shuffled


@pytest.mark.parametrize(
    ("flags", "views"),
    [
        (dict(flip="none"), 1),
        (dict(flip="horizontal"), 2),
        (dict(flip="both"), 4),
        (dict(flip="none", rotate90=True), 4),
    ],
)
def test_the_flags_of_crops_decide_in_how_many_ways_an_image_is_shown(tmp_path, flags, views):
    whole = dict(img_height=8, img_width=8, load_height=8, load_width=8)
    dataset = unpaired(tmp_path, 1, 1, **whole, **flags)
    for side in "AB":
        assert len({dataset[n][side].numpy().tobytes() for n in range(60)}) == views


@pytest.mark.parametrize("n_cpu", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_cache_decodes_each_image_once_and_changes_nothing(tmp_path, n_cpu, channels):
    cached = unpaired(tmp_path, channels=channels)
    plain = UnpairedImages(cached.paths_A, cached.paths_B, training_options(channels=channels, cache=0))
    assert cached.cached and not plain.cached
    schedule = list(epoch_batches(5, 2, 0, 20))
    expected = list(load_batches(plain, schedule, 0))
    assert equal(list(load_batches(cached, schedule, n_cpu)), expected)
    for path in (*cached.paths_A, *cached.paths_B):
        os.remove(path)
    assert equal(list(load_batches(cached, schedule, n_cpu)), expected)  # what one process decoded, all have


def test_sets_beyond_the_budget_are_not_cached(tmp_path):
    needed = unpaired(tmp_path).bytes
    assert needed == (5 + 3) * 9 * 13 * 3  # 1.12 times 8 × 12
    paths = list_images(tmp_path / "set" / "trainA"), list_images(tmp_path / "set" / "trainB")
    assert UnpairedImages(*paths, training_options(cache=needed / 2**30)).cached
    assert not UnpairedImages(*paths, training_options(cache=(needed - 1) / 2**30)).cached


def test_sets_beyond_the_shared_memory_are_not_cached(tmp_path, monkeypatch):
    needed = unpaired(tmp_path).bytes
    paths = list_images(tmp_path / "set" / "trainA"), list_images(tmp_path / "set" / "trainB")
    for free, cached in ((2 * needed + 1, True), (2 * needed, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda place, free=free: types.SimpleNamespace(free=free))
        assert UnpairedImages(*paths, training_options()).cached == cached


def test_a_bad_image_is_not_cached(tmp_path):
    dataset = unpaired(tmp_path, n_A=2, skip_bad_images=True)
    path = Path(dataset.paths_A[0])
    content = path.read_bytes()
    path.write_bytes(b"")
    assert any(dataset[position]["skipped"] for position in range(3))
    path.write_bytes(content)
    assert not any(dataset[position]["skipped"] for position in range(3))


def test_samples_do_not_depend_on_the_workers_nor_on_what_came_before(tmp_path):
    dataset = unpaired(tmp_path, seed=7)
    straight = list(load_batches(dataset, epoch_batches(5, 2, 0, 3), n_cpu=0))
    workers = list(load_batches(dataset, epoch_batches(5, 2, 0, 3), n_cpu=2))
    late = list(load_batches(dataset, epoch_batches(5, 2, 2, 3), n_cpu=0))
    assert len(straight) == 9 and [len(batch["A"]) for batch in straight[:3]] == [2, 2, 1]
    for side in "AB":
        assert all(torch.equal(a[side], b[side]) for a, b in zip(straight, workers, strict=True))
        assert all(torch.equal(a[side], b[side]) for a, b in zip(straight[6:], late, strict=True))
    other = unpaired(tmp_path / "other", seed=8)
    assert not torch.equal(other[0]["A"], dataset[0]["A"])


@pytest.mark.parametrize("n_cpu", [0, 2])
def test_a_bad_file_costs_one_replacement_or_stops_with_its_name(tmp_path, n_cpu):
    strict = unpaired(tmp_path)
    path = Path(strict.paths_A[1])
    path.write_bytes(path.read_bytes()[:200])  # the header stays whole
    with pytest.raises(BadImage, match=str(path)):
        list(load_batches(strict, epoch_batches(5, 2, 0, 1), n_cpu))
    lenient = UnpairedImages(strict.paths_A, strict.paths_B, training_options(skip_bad_images=True))
    batches = list(load_batches(lenient, epoch_batches(5, 2, 0, 1), n_cpu))
    assert sum(len(batch["A"]) for batch in batches) == 5
    assert {skipped for batch in batches for skipped in batch["skipped"]} == {str(path)}
    again = list(load_batches(lenient, epoch_batches(5, 2, 0, 1), 0))
    assert all(torch.equal(a["A"], b["A"]) for a, b in zip(batches, again, strict=True))


def test_only_bad_files_end_with_an_error(tmp_path):
    dataset = unpaired(tmp_path, skip_bad_images=True)
    for path in dataset.paths_B:
        Path(path).write_bytes(b"")
    with pytest.raises(UserError, match="not one of the 3 images in .*trainB can be read"):
        list(load_batches(dataset, epoch_batches(5, 5, 0, 1), 0))


@settings(max_examples=40)
@given(height=st.integers(1, 30), width=st.integers(1, 30))
def test_padding_reflects_to_the_multiple_and_keeps_the_image(tmp_path_factory, height, width):
    path = tmp_path_factory.mktemp("images") / "a.png"
    image = noise_image(0, height, width)
    image.save(path)
    item = WholeImages([path], multiple=4, least=8)[0]
    padded = item["image"]
    assert padded.shape[1] % 4 == padded.shape[2] % 4 == 0
    assert 8 <= padded.shape[1] < max(height + 4, 9) and 8 <= padded.shape[2] < max(width + 4, 9)
    assert (item["height"], item["width"]) == (height, width)
    assert torch.equal(padded[:, :height, :width], to_tensor(image))
    if 1 < height < padded.shape[1]:
        assert torch.equal(padded[:, height, :width], padded[:, height - 2, :width])


@settings(max_examples=30)
@given(kinds=st.lists(st.integers(0, 40), max_size=60), batch_size=st.integers(1, 4))
def test_batches_hold_images_of_one_size_and_lose_none(kinds, batch_size):
    def single(i, width):
        size = {"height": torch.tensor([1]), "width": torch.tensor([width])}
        return {"image": torch.zeros(1, 1, 1, width), "index": torch.tensor([i]), **size}

    singles = (single(i, width) for i, width in enumerate(kinds))
    batches = list(group_by_size(singles, batch_size))
    assert all(len(batch["image"]) == len(batch["index"]) <= batch_size for batch in batches)
    assert sorted(i for batch in batches for i in batch["index"].tolist()) == list(range(len(kinds)))
    assert all(batch["image"].shape[-1] == kinds[i] for batch in batches for i in batch["index"])
    if len(set(kinds)) == 1:
        assert len(batches) == -(-len(kinds) // batch_size)


def test_the_images_of_the_grids_are_the_same_at_each_call(tmp_path):
    make_dataset(tmp_path, sides=("a",), count=9)
    paths = list_images(tmp_path / "a")
    first, second = (sample_images(paths, 4, PICTURES, training_options()) for _ in range(2))
    assert first.shape == (4, 3, 8, 12) and torch.equal(first, second)
    assert sample_images(paths[:2], 4, PICTURES, training_options()).shape[0] == 2
    Path(paths[0]).write_bytes(Path(paths[0]).read_bytes()[:200])
    assert sample_images(paths, 4, PICTURES, training_options(skip_bad_images=True)).shape[0] == 3


def test_the_grids_show_images_from_all_of_the_folder_whole(tmp_path):
    """Spread evenly; squashed to the crop, not cut, which a white border tells."""
    for i in range(10):
        array = np.full((40, 60, 3), 20 * i, np.uint8)
        array[:, 50:] = 255
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    seen = sample_images(list_images(tmp_path), 4, PICTURES, training_options())
    values = (seen.add(1) * 127.5).round()
    assert values[:, 0, 4, 2].tolist() == [0, 60, 120, 180] and (values[:, :, :, 11] == 255).all()


def test_a_centre_crop_is_of_the_middle():
    crop = centre_crop(np.arange(35).reshape(5, 7, 1), (3, 3))
    assert crop[..., 0].tolist() == [[9, 10, 11], [16, 17, 18], [23, 24, 25]]


def test_names_of_any_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xff\n.png")
    noise_image(0).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", tmp_path / name)
    (path,) = list_images(tmp_path)
    assert load_image(path).size == (23, 18)


# ---- headers that are remembered ----


def checked(folder, source):
    """What a start finds, and how many headers it opened for that."""
    known, opened = KnownHeaders(folder), []
    plain = headers.read_header
    with patch.object(headers, "read_header", lambda *given: opened.append(given) or plain(*given)):
        found = read_headers(list_images(source), False, PICTURES, known)
    known.write()
    return found, len(opened)


def test_other_readers_read_headers_anew(tmp_path, monkeypatch):
    source, run = tmp_path / "images", tmp_path / "run"
    source.mkdir()
    run.mkdir()
    noise_image(0).save(source / "0.png")
    assert [checked(run, source)[1] for _ in range(2)] == [1, 0]
    monkeypatch.setattr(headers, "revision", lambda: "another")
    assert [checked(run, source)[1] for _ in range(2)] == [1, 0]


def test_headers_that_cannot_be_kept_are_read_anew(tmp_path, capsys):
    noise_image(0).save(tmp_path / "0.png")
    (tmp_path / FILE).mkdir()
    for _ in range(2):
        assert checked(tmp_path, tmp_path)[1] == 1
        told = capsys.readouterr().err
        assert "headers are read anew" in told and "headers are not remembered" in told


def test_a_second_start_opens_no_header(workplace, run, monkeypatch):
    """Neither of training images nor of those that the sample grids show."""
    plain, opened = headers.read_header, []
    monkeypatch.setattr(headers, "read_header", lambda *given: opened.append(given[0]) or plain(*given))
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    assert len(opened) == len(set(opened)) == 12
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=2").code == 0
    assert len(opened) == 12


def test_headers_are_read_once(tmp_path):
    source, run = tmp_path / "images", tmp_path / "run"
    source.mkdir()
    for i in range(150):
        noise_image(i, 8 + i % 3, 8).save(source / f"{i}.png")
    found, opened = checked(run, source)
    assert opened == 150 and list(found) == list_images(source)
    assert checked(run, source) == (found, 0)
    (run / FILE).rename(run / "elsewhere")  # as a new run does with an earlier one's folder
    assert checked(run, source) == (found, 150) and checked(run, source) == (found, 0)
    noise_image(0, 30, 20).save(source / "7.png")  # of another size
    noise_image(1, 9, 8).save(source / "8.png")  # of another content, at another time
    (source / "9.png").unlink()
    again, opened = checked(run, source)
    assert opened == 2 and len(again) == 149
    changed = again[next(path for path in again if path.endswith("/7.png"))]
    assert (changed.height, changed.width) == (30, 20)
    with pytest.raises(BadImage, match="decoded_limit"):
        read_headers(list_images(source), False, PICTURES._replace(limit=1e-9), KnownHeaders(run))


@given(
    st.sampled_from(["path", "key", "header", 0, 1, 2, 3, 4, 5, 6, 7, 8]),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=3)),
)
@example(3, 10**6)  # images in a file of some hundred bytes
@settings(max_examples=60)
def test_an_odd_line_of_headers_makes_no_harm(tmp_path_factory, place, value):
    """It is left out, or says the same as another image would."""
    folder = tmp_path_factory.mktemp("headers")
    noise_image(0, 8, 8).save(folder / "0.png")
    known = KnownHeaders(folder)
    found = read_headers(list_images(folder), False, PICTURES, known)
    known.write()
    row = json.loads((folder / FILE).read_text())
    if isinstance(place, int):
        row["header"][place] = value
    else:
        row[place] = value
    (folder / FILE).write_text(json.dumps(row))
    again = read_headers(list_images(folder), False, PICTURES._replace(limit=float("inf")), KnownHeaders(folder))
    assert list(again) == list(found) and all(isinstance(header, Contents) for header in again.values())


def test_a_bad_image_among_many_is_the_first_in_their_order(tmp_path):
    for i in range(200):
        noise_image(i, 4, 4).save(tmp_path / f"{i:03}.png")
    for i in (190, 70):
        (tmp_path / f"{i:03}.png").write_text("no image")
    with pytest.raises(BadImage, match="070.png"):
        read_headers(list_images(tmp_path), False)
    assert len(read_headers(list_images(tmp_path), True)) == 198
