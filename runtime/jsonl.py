"""Logs: files of JSON lines, which a run appends to and a later one reads. A damaged line costs that line alone."""

import json
import os

from runtime.errors import warn
from runtime.files import named_errors, open_regular, replacing


def append(path, row):
    """Add the dict ``row`` to the file at ``path``, on a line of its own even where the last one was cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with named_errors(path), open_regular(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + line(row))


def line(row):
    return json.dumps(row).encode() + b"\n"


def write(path, rows):
    """Write the dicts ``rows`` as the file at ``path``."""
    with replacing(path) as file:
        file.writelines(map(line, rows))


def read(path, fits):
    """The dicts in the file at ``path`` for which ``fits(row)`` is true; none where there is no file.

    Other lines, as a full disk leaves them, are dropped with a warning.
    """
    if not path.exists():
        return []
    with open_regular(path) as file:
        lines = file.read().splitlines()
    rows = [row for row in map(parse, lines) if row is not None and fits(row)]
    if dropped := len(lines) - len(rows):
        warn(f"{dropped} of the {len(lines)} lines of {path} are damaged, and left out")
    return rows


def parse(text):
    """The dict in a line, or None."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
