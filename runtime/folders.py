"""Folders for output: found writable at the start, and never taken from an earlier run."""

from pathlib import Path


def check_writable(folder):
    """Create ``folder`` and try to write there, so that a run fails at its start and not at its first checkpoint."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".write_test"
    probe.touch()
    probe.unlink()


def set_aside(folder):
    """Move an earlier run's folder to ``<folder>.1``, ``.2`` … so that a new run overwrites nothing."""
    folder, number = Path(folder), 1
    while (target := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(target)
    print(f"{folder} held an earlier run, which is now in {target}")
