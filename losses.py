"""The two halves of a CycleGAN training step as modules: one ``forward`` each, from images to the minimised loss.

A loss is a weighted sum of terms with names. To add one: write its function, and one entry in ``generator_terms`` or
``critic_terms``. A GAN loss is a pair of functions on patch maps of scores, one for each player.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from layers import mixes_samples, not_compiled
from registry import GAN_LOSSES, PENALTIES, load
from spectral_norm import one_power_iteration
from translators import OTHER, compose, forward_as


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


# ---------------------------------------------------------------------------------------------------------------------
# The critics' penalties
# ---------------------------------------------------------------------------------------------------------------------


@not_compiled  # compiled functions have no second derivative
def gradient_norm(critic, images):
    """The norm of the gradient of the mean patch score C(x) at each image N×C×H×W, per unit of root-mean-square pixel
    distance: N.

    With the distance ‖x − y‖₂/√d, d = C·H·W, that is √d · ‖∇C(x)‖₂, and can be differentiated further. Fused attention
    kernels have no second derivative: hence the math path. Computed in the images' own precision; on a GPU, products of
    float32 are TF32 unless ``--no_tf32`` is given.
    """
    images = images.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH), torch.autocast(images.device.type, enabled=False):
        scores = critic(images).flatten(1).mean(1)  # N: no sample sees another, so the sum has each one's gradient
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.flatten(1).norm(dim=1) * gradient[0].numel() ** 0.5


def interpolate(real, fake):
    """A point on the line between each real and fake image of two batches N×C×H×W, drawn uniformly."""
    return torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device))


def gradient_penalty(critic, real, fake):
    """WGAN-GP (https://arxiv.org/abs/1704.00028): the mean of (gradient norm − 1)² between real and fake images.

    Why the norm is taken per RMS distance: the gradient of the cycle loss has norm λ_cyc/√d (an L1 mean), 0.02 at
    256×256, and a critic of ‖∇C‖₂ = 1 would drown it. Taken on the sum of the patches instead, the norm per patch
    falls with their number. In RMS distance the adversarial and the cycle gradient have the ratio 1 to λ_cyc at every
    size.
    """
    return (gradient_norm(critic, interpolate(real, fake)) - 1).square().mean()


def r1_penalty(critic, real, fake):
    """R1 (https://arxiv.org/abs/1801.04406): half the mean of the squared gradient norm at real images, as above."""
    return gradient_norm(critic, real).square().mean() / 2


# ---------------------------------------------------------------------------------------------------------------------
# The terms of the generators' loss
# ---------------------------------------------------------------------------------------------------------------------


class Direction(NamedTuple):
    """One direction of the generators' update, as its terms see it. Images are N×C×H×W in [-1, 1]; with G the generator
    from ``source``, "A" or "B", to the other domain, F the one back, and D the critic of the other domain:"""

    source: str
    real: torch.Tensor  # x, of the source domain
    translation: torch.Tensor  # mask · G(x) + (1 − mask) · x; without a mask G(x)
    fake: torch.Tensor  # the translation as the critic sees it: once masks are fixed, 0 outside them
    reconstructed: torch.Tensor  # the translation, translated back in the same way; F(G(x)) without masks
    target: torch.Tensor  # y, real images of the other domain
    identity: torch.Tensor | None  # G(y); None where there is no identity loss
    scores: torch.Tensor  # D(G(x)), a patch map
    mask: torch.Tensor | None  # N×1×H×W in [0, 1]: where x is translated; None for everywhere


def cycle(direction):
    """Cycle consistency (https://arxiv.org/abs/1703.10593): L1 between an image and its way there and back."""
    return F.l1_loss(direction.reconstructed, direction.real)


def identity(direction):
    """L1 between an image and its translation to the domain that it is of already (same paper, section 5.2)."""
    return F.l1_loss(direction.identity, direction.target)


def generator_terms(options):
    """The terms of the generators' loss: name → (weight, function of a Direction)."""
    gan_loss = load(GAN_LOSSES[options.gan_mode])
    return {
        "adversarial": (1.0, lambda direction: gan_loss.generator(direction.scores)),
        "cycle": (options.lambda_cyc, cycle),
        "identity": (options.lambda_id, identity),
    }


# ---------------------------------------------------------------------------------------------------------------------
# The terms of the critics' loss
# ---------------------------------------------------------------------------------------------------------------------


class Judgement(NamedTuple):
    """One critic's update, as its terms see it: images N×C×H×W in [-1, 1], and their patch maps of scores."""

    critic: nn.Module
    real: torch.Tensor
    fake: torch.Tensor
    real_scores: torch.Tensor
    fake_scores: torch.Tensor


def critic_terms(options):
    """The terms of each critic's loss: name → (weight, function of a Judgement). No name is one of the generators'."""
    gan_loss = load(GAN_LOSSES[options.gan_mode])
    terms = {"adversarial of D": (1.0, lambda judged: gan_loss.critic(judged.real_scores, judged.fake_scores))}
    if chosen := PENALTIES[options.penalty]:
        penalty, weight = load(chosen), getattr(options, chosen.weight)
        terms["penalty"] = (weight, lambda judged: penalty(judged.critic, judged.real, judged.fake))
    return terms


def due(terms, intervals, step):
    """The terms that count at ``step``: one with an interval of k counts at each k-th step, with k times its weight
    (lazy regularization, section 3.1 of https://arxiv.org/abs/1912.04958)."""
    intervals = {name: intervals.get(name, 1) for name in terms}
    return {
        name: (weight * intervals[name], function)
        for name, (weight, function) in terms.items()
        if step % intervals[name] == 0
    }


# ---------------------------------------------------------------------------------------------------------------------
# The two objectives
# ---------------------------------------------------------------------------------------------------------------------


class GeneratorLosses(NamedTuple):
    """Of one direction: ``total`` to minimise, its unweighted terms by name, and the translations (detached) as the
    critic sees them."""

    total: torch.Tensor
    terms: dict
    fake: torch.Tensor


class CriticLosses(NamedTuple):
    """``total`` to minimise, the sum over both critics; their mean unweighted terms and mean scores, by name."""

    total: torch.Tensor
    terms: dict
    scores: dict


@contextmanager
def frozen(*networks):
    """Inside, the networks' weights get no gradients; gradients still flow through the networks to the images."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def forward_joined(network, *batches):
    """``network`` on several batches: in one call, or one after another where batch norm would mix them."""
    if mixes_samples(network):
        return [forward_as(network, batch) for batch in batches]
    return forward_as(network, torch.cat(batches)).split([len(batch) for batch in batches])


def active(terms):
    """The terms whose weight is not 0."""
    return {name: (weight, function) for name, (weight, function) in terms.items() if weight}


def weighted_sum(terms, values):
    return sum(weight * values[name] for name, (weight, _) in terms.items())


def both_directions(real_A, real_B):
    """What GeneratorObjective takes, for each direction in turn."""
    return ("A", real_A, real_B), ("B", real_B, real_A)


class GeneratorObjective(nn.Module):
    """The generators' half of a training step (https://arxiv.org/abs/1703.10593), one direction at a time: so what one
    keeps for its backward is gone when the other begins.

    ``terms`` are those of ``generator_terms``. ``forward(source, x, y)`` takes two batches N×C×H×W in [-1, 1], x of the
    domain ``source`` and y of the other. The loss of a step is the mean over both directions: ``total`` is half the
    weighted sum of the terms, and the gradients of both add up. The critics only judge here: they are not submodules,
    and their weights get no gradients.
    """

    def __init__(self, translators, D_A, D_B, terms):
        super().__init__()
        self.translators = translators
        self._critics = {"A": D_A, "B": D_B}  # a dict hides them from nn.Module
        self.terms = active(terms)

    def forward(self, source, x, y):
        target = OTHER[source]
        critic = self._critics[target]
        with frozen(critic), one_power_iteration(self.translators, settled=[critic]):
            return self._losses(source, target, x, y)

    def _losses(self, source, target, x, y):
        """Apart from ``forward``, whose context managers would break the graph that torch.compile makes of this."""
        direction = self._direction(source, target, x, y)
        with torch.autocast(x.device.type, enabled=False):  # losses are float32, whatever the networks compute in
            values = {name: term(direction) for name, (_, term) in self.terms.items()}
        total = weighted_sum(self.terms, values) / 2
        return GeneratorLosses(total, {name: x.detach() for name, x in values.items()}, direction.fake.detach())

    def _direction(self, source, target, x, y):
        """x goes from ``source`` to ``target`` and back; y, of ``target``, goes through the same generator.

        The way back is there at ``--lambda_cyc 0``, too: other terms may look at it.
        """
        masks, there, back = self.translators.masks, *map(self.translators.generator, (source, target))
        mask = masks.mask(source, x)
        translated, of_y = forward_joined(there, x, y) if "identity" in self.terms else (forward_as(there, x), None)
        translation = compose(mask, translated, x)
        fake = masks.for_critic(translation, mask)
        scores = forward_as(self._critics[target], fake)
        cycled = compose(masks.for_cycle(mask), translated, x)
        mask_back = masks.for_cycle(masks.mask_back(target, cycled, mask))
        reconstructed = compose(mask_back, forward_as(back, cycled), cycled)
        return Direction(source, x, translation, fake, reconstructed, y, of_y, scores, mask)


class CriticObjective(nn.Module):
    """The critics' half of a training step: each tells real images of its domain from translated ones.

    ``terms`` are those of ``critic_terms``. ``forward(real_A, fake_A, real_B, fake_B)`` takes batches N×C×H×W in
    [-1, 1], the fakes from the replay buffers. ``total`` is the sum over the two critics, so that one backward gives
    each the gradient of its own loss. ``intervals``: name → steps between two times that a term is taken, see ``due``;
    ``step`` is the present one.
    """

    def __init__(self, D_A, D_B, terms, intervals=None):
        super().__init__()
        self.D_A, self.D_B = D_A, D_B
        self.terms, self.intervals, self.step = active(terms), intervals or {}, 0

    def forward(self, real_A, fake_A, real_B, fake_B):
        due_now = due(self.terms, self.intervals, self.step)
        with one_power_iteration(self):
            return self._losses(due_now, real_A, fake_A, real_B, fake_B)

    def _losses(self, due_now, real_A, fake_A, real_B, fake_B):
        """As in GeneratorObjective."""
        judged = self._judge(self.D_A, real_A, fake_A), self._judge(self.D_B, real_B, fake_B)
        with torch.autocast(real_A.device.type, enabled=False):
            values = [{name: term(one) for name, (_, term) in due_now.items()} for one in judged]
        total = sum(weighted_sum(due_now, one) for one in values)
        terms = {name: sum(one[name].detach() for one in values) / 2 for name in due_now}
        scores = {
            "score real": sum(one.real_scores.detach().mean() for one in judged) / 2,
            "score fake": sum(one.fake_scores.detach().mean() for one in judged) / 2,
        }
        return CriticLosses(total, terms, scores)

    def _judge(self, critic, real, fake):
        return Judgement(critic, real, fake, *forward_joined(critic, real, fake))
