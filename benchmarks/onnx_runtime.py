"""Images per second of ONNX Runtime against torch: full-size networks at 256², one image at a time, on the CPU.

    python benchmarks/onnx_runtime.py [--json FILE]

Both take and return what the network sees: float32 N×C×H×W.
"""

import argparse
import json
import tempfile
from pathlib import Path

from common import medians, show  # first: it makes the folder above importable

# isort: split
import torch

from inference import onnx_export
from inference.onnx_model import OnnxModel
from options import parse_export, parse_training
from readers.domains import pictures_of, plain
from runtime.errors import exit_cleanly
from translators import Translators, load_translators

RECIPES = "attention", "lsgan", "classic", "notebook"
CPU = torch.device("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    show([measure(recipe, arguments) for recipe in RECIPES], arguments.json, CPU)


@torch.inference_mode()
def measure(recipe, arguments):
    """A row of the table."""
    torch.manual_seed(0)
    options = parse_training([f"--recipe={recipe}"])[0]
    state = {"options": vars(options), "generators": Translators(options).state_dict()}
    translators = load_translators(state, CPU)
    with tempfile.TemporaryDirectory() as folder:
        about = {"domains": json.dumps(plain(pictures_of(options)))}
        name, content, _ = onnx_export.encode(translators, "AtoB", about, parse_export(["--io=float"]))
        path = Path(folder) / name
        path.write_bytes(content)
        model = OnnxModel(path)
    x = torch.rand(1, options.channels_A, arguments.size, arguments.size) * 2 - 1
    networks = {"torch": translators, "ONNX Runtime": model}
    seconds = medians({name: lambda n=n: n.translate("A", x) for name, n in networks.items()}, CPU, arguments.rounds)
    translated = [network.translate("A", x)[0] for network in networks.values()]
    return {
        "recipe": recipe,
        "file, MB": len(content) / 1e6,
        **{f"{name}, images/s": 1 / taken for name, taken in seconds.items()},
        "difference": f"{(translated[0] - translated[1]).abs().max():.1e}",
    }


if __name__ == "__main__":
    exit_cleanly(main)
