"""What the benchmarks share: fair timing, peak memory, what the machine is, and how results are shown and kept."""

import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch

from readers.folders import find_side, list_images
from runtime.device import flush_denormals

flush_denormals()  # as the programs do


def medians(versions, device, rounds, calls=1):
    """Seconds per call of each of ``versions`` (name → function): the median of several rounds, after one to warm up.

    The versions take turns within a round, there and back, so that a slower minute of the machine meets all of them.
    With one thread (OMP_NUM_THREADS=1) on a CPU it is processor time, which other programs lengthen less.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    def seconds(function):
        synchronize(device)
        begin = clock()
        for _ in range(calls):
            function()
        synchronize(device)
        return (clock() - begin) / calls

    return in_turns(versions, rounds, seconds)


def in_turns(versions, rounds, measure):
    """The median of ``measure(version)`` for each of ``versions`` (name → version), as ``medians`` takes it."""
    found = {name: [] for name in versions}
    for round in range(rounds + 1):
        for name, version in list(versions.items())[:: 1 if round % 2 else -1]:
            number = measure(version)
            if round:
                found[name].append(number)
    return {name: statistics.median(numbers) for name, numbers in found.items()}


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(build, device, *arguments):
    """MiB that calling ``build(*arguments)()`` three times takes at its peak.

    On a GPU beside what was there before; on a CPU, in a process of its own, beside what that had when it was built.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step = build(*arguments)
        for _ in range(3):
            step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(grown, (build, torch.get_num_threads(), *arguments))


def grown(build, threads, *arguments):
    torch.set_num_threads(threads)
    step = build(*arguments)
    return growth(lambda: [step() for _ in range(3)])


def growth(function):
    """MiB that this process takes at its peak while ``function()`` runs, beside what it had before."""
    if not CLEAR.exists():
        function()
        return math.nan  # not on Linux
    CLEAR.write_text("5")  # sets the peak back to the present size
    before = resident("VmHWM")
    function()
    return resident("VmHWM") - before


CLEAR = Path("/proc/self/clear_refs")


def resident(line):
    """MiB of memory that Linux reports of this process under ``line``."""
    status = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(status[line].split()[0]) / 2**10


def machine_peak(device, dtype):
    """FLOP/s that the machine reaches in ``dtype``, there and then: of a large matrix product, and of a 3×3 convolution
    with 256 channels."""
    gpu = device.type == "cuda"
    side, batch, size = (8192, 64, 64) if gpu else (2048, 4, 64)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(batch, 256, size, size, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    if gpu:
        x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    seconds = medians(
        {"product": lambda: a @ b, "convolution": lambda: torch.conv2d(x, weight, padding=1)}, device, 10, 5
    )
    flops = {"product": 2 * side**3, "convolution": 2 * batch * size**2 * 256 * 256 * 9}
    return {name: flops[name] / seconds[name] for name in flops}


def machine(device):
    """What a figure must be read with."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in ("torch", "torchvision", "pillow")},
    }


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "CPU"


def training_images(folder):
    """The paths of trainA and trainB of a data set; ends with a hint where it is missing."""
    if not Path(folder).is_dir():
        sys.exit(f"there is no {folder}; build it: python datasets/earth.py {Path(folder).name}")
    return {side: list_images(find_side(folder, "train", side)) for side in "AB"}


def show(rows, path, device):
    """Print ``rows`` (dicts with equal keys) as a Markdown table; write them with the machine to ``path``, if any."""
    print(f"\n{machine(device)}\n\n{table(rows)}")
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"machine": machine(device), "rows": rows}, indent=1) + "\n")


def table(rows):
    """``rows``, dicts with equal keys, as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
