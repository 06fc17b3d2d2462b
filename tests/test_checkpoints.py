"""A checkpoint is whole or absent, runs no code, and says what it is."""

import errno
import io
import json
import os
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resuming
from options import parse_training
from readers.domains import PICTURES, plain
from runtime import checkpoints, provenance
from runtime.errors import UserError
from runtime.folders import make_ready, set_aside
from runtime.saver import Saver

OPTIONS = vars(parse_training([])[0])
DOMAINS = plain({"A": PICTURES, "B": PICTURES})


def state(epoch, sample=0, **more):
    training = {"x": torch.arange(3.0), "critic_objective": {}}
    plain = {
        "steps": 0,
        "options": OPTIONS,
        "given": [],
        "data": {},
        "domains": DOMAINS,
        "best": {"score": 1.0, "waited": 0},
    }
    return {
        "epoch": epoch, "sample": sample, **plain, "generators": {"w": torch.ones(2)}, "training": training, **more
    }  # fmt: skip


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = checkpoints.save(tmp_path, state(4), keep=3)
    loaded_path, loaded = checkpoints.load(tmp_path, 4, resume=True)
    assert loaded_path == path and loaded.pop("format") == checkpoints.FORMAT
    assert equal(loaded, state(4))
    assert os.listdir(tmp_path) == ["epoch_4.pth"]
    assert equal(torch.load(path, weights_only=True)["training"], state(4)["training"])  # torch alone reads it too


def test_a_better_one_of_a_course_that_was_left_is_later_though_no_other_is(tmp_path):
    checkpoints.save(tmp_path, state(5), keep=1)
    checkpoints.write(tmp_path / "best.pth", {"format": checkpoints.FORMAT, **state(7)})
    assert checkpoints.later_than(tmp_path, state(5)) == [tmp_path / "best.pth"]
    assert checkpoints.later_than(tmp_path, state(7)) == []


def test_where_the_best_alone_is_there_yet_its_name_is_told(tmp_path):
    checkpoints.write(tmp_path / "best.pth", {"format": checkpoints.FORMAT, **state(7)})
    with pytest.raises(UserError, match="--epoch best"):
        checkpoints.load(tmp_path, "latest")
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoints.load(tmp_path, "latest", resume=True)
    assert checkpoints.load(tmp_path, "best")[0] == tmp_path / "best.pth"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_no_damage(tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error

    checkpoints.save(tmp_path, state(1), keep=1)
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(UserError, match="too little memory to read .*epoch_1.pth") as raised:
        checkpoints.load(tmp_path, "latest")
    assert not isinstance(raised.value, checkpoints.DamagedFile)


def test_what_another_process_saved_meanwhile_is_not_lost(tmp_path):
    saver = Saver(tmp_path / "run", parse_training([])[0])
    with saver.alone(tmp_path / "images", before=[]):
        pass
    checkpoints.save(tmp_path / "run", state(1), keep=1)
    with saver.alone(tmp_path / "images", checkpoints.listed(tmp_path / "run")):
        pass
    alone = saver.alone(tmp_path / "images", before=[])
    with pytest.raises(UserError, match="another process saved to .*give the command again"), alone:
        pass


def test_only_the_newest_keep_everything(tmp_path):
    for position in ((1, 0), (2, 0), (2, 7), (3, 0), (9, 0), (9, 5), (10, 0)):
        checkpoints.save(tmp_path, state(*position), keep=3)
    left = {name[:2]: "training" in checkpoints.load_file(name.path) for name in checkpoints.listed(tmp_path)}
    assert left == {(1, 0): False, (2, 0): False, (3, 0): False, (9, 0): True, (9, 5): True, (10, 0): True}
    with pytest.raises(UserError, match="keeps only the generators.*resume from a newer one"):
        checkpoints.load(tmp_path, 3, resume=True)
    checkpoints.reduce_to_generators(tmp_path / "epoch_10.pth")
    with pytest.raises(UserError, match=r"epoch_10.pth keeps only the generators, for test.py; start a new run"):
        checkpoints.load(tmp_path, "latest", resume=True)


def test_checkpoints_are_found_by_number_or_as_the_latest(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoints.load(tmp_path, "latest")
    for position in ((2, 0), (10, 0), (10, 30)):
        checkpoints.save(tmp_path, state(*position), keep=5)
    (tmp_path / "epoch_x.pth").touch()
    assert checkpoints.load(tmp_path, "latest")[0].name == "epoch_10_sample_30.pth"  # by number, not by name
    assert checkpoints.load(tmp_path, 2)[0].name == "epoch_2.pth"
    with pytest.raises(UserError, match="those there are: 2, 10"):
        checkpoints.load(tmp_path, 3)


def test_where_a_run_has_none_the_others_are_named(tmp_path):
    for name in ("horses", "zebras"):
        checkpoints.save(tmp_path / name, state(1), keep=1)
    with pytest.raises(UserError, match="there are runs called horses, zebras$"):
        checkpoints.load(tmp_path / "monet2photo", "latest")
    with pytest.raises(UserError, match="did you mean horses[?]$"):
        checkpoints.load(tmp_path / "horse", "latest")
    with pytest.raises(UserError, match="there is no file or folder horses here; a run's folder is as saved_models/h"):
        checkpoints.find("horses")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_at_any_length_is_recognised_and_the_latest_falls_back(tmp_path, cut, capsys):
    checkpoints.save(tmp_path, state(1), keep=3)
    path = checkpoints.save(tmp_path, state(2), keep=3)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(checkpoints.DamagedFile, match=r"epoch_2\.pth is damaged"):
        checkpoints.load(tmp_path, 2)
    capsys.readouterr()
    assert checkpoints.load(tmp_path, "latest", resume=True)[0].name == "epoch_1.pth"
    assert "epoch_2.pth is damaged" in capsys.readouterr().err


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_recognised(tmp_path, place, bit):
    path = checkpoints.save(tmp_path, state(1), keep=1)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(checkpoints.DamagedFile):
        checkpoints.load(tmp_path, 1)


def test_every_byte_of_the_ending_counts(tmp_path):
    path = checkpoints.save(tmp_path, state(1), keep=1)
    content = path.read_bytes()
    for place in range(-100, 0):  # the length of the comment, the comment, and what stands before them
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(checkpoints.DamagedFile):
            checkpoints.load(tmp_path, 1)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_reached_is_not_passed_over(tmp_path, monkeypatch, number):
    """It may be whole: a run that went on from the one before it would move it aside."""
    for epoch in (1, 2):
        checkpoints.save(tmp_path, state(epoch), keep=3)
    reach = checkpoints.open_regular

    def refuse(path):
        if Path(path).name == "epoch_2.pth":
            raise OSError(number, "refused", str(path))
        return reach(path)

    monkeypatch.setattr(checkpoints, "open_regular", refuse)
    with pytest.raises(UserError, match="epoch_2.pth: refused; it cannot be read now") as caught:
        checkpoints.load(tmp_path, "latest")
    assert not isinstance(caught.value, checkpoints.DamagedFile)
    assert checkpoints.load(tmp_path, 1)[0].name == "epoch_1.pth"


def test_nothing_whole_is_said_so(tmp_path):
    checkpoints.save(tmp_path, state(1), keep=1).write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint in .* is whole"):
        checkpoints.load(tmp_path, "latest")


def test_strangers_and_newer_formats_are_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / "epoch_1.pth")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        checkpoints.load(tmp_path, 1)
    checkpoints.write(tmp_path / "epoch_2.pth", {**state(2), "format": checkpoints.FORMAT + 1})
    for epoch in (2, "latest"):
        with pytest.raises(UserError, match="newer format"):
            checkpoints.load(tmp_path, epoch)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_loading_runs_no_code(tmp_path):
    """Neither from a bare pickle, nor from a file whose checksum is right."""
    harmful = {"format": 1, "generators": Malicious(tmp_path / "ran")}
    pickle.loads(pickle.dumps(Malicious(tmp_path / "works")))
    assert (tmp_path / "works").exists()
    (tmp_path / "epoch_1.pth").write_bytes(pickle.dumps(harmful))
    checkpoints.write(tmp_path / "epoch_2.pth", harmful)
    for epoch in (1, 2):
        with pytest.raises(UserError, match=f"epoch_{epoch}.pth"):
            checkpoints.load(tmp_path, epoch)
    assert not (tmp_path / "ran").exists()


class FullDisk(io.FileIO):
    """A file that fails at its n-th write, or when it is flushed to the disk after the last."""

    left = 0

    def write(self, content):
        FullDisk.left -= 1
        if FullDisk.left < 0:
            super().write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return super().write(content)


@pytest.mark.parametrize("writes", [0, 1])
def test_a_failing_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch, writes):
    path = checkpoints.save(tmp_path, state(1), keep=1)
    FullDisk.left = writes
    monkeypatch.setattr("builtins.open", FullDisk)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(tmp_path, state(1, more=1), keep=1)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["epoch_1.pth"]
    assert "more" not in checkpoints.load(tmp_path, 1)[1]
    assert checkpoints.save(tmp_path, state(1, more=1), keep=1) == path


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_flush_or_rename_does_as_little_harm(tmp_path, monkeypatch, call):
    checkpoints.save(tmp_path, state(1), keep=1)

    def refuse(*arguments):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="quota"):
        checkpoints.save(tmp_path, state(2), keep=1)
    assert os.listdir(tmp_path) == ["epoch_1.pth"] and checkpoints.load(tmp_path, 1, resume=True)


def test_an_earlier_run_is_set_aside(tmp_path):
    for _ in range(2):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "runs.jsonl").touch()
        set_aside(tmp_path / "run")
    assert sorted(os.listdir(tmp_path)) == ["run.1", "run.2"]


def test_the_folders_of_a_run_are_set_aside_with_one_number(tmp_path):
    for name in ("images/run", "saves/run", "saves/run.1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "runs.jsonl").touch()
    set_aside(tmp_path / "images/run", tmp_path / "saves/run", tmp_path / "none")
    assert os.listdir(tmp_path / "images") == ["run.2"]
    assert sorted(os.listdir(tmp_path / "saves")) == ["run.1", "run.2"]


@pytest.mark.parametrize("name", ["runs.jsonl", "scalars.jsonl", "epoch_3.pth", "headers.jsonl"])
def test_a_run_is_known_by_any_of_its_files(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).touch()
    (tmp_path / "run.1").symlink_to("nowhere")
    set_aside(tmp_path / "run")
    assert os.listdir(tmp_path / "run.2") == [name]


@pytest.mark.parametrize("name", [None, ".DS_Store", ".0123456789abcdef.tmp"])
def test_what_holds_no_run_yet_stays_where_it_is(tmp_path, name):
    (tmp_path / "run").mkdir()
    if name:
        (tmp_path / "run" / name).touch()
    make_ready(tmp_path / "run", anew=True)
    assert os.listdir(tmp_path) == ["run"]
    assert os.listdir(tmp_path / "run") == [name] * (name == ".DS_Store")


def test_no_run_is_set_aside_beside_somebodys_files(tmp_path):
    for folder, name in (("run", "runs.jsonl"), ("mine", "notes.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    with pytest.raises(UserError, match="mine holds files that are no run"):
        set_aside(tmp_path / "run", tmp_path / "mine")
    assert sorted(os.listdir(tmp_path)) == ["mine", "run"]


def test_what_older_checkpoints_do_not_say_is_what_was_before(tmp_path):
    """And stays so when they are resumed again."""
    fresh = parse_training(["--optimizer=muon"])[0]
    older = {name: value for name, value in vars(fresh).items() if name not in ("penalty_interval", "optimizer")}
    saved = checkpoints.load_file(checkpoints.save(tmp_path, state(1, options=older), keep=1))["options"]
    resumed = resuming.resume(fresh, {}, saved, [])
    assert fresh.penalty_interval == 4 and resumed.penalty_interval == 1 and resumed.optimizer == "adam"
    assert resuming.resume(fresh, {}, vars(resumed), []).penalty_interval == 1
    assert resuming.resume(fresh, {"penalty_interval": 2}, saved, []).penalty_interval == 2


def test_minutes_count_from_the_last_checkpoint(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("runtime.saver.time.monotonic", lambda: now[0])
    saver = Saver(tmp_path, Namespace(checkpoint_every="2m", checkpoint_interval=0, n_epochs=9, keep=1))
    monkeypatch.setattr(saver, "_write", lambda run, write: None)
    run = Namespace(sample=1, epoch=0, steps=1, state_dict=dict)
    for seconds, due in ((119, False), (120, True), (121, True)):
        now[0] = seconds
        assert saver.due(run) == due
    saver.save(run)
    for seconds, due in ((122, False), (240, False), (241, True)):
        now[0] = seconds
        assert saver.due(run) == due


def test_a_revision_is_text(tmp_path):
    lines = [{"revision": "abc"}, {"revision": 5}, {"other": 1}]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert provenance.trained_by(tmp_path) == "abc"


def test_outside_of_a_repository_no_revision_is_no_damage(tmp_path, capsys):
    (tmp_path / "runs.jsonl").write_text('{"revision": "abc"}\n{"revision": null}\n')
    assert provenance.trained_by(tmp_path) is None and capsys.readouterr().err == ""
