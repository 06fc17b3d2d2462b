"""The published CycleGAN and CUT trained and measured as experiment.py does with ours: a line of JSON.

    python benchmarks/published_pictures.py CHECKOUT --model cut --dataset topo2relief --seconds 200 --seed 0

CHECKOUT as for published.py. Budget, sizes, images, crops, mirroring and the course of the learning rate are those of
experiment.py; losses, networks, initialisation and learning rate the program's own, float32, without an average of the
generators. CUT translates one way: it is trained once for each direction, in half the time each.
"""

import argparse
import random
import sys
from argparse import Namespace
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from experiment import Measure, keep, options_of, save_grid, train
from published import program

from runtime.device import flush_denormals
from runtime.errors import exit_cleanly
from translators import Translators

# Of CUT's layers that its contrastive loss looks at, the last is the middle one of nine residual blocks. Of three: the
# last.
FLAGS = {"cycle_gan": [""], "cut": [f"--nce_layers 0,4,8,12,14 --direction {way}" for way in ("AtoB", "BtoA")]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout")
    parser.add_argument("--model", default="cycle_gan", choices=FLAGS)
    parser.add_argument("--dataset", default="topo2relief")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", help="file for a sample grid")
    parser.add_argument("--json", help="file to which the line is appended")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flush_denormals()

    options = options_of(arguments.dataset, arguments.seed, ["--recipe=classic"])
    torch.manual_seed(options.seed)
    random.seed(options.seed)  # of its history of translations
    sizes = options.img_height, options.ngf, options.n_residual_blocks
    models = [program(arguments.checkout, arguments.model, *sizes, flags=own) for own in FLAGS[arguments.model]]
    trained = [train(Published(model), options, arguments.seconds / len(models)) for model in models]

    translators = Translators(options)
    generators = (models[0].netG_A, models[0].netG_B) if arguments.model == "cycle_gan" else (m.netG for m in models)
    translators.G_AB, translators.G_BA = generators
    translators.eval().requires_grad_(False)
    ready = Namespace(translators=translators, options=options, device=torch.device("cpu"), amp="off")
    line = {
        "dataset": arguments.dataset, "variants": [], "flags": f"published {arguments.model}", "seed": arguments.seed,
        "seconds": arguments.seconds, "steps": sum(steps for _, steps in trained),
        "losses": [losses for losses, _ in trained], **Measure(ready, arguments.dataset)(Namespace(module=translators)),
    }  # fmt: skip
    keep(line, arguments.json)
    if arguments.grid:
        save_grid(translators, options, ready.device, arguments.grid)


class Published:
    """A published program, as ``train`` of experiment.py calls a trainer."""

    device = torch.device("cpu")
    update_G = None

    def __init__(self, model):
        self.model = model
        groups = [group for optimizer in model.optimizers for group in optimizer.param_groups]
        self.rates = [(group, group["lr"]) for group in groups]

    def set_schedule(self, epoch):
        """It has nothing to do then."""

    def scale_lr(self, factor):
        """Every optimizer's learning rate is ``factor`` times its first one."""
        for group, rate in self.rates:
            group["lr"] = factor * rate

    def updates(self, step):
        """One, of all networks."""
        return [self.update]

    def update(self, batch):
        """Takes images {"A", "B"} N×C×H×W in [-1, 1]; returns the losses that it names."""
        self.model.set_input({**batch, "A_paths": [], "B_paths": []})
        self.model.optimize_parameters()
        return {name: torch.tensor(value) for name, value in self.model.get_current_losses().items()}


if __name__ == "__main__":
    exit_cleanly(main)
