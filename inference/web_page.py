"""A folder that any web host serves as it is: a page that translates images in its visitor's browser.

Its files are those of ``web/``; beside them go the models, ``models.json`` that lists them, example images, and
onnxruntime-web, which runs the models.
"""

import json
from pathlib import Path

import numpy as np

from models import attends
from readers.files import BadImage
from readers.folders import find_side, list_images
from readers.pictures import encode_png, load_image
from runtime import files
from runtime.errors import UserError, tell, warn
from runtime.folders import write_ours

SOURCE = Path(__file__).parent / "web"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TILE, TILE_WITH_ATTENTION = 512, 256  # pixels a side; attention takes memory by the fourth power of it


def write(folder, models, translators, options):
    """Write the page to ``folder``. ``models``: direction → (name, bytes) of its ONNX file.

    What an earlier export wrote there goes, so that no example is published by accident. Raises UserError where the
    page would replace somebody's files.
    """
    ort, runtime = runtime_files(options.ort, folder)
    page = {file.name: files.read(file) for file in SOURCE.iterdir()} | dict(models.values()) | runtime
    listed = []
    for direction, (name, _) in models.items():
        here, there = direction.split("to")
        examples = example_files(here, translators.channels[here], options) if options.examples else {}
        page |= examples
        listed.append({
            "direction": direction,
            "file": name,
            "channels_in": translators.channels[here],
            "channels_out": translators.channels[there],
            "tile": tile_side(translators),
            "examples": list(examples),
        })  # fmt: skip
    about = {"name": options.name, "ort": ort, "models": listed}
    page["models.json"] = (json.dumps(about, indent=1) + "\n").encode()
    write_ours(folder, page, options.overwrite, alone=True)
    tell(f"{folder}: a page for any web host; to try it: python -m http.server --directory {folder} --bind 127.0.0.1")


def tile_side(translators):
    """Up to how many pixels a side an image is translated whole."""
    return TILE_WITH_ATTENTION if attends(translators) else TILE


def example_files(side, channels, options):
    """Test images of a domain, evenly spread, as PNG without what their files tell besides pixels: name → bytes."""
    paths = list_images(find_side(Path(options.dataset_dir) / options.dataset_name, "test", side))
    chosen = np.unique((np.arange(options.examples) + 0.5) * len(paths) // options.examples).astype(int)
    if len(chosen) < options.examples:
        tell(f"side {side} has fewer test images than --examples {options.examples}: the page gets all {len(chosen)}")
    images = (np.atleast_3d(load_image(paths[place], channels, options.decoded_limit)) for place in chosen)
    try:
        return {f"examples/{side}{number}.png": encode_png(image) for number, image in enumerate(images)}
    except BadImage as error:
        why = f"{error.path} cannot be shown ({error.args[1]})"
        raise UserError(f"{why}; remove it, or leave --examples out") from error


def runtime_files(ort, folder):
    """Where the page finds onnxruntime-web: at the web address ``ort``, or in its own copy of that folder. The address,
    and that copy's files, name → bytes."""
    if ort.startswith(("https://", "http://")):
        return ort.rstrip("/") + "/", {}
    for place in (Path(ort), folder / "ort"):  # the copy of an earlier page is as good
        if all((place / name).is_file() for name in RUNTIME):
            return "ort/", {f"ort/{name}": files.read(place / name) for name in RUNTIME}
    missing = next(name for name in RUNTIME if not (Path(ort) / name).is_file())
    warn(
        f"{ort} has no {missing}: the page does not work before {', '.join(RUNTIME)} are in {folder / 'ort'}; "
        "run npm install onnxruntime-web, then this again"
    )
    return "ort/", {}
