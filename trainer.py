"""What is trained: two generators, two critics, and all that a training step of theirs depends on."""

import torch
from torch.nn.utils import parametrize

from losses import CriticObjective, GeneratorObjective
from models import SelfAttention, build_critic, normalised_once
from options import chosen_penalty
from runtime import distributed
from runtime.errors import UserError
from translators import Translators
from utils import Averaged, RandomState, ReplayBuffer

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class CycleGAN:
    """Two generators, two critics, and all that a training step of theirs depends on."""

    SHARED = [
        "generator_objective",
        "critic_objective",
        "optimizer_G",
        "optimizer_D",
        "scaler_G",
        "scaler_D",
        "average",
    ]
    OWN = ["buffer_A", "buffer_B", "random"]  # what differs between the processes of a run

    def __init__(self, options, device):
        self.options, self.device = options, device
        lambda_id = options.lambda_id if options.idt_coef is None else options.idt_coef * options.lambda_cyc
        translators = Translators(options).to(device)
        for module in translators.modules():
            module.checkpoint_activations = options.checkpoint_activations
        D_A, D_B = (build_critic(options).to(device) for _ in range(2))
        self.generator_objective = GeneratorObjective(
            translators, D_A, D_B, options.gan_mode, options.lambda_cyc, lambda_id
        )
        penalty = chosen_penalty(options)
        weight = {"none": 0, "wgan-gp": options.lambda_gp, "r1": options.lambda_r1}[penalty]
        self.critic_objective = CriticObjective(D_A, D_B, options.gan_mode, penalty, weight)
        objectives = self.generator_objective, self.critic_objective
        if not translators.G_AB.sees_samples_alone:  # batch norm takes this order as it is, an instance norm would copy
            for objective in objectives:
                objective.to(memory_format=torch.channels_last)
        self.optimizer_G, self.optimizer_D = (
            torch.optim.Adam(objective.parameters(), options.lr, (options.b1, options.b2), fused=True)
            for objective in objectives
        )
        self.amp = chosen_amp(options, device)
        self.scaler_G, self.scaler_D = (
            torch.amp.GradScaler(device.type, enabled=self.amp == "fp16") for _ in objectives
        )
        self.average = Averaged(translators, options.ema_decay)
        self.buffer_A, self.buffer_B = (
            ReplayBuffer(seed=options.seed + 2 * distributed.RANK + side, device=device) for side in range(2)
        )
        self.random = RandomState(device)
        if options.compile:
            for objective in objectives:
                objective.compile()
        frozen_later = options.mask == "learned"
        self._play_generators, self._play_critics = (
            distributed.parallel(objective, find_unused_parameters=frozen_later) for objective in objectives
        )

    @property
    def translators(self):
        """The generators in training; the averaged ones, which translate, are ``average.module``."""
        return self.generator_objective.translators

    def start_epoch(self, epoch):
        """Set what depends on the epoch: the learning rate, and whether learned masks are fixed."""
        self.scale_lr(lr_factor(epoch, self.options.n_epochs, self.options.decay_epoch))
        masks = self.translators.masks
        before = masks.frozen
        masks.start_epoch(epoch)
        if masks.frozen != before:  # the critics now see images without a background, or with it again
            for buffer in (self.buffer_A, self.buffer_B):
                buffer.images.clear()

    def scale_lr(self, factor):
        """Set the learning rate to ``factor`` times ``--lr``."""
        for group in self.optimizer_G.param_groups + self.optimizer_D.param_groups:
            group["lr"] = factor * self.options.lr

    def half_steps(self, step):
        """The half steps of training step ``step``, in order; each takes a batch and returns what the log shows."""
        generators = [self.generator_step] if step % self.options.n_critic == 0 else []
        return [self.critic_step, *generators] if self.options.critic_first else [*generators, self.critic_step]

    def generator_step(self, batch):
        """One step of both generators on ``batch`` {"A", "B"}; adds their translations to it as fake_A and fake_B.

        Returns what the log shows, name → scalar tensor.
        """
        networks = {"G_AB": self.translators.G_AB, "G_BA": self.translators.G_BA}
        images = batch["A"], batch["B"]
        losses, terms = self._descend(self._play_generators, images, self.optimizer_G, self.scaler_G, networks)
        self.average.update_parameters(self.translators)
        batch |= {"fake_A": losses.fake_A, "fake_B": losses.fake_B}
        return terms

    def critic_step(self, batch):
        """One step of both critics on real images and on the history of fake ones."""
        if "fake_A" not in batch:  # the generators have not seen this batch
            batch |= self._translate(batch)
        seen_real = self.translators.masks.seen_real
        images = (
            seen_real("A", batch["A"]),
            self.buffer_A.push_and_pop(batch["fake_A"]),
            seen_real("B", batch["B"]),
            self.buffer_B.push_and_pop(batch["fake_B"]),
        )
        networks = {"D_A": self.critic_objective.D_A, "D_B": self.critic_objective.D_B}
        return self._descend(self._play_critics, images, self.optimizer_D, self.scaler_D, networks)[1]

    def _descend(self, objective, images, optimizer, scaler, networks):
        """One optimizer step on ``objective(*images)``; returns its losses, and what the log shows of them."""
        with parametrize.cached():  # through backward, where checkpointing computes activations anew
            with self.autocast():
                losses = objective(*images)
            optimizer.zero_grad()
            scaler.scale(losses.total).backward()
        scaler.unscale_(optimizer)
        terms = losses.terms() | gradient_norms(networks, scaler)
        scaler.step(optimizer)
        scaler.update()
        return losses, terms

    def settings(self):
        """What a log shows beside the losses: learning rate, and how far each self-attention has opened."""
        gammas = {
            f"gamma of {name}": module.gamma.item()
            for network in (self.translators, self.critic_objective)
            for name, module in network.named_modules()
            if isinstance(module, SelfAttention)
        }
        return {"learning rate": self.optimizer_G.param_groups[0]["lr"], **gammas}

    def autocast(self):
        """Inside, networks compute in the type of ``--amp``."""
        return torch.autocast(self.device.type, AMP_TYPES.get(self.amp), enabled=self.amp != "off")

    @torch.no_grad()
    def _translate(self, batch):
        with self.autocast(), normalised_once(self.translators):
            (fake_B, mask_A), (fake_A, mask_B) = (self.translators.translate(side, batch[side]) for side in "AB")
        seen = self.translators.masks.seen
        return {"fake_A": seen(fake_A, mask_B), "fake_B": seen(fake_B, mask_A)}

    def state_dict(self):
        """All of it, on the CPU or this process's device; that of all processes in the first one, None in the others.

        Each process has to call this.
        """
        shared = {name: getattr(self, name).state_dict() for name in self.SHARED}
        own = {name: getattr(self, name).state_dict() for name in self.OWN}
        return {**shared, "masks_frozen": self.translators.masks.frozen, "processes": distributed.to_first(own)}

    def load_state_dict(self, state):
        """Go on from ``state``; with another number of processes, histories are dealt out and draws begin anew."""
        for name in self.SHARED:
            if state[name]:  # that of a scaler which had nothing to do is empty
                getattr(self, name).load_state_dict(state[name])
        for group in self.optimizer_G.param_groups + self.optimizer_D.param_groups:
            group["betas"] = self.options.b1, self.options.b2  # which a resumed run may change, as it may the rate
        self.translators.masks.frozen = state.get("masks_frozen", False)  # as they were for the images in the histories
        saved = state["processes"]
        own = saved[distributed.RANK % len(saved)]
        for name in self.OWN if len(saved) == distributed.WORLD else ("buffer_A", "buffer_B"):
            getattr(self, name).load_state_dict(own[name])


def chosen_amp(options, device):
    """``--amp``; where it is not given, bf16 on a GPU that has it in hardware."""
    if options.amp:
        return options.amp
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "off"


def gradient_norms(networks, scaler):
    """The norm of each network's gradient: "gradient of NAME" → scalar tensor.

    A gradient that overflows in fp16 is no news while ``scaler`` can still lower its scale: it skips the step, and 0
    stands here.
    """
    norms = {}
    for name, network in networks.items():
        norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        if scaler.is_enabled():
            norm = torch.where(scaler.scale(torch.ones_like(norm)) > 1, norm.nan_to_num(0, 0, 0), norm)
        norms[f"gradient of {name}"] = norm
    return norms


def lr_factor(epoch, n_epochs, decay_epoch):
    """What ``lr`` is multiplied by: 1 up to ``decay_epoch``, then falling linearly to reach 0 after the last epoch."""
    start = decay_start(n_epochs, decay_epoch)
    return 1 - max(0, epoch - start) / max(1, n_epochs - start)


def decay_start(n_epochs, decay_epoch):
    """``decay_epoch``; where it is not given, half of the epochs."""
    return n_epochs // 2 if decay_epoch is None else decay_epoch


def schedule_change(before, options, epoch):
    """How the learning rate departs from that of the options ``before``: one line, or "" where it does not.

    Both rates are those of ``epoch``, the older one that of the last epoch where the older schedule ended earlier.
    """

    def shape(options):
        start = decay_start(options.n_epochs, options.decay_epoch)
        return "constant" if start >= options.n_epochs else f"falling after epoch {start} to 0 at {options.n_epochs}"

    def rate(options, epoch):
        return f"{options.lr * lr_factor(epoch, options.n_epochs, options.decay_epoch):.3g}"

    if shape(before) == shape(options):
        return ""
    old, new = rate(before, min(epoch, before.n_epochs - 1)), rate(options, epoch)
    keep = "" if old == new else f"; to keep {old}: --lr {old} --decay_epoch {options.n_epochs}"
    return f"schedule    the learning rate goes from {old} ({shape(before)}) to {new} ({shape(options)}){keep}"


def check_networks(options, generator, critic):
    """Raise UserError if crops, norm and penalty are not what the networks can take."""
    if not critic.sees_samples_alone and chosen_penalty(options) != "none":
        raise UserError("a penalty needs the critic's slope at each image alone: --norm batch goes with --penalty none")
    if options.checkpoint_activations and not generator.sees_samples_alone:
        raise UserError("--checkpoint_activations would count each batch twice in the averages of --norm batch")
    least = max(generator.min_size, critic.min_size)
    for name, side, load in (
        ("img_height", options.img_height, options.load_height),
        ("img_width", options.img_width, options.load_width),
    ):
        if load is not None and load < side:
            raise UserError(
                f"--{name} {side} is larger than --{name.replace('img', 'load')} {load}, from which it is cut"
            )
        if side < least or side % generator.multiple:
            raise UserError(
                f"--{name} must be divisible by {generator.multiple} and at least {least} for --gen_net "
                f"{options.gen_net} and --dis_net {options.dis_net}, not {side}"
            )
