"""How a run begins: anew, from the checkpoint that it resumes, or with the networks of one; and its options."""

from pathlib import Path
from typing import NamedTuple

from critics import check_backbone
from options import TRAIN, check
from registry import RECIPES, networks_with
from reporting.texts import finished
from runtime import checkpoints, distributed
from runtime.errors import UserError, tell
from runtime.flags import as_flag, complete, shown
from trainer import check_critics
from translators import check_generators

FIXED = [flag.name for group in TRAIN.values() for flag in group if flag.fixed]
# Never taken from a checkpoint, which may be a stranger's: where files are read, fetched and written, and by what.
HERE_AND_NOW = (
    "dataset_name", "dataset_dir", "dataset_url", "name", "checkpoint_dir", "images_dir", "device", "n_cpu", "epoch",
)  # fmt: skip


class Beginning(NamedTuple):
    """The complete options of a run, and the names of those given; the content of the checkpoint that it resumes, or
    None; the path and the content of the one whose networks it takes, or None."""

    options: object
    given: set
    saved: dict | None = None
    source: tuple | None = None


def begin(options, given, before):
    """The Beginning of a run with the command line's ``options``; ``before`` are the checkpoints that its folder holds.

    None where ``--epoch auto`` has nothing left to do, which it says. Raises UserError where a checkpoint is missing,
    damaged, at its end, or contradicts the options.
    """
    auto = options.epoch == "auto"
    if auto:
        options.epoch = distributed.broadcast(lambda: "latest" if before else 0)
    if options.epoch != 0:
        path, saved = load(Path(options.checkpoint_dir) / options.name, options.epoch)
        options = resume(options, given, saved["options"], saved["given"])
        check_generators(saved)
        check_critics(saved)
        if at_its_end := finished(path, saved, options):
            if auto:
                return tell(at_its_end)
            raise UserError(at_its_end)
        return Beginning(options, {*given, *saved["given"]}, saved)
    source = None
    if options.init_from:
        source = distributed.broadcast(lambda: checkpoints.find(options.init_from))
        options, given = start_from(given, source[1]["options"])
        check_generators(source[1])
    elif auto:  # otherwise the command line was checked where it was read
        check(options)
    check_backbone(options)
    return Beginning(options, given, source=source)


def load(folder, epoch):
    """A checkpoint to go on from: its path and its content, as the main process finds it."""
    return distributed.broadcast(lambda: checkpoints.load(folder, epoch, resume=True))


def resume(options, given, saved, given_before):
    """The options of a resumed run: those it was ``saved`` with, overruled by what is ``given`` by hand now.

    What follows from other options is worked out again, unless given by hand, now or earlier (``given_before``, names),
    or by the recipe.
    Raises UserError where a given option contradicts the networks or the random draws of the checkpoint.
    """
    check_agreement(FIXED, given, saved, "leave the flag out to resume, or leave --epoch out to start from scratch")
    derived = {flag.name for group in TRAIN.values() for flag in group if callable(flag.default)}
    derived -= {*given_before, *RECIPES[saved["recipe"]]}
    kept = {name: value for name, value in saved.items() if name not in derived}
    here = {name: getattr(options, name) for name in HERE_AND_NOW}
    resumed = complete(TRAIN, {**kept, **here, **given})
    check(resumed)
    return resumed


def start_from(given, saved):
    """The options of a new run with the networks of a checkpoint, ``saved`` with these, and the names of those given.

    Its recipe, what shapes networks and how files are read come from there, unless ``given`` by hand. Channels count as
    given: files do not decide them. Raises UserError where a given option contradicts the generators.
    """
    anew = {"seed", "init_from", "optimizer", *(["dis_net"] if "recipe" in given else [])}  # a recipe's own critics
    shape = {name: saved[name] for name in FIXED if name in saved and name not in anew}
    of_critics = [name for name in shape if {net for net, *_ in networks_with(name)} == {"dis_net"}]
    of_files = ["range_A", "range_B", "pages", "slice_axis", "nan", "mask_threshold"]
    of_generators = [name for name in shape if name not in ["recipe", "dis_net", *of_critics, *of_files]]
    check_agreement(of_generators, given, saved, "leave the flag out to start from it, or leave --init_from out")
    recipe = RECIPES[{**shape, **given}["recipe"]]
    options = complete(TRAIN, {**recipe, **shape, **given})
    check(options)
    kept = [name for name in recipe if name in of_generators and name not in given and recipe[name] != shape[name]]
    if kept and "recipe" in given:
        flags = " ".join(as_flag(name, shape[name]) for name in kept)
        tell(f"--recipe {given['recipe']}, but {flags}: the networks are those of the checkpoint")
    return options, {*given, "channels_A", "channels_B"}


def check_agreement(names, given, saved, remedy):
    """Raise UserError where an option of these ``names`` is ``given`` otherwise than a checkpoint has it."""
    for name in names:
        if name in given and given[name] != saved.get(name):
            now = as_flag(name, given[name])
            then = f"no --{name}" if saved.get(name) is None else as_flag(name, saved[name])
            raise UserError(f"{now} contradicts the checkpoint, which was trained with {then}; {remedy}")


def changed(before, options):
    """The flags of a resumed run whose values are others than those of the options ``before``: one line, or ""."""
    names = [name for name in vars(options) if name not in HERE_AND_NOW and hasattr(before, name)]
    now, then = vars(options), vars(before)
    told = [f"{as_flag(name, now[name])} (was {shown(then[name])})" for name in names if now[name] != then[name]]
    return f"changed     {', '.join(told)}" if told else ""
