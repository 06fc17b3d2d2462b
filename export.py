"""Write a trained model in a form that others can use: ``python export.py --dataset_name monet2photo``; see ``--help``.

ONNX for programs in any language; with ``--web`` a page that translates in its visitor's browser; and weights that
pytorch-CycleGAN-and-pix2pix reads.
"""

from options import parse_export
from runtime.errors import exit_cleanly

if __name__ == "__main__":
    exit_cleanly(parse_export)  # answers --help and bad flags, before torch is imported

import json
from pathlib import Path

from inference import web_page
from readers.domains import domains_of, plain
from registry import FORMATS, load
from runtime import checkpoints, provenance
from runtime.errors import printable, tell
from runtime.folders import write_ours
from translators import load_translators


def main():
    options = parse_export()
    saves, folder = (Path(root) / options.name for root in (options.checkpoint_dir, options.exports_dir))
    path, state = checkpoints.load(saves, options.epoch)
    translators = load_translators(state, "cpu")
    directions = translators.pick(options.direction)
    encode = load(FORMATS[options.format])
    metadata = about(options.name, state, provenance.trained_by(saves))
    encoded = {direction: encode(translators, direction, metadata, options) for direction in directions}
    write_ours(folder, {name: content for name, content, _ in encoded.values()}, options.overwrite)
    for name, content, said in encoded.values():
        tell(f"{folder / name}: {len(content) / 1e6:.1f} MB; {said}")
    if options.web:
        models = {direction: (name, content) for direction, (name, content, _) in encoded.items()}
        web_page.write(folder / "web", models, translators, options)


def about(name, state, revision):
    """Where a model comes from, as a dict of str. No paths of the machine that it was trained on."""
    told = {flag: value for flag, value in state["options"].items() if not flag.endswith(("_dir", "_url", "_from"))}
    return {
        "name": printable(name),
        "epoch": str(state["epoch"]),
        "options": json.dumps(told),
        "domains": json.dumps(plain(domains_of(state))),
        "training_revision": revision or "unknown",
    }


if __name__ == "__main__":
    exit_cleanly(main)
