"""Writes docs/flags.md, the tables of all flags: ``python docs/flags.py``. A test says when it is due."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from options import APP, EVALUATE, EXPORT, IMPORT, TRAIN, TRANSLATE  # noqa: E402 - it stands in the folder above
from runtime.flags import shown  # noqa: E402
from runtime.spellings import OTHER_FLAGS, OTHER_NAMES, OTHER_VALUES  # noqa: E402

PROGRAMS = {
    "cycle_gan.py": TRAIN,
    "test.py": TRANSLATE,
    "evaluate.py": EVALUATE,
    "import_weights.py": IMPORT,
    "export.py": EXPORT,
    "app.py": APP,
}
HEAD = """# Every flag

`--help` shows the same. A flag may be written with `-` for `_`; one that is on or off has a `--no_` twin. The defaults
of cycle_gan.py are those of the recipe `attention`. Other CycleGANs' names for them: [migration.md](migration.md).
This page is written by `python docs/flags.py`.
"""


def page():
    """The whole page as markdown."""
    lines = [HEAD]
    for program, groups in PROGRAMS.items():
        lines.append(f"## {program}\n")
        for title, flags in groups.items():
            lines += [f"### {title.capitalize()}\n", "| flag | default | |", "|---|---|---|", *map(row, flags), ""]
    lines += ["## Other spellings that are understood\n", "| flag | is here |", "|---|---|", *others(), ""]
    return "\n".join(lines)


def others():
    """The lines of a table of other projects' spellings."""
    for name, ours in OTHER_NAMES.items():
        yield f"| `--{name}` | `--{ours}` |"
    for name, alias in OTHER_FLAGS.items():
        yield f"| `--{name}` | {alias.help} |"
    for (name, value), meant in OTHER_VALUES.items():
        if name == "pretrained":  # files by name, which docs/weights.md lists
            continue
        yield f"| `--{name} {value}` | `{' '.join(f'--{flag} {given}' for flag, given in meant.items())}` |"


def row(flag):
    """One flag's line of a table. Where the default depends on other options, the help says how."""
    name = f"`--{flag.name}`"
    if flag.type is bool:
        name += f" / `--no_{flag.name}`"
    default = "" if flag.default is None or callable(flag.default) else f"`{shown(flag.default)}`"
    if isinstance(flag.default, bool):
        default = shown(flag.default)
    choices = f" ({', '.join(f'`{choice}`' for choice in flag.choices)})" if flag.choices else ""
    return f"| {name} | {default} | {flag.help}{choices} |"


if __name__ == "__main__":
    (HERE / "flags.md").write_text(page(), encoding="utf-8")
