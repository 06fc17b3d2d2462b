"""What is trained, and the two updates that make a training step."""

from argparse import Namespace
from contextlib import nullcontext
from textwrap import shorten

import torch
from torch.nn.utils import parametrize

from critics import build_critic
from layers import mixes_samples
from losses import CriticObjective, GeneratorObjective, both_directions, critic_terms, generator_terms
from models import SelfAttention
from registry import AUGMENTATIONS, OPTIMIZERS, load
from runtime import checkpoints, distributed
from runtime.device import autocast, memory_format, pick_amp
from runtime.errors import UserError, first_line
from spectral_norm import one_power_iteration
from translators import Translators, check_generators, check_shapes, load_weights, without_memory
from utils import EMA, RandomState, ReplayBuffer, augmented, lr_factor


class CycleGAN:
    """Two generators, two critics, and all that a training step of theirs depends on.

    ``options``: complete, and behind ``options.adapt_to_images``, which sets each side's channels and, with
    ``--preprocess none``, the crop.
    """

    PER_PROCESS = ["buffer_A", "buffer_B", "random"]  # what differs between the processes of a run

    def __init__(self, options, device):
        self.options, self.device = options, device
        self.amp = pick_amp(options.amp, device)
        translators = Translators(options).to(device)
        chosen = [load(entry) for name, entry in AUGMENTATIONS.items() if name in options.diffaugment.split(",")]
        D_A, D_B = (augmented(build_critic(options, side).to(device), chosen) for side in "AB")
        if options.penalty != "none" and mixes_samples(D_A):  # a penalty is of the gradient at each image alone
            raise UserError(f"--dis_net {options.dis_net} has batch norms: it goes with --penalty none")
        self.generator_objective = GeneratorObjective(translators, D_A, D_B, generator_terms(options))
        self.critic_objective = CriticObjective(D_A, D_B, critic_terms(options), {"penalty": options.penalty_interval})
        objectives = self.generator_objective, self.critic_objective
        for objective in objectives:
            objective.to(memory_format=memory_format(objective, device))
        entry = OPTIMIZERS[options.optimizer]
        self.optimizer_G, self.optimizer_D = (
            load(entry)(objective.parameters(), options.lr, (options.b1, options.b2), fused=True, **entry.keywords)
            for objective in objectives
        )
        self.scaler_G, self.scaler_D = (
            torch.amp.GradScaler(device.type, enabled=self.amp == "fp16") for _ in objectives
        )
        self.average = EMA(translators, options.ema_decay)
        self.buffer_A, self.buffer_B = (
            ReplayBuffer(seed=options.seed + 2 * distributed.RANK + side, device=device) for side in range(2)
        )
        self.random = RandomState(device)
        if options.compile:
            for objective in objectives:
                objective.compile()
        masks_learn = any(True for _ in translators.masks.parameters())
        unused = masks_learn or options.lambda_cyc == 0  # masks that are fixed one day; the way back
        self._parallel_G, self._parallel_D = (
            distributed.data_parallel(objective, find_unused_parameters=unused) for objective in objectives
        )

    @property
    def translators(self):
        """The generators in training; the averaged ones, which translate, are ``average.module``."""
        return self.generator_objective.translators

    def check_readable(self):
        """Raise UserError where a checkpoint of these networks could be written, but not be read again."""
        networks = {"generators": self.average.module, "critic_objective": self.critic_objective}
        for network in networks.values():
            checkpoints.check_readable(network)
        weights = {name: network.state_dict() for name, network in networks.items()}
        state = {"options": vars(self.options), **weights, "training": weights}
        check_generators(state)
        check_critics(state)

    def start_from(self, source):
        """Begin with the generators of the checkpoint ``source``, and with the critics that an imported one may have.

        The rest begins anew: a generator that it lacks, and critics that the options want otherwise. Raises UserError
        where shapes differ.
        """
        for translators in (self.translators, self.average.module):
            load_weights(translators, {**translators.state_dict(), **source["generators"]})
        trained = source["options"]
        same = all(getattr(self.options, name) == trained[name] for name in ("dis_net", "ndf"))
        for name, weights in source.get("critics", {}).items() if same else ():
            load_weights(getattr(self.critic_objective, name), weights)

    def set_schedule(self, epoch, spent=0.0):
        """Set what depends on the epochs done, and on the share ``spent`` of the time: the learning rate, and whether
        learned masks are fixed."""
        by_epoch = lr_factor(epoch, self.options.n_epochs, self.options.decay_epoch)
        self.scale_lr(by_epoch * (lr_factor(spent, 1, 0.5) if self.options.minutes else 1))
        masks = self.translators.masks
        before = masks.frozen
        masks.start_epoch(epoch)
        if masks.frozen != before:  # the critics now see images without a background, or with it again
            for buffer in (self.buffer_A, self.buffer_B):
                buffer.images.clear()

    def scale_lr(self, factor):
        """Set the learning rates to ``factor`` times those that the optimizers began with: ``--lr``."""
        for group in self.optimizer_G.param_groups + self.optimizer_D.param_groups:
            group["lr"] = factor * group.setdefault("initial_lr", group["lr"])

    def updates(self, step):
        """The updates of training step ``step``, in order; each takes a batch and returns what the log shows."""
        self.critic_objective.step = step
        generators = [self.update_G] if step % self.options.n_critic == 0 else []
        return [self.update_D, *generators] if self.options.critic_first else [*generators, self.update_D]

    def update_G(self, batch):
        """One step of both generators on ``batch`` {"A", "B"}; adds their translations to it as fake_A and fake_B.

        Returns what the log shows, name → scalar tensor.
        """
        networks = dict(self.translators.named_children())
        directions = both_directions(batch["A"], batch["B"])
        (to_B, to_A), norms = self._optimizer_step(
            self._parallel_G, directions, self.optimizer_G, self.scaler_G, networks
        )
        self.average.update_parameters(self.translators)
        batch |= {"fake_A": to_A.fake, "fake_B": to_B.fake}
        terms = {name: (term + to_A.terms[name]) / 2 for name, term in to_B.terms.items()}
        return {"G": to_B.total + to_A.total, **terms, **norms}

    def update_D(self, batch):
        """One step of both critics on real images and on the replay buffers' fake ones; returns what the log shows."""
        if "fake_A" not in batch:  # the generators have not seen this batch
            batch |= self._translate(batch)
        with autocast(self.device, self.amp):  # masks of real images are rounded as those of translations
            real_A, real_B = (self.translators.masks.real_for_critic(side, batch[side]) for side in "AB")
        fake_A = self.buffer_A.push_and_pop(batch["fake_A"])
        fake_B = self.buffer_B.push_and_pop(batch["fake_B"])
        images = real_A, fake_A, real_B, fake_B
        networks = {"D_A": self.critic_objective.D_A, "D_B": self.critic_objective.D_B}
        (losses,), norms = self._optimizer_step(self._parallel_D, [images], self.optimizer_D, self.scaler_D, networks)
        return {"D": losses.total, **losses.terms, **losses.scores, **norms}

    def _optimizer_step(self, objective, parts, optimizer, scaler, networks):
        """One optimizer step on the sum of ``objective(*part)`` over ``parts``; returns the losses of each, and the
        norm of each network's gradient."""
        optimizer.zero_grad()
        losses = []
        with parametrize.cached():  # through backward, where checkpointing computes activations again
            for i, part in enumerate(parts, start=1):
                with nullcontext() if i == len(parts) else distributed.no_sync(objective):
                    with autocast(self.device, self.amp):
                        losses.append(objective(*part))
                    scaler.scale(losses[-1].total).backward()
        scaler.unscale_(optimizer)
        norms = gradient_norms(networks, scaler)
        scaler.step(optimizer)
        scaler.update()
        return losses, norms

    def settings(self):
        """What a log shows beside the losses: learning rate, and how far each self-attention has opened."""
        gammas = {
            f"gamma of {name}": module.gamma.item()
            for network in (self.translators, self.critic_objective)
            for name, module in network.named_modules()
            if isinstance(module, SelfAttention)
        }
        return {"learning rate": self.optimizer_G.param_groups[0]["lr"], **gammas}

    @torch.no_grad()
    def _translate(self, batch):
        with autocast(self.device, self.amp), one_power_iteration(self.translators):
            (fake_B, mask_A), (fake_A, mask_B) = (self.translators.translate(side, batch[side]) for side in "AB")
        for_critic = self.translators.masks.for_critic
        return {"fake_A": for_critic(fake_A, mask_B), "fake_B": for_critic(fake_B, mask_A)}

    def state_dict(self):
        """All of it, on the CPU or this process's device; that of all processes in the main one, None in the others.

        Each process has to call this.
        """
        shared = {name: getattr(self, name).state_dict() for name in SHARED}
        own = {name: getattr(self, name).state_dict() for name in self.PER_PROCESS}
        return {**shared, "masks_frozen": self.translators.masks.frozen, "processes": distributed.gather(own)}

    def load_state_dict(self, state):
        """Go on from ``state``; with another number of processes, histories are dealt out, and random draws begin anew.

        Raises UserError where it is not the state of these networks.
        """
        try:
            self._load(state)
        except UserError:
            raise
        except Exception as error:  # torch raises what it likes: RuntimeError, KeyError, TypeError …
            reason = shorten(first_line(error, type(error).__name__), 200, placeholder=" …")
            raise UserError(f"the checkpoint does not fit its networks ({reason}); choose another --epoch") from error

    def _load(self, state):
        for name, restore in SHARED.items():
            restore(getattr(self, name), state[name])
        self.translators.masks.frozen = bool(state["masks_frozen"])  # as they were for the images in the replay buffers
        saved = state["processes"]
        own = saved[distributed.RANK % len(saved)]
        if len(saved) == distributed.WORLD:
            for name in self.PER_PROCESS:
                getattr(self, name).load_state_dict(own[name])
        else:
            for name, buffer in {"buffer_A": self.buffer_A, "buffer_B": self.buffer_B}.items():
                draws = buffer.random.get_state()  # this process's own, not those of one that had this history
                buffer.load_state_dict({**own[name], "random": draws})
        size = self.options.img_height, self.options.img_width
        of_A, of_B = (self.buffer_A, self.options.channels_A), (self.buffer_B, self.options.channels_B)
        for buffer, channels in (of_A, of_B):  # a resumed run may have other crops
            buffer.images = [image for image in buffer.images if image.shape == (channels, *size)]
        if self.average.n_averaged < 0:
            raise ValueError("the averaged generators are of a negative number of steps")


def restore_scaler(scaler, state):
    """Give a GradScaler its ``state``, which is of numbers alone; that of one which had nothing to do is empty. Raises
    ValueError."""
    if not all(type(value) in (int, float) for value in state.values()):
        raise ValueError("the scale of losses is no number")
    if state:
        scaler.load_state_dict(state)


def restore_moments(optimizer, state):
    """Give an optimizer the moments in the ``state`` of another one; its settings stay those of the options. They get
    the memory format of their weights, which Adam's fused kernel needs. Raises ValueError where they are of other
    weights, and what Python likes where they are no moments at all."""
    optimizer.load_state_dict({"state": state["state"], "param_groups": optimizer.state_dict()["param_groups"]})
    names = {
        weight: ["momentum"] if "momentum" in group else ["exp_avg", "exp_avg_sq"]  # of Muon's matrices, else Adam's
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    for weight, moments in optimizer.state.items():
        shapes = {"step": torch.Size(), **dict.fromkeys(names[weight], weight.shape)}
        if {name: moment.shape for name, moment in moments.items()} != shapes:
            raise ValueError("the optimizer's moments are of other weights")
        moments.update({name: torch.empty_like(weight).copy_(moments[name]) for name in names[weight]})


SHARED = {  # what of a CycleGAN is saved once for all processes, and how it is restored
    "generator_objective": load_weights,
    "critic_objective": load_weights,
    "optimizer_G": restore_moments,
    "optimizer_D": restore_moments,
    "scaler_G": restore_scaler,
    "scaler_D": restore_scaler,
    "average": load_weights,
}


def check_critics(state):
    """Raise UserError where a checkpoint does not hold the critics of its options; before they get any memory."""
    with without_memory():
        critics = {f"D_{side}": build_critic(Namespace(**state["options"]), side) for side in "AB"}
    check_shapes(torch.nn.ModuleDict(critics), state["training"]["critic_objective"])


def gradient_norms(networks, scaler):
    """The norm of the gradient of each network that has one: "gradient of NAME" → scalar tensor.

    A gradient may overflow in fp16 while ``scaler`` can still lower its scale: that step is skipped, and the norm is
    logged as 0.
    """
    norms = {}
    for name, network in networks.items():
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if not gradients:  # as masks that are not learned, or learned no more
            continue
        norm = torch.nn.utils.get_total_norm(gradients)
        if scaler.is_enabled():
            norm = torch.where(scaler.scale(torch.ones_like(norm)) > 1, norm.nan_to_num(0, 0, 0), norm)
        norms[f"gradient of {name}"] = norm
    return norms
