"""Images per second of test.py and its memory, and what half precision, the compiler, folding and the like give.

    python benchmarks/translate.py [--size 256] [--json FILE]

From file to file, PNG to PNG, each way in a process of its own, after a pass that is not counted: it starts the
workers' libraries and the compiler. Each row below the first changes one thing. MiB: what the process
grows by, with what the compiler needs.
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from common import ROOT, growth, show  # first: it makes the folder above importable

# isort: split
import numpy as np
import torch
from PIL import Image
from train_step import SMALL_NETWORKS

import convolutions
import translators
from inference.output import Output
from inference.writers import save_image
from options import parse_training, parse_translation
from readers.domains import pictures_of
from readers.folders import list_images
from runtime.device import pick_device, tuned_kernels
from runtime.errors import exit_cleanly


def entry_point():
    """test.py as a module; its name is that of a package of Python's own."""
    specification = importlib.util.spec_from_file_location("translation", ROOT / "test.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


translation = entry_point()


def usual_order():
    return patch.object(translators, "memory_format", lambda *given: torch.contiguous_format)


class InTheMainThread:
    """Takes the place of the threads that write."""

    def __init__(self):
        self.save = save_image

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


WAYS = {  # name → flags of test.py, and what is replaced for it
    "as it is, float32": ([], nullcontext),
    "spectral norm not folded": ([], lambda: patch.object(translators, "fold_spectral_norm", lambda each: each.eval())),
    "the usual order of memory": ([], usual_order),
    "torch's convolutions": ([], lambda: patch.object(convolutions, "eager_float32_on_a_cpu", lambda x: False)),
    "four at once": (["--batch_size=4"], nullcontext),
    "one by one": (["--batch_size=1"], nullcontext),
    "decoded in the main process": (["--n_cpu=0"], nullcontext),
    "written in the main thread": ([], lambda: patch.object(translation, "Writers", InTheMainThread)),
    "kernels tuned for each size": ([], lambda: tuned_kernels(True)),
    "tiles of half the side": (["--tile"], nullcontext),
    "compiled": (["--compile"], nullcontext),
    "bf16": (["--amp=bf16"], nullcontext),
    "bf16, the usual order of memory": (["--amp=bf16"], usual_order),
    "bf16, compiled": (["--amp=bf16", "--compile"], nullcontext),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, help="how many (default: 24 on a CPU, 400 on a GPU)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py that make the networks, behind --")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    gpu = device.type == "cuda"
    words = [*([] if gpu else SMALL_NETWORKS), *arguments.flags]
    images = arguments.images or (400 if gpu else 24)

    found = {way: [] for way in arguments.ways}
    with tempfile.TemporaryDirectory() as folder:
        source = make_images(Path(folder) / "in", images, arguments.size)
        for _ in range(arguments.rounds):
            for way in arguments.ways:
                job = (way, words, source, Path(folder) / "out", arguments.size, device, torch.get_num_threads())
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found[way].append(pool.submit(measure, *job).result())
    rows = []
    for way, measured in found.items():
        seconds, grown = (statistics.median(each) for each in zip(*measured, strict=True))
        rows.append({"way": way, "size": arguments.size, "images/s": images / seconds, "MiB": grown})
    show(rows, arguments.json, device)


def make_images(folder, count, size):
    """``count`` smooth images, which compress as photographs do."""
    folder.mkdir()
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def measure(way, words, source, folder, size, device, threads):
    """The seconds that test.py takes for the images of ``source``, the start of the program not counted; and MiB."""
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # of workers: the usual
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    flags, replaced = WAYS[way]
    flags = [f"--tile={size // 2}" if flag == "--tile" else flag for flag in flags]
    options = parse_translation([f"--device={device}", "--amp=off", *flags])
    options.batch_size = options.batch_size or translation.usual_batch(device)
    trained = parse_training(words)[0]
    state = {"options": vars(trained), "generators": translators.Translators(trained).state_dict()}
    with replaced():
        loaded = translators.load_translators(state, device, reordered=not options.compile)
        if options.compile:
            loaded.compile_generators()

        def run(places):
            output = Output("AtoB", folder, places, source, pictures_of(trained), "trained")
            begin = time.perf_counter()
            translation.translate_all(loaded, output, device, options)
            return time.perf_counter() - begin

        places = list_images(source, pictures_of(trained)["A"])
        seconds = []
        grown = growth(lambda: seconds.extend((run(places[:4]), run(places))))
        return seconds[-1], grown


if __name__ == "__main__":
    exit_cleanly(main)
