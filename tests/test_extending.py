"""docs/extending.md is true: its changes, made to a copy of this repository, train, and break no test."""

import json
import re
import shutil
import subprocess
import sys

from conftest import ROOT, TINY

PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(section.split("\n", 1) for section in PAGE.split("\n## ")[1:] if "```diff" in section)

HOUSE = "tests/test_house.py::test_files_stay_small"
MEASURED = {"A loss term": "edges", "A penalty": "penalty"}  # what a change adds to the losses


def apply(diff, folder):
    """Make the change of one ``diff`` block, whose unchanged lines must stand in the file exactly once."""
    name, *lines = diff.splitlines()
    path = folder / name.removeprefix("+++ ")
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    content = path.read_text()
    assert content.count(before) == 1, (name, before)
    path.write_text(content.replace(before, after))


def test_the_changes_train_and_break_no_test(workplace):
    folder = workplace / "copy"
    shutil.copytree(ROOT, folder, ignore=lambda path, names: {n for n in names if n.startswith(".") or n == "datasets"})
    for section in SECTIONS.values():
        for diff in re.findall(r"```diff\n(.*?)```", section, re.S):
            apply(diff, folder)
    for title, section in SECTIONS.items():
        command = re.search(r"^python cycle_gan.py --dataset_name cats2dogs (.*)$", section, re.M)[1].split()
        words = [sys.executable, folder / "cycle_gan.py", *TINY, "--n_epochs=1", "--penalty_interval=1", *command]
        result = subprocess.run(words, cwd=workplace, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        last = json.loads((workplace / "images/tiny/scalars.jsonl").read_text().splitlines()[-1])
        if title in MEASURED:
            assert last[MEASURED[title]] > 0
        used = json.loads((workplace / "saved_models/tiny/runs.jsonl").read_text().splitlines()[-1])["options"]
        assert str(used[command[-2].removeprefix("--")]) in (command[-1], f"{command[-1]}.0")
    own = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_losses.py", HOUSE]
    result = subprocess.run(own, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
