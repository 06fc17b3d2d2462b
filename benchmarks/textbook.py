"""The CycleGAN step as textbooks and most repositories print it: what the benchmarks and tests compare ours with.

Six calls of the generators, critics that collect gradients in the generators' step too, one optimizer for each critic,
every number read off the device in every step, and the attention matrix written out. It takes the same networks, losses
and penalty, so that its losses and gradients are ours up to rounding.
"""

import torch
from torch import nn

from models import SelfAttention
from registry import GAN_LOSSES, PENALTIES, load
from trainer import CycleGAN
from translators import compose


class ExplicitAttention(SelfAttention):
    """Self-attention as SAGAN prints it: the softmax of a matrix of all positions by all positions."""

    def forward(self, x):
        q, k, v = self.query(x).flatten(2), self.key(x).flatten(2), self.value(x).flatten(2)  # N×K×HW
        attention = (q.transpose(1, 2) @ k).softmax(-1)  # N×HW×HW
        return x + self.gamma * (v @ attention.transpose(1, 2)).view_as(x)


def write_out_attention(network):
    """Turn every self-attention of ``network`` into the explicit one, with the same weights."""
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.__class__ = ExplicitAttention


def take_torchs_instance_norm(network):
    """Turn every instance norm of ``network`` into torch's own."""
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.__class__ = nn.InstanceNorm2d


def as_in_textbooks(network):
    """Torch's own instance norms, the usual memory format, and the attention written out; weights stay."""
    write_out_attention(network)
    take_torchs_instance_norm(network)
    network.to(memory_format=torch.contiguous_format)


class Textbook(CycleGAN):
    """The same networks as ``CycleGAN(options, device)``, trained by the textbook's updates."""

    def __init__(self, options, device):
        super().__init__(options, device)
        self.D_A, self.D_B = self.critic_objective.D_A, self.critic_objective.D_B
        for network in (self.translators, self.D_A, self.D_B):
            as_in_textbooks(network)
        self.gan_loss = load(GAN_LOSSES[options.gan_mode])
        self.optimizer_D_A, self.optimizer_D_B = (
            torch.optim.Adam(critic.parameters(), options.lr, (options.b1, options.b2))
            for critic in (self.D_A, self.D_B)
        )

    def generator_loss(self, real_A, real_B):
        """(total, its terms, fake_A, fake_B)."""
        G_AB, G_BA, masks = self.translators.G_AB, self.translators.G_BA, self.translators.masks
        l1 = nn.L1Loss()
        zero = real_A.new_zeros(())
        lambda_id = self.options.lambda_id
        identity_A = l1(G_BA(real_A), real_A) if lambda_id else zero
        identity_B = l1(G_AB(real_B), real_B) if lambda_id else zero
        identity = (identity_A + identity_B) / 2

        mask_A, mask_B = masks.mask("A", real_A), masks.mask("B", real_B)
        fake_B = compose(mask_A, G_AB(real_A), real_A)
        adversarial_AB = self.gan_loss.generator(self.D_B(fake_B))
        fake_A = compose(mask_B, G_BA(real_B), real_B)
        adversarial_BA = self.gan_loss.generator(self.D_A(fake_A))
        adversarial = (adversarial_AB + adversarial_BA) / 2

        cycle_A = l1(compose(masks.mask_back("B", fake_B, mask_A), G_BA(fake_B), fake_B), real_A)
        cycle_B = l1(compose(masks.mask_back("A", fake_A, mask_B), G_AB(fake_A), fake_A), real_B)
        cycle = (cycle_A + cycle_B) / 2

        total = adversarial + self.options.lambda_cyc * cycle + lambda_id * identity
        terms = dict(G=total, adversarial=adversarial, cycle=cycle, identity=identity)
        return total, terms, fake_A, fake_B

    def critic_loss(self, critic, real, fake):
        """One critic's loss."""
        loss = self.gan_loss.critic(critic(real), critic(fake))
        if chosen := PENALTIES[self.options.penalty]:
            loss = loss + getattr(self.options, chosen.weight) * load(chosen)(critic, real, fake)
        return loss

    def update_G(self, batch):
        self.optimizer_G.zero_grad()
        total, terms, fake_A, fake_B = self.generator_loss(batch["A"], batch["B"])
        total.backward()
        self.optimizer_G.step()
        batch |= {"fake_A": fake_A.detach(), "fake_B": fake_B.detach()}
        return {name: term.item() for name, term in terms.items()}

    def update_D(self, batch):
        if "fake_A" not in batch:
            batch |= self._translate(batch)
        terms = {}
        for side, critic, buffer, optimizer in (
            ("A", self.D_A, self.buffer_A, self.optimizer_D_A),
            ("B", self.D_B, self.buffer_B, self.optimizer_D_B),
        ):
            optimizer.zero_grad()
            loss = self.critic_loss(critic, batch[side], buffer.push_and_pop(batch[f"fake_{side}"]))
            loss.backward()
            optimizer.step()
            terms[f"D_{side}"] = loss.item()
        return terms
