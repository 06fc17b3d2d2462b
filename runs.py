"""What surrounds a training run: the lock on its folder, signals, and the record of where it came from."""

import json
import os
import platform
import signal
import socket
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

from errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


class FolderLock:
    """Keeps a second process out of a run's folder; to be used in ``with``. Raises UserError naming the first one.

    The operating system drops the lock with its process, however that ends. Worker processes do not inherit it.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder.with_name(f"{self.folder.name}.lock")

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a+")
        try:
            if fcntl:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                self.file.seek(1 << 20)  # a byte behind the text, which the second process is to read
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            self.file.seek(0)
            holder = self.file.read().strip() or "another process"
            raise UserError(
                f"{self.folder} is in use by {holder}; wait for it, or choose another --checkpoint_dir"
            ) from None
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self.file.flush()
        return self

    def __exit__(self, *exception):
        self.file.truncate(0)
        self.file.close()


class StopSignal:
    """Notes the first SIGINT or SIGTERM, so that the step in hand can be finished; the second ends the process at once.

    To be used in ``with``; ``received`` is the signal's number, 0 as long as there was none. A ``patient`` one ignores
    the second.
    """

    def __init__(self, patient=False):
        self.received, self.patient = 0, patient

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.received and not self.patient:
            os._exit(128 + number)  # a checkpoint being written is a temporary file still
        self.received = number


def fingerprint(paths):
    """What a domain's training images are, in short: {"images": their number, "bytes": their size in all}."""
    sizes = [os.stat(path).st_size for path in paths]
    return {"images": len(sizes), "bytes": sum(sizes)}


def record(folder, options, device, data, steps):
    """Append to ``<folder>/runs.jsonl`` what is needed to repeat this start: one line of JSON."""
    line = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "from_step": steps,
        "options": vars(options),
        "versions": {name: metadata.version(name) for name in ("torch", "torchvision", "numpy", "pillow", "tqdm")},
        "python": platform.python_version(),
        "revision": revision(),
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or str(device),
        "data": data,
    }
    with open(Path(folder) / "runs.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def revision():
    """The git revision of this program, marked where files differ from it; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
