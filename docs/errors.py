"""Writes docs/errors.md from the test that provokes each of its rows: ``python docs/errors.py``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from test_safety import errors_page  # noqa: E402 - it stands in that folder

if __name__ == "__main__":
    (HERE / "errors.md").write_text(errors_page(), encoding="utf-8")
