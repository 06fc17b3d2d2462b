"""Signals that end a run, noted so that training can finish its step and save."""

import contextlib
import os
import signal
import sys
import threading


def watched():
    """SIGINT, SIGTERM, and SIGHUP, which a closed terminal sends, unless nohup has it ignored."""
    closed = getattr(signal, "SIGHUP", None)
    ignored = closed is None or signal.getsignal(closed) == signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [closed])]


class Stopped(BaseException):
    """A signal came, or had come, inside ``StopSignal.at_once``."""


class StopSignal:
    """Notes the first signal that ends a run, so that the step in hand can be finished; the second ends the process.

    To be used in ``with``; ``received`` is the signal's number, 0 as long as there was none. A ``patient`` one ignores
    the second. ``answer`` is a line for whoever sent the first, since a step may take a while.
    """

    def __init__(self, patient=False, answer=""):
        self.received, self.patient, self.answer = 0, patient, answer
        self._raises = False

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in watched()}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self):
        """Around what takes long and can be left out: there a signal raises Stopped, and waits for nothing."""
        self._raises = True
        try:
            if self.received:
                raise Stopped
            yield
        finally:
            self._raises = False

    def _note(self, number, frame):
        if self.received and not self.patient:
            os._exit(128 + number)  # a checkpoint being written is a temporary file still
        first, self.received = not self.received, number
        if number not in (signal.SIGINT, signal.SIGTERM):
            leave_terminal()
        elif first and self.answer:
            with contextlib.suppress(OSError):  # straight to the file: Python's own may be in use just now
                os.write(2, f"\n{self.answer}\n".encode())
        if first and self._raises:
            raise Stopped


@contextlib.contextmanager
def held_back():
    """Inside, signals that end a run wait, for what they would leave broken: a fork, which loses an exception that a
    handler raises in it. The processes that are started in here do not receive them."""
    came, numbers = [], watched() if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    if masks := hasattr(signal, "pthread_sigmask"):  # not on Windows, which does not fork either
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def tidied_up():
    """Inside, SIGTERM ends the program as Ctrl-C does, so that what was begun is left in order."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_terminal():
    """Write no more to a terminal that is closed: that would be an error before the step in hand is saved."""
    for stream in (sys.stdout, sys.stderr):
        if stream.isatty():
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
