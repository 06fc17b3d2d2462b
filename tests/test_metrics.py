"""Known distances, evaluate.py on tiny folders, evaluations while training, scalars."""

import errno
import json
import math
import os
import shutil
import signal
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, equal, make_dataset, noise_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets import unpadded
from options import parse_evaluation, parse_training
from readers.domains import PICTURES, to_pixels, to_unit
from reporting import metrics, monitor, pages
from reporting.loss_log import NotFinite
from reporting.metrics import Best, pair_distances, set_distances
from reporting.scalars import Curve
from reporting.statistics import Measure
from runtime import checkpoints
from runtime.errors import UserError
from translators import load_translators

LITE = "--features=efficientnet_lite0"


def gaussian(n, shift=0.0, seed=0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.double) + shift


# ---- the numbers ----


def test_a_set_is_at_no_distance_from_itself_and_a_shift_is_its_square():
    features = gaussian(500)
    numbers = set_distances(features, features)
    assert numbers["FID"] == pytest.approx(0, abs=1e-6)
    assert numbers["precision"] == numbers["recall"] == 1
    shifted = set_distances(features + 2, features)  # FID between Gaussians of one covariance: |shift|²
    assert shifted["FID"] == pytest.approx(6 * 2**2, rel=1e-6)
    assert shifted["KID"] > 10 * shifted["KID error"] > 0


def test_precision_is_of_the_translations_and_recall_of_the_real_images():
    """Translations in one of two heaps are all right, and half of what there is is missing."""
    heaps = torch.cat([gaussian(60), gaussian(60, shift=99.0, seed=1)])
    numbers = set_distances(gaussian(60, seed=2), heaps)
    assert numbers["precision"] > 0.9 and 0.3 < numbers["recall"] < 0.55


def test_the_error_of_kid_is_its_spread_over_new_samples():
    """KID of 60 independent pairs of samples, without a distance: mean 0, deviation as the error says."""
    numbers = [set_distances(gaussian(40, seed=2 * i), gaussian(40, seed=2 * i + 1)) for i in range(60)]
    values = torch.tensor([number["KID"] for number in numbers])
    error = torch.tensor([number["KID error"] for number in numbers]).mean()
    assert abs(values.mean()) < 4 * values.std() / 60**0.5
    assert 0.5 < values.std() / error < 2


def test_too_few_images_are_not_measured():
    assert all(number != number for number in set_distances(gaussian(3), gaussian(100)).values())


def test_distances_to_the_truth_in_closed_form():
    truth = torch.randint(0, 200, (2, 3, 32, 32), dtype=torch.uint8)
    truth = truth / 255
    same, off = pair_distances(truth, truth), pair_distances(truth + 0.2, truth)
    assert same["L1"].tolist() == [0, 0] and same["SSIM"].tolist() == pytest.approx([1, 1])
    assert off["L1"].tolist() == pytest.approx([0.2, 0.2])
    assert off["PSNR"].tolist() == pytest.approx([13.9794] * 2, rel=1e-5)  # −20 log₁₀ 0.2
    assert off["SSIM"].max() < 1
    small = pair_distances(truth[..., :5, :], truth[..., :5, :])  # less than half of SSIM's window
    assert small["L1"].tolist() == [0, 0] and small["SSIM"].isnan().all()
    assert pair_distances(truth[..., :6, :], truth[..., :6, :])["SSIM"].tolist() == pytest.approx([1, 1])


def test_the_features_of_efficientnet_see_images_and_not_their_size():
    network = metrics.build_features("efficientnet_lite0", "cpu")
    small, large, other = (
        network(torch.full((1, 3, side, side), value, dtype=torch.uint8))
        for side, value in ((64, 90), (100, 90), (64, 180))
    )
    assert small.shape == (1, network.width)
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)
    assert (small - other).norm() > 1


def test_images_that_cannot_be_read_are_no_part_of_it_either(workplace, run, refused):
    """With --skip_bad_images; not as the truth of another one either."""
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    for side in "AB":
        for i in range(3, 6):
            noise_image(i).save(f"datasets/tiny/test{side}/{i}.png")
    Path("datasets/tiny/testB/2.png").write_bytes(b"no picture")
    assert "add --skip_bad_images" in refused("evaluate", "--dataset_name=tiny", LITE)
    result = run("evaluate", "--dataset_name=tiny", LITE, "--skip_bad_images")
    assert result.code == 0 and "they cannot be read: datasets/tiny/testB/2.png\n" in result.out, result.err
    report = json.loads(Path("results/tiny/epoch_1/metrics.json").read_text())
    assert report["images"] == {"A": 6, "B": 5} and "SSIM" in report["numbers"]["AtoB"]
    Path("datasets/tiny/testA/9.png").write_bytes(b"no picture")  # without a namesake
    result = run("evaluate", "--dataset_name=tiny", LITE, "--skip_bad_images")
    assert "5 of 6 have one of their size" in result.out and "SSIM" in result.out
    noise_image(7).save("datasets/tiny/testA/7.png")  # readable, and without a namesake
    result = run("evaluate", "--dataset_name=tiny", LITE, "--skip_bad_images")
    assert "5 of 7 are in both" in result.out and "SSIM" not in result.out.split("No L1")[0]
    Path("bad").mkdir()
    for i in range(4):
        Path(f"bad/{i}.png").write_bytes(b"no picture")
    line = refused("evaluate", "--real=datasets/tiny/testA", "--fake=bad", LITE, "--skip_bad_images")
    assert "not one of the 4 images in bad can be read" in line


def test_padding_is_no_part_of_what_is_measured(tmp_path):
    """71 and 72 rows are both 72 with their padding, and must not share a batch."""
    for i, height in enumerate((71, 72, 71, 70, 72)):
        noise_image(i, height, 72).save(tmp_path / f"{i}.png")
    options = Namespace(batch_size=8, skip_bad_images=False)
    folder = metrics.Folder(tmp_path, options, multiple=4)
    heights = {}
    for batch in folder.batches():
        for index, image in zip(batch["index"].tolist(), unpadded(batch, batch["image"]), strict=True):
            assert torch.equal(to_unit(image, folder.domain), folder.whole(index))
            heights[index] = image.shape[1]
    assert heights == {0: 71, 1: 72, 2: 71, 3: 70, 4: 72}


def test_features_see_images_enlarged_without_ringing_and_in_the_scale_of_their_training():
    network, seen = metrics.build_features("efficientnet_lite0", "cpu"), []
    network.network.extract_features = lambda x: (seen.append(x), torch.zeros(len(x), network.width, 7, 7))[1]
    stripes = (torch.arange(896) + 1) // 2 % 2 * 255  # of two pixels, about each of the 224 places
    network(stripes.expand(1, 3, 896, -1).byte())
    assert (seen[-1] - 0.5 / 128)[..., 2:-2].abs().max() < 0.1
    edge = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)
    edge[..., 50:] = 255
    network(edge)
    assert seen[-1].min().item() == -127 / 128 and seen[-1].max().item() == 1
    for value in (0, 127, 255):
        network(torch.full((1, 3, 64, 64), value, dtype=torch.uint8))
        torch.testing.assert_close(seen[-1], torch.full((1, 3, 224, 224), (value - 127) / 128), rtol=0, atol=1e-3)


class Means(torch.nn.Module):
    """Features: the mean of each channel."""

    width = 3

    def forward(self, images):
        return images.float().mean((2, 3))


class Copies:
    """Generators that copy, and on the way back add an eighth of the range."""

    multiple = min_size = 1

    def cycle(self, side, x):
        return None, x, x + 0.25


@pytest.fixture
def evaluation(tmp_path, monkeypatch):
    """``evaluation(domain_B, save)``: four images in A, and the same in B by ``save(image, path without suffix)``.
    By their names those of B come in another order; one is smaller than the window of SSIM."""

    def build(domain_B, save):
        monkeypatch.setattr(metrics, "build_features", lambda name, device: Means())
        for side in "AB":
            (tmp_path / side).mkdir()
        for i, name in enumerate(("a", "a.q", "b", "c")):
            image = Image.fromarray(np.asarray(noise_image(i, *((5, 5) if name == "c" else (16, 16)))) // 2)
            image.save(tmp_path / "A" / f"{name}.png")
            save(image, tmp_path / "B" / name)
        folders, domains = {side: tmp_path / side for side in "AB"}, {"A": PICTURES, "B": domain_B}
        options = Namespace(features="none", batch_size=2, skip_bad_images=False)
        return metrics.Evaluation(folders, options, torch.device("cpu"), Copies(), "off", domains)

    return build


def test_each_translation_is_compared_with_its_namesake_and_small_ones_have_no_ssim(evaluation):
    suffixes = {"a": ".tif", "a.q": ".png", "b": ".png", "c": ".png"}
    measure = evaluation(PICTURES, lambda image, path: image.save(f"{path}{suffixes[path.name]}"))
    assert measure.truths["B"].places == [1, 0, 2, 3]
    for numbers in measure(Copies()).values():
        assert numbers["L1"] == 0 and numbers["PSNR"] == 100 and numbers["SSIM"] == pytest.approx(1)
    assert measure.compared == {"AtoB": 4, "BtoA": 4}


def test_a_model_is_measured_as_the_files_that_it_writes_are(evaluation, tmp_path):
    """Of whole numbers, whose fractions a file cannot hold."""
    whole = PICTURES._replace(picture=False, dtype="int16", low=-1000.0, high=2000.0, suffix=".npy", channels=3)
    measure = evaluation(whole, lambda image, path: np.save(f"{path}.npy", np.int16(image) * 8 - 1000))
    fainter = Namespace(cycle=lambda side, x: (None, 0.701 * x, x), multiple=1, min_size=1)  # none of 255 grey values
    of_model = measure(fainter, ["AtoB"])["AtoB"]
    (tmp_path / "files").mkdir()
    for batch in measure.folders["A"].batches():
        for place, array in zip(batch["index"], to_pixels(0.701 * unpadded(batch, batch["image"]), whole), strict=True):
            np.save(tmp_path / "files" / f"{measure.folders['A'].names[place].stem}.npy", array)
    files = metrics.Folder(tmp_path / "files", measure.folders["A"].options, whole)
    of_files = metrics.describe(files, Means(), "cpu").distances(measure.real["B"])
    of_files |= metrics.mean_of(list(metrics.Truths(files, measure.folders["B"]).of_copies()))
    assert of_files.keys() == of_model.keys() - {"cycle L1"} and of_files["L1"] > 0
    for name, value in of_files.items():
        assert of_model[name] == pytest.approx(value, rel=1e-6, nan_ok=True), name


def test_the_cycle_is_measured_where_it_began(evaluation):
    """In whole numbers of 255 from A, and in any from B, whose range is another one."""
    floats = PICTURES._replace(picture=False, dtype="float32", low=-1.0, high=3.0, suffix=".npy")
    measure = evaluation(floats, lambda image, path: np.save(f"{path}.npy", np.float32(image) / 255 * 4 - 1))
    numbers = measure(Copies())
    assert numbers["AtoB"]["cycle L1"] == pytest.approx(32 / 255, abs=1e-6)  # 31.875 of them
    assert numbers["BtoA"]["cycle L1"] == pytest.approx(1 / 8, abs=1e-6)


# ---- evaluate.py ----


def test_a_model_is_measured_in_both_directions(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    for side in "AB":  # four images are the fewest that are measured
        shutil.copy(f"datasets/tiny/test{side}/0.png", f"datasets/tiny/test{side}/3.png")
    result = run("evaluate", "--dataset_name=tiny", LITE)
    assert result.code == 0, result.err
    for shown in ("AtoB", "BtoA", "features: efficientnet_lite0", "KID", "±", "With 4 images", "SSIM"):
        assert shown in result.out
    report = json.loads((workplace / "results/tiny/epoch_1/metrics.json").read_text())
    assert report["images"] == {"A": 4, "B": 4} and report["features"] == "efficientnet_lite0"
    assert report["numbers"].keys() == {"AtoB", "BtoA"} and report["compared"] == {"AtoB": 4, "BtoA": 4}
    assert report["ranges"] == {"side A": [0, 255], "side B": [0, 255]}
    named = "FID", "KID", "KID error", "precision", "recall", "SWD", "sharpness 1", "cycle L1", "L1", "PSNR", "SSIM"
    assert set(named) == report["numbers"]["AtoB"].keys()
    before = report["untranslated"]
    assert "A as it is" in result.out and before["A"]["FID"] > 0
    assert before["A"]["FID"] == pytest.approx(before["B"]["FID"]) and before["A"]["SSIM"] == before["B"]["SSIM"] < 1
    shutil.move("datasets/tiny/testB/0.png", "datasets/tiny/testB/other.png")
    one = run("evaluate", "--checkpoint=saved_models/tiny/epoch_1.pth", "--dataset_name=tiny", LITE, "--direction=BtoA",
              "--json=here.json")  # fmt: skip
    assert one.code == 0, one.err
    told = json.loads((workplace / "here.json").read_text())
    numbers = told["numbers"]
    assert told["untranslated"].keys() == {"B"}
    assert numbers.keys() == {"BtoA"} and "SSIM" not in numbers["BtoA"]  # names differ: there is no truth
    missing = "they want the same names in both folders, and 3 of 4 are in both; 0 is not."
    assert missing in one.out and missing not in result.out
    assert numbers["BtoA"]["FID"] == pytest.approx(report["numbers"]["BtoA"]["FID"], rel=1e-3)
    both = Path("results/tiny/epoch_1/metrics.json").read_bytes()
    assert run("evaluate", "--dataset_name=tiny", LITE, "--direction=AtoB").code == 0
    alone = json.loads(Path("results/tiny/epoch_1/metrics_AtoB.json").read_text())
    assert alone["numbers"].keys() == {"AtoB"} and Path("results/tiny/epoch_1/metrics.json").read_bytes() == both


def test_what_is_not_translated_is_as_far_as_copies_of_it(workplace, run):
    """By generators that give back their images."""
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    for side in "AB":
        shutil.copy(f"datasets/tiny/test{side}/0.png", f"datasets/tiny/test{side}/3.png")
    state = checkpoints.load(workplace / "saved_models/tiny", "latest")[1]
    translators = load_translators(state, torch.device("cpu"))
    translators.G_AB = translators.G_BA = torch.nn.Identity()
    folders = {side: f"datasets/tiny/test{side}" for side in "AB"}
    options = parse_evaluation([LITE])
    evaluation = metrics.Evaluation(
        folders, options, torch.device("cpu"), translators, "off", dict.fromkeys("AB", PICTURES)
    )
    copies, untranslated = evaluation(translators), evaluation.untranslated()
    for side, direction in (("A", "AtoB"), ("B", "BtoA")):
        for name, value in untranslated[side].items():
            assert copies[direction][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_two_folders_are_measured_without_a_model(workplace, run, refused):
    for side in "AB":
        shutil.copy(f"datasets/tiny/test{side}/0.png", f"datasets/tiny/test{side}/3.png")
    result = run("evaluate", "--real=datasets/tiny/testA", "--fake=datasets/tiny/testA", LITE)
    assert result.code == 0, result.err
    report = json.loads((workplace / "results/metrics.json").read_text())
    numbers = report["numbers"]["fake"]
    assert numbers["FID"] == pytest.approx(0, abs=1e-3)
    assert numbers["L1"] == 0 and numbers["PSNR"] == 100 and numbers["SSIM"] == pytest.approx(1)
    assert "whose critics look through efficientnet_lite0 (--backbone), take other --features" in result.out
    assert "fake: L1, PSNR and SSIM take images of the same name for each other's truth; 4 of 4 have" in result.out
    other = "evaluate", "--real=datasets/tiny/testA", "--fake=datasets/tiny/testB", LITE, "--results_dir=b"
    assert run(*other).code == 0
    numbers = json.loads((workplace / "b/metrics.json").read_text())["numbers"]["fake"]
    pairs = [[np.asarray(Image.open(f"datasets/tiny/test{side}/{n}.png")) / 255 for side in "AB"] for n in range(4)]
    assert numbers["L1"] == pytest.approx(np.mean([np.abs(fake - real).mean() for fake, real in pairs]), rel=1e-5)
    shutil.move("datasets/tiny/testB/0.png", "datasets/tiny/testB/other.png")
    assert "and 3 of 4 are in both; 0 is not." in run(*other).out
    shutil.copy("datasets/tiny/testB/other.png", "datasets/tiny/testB/0.png")
    shutil.move("datasets/tiny/testB/other.png", "datasets/tiny/testB/0.tif")
    assert "and 4 of 5 are in both; one of them has a name twice." in run(*other).out
    assert "SSIM" not in json.loads((workplace / "b/metrics.json").read_text())["numbers"]["fake"]
    tiny = LITE, "--dataset_name=tiny"
    assert "--checkpoint nothing does not exist" in refused("evaluate", "--checkpoint=nothing", *tiny)
    assert "--checkpoint datasets is a folder; name a file in it" in refused("evaluate", "--checkpoint=datasets", *tiny)
    assert "name the data set by --dataset_name" in refused("evaluate", "--checkpoint=datasets", LITE)
    assert "--fake nowhere is no folder" in refused("evaluate", "--real=datasets/tiny/testA", "--fake=nowhere", LITE)
    for flags in (["--checkpoint_dir=x"], ["--name=x"]):
        assert "--checkpoint has done so; leave it out" in refused(
            "evaluate", "--checkpoint=nothing", "--dataset_name=y", LITE, *flags
        )


def test_folders_of_other_numbers_are_no_translations(workplace, run, refused):
    """What would be clipped without a word, or taken for something else."""
    draw = np.random.default_rng(0)
    for name, scale, dtype in (("real", 4000, np.uint16), ("floats", 1, np.float32), ("bright", 40000, np.uint16)):
        Path(name).mkdir()
        for number in range(4):
            np.save(f"{name}/{number}.npy", (scale * (0.5 + draw.random((32, 32)) / 2)).astype(dtype))
    line = refused("evaluate", "--real=real", "--fake=floats", LITE)
    assert "has 1 channel of float32, and real images are 1 channel of uint16 (.npy)" in line
    assert line.endswith("; name the --range that both have")
    line = refused("evaluate", "--real=real", "--fake=datasets/tiny/testA", LITE, "--range", "0", "4095")
    assert "3 channels of an 8-bit picture, and real images are 1 channel of uint16 (.npy), range 0 to 4095" in line
    assert line.endswith("; take files of one kind, and of as many channels")
    result = run("evaluate", "--real=real", "--fake=bright", LITE, "--range", "0", "4095")
    assert "4096 of 4096 values in bright lay outside of 0 to 4095, and were clipped" in result.out
    said = "both folders: 1 channel of uint16 (.npy), range 0 to 4095; L1, PSNR and SSIM are over all channels and rel"
    assert said in result.out
    assert run("evaluate", "--real=real", "--fake=floats", LITE, "--range", "0", "4095", "--overwrite").code == 0
    folders = "--real=datasets/tiny/testA", "--fake=datasets/tiny/testA"
    for number in range(3, 5):
        Image.fromarray(np.full((32, 32), 9000, np.uint16)).save(f"datasets/tiny/testA/{number}.png")
    result = run("evaluate", *folders, LITE, "--nan=0", "--slice_axis=1", "--overwrite")
    assert "translations: 2 of 5 images have more than 8 bits, and are read with 8 as the others" in result.out
    for flag in ("--nan", "--slice_axis"):
        assert f"{flag} does nothing here" in result.out


def test_translations_that_are_not_finite_have_no_numbers(workplace, run, refused):
    """Also where there is neither a way back nor a truth, and nothing but pictures is compared."""
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    for side in "AB":
        shutil.copy(f"datasets/tiny/test{side}/0.png", f"datasets/tiny/test{side}/3{side}.png")
    state = checkpoints.load(workplace / "saved_models/tiny", "latest")[1]
    translators = load_translators(state, torch.device("cpu"))
    translators.G_AB, translators.G_BA = torch.nn.Identity(), None
    folders, domains = {side: f"datasets/tiny/test{side}" for side in "AB"}, dict.fromkeys("AB", PICTURES)
    options = parse_evaluation([LITE])
    evaluation = metrics.Evaluation(folders, options, torch.device("cpu"), translators, "off", domains)
    assert evaluation(translators, ["AtoB"])["AtoB"]["KID"] > -1
    translators.G_AB.forward = lambda x: x * math.nan
    with pytest.raises(UserError, match="not finite"):
        evaluation(translators, ["AtoB"])


def test_how_images_come_in_batches_changes_no_number():
    """Of unlike sizes, too, which come in another order then."""
    draw = torch.Generator().manual_seed(0)
    sizes = (32 + 16 * (i % 2) for i in range(8))
    pictures = [torch.randint(0, 256, (1, 3, size, size), generator=draw).to(torch.uint8) for size in sizes]

    def description(batches):
        found = metrics.Description(lambda x: x.float().mean((2, 3)), "cpu")
        for batch in batches:
            found.add(torch.cat([pictures[place] for place in batch]), torch.tensor(batch))
        return found

    one_by_one = description([[place] for place in range(8)])
    together = description([[0, 2, 4, 6], [1, 3], [5, 7]])
    assert one_by_one.distances(together) == together.distances(one_by_one)
    assert one_by_one.distances(together)["SWD"] == 0


def test_names_are_those_of_any_format():
    stems = [metrics.without_suffix(Path(name)) for name in ("a/1.nii.gz", "a/1.npy", "p.nii.gz/000", "p.NII/000")]
    assert stems == [Path("a/1"), Path("a/1"), Path("p/000"), Path("p/000")]
    assert metrics.namesakes([Path("0.npy"), Path("1.npy")], [Path("1.nii.gz"), Path("0.nii.gz")]) == [1, 0]


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trapped"),)


def test_weights_that_a_library_reads_run_no_code(workplace, refused, monkeypatch):
    """torch-fidelity takes Inception's from torch's cache, and trusts them."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    monkeypatch.setenv("TORCH_HOME", str(workplace / "home"))
    place = workplace / "home/hub/checkpoints" / inception.URL_INCEPTION_V3.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save({"fc.weight": Trap()}, place)
    assert "or are damaged" in refused("evaluate", "--real=datasets/tiny/testA", "--fake=datasets/tiny/testB")
    assert not Path("trapped").exists()
    torch.load(place, weights_only=False)
    assert Path("trapped").exists()  # and so it would have been


def test_weights_that_came_damaged_end_in_one_line(monkeypatch):
    def extractor(*arguments):
        raise KeyError("filename 'storages' not found")

    monkeypatch.setattr(metrics, "library", lambda name: Namespace(FeatureExtractorInceptionV3=extractor))
    with pytest.raises(
        UserError, match="cannot be fetched, or are damaged .*storages.*; remove those in .*checkpoints"
    ):
        metrics.Inception()


def test_full_memory_is_one_line(workplace, monkeypatch, refused):
    def full(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(metrics, "describe", full)
    folders = "--real=datasets/tiny/testA", "--fake=datasets/tiny/testA"
    assert "ran out of memory; take a smaller --batch_size" in refused("evaluate", *folders, LITE)
    assert "smaller copies of both folders" in refused("evaluate", *folders, LITE, "--batch_size=1")
    monkeypatch.setattr(checkpoints, "load", full)
    assert "test.py --tile 512" in refused("evaluate", "--dataset_name=tiny", LITE, "--batch_size=1")


def test_folders_of_which_a_file_is_bad_are_measured_without_it(workplace, run, refused):
    random = np.random.default_rng(0)
    for side in ("real", "fake"):
        (workplace / side).mkdir()
        for number in range(5):
            Image.fromarray(random.integers(0, 60000, (32, 32), np.uint16)).save(workplace / side / f"{number}.png")
    bad = workplace / "real/2.png"
    bad.write_bytes(bad.read_bytes()[:900])
    flags = ["evaluate", "--real=real", "--fake=fake", LITE]
    assert "real/2.png is not a readable image" in refused(*flags)
    assert run(*flags, "--skip_bad_images").code == 0
    for side in ("real", "fake"):
        for number in range(5):
            (workplace / side / f"{number}.png").unlink()
            np.save(workplace / side / f"{number}.npy", np.zeros((32, 32), np.float32))
    assert "which is no range; give one by --range" in refused(*flags)
    assert "--range_real" not in refused(*flags)


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["a.png", "b.png"], ["b.png", "a.png"], [1, 0]),
        (["a.png", "b.jpg"], ["b.png", "a.tif"], [1, 0]),  # by their stems
        (["0.jpg", "0.png", "1.jpg"], ["0.png", "1.jpg", "0.jpg"], [1, 2, 0]),  # two of one stem
        (["0.jpg", "0.png"], ["0.tif", "0.npy"], None),  # and nobody knows which is which
        (["0.jpg", "0.png"], ["0.jpg"], None),
        (["a.png"], ["b.png"], None),
        (["x/a.png", "a.png"], ["a.png", "x/a.png"], [1, 0]),
    ],
)
def test_the_truth_of_a_translation_is_its_namesake_and_no_other(names, others, expected):
    assert metrics.namesakes([Path(name) for name in names], [Path(name) for name in others]) == expected


def test_what_cannot_be_read_needs_no_namesake():
    names, others = [Path("a.png"), Path("b.png"), Path("bad.png")], [Path("b.tif"), Path("worse.tif"), Path("a.tif")]
    assert metrics.namesakes(names, others, [Path("bad.png"), Path("worse.tif")]) == [1, None, 0]
    assert metrics.namesakes(names, others, [Path("bad.png")]) is None
    assert metrics.namesakes(names, others, [Path("bad.png"), Path("worse.tif"), Path("a.png")]) == [1, None, None]


def test_numbers_go_to_a_file(workplace, refused):
    sides = "--real=datasets/tiny/testA", "--fake=datasets/tiny/testB"
    line = refused("evaluate", LITE, *sides, "--json=.", "--overwrite")
    assert "--json . is a folder; name a file in it" in line


# ---- while training ----


class Scripted:
    """An Evaluation that yields these KIDs, one after another; instead of a number it may be a signal, that arrives."""

    def __init__(self, *kids):
        self.kids, self.folders = iter(kids), {}

    def __call__(self, translators):
        kid = next(self.kids)
        if isinstance(kid, Exception):
            raise kid
        if isinstance(kid, signal.Signals):
            os.kill(os.getpid(), kid)
            time.sleep(60)  # what is measured takes long
        return {direction: {"KID": kid, "KID error": 0.01} for direction in ("AtoB", "BtoA")}


def scripted(monkeypatch, *kids):
    monkeypatch.setattr(metrics, "FEWEST", 3)
    monkeypatch.setattr(metrics, "Evaluation", lambda *arguments: Scripted(*kids))


EVERY = [*TINY, "--eval_interval=1", "--sample_interval=0"]


def test_the_best_checkpoint_is_kept_and_translates(workplace, run, monkeypatch, refused):
    scripted(monkeypatch, 0.5, 0.2, 0.3)
    result = run("cycle_gan", *EVERY, "--n_epochs=3", "--keep=9")
    assert result.code == 0 and result.out.count("the best so far") == 2
    assert "cycle=" in result.err.split("\r")[-1]  # the bar's last words, behind an evaluation
    best, second = (checkpoints.load("saved_models/tiny", epoch)[1] for epoch in ("best", 2))
    assert best["epoch"] == 2 and best["metrics"]["AtoB"]["KID"] == 0.2
    assert equal(best["generators"], second["generators"])
    assert run("test", "--dataset_name=tiny", "--epoch=best", "--n_cpu=0").code == 0
    assert (workplace / "results/tiny/best/AtoB/0.png").exists()
    assert "keeps only the generators" in refused("cycle_gan", "--dataset_name=tiny", "--epoch=best", "--n_epochs=9")
    for path in (workplace / "saved_models" / "tiny").glob("epoch_*.pth"):
        path.unlink()  # as before the first of them is due
    assert run("test", "--dataset_name=tiny", "--epoch=best", "--n_cpu=0").code == 0
    line = refused("test", "--dataset_name=tiny", "--epoch=latest")
    assert "saved_models/tiny holds the best checkpoint alone so far; take --epoch best" in line


@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
def test_the_default_recipe_is_measured_in_each_precision(workplace, run, amp):
    make_dataset(workplace / "datasets" / "four", count=4)
    result = run("cycle_gan", *EVERY, LITE, "--dataset_name=four", "--n_epochs=1", f"--amp={amp}")
    assert result.code == 0, result.err
    assert np.isfinite(list(checkpoints.load("saved_models/four", "best")[1]["metrics"]["AtoB"].values())).all()


def test_the_best_by_other_features_is_none(workplace, run, monkeypatch):
    scripted(monkeypatch, 0.1, 0.2)
    flags = "--n_epochs=9", "--patience=1", "--features=efficientnet_lite1"
    assert "stopped early" in run("cycle_gan", *EVERY, *flags).out
    scripted(monkeypatch, 0.3)
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=3", LITE)
    assert result.code == 0 and "the best so far" in result.out
    assert "were of efficientnet_lite1: from here on, of efficientnet_lite0, they do not compare" in result.err
    assert "best.pth, chosen by other --features, is now in saved_models/tiny.1" in result.out
    assert checkpoints.load("saved_models/tiny", "latest")[1]["best"]["score"] == 0.3
    assert checkpoints.load("saved_models/tiny.1", "best")[1]["metrics"]["AtoB"]["KID"] == 0.1


def test_a_best_alone_that_is_later_is_called_later(workplace, run, monkeypatch):
    """As a crash between two checkpoints leaves it."""
    scripted(monkeypatch, 0.3, 0.1, 0.2)
    assert run("cycle_gan", *EVERY, "--n_epochs=2").code == 0
    Path("saved_models/tiny/epoch_2.pth").unlink()
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest")
    assert "what was saved after saved_models/tiny/epoch_1.pth is now in saved_models/tiny.1" in result.out
    assert checkpoints.load("saved_models/tiny.1", "best")[1]["epoch"] == 2


def test_patience_stops_early_and_survives_a_resume(workplace, run, monkeypatch):
    scripted(monkeypatch, 0.2, 0.3)
    assert run("cycle_gan", *EVERY, "--n_epochs=2", "--patience=2").code == 0
    scripted(monkeypatch, 0.25, 0.1)
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=9", "--decay_epoch=1")
    assert result.code == 0 and "stopped early: 2 evaluations in a row" in result.out
    state = checkpoints.load("saved_models/tiny", "latest")[1]
    assert state["epoch"] == 3 and state["best"] == {"score": 0.2, "waited": 2}
    again = run("cycle_gan", *EVERY, "--n_epochs=9", "--patience=2", "--epoch=auto")  # as a queue sends it again
    assert again.code == 0 and "raise --patience above that to go on" in again.out
    assert checkpoints.load("saved_models/tiny", "latest")[1]["epoch"] == 3
    assert checkpoints.load("saved_models/tiny", "best")[1]["epoch"] == 1


@pytest.mark.parametrize("epochs", [2, 3])  # it is the last one, or not
def test_a_signal_breaks_off_an_evaluation_which_comes_first_when_the_run_goes_on(workplace, run, monkeypatch, epochs):
    scripted(monkeypatch, 0.2, signal.SIGTERM)
    result = run("cycle_gan", *EVERY, f"--n_epochs={epochs}")
    assert result.code == 128 + signal.SIGTERM
    assert "epoch 2: the evaluation is broken off; it comes first when the run goes on" in result.out
    state = checkpoints.load("saved_models/tiny", "latest")[1]
    assert (state["epoch"], state["best"]) == (2, {"score": 0.2, "waited": 0}) and state["unmeasured"]
    steps = state["steps"]
    scripted(monkeypatch, signal.SIGTERM)  # once more
    again = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest")
    state = checkpoints.load("saved_models/tiny", "latest")[1]
    assert again.code == 128 + signal.SIGTERM and state["unmeasured"] and state["steps"] == steps
    scripted(monkeypatch, 0.1, 0.3)
    if epochs == 2:
        measured = run("cycle_gan", "--dataset_name=tiny", "--epoch=auto")
        assert measured.code == 0 and checkpoints.load("saved_models/tiny", "best")[1]["epoch"] == 2
        scripted(monkeypatch, 0.3)
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=3").code == 0
    after = checkpoints.load("saved_models/tiny", "latest")[1]
    assert after["best"] == {"score": 0.1, "waited": 1} and not after["unmeasured"]
    rows = [json.loads(line) for line in Path("images/tiny/scalars.jsonl").read_text().splitlines()]
    measured = [(row["epoch"], row["KID AtoB"]) for row in rows if "KID AtoB" in row]
    assert measured == [(1, 0.2), (2, 0.1), (3, 0.3)]
    assert checkpoints.load("saved_models/tiny", "best")[1]["steps"] == steps


def test_a_run_of_so_many_minutes_is_measured_at_its_end(workplace, run, monkeypatch, ticking):
    """Once, of the very state that it ends with; and if that is broken off, nothing is trained before it is made up
    for."""
    scripted(monkeypatch, signal.SIGTERM)
    flags = [*TINY, "--minutes=1", "--eval_interval=100000", "--sample_interval=0"]
    result = run("cycle_gan", *flags)
    assert result.code == 128 + signal.SIGTERM and "to go on: " in result.out
    ended = checkpoints.load("saved_models/tiny", "latest")[1]
    assert ended["unmeasured"] and ended["seconds"] >= 60
    scripted(monkeypatch, 0.1)
    again = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest")
    assert again.code == 0 and again.out.count("the best so far") == 1, again.err
    latest, best = (checkpoints.load("saved_models/tiny", epoch)[1] for epoch in ("latest", "best"))
    assert latest["steps"] == best["steps"] == ended["steps"] and not latest["unmeasured"]
    scripted(monkeypatch, *[0.2] * 1000)
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--minutes=2", "--eval_interval=1").code == 0
    rows = [json.loads(line) for line in Path("images/tiny/scalars.jsonl").read_text().splitlines()]
    measured = [row["step"] for row in rows if "KID AtoB" in row]
    last = checkpoints.load("saved_models/tiny", "latest")[1]["steps"]
    assert len(set(measured)) == len(measured) > 2 and measured[-1] == last > latest["steps"]


def test_a_run_with_minutes_that_its_epochs_end_is_measured_at_its_end(workplace, run, monkeypatch):
    scripted(monkeypatch, 0.1)
    flags = [*TINY, "--minutes=1000", "--n_epochs=1", "--eval_interval=100000", "--sample_interval=0"]
    result = run("cycle_gan", *flags)
    assert result.code == 0 and result.out.count("the best so far") == 1, result.err
    ended = checkpoints.load("saved_models/tiny", "latest")[1]
    assert not ended["unmeasured"] and ended["best"]["score"] == pytest.approx(0.1)


def test_a_run_at_its_end_has_not_stopped_early(workplace, run, monkeypatch):
    scripted(monkeypatch, 0.2, 0.3)
    result = run("cycle_gan", *EVERY, "--n_epochs=2", "--patience=1")
    assert result.code == 0 and "stopped early" not in result.out


def test_what_so_many_minutes_made_is_saved_before_it_is_measured(workplace, run, monkeypatch, ticking):
    """And where it is not finite, no older state takes its place."""
    scripted(monkeypatch, torch.OutOfMemoryError("full"))
    flags = [*TINY, "--minutes=1", "--eval_interval=100000", "--sample_interval=0"]
    assert run("cycle_gan", *flags).code == 2
    ended = checkpoints.load("saved_models/tiny", "latest", resume=True)[1]
    assert ended["unmeasured"] and ended["seconds"] >= 60

    plain = monitor.Monitor.show

    def show(self, run):
        if run.spent >= 1:
            raise NotFinite("G is nan")
        plain(self, run)

    monkeypatch.setattr(monitor.Monitor, "show", show)
    result = run("cycle_gan", *flags, "--on_nan=rollback")
    assert result.code == 2 and "G is nan" in result.err and "Going back" not in result.err


def test_too_few_test_images_are_refused_at_the_start(workplace, refused):
    assert "--eval_interval needs at least 4 images in datasets/tiny/testA" in refused("cycle_gan", *EVERY, LITE)


def test_the_best_by_the_mean_of_both_directions():
    best, numbers = Best(), [{"AtoB": {"KID": a}, "BtoA": {"KID": b}} for a, b in ((0.3, 0.1), (0.15, 0.3), (0.1, 0.1))]
    assert best.improved_by(numbers[0], lambda: True)
    assert not best.improved_by(numbers[1], lambda: True)
    assert not best.improved_by({"AtoB": {"KID": float("nan")}, "BtoA": {"KID": 0.0}}, lambda: True)
    assert (best.score, best.waited) == (pytest.approx(0.2), 2)
    assert best.improved_by(numbers[2], lambda: False)
    assert (best.score, best.waited) == (pytest.approx(0.2), 0)


def test_the_best_that_the_disk_refused_gives_way_to_a_worse_one_that_it_takes(workplace, run, monkeypatch):
    scripted(monkeypatch, 0.5, 0.1, 0.3)
    write, refused = checkpoints.write, []

    def once_full(path, state):
        if path.name == "best.pth" and state["epoch"] == 2 and not refused:
            refused.append(path)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, state)

    monkeypatch.setattr(checkpoints, "write", once_full)
    result = run("cycle_gan", *EVERY, "--n_epochs=3")
    assert result.code == 0 and refused and "no checkpoint at step" in result.err
    assert checkpoints.load("saved_models/tiny", "best")[1]["epoch"] == 3


def test_evaluations_without_test_images_are_refused_by_the_flag_that_wants_them(workplace, refused):
    shutil.rmtree("datasets/tiny/testA")
    line = refused("cycle_gan", *EVERY, LITE)
    assert "--eval_interval needs at least 4 images in datasets/tiny/testA" in line


def test_test_images_of_which_too_few_can_be_read_are_refused_at_the_start(workplace, refused):
    for number in (3, 4):
        shutil.copy("datasets/tiny/testB/0.png", f"datasets/tiny/testB/{number}.png")
        (workplace / f"datasets/tiny/testA/{number}.png").write_bytes(b"no picture")
    line = refused("cycle_gan", *EVERY, LITE, "--skip_bad_images")
    assert "--eval_interval needs at least 4 images in datasets/tiny/testA" in line


# ---- scalars ----


def lines():
    with open("images/tiny/scalars.jsonl") as file:
        return [json.loads(line) for line in file]


def test_scalars_are_json_lines_and_a_resumed_run_goes_on_with_them(workplace, run, monkeypatch):
    scripted(monkeypatch, 0.5, 0.4)
    assert run("cycle_gan", *EVERY, "--n_epochs=2", "--no_tensorboard").code == 0
    names = {name for line in lines() for name in line}
    assert {"G", "D", "penalty", "score real", "score fake", "gradient of G_AB", "gradient of D_B"} <= names
    assert {"learning rate", "gamma of G_AB.attention", "images/s", "KID AtoB", "epoch"} <= names
    rates = [line["learning rate"] for line in lines() if "learning rate" in line]
    assert set(rates) == {2e-4} and not (workplace / "images/tiny/tensorboard").exists()
    before = lines()
    (workplace / "saved_models/tiny/epoch_2.pth").unlink()
    scripted(monkeypatch, 0.3)
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest").code == 0
    after = lines()
    assert [line for line in after if line["step"] <= 3] == [line for line in before if line["step"] <= 3]
    assert [line["KID AtoB"] for line in after if "KID AtoB" in line] == [0.5, 0.3]


def test_a_run_whose_name_is_in_no_encoding_does_without_tensorboard(workplace, run):
    (workplace / "datasets/tiny").rename(workplace / "datasets/t\udcff")
    result = run("cycle_gan", *TINY, "--dataset_name=t\udcff", "--n_epochs=1", "--tensorboard")
    assert result.code == 0 and "TensorBoard cannot write to" in result.err


def test_tensorboard_gets_the_same_and_the_grids(workplace, run):
    from tensorboard.backend.event_processing import event_accumulator as events

    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    accumulator = events.EventAccumulator("images/tiny/tensorboard").Reload()
    assert {"G", "learning/rate", "score/real"} <= set(accumulator.Tags()["scalars"])
    assert accumulator.Tags()["images"] == ["samples"]


@given(st.integers(0, 3000), st.lists(st.integers(0, 3000)))
def test_a_curve_is_thinned_evenly_and_passes_over_what_is_no_number(length, holes):
    numbers = [math.nan if step in holes else step / 7 for step in range(length)]
    curve = Curve()
    for step, number in enumerate(numbers):
        curve.add(step, number)
    finite = [[step, number] for step, number in enumerate(numbers) if math.isfinite(number)]
    assert len(curve.points) <= Curve.MOST
    assert curve.points[-1:] == finite[-1:]
    assert curve.points[:-1] in [finite[:-1][:: 2**k] for k in range(5)]


def test_the_rate_is_that_of_this_start_and_of_all_processes(monkeypatch):
    shown = dict(rate=None, n=110, initial=100, elapsed=5)
    assert monitor.rate(Namespace(format_dict=shown)) == 2
    assert monitor.rate(Namespace(format_dict={**shown, "rate": 7.0})) == 7
    moved = []
    bar = Namespace(update=moved.append, set_description_str=lambda *_, **__: None)
    monkeypatch.setattr(monitor.distributed, "WORLD", 4)
    monkeypatch.setattr(monitor, "place", lambda run: "")
    silent = Namespace(after=lambda run: "", after_step=lambda: "")
    one = Namespace(skipped=set(), bar=bar, forecast=silent, contention=silent)
    monitor.Monitor.count(one, None, {"skipped": [], "A": torch.zeros(3, 1)})
    assert moved == [12]


def test_images_for_grids_are_read_where_grids_are_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(monitor.distributed, "is_main", lambda: False)
    options = parse_training(["--no_tensorboard", "--sample_interval=1"])[0]
    dataset = Namespace(domains=dict.fromkeys("AB", PICTURES), paths_A=[], paths_B=[])
    one = monitor.Monitor(tmp_path, options, torch.device("cpu"), None, tmp_path / "nowhere", dataset)
    assert one.grid_due(Namespace(steps=1))
    one.save_grid(None)  # does nothing
    assert not list(tmp_path.iterdir())


def test_what_a_run_wrote_at_a_step_is_not_after_it(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=2").code == 0
    written = Namespace(folder=Path("images/tiny"))
    last = max(*(row["step"] for row in lines()), *pages.grids_in(written.folder))
    assert monitor.Monitor.has_later(written, last - 1) and not monitor.Monitor.has_later(written, last)


def test_no_measure_draws_what_another_one_would_draw(monkeypatch):
    """Else a measure that is added changes the numbers of those behind it."""

    def distances():
        sets = [metrics.Description(lambda x: x.float().mean((2, 3)), "cpu") for _ in range(2)]
        for seed, one in enumerate(sets):
            generator = torch.Generator().manual_seed(seed)
            for places in torch.arange(8).split(4):
                one.add(torch.randint(0, 256, (4, 3, 32, 32), generator=generator).to(torch.uint8), places)
        return sets[0].distances(sets[1])

    before = distances()
    draws = Measure(lambda images, draw: [torch.rand(len(images), generator=draw)], lambda fake, real: {"drawn": 0.0})
    monkeypatch.setattr(metrics, "MEASURES", {"drawn": draws, **metrics.MEASURES})
    assert distances() == before | {"drawn": 0.0}
