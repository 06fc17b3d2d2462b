"""Train a CycleGAN on two folders of images: ``python cycle_gan.py --dataset_name monet2photo``; see ``--help``."""

from options import adapt_to_images, parse_training, smallest_step, without_effect
from runtime.errors import UserError, counted, exit_cleanly, tell, warn

if __name__ == "__main__":
    exit_cleanly(parse_training)  # answers --help and bad flags, before torch is imported

from argparse import Namespace
from contextlib import nullcontext, suppress
from pathlib import Path

import torch

from datasets import UnpairedImages, epoch_batches, find_training_images, load_batches
from readers.domains import domains_of, plain
from readers.files import files_of
from readers.folders import side_sources
from readers.headers import KnownHeaders
from reporting import texts
from reporting.loss_log import LossLog, NotFinite
from reporting.monitor import Monitor
from resuming import begin, changed, load
from runtime import checkpoints, distributed, download, provenance
from runtime.device import arithmetic, explained_errors, flush_denormals, pick_device, set_tf32, tuned_kernels
from runtime.folders import check_apart, check_ours, make_ready
from runtime.saver import Saver
from runtime.signals import StopSignal
from runtime.streams import unfailing
from trainer import CycleGAN
from utils import TimeBudget

ROLLBACKS = 3  # how often a run may go back to a checkpoint before it stops


def main():
    options, given = parse_training()
    flush_denormals()
    device = distributed.local_device(pick_device(options.device))
    with distributed.process_group(device):
        before = checkpoints.listed(Path(options.checkpoint_dir) / options.name)
        if (beginning := begin(options, given, before)) is None:
            return
        options, given, saved, source = beginning
        set_tf32(options.tf32)
        with explained_errors(options, device, texts.how_to_go_on), tuned_kernels(True):
            run = Run(options, device, given, saved and domains_of(saved, options.decoded_limit))
            if saved is None:  # else a checkpoint of these networks has been read
                run.model.check_readable()
            with run.saver.alone(run.images, before) if distributed.is_main() else nullcontext():
                run.start(saved, source)
                del beginning, saved, source  # which hold the tensors of a checkpoint
                train(run)


def train(run):
    """Train to the end, or until a signal; goes back to the last checkpoint at values that are not finite, if asked."""
    # torchrun passes on what its processes may have received already, and ends those that take too long
    patient = distributed.WORLD > 1
    with StopSignal(patient, answer="" if patient else texts.STOPPING) as stop, unfailing(stop.unheard):
        for rollbacks in range(ROLLBACKS + 1):
            try:
                signal = run.loop(stop)
                break
            except NotFinite as error:
                if run.options.on_nan == "stop" or rollbacks == ROLLBACKS or run.over:
                    # once it is over, nothing would be trained after going back
                    raise NotFinite(f"{error}; {texts.how_to_avoid_it(run.options)}") from error
                run.roll_back(error)
            except UserError as error:  # of an image, or of a library that one needs
                with suppress(NotFinite):  # which comes again, and is said then
                    run.saver.rescue(run)
                raise UserError(f"{error}; {texts.how_to_go_on(run.options)}") from error
        run.end(signal)


class Run:
    """One training run: its data, its model, and where it stands.

    ``epoch`` epochs are done, ``sample`` samples of the present one, and ``steps`` steps in all. ``given``: the names
    of the options that were given by hand.
    """

    def __init__(self, options, device, given=(), domains=None):
        self.options, self.device, self.given = options, device, sorted(given)
        self.images = Path(options.images_dir) / options.name
        self.saves = Path(options.checkpoint_dir) / options.name
        self.epoch = self.sample = self.steps = 0
        self.time, self.spent = TimeBudget(options.minutes), 0.0  # the share of it that all processes agree on
        self.origin = None  # the checkpoint whose networks it began with, in short

        with distributed.local_main_first():
            folder = download.find_dataset(options)
        for output in (self.images, self.saves):
            check_apart(output, side_sources(folder))
            check_ours(output)
        self.headers = KnownHeaders(self.saves)
        images, self.domains, size = find_training_images(folder, options, given, domains, self.headers)
        adapt_to_images(options, given, {side: self.domains[side].channels for side in "AB"}, size)
        self.data = {side: provenance.fingerprint(len(images[side]), files_of(images[side])) for side in "AB"}
        self.dataset = UnpairedImages(images["A"], images["B"], options, self.domains)
        self.smallest = smallest_step(options, len(self.dataset), distributed.WORLD)

        torch.manual_seed(options.seed)
        self.model = CycleGAN(options, self.device)
        if not distributed.is_main():
            torch.manual_seed(options.seed + 2**32 * distributed.RANK)  # the same weights, but dropout of its own
        self.saver = Saver(self.saves, options)
        self.monitor = Monitor(self.images, options, device, self.model.translators, folder, self.dataset, self.headers)

    @property
    def over(self):
        """Whether its epochs are done, or its time is gone."""
        return self.epoch == self.options.n_epochs or self.spent >= 1

    def loop(self, stop):
        """Train until the last epoch is done, or time, a signal or ``--patience`` ends it; returns the signal, or 0."""
        model, monitor, saver = self.model, self.monitor, self.saver
        (self.spent,) = distributed.all_reduce_max(self.time.share())
        with monitor.progress(self):
            if made_up_for := monitor.unmeasured:
                monitor.evaluate(self, stop)
                if signal := distributed.all_reduce_max(stop.received)[0]:
                    return signal
            if self.epoch == self.options.n_epochs or (made_up_for and self.spent >= 1):  # nothing is left to train
                saver.save(self)
                return 0
            for batch in self.batches():
                self.steps += 1
                model.set_schedule(self.epoch, self.spent)
                for update in model.updates(self.steps):
                    monitor.losses.add(self.steps, update(batch))
                self.advance(len(batch["A"]) * distributed.WORLD)

                drawn = monitor.count(self, batch)
                if monitor.evaluation_due(self):
                    monitor.show(self)  # stops at a value that is not finite, before it is measured
                    monitor.evaluate(self, stop)
                # What all agree on is kept apart from ``stop``: a signal that arrives in here waits for the next step.
                drawn, due, signal, stalled, self.spent = distributed.all_reduce_max(
                    drawn, saver.due(self), stop.received, monitor.stalled, self.time.share()
                )
                ends = signal or stalled or self.spent >= 1
                if drawn or due or ends:
                    monitor.show(self)  # stops at a value that is not finite, before it is saved
                if monitor.grid_due(self):
                    monitor.save_grid(self)
                if self.over and monitor.last_evaluation_due(self):
                    monitor.unmeasured = True
                    saver.save(self)  # first, since measuring may fail; it is made up for then, as after a signal
                    if not signal:
                        monitor.evaluate(self, stop)
                        (signal,) = distributed.all_reduce_max(stop.received)
                if due or ends:
                    saver.save(self)
                if ends:
                    return signal
        return 0

    def batches(self):
        """The batches from where the run stands to the end of its last epoch, on the device."""
        schedule = epoch_batches(
            len(self.dataset), self.options.batch_size, self.epoch, self.options.n_epochs, self.sample,
            rank=distributed.RANK, world=distributed.WORLD, smallest=self.smallest,
        )  # fmt: skip
        for batch in load_batches(self.dataset, schedule, self.options.n_cpu, pin_memory=self.device.type == "cuda"):
            yield batch | {side: batch[side].to(self.device, non_blocking=True) for side in "AB"}

    def advance(self, n_samples):
        """Move on by ``n_samples``, and into the next epoch where too few are left for a step."""
        self.sample += n_samples
        if len(self.dataset) - self.sample < self.smallest:
            self.epoch, self.sample = self.epoch + 1, 0

    # ---- how it starts, what is saved of it, how it ends ----

    def start(self, saved=None, source=None):
        """Make room for the output, and take up the checkpoint ``saved``, or begin with the networks of ``source``, a
        checkpoint's path and content; if there is one."""
        if source is not None:
            self.model.start_from(source[1])
            self.origin = provenance.origin(*source)
        if saved is not None:
            self.model.load_state_dict(saved["training"])
            self.epoch, self.sample, self.steps = saved["epoch"], saved["sample"], saved["steps"]
            self.monitor.take_up(saved)
            self.advance(0)  # with more processes than before, what is left of the epoch may be too little
        before = Namespace(**saved["options"]) if saved else self.options
        change = changed(before, self.options)
        if distributed.is_main():
            self.make_room(saved, bool(change))
        self.time.go_on(saved.get("seconds", 0) if saved else 0)  # from here on: fetching and looking took some, too
        tell(*texts.summary(self, resumed=saved is not None).splitlines(), *without_effect(self.options, self.given))
        tell(*filter(None, (change, texts.schedule_change(before, self.options, self.epoch))))
        if saved is None and self.options.on_nan == "rollback":
            self.saver.save(self)  # something to go back to

    def make_room(self, saved, other_options):
        make_ready(self.images, self.saves, anew=saved is None)
        self.headers.write()
        if saved is not None:
            self.saver.set_later_aside(self, saved, other_options)
            for departure in texts.departures(self.position(), saved):
                warn(departure)
        provenance.record(self.saves, self.options, self.device, self.data, self.steps, self.origin)
        self.monitor.open(self.steps)

    def state_dict(self):
        """All that a checkpoint holds. With several processes, each has to call this."""
        measured = {"best": self.monitor.best.state_dict(), "unmeasured": self.monitor.unmeasured}
        return {**self.position(), **measured, **self.generators(), "training": self.model.state_dict()}

    def position(self):
        """What every checkpoint says of itself."""
        place = {"epoch": self.epoch, "sample": self.sample, "steps": self.steps, "data": self.data}
        place |= {"seconds": self.time.spent(), "arithmetic": arithmetic(self.device, self.model.amp)}
        return {**place, "options": vars(self.options), "given": self.given, "domains": plain(self.domains)}

    def generators(self):
        return {"generators": self.model.average.module.state_dict()}

    def roll_back(self, error):
        """Load the newest checkpoint, and go on with the data after those that led to ``error``."""
        path, saved = load(self.saves, "latest")
        warn(f"{error}. Going back to {path}, and on with the data after step {self.steps}")
        self.model.load_state_dict(saved["training"])
        self.monitor.losses = LossLog()

    def end(self, signal):
        """The last words: where output lies, or how to go on after ``signal``. Raises UserError, or SystemExit."""
        monitor, options = self.monitor, self.options
        if skipped := set().union(*distributed.all_gather(monitor.skipped)):
            names = ", ".join(sorted(skipped))
            tell(f"{counted(len(skipped), 'image')} could not be read, others took their place: {names}")
        if why := self.saver.unsaved:
            raise UserError(f"step {self.steps} is not saved ({why}); make room, then {texts.how_to_go_on(options)}")
        (unmeasured,) = distributed.all_reduce_max(monitor.unmeasured)
        if signal and (unmeasured or not self.over):
            tell(f"stopped after step {self.steps}, which is saved; {texts.how_to_go_on(options)}")
            raise SystemExit(128 + int(signal))
        monitor.end(self)
        tell(f"done; look at {self.images}/index.html; {texts.how_to_translate(options)}")


if __name__ == "__main__":
    exit_cleanly(main)
