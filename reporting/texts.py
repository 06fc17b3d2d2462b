"""What a training run says in words: what is about to happen, and how to go on."""

import shlex

import torch

from runtime import distributed
from utils import lr_factor


def summary(run):
    """What is about to happen, in a few lines."""

    def millions(module):
        return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"

    options, device, dataset, amp = run.options, run.device, run.dataset, run.model.amp
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    name = f"{distributed.WORLD} × {name}" if distributed.WORLD > 1 else name
    needed = dataset.bytes / 2**30
    precision = "" if amp == "off" else f" in {amp}"
    if options.amp == "auto" and amp != "off":
        precision += ", for which it has instructions (--amp off: float32)"
    start = f"starting from the networks of {run.origin['file']}" if run.origin else "starting from scratch"
    if run.steps:
        start = f"resuming after epoch {run.epoch}" + (f" and {run.sample} images" if run.sample else "")
    return (
        f"data        {options.dataset_name}: {len(dataset.paths_A)} A, {len(dataset.paths_B)} B, "
        f"crops of {options.img_height}×{options.img_width}, "
        f"{'decoded once' if dataset.cached else f'decoded anew each time: --cache is below {needed:.1f}'}\n"
        f"networks    {millions(run.model.translators)} parameters in the generators, "
        f"{millions(run.model.critic_objective)} in the critics\n"
        f"objective   {options.recipe} recipe: {options.gan_mode}, penalty {options.penalty}\n"
        f"training    {start}, up to epoch {options.n_epochs}, on {name}{precision}\n"
        f"output      {run.images}/ and {run.saves}/"
    )


def schedule_change(before, options, epoch):
    """How the learning rate departs from that of the options ``before``: one line, or "" where it does not.

    Both rates are those of ``epoch``, the older one that of the last epoch where the older schedule ended earlier.
    """

    def shape(options):
        start, end = options.decay_epoch, options.n_epochs
        return "constant" if start >= end else f"falling after epoch {start} to 0 at {end}"

    def rate(options, epoch):
        return f"{options.lr * lr_factor(epoch, options.n_epochs, options.decay_epoch):.3g}"

    if shape(before) == shape(options):
        return ""
    old, new = rate(before, min(epoch, before.n_epochs - 1)), rate(options, epoch)
    keep = "" if old == new else f"; to keep {old}: --lr {old} --decay_epoch {options.n_epochs}"
    return f"schedule    the learning rate goes from {old} ({shape(before)}) to {new} ({shape(options)}){keep}"


def departures(now, saved):
    """In which ways a resumed run, at the position ``now``, is not quite the ``saved`` one: a list of lines."""
    lines = []
    if saved["data"] != now["data"]:
        lines.append(f"the training images changed: they were {saved['data']}, now they are {now['data']}")
    if (before := saved.get("arithmetic", now["arithmetic"])) != now["arithmetic"]:
        lines.append(
            f"the run was computed on {before}, now on {now['arithmetic']}: it goes on, but what comes is no longer "
            "equal to the last bit to what would have come there"
        )
    return lines


def how_to_go_on(options):
    return f"to go on: {command('cycle_gan.py', options)} --epoch latest"


def command(script, options):
    """How to call ``script`` on this run."""
    words = ["python", script, "--dataset_name", options.dataset_name]
    elsewhere = options.checkpoint_dir != "saved_models"
    return shlex.join(words + elsewhere * ["--checkpoint_dir", options.checkpoint_dir])
