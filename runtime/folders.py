"""Folders for output: writable, apart from what is read, and never at the cost of a file that is already there."""

import contextlib
import functools
import itertools
import json
import os
from pathlib import Path

from runtime import files
from runtime.errors import UserError, tell

WRITTEN = ".written.json"  # in a folder for output, the names of the files that are this program's
SIGNS_OF_A_RUN = ("runs.jsonl", "scalars.jsonl", "epoch_*.pth", "headers.jsonl")
OF_THE_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}  # what file managers leave where they have looked


def check_writable(folder):
    """Create ``folder`` and try to write there, so that a run fails at its start and not at its first checkpoint."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    probe = files.temporary(folder / "probe")
    probe.touch()
    probe.unlink()


# ---------------------------------------------------------------------------------------------------------------------
# A run's folders
# ---------------------------------------------------------------------------------------------------------------------


def check_ours(folder):
    """Raise UserError where ``folder`` holds something else than a run of this program."""
    folder = Path(folder)
    if holds_files(folder) and not any(any(folder.glob(sign)) for sign in SIGNS_OF_A_RUN):
        raise UserError(f"{folder} holds files that are no run of this program; name another folder for its output")


def set_aside(*folders):
    """Move an earlier run's folders, if there is one, to ``<folder>.1``, ``.2`` …, all with the same number: a new run
    overwrites nothing.

    Raises UserError where one of ``folders`` holds something else.
    """
    for folder in folders:
        check_ours(folder)
    for folder, target in zip(map(Path, folders), free_beside(*folders), strict=True):
        if holds_files(folder):
            folder.rename(target)
            tell(f"{folder} held an earlier run, which is now in {target}")


def holds_files(folder):
    names = {path.name for path in folder.iterdir()} - OF_THE_SYSTEM if folder.exists() else ()
    return not all(map(files.LEFTOVER.fullmatch, names))


def move_aside(paths, target):
    """Move files to the folder ``target``, such as ``free_beside`` finds. It may be there already: grids and
    checkpoints can share one."""
    target.mkdir(exist_ok=True)
    for path in paths:
        path.rename(target / path.name)


def free_beside(*folders):
    """The first of ``<folder>.1``, ``.2`` … that is not there, beside each of ``folders`` with the same number."""
    folders = list(map(Path, folders))
    numbered = ([folder.with_name(f"{folder.name}.{number}") for folder in folders] for number in itertools.count(1))
    return next(paths for paths in numbered if not any(map(os.path.lexists, paths)))


def make_ready(*folders, anew):
    """Make ``folders`` ready for a run; where that begins ``anew``, an earlier one is set aside. Raises UserError."""
    if anew:
        set_aside(*folders)
    for folder in folders:
        check_writable(folder)
        files.remove_leftovers(folder)


# ---------------------------------------------------------------------------------------------------------------------
# Outputs and inputs
# ---------------------------------------------------------------------------------------------------------------------


def check_apart(output, sources):
    """Raise UserError where the folder ``output`` lies in one of the folders ``sources``, and would be read later."""
    for source in sources:
        if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(source)):
            raise UserError(
                f"{output} lies in {source}: what is written there would overwrite images, or be read as one; "
                "name another folder for output"
            )


@contextlib.contextmanager
def claimed(folder, paths, inputs, overwrite=False):
    """Make ``folder`` ready, and note there that the files ``paths`` are this program's from now on. Behind it,
    whatever went wrong inside, a file that was not written is nobody's again. Raises UserError as ``check_free``."""
    check_free(folder, paths, inputs, overwrite)
    names, ours = {os.path.relpath(path, folder) for path in paths}, read_written(folder)
    before = {name: identity(Path(folder) / name) for name in names - ours}  # of others, or of nobody
    note(folder, ours | names)
    try:
        yield
    finally:  # of these names alone: another process may be in the middle of its own
        written = {name for name in names if identity(Path(folder) / name) not in (None, before.get(name))}
        note(folder, (read_written(folder) - names) | written)


def check_free(folder, paths, inputs, overwrite=False):
    """Make sure that the files ``paths`` can be written to ``folder``.

    Raises UserError where one of them is one of ``inputs``, under whichever name; or where one would replace a file
    that this program did not write there, unless ``overwrite``.
    """
    folder = Path(folder)
    names = {os.path.relpath(path, folder) for path in paths}
    ours, read = read_written(folder), {identity(path) for path in inputs} - {None}
    for name in sorted(names):
        if identity(folder / name) in read:
            raise UserError(f"{folder / name} would be read and overwritten; name another folder for output")
    is_file = functools.cache(Path.is_file)  # of many names in few folders
    for name in sorted(names - ours):
        path = folder / name
        if way := next(filter(is_file, path.parents), path if path.is_dir() else None):
            raise UserError(f"{path} cannot be written: {way} is in the way; remove it, or name another folder")
        if os.path.lexists(path) and not overwrite:
            raise UserError(
                f"{path} is there already, and not by this program; name another folder, or add --overwrite"
            )
    check_writable(folder)


def note(folder, names):
    """Write down in ``folder`` that the files of these ``names`` are this program's."""
    files.write(Path(folder) / WRITTEN, json.dumps(sorted(names)).encode())


def write_ours(folder, contents, overwrite=False, alone=False):
    """Write ``contents``, name → bytes, into ``folder``, as ``check_free`` allows. ``alone``: the files that this
    program wrote there earlier, and does not write now, go."""
    folder = Path(folder)
    with claimed(folder, [folder / name for name in contents], (), overwrite):
        if alone:
            remove_others(folder, contents)
        for name, content in contents.items():
            files.write(folder / name, content)


def remove_others(folder, names, below=""):
    """Remove the files that this program wrote to ``folder`` earlier, as far as their names begin with ``below``, a
    prefix or several, and are not among ``names``. Returns how many were there."""
    gone, there = set(), 0
    for name in read_written(folder) - set(names):
        if name.startswith(below) and may_go(folder, name):
            there += os.path.lexists(folder / name)
            (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # unless it was the last one
                (folder / name).parent.rmdir()
            gone.add(name)
    note(folder, read_written(folder) - gone)
    return there


def may_go(folder, name):
    """Whether ``name``, which ``folder`` has on its list, is that of no folder and of nothing outside of it."""
    try:
        inside = Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder))
    except ValueError:  # a name that none can have
        return False
    return inside and not (folder / name).is_dir()


def read_written(folder):
    """The names of the files in ``folder`` that are this program's."""
    try:
        with files.open_regular(folder / WRITTEN) as file:
            return {name for name in json.loads(file.read()) if isinstance(name, str)}
    except (OSError, ValueError, TypeError, RecursionError):  # missing or damaged: then it is nobody's word
        return set()


def identity(path):
    """What two names of one file have in common; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the latter at a name that none can have
        return None
    return status.st_dev, status.st_ino
