"""Train a CycleGAN on two folders of images: ``python cycle_gan.py --dataset_name monet2photo``; see ``--help``."""

import shlex
import sys
import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch
from tqdm import tqdm

from datasets import UnpairedImages, check_headers, epoch_batches, find_side, list_images, load_batches, sample_images
from options import chosen_penalty, parse_training, resume
from reporting import pages
from reporting.metrics import FEWEST, Best, Evaluation
from reporting.scalars import Scalars
from runtime import checkpoints, distributed, download, provenance
from runtime.errors import UserError, describe, exit_cleanly, warn
from runtime.lock import FolderLock
from runtime.signals import StopSignal
from trainer import CycleGAN, check_networks, schedule_change
from utils import (
    LossLog,
    NotFinite,
    SampleGrid,
    check_writable,
    count_workers,
    memory_advice,
    pick_device,
    ran_out_of_memory,
    tune_kernels,
)

SAMPLE_ROWS = 6
ROLLBACKS = 3


def main():
    options, given = parse_training()
    device = distributed.own_device(pick_device(options.device))
    with distributed.joined(device):
        saved = None
        if options.epoch != 0:
            path, saved = load(Path(options.checkpoint_dir) / options.dataset_name, options.epoch)
            options = resume(options, given, saved["options"])
            if saved["epoch"] >= options.n_epochs:
                raise UserError(f"{path} is trained to epoch {saved['epoch']}; raise --n_epochs above it to go on")
        tune_kernels(options.tf32)
        try:
            run = Run(options, device)
            with FolderLock(run.saves) if distributed.FIRST else nullcontext():
                run.start(saved)
                train(run)
        except (RuntimeError, MemoryError) as error:
            if ran_out_of_memory(error):
                raise UserError(memory_advice(options, device)) from error
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = str(error).splitlines()[0]
                raise UserError(f"--compile does not work here ({reason}); leave it out") from error
            raise


def load(folder, epoch):
    """A checkpoint to go on from: its path and its content, as the first process finds it."""
    return distributed.from_first(lambda: checkpoints.load(folder, epoch, resume=True))


def train(run):
    """Train to the end, or until a signal; goes back to the last checkpoint at values that are not finite, if asked."""
    # torchrun passes on what its processes may have received already, and ends those that take too long
    with StopSignal(patient=distributed.WORLD > 1) as stop:
        for rollbacks in range(ROLLBACKS + 1):
            try:
                signal = run.loop(stop)
                break
            except NotFinite as error:
                if run.options.on_nan == "stop" or rollbacks == ROLLBACKS:
                    raise
                run.roll_back(error)
    run.end(signal)


class Run:
    """One training run: its data, its networks, where it stands, and where its output goes."""

    def __init__(self, options, device):
        self.options, self.device = options, device
        self.images = Path(options.images_dir) / options.dataset_name
        self.saves = Path(options.checkpoint_dir) / options.dataset_name

        with distributed.one_at_first():
            folder = download.find_dataset(options)
        paths = {
            side: check_headers(list_images(find_side(folder, "train", side)), options.skip_bad_images) for side in "AB"
        }
        self.data = {side: provenance.fingerprint(paths[side]) for side in "AB"}
        self.dataset = UnpairedImages(paths["A"], paths["B"], options)
        if len(self.dataset) < distributed.WORLD:
            raise UserError(f"{len(self.dataset)} images are too few for {distributed.WORLD} processes; start fewer")
        self.grid = SampleGrid(*(grid_images(folder, side, paths[side], options).to(self.device) for side in "AB"))

        torch.manual_seed(options.seed)
        self.model = CycleGAN(options, self.device)
        check_networks(options, self.model.translators.G_AB, self.model.critic_objective.D_A)
        if not distributed.FIRST:
            torch.manual_seed(options.seed + 2**32 * distributed.RANK)  # the same weights, but dropout of its own

        self.epoch = self.sample = self.steps = 0  # epochs done, samples done in the present one, steps done in all
        self.log, self.skipped = LossLog(), set()
        self.saved_time, self.unsaved = time.monotonic(), None
        self.best, self.stalled = Best(), False
        self.evaluation = None
        if options.eval_interval and distributed.FIRST:
            self.evaluation = self.build_evaluation(folder)

    def build_evaluation(self, folder):
        G = self.model.translators.G_AB
        folders = {side: find_side(folder, "test", side) for side in "AB"}
        for path in folders.values():  # before Evaluation fetches weights
            if len(list_images(path)) < FEWEST:
                raise UserError(f"--eval_interval needs at least {FEWEST} images in {path}; add some, or leave it out")
        return Evaluation(folders, self.options, self.device, self.options.channels, G.multiple, G.min_size)

    def start(self, saved=None):
        """Make room for the output, and take up the checkpoint ``saved``, if there is one."""
        if saved is not None:
            self.model.load_state_dict(saved["training"])
            self.epoch, self.sample, self.steps = saved["epoch"], saved["sample"], saved["steps"]
            self.best.load_state_dict(saved.get("best", {}))
            self.advance(0)  # where fewer samples are left of the epoch than there are processes now, it is over
        if distributed.FIRST:
            self.make_room(saved)
        print(self.summary())
        if saved is not None and (change := schedule_change(Namespace(**saved["options"]), self.options, self.epoch)):
            print(change)
        if saved is None and self.options.on_nan == "rollback":
            self.save()  # something to go back to

    def make_room(self, saved):
        for output in (self.images, self.saves):
            if saved is None and output.exists() and any(output.iterdir()):
                checkpoints.set_aside(output)
            check_writable(output)
        checkpoints.remove_temporary(self.saves)
        if saved is not None and saved["data"] != self.data:
            warn(f"the training images changed: they were {saved['data']}, now they are {self.data}")
        provenance.record(self.saves, self.options, self.device, self.data, self.steps)
        self.scalars = Scalars(self.images, self.options.tensorboard, self.steps)

    def loop(self, stop):
        """Train until the last epoch is done, or until ``stop`` has received a signal and the state is saved.

        Returns the signal that ended training in all processes, 0 if there was none.
        """
        options, model = self.options, self.model
        if self.epoch == options.n_epochs:  # resumed or rolled back to where nothing is left to train
            self.save()
        schedule = epoch_batches(
            len(self.dataset), options.batch_size, self.epoch, options.n_epochs, self.sample,
            distributed.RANK, distributed.WORLD,
        )  # fmt: skip
        pin_memory = self.device.type == "cuda"
        model.start_epoch(self.epoch)
        with self.progress_bar() as bar:
            for batch in load_batches(self.dataset, schedule, count_workers(options.n_cpu), pin_memory):
                batch |= {side: batch[side].to(self.device, non_blocking=True) for side in "AB"}
                self.steps += 1
                for half_step in model.half_steps(self.steps):
                    self.log.add(self.steps, half_step(batch))
                n_samples = len(batch["A"]) * distributed.WORLD
                self.advance(n_samples)

                self.skipped.update(batch["skipped"])
                bar.set_description(f"epoch {min(self.epoch + 1, options.n_epochs)}/{options.n_epochs}", refresh=False)
                drawn = bool(bar.update(n_samples))  # once a second
                if self.evaluation_due():
                    self.show(bar)  # stops at a value that is not finite, before it is measured
                    self.evaluate()
                # What all agree on is kept apart from ``stop``: a signal that arrives in here waits for the next step.
                drawn, due, signal, self.stalled = distributed.largest(
                    drawn, self.checkpoint_due(), stop.received, self.stalled
                )
                due = due or signal or self.stalled
                if drawn or due:
                    self.show(bar)  # stops at a value that is not finite, before it is saved
                if options.sample_interval and self.steps % options.sample_interval == 0:
                    self.save_grid()
                if due:
                    self.save()
                if signal or self.stalled:
                    return signal
        return 0

    def evaluation_due(self):
        every = self.options.eval_interval
        return every and self.sample == 0 and self.epoch % every == 0

    def evaluate(self):
        """Measure the averaged generators; keep them if they are the best so far."""
        if not distributed.FIRST:
            return
        numbers = self.evaluation(self.model.average.module)
        flat = {f"{name} {direction}": x for direction, values in numbers.items() for name, x in values.items()}
        self.note(flat)
        better = self.best.improved_by(numbers)
        shown = ", ".join(f"KID {name} {x['KID']:.4f} ± {x['KID error']:.4f}" for name, x in numbers.items())
        tqdm.write(f"epoch {self.epoch}: {shown} ({self.options.features}){', the best so far' if better else ''}")
        if better:
            state = {**self.position(), "generators": self.model.average.module.state_dict(), "metrics": numbers}
            self.write(lambda: checkpoints.write(self.saves / "best.pth", {"format": checkpoints.FORMAT, **state}))
        self.stalled = bool(self.options.patience) and self.best.waited >= self.options.patience

    def advance(self, n_samples):
        """Move on by ``n_samples``, and into the next epoch where fewer are left than there are processes."""
        self.sample += n_samples
        if len(self.dataset) - self.sample < distributed.WORLD:
            self.epoch, self.sample = self.epoch + 1, 0
            self.model.start_epoch(self.epoch)

    # ---- what it writes ----

    def checkpoint_due(self):
        every, whole = self.options.checkpoint_every, self.options.checkpoint_interval
        if self.sample == 0 and (self.epoch == self.options.n_epochs or (whole and self.epoch % whole == 0)):
            return True
        if every.endswith("m"):
            return time.monotonic() - self.saved_time >= 60 * float(every[:-1])
        return every != "0" and self.steps % int(every) == 0

    def save(self):
        """Write a checkpoint that training can go on from."""
        state = {
            **self.position(),
            "best": self.best.state_dict(),
            "generators": self.model.average.module.state_dict(),
            "training": self.model.state_dict(),
        }
        self.saved_time, self.unsaved = time.monotonic(), None
        if distributed.FIRST:
            self.write(lambda: checkpoints.save(self.saves, state, self.options.keep))

    def position(self):
        """What every checkpoint says of itself."""
        return {
            "epoch": self.epoch,
            "sample": self.sample,
            "steps": self.steps,
            "options": vars(self.options),
            "data": self.data,
        }

    def write(self, save):
        """Call ``save``; where the disk refuses, say so and leave it to the next time."""
        try:
            save()
        except OSError as error:
            self.unsaved = describe(error)
            warn(f"no checkpoint at step {self.steps} ({self.unsaved}); those before it are whole, training goes on")

    def save_grid(self):
        if not distributed.FIRST:
            return
        try:
            path = self.images / f"{self.steps}.png"
            self.grid.save(self.model.average.module, path)
            self.scalars.add_grid(self.steps, path)
            pages.write_run(self.images, self.options, self.steps, self.scalars.curves)
        except OSError as error:
            warn(f"no sample grid at step {self.steps} ({describe(error)}); training goes on")

    def note(self, numbers):
        """Keep ``numbers``, by name, for whoever looks at the run's curves."""
        try:
            self.scalars.add(self.steps, {"epoch": self.epoch, **numbers})
        except OSError as error:
            warn(f"no curves at step {self.steps} ({describe(error)}); training goes on")

    def roll_back(self, error):
        """Load the newest checkpoint, and go on with the data after those that led to ``error``."""
        path, saved = load(self.saves, "latest")
        warn(f"{error}. Going back to {path}, and on with the data after step {self.steps}")
        self.model.load_state_dict(saved["training"])
        self.log = LossLog()

    def end(self, signal):
        """The last words: where output lies, or how to go on after ``signal``. Raises UserError, or SystemExit."""
        if self.skipped:
            print(f"{len(self.skipped)} images could not be read, others took their place: {sorted(self.skipped)}")
        if self.unsaved:
            raise UserError(f"step {self.steps} is not saved ({self.unsaved}); make room, then {self.how_to_go_on()}")
        if signal and self.epoch < self.options.n_epochs:
            print(f"stopped after step {self.steps}, which is saved; {self.how_to_go_on()}")
            sys.exit(128 + signal)
        if self.options.sample_interval:
            self.save_grid()
        if self.stalled:
            print(f"stopped early: {self.best.waited} evaluations in a row were not the best; that is --epoch best")
        print(f"done; look at {self.images}/index.html; to translate the test folders: {self.command('test.py')}")

    def how_to_go_on(self):
        return f"to go on: {self.command('cycle_gan.py')} --epoch latest"

    def command(self, script):
        """How to call ``script`` on this run."""
        words = ["python", script, "--dataset_name", self.options.dataset_name]
        elsewhere = self.options.checkpoint_dir != "saved_models"
        return shlex.join(words + elsewhere * ["--checkpoint_dir", self.options.checkpoint_dir])

    # ---- what it shows ----

    def summary(self):
        """What is about to happen, in a few lines."""

        def millions(module):
            return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"

        options, device = self.options, self.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        name = f"{distributed.WORLD} × {name}" if distributed.WORLD > 1 else name
        amp, needed = self.model.amp, self.dataset.bytes / 2**30
        start = "starting anew"
        if self.steps:
            start = f"resuming after epoch {self.epoch}" + (f" and {self.sample} images" if self.sample else "")
        return (
            f"data        {options.dataset_name}: {len(self.dataset.paths_A)} A, {len(self.dataset.paths_B)} B, "
            f"crops of {options.img_height}×{options.img_width}, "
            f"{'decoded once' if self.dataset.cached else f'decoded anew each time: --cache is below {needed:.1f}'}\n"
            f"networks    {millions(self.model.translators)} parameters in the generators, "
            f"{millions(self.model.critic_objective)} in the critics\n"
            f"objective   {options.recipe} recipe: {options.gan_mode}, penalty {chosen_penalty(options)}\n"
            f"training    {start}, up to epoch {options.n_epochs}, on {name}{'' if amp == 'off' else f' in {amp}'}\n"
            f"output      {self.images}/ and {self.saves}/"
        )

    def progress_bar(self):
        """One bar for the whole run, in images of each side; drawn once a second, or each half minute into a file."""
        return tqdm(
            total=len(self.dataset) * self.options.n_epochs,
            initial=len(self.dataset) * self.epoch + self.sample,
            unit="img",
            mininterval=1 if sys.stderr.isatty() else 30,
            maxinterval=60,
            miniters=1,
            dynamic_ncols=True,
            disable=not distributed.FIRST,
        )

    def show(self, bar):
        """Read the losses off the device and write them behind the bar. Raises NotFinite, in all processes alike."""
        means, complaint = {}, None
        try:
            means = self.log.read()
        except NotFinite as error:
            complaint = str(error)
        if complaints := list(filter(None, distributed.everybody(complaint))):
            raise NotFinite(complaints[0])
        shown = {name: f"{mean:.3g}" for name, mean in means.items() if not name.startswith("gradient")}
        bar.set_postfix(shown, refresh=False)
        if means and distributed.FIRST:
            rate = {"images/s": bar.format_dict["rate"] or 0.0}
            self.note({**means, **self.model.settings(), **rate})


def grid_images(folder, side, train_paths, options):
    """The images of one domain, "A" or "B", that the sample grids show: from its test folder, if it has one."""
    if (test := find_side(folder, "test", side)).is_dir():
        chosen = check_headers(list_images(test), options.skip_bad_images)
    else:
        print(f"there is no {test}: sample grids show training images")
        chosen = train_paths
    size = options.img_height, options.img_width
    return sample_images(chosen, SAMPLE_ROWS, size, options.channels, options.skip_bad_images)


if __name__ == "__main__":
    exit_cleanly(main)
