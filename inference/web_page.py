"""A folder that any web host serves as it is: a page that translates images in its visitor's browser.

Its files are those of ``web/``; beside them go the models, ``models.json`` that lists them, example images, and
onnxruntime-web, which runs the models.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from models import SelfAttention
from readers.folders import find_side, list_images
from readers.pictures import load_image
from runtime.errors import warn

SOURCE = Path(__file__).parent / "web"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TILE, TILE_WITH_ATTENTION = 512, 256  # pixels a side; attention takes memory by the fourth power of it


def write(folder, models, translators, options):
    """Write the page to ``folder``. ``models``: direction → path of its ONNX file."""
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "examples", ignore_errors=True)  # of an earlier export: nothing is published by accident
    for file in SOURCE.iterdir():
        shutil.copyfile(file, folder / file.name)
    listed = [describe(direction, path, folder, translators, options) for direction, path in models.items()]
    about = {"name": options.dataset_name, "ort": runtime_address(options.ort, folder), "models": listed}
    (folder / "models.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: a page for any web host; to try it: python -m http.server --directory {folder} --bind 127.0.0.1")


def describe(direction, path, folder, translators, options):
    """A model's entry in ``models.json``; its files are copied to ``folder``."""
    shutil.copyfile(path, folder / path.name)
    here, there = direction.split("to")
    return {
        "direction": direction,
        "file": path.name,
        "channels_in": translators.channels[here],
        "channels_out": translators.channels[there],
        "tile": tile_side(translators),
        "examples": copy_examples(here, folder, translators.channels[here], options) if options.examples else [],
    }


def tile_side(translators):
    """Up to how many pixels a side an image is translated whole."""
    attends = any(isinstance(module, SelfAttention) for module in translators.modules())
    return TILE_WITH_ATTENTION if attends else TILE


def copy_examples(side, folder, channels, options):
    """Copy test images of a domain, evenly spread, as PNG without what their files tell besides pixels: addresses."""
    paths = list_images(find_side(Path(options.dataset_dir) / options.dataset_name, "test", side))
    chosen = np.unique((np.arange(options.examples) + 0.5) * len(paths) // options.examples).astype(int)
    (folder / "examples").mkdir(exist_ok=True)
    addresses = [f"examples/{side}{number}.png" for number in range(len(chosen))]
    for place, address in zip(chosen, addresses, strict=True):
        load_image(paths[place], channels).save(folder / address)
    return addresses


def runtime_address(ort, folder):
    """Where the page finds onnxruntime-web: at the web address ``ort``, or in its own copy of that folder."""
    if ort.startswith(("https://", "http://")):
        return ort.rstrip("/") + "/"
    if missing := [name for name in RUNTIME if not (Path(ort) / name).is_file()]:
        warn(
            f"{ort} has no {missing[0]}: the page does not work before {', '.join(RUNTIME)} are in {folder / 'ort'}; "
            "run npm install onnxruntime-web, then this again"
        )
        return "ort/"
    (folder / "ort").mkdir(exist_ok=True)
    for name in RUNTIME:
        shutil.copyfile(Path(ort) / name, folder / "ort" / name)
    return "ort/"
