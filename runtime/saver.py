"""When a training run is saved, and what happens when the disk refuses."""

import time
from contextlib import contextmanager
from pathlib import Path

from runtime import checkpoints, distributed
from runtime.errors import UserError, describe, tell, warn
from runtime.folders import free_beside, move_aside
from runtime.lock import locked


class Saver:
    """Writes the checkpoints of one run into ``folder``; in all processes alike, though only the main one writes.

    ``unsaved`` says why the newest state is not on the disk, and is None where it is.
    """

    def __init__(self, folder, options):
        self.folder, self.options = Path(folder), options
        self.saved_time, self.unsaved = time.monotonic(), None

    @contextmanager
    def alone(self, images, before):
        """Inside, no other process gets into this folder and that of the ``images``. Raises UserError where one is
        there, or has saved something since the checkpoints ``before`` were listed."""
        with locked(self.folder, images):
            if checkpoints.listed(self.folder) != before:
                raise UserError(
                    f"another process saved to {self.folder} while this one started; give the command again"
                )
            yield

    def due(self, run):
        """Whether a checkpoint is to be written after the step that ``run`` has done."""
        every, whole = self.options.checkpoint_every, self.options.checkpoint_interval
        if run.sample == 0 and (run.epoch == self.options.n_epochs or (whole and run.epoch % whole == 0)):
            return True
        if every.endswith("m"):
            return time.monotonic() - self.saved_time >= 60 * float(every[:-1])
        return every != "0" and run.steps % int(every) == 0

    def save(self, run):
        """Write a checkpoint that training can go on from."""
        state = run.state_dict()  # every process has a part in it
        self.saved_time, self.unsaved = time.monotonic(), None
        if distributed.is_main():
            self._write(run, lambda: checkpoints.save(self.folder, state, self.options.keep))

    def rescue(self, run):
        """Save the steps before an error of the data. Of several processes the others are in the middle of a step then:
        those keep the last checkpoint."""
        if distributed.WORLD == 1 and run.steps:
            run.monitor.show(run)  # stops at a value that is not finite
            self.save(run)

    def save_best(self, run, numbers):
        """Keep the averaged generators of this moment as ``best.pth``, with the ``numbers`` of their evaluation.
        Returns whether the disk took it."""
        state = {"format": checkpoints.FORMAT, **run.position(), **run.generators(), "metrics": numbers}
        return self._write(run, lambda: checkpoints.write(self.folder / "best.pth", state))

    def set_later_aside(self, run, saved, changed):
        """Move what was saved after the checkpoint ``saved``, with which ``run`` goes on, to ``<folder>.1``, ``.2`` …:
        it belongs to another course, and the latest is now what this one writes. ``changed``: whether its options are
        others now; if not, curves and grids alone, as a crash leaves them, are those of its own course."""
        later, best = checkpoints.later_than(self.folder, saved), self.folder / "best.pth"
        what = f"what was saved after {checkpoints.path_of(self.folder, saved['epoch'], saved['sample'])}"
        if saved["options"]["features"] != self.options.features and best.exists() and best not in later:
            what = what if later else "best.pth, chosen by other --features,"
            later.append(best)  # whose KID does not compare with those to come
        if not later and not (changed and run.monitor.has_later(run.steps)):
            return
        for_grids, target = free_beside(run.monitor.folder, self.folder)
        # Grids and curves first: it is by the checkpoints that this is due, and they are there until all has moved.
        run.monitor.set_later_aside(run.steps, for_grids, best in later)
        if later:
            move_aside(later, target)
        tell(f"{what} is now in {target if later else for_grids}")

    def _write(self, run, write):
        """Call ``write``; where the disk refuses, say so and leave it to the next time. Whether it was written."""
        try:
            write()
            return True
        except OSError as error:
            self.unsaved = describe(error)
            warn(f"no checkpoint at step {run.steps} ({self.unsaved}); those before it are whole, training goes on")
