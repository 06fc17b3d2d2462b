"""Where a run came from: its training images, options, versions and revision."""

import os
import platform
import socket
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

from runtime import jsonl


def fingerprint(count, files):
    """What a domain's training images are, in short: {"images": their number, "bytes": the size of their files}."""
    return {"images": count, "bytes": sum(os.stat(path).st_size for path in files)}


def origin(path, state):
    """A checkpoint that a run starts from, in short."""
    return {"file": str(path)} | {name: state[name] for name in ("epoch", "steps", "data", "imported") if name in state}


def record(folder, options, device, data, steps, origin=None):
    """Append to ``<folder>/runs.jsonl`` what is needed to repeat this start: one line of JSON."""
    line = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "from_step": steps,
        "from_networks_of": origin,
        "options": vars(options),
        "versions": {name: metadata.version(name) for name in ("torch", "torchvision", "numpy", "pillow", "tqdm")},
        "python": platform.python_version(),
        "revision": revision(),
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or str(device),
        "data": data,
    }
    jsonl.append(Path(folder) / "runs.jsonl", line)


def trained_by(folder):
    """The revision that the newest start in ``folder`` was made with; None where ``runs.jsonl`` does not say."""

    def sound(row):
        return "revision" in row and isinstance(row["revision"], (str, type(None)))  # None as ``revision`` gives it

    try:
        return jsonl.read(Path(folder) / "runs.jsonl", sound)[-1]["revision"]
    except (OSError, IndexError):
        return None


def revision():
    """The git revision of this program, marked where files differ from it; None outside a repository."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent.parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
