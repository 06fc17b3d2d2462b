"""A checkpoint is whole or absent, runs no code, and says what it is."""

import os
import pickle

import pytest
import torch
from conftest import equal

import checkpoints
from errors import UserError


def state(epoch, **more):
    return {"epoch": epoch, "generators": {"G_AB": {}}, "training": {"x": torch.arange(3.0)}, **more}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = checkpoints.save(tmp_path, state(4, options={"a": 1, "b": None, "c": "d", "e": 0.5, "f": True}), keep=3)
    loaded = checkpoints.load_full(path)
    assert loaded.pop("format") == checkpoints.FORMAT
    assert equal(loaded, state(4, options={"a": 1, "b": None, "c": "d", "e": 0.5, "f": True}))
    assert os.listdir(tmp_path) == ["epoch_4.pth"]


def test_only_the_newest_keep_everything(tmp_path):
    for epoch in (1, 2, 3, 9, 10):
        checkpoints.save(tmp_path, state(epoch), keep=2)
    assert checkpoints.saved_epochs(tmp_path) == [1, 2, 3, 9, 10]
    full = {e: "training" in checkpoints.load(checkpoints.checkpoint_path(tmp_path, e)) for e in (1, 2, 3, 9, 10)}
    assert full == {1: False, 2: False, 3: False, 9: True, 10: True}
    with pytest.raises(UserError, match="keeps only the generators"):
        checkpoints.load_full(checkpoints.checkpoint_path(tmp_path, 3))


def test_checkpoints_are_found_by_number_or_as_the_latest(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoints.find_checkpoint(tmp_path, "latest")
    for epoch in (2, 10):
        checkpoints.save(tmp_path, state(epoch), keep=5)
    (tmp_path / "epoch_x.pth").touch()
    assert checkpoints.find_checkpoint(tmp_path, "latest").name == "epoch_10.pth"  # by number, not by name
    assert checkpoints.find_checkpoint(tmp_path, 2).name == "epoch_2.pth"
    with pytest.raises(UserError, match="there are 2, 10"):
        checkpoints.find_checkpoint(tmp_path, 3)


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_cut_file_is_named(tmp_path, share):
    path = checkpoints.save(tmp_path, state(1), keep=1)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"epoch_1\.pth is damaged"):
        checkpoints.load(path)


def test_strangers_and_newer_formats_are_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / "epoch_1.pth")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        checkpoints.load(tmp_path / "epoch_1.pth")
    torch.save({"format": checkpoints.FORMAT + 1, **state(2)}, tmp_path / "epoch_2.pth")
    with pytest.raises(UserError, match="newer format"):
        checkpoints.load(tmp_path / "epoch_2.pth")


def test_loading_runs_no_code(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for name, write in (("epoch_1.pth", torch.save), ("epoch_2.pth", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        write({"generators": Malicious()}, tmp_path / name)
        with pytest.raises(UserError):
            checkpoints.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_failing_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = checkpoints.save(tmp_path, state(1), keep=1)

    def full_disk(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        checkpoints.save(tmp_path, state(1, more=1), keep=1)
    assert os.listdir(tmp_path) == ["epoch_1.pth"]
    assert "more" not in checkpoints.load(path)


def test_an_earlier_run_is_set_aside(tmp_path):
    for _ in range(2):
        (tmp_path / "run").mkdir()
        checkpoints.set_aside(tmp_path / "run")
    assert sorted(os.listdir(tmp_path)) == ["run.1", "run.2"]
