"""What a training run says in words: what is about to happen, and how to go on."""

import os
import shlex
import time
from pathlib import Path

import torch

from readers.folders import find_side, has_images
from reporting.metrics import best_so_far, left_unmeasured
from runtime import checkpoints, distributed
from runtime.device import computes, fewer_filters, smaller_crop
from runtime.errors import counted
from runtime.flags import ENDLESS, as_flag
from utils import lr_factor

USUAL_FOLDERS = {"dataset_dir": "datasets", "checkpoint_dir": "saved_models", "images_dir": "images"}  # the defaults
STOPPING = "stopping: the step in hand is finished and saved; to end at once, without saving, press Ctrl-C again"


def summary(run, resumed):
    """What is about to happen, in a few lines; ``resumed``: it goes on from a checkpoint of its own."""

    def millions(module):
        return f"{sum(p.numel() for p in module.parameters()) / 1e6:.3g} M"

    options, device, dataset = run.options, run.device, run.dataset
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    name = f"{distributed.WORLD} × {name}" if distributed.WORLD > 1 else name
    needed = dataset.bytes / 2**30
    anew = "decoded anew each time"
    if options.cache:
        anew += f": {needed:.1f} GiB are more than --cache, or than there is room for in shared memory"
    start = f"starting from the networks of {run.origin['file']}" if run.origin else "starting from scratch"
    if resumed:
        start = f"resuming after epoch {run.epoch}" + (f" and {run.sample} images" if run.sample else "")
    return (
        f"data        {options.dataset_name}: {len(dataset.paths_A)} A, {len(dataset.paths_B)} B, "
        f"crops of {options.img_width}×{options.img_height}, "
        f"{'decoded once' if dataset.cached else anew}\n"
        f"networks    {networks(options)}: {millions(run.model.translators)} parameters in the generators, "
        f"{millions(run.model.critic_objective)} in the critics\n"
        f"objective   {objective(run)}\n"
        f"training    {start}, {until(options)}, {batches(run)}, on {name} in {precision(run)}\n"
        f"output      {run.images}/ and {run.saves}/"
    )


def precision(run):
    """In which type the networks compute, and why, in words."""
    asked, amp = run.options.amp, run.model.amp
    if amp == "off":
        return "float32" if asked == "off" else "float32, since no fast instructions for bf16 are known here"
    if not computes(amp, run.device):
        return f"{amp}, for which no fast instructions are known here (--amp off: float32)"
    return f"{amp}, for which it has instructions (--amp off: float32)" if asked == "auto" else amp


def networks(options):
    """The networks of ``options`` by the flags that choose them."""
    rare = [name for name in ("dropout", "mask") if getattr(options, name) not in (False, "none")]
    names = "gen_net", "dis_net", "attention", "spectral_norm", *rare
    return " ".join(as_flag(name, getattr(options, name)) for name in names)


def objective(run):
    """What is minimised, with its weights, in words."""
    options, model = run.options, run.model
    said, names = [options.gan_mode], {"penalty": f"{options.penalty} penalty"}
    for name, (weight, _) in {**model.generator_objective.terms, **model.critic_objective.terms}.items():
        if not name.startswith("adversarial"):
            said.append(f"{names.get(name, name)} {weight:g}")
    if options.diffaugment != "none":
        said.append(f"critics see {options.diffaugment} varied")
    return f"{', '.join(said)} ({options.recipe} recipe)"


def batches(run):
    """How many images of each side are in a step, what makes it, and the learning rate, in words."""
    count = min(run.options.batch_size, len(run.dataset))  # a data set may have fewer
    fewer = "" if count == run.options.batch_size else ", all that there are,"
    return f"in batches of {count}{fewer} by {run.options.optimizer} with --lr {run.options.lr:g}"


def until(options):
    """When a run ends, in words."""
    if not options.minutes:
        return f"up to epoch {options.n_epochs}"
    or_before = f", or up to epoch {options.n_epochs} where that comes first" if options.n_epochs < ENDLESS else ""
    return f"for {options.minutes:g} minutes{or_before} (so it is not repeatable to the last bit)"


def place(run):
    """Where ``run`` stands, in words."""
    options, epoch = run.options, min(run.epoch + 1, run.options.n_epochs)
    if options.minutes:
        return f"epoch {epoch}, {100 * min(run.time.share(), 1):.0f} % of {options.minutes:g} minutes"
    return f"epoch {epoch}/{options.n_epochs}"


def finished(path, saved, options):
    """Why there is nothing left to do after the checkpoint ``saved`` at ``path``: one line, or "" where there is."""
    if left_unmeasured(saved, options):
        return ""
    if saved["epoch"] >= options.n_epochs:
        too = ", which ends a run as --minutes does" * bool(options.minutes)
        return f"{path} is trained to epoch {saved['epoch']}; raise --n_epochs above it to go on{too}"
    if options.minutes and (seconds := saved.get("seconds", 0)) >= 60 * options.minutes:
        had = f"{path} has had {seconds / 60:.3g} of --minutes {options.minutes:g}"
        return f"{had}, which counts all since the start; raise it to go on, or add --minutes 0 and --n_epochs"
    if options.patience and (waited := best_so_far(saved, options).waited) >= options.patience:
        return f"{path} comes after {waited} evaluations that were not the best; raise --patience above that to go on"
    return ""


class Forecast:
    """Says once, after the first steps, how long a run will take."""

    WARM, STEPS, SECONDS = 3, 10, 5  # steps that do not count, and how much is measured behind them at least
    LONG = 48 * 3600  # seconds from which it says what would make the run shorter

    def __init__(self, run):
        self.first, self.begin, self.said = run.steps + self.WARM, None, bool(run.options.minutes)

    def leave_out(self, seconds):
        """Those of an evaluation are none of the steps'."""
        if self.begin is not None:
            self.begin += seconds

    def after(self, run):
        """One line where ``run`` has made enough steps, else ""."""
        if self.said or run.steps < self.first:
            return ""
        now = time.monotonic()
        if run.steps == self.first:
            self.begin, self.done = now, done(run)
        steps, seconds = run.steps - self.first, now - self.begin
        if steps < self.STEPS or seconds < self.SECONDS:
            return ""
        self.said = True
        left = len(run.dataset) * run.options.n_epochs - done(run)
        return duration(left * seconds / (done(run) - self.done), seconds / steps, run.options)


def done(run):
    """How many samples ``run`` has trained with."""
    return len(run.dataset) * run.epoch + run.sample


def duration(seconds, step, options):
    """How long a run takes, in words: ``seconds`` in all, ``step`` for one step."""
    units = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
    unit = next((name for name, size in units.items() if seconds < 120 * size), "day")
    shown = counted(round(seconds / units[unit]), unit)
    without = ", without its evaluations" if options.eval_interval else ""
    line = f"duration    about {shown} from here on this machine{without}, {step:.2g} s a step"
    if seconds < Forecast.LONG:
        return line
    shorter = ", with ".join([*smaller_crop(options), fewer_filters(options)])
    return f"{line}; anew, it would be shorter with {shorter}, or with --minutes 600 for as long as that"


def schedule_change(before, options, epoch):
    """How the learning rate departs from that of the options ``before``: one line, or "" where it does not.

    Both rates are those of ``epoch``, the older one that of the last epoch where the older schedule ended earlier.
    """

    def shape(options):
        start, end = options.decay_epoch, options.n_epochs
        by_epochs = "constant" if start >= end else f"falling after epoch {start} to 0 at {end}"
        if minutes := getattr(options, "minutes", 0):
            by_minutes = f"falling in the second half of {minutes:g} minutes"
            return f"{by_minutes}, and {by_epochs}" if start < end < ENDLESS else by_minutes
        return by_epochs

    def rate(options, epoch):
        return f"{options.lr * lr_factor(epoch, options.n_epochs, options.decay_epoch):.3g}"

    if shape(before) == shape(options):
        return ""
    if options.minutes or getattr(before, "minutes", 0):
        return f"schedule    the learning rate was {shape(before)}, now it is {shape(options)}"
    old, new = rate(before, min(epoch, before.n_epochs - 1)), rate(options, epoch)
    keep = "" if old == new else f"; to keep {old}: --lr {old} --decay_epoch {options.n_epochs}"
    return f"schedule    the learning rate goes from {old} ({shape(before)}) to {new} ({shape(options)}){keep}"


def departures(now, saved):
    """In which ways a resumed run, at the position ``now``, is not quite the ``saved`` one: a list of lines."""
    lines = []
    if saved["data"] != now["data"]:
        before, after = (
            ", ".join(f"{count:,} {what} of {side}" for side, told in data.items() for what, count in told.items())
            for data in (saved["data"], now["data"])
        )
        lines.append(f"the training images changed: there were {before}; now there are {after}")
    if (before := saved.get("arithmetic", now["arithmetic"])) != now["arithmetic"]:
        lines.append(
            f"the run was computed on {before}, now on {now['arithmetic']}: it goes on, but what comes is no longer "
            "equal to the last bit to what would have come there"
        )
    features, other = saved["options"]["features"], now["options"]["features"]
    if features != other and now["options"]["eval_interval"] and saved["options"]["eval_interval"]:
        lines.append(
            f"FID, KID, precision and recall were of {features}: from here on, of {other}, they do not compare"
        )
    return lines


def how_to_go_on(options):
    """The command to go on with, or that nothing is saved."""
    saved = checkpoints.listed(Path(options.checkpoint_dir) / options.name)
    words = command("cycle_gan.py", options)
    return f"to go on: {words} --epoch latest" if saved else "start again, since nothing is saved yet"


def how_to_avoid_it(options):
    """What to do about a value that is not finite."""
    if not checkpoints.listed(Path(options.checkpoint_dir) / options.name):
        return "nothing is saved yet: start again with a smaller --lr"
    rollback = ", or with --on_nan rollback" if options.on_nan == "stop" else ""
    return f"the checkpoints written before are kept: resume from one with a smaller --lr{rollback}"


def how_to_translate(options):
    """The command that translates the test folders, or other images where there are none."""
    folder, words = Path(options.dataset_dir) / options.dataset_name, command("test.py", options)
    if any(has_images(find_side(folder, "test", side)) for side in "AB"):
        return f"to translate the test folders: {words}"
    return f"to translate a folder of images: {words} --input FOLDER"


def command(script, options):
    """How to call ``script``, "cycle_gan.py" or "test.py", on this run."""
    several = distributed.WORLD > 1 and script == "cycle_gan.py"
    start = ["torchrun", "--nproc_per_node", os.environ.get("LOCAL_WORLD_SIZE", str(distributed.WORLD))]
    words = [*(start if several else ["python"]), script, *flag("dataset_name", options.dataset_name)]
    if options.name != options.dataset_name:
        words += flag("name", options.name)
    for name, usual in USUAL_FOLDERS.items():
        if (folder := getattr(options, name)) != usual and (script, name) != ("test.py", "images_dir"):
            words += flag(name, folder)
    return shlex.join(words)


def flag(name, value):
    """A flag and its value as words of a command; one word where the value would else be taken for another flag."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
