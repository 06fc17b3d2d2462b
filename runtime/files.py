"""Files: read through one door, and written whole or not at all."""

import contextlib
import errno
import os
import re
import secrets
import stat
from pathlib import Path

LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")


def open_regular(path, mode="rb"):
    """``open``, for regular files alone. Raises OSError for a pipe, a device or a socket: they may never end."""
    return open(path, mode, opener=_opener)


def _opener(path, flags):
    with contextlib.suppress(FileNotFoundError):  # to open a device may already have an effect
        _check_regular(os.stat(path), path)
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        _check_regular(os.fstat(descriptor), path)  # it may have been replaced in between
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(status, path):
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # ``open`` refuses folders by itself
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


@contextlib.contextmanager
def replacing(path, durable=False):
    """Yields a binary file whose content stands at ``path`` after the block: whole, or not at all.

    It is a temporary file beside ``path``, renamed at the end. ``durable``: it survives a loss of power from then on.
    Raises OSError with the name ``path``; what was there before is then untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = temporary(path)
    try:
        with named_errors(path, beside):
            with open(beside, "xb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(beside, path)
            if durable:
                sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder):
    """Let the names in ``folder`` survive a loss of power, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary(path):
    """A path beside ``path`` at which there is nothing: short, for names of any length, and known to
    ``remove_leftovers``."""
    return path.with_name(f".{secrets.token_hex(8)}.tmp")


def read(path):
    """The bytes of a regular file. Raises OSError."""
    with open_regular(path) as file:
        return file.read()


def write(path, content):
    """Write the bytes ``content`` to ``path``, whole or not at all. Raises OSError."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def named_errors(path, alias=None):
    """Inside, an OSError that names no file, as writing to an open one raises it, or ``alias``, is one of ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, alias, os.fspath(alias or path)):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def remove_leftovers(folder):
    """Remove what a killed process left half written in ``folder``, in which no other process may be writing."""
    for path in Path(folder).glob(".*.tmp"):
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
