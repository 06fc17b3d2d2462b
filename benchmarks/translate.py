"""Images per second of test.py, and what folding, batches, workers, threads, half precision and tuned kernels give.

    python benchmarks/translate.py [--json FILE]

From file to file, PNG to PNG, of four sizes. Each row below the first changes one thing.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from common import ROOT, show  # first: it makes the folder above importable

# isort: split
import numpy as np
from PIL import Image
from train_step import SMALL

import translators
from inference.writers import save_image
from options import parse_training, parse_translation
from readers.domains import pictures_of
from runtime.device import pick_device, tuned_kernels


def entry_point():
    """test.py as a module; its name is that of a package of Python's own."""
    specification = importlib.util.spec_from_file_location("translation", ROOT / "test.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


translation = entry_point()


class InTheMainThread:
    """Takes the place of the threads that write."""

    def __init__(self, count):
        self.save = save_image

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


WAYS = {  # name → flags of test.py, and what is replaced for it
    "as it is": ([], nullcontext()),
    "spectral norm not folded": ([], patch.object(translators, "fold_spectral_norm", lambda network: network.eval())),
    "one by one": (["--batch_size=1"], nullcontext()),
    "decoded in the main process": (["--n_cpu=0"], nullcontext()),
    "written in the main thread": ([], patch.object(translation, "Writers", InTheMainThread)),
    "in bf16": (["--amp=bf16"], nullcontext()),
    "kernels tuned for each size": ([], tuned_kernels(True)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, help="how many (default: 24 on a CPU, 400 on a GPU)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py that make the networks, behind --")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    images = arguments.images or (400 if device.type == "cuda" else 24)
    options = parse_training([*([] if device.type == "cuda" else SMALL), *arguments.flags])[0]
    state = {"options": vars(options), "generators": translators.Translators(options).state_dict()}

    taken = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        source = make_images(Path(folder) / "in", images, arguments.size)
        for _ in range(arguments.rounds):
            for way, (flags, replaced) in WAYS.items():
                with replaced:
                    taken[way].append(seconds(state, source, Path(folder) / "out", flags, device))
    rates = {way: images / statistics.median(times) for way, times in taken.items()}
    show(
        [{"way": way, "size": arguments.size, "images/s": rate} for way, rate in rates.items()], arguments.json, device
    )


def make_images(folder, count, size):
    """``count`` smooth images, which compress as photographs do, in four widths."""
    folder.mkdir()
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((size + 4 * (4 * i // count), size), Image.Resampling.BICUBIC).save(
            folder / f"{i}.png"
        )
    return folder


def seconds(state, source, output, flags, device):
    """How long test.py takes for the folder, the start of the program not counted."""
    options = parse_translation([f"--device={device}", "--amp=off", *flags])
    begin = time.perf_counter()
    loaded, trained = translators.load_translators(state, device), argparse.Namespace(**state["options"])
    translation.translate_folder(loaded, "AtoB", source, output, pictures_of(trained), device, options)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
