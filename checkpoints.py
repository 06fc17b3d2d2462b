"""Checkpoints: one self-describing file for each, ``<folder>/epoch_<N>.pth`` after N epochs.

A file holds a dict of plain values and tensors, so that it loads with ``weights_only=True`` and runs no code:
    format, epoch, steps, options (every flag)
    generators: {"G_AB", "G_BA"}, the averaged ones that translate
    training: everything else that the next step depends on; missing from the older files of a run, which keep
              the generators alone
"""

import os
import re
from pathlib import Path

import torch

from errors import UserError

FORMAT = 1


def checkpoint_path(folder, epoch):
    return Path(folder) / f"epoch_{epoch}.pth"


def saved_epochs(folder):
    """The epochs after which ``folder`` has a checkpoint, ascending."""
    names = (re.fullmatch(r"epoch_(\d+)\.pth", path.name) for path in Path(folder).glob("epoch_*.pth"))
    return sorted(int(name[1]) for name in names if name)


def find_checkpoint(folder, epoch):
    """The path for an epoch's number or ``latest``. Raises UserError with those there are."""
    epochs = saved_epochs(folder)
    if not epochs:
        raise UserError(f"there is no checkpoint in {folder}; train first: python cycle_gan.py --dataset_name ...")
    if epoch == "latest":
        epoch = epochs[-1]
    if epoch not in epochs:
        raise UserError(f"there is no checkpoint after epoch {epoch} in {folder}; there are {join(epochs)}")
    return checkpoint_path(folder, epoch)


def join(epochs):
    return ", ".join(str(epoch) for epoch in epochs)


def save(folder, state, keep):
    """Write a checkpoint whole or not at all, then reduce all but the newest ``keep`` to their generators."""
    path = checkpoint_path(folder, state["epoch"])
    write(path, {"format": FORMAT, **state})
    earlier = [epoch for epoch in reversed(saved_epochs(folder)) if epoch < state["epoch"]]
    for epoch in earlier[keep - 1 :]:
        old = load(checkpoint_path(folder, epoch))
        if old.pop("training", None) is None:
            break  # the older ones were reduced before
        write(checkpoint_path(folder, epoch), old)
    return path


def write(path, state):
    """Write to a temporary file beside ``path`` and rename it: whoever looks sees the old file or the whole new one."""
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path):
    """Read a checkpoint onto the CPU. Raises UserError if it is damaged or not one of ours."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch, zipfile and pickle each have their own for a broken file
        raise UserError(f"{path} is damaged or not a checkpoint; remove it, or choose another --epoch") from error
    if not isinstance(state, dict) or "generators" not in state:
        raise UserError(f"{path} is not a checkpoint of this program; choose another --epoch")
    if state["format"] > FORMAT:
        raise UserError(f"{path} has the newer format {state['format']}; update this program to read it")
    return state


def load_full(path):
    """Read a checkpoint to resume from. Raises UserError if only its generators were kept."""
    state = load(path)
    if "training" not in state:
        raise UserError(f"{path} keeps only the generators, for test.py; resume from a newer one: --epoch latest")
    return state


def set_aside(folder):
    """Move an earlier run's folder to ``<folder>.1``, ``.2`` … so that a new run overwrites nothing."""
    folder, number = Path(folder), 1
    while (target := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(target)
    print(f"{folder} held an earlier run, which is now in {target}")
