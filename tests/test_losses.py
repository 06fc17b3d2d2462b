"""The objectives against closed forms, finite differences and the loop of the textbook."""

from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from critics import CriticAttention
from losses import (
    CriticObjective,
    GeneratorObjective,
    Hinge,
    LeastSquares,
    Vanilla,
    Wasserstein,
    both_directions,
    critic_terms,
    due,
    generator_terms,
    gradient_norm,
    gradient_penalty,
    r1_penalty,
)
from options import parse_training
from registry import GAN_LOSSES, PENALTIES, load
from spectral_norm import SpectralNorm
from translators import Translators


def terms_of_G(gan_mode="wgan-gp", lambda_cyc=10.0, lambda_id=5.0):
    flags = [f"--gan_mode={gan_mode}", f"--lambda_cyc={lambda_cyc}", f"--lambda_id={lambda_id}"]
    return generator_terms(parse_training(flags)[0])


def terms_of_D(gan_mode="wgan-gp", penalty="wgan-gp", weight=10.0):
    return critic_terms(Namespace(gan_mode=gan_mode, penalty=penalty, lambda_gp=weight, lambda_r1=weight))


@pytest.mark.parametrize("step", range(1, 10))
def test_a_term_with_an_interval_is_due_at_its_steps_alone(step):
    """Over an interval it weighs as much as at each step."""
    terms = {"adversarial": (2.0, "f"), "penalty": (10.0, "g")}
    expected = {"adversarial": (2.0, "f")} | ({"penalty": (30.0, "g")} if step in (3, 6, 9) else {})
    assert due(terms, {"penalty": 3}, step) == expected
    assert due(terms, {}, step) == terms


def images(seed, n=2, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, size, size, generator=generator, dtype=torch.double) * 2 - 1


@pytest.fixture
def networks():
    """Translators and the two critics."""
    torch.manual_seed(0)
    translators = Translators(parse_training(["--ngf=4", "--n_residual_blocks=1"])[0]).double()
    critics = [CriticAttention(ndf=4, dropout_rate=0).double() for _ in range(2)]
    for network in (translators.G_AB, translators.G_BA, *critics):
        nn.init.constant_(network.attention.gamma, 0.5)
    return translators, *critics


class LinearCritic(nn.Module):
    """C(x) = w · x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).sum((1, 2, 3), keepdim=True)


def test_the_penalty_of_a_linear_critic_is_known():
    weight = torch.randn(3, 16, 16, dtype=torch.double)
    penalty = gradient_penalty(LinearCritic(weight), images(1), images(2))
    expected = (weight.norm() * (3 * 16 * 16) ** 0.5 - 1) ** 2
    torch.testing.assert_close(penalty, expected)


@pytest.mark.parametrize("size", [8, 64])
def test_the_penalty_means_the_same_at_every_resolution(size):
    """A critic that is three times the brightness has gradient norm 3 in RMS distance, however many the pixels."""
    weight = torch.full((3, size, size), 3 / (3 * size * size), dtype=torch.double)
    penalty = gradient_penalty(LinearCritic(weight), images(1, size=size), images(2, size=size))
    assert penalty.item() == pytest.approx((3 - 1) ** 2)


def test_the_norm_is_taken_for_each_sample():
    """Slopes 1 and 3 give ((1 − 1)² + (3 − 1)²) / 2; a norm over the whole batch would not."""

    class TwoSlopes(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3), keepdim=True) * torch.tensor([1.0, 3.0], dtype=x.dtype).view(2, 1, 1, 1)

    assert gradient_penalty(TwoSlopes(), images(1), images(2)).item() == pytest.approx(2)


def test_the_points_lie_between_real_and_fake_with_one_epsilon_a_sample():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.mean((1, 2, 3), keepdim=True)

    real, fake = images(1, n=4), images(2, n=4)
    gradient_penalty(critic, real, fake)
    epsilon = (seen[0] - real) / (fake - real)
    assert (epsilon >= 0).all() and (epsilon <= 1).all()
    spread = epsilon.flatten(1).max(1).values - epsilon.flatten(1).min(1).values
    assert spread.max() < 1e-6
    assert epsilon.flatten(1).mean(1).unique().numel() == 4


def test_the_r1_penalty_of_a_linear_critic_is_known():
    weight = torch.randn(3, 16, 16, dtype=torch.double)
    real = images(1, n=3)
    steepness = weight.norm() * (3 * 16 * 16) ** 0.5
    torch.testing.assert_close(gradient_norm(LinearCritic(weight), real), steepness.expand(3))
    torch.testing.assert_close(r1_penalty(LinearCritic(weight), real, None), steepness**2 / 2)


def test_a_critic_without_slope_has_a_finite_gradient():
    critic = LinearCritic(torch.zeros(3, 16, 16, dtype=torch.double))
    penalty = gradient_penalty(critic, images(1), images(2))
    assert penalty.item() == 1
    (gradient,) = torch.autograd.grad(penalty, critic.weight)
    assert gradient.isfinite().all()


def test_autograd_agrees_with_finite_differences_through_penalty_attention_and_spectral_norm(networks):
    critic = networks[1].eval()  # eval: no power iteration between the two evaluations
    assert parametrize.is_parametrized(critic.encoder[0], "weight")
    parameters = list(critic.parameters())

    def penalty():
        torch.manual_seed(3)  # the same epsilon each time
        return gradient_penalty(critic, images(1), images(2))

    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    step = 1e-6
    for seed in range(5):
        torch.manual_seed(seed)
        direction = [torch.randn_like(p) * p.abs().mean().clamp(min=1e-2) for p in parameters]
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)).item()

        def moved(distance, direction=direction):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p += distance * d
            value = penalty().item()
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p -= distance * d
            return value

        assert slope == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-4)


def test_gan_losses_in_closed_form():
    real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    assert Wasserstein.critic(real, fake).item() == 0.5 - 2
    assert Wasserstein.generator(fake).item() == -0.5
    sigmoid = torch.sigmoid
    cross_entropy = -(sigmoid(real).log().mean() + (1 - sigmoid(fake)).log().mean()) / 2
    assert Vanilla.critic(real, fake).item() == pytest.approx(cross_entropy.item(), rel=1e-5)
    assert Vanilla.generator(fake).item() == pytest.approx(-sigmoid(fake).log().mean().item(), rel=1e-5)
    assert Hinge.critic(real, fake).item() == ((0 + 0) / 2 + (1 + 2) / 2) / 2
    assert Hinge.generator(fake).item() == -0.5
    assert LeastSquares.critic(real, fake).item() == ((0 + 4) / 2 + (0 + 1) / 2) / 2
    assert LeastSquares.generator(fake).item() == (1 + 0) / 2


# ---- the loop of the textbook: six calls of the generators, each critic by itself ----


def textbook_generator_loss(G_AB, G_BA, D_A, D_B, real_A, real_B, gan_loss, lambda_cyc, lambda_id):
    identity = (F.l1_loss(G_BA(real_A), real_A) + F.l1_loss(G_AB(real_B), real_B)) / 2
    fake_B, fake_A = G_AB(real_A), G_BA(real_B)
    adversarial = (gan_loss.generator(D_B(fake_B)) + gan_loss.generator(D_A(fake_A))) / 2
    cycle = (F.l1_loss(G_BA(fake_B), real_A) + F.l1_loss(G_AB(fake_A), real_B)) / 2
    return adversarial + lambda_cyc * cycle + lambda_id * identity


@pytest.mark.parametrize("lambda_id", [0, 3])
@pytest.mark.parametrize("gan_mode", GAN_LOSSES)
def test_the_generator_objective_equals_the_textbook(networks, gan_mode, lambda_id):
    for network in networks:
        network.eval()
    translators, D_A, D_B = networks
    G_AB, G_BA = translators.G_AB, translators.G_BA
    objective = GeneratorObjective(*networks, terms_of_G(gan_mode, 7, lambda_id))
    real_A, real_B = images(1), images(2)
    to_B, to_A = (objective(*direction) for direction in both_directions(real_A, real_B))
    total = to_B.total + to_A.total
    theirs = textbook_generator_loss(G_AB, G_BA, D_A, D_B, real_A, real_B, load(GAN_LOSSES[gan_mode]), 7, lambda_id)
    torch.testing.assert_close(total, theirs, rtol=1e-10, atol=1e-12)
    parameters = list(translators.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(total, parameters), torch.autograd.grad(theirs, parameters), rtol=1e-7, atol=1e-10
    )
    torch.testing.assert_close(to_B.fake, G_AB(real_A).detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(to_A.fake, G_BA(real_B).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("penalty_name", PENALTIES)
@pytest.mark.parametrize("gan_mode", GAN_LOSSES)
def test_the_critic_objective_equals_the_textbook(networks, gan_mode, penalty_name):
    D_A, D_B = (network.eval() for network in networks[1:])
    gan_loss = load(GAN_LOSSES[gan_mode])
    penalty = load(PENALTIES[penalty_name]) if penalty_name != "none" else lambda critic, real, fake: 0
    real_A, fake_A, real_B, fake_B = (images(seed) for seed in range(4))
    torch.manual_seed(5)
    ours = CriticObjective(D_A, D_B, terms_of_D(gan_mode, penalty_name, 2.5))(real_A, fake_A, real_B, fake_B)
    torch.manual_seed(5)
    theirs = sum(
        2.5 * penalty(critic, real, fake) + gan_loss.critic(critic(real), critic(fake))
        for critic, real, fake in ((D_A, real_A, fake_A), (D_B, real_B, fake_B))
    )
    torch.testing.assert_close(ours.total, theirs, rtol=1e-10, atol=1e-12)
    assert ours.scores["score real"].item() == pytest.approx((D_A(real_A).mean() + D_B(real_B).mean()).item() / 2)
    assert ours.scores["score fake"].item() == pytest.approx((D_A(fake_A).mean() + D_B(fake_B).mean()).item() / 2)


def test_the_critics_collect_no_gradients_in_the_generator_step(networks):
    objective = GeneratorObjective(*networks, terms_of_G())
    assert {id(p) for p in objective.parameters()} == {id(p) for p in networks[0].parameters()}
    for direction in both_directions(images(1), images(2)):
        objective(*direction).total.backward()
    critics = [p for network in networks[1:] for p in network.parameters()]
    assert all(p.grad is None and p.requires_grad for p in critics)
    assert all(p.grad is not None for p in objective.parameters())


def test_one_power_iteration_a_step(networks, monkeypatch):
    """Of the generators in their half, of the critics in theirs; and each weight is computed once in each half."""
    calls = []
    plain = SpectralNorm.forward
    monkeypatch.setattr(SpectralNorm, "forward", lambda self, weight: (calls.append(id(self)), plain(self, weight))[1])

    def vectors(network):
        return [buffer.clone() for name, buffer in network.named_buffers() if name.endswith("._u")]

    before = [vectors(network) for network in networks]
    objective = GeneratorObjective(*networks, terms_of_G())
    with parametrize.cached():
        for direction in both_directions(images(1), images(2)):
            objective(*direction)
    assert len(calls) == len(set(calls)) > 0
    between = [vectors(network) for network in networks]
    assert [all(map(torch.equal, *pair)) for pair in zip(before, between, strict=True)] == [False, True, True]
    assert all(module.training for network in networks for module in network.modules())
    calls.clear()
    CriticObjective(*networks[1:], terms_of_D())(*(images(seed) for seed in range(4)))
    assert len(calls) == len(set(calls)) > 0
    after = [vectors(network) for network in networks]
    assert [all(map(torch.equal, *pair)) for pair in zip(between, after, strict=True)] == [True, False, False]


@pytest.mark.parametrize("gan_mode", GAN_LOSSES)
def test_each_half_step_lowers_its_own_loss(networks, gan_mode):
    batches = [images(seed) for seed in range(4)]
    generators = GeneratorObjective(*networks, terms_of_G(gan_mode))
    critics = CriticObjective(*networks[1:], terms_of_D(gan_mode))
    for objective, parts in ((generators, both_directions(*batches[:2])), (critics, [batches])):
        optimizer = torch.optim.Adam(objective.parameters(), 1e-3, (0.5, 0.999))
        losses = []
        for _ in range(15):
            torch.manual_seed(0)
            loss = sum(objective(*part).total for part in parts)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


def test_what_is_told_of_the_critics_is_the_mean_of_both():
    torch.manual_seed(0)
    objective = CriticObjective(Linear(), Linear(), terms_of_D("lsgan", "none"))
    losses = objective(*(torch.randn(2, 3, 8, 8) for _ in range(4)))
    torch.testing.assert_close(losses.terms["adversarial of D"], losses.total.detach() / 2)


class Linear(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 1, 1)


@pytest.mark.parametrize("kind", ["none", "given"])
def test_a_term_sees_the_domain_and_the_mask_of_its_images(networks, kind):
    translators = Translators(parse_training(["--ngf=4", "--n_residual_blocks=1", f"--mask={kind}"])[0]).double()
    seen = []
    terms = {"seen": (1.0, lambda direction: (seen.append(direction), direction.fake.mean())[1])}
    objective = GeneratorObjective(translators, *networks[1:], terms)
    black = images(1)
    black[:, :, :4] = -1
    for source, x, y in both_directions(black, images(2)):
        objective(source, x, y)
    assert [direction.source for direction in seen] == ["A", "B"]
    if kind == "none":
        assert all(direction.mask is None for direction in seen)
    else:
        of_A, of_B = (direction.mask for direction in seen)
        assert not of_A[:, :, :4].any() and of_A[:, :, 4:].any() and of_B.min() == 1
        assert torch.equal(seen[0].translation[:, :, :4], black[:, :, :4])


def test_a_term_sees_translations_as_they_are_and_as_the_critic_sees_them(networks):
    flags = ["--ngf=4", "--n_residual_blocks=1", "--mask=learned", "--mask_freeze_epoch=0"]
    translators, x = Translators(parse_training(flags)[0]).double(), images(1)
    masks, seen = translators.masks, []
    masks.start_epoch(0)
    masks.FOREGROUND = masks.mask("A", x).median().item()  # so that half of the image is background
    terms = {"seen": (1.0, lambda direction: (seen.append(direction), direction.fake.mean())[1])}
    GeneratorObjective(translators, *networks[1:], terms)("A", x, images(2))
    (direction,) = seen
    background = (direction.mask <= masks.FOREGROUND).expand_as(x)
    assert background.any() and not background.all()
    assert not direction.fake[background].any() and direction.translation[background].all()
    assert torch.equal(direction.fake[~background], direction.translation[~background])
