"""What each optimisation of the training step gives: the step without it, and with it.

    python benchmarks/ablation.py --recipe attention --batch_size 4 [--json FILE] [-- flags of cycle_gan.py]

"time" and "MiB" are those of the step when the one thing in the row's name is changed, over those of the step as it is,
with Adam.
"""

import argparse
from contextlib import contextmanager, nullcontext

from common import medians, peak_memory, show  # first: it makes the folder above importable

# isort: split
import torch
from textbook import take_torchs_instance_norm, write_out_attention
from train_step import SMALL_NETWORKS, stepper

import losses
import models
import trainer
from attention import attend_by_kernels
from options import parse_training
from runtime.device import pick_device, swapped
from runtime.errors import exit_cleanly
from spectral_norm import normalise


def apart(network, *batches):
    return [losses.forward_as(network, batch) for batch in batches]


@contextmanager
def at_each_call(*networks, settled=()):
    """In the place of ``one_power_iteration``: each call of a network normalises its weights again."""
    with swapped(torch.nn.utils.parametrize, "_cache_enabled", 0):
        yield


def everywhere(network):
    """In the place of ``add_spectral_norm``: on convolutions before a norm as well."""
    for module in list(network.modules()):
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            normalise(module)
    return network


class PlainAdam(torch.optim.Adam):
    def __init__(self, parameters, lr, betas, fused):
        super().__init__(parameters, lr, betas)


def channels_last(network):
    network.to(memory_format=torch.channels_last)


def contiguous(network):
    network.to(memory_format=torch.contiguous_format)


def in_place(network):
    """ReLU writes into what it gets."""
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = True


CHANGES = {  # name → (what is swapped: module, name, value; what is done to both objectives; flags)
    "as it is": (None, None, []),
    "translation and identity, real and fake apart": ((losses, "forward_joined", apart), None, []),
    "critics collect gradients in the generators' step": (
        (losses, "frozen", lambda *networks: nullcontext()),
        None,
        [],
    ),
    "a power iteration at each call": ((losses, "one_power_iteration", at_each_call), None, []),
    "spectral norm before instance norms too": ((models, "add_spectral_norm", everywhere), None, []),
    "Adam tensor by tensor": ((torch.optim, "Adam", PlainAdam), None, []),
    "Muon": (None, None, ["--optimizer=muon"]),
    "attention written out": (None, write_out_attention, []),
    "attention by torch's kernels": ((models, "attend", attend_by_kernels), None, []),
    "ReLU in place": (None, in_place, []),
    "torch's instance norm": (None, take_torchs_instance_norm, []),
    "channels_last": (None, channels_last, []),
    "not channels_last": (None, contiguous, []),
    "activations computed twice": (None, None, ["--checkpoint_activations"]),
    "float32": (None, None, ["--amp=off"]),
    "bf16": (None, None, ["--amp=bf16"]),
    "no TF32, in the penalty neither": (None, None, ["--no_tf32"]),
    "compiled": (None, None, ["--compile"]),
}


def changed_stepper(name, words, device):
    """``stepper`` of CycleGAN under the change ``name``, which holds while it steps too."""
    swap, change, flags = CHANGES[name]

    class Changed(trainer.CycleGAN):
        def __init__(self, options, device):
            super().__init__(options, device)
            for objective in (self.generator_objective, self.critic_objective) if change else ():
                change(objective)

    with swapped(*swap) if swap else nullcontext():
        step = stepper(Changed, [*words, *flags], device)

    def changed_step():
        with swapped(*swap) if swap else nullcontext():
            step()

    return changed_step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recipe", default="attention")
    parser.add_argument("--batch_size", default="1")
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=[name for name in CHANGES if name != "compiled"])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    small = [] if device.type == "cuda" else [*SMALL_NETWORKS, "--img_height=64", "--img_width=64"]
    words = [f"--recipe={arguments.recipe}", f"--batch_size={arguments.batch_size}", "--optimizer=adam"]
    words = [*small, *words, *arguments.flags]
    options = parse_training(words)[0]

    names = ["as it is", *(name for name in arguments.only if name != "as it is")]
    seconds = medians({name: changed_stepper(name, words, device) for name in names}, device, arguments.rounds)
    memory = {name: peak_memory(changed_stepper, device, name, words, device) for name in names}
    rows = [
        {
            "recipe": options.recipe,
            "size": options.img_height,
            "batch": options.batch_size,
            "change": name,
            "ms": 1e3 * seconds[name],
            "time": seconds[name] / seconds["as it is"],
            "MiB": memory[name],
        }
        for name in names
    ]
    show(rows, arguments.json, device)


if __name__ == "__main__":
    exit_cleanly(main)
