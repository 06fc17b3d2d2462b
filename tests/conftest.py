"""Shared by the tests: tiny data sets, and the command line run as a user would."""

import importlib
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import utils
from readers.domains import PICTURES
from readers.formats import contents
from runtime.errors import exit_cleanly

ROOT = Path(__file__).parent.parent
TINY = dict(dataset_name="tiny", img_height=16, img_width=20, ngf=4, ndf=4, n_residual_blocks=1)
TINY |= dict(n_cpu=0, checkpoint_interval=1, sample_interval=2)
TINY = [f"--{name}={value}" for name, value in TINY.items()]

settings.register_profile("however long it takes", deadline=None)
settings.load_profile("however long it takes")
torch.set_num_threads(1)  # the tensors are too small for more, and CI's cores are few


def noise_image(seed, height=18, width=23):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_dataset(folder, sides=("trainA", "trainB", "testA", "testB"), count=3):
    for number, side in enumerate(sides):
        (folder / side).mkdir(parents=True)
        for i in range(count):
            noise_image(10 * number + i).save(folder / side / f"{i}.png")
    return folder


def read_file(path, **ways):
    """What a file's header says, and all images in it, H×W×C each; none of an 8-bit picture."""
    with contents(path, PICTURES._replace(**ways)) as found:
        images = [np.asarray(found.load(part)) for part in range(found.count)] if found.load else []
        return found, [image.reshape(found.height, found.width, found.channels) for image in images]


@pytest.fixture(autouse=True)
def denormals():
    """As torch has them by itself, whatever program or benchmark was imported or run before."""
    torch.set_flush_denormal(False)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory with the data set ``datasets/tiny``."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "datasets" / "tiny")
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("cycle_gan", *flags)``: the entry point in this process; returns code, out and err."""

    def call(script, *flags):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, flags)])
        # test.py shares its name with a package of Python's own tests
        spec = importlib.util.spec_from_file_location(f"{script}_entry", ROOT / f"{script}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        code = 0
        try:
            exit_cleanly(module.main)
        except SystemExit as stop:
            code = stop.code
        torch.set_flush_denormal(False)  # hypothesis draws no numbers where some of them cannot be had
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err, module=module)

    return call


@pytest.fixture
def refused(run):
    """Like ``run``, for calls that must fail: checks for exit code 2 and one line of error, and returns that line."""

    def call(script, *flags):
        result = run(script, *flags)
        assert result.code == 2, (result.out, result.err)
        line = result.err.strip().splitlines()[-1]
        assert line.startswith(f"{script}.py: error: ")
        assert "Traceback" not in result.err
        return line

    return call


def run_process(script, *flags, cwd, timeout=None):
    """The command line in a process of its own."""
    return run_python(ROOT / script, *map(str, flags), cwd=cwd, timeout=timeout)


def run_python(*arguments, cwd, timeout=None):
    """Python in a process of its own, with one thread; ``timeout`` in seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def equal(a, b):
    """Whether two nested structures of tensors and plain values are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def without_compiler(monkeypatch):
    """As on a machine that has no C++ compiler. (Its setting in torch does not survive being set back.)"""

    def search():
        from torch._inductor.exc import InvalidCxxCompiler  # slow to import

        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", search)


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is a second further at each look."""
    seconds = count()
    monkeypatch.setattr(utils, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
