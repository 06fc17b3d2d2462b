"""The lock that keeps a second process out of a run's folder."""

import errno
import os
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.errors import UserError, describe, tell, warn
from runtime.files import named_errors, open_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

SIGN = "process "  # with which a lock's text begins
HELD = errno.EACCES, errno.EAGAIN, errno.EDEADLK  # by another process; the last is Windows' word


class InUse(UserError):
    """Another process is in the folder."""


@contextmanager
def locked(*folders):
    """Inside, no second process can get in here with one of ``folders``. Raises UserError, as FolderLock does."""
    with ExitStack() as locks:
        for folder in sorted({os.path.realpath(folder): folder for folder in folders}.values()):
            locks.enter_context(FolderLock(folder))
        yield


@contextmanager
def in_turn(folder):
    """Inside, no other process is in here with ``folder``: it waits, and looks each second."""
    with ExitStack() as lock:
        waiting = False
        while True:
            try:
                lock.enter_context(FolderLock(folder))
                break
            except InUse as error:
                if not waiting:
                    tell(f"{error}: this waits")
                waiting = True
                time.sleep(1)
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
        except OSError as error:
            if error.errno not in HELD:  # as on network disks without locks
                warn(f"{self.path} cannot be locked here ({describe(error)}); start no second run in {self.folder}")
                return self
            holder = holder or "another process"
            self.file.close()
            raise InUse(f"{self.folder} is in use by {holder}; wait for it, or take another folder (--name)") from None
        with named_errors(self.path):
            self.file.truncate(0)
            self.file.write(f"{SIGN}{os.getpid()} on {socket.gethostname()}\n".encode())
            self.file.flush()
        return self

    def __exit__(self, *exception):
        self.file.truncate(0)
        self.file.close()
