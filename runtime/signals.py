"""SIGINT and SIGTERM, noted so that training can finish its step and save."""

import os
import signal


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
