"""The headers of a data set's images: all are read before a training begins, and remembered for the next start."""

import contextlib
import functools
import hashlib
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from readers.domains import PICTURES
from readers.files import BadImage, Contents, as_place, reading
from readers.formats import check, contents
from runtime import files, jsonl
from runtime.errors import UserError, describe, tell, warn

FILE = "headers.jsonl"  # beside a run's checkpoints
THREADS, AT_ONCE = 16, 64  # they wait for a disk, not for a processor; how many images each takes at a time
DTYPE = re.compile(r"[<>|][uif](1|2|4|8|16)")


def read_header(place, ways):
    """The Contents of an image without ``load``. ``ways``: a Domain that says how files are read. Raises BadImage."""
    with contents(place, ways) as found:
        return found._replace(load=None)


def read_headers(paths, skip_bad, ways=PICTURES, read=read_header):
    """Open every image without decoding it: a dict path → Contents without ``load``.

    Raises BadImage at a bad one, or leaves it out and says so. ``read``: a function as ``read_header``.
    """

    def look(some):
        return [(path, attempt(read, path, ways)) for path in some]

    good, bad = {}, []
    parts = [paths[i : i + AT_ONCE] for i in range(0, len(paths), AT_ONCE)]
    bar = tqdm(total=len(paths), desc="checking images", unit="img", delay=2, leave=False)
    with bar, ThreadPoolExecutor(THREADS) as pool, contextlib.closing(pool.map(look, parts)) as looks:
        for found in looks:
            for path, result in found:
                if not isinstance(result, BadImage):
                    good[path] = result
                elif not skip_bad:
                    raise result
                else:
                    bad.append(result.path)
            bar.update(len(found))
    if bad:
        tell(f"{len(bad)} of {len(paths)} images are left out because they cannot be read: {', '.join(bad)}")
    if not good:
        raise none_readable(paths)
    return good


def attempt(read, path, ways):
    """``read(path, ways)``, or the BadImage that it raises."""
    try:
        return read(path, ways)
    except BadImage as error:
        return error


def none_readable(paths):
    return UserError(f"not one of the {len(paths)} images in {Path(paths[0]).parent} can be read")


class KnownHeaders:
    """Headers that earlier starts of a run have read, from FILE in its ``folder``. Called as ``read_header``.

    An image counts as known while its file has the same size and time of change, and is read in the same way, by the
    same readers.
    """

    def __init__(self, folder):
        self.path, self.now, self.news = folder / FILE, {}, False
        try:
            rows = jsonl.read(self.path, fits)
        except FileNotFoundError:  # another process moved it just now
            rows = []
        except OSError as error:
            warn(f"headers are read anew, since those of an earlier start cannot be ({describe(error)})")
            rows = []
        self.before = {row["path"]: (row["key"], row["header"]) for row in rows}

    def __call__(self, place, ways):
        with reading(place):
            key = key_of(as_place(place), ways)
        known, fields = self.before.get(place, (None, None))
        header = None
        if known == key:
            with contextlib.suppress(BadImage):  # which the image itself says again, or only a line that is not ours
                check(place, remembered := restored(fields), ways.limit)
                header = remembered
        if header is None:
            header, self.news = read_header(place, ways), True
        self.now[place] = key, header
        return header

    def write(self):
        """Keep what this start has found for the next one, and no longer in memory."""
        rows = ({"path": path, "key": key, "header": plain(header)} for path, (key, header) in self.now.items())
        try:
            if self.news or len(self.now) < len(self.before) or not self.path.exists():
                jsonl.write(self.path, rows)
        except OSError as error:
            warn(f"headers are not remembered for the next start ({describe(error)})")
        self.before, self.now = {}, {}


def key_of(place, ways):
    """What an image's header depends on, as far as can be seen without opening its file."""
    status = os.stat(place.file)
    return [status.st_size, status.st_mtime_ns, place.offset, ways.pages, ways.slice_axis, revision()]


@functools.cache
def revision():
    """Of the readers: another one may find something else in the same file."""
    sources = b"".join(map(files.read, sorted(Path(__file__).parent.glob("*.py"))))
    return hashlib.sha256(sources).hexdigest()[:16]


def plain(header):
    """A header without ``load`` as JSON can hold it."""
    sizes = [int(size) for size in (header.height, header.width, header.channels, header.count)]
    span = [None if bound is None else float(bound) for bound in (header.low, header.high)]
    return [*sizes, np.dtype(header.dtype).str, *span, bool(header.picture), bool(header.viewable)]


def restored(fields):
    """The way back from ``plain``."""
    height, width, channels, count, dtype, low, high, picture, viewable = fields
    return Contents(height, width, channels, np.dtype(dtype), None, count, low, high, picture, viewable)


def fits(row):
    """Whether a line is one of ours."""
    path, key, header = (row.get(name) for name in ("path", "key", "header"))
    if not (isinstance(path, str) and isinstance(key, list) and isinstance(header, list) and len(header) == 9):
        return False
    *sizes, dtype, low, high, picture, viewable = header
    numbers = all(type(size) is int and size >= 1 for size in sizes)
    bounds = all(bound is None or type(bound) is float and math.isfinite(bound) for bound in (low, high))
    known = isinstance(dtype, str) and DTYPE.fullmatch(dtype)
    return bool(numbers and bounds and known and type(picture) is type(viewable) is bool)
