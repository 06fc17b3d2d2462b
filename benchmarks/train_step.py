"""One training step against the textbook's, and against what the machine can do.

    python benchmarks/train_step.py                                               # on a CPU: crops of 64, 16 filters
    python benchmarks/train_step.py --size 256 --batch 1 8 16 --json h100.json    # on a GPU: full networks

Both versions train the same networks by Adam on the same images; they take turns, and the median of the rounds counts.
The textbook's step computes in float32. "share of peak" is the number of floating-point operations of our step
(counted by torch, without what the optimizer does) over time and over the rate of the faster of a large matrix product
and a 3×3 convolution with 256 channels, in the type of our step. What stands behind ``--`` are flags of cycle_gan.py.
"""

import argparse
from contextlib import nullcontext
from itertools import count

from common import machine_peak, medians, peak_memory, show  # first: it makes the folder above importable

# isort: split
import torch
from textbook import Textbook
from torch.utils.flop_counter import FlopCounterMode

from options import parse_training
from registry import RECIPES
from reporting.loss_log import LossLog
from runtime.device import AMP_TYPES, pick_amp, pick_device, set_tf32
from runtime.errors import exit_cleanly
from trainer import CycleGAN

SMALL_NETWORKS = ["--ngf=16", "--ndf=16", "--n_residual_blocks=3"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--size", type=int, nargs="+", help="crops (default: 64 on a CPU, 256 on a GPU)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=1, help="in a round")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    gpu = device.type == "cuda"
    networks = [] if gpu else SMALL_NETWORKS
    flags = [*networks, f"--device={device}", "--optimizer=adam", *arguments.flags]  # the textbook's
    rows, peaks = [], {}
    for recipe in arguments.recipes:
        for size in arguments.size or ([256] if gpu else [64]):
            for batch in arguments.batch:
                words = [f"--recipe={recipe}", f"--img_height={size}", f"--img_width={size}", f"--batch_size={batch}"]
                rows.append(measure([*words, *flags], device, arguments, peaks))
                print(rows[-1], flush=True)
    show(rows, arguments.json, device)


def measure(words, device, arguments, peaks):
    """One row of the table."""
    options = parse_training(words)[0]
    amp = pick_amp(options.amp, device)
    dtype = AMP_TYPES.get(amp, torch.float32)
    if dtype not in peaks:
        peaks[dtype] = max(machine_peak(device, dtype).values())
    flops = operations(words, device)
    steps = {"textbook": stepper(Textbook, words, device), "ours": stepper(CycleGAN, words, device)}
    seconds = medians(steps, device, arguments.rounds, arguments.steps)
    del steps
    memory = {kind.__name__: peak_memory(stepper, device, kind, words, device) for kind in (Textbook, CycleGAN)}
    return {
        "recipe": options.recipe,
        "size": options.img_height,
        "batch": options.batch_size,
        "precision": "float32" if amp == "off" else amp,
        "textbook steps/s": 1 / seconds["textbook"],
        "steps/s": 1 / seconds["ours"],
        "images/s": options.batch_size / seconds["ours"],
        "times the textbook": seconds["textbook"] / seconds["ours"],
        "textbook MiB": memory["Textbook"],
        "MiB": memory["CycleGAN"],
        "share of peak": flops / seconds["ours"] / peaks[dtype],
        "peak TFLOP/s": peaks[dtype] / 1e12,
    }


def stepper(kind, words, device):
    """A function that makes one training step of a new model on random images, with all terms in each step."""
    options = parse_training(["--penalty_interval=1", *words])[0]
    torch.backends.cudnn.benchmark = True
    set_tf32(options.tf32)
    torch.manual_seed(0)
    model, log = kind(options, device), LossLog()
    images = torch.rand(2, options.batch_size, options.channels_A, options.img_height, options.img_width, device=device)

    steps = count(options.n_critic, options.n_critic)

    def step():
        batch = dict(zip("AB", images * 2 - 1, strict=True))
        for update in model.updates(next(steps)):
            terms = update(batch)
            if kind is CycleGAN:
                log._pending.clear()
                log.add(0, terms)  # as the loop does; the textbook has read its numbers already

    return step


class NoModules(nullcontext):
    """Counts for the whole alone: the counter's own list of modules does not get along with autograd.grad."""

    parents = frozenset({"Global"})


def operations(words, device):
    """Floating-point operations of one of our steps, uncompiled."""
    step = stepper(CycleGAN, [*words, "--no_compile"], device)
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()
    with counter:
        step()
    return counter.get_total_flops()


if __name__ == "__main__":
    exit_cleanly(main)
