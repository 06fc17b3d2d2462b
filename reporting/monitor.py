"""What a training run shows and writes while it goes on: progress bar, losses, curves, sample grids, evaluations."""

import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from datasets import sample_images
from readers.folders import find_side, has_images, list_images
from readers.headers import read_header, read_headers
from reporting import metrics, pages
from reporting.contention import Contention
from reporting.grids import SampleGrid
from reporting.loss_log import LossLog, NotFinite
from reporting.scalars import Scalars, check_tensorboard, is_row
from reporting.texts import Forecast, place
from runtime import distributed, jsonl
from runtime.device import pick_translation_amp
from runtime.errors import UserError, describe, tell, warn
from runtime.folders import move_aside
from runtime.signals import Stopped

SAMPLE_ROWS = 6


class Monitor:
    """Watches one run. ``folder`` takes its output; ``data`` is the data set's folder, ``dataset`` what it trains on,
    and ``headers`` a function as ``read_header``.

    ``stalled``: whether ``--patience`` is at an end. ``unmeasured``: whether the last evaluation was broken off, and
    ``evaluated`` the step after which it was.
    """

    def __init__(self, folder, options, device, translators, data, dataset, headers=read_header):
        self.folder, self.options = Path(folder), options
        check_tensorboard(options)
        self.losses, self.skipped = LossLog(), set()
        self.domains = dataset.domains
        paths = {"A": dataset.paths_A, "B": dataset.paths_B}
        if options.sample_interval and distributed.is_main():
            shown = (grid_images(data, side, paths[side], options, self.domains[side], headers) for side in "AB")
            self.grid = SampleGrid(*(images.to(device) for images in shown), self.domains)
        self.best, self.stalled, self.unmeasured, self.evaluated = metrics.Best(), False, False, None
        self.bar = self.evaluation = None
        if options.eval_interval and distributed.is_main():
            self.evaluation = build_evaluation(data, options, device, translators, self.domains)

    def take_up(self, saved):
        """Go on with the best evaluation of the checkpoint ``saved``, and with one that was broken off there."""
        self.best = metrics.best_so_far(saved, self.options)
        self.unmeasured = metrics.left_unmeasured(saved, self.options)

    def open(self, steps):
        """Go on with what an earlier run wrote up to ``steps``."""
        self.scalars = Scalars(self.folder, self.options.tensorboard, steps)

    def has_later(self, steps):
        """Whether there are grids or curves after ``steps``."""
        rows = jsonl.read(self.folder / "scalars.jsonl", is_row)
        return any(step > steps for step in (*pages.grids_in(self.folder), *(row["step"] for row in rows)))

    def set_later_aside(self, steps, target, best_too):
        """Move the grids after ``steps`` to the new folder ``target``, with a copy of all curves: they are of another
        course. ``best_too``: so is the best evaluation, and the next one is the first."""
        if best_too:
            self.best = metrics.Best()
        later = [path for step, path in pages.grids_in(self.folder).items() if step > steps]
        move_aside(later, target)
        jsonl.write(target / "scalars.jsonl", jsonl.read(self.folder / "scalars.jsonl", is_row))

    def progress(self, run):
        """One bar for the whole run, in images of each side; drawn once a second, or each half minute into a file."""
        self.forecast = Forecast(run)
        self.contention = Contention(torch.get_num_threads() if run.device.type == "cpu" else 1)
        self.bar = tqdm(
            total=None if self.options.minutes else len(run.dataset) * self.options.n_epochs,
            initial=len(run.dataset) * run.epoch + run.sample,
            unit="img",
            mininterval=1 if sys.stderr.isatty() else 30,
            maxinterval=60,
            miniters=1,
            dynamic_ncols=True,
            disable=not distributed.is_main(),
        )
        return self.bar

    def count(self, run, batch):
        """Move the bar on by ``batch``; returns whether it was drawn, and the losses are to be shown."""
        self.skipped.update(batch["skipped"])
        self.bar.set_description_str(place(run), refresh=False)
        if line := self.forecast.after(run):
            tqdm.write(line)
        if line := self.contention.after_step():
            warn(line)
        return bool(self.bar.update(len(batch["A"]) * distributed.WORLD))

    def show(self, run):
        """Read the losses off the device and write them behind the bar. Raises NotFinite, in all processes alike."""
        means, complaint = {}, None
        try:
            means = self.losses.read()
        except NotFinite as error:
            complaint = str(error)
        if complaints := list(filter(None, distributed.all_gather(complaint))):
            raise NotFinite(complaints[0])
        if not means:  # it was just done, before an evaluation
            return
        shown = {name: f"{mean:.3g}" for name, mean in means.items() if not name.startswith("gradient")}
        self.bar.set_postfix(shown, refresh=False)
        if distributed.is_main():
            self.note(run, {**means, **run.model.settings(), "images/s": rate(self.bar)})

    def note(self, run, numbers):
        """Keep ``numbers`` by name, for the run's curves."""
        try:
            self.scalars.add(run.steps, {"epoch": run.epoch, **numbers})
        except OSError as error:
            warn(f"no curves at step {run.steps} ({describe(error)}); training goes on")

    def grid_due(self, run):
        return self.options.sample_interval and run.steps % self.options.sample_interval == 0

    def save_grid(self, run):
        """Write a sample grid by the averaged generators, and the run's page."""
        if not distributed.is_main():
            return
        try:
            path = self.folder / f"{run.steps}.png"
            self.grid.save(run.model.average.module, path)
            self.scalars.add_grid(run.steps, path)
        except OSError as error:
            warn(f"no sample grid at step {run.steps} ({describe(error)}); training goes on")
        self.write_page(run)

    def write_page(self, run):
        try:
            pages.write_run(self.folder, self.options, run.steps, self.scalars.curves)
        except OSError as error:
            warn(f"no page at step {run.steps} ({describe(error)}); training goes on")

    def end(self, run):
        """The last grid, or the page alone, and why it ends early, if it does."""
        if self.options.sample_interval:
            self.save_grid(run)
        elif distributed.is_main():
            self.write_page(run)
        if self.stalled and not run.over:
            tell(f"stopped early: {self.best.waited} evaluations in a row were not the best, which is --epoch best")

    def evaluation_due(self, run):
        every = self.options.eval_interval
        return every and run.sample == 0 and run.epoch % every == 0

    def last_evaluation_due(self, run):
        """Whether the state that a run with ``--minutes`` ends with, the only one with a learning rate near 0, is
        unmeasured."""
        return bool(self.options.minutes and self.options.eval_interval) and self.evaluated != run.steps

    def evaluate(self, run, stop):
        """Measure the averaged generators; keep them if they are the best so far. The StopSignal ``stop`` breaks it
        off, since who sent it may not wait so long: torchrun gives its processes half a minute."""
        self.evaluated = run.steps
        if not distributed.is_main():
            self.unmeasured = False  # which the main process alone knows
            return
        begin, self.unmeasured = time.monotonic(), True
        try:
            with stop.at_once():
                numbers = self.evaluation(run.model.average.module)
        except Stopped:
            tqdm.write(f"epoch {run.epoch}: the evaluation is broken off; it comes first when the run goes on")
            return
        self.unmeasured = False
        self.forecast.leave_out(time.monotonic() - begin)
        self.note(run, {f"{name} {direction}": x for direction, row in numbers.items() for name, x in row.items()})
        better = self.best.improved_by(numbers, lambda: run.saver.save_best(run, numbers))
        shown = ", ".join(f"KID {name} {x['KID']:.4f} ± {x['KID error']:.4f}" for name, x in numbers.items())
        tqdm.write(f"epoch {run.epoch}: {shown} ({self.options.features}){', the best so far' if better else ''}")
        self.stalled = bool(self.options.patience) and self.best.waited >= self.options.patience


def rate(bar):
    """Images per second: of late or, where the bar has not been drawn yet, since it began."""
    shown = bar.format_dict
    return shown["rate"] or (shown["n"] - shown["initial"]) / max(shown["elapsed"], 1e-9)


def grid_images(data, side, train_paths, options, domain, read=read_header):
    """The images of one domain, "A" or "B", that the sample grids show: from its test folder, if it has one.

    ``read``: as ``read_header``."""
    if has_images(test := find_side(data, "test", side)):
        chosen = list(read_headers(list_images(test, domain), options.skip_bad_images, domain, read))
    else:
        tell(f"{test} holds no images: sample grids show training images")
        chosen = train_paths
    return sample_images(chosen, SAMPLE_ROWS, domain, options)


def build_evaluation(data, options, device, translators, domains):
    """The evaluation of ``--eval_interval``. Raises UserError where there is too little to measure, or nothing to
    measure it by."""
    metrics.check_measure(options.features, options)
    folders = {side: find_side(data, "test", side) for side in "AB"}
    for side, path in folders.items():  # before Evaluation fetches weights
        check_enough(len(list_images(path, domains[side])) if has_images(path) else 0, path)
    amp = pick_translation_amp("trained", options.amp, device, domains)
    evaluation = metrics.Evaluation(folders, options, device, translators, amp, domains)
    for side, images in evaluation.folders.items():  # those that could be read
        check_enough(len(images), folders[side])
    return evaluation


def check_enough(count, folder):
    """Raise UserError where ``count`` images of a folder are too few to measure."""
    if count < metrics.FEWEST:
        raise UserError(
            f"--eval_interval needs at least {metrics.FEWEST} images in {folder}; add some, or leave it out"
        )
