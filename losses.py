"""The two half steps of CycleGAN as modules: one ``forward`` each, from images to the loss that is minimised.

A GAN loss is a pair of functions on patch maps of scores, one for each player. What else the loss needs (cycle,
identity, gradient penalty) is the same for all of them.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize


class LeastSquares:
    """LSGAN (https://arxiv.org/abs/1611.04076): real patches are pulled to 1, fake ones to 0, the generator's to 1."""

    @staticmethod
    def critic(real, fake):
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    @staticmethod
    def generator(fake):
        return (fake - 1).square().mean()


class Wasserstein:
    """WGAN (https://arxiv.org/abs/1701.07875): the critic's loss is minus its estimate of the distance."""

    @staticmethod
    def critic(real, fake):
        return fake.mean() - real.mean()

    @staticmethod
    def generator(fake):
        return -fake.mean()


def no_penalty(critic, real, fake):
    """The penalty of an objective that has none: 0."""
    return real.new_zeros(())


def gradient_penalty(critic, real, fake):
    """WGAN-GP (https://arxiv.org/abs/1704.00028): how far the critic is from slope 1 between real and fake images.

    ``real`` and ``fake`` are N×C×H×W. One ε per sample picks a point on the line between the two; there the mean
    patch score C(x) should change by 1 per unit of *root-mean-square* pixel distance ‖x − y‖₂/√d, d = C·H·W:

        penalty = mean over samples of (√d · ‖∇C(x)‖₂ − 1)²

    Why not ‖∇C‖₂ itself: the gradient of the cycle loss has norm λ_cyc/√d (an L1 mean), 0.02 at 256×256, and a critic
    of slope 1 would drown it. Taken on the sum of the patches instead, the slope per patch falls with their number.
    In RMS distance the adversarial and the cycle gradient stand 1 to λ_cyc at every resolution.

    The penalty is itself differentiated, and fused attention kernels have no second derivative: hence the math path.
    """
    epsilon = torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device)
    between = torch.lerp(real, fake, epsilon).detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        scores = critic(between).flatten(1).mean(1)  # N: no sample sees another, so the sum has each one's gradient
        (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    slope = gradient.flatten(1).norm(dim=1) * gradient[0].numel() ** 0.5
    return (slope - 1).square().mean()


GAN_LOSSES = {"wgan-gp": (Wasserstein, gradient_penalty), "lsgan": (LeastSquares, no_penalty)}


class GeneratorLosses(NamedTuple):
    """``total`` to minimise, its unweighted terms, and the translations (detached) that the critics will see."""

    total: torch.Tensor
    adversarial: torch.Tensor
    cycle: torch.Tensor
    identity: torch.Tensor
    fake_A: torch.Tensor
    fake_B: torch.Tensor

    def terms(self):
        """What the log shows: name → scalar tensor."""
        return {"G": self.total, "adversarial": self.adversarial, "cycle": self.cycle, "identity": self.identity}


class CriticLosses(NamedTuple):
    """``total`` to minimise, the penalty in it (unweighted), and the mean scores; each over both critics."""

    total: torch.Tensor
    penalty: torch.Tensor
    real: torch.Tensor
    fake: torch.Tensor

    def terms(self):
        """What the log shows: name → scalar tensor."""
        return {"D": self.total, "penalty": self.penalty, "score real": self.real, "score fake": self.fake}


@contextmanager
def frozen(*networks):
    """What is computed inside collects no gradients for the networks' weights, only through them for the images."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def together(network, *batches):
    """Apply ``network`` to several batches in one call; exact because no sample sees another one in it."""
    return network(torch.cat(batches)).split([len(batch) for batch in batches])


class GeneratorObjective(nn.Module):
    """The generators' half step (https://arxiv.org/abs/1703.10593): GAN + λ_cyc · cycle + λ_id · identity.

    ``forward(real_A, real_B)`` takes two batches N×C×H×W in [-1, 1]; each term is the mean over both directions.
    The critics only judge here: they are not submodules, and their weights get no gradients.
    """

    def __init__(self, G_AB, G_BA, D_A, D_B, gan_mode="wgan-gp", lambda_cyc=10.0, lambda_id=5.0):
        super().__init__()
        self.G_AB, self.G_BA = G_AB, G_BA
        self._critics = (D_A, D_B)  # a tuple hides them from nn.Module
        self._gan_loss, _ = GAN_LOSSES[gan_mode]
        self.lambda_cyc, self.lambda_id = lambda_cyc, lambda_id

    def forward(self, real_A, real_B):
        D_A, D_B = self._critics
        with parametrize.cached(), frozen(D_A, D_B):  # cached: one power iteration of the spectral norm a half step
            fake_B, same_B = together(self.G_AB, real_A, real_B)
            fake_A, same_A = together(self.G_BA, real_B, real_A)
            adversarial = (self._gan_loss.generator(D_B(fake_B)) + self._gan_loss.generator(D_A(fake_A))) / 2
            cycle = (F.l1_loss(self.G_BA(fake_B), real_A) + F.l1_loss(self.G_AB(fake_A), real_B)) / 2
            identity = (F.l1_loss(same_A, real_A) + F.l1_loss(same_B, real_B)) / 2
        total = adversarial + self.lambda_cyc * cycle + self.lambda_id * identity
        return GeneratorLosses(total, adversarial, cycle, identity, fake_A.detach(), fake_B.detach())


class CriticObjective(nn.Module):
    """The critics' half step: each tells real images of its domain from translated ones, plus λ_gp · penalty.

    ``forward(real_A, fake_A, real_B, fake_B)`` takes batches N×C×H×W in [-1, 1], the fakes from the replay buffers.
    ``total`` is the sum over the two critics, so that one backward gives each the gradient of its own loss.
    """

    def __init__(self, D_A, D_B, gan_mode="wgan-gp", lambda_gp=10.0):
        super().__init__()
        self.D_A, self.D_B = D_A, D_B
        self._gan_loss, self._penalty = GAN_LOSSES[gan_mode]
        self.lambda_gp = lambda_gp

    def forward(self, real_A, fake_A, real_B, fake_B):
        with parametrize.cached():
            loss_A = self._judge(self.D_A, real_A, fake_A)
            loss_B = self._judge(self.D_B, real_B, fake_B)
        total, *terms = (a + b for a, b in zip(loss_A, loss_B, strict=True))
        return CriticLosses(total, *(term.detach() / 2 for term in terms))

    def _judge(self, critic, real, fake):
        penalty = self._penalty(critic, real, fake)
        real_score, fake_score = together(critic, real, fake)
        total = self._gan_loss.critic(real_score, fake_score) + self.lambda_gp * penalty
        return CriticLosses(total, penalty, real_score.mean(), fake_score.mean())
