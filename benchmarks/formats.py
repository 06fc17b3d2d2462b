"""Samples per second of the loader for 8-bit PNG, 16-bit TIFF and float NPY: 256×256×3, one process, no cache.

    python benchmarks/formats.py

Counted in the process's own time, so that other work on the machine does not matter much. A sample is one image of each
side.
"""

import statistics
import tempfile
import time
from pathlib import Path

import common  # noqa: F401 (makes the folder above importable)
import numpy as np
import tifffile
import torch
from PIL import Image

# isort: split
from datasets import UnpairedImages
from options import parse_training
from readers.folders import list_images
from readers.headers import read_headers
from readers.survey import find_domain, ways_of
from runtime.errors import exit_cleanly

IMAGES, ROUNDS = 40, 5
WRITERS = {
    ".png": lambda path, array: Image.fromarray(array).save(path),
    ".tif": lambda path, array: tifffile.imwrite(path, array.astype(np.uint16) * 257),
    ".npy": lambda path, array: np.save(path, array.astype(np.float32)),
}


def main():
    torch.set_num_threads(1)  # as in a loader's process
    options = parse_training(["--cache=0"])[0]
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in WRITERS.items():
            print(f"{suffix}: {rate(Path(folder) / suffix, suffix, write, options):.1f} samples/s")


def rate(folder, suffix, write, options):
    folder.mkdir()
    for i in range(IMAGES):
        noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        write(folder / f"{i}{suffix}", np.asarray(Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC)))
    headers = read_headers(list_images(folder), False)
    domains = {side: find_domain(side, headers, ways_of(options)) for side in "AB"}
    dataset, rates = UnpairedImages(headers, headers, options, domains), []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for i in range(IMAGES):
            dataset[i]
        rates.append(IMAGES / (time.process_time() - begin))
    return statistics.median(rates)


if __name__ == "__main__":
    exit_cleanly(main)
