"""Signals that end a run, noted so that training can finish its step and save."""

import contextlib
import os
import signal
import sys
import threading

from runtime.streams import leave_terminal

UNHEARD = getattr(signal, "SIGPIPE", 13)


def watched():
    """SIGINT, SIGTERM, and SIGHUP, which a closed terminal sends, unless nohup has it ignored."""
    closed = getattr(signal, "SIGHUP", None)
    ignored = closed is None or signal.getsignal(closed) == signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [closed])]


class Stopped(BaseException):
    """A signal came, or had come, inside ``StopSignal.at_once``."""


class StopSignal:
    """Notes the first signal that ends a run, so that the step in hand can be finished; the second ends the process.

    To be used in ``with``; ``received`` is the signal's number, 0 as long as there was none, and UNHEARD where nobody
    reads what the run says. A ``patient`` one ignores the second signal. ``answer`` is a line for whoever sent the
    first, since a step may take a while.
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

    def unheard(self):
        """Whoever read the output is gone. That ends a run as a signal does, unless one has come already."""
        self.received = self.received or UNHEARD

    def _note(self, number, frame):
        first = self.received in (0, UNHEARD)
        if not first and not self.patient:
            os._exit(128 + number)  # a checkpoint being written is a temporary file still
        self.received = number
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
def kept_handler(name):
    """Inside, a library may take the signal ``name`` for itself; afterwards its handler is the one from before."""
    number = getattr(signal, name, None)  # not all are on Windows
    before = number and signal.getsignal(number)
    try:
        yield
    finally:
        if number and signal.getsignal(number) != before:
            signal.signal(number, before)


@contextlib.contextmanager
def tidied_up():
    """Inside, SIGTERM ends the program as Ctrl-C does, so that what was begun is left in order."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
