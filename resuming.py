"""The options of a run that begins with a checkpoint: one that is resumed, or one that starts from its networks."""

from options import TRAIN, check
from registry import RECIPES
from runtime.errors import UserError
from runtime.flags import as_flag, complete, shown

FIXED = [flag.name for group in TRAIN.values() for flag in group if flag.fixed]
# Never taken from a checkpoint, which may be a stranger's: where files are read, fetched and written, and by what.
HERE_AND_NOW = (
    "dataset_name", "dataset_dir", "dataset_url", "name", "checkpoint_dir", "images_dir", "device", "n_cpu", "epoch",
)  # fmt: skip


def resume(options, given, saved, given_before):
    """The options of a resumed run: those it was ``saved`` with, overruled by what is ``given`` by hand now.

    What follows from other options is worked out again, unless given by hand, now or earlier (``given_before``, names).
    Raises UserError where a given option contradicts the networks or the random draws of the checkpoint.
    """
    check_agreement(FIXED, given, saved, "leave the flag out to resume, or leave --epoch out to start from scratch")
    derived = {flag.name for group in TRAIN.values() for flag in group if callable(flag.default)} - set(given_before)
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
    anew = {"seed", "init_from"} | ({"dis_net"} if "recipe" in given else set())  # a recipe has critics of its own
    shape = {name: saved[name] for name in FIXED if name in saved and name not in anew}
    of_critics = "recipe", "dis_net", "ndf", "backbone", "feature_size", "feature_mixing"
    of_files = "range_A", "range_B", "pages", "slice_axis", "nan", "mask_threshold"
    of_generators = [name for name in shape if name not in of_critics + of_files]
    check_agreement(of_generators, given, saved, "leave the flag out to start from it, or leave --init_from out")
    recipe = RECIPES[{**shape, **given}["recipe"]]
    options = complete(TRAIN, {**recipe, **shape, **given})
    check(options)
    return options, {*given, "channels_A", "channels_B"}


def check_agreement(names, given, saved, remedy):
    """Raise UserError where an option of these ``names`` is ``given`` otherwise than a checkpoint has it."""
    for name in names:
        if name in given and given[name] != saved.get(name):
            now, then = as_flag(name, given[name]), f"no --{name}" if saved.get(name) is None else shown(saved[name])
            raise UserError(f"{now} contradicts the checkpoint, which was trained with {then}; {remedy}")


def changed(before, options):
    """The flags of a resumed run whose values are others than those of the options ``before``: one line, or ""."""
    names = [name for name in vars(options) if name not in HERE_AND_NOW and hasattr(before, name)]
    now, then = vars(options), vars(before)
    told = [f"{as_flag(name, now[name])} (was {shown(then[name])})" for name in names if now[name] != then[name]]
    return f"changed     {', '.join(told)}" if told else ""
