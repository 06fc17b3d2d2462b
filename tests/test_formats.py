"""Files of every kind, written by their formats' own libraries: read to the last bit, trained on, and written again."""

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from argparse import Namespace
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from conftest import ROOT, TINY, noise_image, read_file
from nibabel.testing import data_path as NIBABEL_FILES
from PIL import Image, ImageOps, JpegImagePlugin
from pydicom.data import get_testdata_file

from datasets import Cache
from inference.output import Output
from inference.writers import save_image
from readers import geometry
from readers.domains import (
    PICTURES,
    Domain,
    count_outside,
    load_array,
    load_pixels,
    tell_outside,
    to_colours,
    to_pixels,
    to_tensor,
    to_unit,
)
from readers.files import BadImage, Place
from readers.folders import list_images
from readers.formats import READERS, contents
from readers.headers import read_headers
from readers.pictures import turned
from readers.survey import SAMPLE_PIXELS, check_sizes, find_domain, sample_pixels
from runtime import checkpoints
from runtime.errors import UserError
from translators import load

SMALL = [flag for flag in TINY if "checkpoint_interval" not in flag] + ["--checkpoint_interval=1"]


def numbers(seed, shape, dtype):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    span = np.iinfo(dtype)
    return random.integers(span.min, span.max, shape, dtype, endpoint=True)


def tiff(shape, dtype, **saving):
    return lambda path, seed: tifffile.imwrite(path, numbers(seed, shape, dtype), **saving)


def npy(shape, dtype):
    return lambda path, seed: np.save(path, numbers(seed, shape, dtype))


def npz(path, seed):
    np.savez_compressed(path, numbers(seed, (24, 26, 2), np.float64))


def sixteen_bit_png(path, seed):
    Image.fromarray(numbers(seed, (24, 26), np.uint16)).save(path)


def colour_png(path, seed):
    Path(path).write_bytes(imagecodecs.png_encode(numbers(seed, (24, 26, 3), np.uint16)))


def scan(name):
    return lambda path, seed: shutil.copy(get_testdata_file(name), path)


def volume(path, seed):
    nibabel.save(nibabel.Nifti1Image(numbers(seed, (24, 26, 3), np.int16), np.diag([1, 2, 3, 1])), path)


def real_volume(path, seed):
    shutil.copy(Path(NIBABEL_FILES) / "anatomical.nii", path)


def picture(path, seed):
    noise_image(seed, 24, 26).save(path)


KINDS = {
    "8-bit png": (".png", picture),
    "8-bit avif": (".avif", picture),
    "8-bit gif": (".gif", picture),
    "8-bit jp2": (".jp2", picture),
    "16-bit png": (".png", sixteen_bit_png),
    "16-bit colour png": (".png", colour_png),
    "16-bit tiff": (".tif", tiff((24, 26), np.uint16)),
    "float tiff, compressed": (".tif", tiff((24, 26), np.float32, compression="zlib")),
    "13 channels, planar tiff": (".tif", tiff((13, 24, 26), np.uint16, planarconfig="separate", photometric=1)),
    "4 channels, interleaved tiff": (".tif", tiff((24, 26, 4), np.uint16, planarconfig="contig", photometric=1)),
    "stack of pages": (".tif", tiff((5, 24, 26), np.uint16, photometric="minisblack")),
    "npy": (".npy", npy((24, 26, 2), np.float32)),
    "npz": (".npz", npz),
    "dicom ct": (".dcm", scan("CT_small.dcm")),
    "dicom mr": (".dcm", scan("MR_small.dcm")),
    "nifti": (".nii", volume),
    "nifti of a real head": (".nii", real_volume),
    "packed nifti": (".nii.gz", volume),
}  # fmt: skip


def make_sides(folder, A, B, count=4):
    """A data set of files of two kinds."""
    for side, kind in (("A", A), ("B", B)):
        suffix, write = KINDS[kind]
        for number, part in enumerate(("train", "test")):
            (folder / f"{part}{side}").mkdir(parents=True)
            for i in range(count if "nifti" not in kind else 1):
                write(folder / f"{part}{side}" / f"{i}{suffix}", 10 * number + i)


def read(path):
    """An image by its own library, as H×W×C."""
    suffix = path.suffix
    array = tifffile.imread(path) if suffix == ".tif" else np.load(path) if suffix == ".npy" else None
    if array is None:
        array = nibabel.load(path).get_fdata() if suffix in (".nii", ".gz") else imagecodecs.imread(path)
    return array if array.ndim > 2 else array[..., None]


# What each of two sides is translated to, there and back: format, type, channels.
PAIRS = {
    ("16-bit tiff", "13 channels, planar tiff"): ((".tif", "uint16", 13), (".tif", "uint16", 1)),
    ("float tiff, compressed", "npy"): ((".npy", "float32", 2), (".tif", "float32", 1)),
    ("dicom mr", "dicom ct"): ((".tif", "int32", 1), (".tif", "int16", 1)),
    ("16-bit png", "16-bit colour png"): ((".png", "uint16", 3), (".png", "uint16", 1)),
    ("npz", "stack of pages"): ((".tif", "uint16", 5), (".tif", "float64", 2)),
    ("nifti", "packed nifti"): ((".nii", "float64", 3), (".gz", "float64", 3)),  # get_fdata
    ("8-bit png", "4 channels, interleaved tiff"): ((".tif", "uint16", 4), (".png", "uint8", 3)),
    ("8-bit avif", "8-bit jp2"): ((".png", "uint8", 3), (".png", "uint8", 3)),
    ("8-bit gif", "npy"): ((".npy", "float32", 2), (".png", "uint8", 3)),
}


@pytest.mark.parametrize(("A", "B"), PAIRS)
def test_every_format_trains_resumes_translates_in_tiles_and_is_evaluated(workplace, run, A, B):
    make_sides(workplace / "datasets" / "any", A, B)
    result = run("cycle_gan", *SMALL, "--dataset_name=any", "--n_epochs=1")
    assert result.code == 0, result.err
    result = run("cycle_gan", "--dataset_name=any", "--epoch=latest", "--n_epochs=2")
    assert result.code == 0 and "resuming after epoch 1" in result.out, result.err
    for flags in ([], ["--tile=32"]):
        result = run("test", "--dataset_name=any", "--n_cpu=0", *flags)
        assert result.code == 0, result.err
        for direction, (suffix, dtype, channels) in zip(("AtoB", "BtoA"), PAIRS[A, B], strict=True):
            made = [path for path in (workplace / "results/any/epoch_2" / direction).iterdir() if path.is_file()]
            assert made and {path.suffix for path in made} == {suffix}
            for path in made:
                array = read(path)
                assert (array.dtype, array.shape[-1]) == (dtype, channels)
    result = run("evaluate", "--dataset_name=any", "--features=efficientnet_lite0")
    assert result.code == 0 and "cycle L1" in result.out, result.err


# ---- to the last bit ----

ALL = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.fixture
def identity(monkeypatch):
    """Generators that translate each image to itself."""
    monkeypatch.setattr("translators.Translators.translate", lambda self, side, x: (x, None))


@pytest.mark.parametrize("flags", [[], ["--tile=64", "--batch_size=3"]], ids=["whole", "tiles"])
@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".tif", lambda path: tifffile.imwrite(path, ALL)),
        (".png", lambda path: Image.fromarray(ALL).save(path)),
        (".npy", lambda path: np.save(path, ALL)),
        (".nii.gz", lambda path: nibabel.save(nibabel.Nifti1Image(ALL.reshape(256, 64, 4), np.eye(4)), path)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_all_65536_values_come_back_exactly(workplace, run, identity, suffix, write, flags):
    for side in ("trainA", "trainB", "testA"):
        (workplace / "datasets/all" / side).mkdir(parents=True)
        write(workplace / "datasets/all" / side / f"0{suffix}")
    assert run("cycle_gan", *SMALL, "--dataset_name=all", "--n_epochs=1", "--sample_interval=0").code == 0
    assert run("test", "--dataset_name=all", "--n_cpu=0", *flags).code == 0
    assert np.array_equal(np.unique(read(workplace / f"results/all/epoch_1/AtoB/0{suffix}")), ALL.ravel())
    back, origin = (
        read(workplace / folder / f"0{suffix}") for folder in ("results/all/epoch_1/AtoB", "datasets/all/testA")
    )
    assert np.array_equal(back, origin)  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.uint8, 0, 255), (np.int16, -1024, 3071), (np.uint16, 0, 4095), (np.uint16, 0, 65535), (np.int16, -9, 32767)],
)
def test_whole_numbers_survive_the_way_to_the_network_and_back(dtype, low, high):
    domain = Domain(1, low, high, np.dtype(dtype).name, picture=False)
    values = np.arange(low, high + 1).astype(dtype)[None, :, None]
    tensor = to_tensor(values, domain)
    assert tensor.dtype == torch.float32 and (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(to_pixels(tensor[None], domain)[0], values)
    torch.testing.assert_close(to_unit(tensor, domain)[0, 0], torch.linspace(0, 1, high - low + 1))


def test_floats_survive_to_one_unit_and_what_lies_outside_is_clipped():
    domain = Domain(1, -3.0, 5.0, "float32", picture=False)
    values = np.random.default_rng(0).uniform(-3, 5, (50, 50, 1)).astype(np.float32)
    back = to_pixels(to_tensor(values, domain)[None], domain)[0]
    assert back.dtype == np.float32 and np.abs(back - values).max() <= 8 * np.finfo(np.float32).eps
    outside = to_tensor(np.array([[[-4.0], [6.0]]], np.float32), domain)
    assert outside.flatten().tolist() == [-1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_readers_return_what_was_written(tmp_path, kind):
    suffix, write = KINDS[kind]
    path = tmp_path / f"image{suffix}"
    write(path, 3)
    with contents(str(path), PICTURES) as found:
        if found.picture:
            expected = np.asarray(Image.open(path).convert("RGB"))
            loaded = load_pixels(path, PICTURES)
        else:
            domain = Domain(found.channels, dtype=found.dtype.name, picture=False)
            loaded = load_array(list_images(tmp_path, domain)[0], domain)
            assert loaded.dtype == found.dtype.newbyteorder("=") and loaded.dtype.isnative
            expected = expected_pixels(kind, path)
    assert np.array_equal(loaded, expected)


def expected_pixels(kind, path):
    if kind == "dicom ct":  # Hounsfield units
        return pydicom.pixels.apply_rescale(pydicom.dcmread(path).pixel_array, pydicom.dcmread(path))[..., None]
    if kind == "dicom mr":
        return pydicom.dcmread(path).pixel_array[..., None]
    if "nifti" in kind:
        return np.rot90(np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)[..., 0])[..., None]
    if kind == "npz":
        return np.load(path)["arr_0"]
    array = read(path)
    return np.moveaxis(array, 0, -1) if kind in ("stack of pages", "13 channels, planar tiff") else array


def test_volumes_are_cut_along_the_axis_and_stacks_into_pages(tmp_path):
    volume(tmp_path / "v.nii.gz", 0)
    tiff((5, 24, 26), np.uint16, photometric="minisblack")(tmp_path / "stack.tif", 1)
    for axis, count in enumerate((24, 26, 3)):
        assert len(list_images(tmp_path, PICTURES._replace(slice_axis=axis))) == count + 1
    places = list_images(tmp_path, PICTURES._replace(pages="images"))
    assert [place.part for place in places] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert str(places[1]).endswith("stack.tif/001")
    domain = Domain(1, dtype="uint16", picture=False, pages="images")
    assert np.array_equal(load_array(places[2], domain)[..., 0], tifffile.imread(tmp_path / "stack.tif")[2])


@pytest.mark.parametrize("name", ["../a.png", "b/../../a.png"])
def test_an_archive_names_nothing_outside_of_itself(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "trainA.zip", "w") as archive:
        archive.writestr(name, b"any")
    with pytest.raises(UserError, match="no name of a file in it"):
        list_images(tmp_path / "trainA.zip")


def test_a_hard_link_in_a_tar_is_the_file_that_it_names(tmp_path):
    (tmp_path / "side").mkdir()
    noise_image(0, 24, 20).save(tmp_path / "side/a.png")
    os.link(tmp_path / "side/a.png", tmp_path / "side/b.png")
    with tarfile.open(tmp_path / "trainA.tar", "w") as archive:
        archive.add(tmp_path / "side", "side")
        assert archive.getmember("side/b.png").islnk() or archive.getmember("side/a.png").islnk()
    one, other = list_images(tmp_path / "trainA.tar")
    assert np.array_equal(load_pixels(one, PICTURES), load_pixels(other, PICTURES))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_tar_whose_member_lies_elsewhere_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "trainA.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.type, member.linkname = kind, "b.png"
        archive.addfile(member)
    with pytest.raises(UserError, match="holds no content for a.png; pack it anew: tar --dereference"):
        list_images(tmp_path / "trainA.tar")


@pytest.mark.parametrize("archive", ["stored.zip", "deflated.zip", "plain.tar"])
@pytest.mark.parametrize("n_cpu", [0, 2])
def test_a_side_may_be_an_archive(workplace, run, archive, n_cpu):
    name, suffix = archive.split(".")
    for part in ("testA", "testB", "trainA", "trainB"):
        files = sorted((workplace / "datasets/tiny" / part).iterdir())
        target = workplace / f"datasets/{name}/{part}.{suffix}"
        target.parent.mkdir(exist_ok=True)
        if suffix == "zip":
            method = zipfile.ZIP_DEFLATED if name == "deflated" else zipfile.ZIP_STORED
            with zipfile.ZipFile(target, "w", method) as file:
                for path in files:
                    file.write(path, f"deep/{path.name}")
        else:
            with tarfile.open(target, "w") as file:
                for path in files:
                    file.add(path, f"deep/{path.name}")
        for place, path in zip(list_images(target), files, strict=True):
            assert np.array_equal(load_pixels(place, PICTURES), load_pixels(path, PICTURES))
    assert run("cycle_gan", *SMALL, f"--dataset_name={name}", "--n_epochs=1", f"--n_cpu={n_cpu}").code == 0
    result = run("test", f"--dataset_name={name}", f"--input={target}", "--output=out", "--direction=BtoA", "--n_cpu=0")
    assert result.code == 0 and (workplace / "out/deep/0.png").exists()
    for program, *flags in (
        ("cycle_gan", "--epoch=latest", "--n_epochs=2"),
        ("test", "--tile=32", "--n_cpu=0"),
        ("evaluate", "--features=efficientnet_lite0"),
    ):
        result = run(program, f"--dataset_name={name}", *flags)
        assert result.code == 0, result.err


# ---- range and channels ----


def domain_of(folder, **more):
    return find_domain("A", read_headers(list_images(folder), False), PICTURES, **more)


def test_images_of_one_value_get_no_advice_that_is_refused(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.full((20, 20), 7, np.uint16))
    domain_of(tmp_path)
    out = capsys.readouterr().out
    assert "lie between 7 and 7, a small part" in out and "try" not in out


def test_a_range_beyond_float32_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.linspace(0, 1e300, 400).reshape(20, 20))
    with pytest.raises(UserError, match="beyond what float32 holds"):
        domain_of(tmp_path)


def test_the_range_is_the_types_or_the_percentiles_or_what_is_given(tmp_path, capsys):
    for kind, write in (("u", npy((24, 26), np.int16)), ("f", npy((99, 99), np.float32))):
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / "a.npy", 0)
    assert domain_of(tmp_path / "u")[1:4] == (-32768, 32767, "int16")
    found = domain_of(tmp_path / "f")
    low, high = np.percentile(np.load(tmp_path / "f" / "a.npy"), (0.1, 99.9))
    assert (found.low, found.high) == pytest.approx((low, high)) and "are clipped" in capsys.readouterr().out
    assert domain_of(tmp_path / "u", span=[0, 4095])[1:3] == (0, 4095)
    with pytest.raises(UserError, match="none of them in the range 70000 to 80000"):
        domain_of(tmp_path / "u", span=[70000, 80000])


def test_ct_has_the_range_of_its_bits(tmp_path):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.save_as(tmp_path / "a.dcm")
    assert domain_of(tmp_path)[1:4] == (-1024, 3071, "int16")


@pytest.mark.parametrize(
    ("packed", "plain", "most"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm", 0),  # lossless JPEG
        ("SC_rgb_jls_lossy_sample.dcm", "SC_rgb_rle.dcm", 2),
        ("JPEG-lossy.dcm", "JPEG2000.dcm", 100),  # 12 bits, and both lossy
    ],
)
def test_what_pydicom_cannot_decode_alone(packed, plain, most):
    found, expected = (read_parts(get_testdata_file(name))[0] for name in (packed, plain))
    assert np.abs(found.astype(int) - expected).max() <= most
    assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] > 0.95


@pytest.mark.parametrize("codec", ["JPEGLSLossless", "JPEG2000Lossless", "RLELossless", "ExplicitVRLittleEndian"])
def test_frames_of_a_scan_are_channels_or_images(tmp_path, codec):
    frames = numbers(0, (3, 24, 26), np.uint16)
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 24, 26, 3
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation, dataset.RescaleIntercept = 16, 15, 0, 0
    dataset.PixelData, dataset["PixelData"].VR = frames.tobytes(), "OW"
    encode = {"JPEGLSLossless": imagecodecs.jpegls_encode, "JPEG2000Lossless": j2k}.get(codec)
    if codec == "RLELossless":
        dataset.compress(pydicom.uid.RLELossless)
    elif encode:
        dataset.PixelData = pydicom.encaps.encapsulate([encode(frame) for frame in frames])
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, codec)
    dataset.save_as(tmp_path / "a.dcm")
    (channels,) = read_parts(tmp_path / "a.dcm")
    assert np.array_equal(channels, np.moveaxis(frames, 0, -1))
    assert np.array_equal(read_parts(tmp_path / "a.dcm", pages="images"), frames[..., None])


def j2k(frame):
    return imagecodecs.jpeg2k_encode(frame, reversible=True, codecformat="j2k")


def read_parts(path, **ways):
    """All images of a file, H×W×C each."""
    return read_file(path, **ways)[1]


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64, np.uint64, np.uint8, np.int16])
def test_the_largest_whole_number_stays_the_largest(kind):
    span = np.iinfo(kind)
    white = np.full((8, 8, 1), span.max, kind)
    assert (geometry.resize(white, (4, 4), span.min, span.max) == span.max).all()
    domain = Domain(1, float(span.min), float(span.max), np.dtype(kind).name, picture=False)
    ends = to_pixels(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1), domain)
    assert ends.dtype == kind and ends.flatten().tolist() == [span.min, span.max]


def test_colours_are_shown_as_asked():
    images = torch.arange(5.0).view(1, 5, 1, 1)
    shown = lambda show, channels=5: to_colours(images[:, :channels], Domain(channels, show=show)).flatten().tolist()  # noqa: E731
    assert shown((1, 2, 3)) == [0, 1, 2] and shown((5, 1, 3)) == [4, 0, 2]
    assert shown((3, 2, 1), 3) == [0, 1, 2] and shown((1, 2, 3), 1) == [0, 0, 0] and shown((1, 2, 3), 2) == [0, 1, -1]


def test_other_channels_can_be_shown_when_a_run_goes_on(workplace, run, refused):
    for side in "AB":
        (folder := workplace / f"datasets/any/train{side}").mkdir(parents=True)
        npy((24, 26, 5), np.uint16)(folder / "0.npy", 0)
    assert run("cycle_gan", *SMALL, "--dataset_name=any", "--n_epochs=1").code == 0
    again = ["cycle_gan", "--dataset_name=any", "--epoch=latest", "--n_epochs=2", "--show_channels"]
    assert "--show_channels 6 is more than the 5 channels" in refused(*again, 4, 3, 6)
    assert run(*again, 4, 3, 2).code == 0
    assert checkpoints.find("saved_models/any")[1]["domains"]["A"]["show"] == (4, 3, 2)


def test_different_channels_have_no_identity_loss_which_is_said_once(workplace, run, refused):
    make_sides(workplace / "datasets/any", "8-bit png", "npy", count=2)
    result = run("cycle_gan", *SMALL, "--dataset_name=any", "--n_epochs=1", "--show_channels", 2, 1, 2)
    assert result.code == 0 and result.out.count("--lambda_id is 0") == 1
    again = run("cycle_gan", "--dataset_name=any", "--epoch=latest", "--n_epochs=2")
    assert again.code == 0 and "--lambda_id" not in again.out
    for flag, told in (
        ("--lambda_id=5", "leave --lambda_id out"),
        ("--mask=learned", "--mask learned needs equal"),
        ("--channels_B=3", "not the 3 of --channels_B"),
        ("--channels_A=2", "must be 3 or 1"),
    ):
        assert told in refused("cycle_gan", *SMALL, "--dataset_name=any", flag)


# ---- shape ----


@pytest.mark.parametrize("size", [(40, 31), (9, 70), (24, 26)])
def test_floats_are_resized_as_pillow_does(size):
    picture = noise_image(0, 24, 26)
    expected = np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))
    array = np.asarray(picture)
    assert np.array_equal(geometry.resize(array, size, 0, 255), expected)
    for dtype in (np.float32, np.uint16, np.int16):
        resized = geometry.resize(array.astype(dtype), size, 0, 255)
        assert resized.dtype == dtype
        assert np.abs(resized.round() - expected.astype(float)).max() <= 1
    ramp = np.linspace(0, 65535, 60).round().astype(np.uint16)[:, None, None] * np.ones((1, 60, 1), np.uint16)
    middle = geometry.resize(ramp, (30, 30), 0, 65535)[5:-5, 5].ravel().astype(float)
    assert np.abs(middle - ramp[:, 0, 0].reshape(30, 2).mean(1)[5:-5]).max() < 2  # neither shifted nor stretched


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [("resize_and_crop", (18, 22)), ("scale_width_and_crop", (11, 22)), ("scale_shorter_and_crop", (18, 36)),
     ("crop", (40, 80)), ("none", (40, 80))],
)  # fmt: skip
def test_preprocess_resizes_by_its_name(preprocess, expected):
    assert geometry.PREPROCESS[preprocess]((40, 80), (18, 22)) == expected


@pytest.mark.parametrize("preprocess", ["scale_width_and_crop", "scale_shorter_and_crop", "crop"])
@pytest.mark.parametrize("cache", [0, 1])
def test_images_of_different_sizes_train_in_any_way(workplace, run, preprocess, cache):
    for i, size in enumerate(((12, 50), (70, 24), (30, 30))):
        noise_image(i, *size).save(workplace / "datasets/tiny/trainA" / f"{i}.png")
    flags = [f"--preprocess={preprocess}", f"--cache={cache}", "--flip=both", "--n_epochs=2"]
    assert run("cycle_gan", *SMALL, *flags).code == 0


def test_whole_images_without_a_crop(workplace, run, refused):
    assert run("cycle_gan", *SMALL, "--preprocess=none", "--n_epochs=1").code == 0
    assert Image.open(workplace / "images/tiny/2.png").size == (6 * (20 + 2) + 2, 3 * (16 + 2) + 2)
    noise_image(0, 30, 30).save(workplace / "datasets/tiny/trainB/odd.png")
    line = refused("cycle_gan", *SMALL, "--preprocess=none")
    assert "0.png is 23×18 pixels and" in line and "odd.png is 30×30" in line


def test_small_images_are_padded_or_refused(workplace, run, refused):
    assert geometry.pad(np.arange(12).reshape(3, 4, 1), (5, 4)).shape == (5, 4, 1)
    big = [*SMALL, "--img_height=32", "--img_width=32", "--preprocess=crop"]
    assert run("cycle_gan", *big, "--n_epochs=1").code == 0
    assert "is 23×18 pixels, less than the crop of 32×32" in refused("cycle_gan", *big, "--small=refuse")
    whole = ["--preprocess=none", "--small=refuse", "--n_epochs=1"]  # which has no crop
    assert run("cycle_gan", *big, *whole).code == 0


def test_squashing_is_said(workplace, run):
    for side in ("trainA", "trainB"):
        noise_image(0, 20, 90).save(workplace / "datasets/tiny" / side / "0.png")
    squashed = "images of 90×20 are squashed to 22×18; --preprocess scale_shorter_and_crop keeps their shape"
    assert squashed in run("cycle_gan", *SMALL, "--n_epochs=1").out
    kept = run("cycle_gan", *SMALL, "--n_epochs=1", "--preprocess=scale_shorter_and_crop")
    assert "squashed" not in kept.out


def test_crops_are_mirrored_and_turned_as_asked():
    corner = np.zeros((8, 8, 1))
    corner[0, 0] = 1

    def places(**how):
        crops = (geometry.random_crop(corner, (8, 8), np.random.default_rng(seed), **how) for seed in range(60))
        return {tuple(int(i) for i in np.argwhere(crop)[0][:2]) for crop in crops}

    everywhere = {(0, 0), (0, 7), (7, 0), (7, 7)}
    assert places(flip="none") == {(0, 0)} and places() == {(0, 0), (0, 7)}
    assert places(flip="both") == everywhere and places(flip="none", rotate90=True) == everywhere


# ---- bad input ----


def pickled(path):
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)


def cut_short(path):
    np.save(path, np.zeros((64, 64), np.float32))
    path.write_bytes(path.read_bytes()[:400])


def boastful(path):
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (400000, 400000)}
        np.lib.format.write_array_header_1_0(file, header)


def huge(path):
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16))
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for name in ("ImageWidth", "ImageLength"):
            offset = file.pages[0].tags[name].offset
            content[offset + 2 : offset + 12] = (
                (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + (60000).to_bytes(4, "little")
            )
    path.write_bytes(content)  # fmt: skip


def without_pixels(path):
    shutil.copy(get_testdata_file("rtplan.dcm"), path)


def edge_on(path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((1, 30, 30), np.int16), np.eye(4)), path)


def test_kinds_of_numbers_are_mixed_only_on_purpose(tmp_path):
    for i, kind in enumerate((np.uint16, np.uint16, np.float32)):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.full((8, 8), 7, kind))
    with pytest.raises(UserError, match=r"2\.tif holds floats and .*1\.tif whole numbers; name their --range_A"):
        domain_of(tmp_path)
    assert domain_of(tmp_path, span=[0, 9]).dtype == "float32"


def test_a_few_pictures_do_not_make_all_read_with_8_bits(tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    tifffile.imwrite(tmp_path / "1.tif", np.zeros((8, 8), np.uint16))
    assert domain_of(tmp_path).picture
    assert "1 of 2 images have more than 8 bits, and are read with 8 as the others" in capsys.readouterr().out
    tifffile.imwrite(tmp_path / "2.tif", np.zeros((8, 8), np.uint16))
    with pytest.raises(UserError, match=r"0\.png has 8 bits, and 2 of the 3 images of side A have more.*take it out"):
        domain_of(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "write", "told"),
    [
        (".npy", pickled, "Python objects, which are never loaded"),
        (".npy", lambda path: np.save(path, np.zeros((8, 8), complex)), "complex128, not real numbers"),
        (".npy", lambda path: np.save(path, np.zeros(8)), r"its shape is \(8,\)"),
        (".npy", lambda path: np.save(path, np.zeros((0, 8))), "no pixels"),
        (".npy", lambda path: np.save(path, np.zeros((3, 40, 50))), "channels come last"),
        (".npz", lambda path: np.savez(path, np.zeros((1, 40, 50))), "channels come last"),
        (".npy", cut_short, "its header promises 16512 bytes and it holds 400"),
        (".npy", boastful, "promises"),
        (".npz", lambda path: np.savez(path, a=np.zeros((8, 8)), b=np.zeros((8, 8))), "it holds 2 arrays"),
        (".tif", huge, "--decoded_limit is 1; raise that"),
        (".tif", lambda path: path.write_bytes(b"II*\0nonsense"), "not a readable image"),
        (".dcm", without_pixels, "DICOM file without pixels"),
        (".dcm", lambda path: path.write_bytes(b"nothing"), "not a readable image"),
        (".nii", lambda path: path.write_bytes(b"nothing"), "not a NIfTI file"),
        (".nii.gz", edge_on, "no images along --slice_axis 2"),
        (".png", lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "it does not begin as a picture does"),
        (".png", lambda path: path.touch(), "it is empty"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, suffix, write, told):
    path = tmp_path / f"bad{suffix}"
    write(path)
    with pytest.raises(BadImage, match=told):
        read_headers(list_images(tmp_path), False)


def test_a_limit_on_what_is_decoded_can_be_raised(workplace, run, refused):
    flags = [*SMALL, "--n_epochs=1", "--sample_interval=0"]
    line = refused("cycle_gan", *flags, "--decoded_limit=0.000001")
    assert "--decoded_limit is 1e-06; raise" in line
    assert run("cycle_gan", *flags).code == 0
    assert "--decoded_limit" in refused("test", "--dataset_name=tiny", "--decoded_limit=0.000001", "--n_cpu=0")


def test_sides_that_disagree_name_both_files(tmp_path):
    npy((8, 8, 2), np.uint16)(tmp_path / "a.npy", 0)
    npy((8, 8, 3), np.uint16)(tmp_path / "b.npy", 0)
    with pytest.raises(UserError, match=r"a\.npy has 2 channels and .*b\.npy has 3"):
        domain_of(tmp_path)
    (tmp_path / "a.npy").unlink()
    noise_image(0).save(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"c\.png is an 8-bit picture and .*b\.npy is not"):
        domain_of(tmp_path)


def test_nan_is_refused_by_name_or_replaced(workplace, run, refused):
    make_sides(workplace / "datasets/any", "npy", "npy", count=2)
    hole = np.ones((24, 26, 2), np.float32)
    hole[3, 3] = np.nan
    np.save(workplace / "datasets/any/trainA/1.npy", hole)
    line = refused("cycle_gan", *SMALL, "--dataset_name=any")
    assert "trainA/1.npy" in line and "in training and for two folders, --nan 0 takes them as 0" in line
    assert run("cycle_gan", *SMALL, "--dataset_name=any", "--n_epochs=1", "--nan=0").code == 0
    np.save(workplace / "datasets/any/testA/1.npy", hole)
    assert run("test", "--dataset_name=any", "--n_cpu=0").code == 0


def test_volumes_of_half_precision_and_packed_ones(tmp_path):
    volume(tmp_path / "a.nii", 0)
    domain = domain_of(tmp_path)
    half = domain._replace(dtype="float16", low=0.0, high=1.0)
    places = list_images(tmp_path)
    output = Output("AtoB", tmp_path / "out", places, tmp_path, {"A": domain, "B": half}, "nii.gz")
    for index, place in enumerate(output.places):
        array = np.full((24, 26, 1), index / 4, np.float16)
        output.volumes.add(place, array, output.path(place, output.names[index]))
    made = nibabel.load(tmp_path / "out/a.nii.gz")
    assert made.get_data_dtype() == np.float32
    assert np.unique(made.get_fdata()).tolist() == [index / 4 for index in range(len(places))]


DEEP = Domain(channels=1, low=0.0, high=1.0, dtype="float32", suffix=".npy", picture=False)
SCAN = DEEP._replace(dtype="int16", low=0.0, high=99.0, suffix=".nii.gz")


@pytest.mark.parametrize(
    ("folder", "previews"),
    [("out", "out_previews"), ("a/out", "a/out_previews"), (".", "{}/here_previews"), ("..", "{}_previews"),
     ("../there/..", "{}_previews"), ("/", "/_previews")],
)  # fmt: skip
def test_previews_lie_beside_the_folder_of_translations(tmp_path, monkeypatch, folder, previews):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out, previews = Path(folder), Path(previews.format(tmp_path))
    pictures = Output("AtoB", folder, ["a.png"], Path("."), {"A": PICTURES, "B": PICTURES}, "trained")
    assert list(pictures.files()) == [out / "a.png"] and pictures.folders() == {out}
    mixed = Output("AtoB", folder, ["a.png"], Path("."), {"A": PICTURES, "B": DEEP}, "trained")
    assert list(mixed.files()) == [out / "a.npy", previews / "translations/a.npy.png"]
    assert mixed.folders() == {out, previews}
    back = Output("BtoA", folder, ["a.npy"], Path("."), {"A": PICTURES, "B": DEEP}, "trained")
    assert list(back.files()) == [out / "a.png", previews / "inputs/a.png.png"]
    long = mixed.previews.of_output(out / "a.npy", Path(f"{'ä' * 125}.npy"))  # 254 bytes, and 4 more are too many
    assert long.parent == previews / "translations" and long.suffix == ".png" and len(os.fsencode(long.name)) < 255
    assert long != mixed.previews.of_output(out / "a.npy", Path(f"{'ä' * 124}a.npy"))


def test_a_translation_is_saved_with_previews_of_both_sides(tmp_path):
    saved, array = [], np.zeros((2, 2, 1), np.float32)
    output = Output("AtoB", tmp_path / "out", ["a.npy"], Path("."), {"A": DEEP, "B": DEEP}, "trained")
    writers = Namespace(save=lambda array, path: saved.append((path, array)))
    row = output.save(writers, 0, array, torch.full((1, 2, 2), -1.0), torch.ones(1, 2, 2))
    shown = [tmp_path / "out_previews" / kind / "a.npy.png" for kind in ("inputs", "translations")]
    assert row == (Path("a.npy"), *shown) and [path for path, _ in saved] == [tmp_path / "out/a.npy", *shown]
    assert saved[0][1] is array and saved[1][1].max() == 0 and saved[2][1].min() == 255


@pytest.mark.parametrize(
    ("files", "target", "wanted", "made"),
    [
        ({"a.nii": 2, "b.NII": 1}, SCAN, "trained", ["a.nii", "b.NII"]),
        ({"a.nii": 2, "b.NII": 1}, SCAN, "nii.gz", ["a.nii.gz", "b.NII.gz"]),
        ({"a.nii.gz": 2}, DEEP, "nii.gz", ["a.nii.gz"]),
        ({"a.nii": 2}, DEEP, "trained", None),
        ({"a.nii": 2}, SCAN, "npy", None),
        ({"a.nii": 2, "b.npy": 1}, SCAN, "trained", None),
    ],
)
def test_slices_become_volumes_where_both_sides_are_or_it_is_asked_for(files, target, wanted, made):
    places = [place for name, count in files.items() for place in (Place(name).parts(count) if count > 1 else [name])]
    sides = {"A": SCAN._replace(slice_axis=1), "B": target}
    output = Output("AtoB", "out", places, Path("."), sides, wanted)
    if made is None:
        assert output.volumes is None
    else:
        assert output.volumes.axis == 1
        assert {path for path in output.files() if path.parent.name == "out"} == {Path("out") / name for name in made}


def test_two_volumes_of_one_name_and_files_that_are_none_are_refused():
    sides = {"A": SCAN, "B": SCAN}
    with pytest.raises(UserError, match="a.nii and a.nii.gz would both become out/a.nii.gz"):
        Output("AtoB", "out", Place("a.nii").parts(2) + Place("a.nii.gz").parts(2), Path("."), sides, "nii.gz")
    with pytest.raises(UserError, match="nii.gz puts slices of NIfTI volumes together"):
        Output("AtoB", "out", ["a.nii", "b.npy"], Path("."), sides, "nii.gz")


def test_values_outside_of_the_range_are_told_where_there_are_any(capsys):
    tell_outside(0, 9, SCAN)
    assert capsys.readouterr().out == ""
    tell_outside(2, 9, SCAN, " in a")
    assert capsys.readouterr().out == "2 of 9 values in a lay outside of 0 to 99, and were clipped\n"


def test_what_contradicts_a_16_bit_model_is_refused(workplace, run, refused):
    make_sides(workplace / "datasets/any", "16-bit tiff", "16-bit tiff", count=2)
    assert run("cycle_gan", *SMALL, "--dataset_name=any", "--n_epochs=1").code == 0
    for wanted in ("jpg", "webp", "bmp"):
        line = refused("test", "--dataset_name=any", f"--output_format={wanted}")
        assert f"--output_format {wanted} cannot hold 1 channel of uint16" in line
    assert "slices of NIfTI volumes" in refused("test", "--dataset_name=any", "--output_format=nii.gz")
    assert "it is an 8-bit picture" in refused("test", "--dataset_name=any", "--input=datasets/tiny/testA", "--n_cpu=0")
    line = refused("cycle_gan", "--dataset_name=any", "--epoch=latest", "--n_epochs=2", "--range_A", 0, 4095)
    assert "--range_A 0.0 4095.0 contradicts the checkpoint" in line
    npy((24, 26, 2), np.uint16)(workplace / "two.npy", 0)
    assert "it has 2 channels" in refused("test", "--dataset_name=any", "--input=two.npy", "--n_cpu=0")
    npy((24, 26), np.float32)(workplace / "floats.npy", 0)
    line = refused("test", "--dataset_name=any", "--input=floats.npy", "--n_cpu=0")
    assert "it holds fractions, and images of this side are 1 channel of uint16" in line
    translate, whole = load("saved_models/any", device="cpu"), np.full((24, 26), 999, np.uint16)
    with pytest.raises(UserError, match="this array cannot be translated: it holds fractions"):
        translate(np.load("floats.npy"))
    assert np.array_equal(translate(whole), translate(whole.astype(float)))
    for flags, told in (
        (["--range_A", 5], "takes auto, or a lower and a higher number"),
        (["--range_A", 5, 4], "takes auto, or"),
        (["--show_channels", 1], "takes three numbers"),
        (["--rotate90"], "square crops"),
        (["--saturation_noise=0.1"], "8-bit colour pictures"),
    ):
        assert told in refused("cycle_gan", *SMALL, "--dataset_name=any", *flags)


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16383), ("a.jpg", 65500)])
def test_a_picture_too_large_for_its_format_is_refused(name, side, tmp_path):
    save_image(np.zeros((1, side, 3), np.uint8), tmp_path / name)
    with pytest.raises(UserError, match=f"has {side} pixels a side at most; take --output_format png"):
        save_image(np.zeros((side + 1, 1, 3), np.uint8), tmp_path / f"more_{name}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colour_of_sixteen_bits_is_turned_as_pictures_are(orientation, tmp_path):
    """By the EXIF orientation; Pillow turns those of 8 bits."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = ImageOps.exif_transpose(with_exif := Image.open(saved(Image.fromarray(pixels), exif)))
    assert np.array_equal(turned(pixels, orientation), np.asarray(upright))
    path = tmp_path / "a.png"
    content = imagecodecs.png_encode(pixels.astype(np.uint16) * 257)
    ends = content.index(b"IDAT") - 4
    chunk = b"eXIf" + with_exif.getexif().tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(content[:ends] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
                     + content[ends:])  # fmt: skip
    with contents(path, PICTURES) as found:
        assert (found.height, found.width) == upright.size[::-1]
        assert np.array_equal(found.load(0), np.asarray(upright).astype(np.uint16) * 257)


def saved(image, exif):
    image.save(file := io.BytesIO(), "PNG", exif=exif)
    return file


def test_a_missing_library_is_named(workplace, refused, monkeypatch):
    import sys

    make_sides(workplace / "datasets/any", "dicom mr", "dicom ct", count=1)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    line = refused("cycle_gan", *SMALL, "--dataset_name=any")
    assert "needs pydicom; install it: pip install -r requirements-data.txt" in line


@pytest.mark.parametrize("name", ["trainA.zip", "trainA.tar"])
def test_damaged_archives_are_named(workplace, refused, name):
    (workplace / "datasets/bad").mkdir()
    (workplace / "datasets/bad" / name).write_bytes(b"nothing of the kind")
    assert f"{name} cannot be read as an archive" in refused("cycle_gan", *SMALL, "--dataset_name=bad")


def test_a_missing_codec_is_named(tmp_path, monkeypatch):
    import sys

    tiff((24, 26), np.uint16, compression="lzw")(tmp_path / "a.tif", 0)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr("tifffile.TiffPage.asarray", lambda page: needs_codec())
    monkeypatch.setattr("tifffile.TiffPageSeries.asarray", lambda series: needs_codec())
    with pytest.raises(UserError, match="needs imagecodecs; install it: pip install -r requirements-data.txt"):
        domain_of(tmp_path)


def needs_codec():
    raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")


def test_a_run_goes_on_only_with_what_it_was_trained_on(workplace, run, refused):
    make_sides(workplace / "datasets/any", "npy", "npy", count=1)
    assert run("cycle_gan", *SMALL, "--dataset_name=any", "--n_epochs=1").code == 0
    npy((24, 26, 3), np.float32)(workplace / "datasets/any/trainA/0.npy", 0)
    line = refused("cycle_gan", "--dataset_name=any", "--epoch=latest", "--n_epochs=2")
    assert "trainA/0.npy has 3 channels of float32, and the checkpoint was trained with 2 channels" in line


def test_a_run_on_whole_numbers_does_not_go_on_with_floats(workplace, run, refused):
    make_sides(workplace / "datasets/any", "16-bit tiff", "16-bit tiff", count=1)
    assert run("cycle_gan", *SMALL, "--dataset_name=any", "--n_epochs=1").code == 0
    npy((24, 26), np.float32)(workplace / "datasets/any/trainA/0.npy", 0)
    line = refused("cycle_gan", "--dataset_name=any", "--epoch=latest", "--n_epochs=2")
    assert "trainA/0.npy has 1 channel of float32, and the checkpoint was trained with 1 channel of uint16" in line


@pytest.mark.parametrize(("dtype", "kept"), [("uint8", True), ("uint16", True), ("int32", False), ("float32", False)])
def test_what_does_not_fit_the_cache_is_made_each_time(dtype, kept):
    cache, made = Cache(np.array([[2, 3, 1]]), "uint16"), np.array([[[1], [2], [3]]] * 2).astype(dtype)
    for _ in range(2):
        assert np.array_equal(cache.get(0, lambda: made), made)
    assert cache.known[0] == kept


def test_volumes_of_one_slice_among_others_are_named(tmp_path):
    volume(tmp_path / "a.nii", 0)
    nibabel.save(nibabel.Nifti1Image(np.zeros((24, 26, 1), np.int16), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(UserError, match="b.nii has one slice along --slice_axis 2, and others have many"):
        domain_of(tmp_path)


def test_two_folders_of_16_bits_are_measured_without_a_model(workplace, run):
    make_sides(workplace / "datasets/any", "16-bit tiff", "16-bit tiff")
    folders = ["--real=datasets/any/testA", "--fake=datasets/any/testB"]
    result = run("evaluate", *folders, "--features=efficientnet_lite0", "--range", 0, 40000)
    assert result.code == 0 and "KID" in result.out and "range 0 to 40000" in result.out, result.err


# ---- docs/formats.md ----

PAGE = (ROOT / "docs" / "formats.md").read_text()
SMALLER = [
    "--img_height=16",
    "--img_width=16",
    "--ngf=4",
    "--ndf=4",
    "--n_residual_blocks=1",
    "--n_epochs=1",
    "--n_cpu=0",
]


@pytest.mark.parametrize(("title", "kind", "translations"), [
    ("From MR to CT", "packed nifti", {"AtoB": "0.nii.gz"}),
    ("A folder of 12-bit microscope TIFFs", "16-bit tiff", {"AtoB": "0.tif", "BtoA": "0.tif"}),
])  # fmt: skip
def test_each_recipe_does_what_its_commands_say(workplace, run, title, kind, translations):
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    train, translate = (line.split()[1:] for line in section.splitlines() if line.startswith("python "))
    name = train[train.index("--dataset_name") + 1]
    make_sides(workplace / "datasets" / name, kind, kind, count=2)
    assert run("cycle_gan", *train[1:], *SMALLER).code == 0
    result = run("test", *translate[1:], "--n_cpu=0")
    assert result.code == 0, result.err
    for direction, file in translations.items():
        made = read(workplace / "results" / name / "epoch_1" / direction / file)
        assert -1000 <= made.min() <= made.max() <= (2000 if "nii" in file else 4095)


def test_the_page_names_every_format():
    assert [suffix for suffix in READERS if suffix[1:] not in ("jpeg", "jpe", "jfif", "j2k", "tiff")
            and f"`{suffix}`" not in PAGE] == []  # fmt: skip


def test_flags_for_files_of_a_kind_are_idle_where_there_are_none(workplace, run):
    idle = [
        "--slice_axis does nothing here: it is for volumes",
        "--pages images does nothing here: each file holds one",
        "--nan does nothing here: it is for floating-point numbers",
        "--show_channels does nothing here: images of 1 and 3 channels",
    ]
    flags = "--slice_axis=1", "--pages=images", "--nan=0", "--show_channels", 3, 2, 1
    result = run("cycle_gan", *TINY, "--n_epochs=1", *flags)
    assert result.code == 0 and all(line in result.out for line in idle)
    for name in ("trainA", "trainB", "testA", "testB"):
        shutil.rmtree(f"datasets/tiny/{name}")
        Path(f"datasets/tiny/{name}").mkdir()
        tifffile.imwrite(f"datasets/tiny/{name}/0.tif", np.eye(20, dtype=np.float32)[None].repeat(5, 0))
    result = run("cycle_gan", *TINY, "--name=more", "--n_epochs=1", "--pages=images", "--nan=0")
    assert result.code == 0 and "does nothing" not in result.out


def test_what_lies_on_either_side_of_the_range_is_counted():
    domain = Domain(channels=1, low=-1.0, high=2.0, dtype="float32", picture=False)
    assert count_outside(np.float32([-5, -1, 0, 2, 3]), domain) == 2


def test_a_range_is_looked_for_in_files_and_pixels_from_first_to_last(tmp_path):
    domain = Domain(channels=1, dtype="int32", suffix=".npy", picture=False)
    for i in range(100):
        np.save(tmp_path / f"{i:03}.npy", np.full((4, 4), i, np.int32))
    assert sample_pixels(list_images(tmp_path, domain), domain, False).max() == 99
    np.save(tmp_path / "large.npy", np.arange(360_000, dtype=np.int32).reshape(600, 600))
    seen = sample_pixels([tmp_path / "large.npy"], domain, False)
    assert len(seen) <= SAMPLE_PIXELS and seen.min() < 1_000 and seen.max() > 359_000


@pytest.mark.parametrize(("most", "told"), [(200, True), (8191, True), (8192, False)])
def test_a_small_part_of_the_range_is_pointed_out(tmp_path, capsys, most, told):
    tifffile.imwrite(tmp_path / "a.tif", np.linspace(0, most, 64).round().astype(np.uint16).reshape(8, 8))
    domain_of(tmp_path)
    assert (f"try --range_A 0 {most}" in capsys.readouterr().out) == told


@pytest.mark.parametrize(("height", "width"), [(16, 64), (64, 16), (31, 31)])
def test_an_image_that_is_too_small_on_one_side_is_refused_where_it_is_to_be(tmp_path, height, width):
    noise_image(0, height, width).save(tmp_path / "a.png")
    found = read_headers(list_images(tmp_path), False)
    options = Namespace(small="refuse", preprocess="crop")
    with pytest.raises(UserError, match=f"is {width}×{height} pixels, less than the crop of 32×32"):
        check_sizes(found, lambda size: size, (32, 32), options)
    check_sizes(found, lambda size: size, (16, 16), options)


def test_pictures_are_written_with_as_little_loss_as_their_format_has(tmp_path):
    array = np.asarray(noise_image(0, 40, 40))
    for suffix in (".webp", ".bmp", ".png", ".tif"):
        save_image(array, tmp_path / f"a{suffix}")
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"a{suffix}")), array), suffix
    save_image(array, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image, Image.open(ROOT / "docs/demo.png") as reference:
        best = io.BytesIO()
        reference.convert("RGB").crop((0, 0, 16, 16)).save(best, "JPEG", quality=95)
        assert JpegImagePlugin.get_sampling(image) == 0
        assert image.quantization == Image.open(best).quantization


def test_a_tiff_of_three_channels_is_one_of_colours(tmp_path):
    save_image(np.zeros((4, 4, 3), np.uint16), tmp_path / "a.tif")
    save_image(np.zeros((4, 4, 5), np.uint16), tmp_path / "b.tif")
    kinds = [tifffile.TiffFile(tmp_path / name).pages[0].photometric.name for name in ("a.tif", "b.tif")]
    assert kinds == ["RGB", "MINISBLACK"]
