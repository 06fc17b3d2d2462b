"""The benchmarks keep up with what they measure: each can be imported, and the small ones run."""

import subprocess
import sys

import pytest
from conftest import ROOT

BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_all_can_be_imported():
    result = python("-c", f"import sys; sys.path.insert(0, 'benchmarks'); import {', '.join(BENCHMARKS)}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "layer_norm.py --shapes 1x4x8x8 --rounds 1",
        "attention.py --sides 8 --rounds 1",
    ],
    ids=lambda line: line.split(".")[0],
)
def test_small_ones_run(line):
    script, *flags = line.split()
    result = python(ROOT / "benchmarks" / script, *flags)
    assert result.returncode == 0, result.stderr
