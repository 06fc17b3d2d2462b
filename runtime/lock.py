"""The lock that keeps a second process out of a run's folder."""

import os
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.errors import UserError
from runtime.files import named_errors, open_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

SIGN = "process "  # with which a lock's text begins


@contextmanager
def locked(*folders):
    """Inside, no second process can get in here with one of ``folders``. Raises UserError, as FolderLock does."""
    with ExitStack() as locks:
        for folder in sorted({os.path.realpath(folder): folder for folder in folders}.values()):
            locks.enter_context(FolderLock(folder))
        yield


class FolderLock:
    """Keeps a second process out of a run's folder; to be used in ``with``. Raises UserError that names the first.

    The operating system drops the lock with its process, however that ends. Worker processes do not inherit it.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder.with_name(f"{self.folder.name}.lock")

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open_regular(self.path, "ab+")
        self.file.seek(0)
        holder = self.file.read(200).decode(errors="replace").strip()
        if holder and not holder.startswith(SIGN):
            self.file.close()
            raise UserError(f"{self.path} is no lock of this program, but would become one; name another folder")
        try:
            if fcntl:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                self.file.seek(1 << 20)  # a byte behind the text, which the second process is to read
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            holder = holder or "another process"
            raise UserError(f"{self.folder} is in use by {holder}; wait for it, or choose another folder") from None
        with named_errors(self.path):
            self.file.truncate(0)
            self.file.write(f"{SIGN}{os.getpid()} on {socket.gethostname()}\n".encode())
            self.file.flush()
        return self

    def __exit__(self, *exception):
        self.file.truncate(0)
        self.file.close()
