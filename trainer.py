"""What is trained: two generators, two critics, and all that a training step of theirs depends on."""

import torch

from errors import UserError
from losses import CriticObjective, GeneratorObjective
from models import build_critic
from options import chosen_penalty
from translators import Translators
from utils import RandomState, ReplayBuffer, averaged


class CycleGAN:
    """Two generators, two critics, and all that a training step of theirs depends on."""

    def __init__(self, options, device):
        self.options = options
        lambda_id = options.lambda_id if options.idt_coef is None else options.idt_coef * options.lambda_cyc
        translators = Translators(options).to(device)
        D_A, D_B = (build_critic(options).to(device) for _ in range(2))
        self.generator_objective = GeneratorObjective(
            translators, D_A, D_B, options.gan_mode, options.lambda_cyc, lambda_id
        )
        penalty = chosen_penalty(options)
        weight = {"none": 0, "wgan-gp": options.lambda_gp, "r1": options.lambda_r1}[penalty]
        self.critic_objective = CriticObjective(D_A, D_B, options.gan_mode, penalty, weight)
        betas = (options.b1, options.b2)
        self.optimizer_G = torch.optim.Adam(self.generator_objective.parameters(), options.lr, betas)
        self.optimizer_D = torch.optim.Adam(self.critic_objective.parameters(), options.lr, betas)
        self.average = averaged(translators, options.ema_decay)
        self.buffer_A = ReplayBuffer(seed=options.seed, device=device)
        self.buffer_B = ReplayBuffer(seed=options.seed + 1, device=device)
        self.random = RandomState()

    @property
    def translators(self):
        """The generators in training; the averaged ones, which translate, are ``average.module``."""
        return self.generator_objective.translators

    def start_epoch(self, epoch):
        """Set what depends on the epoch: the learning rate, and whether learned masks are fixed."""
        lr = self.options.lr * lr_factor(epoch, self.options.n_epochs, self.options.decay_epoch)
        for group in self.optimizer_G.param_groups + self.optimizer_D.param_groups:
            group["lr"] = lr
        self.translators.masks.start_epoch(epoch)

    def half_steps(self, step):
        """The half steps of training step ``step``, in order; each takes a batch and returns what the log shows."""
        generators = [self.generator_step] if step % self.options.n_critic == 0 else []
        return [self.critic_step, *generators] if self.options.critic_first else [*generators, self.critic_step]

    def generator_step(self, batch):
        """One step of both generators on ``batch`` {"A", "B"}; adds their translations to it as fake_A and fake_B.

        Returns what the log shows, name → scalar tensor.
        """
        losses = self.generator_objective(batch["A"], batch["B"])
        self.optimizer_G.zero_grad()
        losses.total.backward()
        self.optimizer_G.step()
        self.average.update_parameters(self.translators)
        batch |= {"fake_A": losses.fake_A, "fake_B": losses.fake_B}
        return losses.terms() | gradient_norms(G_AB=self.translators.G_AB, G_BA=self.translators.G_BA)

    def critic_step(self, batch):
        """One step of both critics on real images and on the history of fake ones."""
        if "fake_A" not in batch:  # the generators have not seen this batch
            batch |= self._translate(batch)
        seen_real = self.translators.masks.seen_real
        losses = self.critic_objective(
            seen_real("A", batch["A"]),
            self.buffer_A.push_and_pop(batch["fake_A"]),
            seen_real("B", batch["B"]),
            self.buffer_B.push_and_pop(batch["fake_B"]),
        )
        self.optimizer_D.zero_grad()
        losses.total.backward()
        self.optimizer_D.step()
        return losses.terms() | gradient_norms(D_A=self.critic_objective.D_A, D_B=self.critic_objective.D_B)

    @torch.no_grad()
    def _translate(self, batch):
        (fake_B, mask_A), (fake_A, mask_B) = (self.translators.translate(side, batch[side]) for side in "AB")
        seen = self.translators.masks.seen
        return {"fake_A": seen(fake_A, mask_B), "fake_B": seen(fake_B, mask_A)}

    def _parts(self):
        return {name: part for name, part in vars(self).items() if hasattr(part, "state_dict")}

    def state_dict(self):
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state):
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def gradient_norms(**networks):
    """The norm of each network's gradient: "gradient of NAME" → scalar tensor."""
    return {
        f"gradient of {name}": torch.nn.utils.get_total_norm(
            [p.grad for p in network.parameters() if p.grad is not None]
        )
        for name, network in networks.items()
    }


def lr_factor(epoch, n_epochs, decay_epoch):
    """What ``lr`` is multiplied by: 1 up to ``decay_epoch``, then falling linearly to reach 0 after the last epoch."""
    decay_epoch = n_epochs // 2 if decay_epoch is None else decay_epoch
    return 1 - max(0, epoch - decay_epoch) / max(1, n_epochs - decay_epoch)


def check_networks(options, generator, critic):
    """Raise UserError if crops, norm and penalty are not what the networks can take."""
    if not critic.sees_samples_alone and chosen_penalty(options) != "none":
        raise UserError("a penalty needs the critic's slope at each image alone: --norm batch goes with --penalty none")
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
