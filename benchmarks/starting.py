"""How long a training waits until it knows its images: one header after another, in threads, and remembered.

    python benchmarks/starting.py --images 100000 [--json FILE]

With ``--cold`` the system forgets before each row what it has read from disks (root on Linux only).
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from common import show  # first: it makes the folder above importable

# isort: split
import numpy as np
import torch
from PIL import Image

from readers import headers
from readers.folders import list_images
from readers.headers import KnownHeaders, read_headers
from runtime.errors import exit_cleanly


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--cold", action="store_true", help="drop the system's caches before each row")
    parser.add_argument("--folder", help="where the images are made (default: the system's folder for such)")
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, run = Path(folder) / "images", Path(folder) / "run"
        make_images(source, arguments.images)
        for way, threads in (
            ("one after another", 1),
            ("in threads", headers.THREADS),
            ("remembered", headers.THREADS),
        ):
            if arguments.cold:
                os.sync()
                Path("/proc/sys/vm/drop_caches").write_text("3")
            with patch.object(headers, "THREADS", threads or headers.THREADS):
                if way == "in threads":
                    (run / headers.FILE).unlink()
                rows.append({"way": way, "images": arguments.images, "seconds": seconds(source, run)})
                print(rows[-1], flush=True)
    show(rows, arguments.json, torch.device("cpu"))


def make_images(folder, count):
    """``count`` copies of a picture of some kilobytes, a thousand in a folder."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for i in range(count):
        path = folder / f"{i // 1000}" / f"{i}.jpg"
        if i == 0:
            path.parent.mkdir(parents=True)
            Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC).save(path)
            content = path.read_bytes()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def seconds(source, run):
    """From the folder's name to all headers, as a training does it."""
    begin = time.perf_counter()
    known = KnownHeaders(run)
    read_headers(list_images(source), False, read=known)
    known.write()
    return time.perf_counter() - begin


if __name__ == "__main__":
    exit_cleanly(main)
