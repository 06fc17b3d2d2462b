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

from models import normalised_once
from translators import compose, through


class LeastSquares:
    """LSGAN (https://arxiv.org/abs/1611.04076): real patches are pulled to 1, fake ones to 0, the generator's to 1."""

    @staticmethod
    def critic(real, fake):
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    @staticmethod
    def generator(fake):
        return (fake - 1).square().mean()


class Vanilla:
    """The first GAN (https://arxiv.org/abs/1406.2661), non-saturating: cross entropy on scores taken as logits."""

    @staticmethod
    def critic(real, fake):
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2

    @staticmethod
    def generator(fake):
        return F.softplus(-fake).mean()


class Hinge:
    """Hinge loss (https://arxiv.org/abs/1705.02894): the critic gains nothing beyond scores of 1 and -1."""

    @staticmethod
    def critic(real, fake):
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2

    @staticmethod
    def generator(fake):
        return -fake.mean()


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


@torch.compiler.disable  # compiled functions have no second derivative
def slope(critic, images):
    """How steep the mean patch score C(x) is at each image N×C×H×W, per unit of root-mean-square pixel distance: N.

    With the distance ‖x − y‖₂/√d, d = C·H·W, that is √d · ‖∇C(x)‖₂, and can be differentiated further. Fused attention
    kernels have no second derivative: hence the math path. Computed in the images' own precision.
    """
    images = images.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH), torch.autocast(images.device.type, enabled=False):
        scores = critic(images).flatten(1).mean(1)  # N: no sample sees another, so the sum has each one's gradient
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.flatten(1).norm(dim=1) * gradient[0].numel() ** 0.5


def between(real, fake):
    """A point on the line between each real and fake image of two batches N×C×H×W, drawn uniformly."""
    return torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device))


def gradient_penalty(critic, real, fake):
    """WGAN-GP (https://arxiv.org/abs/1704.00028): the mean of (slope − 1)² between real and fake images.

    Why the slope is taken in RMS distance: the gradient of the cycle loss has norm λ_cyc/√d (an L1 mean), 0.02 at
    256×256, and a critic of ‖∇C‖₂ = 1 would drown it. Taken on the sum of the patches instead, the slope per patch
    falls with their number. In RMS distance the adversarial and the cycle gradient stand 1 to λ_cyc at every size.
    """
    return (slope(critic, between(real, fake)) - 1).square().mean()


def r1_penalty(critic, real, fake):
    """R1 (https://arxiv.org/abs/1801.04406): half the mean of slope² at real images, in RMS distance as above."""
    return slope(critic, real).square().mean() / 2


GAN_LOSSES = {"wgan-gp": Wasserstein, "lsgan": LeastSquares, "vanilla": Vanilla, "hinge": Hinge}
PENALTIES = {"none": no_penalty, "wgan-gp": gradient_penalty, "r1": r1_penalty}


class GeneratorLosses(NamedTuple):
    """``total`` to minimise, its unweighted terms, and the translations (detached) as the critics see them."""

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
    """Apply ``network`` to several batches: in one call, or one after another where batch norm would mix them."""
    if not network.sees_samples_alone:
        return [through(network, batch) for batch in batches]
    return through(network, torch.cat(batches)).split([len(batch) for batch in batches])


class GeneratorObjective(nn.Module):
    """The generators' half step (https://arxiv.org/abs/1703.10593): GAN + λ_cyc · cycle + λ_id · identity.

    ``forward(real_A, real_B)`` takes two batches N×C×H×W in [-1, 1]; each term is the mean over both directions.
    The critics only judge here: they are not submodules, and their weights get no gradients.
    """

    def __init__(self, translators, D_A, D_B, gan_mode="wgan-gp", lambda_cyc=10.0, lambda_id=5.0):
        super().__init__()
        self.translators = translators
        self._critics = {"A": D_A, "B": D_B}  # a dict hides them from nn.Module
        self._gan_loss = GAN_LOSSES[gan_mode]
        self.lambda_cyc, self.lambda_id = lambda_cyc, lambda_id

    def forward(self, real_A, real_B):
        critics = self._critics.values()
        with frozen(*critics), normalised_once(self.translators, *critics):
            *terms_A, fake_B = self._direction("A", "B", real_A, real_B)
            *terms_B, fake_A = self._direction("B", "A", real_B, real_A)
        adversarial, cycle, identity = ((a + b) / 2 for a, b in zip(terms_A, terms_B, strict=True))
        total = adversarial + self.lambda_cyc * cycle + self.lambda_id * identity
        return GeneratorLosses(total, adversarial, cycle, identity, fake_A, fake_B)

    def _direction(self, source, target, x, y):
        """x goes from ``source`` to ``target`` and back; y, of ``target``, should pass its generator unchanged."""
        masks, there, back = self.translators.masks, *map(self.translators.generator, (source, target))
        mask = masks.of(source, x)
        if self.lambda_id:
            translated, kept = together(there, x, y)
            identity = F.l1_loss(kept, y)
        else:
            translated, identity = through(there, x), x.new_zeros(())
        fake = compose(mask, translated, x)
        seen = masks.seen(fake, mask)
        adversarial = self._gan_loss.generator(through(self._critics[target], seen))
        passed = compose(masks.in_cycle(mask), translated, x)
        way_back = masks.in_cycle(masks.back(target, passed, mask))
        cycle = F.l1_loss(compose(way_back, through(back, passed), passed), x)
        return adversarial, cycle, identity, seen.detach()


class CriticObjective(nn.Module):
    """The critics' half step: each tells real images of its domain from translated ones, plus weight · penalty.

    ``forward(real_A, fake_A, real_B, fake_B)`` takes batches N×C×H×W in [-1, 1], the fakes from the replay buffers.
    ``total`` is the sum over the two critics, so that one backward gives each the gradient of its own loss.
    """

    def __init__(self, D_A, D_B, gan_mode="wgan-gp", penalty="wgan-gp", weight=10.0):
        super().__init__()
        self.D_A, self.D_B = D_A, D_B
        self._gan_loss, self._penalty, self.weight = GAN_LOSSES[gan_mode], PENALTIES[penalty], weight

    def forward(self, real_A, fake_A, real_B, fake_B):
        with normalised_once(self):
            loss_A = self._judge(self.D_A, real_A, fake_A)
            loss_B = self._judge(self.D_B, real_B, fake_B)
        total, *terms = (a + b for a, b in zip(loss_A, loss_B, strict=True))
        return CriticLosses(total, *(term.detach() / 2 for term in terms))

    def _judge(self, critic, real, fake):
        penalty = self._penalty(critic, real, fake)
        real_score, fake_score = together(critic, real, fake)
        total = self._gan_loss.critic(real_score, fake_score) + self.weight * penalty
        return CriticLosses(total, penalty, real_score.mean(), fake_score.mean())
