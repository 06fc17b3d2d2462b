"""What a run measures of itself, for whoever reads it later: JSON lines, and TensorBoard where it is installed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image

from errors import UserError


class Scalars:
    """Writes ``<folder>/scalars.jsonl``, a line for each time the losses are shown and each evaluation: the step, the
    epochs done, and numbers by name; and the same, with the sample grids, for TensorBoard.

    ``tensorboard``: None takes it where it is installed; True raises UserError where it is not. What an earlier run
    wrote after ``step``, where this one goes on, is left out.
    """

    def __init__(self, folder, tensorboard, step):
        self.path = Path(folder) / "scalars.jsonl"
        earlier = self.path.read_text().splitlines() if self.path.exists() else []
        self.path.write_text("".join(f"{line}\n" for line in earlier if json.loads(line)["step"] <= step))
        there = importlib.util.find_spec("tensorboard") is not None
        if tensorboard and not there:
            raise UserError("--tensorboard needs tensorboard; install it: pip install tensorboard")
        self.writer = None
        if there and tensorboard is not False:
            from torch.utils.tensorboard import SummaryWriter  # takes a second or two

            self.writer = SummaryWriter(Path(folder) / "tensorboard", purge_step=step + 1)

    def add(self, step, numbers):
        """Append ``numbers``, name → number."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        for name, number in numbers.items() if self.writer else ():
            self.writer.add_scalar(name.replace(" ", "/", 1), number, step)

    def add_grid(self, step, path):
        """Show the sample grid at ``path``."""
        if self.writer:
            self.writer.add_image("samples", np.asarray(Image.open(path)), step, dataformats="HWC")
            self.writer.flush()
