"""Writes results into a document, as tables between the lines ``<!-- gpu -->`` and ``<!-- /gpu -->``.

python benchmarks/fill_tables.py docs/performance.md benchmarks/results/*_gpu.json
"""

import json
import re
import sys
from pathlib import Path

from common import table

from runtime.errors import UserError, exit_cleanly

BEGIN, END = "<!-- gpu -->", "<!-- /gpu -->"


def section(path):
    """The results of one file as Markdown."""
    results = json.loads(Path(path).read_text())
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if name != "device")
    return f"**{Path(path).stem}**, {results['machine']['device']} ({machine}):\n\n{table(results['rows'])}"


def main():
    document, *paths = sys.argv[1:]
    text = Path(document).read_text()
    if BEGIN not in text or END not in text:
        raise UserError(f"{document} has no lines {BEGIN} and {END}; add them where the tables are to stand")
    content = "\n\n".join([BEGIN, *map(section, paths), END])
    Path(document).write_text(re.sub(f"{BEGIN}.*{END}", lambda match: content, text, flags=re.S))


if __name__ == "__main__":
    exit_cleanly(main)
