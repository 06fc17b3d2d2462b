"""Where a program's words go, and what becomes of them where nobody takes them any more."""

import os
import sys
from contextlib import contextmanager


class Unfailing:
    """A ``stream`` of text whose write and flush never fail: words that cannot be written are lost.

    Where whoever read it is gone, as a ``tee`` that Ctrl-C has ended, it is silent from then on and ``gone`` is called.
    """

    def __init__(self, stream, gone):
        self.stream, self.gone = stream, gone

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self._try(self.stream.write, text)
        return len(text)

    def flush(self):
        self._try(self.stream.flush)

    def _try(self, call, *arguments):
        try:
            call(*arguments)
        except BrokenPipeError:
            silence(self.stream)
            self.gone()
        except OSError:  # a full disk, say; what is saved tells of it by itself
            pass


@contextmanager
def unfailing(gone):
    """Inside, neither of the two standard streams fails; ``gone`` is called where one has no reader any more."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Unfailing(stream, gone) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def silence(stream):
    """From here on nothing of ``stream`` is written anywhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def silence_unread():
    """Silence the standard streams that nobody reads, so that Python's last flush of them does not fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            silence(stream)


def leave_terminal():
    """Write no more to a terminal that is closed: that would be an error before the step in hand is saved."""
    for stream in (sys.stdout, sys.stderr):
        if stream.isatty():
            silence(stream)
