"""Two nodes, which here are two agents of torchrun on one machine that meet at the loopback address."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from browser import free_port
from conftest import ROOT, equal, make_dataset
from test_distributed import ENVIRONMENT, command, saved, train

FLAGS = ["--recipe=lsgan", "--batch_size=2", "--n_epochs=6", "--epoch=auto", "--checkpoint_every=1", "--keep=2"]


@pytest.fixture
def nine_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "datasets" / "tiny", count=9)
    return tmp_path


def agents(port, log):
    """Both nodes' agents, each in a session of its own, as the queue of a cluster starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_id=1"]
    launcher += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}"]
    words = [*launcher, *command(*FLAGS, processes=1)[1:]]
    settings = dict(env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    return [subprocess.Popen(words, **settings) for _ in range(2)]


def processes_of(agent):
    """Their numbers."""
    listed = subprocess.run(["pgrep", "-P", str(agent.pid)], capture_output=True, text=True)
    return [int(number) for number in listed.stdout.split()]


def wait_for_a_checkpoint():
    deadline = time.monotonic() + 200
    while not list(Path("saved_models/tiny").glob("epoch_*.pth")) and time.monotonic() < deadline:
        time.sleep(0.05)


def end(nodes):
    """Each agent with its process, at once."""
    for node in nodes:
        if node.poll() is None:
            for process in [node.pid, *processes_of(node)]:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        node.wait()


def test_a_run_whose_node_dies_goes_on_by_the_same_command_as_if_nothing_had_been(nine_images):
    straight = train(*FLAGS, "--checkpoint_dir=straight")
    assert straight.returncode == 0, straight.stderr
    with open("log", "w+") as log:
        nodes = agents(free_port(), log)
        try:
            wait_for_a_checkpoint()
        finally:
            end(nodes[1:])  # one dies,
            end(nodes[:1])  # and srun --kill-on-bad-exit ends the other
        assert saved("saved_models")["epoch"] < 6, Path("log").read_text()
        nodes = agents(free_port(), log)
        try:
            assert [node.wait(timeout=240) for node in nodes] == [0, 0], Path("log").read_text()
        finally:
            end(nodes)
    assert equal(saved("saved_models")["training"], saved("straight")["training"])
    assert not Path("saved_models/tiny.1").exists()


def test_torchrun_restarts_a_run_whose_process_dies_as_if_nothing_had_been(nine_images):
    """``--max_restarts``, with the command line that the script for queues has."""
    straight = train(*FLAGS, "--checkpoint_dir=straight")
    assert straight.returncode == 0, straight.stderr
    words = command(*FLAGS)
    words.insert(words.index("--standalone"), "--max_restarts=1")
    with open("log", "w+") as log:
        agent = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_a_checkpoint()
            os.kill(processes_of(agent)[1], signal.SIGKILL)
            assert agent.wait(timeout=240) == 0, Path("log").read_text()
        finally:
            end([agent])
    assert "resuming after" in Path("log").read_text()
    assert equal(saved("saved_models")["training"], saved("straight")["training"])
    assert not Path("saved_models/tiny.1").exists()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_queues_script_starts_one_agent_on_each_node(tmp_path):
    """With an srun that only notes what it was told."""
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > told\n')
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho node7\necho node9\n")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    settings = {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "4711",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_NODELIST": "x",
    }
    environment = {**os.environ, **settings, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    script = ROOT / "scripts" / "slurm.sh"
    result = subprocess.run(
        ["bash", script, "--dataset_name", "a b"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    told = (tmp_path / "told").read_text().splitlines()
    assert told[told.index("--nnodes") + 1] == "2" and told[told.index("--nproc_per_node") + 1] == "4"
    assert told[told.index("--rdzv_endpoint") + 1].startswith("node7:")
    assert told[told.index("cycle_gan.py") :] == [
        *["cycle_gan.py", "--epoch", "auto", "--checkpoint_every", "10m", "--dataset_name", "a b"]
    ]
