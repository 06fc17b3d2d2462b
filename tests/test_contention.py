"""Threads that wait for cores which other programs use: measured, and said once."""

import os
import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY

from reporting import contention
from reporting.contention import Contention, seconds_waited


def told(threads, waited, seconds, monkeypatch, steps=20):
    """What is said in so many steps of so many ``seconds``, in each of which each thread waits for ``waited``."""
    clock = count()
    looks = SimpleNamespace(monotonic=lambda: next(clock) * seconds)
    monkeypatch.setattr(contention, "time", looks)
    watch, said = Contention(threads), []
    for step in range(steps):
        thread_times = {f"thread {i}": 100 + step * waited for i in range(threads)} | {f"new {step}": 1000.0 * step}
        monkeypatch.setattr(contention, "seconds_waited", thread_times.copy)
        if line := watch.after_step():
            said.append((step, line))
    return said


@pytest.mark.parametrize(
    ("threads", "waited", "percent", "advised"),
    [(2, 0.5, 50, 1), (2, 0.95, 95, 1), (16, 0.5, 50, 8), (8, 0.25, 25, 6), (3, 1, 100, 1)],
)
def test_what_waits_is_said_once_with_the_threads_that_are_left(threads, waited, percent, advised, monkeypatch):
    ((step, line),) = told(threads, waited, 1, monkeypatch)
    assert step == 5  # the first at which five seconds are measured
    assert f"its {threads} threads waited for one {percent} % of the time" in line
    assert f"with OMP_NUM_THREADS={advised} before" in line


@pytest.mark.parametrize(("threads", "waited"), [(2, 0), (2, 0.1), (16, 0.19), (1, 0.9)])
def test_nothing_is_said_where_they_hardly_wait_or_wait_for_no_other(threads, waited, monkeypatch):
    assert told(threads, waited, 1, monkeypatch) == []


def test_long_steps_are_judged_after_the_second(monkeypatch):
    ((step, _),) = told(2, 10, 20, monkeypatch)
    assert step == 1


def test_nothing_is_said_where_the_system_does_not_measure(monkeypatch, tmp_path):
    monkeypatch.setattr(contention, "THREADS", tmp_path / "none")
    assert seconds_waited() == {}
    monkeypatch.setattr(contention, "time", SimpleNamespace(monotonic=count(0, 10).__next__))
    watch = Contention(2)
    assert [watch.after_step() for _ in range(3)] == ["", "", ""]


@pytest.mark.skipif(not contention.THREADS.is_dir(), reason="Linux alone says how long threads wait")
def test_the_wait_of_a_thread_that_shares_its_core_is_measured():
    core = min(os.sched_getaffinity(0))
    loop = f"import os; os.sched_setaffinity(0, [{core}]); print(flush=True)\nwhile True: pass"
    usual = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            os.sched_setaffinity(0, [core])
            before, end = seconds_waited(), time.process_time() + 0.2
            while time.process_time() < end:
                pass
            after = seconds_waited()
        finally:
            os.sched_setaffinity(0, usual)
            other.kill()
    assert sum(after[thread] - before[thread] for thread in before.keys() & after.keys()) > 0.05


def test_a_training_warns_of_it(workplace, run, monkeypatch):
    waits = ({"main": 9.0 * look, "other": 9.0 * look} for look in count())
    monkeypatch.setattr(contention, "seconds_waited", waits.__next__)
    monkeypatch.setattr(Contention, "SECONDS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    result = run("cycle_gan", *TINY, "--n_epochs=2")
    assert result.code == 0, result.err
    assert result.err.count("warning: other programs use the cores of this training") == 1
