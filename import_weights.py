"""Make a checkpoint of weights that pytorch-CycleGAN-and-pix2pix saved, or published; see ``--help``.

    python import_weights.py latest_net_G_A.pth latest_net_G_B.pth --name mine
    python import_weights.py --pretrained horse2zebra

From then on test.py, evaluate.py and ``cycle_gan.py --init_from`` know no difference. One direction alone is enough.
"""

from options import TRAIN, parse_import
from runtime.errors import UserError, counted, exit_cleanly, tell

if __name__ == "__main__":
    exit_cleanly(parse_import)  # answers --help and bad flags, before torch is imported

import hashlib
from argparse import Namespace
from pathlib import Path

from inference.pytorch_cyclegan import read_pytorch_cyclegan
from readers.domains import pictures_of, plain
from registry import RECIPES
from reporting.texts import command
from runtime import checkpoints, download, files
from runtime.flags import complete
from runtime.folders import make_ready
from runtime.lock import FolderLock, in_turn
from runtime.weights import LARGEST

# what a file is by the end of its name, and what the checkpoint calls it; their D_A judges what G_A makes: images of B
NAMED = {"net_G_A": "G_AB", "net_G_B": "G_BA", "net_D_A": "D_B", "net_D_B": "D_A"}
EXCHANGED = {"net_G_A": "G_BA", "net_G_B": "G_AB", "net_D_A": "D_A", "net_D_B": "D_B"}  # in its --direction BtoA


def main():
    options = parse_import()
    root = Path(options.checkpoint_dir)
    if not options.pretrained:
        return make(assign(map(Path, options.files), options.direction), read_pytorch_cyclegan, options)
    with in_turn(root / f"{options.pretrained}_pretrained"):
        paths = download.fetch_pretrained(options.pretrained, root, options.pretrained_url, LARGEST)
        make(paths, read_fetched, options)
        for path in paths.values():
            path.unlink()


def make(paths, read, options):
    """Write a checkpoint of the networks in ``paths``, name → file, each as ``read`` reads it."""
    state = checkpoint({network: (path, read(path)) for network, path in paths.items()}, options)
    folder = Path(options.checkpoint_dir) / state["options"]["name"]
    with FolderLock(folder):
        make_ready(folder, anew=True)
        checkpoints.write(checkpoints.path_of(folder, 0), state)
    report(state, Namespace(**state["options"]))


def read_fetched(path):
    """What a server sent: what is no network is not kept, since no later try would go on from it."""
    try:
        return read_pytorch_cyclegan(path)
    except UserError:
        path.unlink()
        raise


def assign(paths, direction):
    """Which network each file is: name in the checkpoint → path. Raises UserError where two would be the same.

    Names that do not say it are generators, in the order AtoB, BtoA. Where ``direction`` is BtoA, that and what names
    say are the other way round.
    """
    names = NAMED if direction == "AtoB" else EXCHANGED
    named, unnamed = {}, []
    for path in paths:
        if (network := names.get(path.stem[-7:])) is None:
            unnamed.append(path)
        elif other := named.get(network):
            raise UserError(f"{other} and {path} are both {path.stem[-7:]}; name one of them")
        else:
            named[network] = path
    free = [
        network for network in (("G_AB", "G_BA") if direction == "AtoB" else ("G_BA", "G_AB")) if network not in named
    ]
    if len(unnamed) > len(free):
        raise UserError(f"{unnamed[len(free)]} is one generator too many; there is one for each direction")
    return named | dict(zip(free, unnamed, strict=False))


def checkpoint(networks, options):
    """A checkpoint of ``networks``, name → (path, Imported). Raises UserError where they do not belong together."""
    kinds = {"G": "generator", "D": "critic"}
    shape, first = {}, None
    for name, (path, network) in networks.items():
        if network.kind != kinds[name[0]]:
            raise UserError(f"{path} is a {network.kind}, by its tensors, and was to be the {kinds[name[0]]} {name}")
        for option, value in by_side(name, network.options).items():
            if shape.setdefault(option, value) != value:
                raise UserError(f"{path} has --{option} {value}, and {first} {shape[option]}; import them apart")
        first = first or path
    if not (generators := of_kind(networks, "G")):
        raise UserError("there is no generator among the files; add one, such as latest_net_G_A.pth")
    shape["channels"] = shape["channels_A"]
    if shape["channels_A"] != shape["channels_B"]:
        shape["lambda_id"] = 0.0  # there is no identity between them
    settings = RECIPES["classic"] | dict(recipe="classic", dis_net="patch70", amp="off") | shape
    settings |= dict(dataset_name=options.name or options.pretrained, checkpoint_dir=options.checkpoint_dir)
    completed = complete(TRAIN, settings)
    return {
        "format": checkpoints.FORMAT,
        **dict(epoch=0, sample=0, steps=0, data={}),
        "options": vars(completed),
        "given": sorted(shape),
        "imported": {name: origin(path) for name, (path, _) in networks.items()},
        "domains": plain(pictures_of(completed)),
        "generators": {f"{name}.{key}": value for name, state in generators.items() for key, value in state.items()},
        "critics": of_kind(networks, "D"),
    }


def by_side(name, options):
    """``options`` of the network called ``name``, an Imported's, with its channels on the sides that are its own."""
    here, there = options["channels_A"], options.get("channels_B")
    own = {
        "G_AB": dict(channels_A=here, channels_B=there),
        "G_BA": dict(channels_A=there, channels_B=here),
        "D_A": dict(channels_A=here),
        "D_B": dict(channels_B=here),
    }
    return {option: value for option, value in options.items() if not option.startswith("channels")} | own[name]


def of_kind(networks, letter):
    return {name: network.state for name, (_, network) in networks.items() if name.startswith(letter)}


def origin(path):
    return {"file": path.name.removesuffix(".part"), "sha256": hashlib.sha256(files.read(path)).hexdigest()}


def report(state, options):
    """What was found in the files, and what can be done with it."""
    for name, source in sorted(state["imported"].items(), reverse=True):
        tell(f"{source['file']} → {name}")
    channels = f"{counted(options.channels_A, 'channel')} in A, {options.channels_B} in B"
    tell(
        f"generators with --ngf {options.ngf}, {options.n_residual_blocks} residual blocks, {options.norm} norm, "
        f"{'' if options.dropout else 'no '}dropout, transposed convolutions; {channels}"
    )
    tell(f"to translate: {command('test.py', options)} --input FOLDER --output FOLDER")


if __name__ == "__main__":
    exit_cleanly(main)
