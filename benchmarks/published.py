"""Our training step beside that of the published programs, each in a process of its own; the processes take turns.

    OMP_NUM_THREADS=1 python benchmarks/published.py CHECKOUT --size 128 --filters 64 --blocks 9

CHECKOUT: a clone of github.com/taesungp/contrastive-unpaired-translation, which holds the published CycleGAN
(``--model cycle_gan``; its anti-aliasing is switched off, as in pytorch-CycleGAN-and-pix2pix) and CUT (``--model cut``,
one direction). Both keep their defaults, but for the sizes. It is processor time, with several threads the clock's;
images are random, nothing is read or written.
"""

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import sys
import tempfile
import time

import torch
from common import in_turns, show  # first of ours: it makes the folder above importable

from runtime.errors import exit_cleanly


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout")
    parser.add_argument("--model", default="cycle_gan", choices=("cycle_gan", "cut"))
    parser.add_argument("--recipes", nargs="+", default=["classic", "lsgan", "attention"])
    parser.add_argument("--amp", nargs="+", default=["off", "auto"], help="precisions of our steps")
    parser.add_argument("--optimizers", nargs="+", default=["adam"], help="of our steps")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="in a round; a penalty may be due at each fourth alone")
    parser.add_argument("--json", help="file for the results")
    arguments = parser.parse_args()
    sizes = arguments.size, arguments.filters, arguments.blocks, arguments.batch_size
    versions = {"published": Version(published, arguments.checkout, arguments.model, *sizes)}
    for recipe, amp, optimizer in itertools.product(arguments.recipes, arguments.amp, arguments.optimizers):
        flags = f"--recipe={recipe} --amp={amp} --optimizer={optimizer}"
        versions[f"{recipe}, --amp {amp}, {optimizer}"] = Version(ours, flags, *sizes)
    medians = in_turns(versions, arguments.rounds, lambda version: version.seconds(arguments.steps) / arguments.steps)
    for version in versions.values():
        version.pipe.send(None)
    rows = [
        {"step": name, "size": arguments.size, "filters": arguments.filters, "blocks": arguments.blocks,
         "s": seconds, "times as fast": medians["published"] / seconds}
        for name, seconds in medians.items()
    ]  # fmt: skip
    show(rows, arguments.json, torch.device("cpu"))


class Version:
    """A program's training step in a process of its own, built there by ``build(*given)``."""

    def __init__(self, build, *given):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        context.Process(target=serve, args=(other, torch.get_num_threads(), build, *given), daemon=True).start()

    def seconds(self, steps):
        """How long so many take."""
        self.pipe.send(steps)
        return self.pipe.recv()


def serve(pipe, threads, build, *given):
    """Make as many steps as each message says."""
    torch.set_num_threads(threads)
    step, clock = build(*given), time.process_time if threads == 1 else time.perf_counter
    for steps in iter(pipe.recv, None):
        begin = clock()
        for _ in range(steps):
            step()
        pipe.send(clock() - begin)


def published(checkout, model, size, filters, blocks, batch_size):
    """The step of the program in the folder ``checkout``, without what its train.py does around it."""
    network = program(checkout, model, size, filters, blocks, batch_size)
    batch = noise(size, batch_size)

    def step():
        network.set_input(batch)
        network.optimize_parameters()

    return step


def noise(size, batch_size):
    """A batch of random images, as the published programs take it."""
    images = torch.rand(2, batch_size, 3, size, size) * 2 - 1
    return {"A": images[0], "B": images[1], "A_paths": [""], "B_paths": [""]}


def program(checkout, model, size, filters, blocks, batch_size=1, flags=""):
    """What the program in the folder ``checkout`` trains, with its defaults but for the sizes and ``flags``."""
    with modules_of(checkout), tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        flags += f" --model {model} --gpu_ids -1 --crop_size {size} --ngf {filters} --ndf {filters}"
        flags += f" --batch_size {batch_size} --checkpoints_dir {folder} --dataroot none"
        plain = " --no_antialias --no_antialias_up" if model == "cycle_gan" else ""
        sys.argv = ["train.py", *(flags + plain).split()]
        from options.train_options import TrainOptions

        from models import create_model, networks

        generator = networks.ResnetGenerator  # its names stand for 4, 6 and 9 blocks alone
        build = generator.__init__
        generator.__init__ = lambda self, *given, **named: build(self, *given, **{**named, "n_blocks": blocks})
        options = TrainOptions().parse()
        options.amp = False  # which its CycleGAN looks for, and its parser lacks
        network = create_model(options)
        if model == "cut":
            network.data_dependent_initialize(noise(size, batch_size))
        network.setup(options)
    return network


@contextlib.contextmanager
def modules_of(checkout):
    """In it the published modules are imported by their names, some of which ours have; ours are back behind it."""
    names = "data", "models", "options", "util"

    def taken():
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}

    before, arguments = taken(), sys.argv
    sys.path.insert(0, os.path.abspath(checkout))
    try:
        yield
    finally:
        sys.path.remove(os.path.abspath(checkout))
        sys.argv = arguments
        taken()
        sys.modules.update(before)


def ours(flags, size, filters, blocks, batch_size):
    from train_step import stepper

    from options import parse_training
    from trainer import CycleGAN

    interval = parse_training(flags.split())[0].penalty_interval
    flags += f" --img_height={size} --img_width={size} --batch_size={batch_size}"
    flags += f" --ngf={filters} --ndf={filters} --n_residual_blocks={blocks} --penalty_interval={interval}"
    return stepper(CycleGAN, flags.split(), torch.device("cpu"))


if __name__ == "__main__":
    exit_cleanly(main)
