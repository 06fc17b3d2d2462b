"""What the tags of a file say about its numbers: rescale, sign, depth, further bands, white, orientation, place."""

import contextlib
import errno
import gzip
import itertools
import struct
import zlib

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from conftest import TINY, read_file
from PIL import Image
from pydicom.data import get_testdata_file

from inference.pictures import PictureTranslator
from options import parse_training
from readers.domains import PICTURES, Domain, load_pixels
from readers.files import BadImage, Place, reading
from readers.formats import expand
from readers.geometry import in_type, resize
from readers.nifti import volume_like
from readers.pictures import eight_bits, load_image, turned
from readers.tiffs import decode
from runtime.errors import UserError
from translators import Translators

NUMBERS = np.random.default_rng(0).integers(0, 4096, (20, 24)).astype(np.uint16)
BANDS = np.random.default_rng(1).integers(0, 256, (20, 24, 5)).astype(np.uint8)


def alone(path, **ways):
    return read_file(path, **ways)[1][0][..., 0]


# ---- DICOM ----


def scan(path, pixels=NUMBERS, **tags):
    """A DICOM file of 12 bits without a sign and without a rescale."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.PixelData, dataset["PixelData"].VR = pixels.tobytes(), "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def group(slope, intercept):
    """A functional group that rescales."""
    rescale, around = pydicom.Dataset(), pydicom.Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = slope, intercept
    around.PixelValueTransformationSequence = [rescale]
    return around


@pytest.mark.parametrize("pages", ["channels", "images"])
def test_frames_are_rescaled_together_or_one_by_one(tmp_path, pages):
    frames = np.stack([NUMBERS, NUMBERS[::-1]])
    shared = scan(tmp_path / "shared.dcm", frames, NumberOfFrames=2, SharedFunctionalGroupsSequence=[group(1, -1024)])
    found, images = read_file(shared, pages=pages)
    assert (found.low, found.high, found.dtype) == (-1024, 3071, np.int16)
    assert np.array_equal(np.concatenate(images, -1), np.moveaxis(frames.astype(int) - 1024, 0, -1))
    beside = dict(NumberOfFrames=2, PerFrameFunctionalGroupsSequence=[pydicom.Dataset(), pydicom.Dataset()])
    beside["SharedFunctionalGroupsSequence"] = [group(1, -1024)]  # whose own groups tell other things
    found, _ = read_file(scan(tmp_path / "beside.dcm", frames, **beside), pages=pages)
    assert (found.low, found.high) == (-1024, 3071)
    groups = [group(1, 5), group(2, -3)]
    own = scan(tmp_path / "own.dcm", frames, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups)
    found, images = read_file(own, pages=pages)
    expected = np.stack([frames[0].astype(int) + 5, 2 * frames[1].astype(int) - 3], -1)
    assert (found.low, found.high) == (-3, 8187) and np.array_equal(np.concatenate(images, -1), expected)


def test_a_rescale_that_is_empty_is_none(tmp_path):
    path = scan(tmp_path / "a.dcm", RescaleSlope=None, RescaleIntercept=None)
    assert np.array_equal(alone(path), NUMBERS)


def test_where_zero_is_white_a_scan_is_turned_round(tmp_path):
    assert np.array_equal(
        alone(scan(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")), 4095 - NUMBERS.astype(int)
    )
    rescaled = scan(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", RescaleSlope=1, RescaleIntercept=-9)
    assert np.array_equal(alone(rescaled), NUMBERS.astype(int) - 9)  # its units mean something


@pytest.mark.parametrize(("name", "dtype"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_scans_of_floats_have_no_bounds(tmp_path, name, dtype):
    values = (NUMBERS / 7).astype(dtype)
    dataset = pydicom.dcmread(scan(tmp_path / "a.dcm"))
    del dataset.PixelData
    setattr(dataset, name, values.tobytes())
    dataset.BitsAllocated = 8 * values.itemsize
    dataset.save_as(tmp_path / "a.dcm")
    found, (image,) = read_file(tmp_path / "a.dcm")
    assert (found.low, found.high, found.dtype) == (None, None, dtype) and np.array_equal(image[..., 0], values)


def test_a_rescale_too_large_for_whole_numbers_gives_floats(tmp_path):
    found, (image,) = read_file(scan(tmp_path / "a.dcm", RescaleSlope="1E30", RescaleIntercept=0))
    assert found.dtype == np.float32 and np.allclose(image[..., 0], NUMBERS * 1e30)


def test_scans_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(BadImage, match="its pixels are numbers of a palette"):
        read_file(scan(tmp_path / "a.dcm", PhotometricInterpretation="PALETTE COLOR"))
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "US"
    table.add_new("LUTData", "OW", NUMBERS.tobytes())
    with pytest.raises(BadImage, match="its units are in a table"):
        read_file(scan(tmp_path / "a.dcm", ModalityLUTSequence=[table]))
    path = tmp_path / "b.dcm"
    path.write_bytes(scan(tmp_path / "c.dcm").read_bytes()[132:])
    with pytest.raises(BadImage, match="it does not begin as a DICOM file does"):
        read_file(path)


# ---- numbers of one type as those of another ----


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64])
def test_the_least_and_the_largest_number_stand_for_all_beyond(dtype):
    ends = np.iinfo(dtype)
    values = np.array([-np.inf, 2.0 * ends.min - 20, ends.min, -0.4, 7.6, ends.max, 2.0 * ends.max, np.inf], np.float32)
    expected = [ends.min, ends.min, ends.min, 0, 8, ends.max, ends.max, ends.max]
    assert in_type(values, dtype).tolist() == expected


def test_an_edge_in_a_file_of_another_type_than_the_domains_does_not_turn_round(tmp_path):
    """As of a CT with negative numbers beside one without: bicubic's undershoot is below what the latter can hold."""
    edge = np.where(np.arange(24) < 12, 0, 4000).astype(np.uint16)[None, :, None].repeat(20, 0)
    small = resize(edge, (13, 17), low=-1024, high=4095)
    assert small.dtype == np.uint16 and small.max() <= 4095


@pytest.mark.parametrize(
    ("channels", "frame", "said"),
    [
        (3, np.zeros((8, 8, 5)), "takes PIL images, or arrays H×W.×3. of uint8, not float64 .8, 8, 5."),
        (3, np.full((8, 8), 200, np.int32), "arrays H×W.×3. of uint8, not int32 .8, 8."),
        (3, "a.png", "takes PIL images, .* not str"),
        (4, Image.new("RGB", (8, 8)), "takes arrays H×W×C of 4 channels of uint16 .*, not Image"),
        (4, np.zeros((8, 8, 3), np.uint16), "takes arrays H×W×C of 4 channels of uint16 .*, not ndarray .8, 8, 3."),
        (1, np.zeros((2, 8, 8, 1), np.uint16), "takes arrays H×W×C of 1 channel of uint16"),
        (3, np.full((8, 8), 3, np.float32), "its floats are not between 0 and 1"),
        (3, np.zeros((0, 8, 3), np.uint8), "this picture cannot be translated"),
        (1, np.zeros((0, 8), np.uint16), "takes arrays H×W×C of 1 channel of uint16 .*, not ndarray .0, 8. of uint16"),
        (1, np.full((8, 8), "a"), "takes arrays H×W×C of 1 channel"),
        (1, np.zeros((8, 8), complex), "not ndarray .8, 8. of complex128"),
        (1, np.full((8, 8), np.inf), "NaN or infinite pixels"),
    ],
)
def test_what_a_model_in_memory_does_not_take_is_said(channels, frame, said):
    domain = PICTURES if channels == 3 else Domain(channels=channels, dtype="uint16", high=4095, picture=False)
    options = parse_training([f"--channels={channels}", "--ngf=4", "--ndf=4"])[0]
    translate = PictureTranslator(Translators(options), {"A": domain, "B": domain}, "cpu")
    with pytest.raises(UserError, match=said):
        translate(frame)
    if not domain.picture:
        if channels == 1:
            assert translate(Image.fromarray(np.full((8, 12), 999, np.uint16))).shape == (8, 12)
        result = translate(np.full((8, 12, channels), 999, np.uint16))
        assert result.shape == ((8, 12) if channels == 1 else (8, 12, channels)) and result.dtype == np.uint16


def test_bits_that_do_not_begin_with_the_lowest_are_refused(tmp_path):
    with pytest.raises(BadImage, match="12 bits do not begin with the lowest"):
        read_file(scan(tmp_path / "a.dcm", HighBit=15))


# ---- NIfTI ----


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (4, 2), (0, 0)])
def test_a_translated_volume_lies_where_its_source_does(tmp_path, workplace, run, sform, qform):
    affine = np.array([[-1.0, 0, 0, 90], [0, 1.5, 0, -80], [0, 0, 3, 5], [0, 0, 0, 1]])
    for side in ("trainA", "trainB", "testA"):
        (workplace / "datasets/mr" / side).mkdir(parents=True)
        volume = nibabel.Nifti1Image(np.arange(20 * 24 * 3, dtype=np.int16).reshape(20, 24, 3), affine)
        volume.header.set_xyzt_units("mm", "sec")
        volume.set_sform(affine, sform)
        volume.set_qform(affine, qform)
        nibabel.save(volume, workplace / "datasets/mr" / side / "head.nii.gz")
    assert run("cycle_gan", *TINY, "--dataset_name=mr", "--n_epochs=1", "--range_A", 0, 2000).code == 0
    assert run("test", "--dataset_name=mr", "--direction=AtoB", "--n_cpu=0").code == 0
    source = nibabel.load(workplace / "datasets/mr/testA/head.nii.gz")
    made = nibabel.load(workplace / "results/mr/epoch_1/AtoB/head.nii.gz")
    assert np.allclose(made.affine, source.affine) and made.shape == source.shape
    for name in ("sform_code", "qform_code", "xyzt_units"):
        assert made.header[name] == source.header[name], name
    assert np.allclose(made.header.get_zooms(), source.header.get_zooms())


def test_a_volume_has_its_sources_place_though_that_is_packed_otherwise(tmp_path):
    affine = np.diag([2.0, 3, 4, 1])
    nibabel.save(nibabel.Nifti2Image(np.zeros((2, 3, 4), np.uint8), affine), tmp_path / "a.nii")
    (place, *_) = expand([tmp_path / "a.nii"], PICTURES)
    made = nibabel.Nifti1Image.from_bytes(volume_like(place, np.ones((2, 3, 4), np.float32)))
    assert np.array_equal(made.affine, affine) and made.get_data_dtype() == np.float32


@pytest.mark.parametrize(
    "wrong", [dict(quatern_b=0.8, quatern_c=0.61), dict(xyzt_units=5), dict(srow_x=[np.nan, 0, 0, 0])], ids=str
)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_place_that_a_header_tells_wrongly_is_kept_as_it_is(tmp_path, wrong, kind):
    source = kind(np.zeros((2, 3, 4), np.uint8), np.diag([2.0, 3, 4, 1]))
    source.set_qform(np.diag([2.0, 3, 4, 1]), 1)
    for field, value in wrong.items():
        source.header[field] = value
    (tmp_path / "a.nii").write_bytes(source.to_bytes())
    (place, *_) = expand([tmp_path / "a.nii"], PICTURES)
    header = nibabel.Nifti1Header(volume_like(place, np.ones((2, 3, 4), np.float32))[:348], check=False)
    fields = "pixdim xyzt_units sform_code srow_x srow_y srow_z qform_code qoffset_x qoffset_y qoffset_z"
    for field in (*fields.split(), "quatern_b", "quatern_c", "quatern_d"):
        assert np.array_equal(header[field], source.header[field].astype(header[field].dtype), equal_nan=True), field


def test_a_packed_volume_is_packed_again_whatever_the_case_of_its_name(workplace, run):
    volume = np.random.default_rng(0).integers(0, 99, (16, 20, 2)).astype(np.int16)
    for side in ("trainA", "trainB", "testA"):
        folder = workplace / "datasets/scans" / side
        folder.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "a.nii.gz")
    (folder / "a.nii.gz").rename(folder / "a.NII.GZ")
    assert run("cycle_gan", *TINY, "--dataset_name=scans", "--n_epochs=1").code == 0
    assert run("test", "--dataset_name=scans", "--n_cpu=0", "--direction=AtoB").code == 0
    content = (workplace / "results/scans/epoch_1/AtoB/a.NII.GZ").read_bytes()
    assert nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).shape == volume.shape


def test_two_volumes_that_would_become_one_are_named(workplace, run, refused):
    for side in ("trainA", "trainB", "testA"):
        (workplace / "datasets/mr" / side).mkdir(parents=True)
        for name in ("head.nii", "head.nii.gz"):
            values = np.random.default_rng(0).integers(0, 9999, (20, 24, 3)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), workplace / "datasets/mr" / side / name)
    assert run("cycle_gan", *TINY, "--dataset_name=mr", "--n_epochs=1").code == 0
    line = refused("test", "--dataset_name=mr", "--direction=AtoB", "--n_cpu=0", "--output_format=nii.gz")
    assert "testA/head.nii and" in line and "would both become" in line
    assert run("test", "--dataset_name=mr", "--direction=AtoB", "--n_cpu=0").code == 0


STORED = {  # voxels as they are stored, type of the file, slope and intercept → the type, and what it can hold
    "ct": (np.uint16, 1, -1024, "int32", -1024, 65535 - 1024),
    "small steps": (np.int16, 1 / 32767, 0, "float32", None, None),
    "large steps": (np.uint8, 10, 0, "uint16", 0, 2550),
    "down": (np.int16, -2, 1, "int32", 1 - 2 * 32767, 1 + 2 * 32768),
    "floats": (np.float32, 2, 1, "float32", None, None),
    "none": (np.int16, 1, 0, "int16", None, None),
}


@pytest.mark.parametrize(("stored", "slope", "inter", "dtype", "low", "high"), STORED.values(), ids=STORED)
def test_voxels_have_the_scale_of_their_header(tmp_path, stored, slope, inter, dtype, low, high):
    raw = np.random.default_rng(0).integers(0, 200, (5, 6, 3)).astype(stored)
    raw[0, 0] = np.iinfo(stored).max if np.issubdtype(stored, np.integer) else 7
    image = nibabel.Nifti1Image(raw, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    found, slices = read_file(Place(tmp_path / "a.nii"))
    assert (found.dtype.name, found.count) == (dtype, 3)
    if low is not None or dtype == "int16":
        assert (found.low, found.high) == (low, high)
    expected = slope * raw.astype(np.float64) + inter
    for index, array in enumerate(slices):
        assert array.dtype == dtype
        np.testing.assert_allclose(array[..., 0], np.rot90(expected[:, :, index]), rtol=1e-6)


@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=3)), ids=str)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_slices_do_not_depend_on_how_a_volume_is_stored(tmp_path, order, signs):
    voxels = np.arange(4 * 5 * 6 * 2, dtype=np.int16).reshape(4, 5, 6, 2)
    affine = np.diag([2.0, 3, 4, 1])
    affine[0, 1], affine[1, 0] = 0.3, -0.2  # a head held askew
    upright = nibabel.Nifti1Image(voxels, affine)
    stored = upright.as_reoriented(np.array([order, signs]).T)
    nibabel.save(stored, tmp_path / "a.nii.gz")
    place = Place(tmp_path / "a.nii.gz")
    for axis in range(3):
        _, slices = read_file(place, slice_axis=axis)
        assert len(slices) == voxels.shape[axis]
        for index, array in enumerate(slices):
            assert np.array_equal(array, np.rot90(voxels.take(index, axis)))
    made = nibabel.Nifti1Image.from_bytes(volume_like(place, voxels + 1))
    assert np.array_equal(made.get_fdata(), np.asarray(stored.dataobj) + 1) and np.allclose(made.affine, stored.affine)


def test_a_translation_of_a_volume_lies_as_its_source_however_that_is_stored(workplace, run):
    values = np.random.default_rng(0).integers(0, 2000, (20, 24, 3)).astype(np.int16)
    upright = nibabel.Nifti1Image(values, np.diag([1.0, 1, 3, 1]))
    for side in ("trainA", "trainB", "testA"):
        (workplace / "datasets/mr" / side).mkdir(parents=True)
        nibabel.save(upright, workplace / "datasets/mr" / side / "a.nii")
    nibabel.save(
        upright.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]])), workplace / "datasets/mr/testA/turned.nii.gz"
    )
    assert run("cycle_gan", *TINY, "--dataset_name=mr", "--n_epochs=1", "--range_A", 0, 2000).code == 0
    assert run("test", "--dataset_name=mr", "--direction=AtoB", "--n_cpu=0").code == 0
    folder = workplace / "results/mr/epoch_1/AtoB"
    straight, turned = (nibabel.load(folder / name) for name in ("a.nii", "turned.nii.gz"))
    assert turned.shape == (3, 20, 24) and nibabel.aff2axcodes(turned.affine) == nibabel.aff2axcodes(
        nibabel.load(workplace / "datasets/mr/testA/turned.nii.gz").affine
    )
    assert np.array_equal(nibabel.as_closest_canonical(turned).get_fdata(), straight.get_fdata())


def test_complex_voxels_are_refused_with_a_scale_too(tmp_path):
    image = nibabel.Nifti1Image(np.ones((5, 6, 3), np.complex64), np.eye(4))
    image.header.set_slope_inter(2, 0)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(BadImage, match="not real numbers"):
        read_file(Place(tmp_path / "a.nii"))


# ---- TIFF ----


UNSHOWN = {  # TIFF that is no picture, whatever Pillow makes of it
    "0 is white": (np.uint16, dict(photometric="miniswhite")),
    "32 bits": (np.uint32, {}),
    "32 bits, signed": (np.int32, {}),
    "16 bits, signed": (np.int16, {}),
    "8 bits, signed": (np.int8, {}),
    "12 bits": (np.uint16, dict(bitspersample=12)),
    "floats, 0 is white": (np.float32, dict(photometric="miniswhite")),
}


@pytest.mark.parametrize(("dtype", "tags"), UNSHOWN.values(), ids=UNSHOWN)
def test_numbers_that_would_be_shown_wrongly_are_no_picture(tmp_path, dtype, tags):
    if "bitspersample" in tags:  # older ones read packed integers, but do not write them
        pytest.importorskip("imagecodecs", minversion="2026.3.6")
    path = tmp_path / "a.tif"
    tags = {"photometric": "minisblack"} | tags
    values = (np.arange(20 * 24) % 100).reshape(20, 24).astype(dtype)
    tifffile.imwrite(path, values / 100 if dtype == np.float32 else values, **tags)
    with pytest.raises(BadImage, match="not those of a picture"):
        load_image(path)
    assert not read_file(path)[0].viewable


def test_gray_of_16_bits_can_be_seen_as_a_picture(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 257 * 99, 65535]], np.uint16))
    assert np.asarray(load_image(tmp_path / "a.tif", 1)).tolist() == [[0, 99, 255]]
    assert read_file(tmp_path / "a.tif")[0].viewable


def test_the_gray_that_stands_for_transparent_is_white(tmp_path):
    gray = np.array([[0, 257 * 99, 257 * 7, 65535]], np.uint16)
    Image.fromarray(gray).save(tmp_path / "a.png", transparency=257 * 7)
    assert np.asarray(load_image(tmp_path / "a.png", 1)).tolist() == [[0, 99, 255, 255]]


OTHERS = {  # pages that are no smaller copies of the first
    "narrower": [np.zeros((20, 30), np.uint16), np.zeros((20, 29), np.uint16)],
    "of another type": [np.zeros((20, 30), np.uint16), np.zeros((20, 30), np.float32)],
    "larger": [np.zeros((20, 30), np.uint16), np.zeros((40, 60), np.uint16)],
}


@pytest.mark.parametrize("pages", OTHERS.values(), ids=OTHERS)
def test_no_page_is_left_out(tmp_path, pages):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, photometric="minisblack")
    with pytest.raises(BadImage, match="of several sizes or kinds"):
        read_file(tmp_path / "a.tif")


def test_a_smaller_copy_behind_an_image_is_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for side in (40, 10):
            writer.write(np.full((side, side), side, np.uint16), photometric="minisblack")
    assert read_file(tmp_path / "a.tif")[1][0].max() == 40


def test_numbers_of_a_palette_are_no_pixels(tmp_path):
    first, second = (Image.new("RGB", (20, 24), colour).quantize(4) for colour in ("red", "lime"))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(BadImage, match="numbers of a palette"):
        read_file(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("bands", "extra", "picture"),
    [
        (3, [], True),
        (4, ["unassalpha"], True),
        (4, ["unspecified"], False),
        (5, ["unspecified", "unspecified"], False),
        (5, ["unassalpha", "unspecified"], False),
    ],
)
def test_bands_beside_the_colours_are_kept(tmp_path, bands, extra, picture):
    tifffile.imwrite(tmp_path / "a.tif", BANDS[..., :bands], photometric="rgb", extrasamples=extra)
    found, images = read_file(tmp_path / "a.tif")
    assert found.picture is picture
    if not picture:
        assert np.array_equal(images[0], BANDS[..., :bands])


def test_copies_and_masks_beside_an_image_are_no_pages_of_it(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(BANDS[..., :3], photometric="rgb")
        file.write(BANDS[::2, ::2, :3].copy(), photometric="rgb", subfiletype=1)
    for pages in ("channels", "images"):
        assert read_file(tmp_path / "a.tif", pages=pages)[0].picture
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:  # the smaller copy first
        file.write(NUMBERS[::2, ::2].copy(), metadata=None, subfiletype=1)
        file.write(NUMBERS, metadata=None)
    assert np.array_equal(alone(tmp_path / "b.tif"), NUMBERS)


def test_pages_of_several_sizes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (NUMBERS[:9], NUMBERS, NUMBERS):
            file.write(page, metadata=None)
    for pages in ("channels", "images"):
        with pytest.raises(BadImage, match="its pages are of several sizes or kinds"):
            read_file(tmp_path / "a.tif", pages=pages)


def test_one_file_of_an_ome_tiff_of_several_is_read_alone(tmp_path):
    uuid = "urn:uuid:{}1111111-1111-1111-1111-111111111111".format
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{z}.ome.tif">{uuid(z)}</UUID></TiffData>'
        for z in range(3)
    )
    ome = (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid(0)}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="24" SizeY="20" '
        f'SizeZ="3" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/>{planes}</Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "0.ome.tif", NUMBERS, description=ome, metadata=None)
    for pages in ("channels", "images"):
        found, images = read_file(tmp_path / "0.ome.tif", pages=pages)
        assert (found.channels, found.count) == (1, 1) and np.array_equal(images[0][..., 0], NUMBERS)


def stacked(path, axes, pages, limit=1.0):
    """The images of an OME-TIFF whose axes before Y and X are ``axes``, and what they should be."""
    sizes = dict(T=3, Z=5, C=2)
    values = np.random.default_rng(2).integers(0, 9999, [*(sizes[axis] for axis in axes), 20, 24]).astype(np.uint16)
    tifffile.imwrite(path, values, ome=True, metadata={"axes": f"{axes}YX"}, compression="zlib")
    outer = [i for i, axis in enumerate(axes) if axis != "C"] if pages == "images" else []
    order = outer + [len(axes), len(axes) + 1] + [i for i in range(len(axes)) if i not in outer]
    many = int(np.prod([values.shape[i] for i in outer], dtype=int))
    return read_file(path, pages=pages, limit=limit)[1], values.transpose(order).reshape(many, 20, 24, -1)


@pytest.mark.parametrize("pages", ["channels", "images"])
@pytest.mark.parametrize("axes", ["C", "Z", "ZC", "CZ", "TZ", "TZC", "TCZ", "CTZ"])
def test_a_stack_has_channels_and_images_in_any_order_of_axes(tmp_path, axes, pages):
    images, expected = stacked(tmp_path / "a.ome.tif", axes, pages)
    assert np.array_equal(np.stack(images), expected)


def test_of_a_stack_with_channels_only_the_pages_of_one_image_are_read(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("readers.tiffs.decode", lambda source, plain=decode: read.append(source) or plain(source))
    one = 20 * 24 * 2 * 2 / 2**30  # GiB
    images, expected = stacked(tmp_path / "a.ome.tif", "TZC", "images", limit=one)
    assert np.array_equal(np.stack(images), expected)
    assert len(read) == 30 and {page.shape for page in read} == {(20, 24)}


def test_a_stack_that_is_read_as_a_whole_is_so_only_below_the_limit(tmp_path):
    values = np.random.default_rng(2).integers(0, 9999, (4, 16, 32, 32)).astype(np.uint16)
    ways = dict(volumetric=True, photometric="minisblack", tile=(16, 16, 16), metadata={"axes": "TZYX"})
    tifffile.imwrite(tmp_path / "a.tif", values, **ways)  # whose pages are volumes
    _, images = read_file(tmp_path / "a.tif", pages="images")
    assert np.array_equal(np.stack(images)[..., 0], values.reshape(64, 32, 32))
    with pytest.raises(BadImage, match="for one image all of it is read, 0.000122 GiB, and --decoded_limit is 1e-05"):
        read_file(tmp_path / "a.tif", pages="images", limit=1e-5)


@pytest.mark.parametrize("shape", [(40, 44, 5), (20, 20, 16)])
def test_an_array_whose_rows_became_pages_is_not_taken_for_one_of_many_channels(tmp_path, shape):
    """What tifffile makes of H×W×C where nothing says that the last axis are channels."""
    values = np.random.default_rng(2).integers(0, 9999, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(BadImage, match=rf"its {shape[0]} pages are of {shape[2]}×{shape[1]}.*planarconfig='contig'"):
        read_file(tmp_path / "a.tif")
    _, images = read_file(tmp_path / "a.tif", pages="images")
    assert np.array_equal(np.stack(images)[..., 0], values)
    tifffile.imwrite(tmp_path / "a.tif", values, planarconfig="contig")
    _, (image,) = read_file(tmp_path / "a.tif")
    assert np.array_equal(image, values)


@pytest.mark.parametrize("shape", [(20, 44, 17), (16, 44, 16), (5, 40, 16)])
def test_pages_that_may_well_be_channels_are(tmp_path, shape):
    values = np.random.default_rng(2).integers(0, 9999, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values)
    found, images = read_file(tmp_path / "a.tif")
    assert np.array_equal(np.moveaxis(images[0], -1, 0), values) and found.channels == shape[0]


def test_axes_without_a_name_are_channels_or_images(tmp_path):
    values = np.random.default_rng(2).integers(0, 9999, (3, 5, 20, 24)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values)
    _, (image,) = read_file(tmp_path / "a.tif")
    assert np.array_equal(np.moveaxis(image, -1, 0), values.reshape(15, 20, 24))
    _, images = read_file(tmp_path / "a.tif", pages="images")
    assert np.array_equal(np.stack(images)[..., 0], values.reshape(15, 20, 24))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_by_the_name_of_a_tiff_is_read_as_what_it_is(tmp_path, kind):
    Image.fromarray(BANDS[..., :3]).save(tmp_path / "a.tif", kind)
    assert read_file(tmp_path / "a.tif")[0].picture
    assert load_image(tmp_path / "a.tif").size == (24, 20)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float16", "uint32"])
def test_numbers_keep_their_type(tmp_path, dtype):
    values = (NUMBERS.astype(int) % 200 - 100).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    found, (image,) = read_file(tmp_path / "a.tif")
    assert found.dtype == dtype and np.array_equal(image[..., 0], values)


def test_white_and_up_mean_the_same_in_all_depths(tmp_path):
    eight = (NUMBERS >> 4).astype(np.uint8)
    up = [(274, "H", 1, 6, True)]  # to be turned to the right
    for name, values in {"8": eight, "16": eight * np.uint16(257)}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="miniswhite", extratags=up)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([eight, eight]), photometric="miniswhite", extratags=up)
    as_seen = np.asarray(load_image(tmp_path / "8.tif", 1))
    assert np.array_equal(as_seen, np.rot90(255 - eight, -1))
    assert np.array_equal(alone(tmp_path / "16.tif"), as_seen * np.uint16(257))
    assert np.array_equal(alone(tmp_path / "stack.tif", pages="images"), as_seen)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["picture", "16 bits", "16 bits without tifffile"])
def test_a_turned_tiff_has_the_size_that_its_pixels_have(tmp_path, monkeypatch, kind, orientation):
    values = BANDS[..., :3] if kind == "picture" else NUMBERS
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if kind == "picture" else None, extratags=tags)
    if kind == "16 bits without tifffile":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found, images = read_file(tmp_path / "a.tif")
    seen = turned(values, orientation)
    assert (found.height, found.width) == seen.shape[:2]
    if kind == "picture":
        assert np.array_equal(np.asarray(load_image(tmp_path / "a.tif")), seen)
    else:
        assert np.array_equal(images[0][..., 0], seen)


def test_pages_of_one_bit_are_numbers_from_0_to_1(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([NUMBERS > 99, NUMBERS > 999]), photometric="minisblack")
    found, images = read_file(tmp_path / "a.tif", pages="images")
    assert (found.dtype, found.low, found.high) == (np.uint8, 0, 1)
    assert np.array_equal(images[1][..., 0], NUMBERS > 999)


def test_gdals_number_for_no_data_is_none(tmp_path):
    values = NUMBERS.astype(np.float32)
    values[3] = -9999
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", True)])
    floats = PICTURES._replace(picture=False, channels=1, dtype="float32", high=4095.0)
    with pytest.raises(BadImage, match="NaN or infinite pixels; in training and for two folders, --nan 0 takes"):
        load_pixels(tmp_path / "a.tif", floats)
    values[3] = 0
    assert np.array_equal(load_pixels(tmp_path / "a.tif", floats._replace(nan="0"))[..., 0], values)


@pytest.mark.parametrize(
    ("nodata", "told"), [("", None), ("none", "its tag GDAL_NODATA is 'none', which is no number")]
)
def test_a_number_for_no_data_that_is_none(tmp_path, nodata, told):
    tifffile.imwrite(tmp_path / "a.tif", NUMBERS.astype(np.float32), extratags=[(42113, "s", 0, nodata, True)])
    with pytest.raises(BadImage, match=told) if told else contextlib.nullcontext():
        assert np.array_equal(alone(tmp_path / "a.tif"), NUMBERS)


def test_a_picture_is_the_page_that_is_asked_for(tmp_path):
    pages = [Image.new("L", (8, 8), value) for value in (10, 120, 250)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    places = list(expand([tmp_path / "a.tif"], PICTURES._replace(pages="images")))
    assert [np.asarray(load_image(place, 1)).mean() for place in places] == [10, 120, 250]


# ---- PNG and JPEG 2000; what is no picture ----


@pytest.mark.parametrize(("bits", "sign"), [(8, 0), (12, 0), (15, 0), (16, 0), (16, 1)])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000_keeps_its_bits(tmp_path, bits, sign, codec):
    values = (NUMBERS.astype(int) * 16 >> (16 - bits)) - sign * 2**15
    values = values.astype("i2" if sign else "u1" if bits == 8 else "u2")
    options = dict(level=0, codecformat=codec, reversible=True) | ({} if sign else dict(bitspersample=bits))
    (tmp_path / f"a.{codec}").write_bytes(imagecodecs.jpeg2k_encode(values, **options))
    found, images = read_file(tmp_path / f"a.{codec}")
    if bits == 8:
        assert found.picture and np.array_equal(np.asarray(load_image(tmp_path / f"a.{codec}", 1)), values)
    else:
        assert np.array_equal(images[0][..., 0], values)
        ends = -(2**15) * sign, 2 ** (bits - sign) - 1
        assert (found.low, found.high) in (ends, (None, None))


@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_of_another_kind_may_be_called_jpeg_2000(tmp_path, suffix, kind):
    Image.new("RGB", (9, 7), (200, 0, 0)).save(tmp_path / f"a.{suffix}", kind)
    found, _ = read_file(tmp_path / f"a.{suffix}")
    assert found.picture and load_image(tmp_path / f"a.{suffix}", 3).size == (9, 7)


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint16), (5, np.uint8)])
def test_jpeg_2000_of_many_bits_or_bands_keeps_them(tmp_path, channels, dtype):
    values = BANDS[..., :channels].astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="jp2", reversible=True))
    found, (image,) = read_file(tmp_path / "a.jp2")
    assert found.dtype == dtype and np.array_equal(image, values)


@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
def test_a_second_band_of_jpeg_2000_is_what_it_is_called(tmp_path, suffix):
    path, values = tmp_path / f"a.{suffix}", BANDS[..., :2]
    Image.fromarray(values, "LA").save(path, "JPEG2000", no_jp2=suffix == "j2k")
    found, images = read_file(path)
    assert found.picture is (suffix == "jp2") and (found.picture or np.array_equal(images[0], values))


@pytest.mark.parametrize("kind", ["infrared", "transparency", "ink"])
@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
def test_a_fourth_band_of_jpeg_2000_is_what_it_is_called(tmp_path, suffix, kind):
    """A bare codestream has no boxes, and calls nothing by a name."""
    path, values = tmp_path / f"a.{suffix}", BANDS[..., :4]
    if kind == "infrared":
        path.write_bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat=suffix, reversible=True))
    else:
        image = Image.fromarray(values, "RGBA" if kind == "transparency" else "CMYK")
        image.save(path, "JPEG2000", no_jp2=suffix == "j2k")
    found, images = read_file(path)
    assert found.picture is (kind != "infrared" and suffix == "jp2")
    assert found.picture or found.channels == 4 and np.array_equal(images[0], values)


@pytest.mark.parametrize("where", ["exif", "xmp", "behind the pixels"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("values", [NUMBERS, BANDS[..., :3] * np.uint16(257)], ids=["gray", "colour"])
def test_where_a_png_of_16_bits_is_up(tmp_path, where, orientation, values):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[274] = orientation
    note = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'
    chunk = b"iTXtXML:com.adobe.xmp" + bytes(5) + note.encode() if where == "xmp" else b"eXIf" + exif.tobytes()[6:]
    content = imagecodecs.png_encode(values)
    at = len(content) - 12 if where == "behind the pixels" else 33  # in front of the end, or behind the header
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:at] + whole + content[at:])
    if where == "behind the pixels" and orientation == 6:
        with pytest.raises(BadImage, match="its header says 24×20, and its pixels are something else"):
            channels = 1 if values.ndim == 2 else 3
            load_pixels(path, Domain(channels=channels, dtype="uint16", high=65535.0, picture=False))
        return
    found, images = read_file(path)
    seen = turned(values, orientation)
    assert (found.height, found.width) == seen.shape[:2] and np.array_equal(images[0].reshape(seen.shape), seen)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_16_bits_has_its_own_channels(tmp_path, channels):
    values = BANDS[..., :channels].astype(np.uint16) * np.uint16(257)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values))
    assert np.array_equal(read_file(tmp_path / "a.png")[1][0], values)


def test_what_is_no_picture_is_said(tmp_path):
    np.save(tmp_path / "a.npy", BANDS)
    with pytest.raises(BadImage, match="it is no 8-bit picture"):
        load_image(tmp_path / "a.npy")
    tifffile.imwrite(tmp_path / "b.tif", NUMBERS.astype(np.float32))
    with pytest.raises(BadImage, match="its floats are not between 0 and 1"):
        load_image(tmp_path / "b.tif")


# ---- precision ----


def test_images_of_more_than_8_bits_are_translated_in_float32(workplace, run):
    """In bf16 there are 8 bits between two powers of 2."""
    for number, side in enumerate(("trainA", "trainB", "testA")):
        (workplace / "datasets/deep" / side).mkdir(parents=True)
        values = np.random.default_rng(number).random((96, 96)).astype(np.float32)
        np.save(workplace / "datasets/deep" / side / "a.npy", values)
    spans = "--range_A", 0, 1, "--range_B", 0, 1
    assert run("cycle_gan", *TINY, "--dataset_name=deep", "--n_epochs=1", "--amp=bf16", *spans).code == 0
    distinct = {}
    for amp in ("trained", "bf16"):
        assert run("test", "--dataset_name=deep", "--direction=AtoB", "--n_cpu=0", f"--amp={amp}").code == 0
        translation = np.load(workplace / "results/deep/epoch_1/AtoB/a.npy")
        assert translation.shape == (96, 96)
        distinct[amp] = len(np.unique(translation))
    assert distinct["trained"] > 3 * distinct["bf16"]


# ---- pictures of 16 bits, and a machine at its end ----


def test_every_gray_of_16_bits_has_its_8_bits():
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(np.asarray(eight_bits(Image.fromarray(values))), np.rint(values / 257).astype(np.uint8))


def test_the_limit_counts_the_bytes_of_16_bits(tmp_path):
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "a.png")
    size = 64 * 64 * 2 / 2**30
    load_image(tmp_path / "a.png", limit=size)
    with pytest.raises(BadImage, match="decoded_limit"):
        load_image(tmp_path / "a.png", limit=0.99 * size)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")], ids=repr)
def test_what_the_machine_lacks_is_no_fault_of_the_file(error):
    expected = pytest.raises(UserError, match="a.png cannot be read now .*; try a smaller --n_cpu")
    with expected as raised, reading("a.png"):
        raise error
    assert not isinstance(raised.value, BadImage)
