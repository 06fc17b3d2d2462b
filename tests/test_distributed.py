"""Two processes on the CPU, started by torchrun as a user would: together they are one with the doubled batch."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import patch

import pytest
import torch
from conftest import ROOT, TINY, equal, make_dataset

from datasets import epoch_batches
from losses import both_directions
from options import parse_training
from runtime import checkpoints, distributed
from trainer import CycleGAN

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def command(*flags, processes=2):
    launcher = TORCHRUN if processes == 2 else [sys.executable]
    return [*launcher, ROOT / "cycle_gan.py", *TINY, "--img_height=32", "--img_width=32", "--sample_interval=0", *flags]


def train(*flags, processes=2):
    return subprocess.run(command(*flags, processes=processes), env=ENVIRONMENT, capture_output=True, text=True)


def run_script(folder, script, *arguments, path=(ROOT,), timeout=None):
    """Run the text ``script``, which finds our modules in the folders ``path``, in two processes."""
    (folder / "script.py").write_text(script)
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, path))}
    words = [*TORCHRUN, folder / "script.py", *arguments]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stderr


def saved(folder, epoch="latest"):
    return checkpoints.load(f"{folder}/tiny", epoch, resume=True)[1]


@pytest.fixture
def nine_images(tmp_path, monkeypatch):
    """Two processes with batches of 2: an epoch has batches of 2 and 2, twice, and one image is left over."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "datasets" / "tiny", count=9)
    return tmp_path


def test_processes_that_take_over_one_history_toss_coins_of_their_own(monkeypatch):
    def model():
        return CycleGAN(parse_training(TINY)[0], torch.device("cpu"))

    state = model().state_dict()
    state["processes"] *= 2
    tossed = set()
    for rank in range(4):
        monkeypatch.setattr(distributed, "RANK", rank)
        resumed = model()
        with monkeypatch.context() as wider:
            wider.setattr(distributed, "WORLD", 4)
            resumed.load_state_dict(state)
        tossed.add(resumed.buffer_A.random.initial_seed())
        tossed.add(torch.rand((), generator=resumed.buffer_A.random).item())
    assert len(tossed) == 8


# ---- gradients ----

WORKER = """
import sys, torch
from runtime import distributed
from test_distributed import GRADIENTS_WITH, gradients

torch.set_default_dtype(torch.double)
with distributed.process_group(torch.device("cpu")):
    torch.save([gradients(flags) for flags in GRADIENTS_WITH], f"{sys.argv[1]}/{distributed.RANK}.pt")
"""
GRADIENTS_WITH = [  # not batch norm, which takes its statistics from each process's own batch
    [],
    ["--recipe=segmentation", "--penalty=r1"],
    ["--mask=learned"],
    ["--checkpoint_activations"],
    ["--lambda_cyc=0"],
]


def gradients(flags):
    """The gradients of both objectives on this process's share of a batch of 4, in float64 and without chance."""
    import test_speed

    from runtime import distributed
    from trainer import CycleGAN

    model = test_speed.without_chance(test_speed.build(CycleGAN, *flags), torch.double)
    share = 4 // distributed.WORLD
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 4, 3, 32, 32, generator=generator, dtype=torch.double) * 2 - 1
    images = images[:, distributed.RANK * share :][:, :share]
    found = []
    steps = (model._parallel_G, both_directions(*images[:2])), (model._parallel_D, [images])
    for objective, parts in steps:
        idle = torch.optim.SGD(objective.parameters(), lr=0.0)
        penalised_at = patch.object(torch, "rand", lambda *shape, **kind: torch.full(shape, 0.3, **kind))
        with penalised_at:
            model._optimizer_step(objective, parts, idle, model.scaler_G, {})
        found.append([p.grad for p in objective.parameters()])
    return found


def test_the_gradients_are_those_of_one_process_with_the_doubled_batch(tmp_path):
    run_script(tmp_path, WORKER, tmp_path, path=(ROOT, ROOT / "benchmarks", ROOT / "tests"))
    of_first, of_second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for flags, first, second in zip(GRADIENTS_WITH, of_first, of_second, strict=True):
        assert equal(first, second), flags
        torch.set_default_dtype(torch.double)
        try:
            alone = gradients(flags)
        finally:
            torch.set_default_dtype(torch.float)
        for ours, theirs in zip(first, alone, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


# ---- what the processes tell each other ----

TELLER = """
import sys, torch
from runtime import distributed

with distributed.process_group(torch.device("cpu")):
    told = distributed.all_gather(distributed.RANK), distributed.gather(distributed.RANK)
    limit = torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    torch.save((*told, limit), f"{sys.argv[1]}/{distributed.RANK}.pt")
"""


def test_all_hear_or_the_main_process_alone_and_they_wait_for_hours(tmp_path):
    run_script(tmp_path, TELLER, tmp_path)
    hours = 24 * 3600
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert told == [([0, 1], [0, 1], hours), ([0, 1], None, hours)]


LEAVER = """
import os, torch
from runtime import distributed

for start in range(30):
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(start)  # each time another meeting point
    with distributed.process_group(torch.device("cpu")):
        network = distributed.data_parallel(torch.nn.Linear(2, 2))
        distributed.gather(torch.zeros(1000))
        distributed.all_gather(start)
    del network
"""


def test_networks_may_outlive_the_group_that_they_were_trained_in(tmp_path):
    """With torch 2.11 one of a few dozen such ends hung: a thread of the group still had to free what it had sent."""
    run_script(tmp_path, LEAVER, timeout=200)


ENDER = """
import atexit, os, pathlib, sys
import torch

def threads():
    return {path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")}

def note():
    words = " ".join(sorted(threads()))
    pathlib.Path(f"{os.environ['RANK']}.txt").write_text(words)

atexit.register(note)  # the last of all: those registered later are called before
"""
STOPPER = """
from runtime import distributed

def main():
    with distributed.process_group(torch.device("cpu")):
        network = distributed.data_parallel(torch.nn.Linear(2, 2))
        network.itself = [network]
        distributed.gather(1)
        assert "pt_gloo_runloop" in threads()
        sys.exit(0)

main()
"""
TRAINER = f"""
import cycle_gan
sys.argv[1:] = {[*TINY, "--img_height=32", "--img_width=32", "--n_epochs=1", "--device=cpu"]}
cycle_gan.exit_cleanly(cycle_gan.main)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="Linux tells the names of threads")
@pytest.mark.parametrize("ending", [STOPPER, TRAINER], ids=["stopped by a signal", "at its end"])
def test_no_thread_of_a_group_outlives_the_interpreter(nine_images, ending):
    """One that had still to free what it had sent ended a quarter of such processes with SIGABRT."""
    run_script(nine_images, ENDER + ending)
    for rank in range(2):
        threads = (nine_images / f"{rank}.txt").read_text().split()
        assert threads and "pt_gloo_runloop" not in threads


# ---- whole runs ----


def test_a_run_of_two_processes_equals_one_with_the_doubled_batch(nine_images):
    """Nine images: two processes leave out the last one, which is what one process is made to do here."""
    flags = ["--recipe=classic", "--n_epochs=1", "--amp=off"]
    two = train(*flags, "--batch_size=2", "--checkpoint_dir=two")
    assert two.returncode == 0, two.stderr
    for side in "AB":
        assert len(list((nine_images / "datasets/tiny" / f"train{side}").iterdir())) == 9
    state = saved("two")
    assert (state["epoch"], state["sample"], state["steps"]) == (1, 0, 2)
    assert len(state["training"]["processes"]) == 2
    assert [len(own["buffer_A"]["images"]) for own in state["training"]["processes"]] == [4, 4]
    alone = train(*flags, "--batch_size=4", "--checkpoint_every=1", "--checkpoint_dir=one", "--keep=9", processes=1)
    assert alone.returncode == 0, alone.stderr
    one = checkpoints.load_file(nine_images / "one" / "tiny" / "epoch_0_sample_8.pth")
    for name, weight in one["training"]["generator_objective"].items():
        if name.endswith("weight"):  # a bias before an instance norm has no gradient but rounding, which Adam enlarges
            torch.testing.assert_close(state["training"]["generator_objective"][name], weight, rtol=1e-3, atol=1e-5)
    for words in ("starting from scratch", "done; "):
        assert two.stdout.count(words) == 1  # the main process alone speaks
    assert "2 × cpu" in two.stdout
    assert "Warning" not in two.stderr
    assert len((nine_images / "two/tiny/runs.jsonl").read_text().splitlines()) == 1


def test_resume_with_as_many_processes_is_exact_and_with_another_number_goes_on(nine_images):
    flags = ["--n_epochs=2", "--batch_size=2"]
    assert train(*flags, "--checkpoint_dir=straight").returncode == 0
    assert train(*flags, "--checkpoint_every=1", "--keep=9").returncode == 0
    for name in ("epoch_1_sample_4.pth", "epoch_2.pth"):
        (nine_images / "saved_models/tiny" / name).unlink()
    shutil.copytree("saved_models", "alone")
    for folder, processes in (("saved_models", 2), ("alone", 1)):
        resumed = train("--epoch=latest", f"--checkpoint_dir={folder}", processes=processes)
        assert resumed.returncode == 0, resumed.stderr
        assert saved(folder)["epoch"] == 2
    assert equal(saved("saved_models")["training"], saved("straight")["training"])
    first, second = (process["random"] for process in saved("straight")["training"]["processes"])
    assert not equal(first, second)  # dropout and the penalty's points are each process's own


def test_an_epoch_with_fewer_samples_left_than_processes_is_over(nine_images):
    """One process stops before the last of nine images, which two processes cannot share: they begin epoch 2."""
    flags = ["--batch_size=2", "--checkpoint_every=4", "--keep=9"]
    assert train(*flags, "--n_epochs=1", processes=1).returncode == 0
    (nine_images / "saved_models/tiny/epoch_1.pth").unlink()
    assert saved("saved_models")["sample"] == 8
    resumed = train("--epoch=latest", "--n_epochs=2")
    assert resumed.returncode == 0, resumed.stderr
    state = saved("saved_models")
    assert (state["epoch"], state["sample"], state["steps"]) == (2, 0, 4 + 2)


def test_a_value_that_is_not_finite_in_one_process_stops_all(nine_images):
    result = train("--n_epochs=1", "--lr=1e8", "--penalty_interval=1")
    assert result.returncode != 0
    assert result.stderr.count("cycle_gan.py: error: not finite at step") == 2  # one line each, the same
    *_, last, end = result.stderr.strip().splitlines()
    assert "not finite at step" in last and set(end) == {"="}  # and the last thing that torchrun says
    assert "Traceback" not in result.stderr.split("ChildFailedError")[0].split("torch/distributed")[0]


def test_a_signal_to_one_process_stops_all_after_the_same_step(nine_images):
    process = subprocess.Popen(
        command("--n_epochs=100000"), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    saves = nine_images / "saved_models/tiny"
    deadline = time.monotonic() + 120
    while not (saves / "epoch_1.pth").exists() and time.monotonic() < deadline:  # both are in the loop then
        time.sleep(0.1)
    assert json.loads((saves / "runs.jsonl").read_text())["from_step"] == 0
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) == 2
    os.kill(int(children[-1]), signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert "which is saved" in out, err
    assert len(saved("saved_models")["training"]["processes"]) == 2


def test_too_many_processes_for_the_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "datasets" / "tiny", count=1)
    result = train("--n_epochs=1")
    assert result.returncode != 0 and "1 images are too few for 2 processes" in result.stderr


# ---- who gets what ----


@pytest.mark.parametrize(("n", "batch_size", "world"), [(9, 2, 2), (10, 1, 3), (7, 4, 2), (12, 3, 4), (5, 2, 5)])
def test_processes_share_an_epoch_without_repeating_a_sample(n, batch_size, world):
    shares = [list(epoch_batches(n, batch_size, 0, 2, 0, rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    for step in zip(*shares, strict=True):
        assert len({len(batch) for batch in step}) == 1 and 1 <= len(step[0]) <= batch_size
    seen = [sample for share in shares for batch in share for sample in batch]
    assert len(seen) == len(set(seen)) == 2 * (n // world) * world
    assert {sample // n for sample in seen} == {0, 1}
