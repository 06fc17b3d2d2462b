"""What a run measures of itself: JSON lines, and TensorBoard where it is installed."""

import importlib.util
import math
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from readers.pictures import load_image
from runtime import jsonl
from runtime.errors import UserError, warn


class Curve:
    """The course of one number, evenly thinned: however long it gets, at most ``MOST`` points [step, number]."""

    MOST = 400

    def __init__(self):
        self._kept, self._every, self._seen, self._newest = [], 1, 0, []

    def add(self, step, number):
        """Go on with ``number``; NaN and infinity are passed over."""
        if not math.isfinite(number):
            return
        if len(self._kept) == self.MOST - 1:
            self._kept, self._every = self._kept[::2], 2 * self._every
        if self._seen % self._every == 0:
            self._kept.append([step, number])
        self._seen, self._newest = self._seen + 1, [[step, number]]

    @property
    def points(self):
        """Those kept, and the newest."""
        return self._kept + [point for point in self._newest if point != self._kept[-1]]


def is_row(row):
    """Whether ``row`` is one that Scalars writes: numbers by name, among them the step and the epoch."""
    numbers = (type(number) is float or type(number) is int and abs(number) < 2**53 for number in row.values())
    return {"step", "epoch"} <= row.keys() and all(numbers)


def check_tensorboard(options):
    """Raise UserError where TensorBoard is wanted and not installed."""
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs tensorboard; install it: pip install tensorboard")


class Scalars:
    """Writes ``<folder>/scalars.jsonl``, a line for each time the losses are shown and each evaluation: the step, the
    epochs done, and numbers by name; and the same, with the sample grids, for TensorBoard. ``curves`` has them by name.

    What an earlier run wrote after ``step``, where this one goes on, is left out.
    """

    def __init__(self, folder, tensorboard, step):
        self.path = Path(folder) / "scalars.jsonl"
        rows = [row for row in jsonl.read(self.path, is_row) if row["step"] <= step]
        jsonl.write(self.path, rows)
        self.curves = defaultdict(Curve)
        for row in rows:
            self._draw(row)
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # takes a second or two

            try:
                self.writer = SummaryWriter(Path(folder) / "tensorboard", purge_step=step + 1)
            except UnicodeEncodeError:
                warn(f"TensorBoard cannot write to {folder}, whose name is in no encoding; the run does without it")

    def add(self, step, numbers):
        """Append ``numbers``, name → number."""
        jsonl.append(self.path, row := {"step": step, **numbers})
        self._draw(row)
        with self._tensorboard():
            for name, number in numbers.items() if self.writer else ():
                self.writer.add_scalar(name.replace(" ", "/", 1), number, step)

    def _draw(self, row):
        for name, number in row.items():
            if name not in ("step", "epoch"):
                self.curves[name].add(row["step"], number)

    def add_grid(self, step, path):
        """Show the sample grid at ``path``."""
        with self._tensorboard():
            if self.writer:
                self.writer.add_image("samples", np.asarray(load_image(path)), step, dataformats="HWC")

    @contextmanager
    def _tensorboard(self):
        """Inside, ``writer`` may fail as its thread did, which has said so then: it gets no more. Behind it all is
        written, since a run may end at any time."""
        try:
            yield
            if self.writer:
                self.writer.flush()
        except OSError:
            self.writer = None
