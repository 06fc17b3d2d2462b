"""Tables of flags, and how a command line is read by them: name, default, check and help of each flag stand once."""

import argparse
import re
import reprlib
from collections import defaultdict
from typing import NamedTuple

from runtime.errors import UserError, did_you_mean

# ---------------------------------------------------------------------------------------------------------------------
# Checks: text to a value
# ---------------------------------------------------------------------------------------------------------------------


MANY = 10**9  # more than anything is counted here
ENDLESS = 10**6  # epochs, of a run that its time ends


def number(kind, least, below):
    """A check for argparse: text to ``kind``, at least ``least`` and less than ``below``."""

    def check(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < below:
            what = f"a{' whole' * (kind is int)} number of at least {least} and below {below:g}"
            raise argparse.ArgumentTypeError(f"must be {what}, not {reprlib.repr(text)}")
        return value

    return check


def gpu(text):
    """A check for argparse: the number of a GPU, or -1 for none, to a torch device's name."""
    if "," in text:
        raise argparse.ArgumentTypeError("takes one GPU; for several: torchrun --nproc_per_node N cycle_gan.py …")
    which = number(int, -1, MANY)(text)
    return "cpu" if which < 0 else f"cuda:{which}"


def zero_or(check):
    """A check for argparse: 0, or what passes ``check``."""
    return lambda text: 0 if text == "0" else check(text)


def word_or_number(word):
    """A check for argparse: ``word``, or a finite number."""

    def check(text):
        return text if text == word else number(float, -1e38, 1e38)(text)

    return check


def epoch(text, words=("latest", "best")):
    """A check for argparse: an epoch's number, ``latest`` or ``best``."""
    if text in words:
        return text
    try:
        return number(int, 0, MANY)(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be {', '.join(words)} or an epoch's number, not {text!r}") from None


def start(text):
    """A check for argparse: where a training begins, an epoch's number, ``latest`` or ``auto``."""
    if text == "best":
        raise argparse.ArgumentTypeError(
            "must not be best, which keeps only the generators; give latest, or start a new run from best.pth "
            "(--init_from)"
        )
    return epoch(text, ("latest", "auto"))


def interval(text):
    """A check for argparse: a number of steps, or of minutes with an m behind it."""
    try:
        if text.endswith("m"):
            number(float, 0.01, MANY)(text[:-1])
            return text
        return str(number(int, 0, MANY)(text))  # 0 in one spelling
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be a number of steps, or of minutes as in 10m, not {text!r}") from None


def folder_name(text):
    """A check for argparse: one folder's name, not a path."""
    if not text or text in (".", "..") or "/" in text or "\\" in text:
        raise argparse.ArgumentTypeError(
            f"must be a name, not {text!r}; paths go to --dataset_dir and --checkpoint_dir"
        )
    return text


def words(text):
    """A check for argparse: any text but none, as of a shell's variable that is not set. A folder's name is the same
    with a slash behind it."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text.rstrip("/") or "/"


def some_of(table):
    """A check for argparse: ``none``, or names of ``table`` with commas between them."""

    def check(text):
        names = text.split(",")
        if text != "none" and not (set(names) <= set(table) and len(set(names)) == len(names)):
            raise argparse.ArgumentTypeError(
                f"must be some of {','.join(table)} with commas between, each once, or none, not {text!r}"
            )
        return text

    return check


POSITIVE, NATURAL, WEIGHT = number(int, 1, MANY), number(int, 0, MANY), number(float, 0, MANY)
MOST_BLOCKS = 2**7  # residual blocks are fewer
PIXELS, FILTERS, BLOCKS = number(int, 1, 2**16), number(int, 1, 2**12), number(int, 0, MOST_BLOCKS)

# ---------------------------------------------------------------------------------------------------------------------
# Tables and parsers
# ---------------------------------------------------------------------------------------------------------------------


class Flag(NamedTuple):
    """One option. A ``default`` that is a function works it out from the options before it.

    ``fixed`` ones shape the networks, the optimizer or the random draws: a resumed run cannot change them. With
    ``several``, it takes one value or more, and is a list. ``needs``: another option without which it does nothing, and
    its values with which it does something; all but none, 0 and off where none are named.
    """

    name: str
    default: object
    help: str
    type: object = words
    choices: tuple = None
    fixed: bool = False
    several: bool = False
    needs: tuple = ()


VALUE_OF_A_SWITCH = re.compile(r".*ignored explicit argument|unrecognized arguments:( true| false| on| off)+$", re.I)
NEAR = 0.85  # the share of its letters that an unknown flag needs in common with a known one to be taken for it


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with what to give instead of another program's flag, of
    ``elsewhere``, or of a misspelt one."""

    elsewhere = {}

    def error(self, message):
        others = "; --help shows every flag, docs/migration.md those of other CycleGANs"
        if VALUE_OF_A_SWITCH.match(message):
            others = "; a flag that is on or off takes no value: give --NAME for on, and --no_NAME for off"
        if message.endswith("expected one argument"):
            others = "; one that begins with a dash is written behind =: --NAME=-VALUE"
        raise UserError(f"{message}{self.instead_of_unknown(message) or others}")

    def instead_of_unknown(self, message):
        """What to give for the flags that argparse's ``message`` calls unrecognized, where that is known; or ""."""
        if "unrecognized" not in message:
            return ""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        words = (word.partition("=")[0] for word in message.split() if word.startswith("--"))
        theirs, near = defaultdict(list), []
        for unknown in dict.fromkeys(word for word in words if word not in known):  # behind -- any word is unrecognized
            if here := self.elsewhere.get(unknown[2:]):
                theirs[here].append(unknown)
            else:
                near.append(did_you_mean(unknown, known, NEAR))
        hints = [f"; for {' and '.join(names)}, give {here}" for here, names in theirs.items()]
        return "".join([*hints, " (docs/migration.md)" if theirs else "", *near])


NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.I)  # argparse's own knows no exponents


def build_parser(groups, description, other_names, other_values):
    """A parser for ``groups``, title → flags, that yields only what was given by hand.

    ``other_names``: further names of flags, name → flag. ``other_values``: further choices, pairs (flag, value).
    """
    parser = Parser(
        description=description,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
    )
    parser._negative_number_matcher = NEGATIVE
    for title, flags in groups.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            names = [flag.name, *(other for other, ours in other_names.items() if ours == flag.name)]
            add_flag(group, flag, names, [value for name, value in other_values if name == flag.name])
    return parser


def add_flag(group, flag, names, more_choices):
    """Add ``flag`` to a group of an argparse parser, under all its ``names``."""
    said = flag.default is None or callable(flag.default)  # then the help text says it
    words = [f"--{name}" for name in names]
    if flag.type is bool:
        default = "" if said else f" (default: {'on' if flag.default else 'off'})"
        group.add_argument(*words, action="store_true", help=flag.help + default)
        group.add_argument(f"--no_{flag.name}", action="store_false", dest=flag.name, help="the opposite")
        return
    shown = " ".join(map(str, flag.default)) if flag.several and not said else flag.default
    default = "" if said else f" (default: {shown})"
    group.add_argument(
        *words,
        dest=flag.name,
        type=flag.type,
        choices=[*flag.choices, *more_choices] if flag.choices else None,
        metavar=f"{{{','.join(map(str, flag.choices))}}}" if flag.choices else flag.name.upper().split("_")[-1],
        help=flag.help.replace("%", "%%") + default,
        nargs="+" if flag.several else None,
    )


def as_flag(name, value):
    """A flag as it would be given by hand."""
    return f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name} {shown(value)}"


def shown(value):
    """A flag's value in the words of a command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def underscored(word):
    """--some-flag=a-value → --some_flag=a-value."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else word


class Derived(NamedTuple):
    """In the place of a flag's value: ``of(options)`` works it out from the options before it."""

    of: object


def complete(groups, settings):
    """``settings``, and the table's defaults for all other flags, as a namespace.

    Every value is checked, wherever it comes from: a command line, a recipe, a checkpoint, another option. Raises
    UserError.
    """
    options = argparse.Namespace()
    for flag in (flag for flags in groups.values() for flag in flags):
        default = Derived(flag.default) if callable(flag.default) else flag.default
        value = settings.get(flag.name, default)
        setattr(options, flag.name, checked(flag, value.of(options) if isinstance(value, Derived) else value))
    return options


def checked(flag, value):
    """``value`` as the command line would have it for ``flag``. Raises UserError where it would have none."""
    if value is None and flag.default is None:
        return None
    if flag.several and isinstance(value, list) and value:
        return [checked(flag._replace(several=False), item) for item in value]
    if flag.type is bool and isinstance(value, bool):
        return value
    if flag.type is not bool and not flag.several and type(value) in (int, float, str):
        try:
            read = flag.type(str(value))
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise UserError(f"--{flag.name} {error}") from None
        if not flag.choices or read in flag.choices:
            return read
    raise UserError(f"--{flag.name} cannot be {reprlib.repr(value)}")
