"""Kill a training process fifty times, at random moments that mostly fall into saves, and resume it each time.

Usage: python tests/sudden_deaths.py <flags of cycle_gan.py>; exits with 0 if no life lost what an earlier one saved.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch.utils.tensorboard
import torchvision.utils  # noqa: F401 - so that no child needs to import these two

import cycle_gan
from runtime import checkpoints

SAVES = Path("saved_models/tiny")
LIVES = 50


def newest():
    return max((name[:2] for name in checkpoints.listed(SAVES)), default=None)


def live(flags):
    """Train in a forked process, saving after every step; returns its process id."""
    child = os.fork()
    if child:
        return child
    sys.argv = ["cycle_gan.py", "--checkpoint_every=1", "--n_epochs=100000", "--n_cpu=0", *flags]
    os.dup2(os.open("life.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    try:
        cycle_gan.main()
    finally:
        os._exit(1)  # it should not end by itself


def main():
    torch.set_num_threads(1)
    draw, furthest = random.Random(0), 0
    for _ in range(LIVES):
        before = newest()
        child = live(["--dataset_name=tiny", "--epoch=latest"] if furthest else sys.argv[1:])
        if draw.random() < 0.8:  # wait for its first save, so that the kill falls into one of the next
            deadline = time.monotonic() + 20
            while newest() == before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.1))
        else:
            time.sleep(draw.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), Path("life.log").read_text()
        if newest():
            steps = checkpoints.load(SAVES, "latest", resume=True)[1]["steps"]
            assert steps >= furthest, f"{furthest} steps were saved, {steps} are left"
            furthest = steps
    assert furthest >= LIVES / 2, f"only {furthest} saves in {LIVES} lives"
    print(f"{furthest} steps saved in {LIVES} lives")


if __name__ == "__main__":
    main()
