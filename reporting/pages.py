"""Pages that open in any browser, without a server or a network: how a training goes, and what was translated.

Each is ``run.html`` or ``results.html`` as ``index.html`` beside a ``data.js`` that is written anew; the training page
reads it again every few seconds. (A page from a disk may not read a JSON file, but it may run a script.)
"""

import json
import os
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from runtime import files

HERE = Path(__file__).parent
LINK = '<link rel="stylesheet" href="style.css">'  # gives way to the style itself, so that a written page is whole
FILES = "index.html", "data.js"


def write_run(folder, options, step, curves):
    """The page of a training run in ``folder``, with the grids that are there and ``curves``, those of Scalars."""
    series = {name: curve.points for name, curve in curves.items()}
    write(folder, "run", {"step": step, "grids": sorted(grids_in(folder)), "series": series, "options": vars(options)})


def grids_in(folder):
    """The sample grids in a run's ``folder``: step → path."""
    return {int(path.stem): path for path in Path(folder).glob("*.png") if path.stem.isdecimal()}


def write_results(folder, translations):
    """The page of ``translations``, tuples (direction, name, path of the input, path of the output), in ``folder``.

    Those of another direction, which an earlier page there shows, stay on it.
    """

    def address(path):
        try:
            relative = os.path.relpath(path, folder)
        except ValueError:  # another drive of Windows
            return Path(path).resolve().as_uri()
        return quote(os.fsencode(relative.replace(os.sep, "/")))  # names may be in no encoding

    results = [[direction, str(name), address(source), address(made)] for direction, name, source, made in translations]
    made = {direction for direction, *_ in results}
    write(folder, "results", sorted([*results, *(row for row in results_in(folder) if row[0] not in made)]))


def results_in(folder):
    """The rows of the page of translations in ``folder`` whose translations are still there."""

    def is_there(row):
        return len(row) == 4 and os.path.isfile(os.path.join(folder, os.fsdecode(unquote_to_bytes(row[3]))))

    try:
        with files.open_regular(Path(folder) / "data.js") as file:
            rows = json.loads(file.read().removeprefix(b"var results = ").removesuffix(b";\n"))
        return [row for row in rows if all(isinstance(part, str) for part in row) and is_there(row)]
    except (OSError, ValueError, TypeError, RecursionError):  # missing or damaged: then the page begins anew
        return []


def write(folder, name, data):
    """The page ``name``.html with its style in ``folder``, and ``data`` beside it as the script's variable ``name``."""
    style = (HERE / "style.css").read_text(encoding="utf-8")
    page = (HERE / f"{name}.html").read_text(encoding="utf-8").replace(LINK, f"<style>\n{style}</style>")
    for file, content in zip(FILES, (page, f"var {name} = {json.dumps(data)};\n"), strict=True):
        files.write(Path(folder) / file, content.encode())
