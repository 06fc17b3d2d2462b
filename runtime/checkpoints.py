"""Checkpoints: one self-describing file each, ``<folder>/epoch_<N>.pth`` after N epochs, ``epoch_<N>_sample_<S>.pth``
S samples further.

A file holds a dict of plain values and tensors, so that it loads with ``weights_only=True`` and runs no code:
    format, epoch, sample, steps, options (every flag), given (the names of those given by hand)
    data: the fingerprint of what it was trained on
    seconds: what training has taken so far
    best: the score of the best evaluation, and how many came after it
    unmeasured: whether the evaluation that is due here was broken off
    arithmetic: the kind of device and the precision, which decide the last bits
    domains: what the images of each side are, fields of readers.domains.Domain
    generators: the averaged ones that translate
    training: everything else that the next step depends on, with a list "processes" of what differs between those
              of a distributed run; missing from the older files of a run, which keep the generators alone

import_weights.py writes ``epoch_0.pth`` without "training", and instead
    imported: which files it came from, network → {"file", "sha256"}; generators may hold one of the two alone
    critics: those that came with them, "D_A" and "D_B", for --init_from

``best.pth`` is like the older ones, with the numbers of its evaluation under "metrics".

It is the zip archive that ``torch.save`` writes, with a SHA-256 of all its bytes as the archive's comment.
"""

import contextlib
import errno
import hashlib
import io
import os
import pickle
import re
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import torch

from options import TRAIN
from runtime import pickles
from runtime.errors import UserError, describe, did_you_mean, warn
from runtime.files import open_regular, replacing
from runtime.flags import as_flag, complete
from runtime.weights import FLOATS, WHOLE

FORMAT = 4
OLD_DEFAULTS = {"penalty_interval": 1, "optimizer": "adam"}  # of flags that older checkpoints lack
NO_COMMENT = b"\0\0"  # how a zip archive ends: the length of its comment, and the comment
COMMENT = b"sha256:%s"
COMMENT_SIZE = len(COMMENT) - 2 + 64
OUT_OF_REACH = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)  # errors that say nothing of the file itself


class Name(NamedTuple):
    """What a checkpoint's file name says, in the order of training."""

    epoch: int
    sample: int
    path: Path


def path_of(folder, epoch, sample=0):
    return Path(folder) / (f"epoch_{epoch}_sample_{sample}.pth" if sample else f"epoch_{epoch}.pth")


def listed(folder):
    """The checkpoints in ``folder`` as Names, oldest first."""
    matches = (re.fullmatch(r"epoch_(\d+)(?:_sample_(\d+))?\.pth", path.name) for path in Path(folder).glob("*.pth"))
    return sorted(Name(int(m[1]), int(m[2] or 0), Path(folder) / m[0]) for m in matches if m)


def load(folder, epoch, resume=False):
    """The checkpoint after ``epoch``, the ``latest`` or the ``best``: (path, its dict on the CPU).

    ``latest`` passes over damaged files, with a warning. ``resume`` wants one that training can go on from.
    Raises UserError with those there are.
    """
    names, best = listed(folder), Path(folder) / "best.pth"
    if epoch == "best" and os.path.lexists(best):  # in the first epochs, or copied from elsewhere, it is alone
        return best, load_file(best, resume)
    if not names:
        if os.path.lexists(best) and not resume:
            raise UserError(f"{folder} holds the best checkpoint alone so far; take --epoch best")
        others = {path.parent for path in Path(folder).parent.glob("*/*.pth")} - {Path(folder)}
        runs = sorted(other.name for other in others)
        few = f"; there are runs called {', '.join(runs[:5])}{' …' * (len(runs) > 5)}" * bool(runs)
        raise UserError(
            f"there is no checkpoint in {folder}; train first: python cycle_gan.py --dataset_name ..."
            f"{did_you_mean(Path(folder).name, runs) or few}"
        )
    if epoch == "best":
        raise UserError(f"there is no best checkpoint in {folder}; train with --eval_interval, or name an --epoch")
    if epoch != "latest":
        if (path := path_of(folder, epoch)) not in [name.path for name in names]:
            whole = ", ".join(str(name.epoch) for name in names if not name.sample)
            others = f"; those there are: {whole}" if whole else "; take --epoch latest"
            raise UserError(f"there is no checkpoint after epoch {epoch} in {folder}{others}")
        return path, load_file(path, resume)
    for name in reversed(names):
        try:
            return name.path, load_file(name.path, resume)
        except DamagedFile as error:
            warn(f"{error}; trying the one before it")
    raise UserError(f"no checkpoint in {folder} is whole; train again{', without --epoch' if resume else ''}")


def has_newer(path):
    """Whether there are later checkpoints beside the one at ``path``, or any beside ``best.pth``."""
    names = [name.path for name in listed(path.parent)]
    return bool(names) and path != names[-1]


def find(path, epoch="latest"):
    """The checkpoint at ``path``: a file, or a run's folder, of which ``epoch`` is taken. As ``load`` returns it."""
    path = Path(path)
    if path.name == str(path) and not path.exists():  # the run's name
        raise UserError(f"there is no file or folder {path} here; a run's folder is as saved_models/{path}")
    return (path, load_file(path)) if path.is_file() else load(path, epoch)


class DamagedFile(UserError):
    """A checkpoint that was cut short or changed."""


def load_file(path, resume=False):
    """Read one file, and check all that it says. Raises DamagedFile, or UserError where it is whole and unusable."""
    try:
        state = unpack(path, read_archive(path))
    except MemoryError as error:
        raise UserError(f"there is too little memory to read {path}; close other programs") from error
    if state["format"] > FORMAT:
        raise UserError(f"{path} has the newer format {state['format']}; update this program to read it")
    if state["format"] < FORMAT:
        raise UserError(f"{path} has the older format {state['format']}; runs.jsonl names the revision that reads it")
    check_content(path, state, {**CONTENT, **{name: check for name, check in LATER.items() if name in state}})
    if resume:
        if "training" not in state:
            newer = "resume from a newer one (--epoch latest), or " if has_newer(path) else ""
            raise UserError(
                f"{path} keeps only the generators, for test.py; {newer}start a new run from it (--init_from)"
            )
        check_content(path, state, FOR_RESUMING)
    try:
        given = {name: value for name, value in state["options"].items() if value != ""}  # which earlier versions took
        state["options"] = vars(complete(TRAIN, {**OLD_DEFAULTS, **given}))
    except UserError as error:
        raise UserError(
            f"{path} was not trained by this revision of the program ({error}); runs.jsonl beside it names its own"
        ) from None
    if resume and (unknown := [as_flag(name, value) for name, value in given.items() if name not in state["options"]]):
        flags = shorten(" ".join(unknown), 200, placeholder=" …")
        warn(f"{path} was trained with {flags}, which this revision of the program does not know: it goes on without")
    return state


def read_archive(path):
    """The bytes of a file, as ``torch.save`` wrote them. Raises DamagedFile where they are others now."""
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        if error.errno in OUT_OF_REACH:  # it may be whole: nothing is to be lost over it
            raise UserError(f"{describe(error)}; it cannot be read now: make that possible, then try again") from error
        raise DamagedFile(f"{describe(error)}; remove it, or choose another --epoch") from error
    size = len(NO_COMMENT) + COMMENT_SIZE
    if content[-size:] != ending(archive := content[:-size] + NO_COMMENT):
        raise DamagedFile(
            f"{path} is damaged or not a checkpoint of this program; remove it, or choose another --epoch "
            "(import_weights.py reads another program's)"
        )
    return archive


def unpack(path, archive):
    """The dict in the bytes of a file. Raises UserError where that may do harm: run code, or take more memory than it
    is large; and MemoryError."""
    try:
        state = pickles.read(archive, times=2)  # the averaged generators are in two places
    except pickles.TooLarge:
        raise UserError(f"{path} would unpack to more than it holds, and is not loaded; remove it") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than weights and plain values, and is not loaded; remove it") from error
    except MemoryError:
        raise
    except Exception as error:  # a forged archive makes zipfile and torch fail in any way
        raise DamagedFile(f"{path} is damaged, and is not loaded; remove it, or choose another --epoch") from error
    if not isinstance(state, dict) or not is_count(state.get("format")):
        raise UserError(f"{path} is not a checkpoint of this program; remove it, or choose another --epoch")
    return state


# ---------------------------------------------------------------------------------------------------------------------
# What a file has to hold
# ---------------------------------------------------------------------------------------------------------------------


def is_count(value):
    return type(value) is int and 0 <= value < 2**53


def is_dict(value):
    return isinstance(value, dict)


def are_names(value):
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def is_fingerprint(value):
    return is_dict(value) and all(is_dict(side) and all(map(is_count, side.values())) for side in value.values())


def is_weight(value):
    return (
        torch.is_tensor(value)
        and (value.device.type, value.layout) == ("cpu", torch.strided)
        and value.dtype in (*FLOATS, *WHOLE)
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()  # no row counts twice
        and bool(value.isfinite().all())
    )


def are_weights(value):
    """Tensors by name, and what modules say of themselves beside them."""
    return is_dict(value) and all(
        isinstance(name, str) and (is_dict if name.endswith("_extra_state") else is_weight)(part)
        for name, part in value.items()
    )


def are_critics(value):
    return is_dict(value) and value.keys() <= {"D_A", "D_B"} and all(map(are_weights, value.values()))


def are_origins(value):
    return is_dict(value) and all(is_dict(file) and are_names([*file, *file.values()]) for file in value.values())


def check_readable(network):
    """Raise UserError where a buffer of ``network`` could be written to a checkpoint, but not be read again."""
    parameters = dict(network.named_parameters())
    for name, value in network.state_dict().items():
        if torch.is_tensor(value) and name not in parameters and not is_weight(value.cpu()):
            raise UserError(
                f"the buffer {name} could not be read from a checkpoint again: that takes finite numbers, each in a "
                "place of its own; one that is always the same may be registered with persistent=False"
            )


CONTENT = {
    "epoch": is_count,
    "sample": is_count,
    "steps": is_count,
    "options": is_dict,
    "given": are_names,
    "data": is_fingerprint,
    "domains": lambda value: is_dict(value) and value.keys() == {"A", "B"} and all(map(is_dict, value.values())),
    "generators": are_weights,
}
FOR_RESUMING = {
    "training": lambda value: is_dict(value) and are_weights(value.get("critic_objective")),
    "best": lambda value: is_dict(value) and type(value.get("score")) is float and is_count(value.get("waited")),
}


LATER = {  # what checkpoints of this format did not have at first, or only imported ones have
    "seconds": lambda value: type(value) in (int, float) and 0 <= value < 1e12,
    "arithmetic": lambda value: isinstance(value, str),
    "unmeasured": lambda value: isinstance(value, bool),
    "critics": are_critics,
    "imported": are_origins,
}


def check_content(path, state, checks):
    """Raise UserError where a part of ``state`` is missing, or is not what ``checks`` say."""
    for name, check in checks.items():
        if name not in state or not check(state[name]):
            raise UserError(f"{path} has no usable {name!r}; remove it, or choose another --epoch")


def save(folder, state, keep):
    """Write a checkpoint whole or not at all; of those before it, keep ``keep`` − 1 in full.

    Older ones are reduced to their generators after whole epochs, and removed otherwise; where the disk refuses that,
    it is said. Raises OSError where it refuses the new one; the files that were there are then untouched.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, state["epoch"], state["sample"])
    write(path, {"format": FORMAT, **state})
    position = state["epoch"], state["sample"]
    earlier = [name for name in reversed(listed(folder)) if name[:2] < position]
    for name in earlier[keep - 1 :]:
        try:
            if name.sample:
                name.path.unlink()
            elif not reduce_to_generators(name.path):
                break  # as were those before it
        except OSError as error:
            warn(f"{name.path} stays as large as it is ({describe(error)}); the newer checkpoints are whole")
    return path


def later_than(folder, state):
    """The checkpoints in ``folder`` after ``state``, and ``best.pth`` with them where that is later, too: paths."""
    position = state["epoch"], state["sample"]
    later = [name.path for name in listed(folder) if name[:2] > position]
    best = Path(folder) / "best.pth"
    with contextlib.suppress(UserError):  # there is none, or none that can be read
        found = load_file(best)
        later += [best] if (found["epoch"], found["sample"]) > position else []
    return later


def reduce_to_generators(path):
    """Drop from a file what only training needs; False if there is nothing to be dropped, or nothing to be read."""
    try:
        state = load_file(path)
    except UserError:
        return False
    if state.pop("training", None) is None:
        return False
    write(path, state)
    return True


def write(path, state):
    """Write one file: a reader sees the old one or the whole new one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    archive = buffer.getvalue()
    with replacing(path, durable=True) as file:
        file.write(archive[: -len(NO_COMMENT)])
        file.write(ending(archive))


def ending(archive):
    """What takes the place of NO_COMMENT in ``archive``."""
    return COMMENT_SIZE.to_bytes(2, "little") + COMMENT % hashlib.sha256(archive).hexdigest().encode()
