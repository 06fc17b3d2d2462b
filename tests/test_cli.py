"""The command line as a user runs it: train, resume, translate, and every kind of bad input."""

import errno
import itertools
import json
import math
import os
import re
import shutil
import weakref
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, equal, make_dataset, noise_image, run_process, run_python, without_compiler
from PIL import Image

import datasets
import options
import resuming
import trainer
from options import parse_training
from readers.pictures import load_image
from registry import CRITICS, RECIPES, Network
from reporting.metrics import Best
from reporting.monitor import Monitor
from reporting.texts import USUAL_FOLDERS, command
from runtime import checkpoints
from runtime.device import pick_amp
from runtime.errors import UserError, exit_cleanly
from trainer import CycleGAN


def checkpoint(workplace, epoch, folder="saved_models"):
    return checkpoints.load(workplace / folder / "tiny", epoch)[1]


def saved_epochs(workplace):
    return [name.epoch for name in checkpoints.listed(workplace / "saved_models" / "tiny")]


# ---- training ----


@pytest.mark.parametrize(
    "flags",
    [
        ["--amp=off"],
        ["--amp=bf16"],
        ["--amp=fp16"],
        ["--amp=bf16", "--recipe=notebook", "--img_height=32", "--img_width=32"],
        ["--gan_mode=lsgan", "--batch_size=2"],
        ["--n_critic=2", "--no_attention"],
    ],
)
def test_two_epochs_straight_equal_one_and_one_resumed_to_the_last_bit(workplace, run, flags):
    schedule = ["--decay_epoch=1"]
    assert run("cycle_gan", *TINY, *flags, *schedule, "--n_epochs=2", "--checkpoint_dir=straight").code == 0
    assert run("cycle_gan", *TINY, *flags, *schedule, "--n_epochs=1").code == 0
    resumed = run("cycle_gan", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--n_cpu=0")
    assert resumed.code == 0 and "resuming after epoch 1" in resumed.out
    straight, stopped = checkpoint(workplace, 2, "straight"), checkpoint(workplace, 2)
    for part in ("epoch", "steps", "generators", "training"):
        assert equal(straight[part], stopped[part]), part
    assert not equal(checkpoint(workplace, 1)["generators"], stopped["generators"])


def test_resuming_on_another_kind_of_processor_goes_on_and_says_so(workplace, run, monkeypatch):
    """Precision is that of the processor at hand, unless it was given."""
    for kind, precision in (({"amx_bf16": True}, "bf16"), ({}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda kind=kind: {"cpu_name": "Chip", **kind})
        epoch = len(saved_epochs(workplace)) if (workplace / "saved_models").exists() else 0
        flags = ["--dataset_name=tiny", "--epoch=latest"] if epoch else TINY
        result = run("cycle_gan", *flags, f"--n_epochs={epoch + 1}")
        assert result.code == 0, result.err
        why = "for which it has" if precision == "bf16" else "since no fast"
        assert f"on cpu in {precision}, {why} instructions" in result.out
        assert ("no longer equal to the last bit" in result.err) == bool(epoch)
    assert re.search(r"computed on cpu \(Chip, \w+\) in bf16, now on cpu \(Chip, \w+\) in float32", result.err)
    again = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=3")
    assert again.code == 0 and "last bit" not in again.err
    slow = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=4", "--amp=bf16")
    assert slow.code == 0 and "on cpu in bf16, for which no fast instructions are known here" in slow.out


def test_grids_and_checkpoints_have_their_names_and_sizes(workplace, run):
    result = run("cycle_gan", *TINY, "--n_epochs=2")
    assert result.code == 0, result.err
    assert "3 A, 3 B" in result.out and "images/tiny/" in result.out
    assert sorted(path.name for path in (workplace / "images" / "tiny").glob("*.png")) == ["2.png", "4.png", "6.png"]
    with Image.open(workplace / "images" / "tiny" / "4.png") as grid:
        assert grid.size == (6 * (20 + 2) + 2, 3 * (16 + 2) + 2)
        first = np.asarray(grid)
    with Image.open(workplace / "images" / "tiny" / "6.png") as grid:
        second = np.asarray(grid)
    real = slice(2, 22), slice(68, 88)  # columns of the real A and the real B
    assert all((first[:, columns] == second[:, columns]).all() for columns in real)
    assert (first != second).any()
    assert saved_epochs(workplace) == [1, 2]
    saved = checkpoint(workplace, 2)
    assert saved["options"]["ngf"] == 4 and saved["steps"] == 6


def test_the_bar_shows_epoch_losses_and_speed(workplace):
    result = run_process("cycle_gan.py", *TINY, "--n_epochs=1", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert re.search(r"epoch 1/1: 100%.*3/3.*img/s", result.stderr)


def test_translation_imports_no_compiler(workplace, run):
    """Torch's takes a second or two to import: as long as everything else at the start."""
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    code = f"import sys; sys.path[0] = {str(ROOT)!r}; import test; test.main(); print(*sys.modules)"
    result = run_python("-c", code, "--dataset_name=tiny", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert "3 translations are in" in result.stdout and "torch._dynamo" not in result.stdout.split()


def test_starting_anew_overwrites_nothing(workplace, run):
    for _ in range(2):
        assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    assert (workplace / "saved_models" / "tiny.1" / "epoch_1.pth").exists()
    assert (workplace / "images" / "tiny.1" / "2.png").exists()


def test_resuming_the_latest_takes_every_option_from_the_checkpoint(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--lambda_cyc=3", "--no_spectral_norm").code == 0
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=2", "--lr=0.001").code == 0
    saved = checkpoint(workplace, 2)["options"]
    assert (saved["lambda_cyc"], saved["spectral_norm"], saved["lr"]) == (3, False, 0.001)
    assert "is trained to epoch 2" in refused("cycle_gan", "--dataset_name=tiny", "--epoch=latest")
    line = refused("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--minutes=1")
    assert line.endswith("raise --n_epochs above it to go on, which ends a run as --minutes does")
    line = refused("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=3", "--ngf=8")
    assert "--ngf 8 contradicts the checkpoint, which was trained with --ngf 4" in line


def test_what_was_saved_after_the_epoch_that_a_run_goes_on_from_is_set_aside(workplace, run):
    """It is of another course: the latest is what is written now."""
    assert run("cycle_gan", *TINY, "--n_epochs=3").code == 0
    abandoned = checkpoint(workplace, 3)
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--lr=0.001")
    assert result.code == 0 and "is now in saved_models/tiny.1" in result.out
    assert saved_epochs(workplace) == [1, 2]
    aside = workplace / "saved_models" / "tiny.1"
    assert sorted(path.name for path in aside.iterdir()) == ["epoch_2.pth", "epoch_3.pth"]
    assert equal(checkpoints.load_file(aside / "epoch_3.pth"), abandoned)
    assert {path.stem for path in (workplace / "images/tiny.1").glob("*.png")} == {"4", "6", "8", "9"}
    curves = [json.loads(line) for line in (workplace / "images/tiny.1/scalars.jsonl").read_text().splitlines()]
    assert curves[-1]["step"] == 9
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=3").code == 0
    assert not (workplace / "saved_models" / "tiny.2").exists()


def test_grids_and_curves_alone_are_set_aside_where_the_course_is_another(workplace, run):
    """As a crash leaves them, or a stop at a value that is not finite."""
    assert run("cycle_gan", *TINY, "--n_epochs=3").code == 0
    for epoch in (2, 3):
        (workplace / f"saved_models/tiny/epoch_{epoch}.pth").unlink()
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest").code == 0  # the same once more
    assert not (workplace / "images/tiny.1").exists() and saved_epochs(workplace) == [1, 2, 3]
    for epoch in (2, 3):
        (workplace / f"saved_models/tiny/epoch_{epoch}.pth").unlink()
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=2", "--lr=0.001")
    assert "what was saved after saved_models/tiny/epoch_1.pth is now in images/tiny.1" in result.out
    assert not (workplace / "saved_models/tiny.1").exists()
    assert {path.stem for path in (workplace / "images/tiny.1").glob("*.png")} == {"4", "6", "8", "9"}
    curves = [json.loads(line) for line in (workplace / "images/tiny.1/scalars.jsonl").read_text().splitlines()]
    assert curves[-1]["step"] == 9


def test_a_course_is_set_aside_where_images_and_checkpoints_share_a_folder(workplace, run):
    one = "--images_dir=out", "--checkpoint_dir=out"
    assert run("cycle_gan", *TINY, *one, "--n_epochs=2").code == 0
    assert run("cycle_gan", *TINY, *one, "--n_epochs=2", "--epoch=1").code == 0
    names = {path.name for path in (workplace / "out/tiny.1").iterdir()}
    assert {"epoch_2.pth", "4.png", "6.png", "scalars.jsonl"} <= names
    assert [name.epoch for name in checkpoints.listed(workplace / "out/tiny")] == [1, 2]


def test_the_best_of_another_course_is_set_aside_with_it(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=3").code == 0
    folder = workplace / "saved_models/tiny"
    best = checkpoints.load_file(folder / "epoch_1.pth")
    for epoch, too in ((3, True), (2, False), (1, False)):
        checkpoints.write(folder / "best.pth", {**best, "epoch": epoch})
        later = checkpoints.later_than(folder, {"epoch": 2, "sample": 0})
        assert [path.name for path in later] == ["epoch_3.pth"] + ["best.pth"] * too
    checkpoints.write(folder / "best.pth", {**best, "epoch": 3})
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=2", "--n_epochs=2", "--lr=0.1")
    assert "is trained to epoch 2" in result.err  # and nothing has moved
    (workplace / "images/tiny.1").mkdir()
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=2", "--n_epochs=3").code == 0
    assert sorted(os.listdir(workplace / "saved_models/tiny.2")) == ["best.pth", "epoch_3.pth"]
    assert (workplace / "images/tiny.2/scalars.jsonl").exists()  # the same number
    assert not (folder / "best.pth").exists()


def test_a_new_course_has_a_best_of_its_own(tmp_path):
    monitor = object.__new__(Monitor)
    monitor.folder, monitor.best = tmp_path / "run", Best()
    monitor.folder.mkdir()
    (monitor.folder / "8.png").touch(), (monitor.folder / "4.png").touch()
    monitor.best.score, monitor.best.waited = 0.1, 3
    monitor.set_later_aside(4, tmp_path / "run.1", best_too=False)
    assert monitor.best.score == 0.1 and os.listdir(tmp_path / "run") == ["4.png"]
    monitor.set_later_aside(4, tmp_path / "run.2", best_too=True)
    assert monitor.best.score == math.inf and monitor.best.waited == 0


def test_a_printed_command_names_the_folders_that_are_elsewhere():
    usual = parse_training([])[0]
    assert {name: getattr(usual, name) for name in USUAL_FOLDERS} == USUAL_FOLDERS
    assert command("cycle_gan.py", usual) == "python cycle_gan.py --dataset_name monet2photo"
    flags = ["--dataset_dir=/my data", "--checkpoint_dir=kept", "--images_dir=out"]
    options = parse_training(["--dataset_name=any", *flags])[0]
    given = "--dataset_name any --dataset_dir '/my data' --checkpoint_dir kept"
    assert command("cycle_gan.py", options) == f"python cycle_gan.py {given} --images_dir out"
    assert command("test.py", options) == f"python test.py {given}"


def test_what_a_recipe_says_of_options_that_follow_from_others_holds_on_resume(workplace, run, monkeypatch):
    recipe = dict(RECIPES["lsgan"], penalty="r1", decay_epoch=1)
    monkeypatch.setitem(RECIPES, "lsgan", recipe)
    assert run("cycle_gan", *TINY, "--recipe=lsgan", "--n_epochs=2", "--dis_net=attention").code == 0
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=2", "--n_epochs=3", "--n_cpu=0").code == 0
    options = checkpoint(workplace, 3)["options"]
    assert (options["penalty"], options["decay_epoch"], options["n_epochs"]) == ("r1", 1, 3)


def test_an_option_of_another_revision_is_not_dropped_in_silence(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    path = workplace / "saved_models/tiny/epoch_1.pth"
    state = checkpoints.load_file(path)
    checkpoints.write(path, {**state, "options": {**state["options"], "lambda_edges": 5.0}})
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--n_cpu=0")
    assert result.code == 0 and "trained with --lambda_edges 5.0, which this revision" in result.err
    assert "revision" not in run("cycle_gan", "--dataset_name=tiny", "--epoch=2", "--n_epochs=3", "--n_cpu=0").err


def test_a_misspelt_flag_of_a_recipe_is_refused(monkeypatch):
    monkeypatch.setitem(RECIPES, "lsgan", dict(RECIPES["lsgan"], lambda_cycl=5.0))
    with pytest.raises(UserError, match="the recipe lsgan sets lambda_cycl, which is no flag; did you mean lambda_cyc"):
        parse_training(["--recipe=lsgan"])


def test_without_grids_the_test_folders_are_not_read(workplace, run):
    (workplace / "datasets/tiny/testA/bad.png").write_bytes(b"no picture")
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 2
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--sample_interval=0").code == 0


class Weighty(dict):
    """A dict that can be watched going."""


def test_a_checkpoint_is_not_kept_in_memory_while_a_run_goes_on_from_it(workplace, run, monkeypatch):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    load, watched = checkpoints.load, []

    def watching(*arguments, **keywords):
        path, state = load(*arguments, **keywords)
        watched.append(weakref.ref(whole := Weighty(state)))
        return path, whole

    monkeypatch.setattr(checkpoints, "load", watching)
    alive, updates = [], CycleGAN.updates
    monkeypatch.setattr(
        CycleGAN, "updates", lambda self, step: alive.append(watched[0]() is not None) or updates(self, step)
    )
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--n_cpu=0").code == 0
    assert alive and not any(alive)


def test_a_printed_command_can_be_pasted_where_a_name_begins_with_a_dash():
    options = parse_training(["--dataset_name=any", "--name=-x", "--images_dir=-out"])[0]
    assert command("cycle_gan.py", options) == "python cycle_gan.py --dataset_name any --name=-x --images_dir=-out"


@pytest.mark.parametrize(("given", "expected"), [([], (0.4, 0.999)), (["--b1=0.9", "--b2=0.99"], (0.9, 0.99))])
def test_adams_betas_are_those_given_on_resume_or_else_the_checkpoints(workplace, run, given, expected):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--b1=0.4").code == 0
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=2", *given).code == 0
    training = checkpoint(workplace, 2)["training"]
    groups = training["optimizer_G"]["param_groups"] + training["optimizer_D"]["param_groups"]
    assert {tuple(group["betas"]) for group in groups} == {expected}


def test_a_set_without_test_folders_trains_and_says_what_the_grids_show(workplace, run):
    make_dataset(workplace / "datasets" / "two", sides=("trainA", "trainB"))
    result = run("cycle_gan", *TINY, "--dataset_name=two", "--n_epochs=1", "--channels=1")
    assert result.code == 0 and "sample grids show training images" in result.out
    assert run("test", "--dataset_name=two", "--input=datasets/two/trainA", "--output=out", "--n_cpu=0").code == 0
    assert Image.open(workplace / "out" / "0.png").mode == "L"


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1), (4, 1), (5, 1), (6, 0.8), (9, 0.2)])
def test_the_learning_rate_falls_linearly_to_zero(run, epoch, expected):
    from utils import lr_factor

    assert lr_factor(epoch, n_epochs=10, decay_epoch=5) == pytest.approx(expected)
    assert lr_factor(epoch, n_epochs=10, decay_epoch=10) == 1
    assert lr_factor(epoch, n_epochs=10, decay_epoch=100) == 1


def test_a_resumed_run_says_how_its_learning_rate_changes(workplace, run):
    def resumed(*flags):
        result = run("cycle_gan", "--dataset_name=tiny", "--epoch=4", "--checkpoint_interval=0", *flags)
        assert result.code == 0, result.err
        (workplace / "saved_models/tiny/epoch_6.pth").unlink()
        return [line for line in result.out.splitlines() if "learning rate" in line]

    assert run("cycle_gan", *TINY, "--n_epochs=4").code == 0
    was = "the learning rate goes from 0.0001 (falling after epoch 2 to 0 at 4)"
    assert resumed("--n_epochs=6") == [
        f"schedule    {was} to 0.000133 (falling after epoch 3 to 0 at 6); to keep 0.0001: --lr 0.0001 --decay_epoch 6"
    ]
    assert resumed("--n_epochs=6", "--lr=0.0001", "--decay_epoch=6") == [f"schedule    {was} to 0.0001 (constant)"]
    assert run("cycle_gan", *TINY, "--n_epochs=4", "--decay_epoch=9").code == 0
    assert resumed("--n_epochs=6") == []  # constant as before


# ---- translation ----


@pytest.fixture
def trained(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    return workplace


def test_test_folders_are_translated_under_the_inputs_names_and_sizes(trained, run):
    noise_image(5, 21, 9).convert("L").save(trained / "datasets" / "tiny" / "testA" / "odd.jpg")
    (trained / "datasets" / "tiny" / "testA" / "deep").mkdir()
    noise_image(6, 1, 3).save(trained / "datasets" / "tiny" / "testA" / "deep" / "small.webp")
    result = run("test", "--dataset_name=tiny", "--n_cpu=0", "--batch_size=2")
    assert result.code == 0, result.err
    for direction, side in (("AtoB", "testA"), ("BtoA", "testB")):
        source, target = trained / "datasets" / "tiny" / side, trained / "results" / "tiny" / "epoch_1" / direction
        names = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file())
        assert names == sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
        for name in names:
            assert load_image(target / name).size == load_image(source / name).size


def test_translations_of_what_is_gone_since_go_and_others_stay(trained, run):
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 0
    results = trained / "results/tiny/epoch_1"
    (results / "AtoB" / "mine.txt").write_text("a note")
    (trained / "datasets/tiny/testA/1.png").unlink()
    result = run("test", "--dataset_name=tiny", "--n_cpu=0", "--output_format=jpg", "--direction=AtoB")
    assert result.code == 0 and "3 files of earlier translations, which were not made anew, are removed" in result.out
    assert sorted(os.listdir(results / "AtoB")) == ["0.jpg", "2.jpg", "mine.txt"]
    assert sorted(os.listdir(results / "BtoA")) == ["0.png", "1.png", "2.png"]  # of the other direction
    shutil.move(results / "AtoB", trained / "elsewhere")
    (results / "AtoB").symlink_to(trained / "elsewhere")
    for kind in ("png", "jpg", "png"):  # what lies elsewhere is not removed, and stays this program's
        assert run("test", "--dataset_name=tiny", "--n_cpu=0", f"--output_format={kind}").code == 0


def test_the_earlier_translation_of_what_cannot_be_read_now_goes(trained, run):
    flags = "test", "--dataset_name=tiny", "--n_cpu=0", "--direction=AtoB"
    assert "earlier translations" not in run(*flags).out
    (trained / "datasets/tiny/testA/1.png").write_bytes(b"no picture")
    assert "1 file of earlier translations" in run(*flags, "--skip_bad_images").out
    assert sorted(os.listdir(trained / "results/tiny/epoch_1/AtoB")) == ["0.png", "2.png"]


def test_the_page_lists_no_translation_that_is_removed(trained, run):
    flags = "test", "--dataset_name=tiny", "--n_cpu=0"
    assert run(*flags).code == 0
    for path in (trained / "datasets/tiny/testB").iterdir():
        path.unlink()
    assert "3 files of earlier translations" in run(*flags).out
    shown = (trained / "results/tiny/epoch_1/data.js").read_text()
    assert "AtoB/0.png" in shown and "BtoA/" not in shown


def test_numbers_of_an_earlier_model_are_named(trained, run):
    flags = "test", "--dataset_name=tiny", "--n_cpu=0"
    assert run(*flags).code == 0
    for name in ("metrics.json", "metrics_AtoB.json"):
        (trained / "results/tiny/epoch_1" / name).write_text("{}")
    assert "earlier model" not in run(*flags).out
    os.utime(trained / "results/tiny/epoch_1/metrics_AtoB.json", (0, 0))
    assert "holds numbers of an earlier model (metrics_AtoB.json); measure this one by evaluate.py" in run(*flags).out


def test_an_image_that_keeps_its_format_keeps_its_name(trained, run):
    (trained / "few").mkdir()
    for name in ("a.gif", "a.png"):
        noise_image(ord(name[-1]), 12, 16).save(trained / "few" / name)
    assert run("test", "--dataset_name=tiny", "--n_cpu=0", "--input=few", "--output=out", "--direction=AtoB").code == 0
    names = [place.name for place in (trained / "out").iterdir() if place.name.startswith("a.")]
    assert sorted(names) == ["a.gif.png", "a.png"]


def test_what_cannot_be_read_at_all_is_no_success(trained, refused):
    (trained / "bad").mkdir()
    (trained / "bad" / "0.png").write_text("no image")
    line = refused("test", "--dataset_name=tiny", "--input=bad", "--output=out", "--skip_bad_images", "--n_cpu=0")
    assert "not one of the 1 images in bad can be read" in line


def test_one_test_folder_is_enough(trained, run, refused):
    (trained / "datasets" / "tiny" / "testB").rename(trained / "aside")
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 0
    assert [path.name for path in (trained / "results" / "tiny" / "epoch_1").iterdir() if path.is_dir()] == ["AtoB"]
    assert "testB is missing" in refused("test", "--dataset_name=tiny", "--direction=BtoA")
    (trained / "datasets" / "tiny" / "testA").rename(trained / "aside_too")
    assert "testA is missing" in refused("test", "--dataset_name=tiny")
    (trained / "saved_models/tiny").rename(trained / "saved_models/horse2zebra")  # whose images could be fetched
    for script in ("test", "evaluate"):
        line = refused(script, "--dataset_name=horse2zebra")
        assert "datasets/horse2zebra is missing; cycle_gan.py fetches it" in line
    line = refused("cycle_gan", "--dataset_name=topo2relief", "--dataset_dir=my sets")
    assert "build it: python datasets/earth.py topo2relief --root 'my sets'" in line


def test_a_translation_is_that_of_the_averaged_generator(trained, run):
    from argparse import Namespace

    from datasets import to_tensor
    from translators import Translators

    noise_image(3, 16, 20).save(trained / "one.png")
    flags = ["--dataset_name=tiny", "--input=one.png", "--output=out", "--direction=BtoA", "--amp=off"]
    assert run("test", *flags).code == 0
    saved = checkpoint(trained, 1)
    translators = Translators(Namespace(**saved["options"])).eval()
    translators.load_state_dict(saved["generators"])
    expected = (translators.G_BA(to_tensor(noise_image(3, 16, 20))[None])[0].detach() + 1) * 127.5
    written = torch.from_numpy(np.array(Image.open(trained / "out" / "one.png"))).permute(2, 0, 1)
    assert (written - expected).abs().max() < 0.51


def test_the_batch_size_changes_nothing(trained, run):
    flags = ["--dataset_name=tiny", "--input=datasets/tiny/testA", "--n_cpu=0"]
    assert run("test", *flags, "--output=one", "--batch_size=1").code == 0
    assert run("test", *flags, "--output=many", "--batch_size=3").code == 0
    for i in range(3):
        one, many = (np.asarray(Image.open(trained / out / f"{i}.png")).astype(int) for out in ("one", "many"))
        assert np.abs(one - many).max() <= 1


def test_half_precision_translates_within_rounding(trained, run):
    """By default as the model was trained, which is what this processor computes fast; --amp overrules."""
    flags = ["--dataset_name=tiny", "--input=datasets/tiny/testA", "--n_cpu=0"]
    for amp in ("trained", "off", "bf16"):
        assert run("test", *flags, f"--output={amp}", f"--amp={amp}").code == 0
    images = {amp: np.asarray(Image.open(f"{amp}/0.png")).astype(int) for amp in ("trained", "off", "bf16")}
    assert (images["trained"] == images[pick_amp("auto", torch.device("cpu"))]).all()
    assert 0 < np.abs(images["off"] - images["bf16"]).max() <= 16


def test_translation_skips_and_counts_bad_images(trained, run, refused):
    test_A = trained / "datasets" / "tiny" / "testA"
    (test_A / "empty.png").write_bytes(b"")
    (test_A / "cut.png").write_bytes((test_A / "0.png").read_bytes()[:300])
    flags = ["test", "--dataset_name=tiny", "--n_cpu=0", "--direction=AtoB"]
    assert re.search(r"(empty|cut)\.png is not a readable image", refused(*flags))
    result = run(*flags, "--skip_bad_images")
    assert result.code == 0 and "3 translations" in result.out and "2 images could not be read" in result.out


# ---- bad input: one line, code 2 ----


@pytest.mark.parametrize("name", ["mine", "mine/.0123456789abcdef.tmp"])
def test_what_is_not_permitted_is_named_by_its_folder_and_with_a_way_out(capsys, name):
    def main():
        raise PermissionError(errno.EACCES, "Permission denied", name)

    with pytest.raises(SystemExit) as caught:
        exit_cleanly(main)
    line = "mine: Permission denied; take another, or let this user read and write there"
    assert caught.value.code == 2 and capsys.readouterr().err.strip().endswith(line)


def test_a_value_that_begins_with_a_dash_is_told_how(refused, workplace):
    assert refused("cycle_gan", *TINY, "--name", "-lead").endswith("is written behind =: --NAME=-VALUE")


@pytest.mark.parametrize(
    ("preprocess", "sizes"),
    [
        ("crop", ["--load_height=8", "--load_width=8"]),
        ("none", ["--load_height=8", "--load_width=8"]),
        ("scale_width_and_crop", ["--load_height=8"]),
    ],
)
def test_crops_are_not_compared_with_a_size_to_which_nothing_is_resized(workplace, preprocess, sizes):
    options = parse_training([*TINY, f"--preprocess={preprocess}", *sizes])[0]
    assert (options.img_height, options.load_height) == (16, 8)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--img_height=30"], "divisible by 4"),
        (["--img_height=4"], "at least 8"),
        (["--img_width=big"], "a whole number"),
        (["--n_epochs=0"], "at least 1"),
        (["--lr=-1"], "at least 0"),
        (["--lr=nan"], "at least 0"),
        (["--b1=1"], "below 1"),
        (["--gan_mode=gan"], "invalid choice"),
        (["--channels=2"], "--channels_A must be 3 or 1 for 8-bit pictures"),
        (["--n_epoch=3"], "did you mean --n_epochs?"),
        (["--attention", "False"], "arguments: False; a flag that is on or off takes no value: give --NAME for on"),
        (["--attention=true"], "a flag that is on or off takes no value: give --NAME for on, and --no_NAME for off"),
        (["--device=gpu"], "there is none of that name; give auto, cpu, cuda, cuda:1, mps or another of torch's"),
        (["--nonsense=train"], "docs/migration.md those of other CycleGANs"),
        (["--dataroot=x"], "for --dataroot, give --dataset_dir and, of the folder in it, --dataset_name"),
        (["--gpu_ids=0,1"], "for several: torchrun --nproc_per_node N"),
        (["--epoch=last"], "must be latest, auto or an epoch's number, not 'last'"),
        (["--epoch=best"], "best, which keeps only the generators; give latest, or start a new run from best.pth"),
        (["--checkpoint_every=10s"], "must be a number of steps, or of minutes as in 10m, not '10s'"),
        (["--diffaugment=color,color"], "with commas between, each once, or none, not 'color,color'"),
        (["--decoded_limit=0"], "--decoded_limit: must be a number of at least 1e-09"),
        (
            ["--rotate90", "--preprocess=none"],
            "needs square crops: --img_height as large as --img_width, and no --prep",
        ),
        (["--images_dir=mine.txt"], "mine.txt: File exists, and a folder is needed there; move it, or name another"),
        (["--dataset_name=horse2zebr"], "did you mean horse2zebra?"),
        (["--dataset_name=tinyy"], "did you mean tiny?"),
        (["--epoch=3"], "there is no checkpoint in saved_models/tiny"),
        (["--dataset_name=../tiny"], "must be a name"),
        (["--dataset_name=nothing"], "there is no data set datasets/nothing"),
        (["--device=cuda:99"], "--device cuda:99 is not available"),
        (["--device=nonsense"], "--device nonsense is not available"),
        (["--device=hpu"], "--device hpu is not available"),
        (["--epoch=auto", "--range_A", "5"], "--range_A takes auto, or a lower and a higher number, not 5"),
        (["--patience=2"], "--patience counts evaluations; add --eval_interval"),
        (["--dis_net=features", "--feature_size=8"], "--feature_size"),
        (["--show_channels", "70000", "1", "2"], "--show_channels"),
    ],
)
def test_bad_flags(workplace, refused, flags, expected):
    (workplace / "mine.txt").touch()
    assert expected in refused("cycle_gan", *TINY, *flags)
    assert not (workplace / "saved_models").exists()


@pytest.mark.parametrize("side", ["trainA", "trainB"])
def test_missing_and_empty_sides(workplace, refused, side):
    for path in (workplace / "datasets" / "tiny" / side).iterdir():
        path.unlink()
    (workplace / "datasets/tiny" / side / "IM0001").write_bytes(b"as scanners name them")
    line = refused("cycle_gan", *TINY)
    assert f"datasets/tiny/{side} holds no images" in line and "IM0001 has no ending: if it is a DICOM file" in line
    (workplace / "datasets/tiny" / side / "IM0001").unlink()
    (workplace / "datasets" / "tiny" / side).rmdir()
    line = refused("cycle_gan", *TINY)
    assert f"datasets/tiny/{side} is missing" in line and "and there is testA, testB, train" in line


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_file_that_is_no_image_is_named_or_skipped_and_counted(workplace, run, refused, content):
    path = workplace / "datasets" / "tiny" / "trainA" / "1.png"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    assert "datasets/tiny/trainA/1.png is not a readable image" in refused("cycle_gan", *TINY, "--n_epochs=1")
    result = run("cycle_gan", *TINY, "--n_epochs=1", "--skip_bad_images")
    assert result.code == 0
    whole = "image could not be read, others took their place"  # said at the end, of one whose header is right
    assert re.search(rf"^1 ({whole}|of 3 images are .*): .*trainA/1\.png$", result.out, re.M)


@pytest.mark.parametrize("zero", ["00", "+0", "-0"])
def test_zero_is_never_in_every_spelling(zero):
    assert parse_training([f"--checkpoint_every={zero}"])[0].checkpoint_every == "0"


@pytest.mark.parametrize(("words", "low"), [(["-1e3", "1e3"], -1000), (["-.5", "2"], -0.5), (["-1000", "0"], -1000)])
def test_a_range_may_begin_below_zero(words, low):
    assert parse_training(["--range_A", *words])[0].range_A[0] == low


def test_the_steps_before_a_library_is_missing_are_saved(workplace, monkeypatch, refused):
    """Which is found out at the first file that needs it, in the middle of an epoch."""
    sample, count = datasets.UnpairedImages.__getitem__, itertools.count()

    def broken(images, n):
        if next(count) == 2:
            raise UserError("an image needs imagecodecs")
        return sample(images, n)

    monkeypatch.setattr(datasets.UnpairedImages, "__getitem__", broken)
    line = refused("cycle_gan", *TINY, "--n_epochs=9", "--n_cpu=0")
    assert "an image needs imagecodecs; " in line and "--epoch latest" in line
    assert [name.name for name in Path("saved_models/tiny").glob("*.pth")] == ["epoch_0_sample_2.pth"]


def test_without_test_folders_the_last_words_name_another_way(workplace, run):
    for side in "AB":
        shutil.rmtree(f"datasets/tiny/test{side}")
    said = run("cycle_gan", *TINY, "--n_epochs=1").out
    assert "to translate a folder of images: python test.py --dataset_name tiny --input FOLDER" in said
    assert run("test", "--dataset_name=tiny", "--input=datasets/tiny/trainA", "--n_cpu=0").code == 0
    assert Path("results/tiny/epoch_1/input/AtoB/0.png").exists()


def test_flags_that_would_do_nothing_are_refused(trained, refused):
    flags = ["test", "--dataset_name=tiny", "--n_cpu=0"]
    for flag in ("--compare", "--passes=2", "--fps=3", "--steady=0.5", "--codec=libx264", "--crf=3"):
        line = refused(*flags, flag)
        assert f"{flag.split('=')[0]} is for videos and other clips" in line
    line = refused(*flags, "--input=datasets/tiny/testA/0.png", "--output=b.png")
    assert "--output b.png looks like a file; name a folder" in line and not Path("b.png").exists()
    line = refused(*flags, "--input=datasets/tiny/testA", "--output=out.mp4")
    assert "--output out.mp4 looks like a file" in line and not Path("out.mp4").exists()


def test_the_first_lines_tell_every_term_and_what_critics_see(workplace, run, monkeypatch):
    def with_another(options, terms=trainer.generator_terms):
        return terms(options) | {"edges": (0.25, lambda direction: direction.reconstructed.mean()), "none": (0.0, None)}

    monkeypatch.setattr(trainer, "generator_terms", with_another)
    flags = ["--n_epochs=1", "--recipe=lsgan", "--dis_net=attention", "--penalty=r1", "--diffaugment=color,cutout"]
    result = run("cycle_gan", *TINY, *flags, "--batch_size=9", "--lr=3e-4")
    said = "lsgan, cycle 10, identity 10, edges 0.25, r1 penalty 0.01, critics see color,cutout varied (lsgan recipe)"
    assert result.code == 0 and f"objective   {said}" in result.out
    assert "in batches of 3, all that there are, by muon with --lr 0.0003, on cpu" in result.out


def test_a_checkpoint_contradicts_a_flag_that_it_was_trained_without():
    with pytest.raises(UserError, match="--init_from a contradicts the checkpoint, which was trained with no --init_f"):
        resuming.check_agreement(["init_from"], {"init_from": "a"}, {"init_from": None}, "leave it out")


def test_missing_epochs_are_answered_with_those_there_are(trained, refused):
    for script in ("cycle_gan", "test"):
        assert "no checkpoint after epoch 7" in (line := refused(script, "--dataset_name=tiny", "--epoch=7"))
        assert line.endswith("; those there are: 1")


def test_a_damaged_checkpoint_is_named_and_left_alone(trained, refused):
    path = trained / "saved_models" / "tiny" / "epoch_1.pth"
    path.write_bytes(path.read_bytes()[:5000])
    for script in ("cycle_gan", "test"):
        assert "epoch_1.pth is damaged" in refused(script, "--dataset_name=tiny", "--epoch=1")
    assert path.stat().st_size == 5000


@pytest.mark.parametrize("flag", ["--checkpoint_dir", "--images_dir"])
def test_output_that_cannot_be_written_is_found_at_the_start(workplace, refused, flag):
    (workplace / "file").touch()
    assert re.search("error: file.*: (Not a directory|File exists)", refused("cycle_gan", *TINY, f"{flag}=file"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(trained, refused):
    good = checkpoint(trained, 1)
    flags = ["--dataset_name=tiny", "--epoch=1", "--n_epochs=5", "--n_cpu=0", "--lr=1e8"]
    line = refused("cycle_gan", *flags)
    assert re.search(r"not finite at step \d+: '[\w ]+' \((nan|-?inf)\)", line)
    assert line.endswith("resume from one with a smaller --lr, or with --on_nan rollback")
    assert refused("cycle_gan", *flags, "--on_nan=rollback").endswith("resume from one with a smaller --lr")
    assert equal(checkpoint(trained, 1), good)
    assert saved_epochs(trained) == [1]


def test_compiled_networks_translate_alike_and_refuse_to_be_taken_apart(trained, run, refused, monkeypatch):
    """Traced; what a compiler makes of it is its own business. The test images have several sizes."""
    compiled = partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    flags = ["--dataset_name=tiny", "--n_cpu=0", "--amp=off"]
    assert run("test", *flags).code == 0
    assert run("test", *flags, "--compile", "--results_dir=compiled").code == 0
    plain = sorted(Path("results").rglob("*.png"))
    assert plain
    for path in plain:
        one, other = (np.asarray(Image.open(p), int) for p in (path, Path("compiled") / path.relative_to("results")))
        assert np.abs(one - other).max() <= 1
    assert "leave it out" in refused("test", *flags, "--overwrite", "--compile", "--tile=64")
    clip = ["--overwrite", "--compile", "--input=datasets/tiny/testA", "--frames"]
    assert "leave it out" in refused("test", *flags, *clip)


def test_a_compiler_that_is_missing_is_named(trained, refused, monkeypatch):
    without_compiler(monkeypatch)
    line = refused("test", "--dataset_name=tiny", "--n_cpu=0", "--compile", "--overwrite")
    assert "--compile does not work here" in line


def test_translation_refuses_what_it_cannot_do(trained, refused):
    flags = ["test", "--dataset_name=tiny"]
    assert "does not exist" in refused(*flags, "--input=nowhere")
    assert "holds no images" in refused(*flags, "--input=saved_models")
    assert "would overwrite" in refused(*flags, "--input=datasets/tiny/testA", "--output=datasets/tiny/testA")
    assert "--output goes with --input" in refused(*flags, "--output=out")
    assert "invalid choice" in refused(*flags, "--direction=AtoC")
    assert "there is no checkpoint" in refused("test", "--dataset_name=other")


def test_workers_need_not_be_forked(workplace):
    """As on macOS and Windows, and from Python 3.14 on."""
    start = (
        "import runpy, sys; from multiprocessing import set_start_method; set_start_method('spawn'); del sys.argv[0]"
    )
    for script, flags in (("cycle_gan.py", [*TINY, "--n_epochs=1"]), ("test.py", ["--dataset_name=tiny"])):
        path = str(ROOT / script)
        program = f"{start}; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path({path!r}, run_name='__main__')"
        result = run_python("-c", program, script, *flags, "--n_cpu=1", cwd=workplace)
        assert result.returncode == 0, result.stderr
    assert list(workplace.glob("results/tiny/epoch_1/AtoB/*.png"))


def test_no_traceback_in_a_real_process(workplace):
    for script, flags in (("cycle_gan.py", ["--dataset_name=nothing"]), ("test.py", ["--bogus"])):
        result = run_process(script, *flags, cwd=workplace)
        assert result.returncode == 2
        assert len(result.stderr.strip().splitlines()) == 1 and "error: " in result.stderr


# ---- flags that do nothing, or are empty ----

CUT = "--preprocess resize_and_crop or scale_shorter_and_crop or scale_width_and_crop or crop"


@pytest.mark.parametrize(
    "words",
    [
        ("cycle_gan", *TINY, "--init_from="),
        ("cycle_gan", *TINY, "--images_dir", ""),
        ("test", "--dataset_name=tiny", "--input="),
        ("evaluate", "--dataset_name=tiny", "--checkpoint="),
        ("evaluate", "--real=", "--fake="),
        ("export", "--dataset_name=tiny", "--exports_dir="),
    ],
    ids=" ".join,
)
def test_a_flag_with_nothing_behind_it_is_not_one_that_was_not_given(workplace, refused, words):
    assert "must not be empty" in refused(*words)


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        (["--lambda_gp=5"], []),
        (["--lambda_gp=5", "--recipe=lsgan"], ["--lambda_gp does nothing here: it goes with --penalty wgan-gp"]),
        (["--lambda_r1=5", "--penalty=r1"], []),
        (["--penalty_interval=2", "--penalty=r1"], []),
        (["--penalty_interval=2", "--penalty=none"], ["--penalty_interval does nothing here: it goes with --penalty"]),
        (
            ["--feature_size=64"],
            ["--feature_size does nothing here: it goes with --dis_net features or features+patch"],
        ),
        (["--feature_size=64", "--recipe=features+patch"], []),
        (["--features=inception"], ["--features does nothing here: it goes with --eval_interval"]),
        (["--features=inception", "--eval_interval=1"], []),
        (["--dataset_url=x", "--no_download"], ["--dataset_url does nothing here: it goes with --download"]),
        (["--mask_threshold=9", "--recipe=segmentation"], []),
        (["--img_height=64", "--preprocess=none"], [f"--img_height does nothing here: it goes with {CUT}"]),
        (["--small=refuse", "--preprocess=none"], [f"--small does nothing here: it goes with {CUT}"]),
        (
            ["--load_factor=2", "--preprocess=crop"],
            [f"--load_factor does nothing here: it goes with {CUT.removesuffix(' or crop')}"],
        ),
        (["--load_factor=2", "--img_height=64", "--small=refuse", "--preprocess=scale_shorter_and_crop"], []),
        (
            ["--load_height=99", "--img_height=64", "--preprocess=scale_width_and_crop"],
            ["--load_height does nothing here: it goes with --preprocess resize_and_crop or scale_shorter_and_crop"],
        ),
    ],
)
def test_flags_given_by_hand_that_do_nothing_are_named(flags, idle):
    assert list(options.without_effect(*parse_training(flags))) == idle


def test_flags_that_a_network_of_ones_own_does_not_take_are_named(monkeypatch):
    monkeypatch.setattr("critics.Own", lambda channels: None, raising=False)
    monkeypatch.setitem(CRITICS, "own", Network("critics:Own", 8))
    given = parse_training(["--ndf=8", "--dropout", "--recipe=classic"])
    given[0].dis_net = "own"
    monkeypatch.setitem(options.GENERATORS, "wide", Network("critics:Wide", 8))
    monkeypatch.setattr("critics.Wide", lambda channels, batch_size: None, raising=False)
    assert not list(options.without_effect(*parse_training(["--batch_size=2"])))  # which is no flag of networks alone
    others = " or ".join(name for name in CRITICS if name != "own")
    assert list(options.without_effect(*given)) == [f"--ndf does nothing here: it goes with --dis_net {others}"]


def test_flags_of_pytorch_cyclegan_mean_what_they_mean_there():
    words = "--netG resnet_6blocks --netD basic --beta1 0.4 --gan_mode wgangp --lambda_cyc 8 --lambda_identity 0.5"
    theirs = parse_training(f"{words} --num_threads 0 --checkpoints_dir out --save_epoch_freq 9".split())[0]
    words = "--gen_net resnet --n_residual_blocks 6 --dis_net patch70 --b1 0.4 --gan_mode wgan-gp --lambda_cyc 8"
    ours = parse_training(f"{words} --lambda_id 4 --n_cpu 0 --checkpoint_dir out --checkpoint_interval 9".split())[0]
    assert theirs == ours


@pytest.mark.parametrize("script", ["cycle_gan", "test", "app", "export", "evaluate", "import_weights"])
def test_what_is_said_of_another_programs_flag_names_flags_of_ours(refused, run, script):
    known = set(re.findall(r"--\w+", run(script, "--help").out))
    for name, _ in options.ELSEWHERE:
        line = refused(script, f"--{name}=1")
        if "for --" in line:
            advice = set(re.findall(r"--\w+", line.partition(" give ")[2]))
            assert f"--{name}" not in known and advice <= known


@pytest.mark.parametrize(
    ("script", "flag", "advice"),
    [
        ("test", "--dataroot=x", "--input, for a folder of images; for a data set --dataset_dir and"),
        ("cycle_gan", "--dataroot=x", "give --dataset_dir and, of the folder in it, --dataset_name"),
        ("cycle_gan", "--direction=BtoA", "nothing: exchange the folders"),
        ("test", "--which_direction=BtoA", "give --direction"),
        ("cycle_gan", "--niter_decay=9", "give --decay_epoch"),
        ("cycle_gan", "--load_size=9", "give --load_height and --load_width"),
        ("test", "--load_size=9", "give nothing: images are translated at their own size"),
        ("test", "--netG=resnet_9blocks", "give nothing: networks are as they were trained"),
    ],
)
def test_what_to_give_for_another_programs_flag_fits_the_program(refused, script, flag, advice):
    assert advice in refused(script, flag)


def test_each_unknown_flag_of_a_command_is_answered(refused):
    line = refused("cycle_gan", "--no_flip", "--display_id=1", "--print_freq=9", "--n_epoch=3")
    shown = "for --display_id and --print_freq, give nothing: images/NAME/index.html shows losses and grids"
    assert line.endswith(f"; for --no_flip, give --flip none; {shown} (docs/migration.md); did you mean --n_epochs?")


def test_loaders_are_no_more_than_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    assert parse_training([])[0].n_cpu == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert parse_training([])[0].n_cpu == 4


def test_a_resumed_run_says_which_flags_are_others_than_before(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    resume = "--dataset_name=tiny", "--epoch=latest"
    result = run("cycle_gan", *resume, "--n_epochs=2", "--lambda_id=2")
    assert "changed     --lambda_id 2.0 (was 10.0), --n_epochs 2 (was 1), --decay_epoch 1 (was 0)" in result.out
    result = run(
        "cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=3", "--decay_epoch=1", "--device=cpu"
    )
    assert result.code == 0 and "changed     --n_epochs 3 (was 2)" in result.out.splitlines()
    assert "wgan-gp, cycle 10, identity 2, wgan-gp penalty 10 (attention recipe)" in result.out
    result = run("cycle_gan", *resume, "--n_epochs=4", "--no_tensorboard", "--show_channels", "3", "2", "1")
    assert "--no_tensorboard (was on)" in result.out and "--show_channels 3 2 1 (was 1 2 3)" in result.out
    assert "networks    --gen_net attention --dis_net attention --attention --spectral_norm: " in result.out


def test_channels_that_a_generator_cannot_change_are_refused(monkeypatch):
    monkeypatch.setattr("models.Own", lambda channels, ngf: None, raising=False)
    monkeypatch.setitem(options.GENERATORS, "own", Network("models:Own", 8))
    given = parse_training([])[0]
    given.gen_net = "own"
    with pytest.raises(UserError, match="--gen_net own has no parameter channels_out"):
        options.adapt_to_images(given, (), {"A": 4, "B": 3})


def test_what_a_flag_needs_is_an_option_with_these_values():
    flags = {flag.name: flag for group in options.TRAIN.values() for flag in group}
    for needed, *values in (flag.needs for flag in flags.values() if flag.needs):
        assert set(values) <= set(flags[needed].choices or ())


def test_a_run_says_which_flags_do_nothing(run, workplace):
    result = run("cycle_gan", "--dataset_name=tiny", "--penalty=none", "--lambda_gp=5", "--n_epochs=1", *TINY)
    assert "--lambda_gp does nothing here: it goes with --penalty wgan-gp" in result.out.splitlines()


# ---- help ----


def test_help_groups_the_flags_and_shows_defaults(run):
    result = run("cycle_gan", "--help")
    assert result.code == 0
    for group in options.TRAIN:
        assert f"\n{group}:\n" in result.out
    assert "(default: 256)" in result.out and "(default: wgan-gp)" in result.out


@pytest.mark.parametrize("script", ["cycle_gan", "test", "evaluate"])
def test_help_names_each_default_once(run, script):
    text = " ".join(run(script, "--help").out.split())
    assert not re.search(r"\(default: [^)]*\) \(default: ", text)
    assert "default: on" in text or "default: off" in text


def test_dashes_and_underscores_are_the_same():
    parsed, given = options.parse_training(["--n-epochs=3", "--no-attention", "--dataset-name", "a-b"])
    assert (parsed.n_epochs, parsed.attention, parsed.dataset_name) == (3, False, "a-b")
    assert given == {"n_epochs": 3, "attention": False, "dataset_name": "a-b"}


def test_headers_are_remembered_beside_the_checkpoints(workplace, run):
    """Of a new run too, which sets the folder of the one before aside."""
    for _ in range(2):
        assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
        rows = Path("saved_models/tiny/headers.jsonl").read_text().splitlines()
        assert len(rows) == sum(len(os.listdir(folder)) for folder in Path("datasets/tiny").iterdir())
    assert Path("saved_models/tiny.1/headers.jsonl").exists()
