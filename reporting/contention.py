"""Whether a training's threads wait for cores that other programs use, and what to do about it."""

import contextlib
import time
from pathlib import Path

from runtime.files import open_regular

THREADS = Path("/proc/self/task")


class Contention:
    """Says once, after a run's first steps, that its ``threads`` wait for cores.

    They meet at the end of each operation. So where one of them waits, all do, and a run may crawl.
    """

    SECONDS, SHARE = 5, 0.2  # how much is measured at least, and how long of it a thread may wait

    def __init__(self, threads):
        self.threads, self.begin, self.said = threads, None, threads == 1  # one alone waits for no other

    def after_step(self):
        """One line where the threads waited, else ""."""
        if self.said:
            return ""
        now = time.monotonic()
        if self.begin is None:  # the first step makes ready, and does not count
            self.begin, self.before = now, seconds_waited()
            return ""
        if (seconds := now - self.begin) < self.SECONDS:
            return ""
        self.said = True
        after = seconds_waited()
        waiting = sum(after[thread] - self.before[thread] for thread in after.keys() & self.before.keys()) / seconds
        if waiting < self.SHARE * self.threads:
            return ""
        return (
            f"other programs use the cores of this training: its {self.threads} threads waited for one "
            f"{100 * waiting / self.threads:.0f} % of the time. It is faster beside them with OMP_NUM_THREADS="
            f"{max(1, self.threads - round(waiting))} before the command; Ctrl-C saves it, to go on with that"
        )


def seconds_waited():
    """How long each thread of this process was ready to run and had no core: its file of numbers → seconds.

    Linux alone says so (its documentation, scheduler/sched-stats); elsewhere, and where it was built without, empty.
    """
    seconds = {}
    for path in THREADS.glob("*/schedstat"):
        with contextlib.suppress(OSError), open_regular(path) as file:  # that of a thread which ends is gone
            seconds[path] = int(file.read().split()[1]) / 1e9
    return seconds
