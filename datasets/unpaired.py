"""What the scripts that build data sets share: dealing out, and a folder that is whole or absent.

Some things go to trainA, others to trainB, and the rest to testA and testB under equal names. So training never sees
one of them in both styles, and testing has the true translation of each image.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path


def deal(things, test_share, seed):
    """Split a list at random: {"trainA", "trainB", "test"}, disjoint, the two training sides equal up to one."""
    things = list(things)
    random.Random(seed).shuffle(things)
    n_test = max(1, min(round(len(things) * test_share), len(things) - 2))  # each training side has one
    n_A = (len(things) - n_test) // 2
    return {"test": things[:n_test], "trainA": things[n_test : n_test + n_A], "trainB": things[n_test + n_A :]}


def installed(package, file, requirements):
    """The path of a ``file`` that comes with ``package``."""
    try:
        path = Path(metadata.distribution(package).locate_file(file))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.exists():
        fail(f"{package} is not installed; run: pip install -r {requirements}")
    return path


def fail(message):
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def parser_for(description, names):
    """A command line with what all these scripts take: the set's name, its tiles, how to deal them out, where to."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("name", choices=names)
    parser.add_argument("--tile", type=int, default=72, help="tile size in pixels (72: 1.12 times a crop of 64)")
    parser.add_argument("--test_share", type=float, default=0.2, help="share that is kept for testing (0.2)")
    parser.add_argument("--seed", type=int, default=0, help="decides what goes where (0)")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent, help="where the data set's folder goes")
    parser.add_argument("--force", action="store_true", help="replace a data set built with other settings")
    return parser


def make(options, largest, build, more=None):
    """Build the data set of ``options``, as ``parser_for`` reads them, where it is not there already.

    ``build(folder, settings)`` writes it under an empty folder and returns how many images each side has. The settings
    are what decides about its content; ``more`` are those beyond the common ones.
    """
    if not 8 <= options.tile <= largest:
        fail(f"--tile must be between 8 and {largest}, not {options.tile}")
    if not 0 < options.test_share < 1:
        fail(f"--test_share must lie between 0 and 1, not {options.test_share}")
    settings = {key: getattr(options, key) for key in ("name", "tile", "test_share", "seed")} | (more or {})
    write(options, options.name, settings, build)


def write(options, name, settings, build):
    """Build the folder ``name`` under ``--root``, whole, where it is not there already. ``build``: as for ``make``."""
    try:
        write_in(options, options.root / name, settings, build)
    except OSError as error:
        fail(f"{error.filename or options.root}: {error.strerror}; choose another --root")


def write_in(options, target, settings, build):
    replaces = options.force and (target / "about.json").is_file()
    if not replaces and present(target, settings):
        print(f"{target} is already there")
        return
    options.root.mkdir(parents=True, exist_ok=True)
    # Built beside its place and renamed when whole: an interrupted build never looks like a data set.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=options.root) as scratch:
        whole = Path(scratch) / target.name
        whole.mkdir()
        counts = build(whole, settings)
        (whole / "about.json").write_text(written(settings))
        if replaces:
            shutil.rmtree(target)
        elif present(target, settings):  # somebody else built it meanwhile
            return
        whole.rename(target)
    print(f"{target}: " + ", ".join(f"{n} {side}" for side, n in counts.items()))


def present(target, settings):
    """Whether ``target`` already holds this data set; stops with a message where it holds something else."""
    if not target.exists():
        return False
    about = target / "about.json"
    if not about.is_file():
        fail(f"{target} exists and was not made by this script; move it away first")
    content = about.read_text(errors="replace")
    if content == written(settings):
        return True
    fail(f"{target} was built with other settings, {' '.join(content.split())}; add --force to replace it")


def written(settings):
    """What stands in about.json."""
    return json.dumps(settings, indent=1) + "\n"
