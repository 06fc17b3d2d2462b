"""What the experiments try: each variant changes what it says, and leaves a model that trains."""

import pytest
import torch
from test_speed import batch, build, images, train
from torch import nn
from torch.nn.utils import parametrize
from variants import VARIANTS, change

from losses import Judgement
from models import SelfAttention
from trainer import CycleGAN

VALUES = {
    "blur": ["2:10"],
    "buffer": ["1"],
    "critic_lr": ["4"],
    "first": ["11"],
    "skip": ["full"],
    "no_attention": ["generators", "critics"],
    "no_spectral_norm": ["generators", "critics"],
    "norm": ["instance", "eps", "all", "way_up", "last", "eights"],
    "antialiased": ["generators", "critics"],
    "upsample": ["bilinear"],
    "penalty": ["mean", "sum", "zero"],
    "every": ["identity:2", "penalty:2"],
}
SCHEDULES = {"fade": "identity", "decay": "cosine"}  # what differs as the learning rate falls


@pytest.mark.parametrize("variant", [f"{name}={value}" for name, values in VALUES.items() for value in values])
def test_a_variant_differs_from_the_recipe_and_trains(variant):
    plain, model = build(CycleGAN), build(CycleGAN)
    change(model, [variant])
    model.set_schedule(0)
    theirs, ours = train(plain)[-1], train(model)[-1]
    assert any(theirs.get(name) != ours.get(name) for name in ("G", "D", "penalty"))
    assert all(p.isfinite().all() for p in model.average.parameters())


def test_every_variant_is_tried():
    assert VALUES.keys() | SCHEDULES.keys() == VARIANTS.keys()


def test_a_term_that_fades_falls_with_the_learning_rate_and_a_cosine_is_one():
    model = build(CycleGAN, "--lr=1e-3", "--lambda_id=8")
    change(model, [f"{name}={value}" for name, value in SCHEDULES.items()])
    for factor, bent in ((1, 1), (0.75, 0.8536), (0.5, 0.5), (0, 0)):
        model.scale_lr(factor)
        assert model.optimizer_G.param_groups[0]["lr"] == pytest.approx(1e-3 * bent, abs=1e-7)
        assert model.generator_objective.terms["identity"][0] == pytest.approx(8 * bent, abs=1e-3)
    assert model.generator_objective.terms["cycle"][0] == model.options.lambda_cyc


def test_a_blur_for_critics_is_gone_after_its_steps():
    def scores(model):
        return model.critic_objective.D_A.eval()(images(seed=5))

    plain, model = build(CycleGAN), build(CycleGAN)
    change(model, ["blur=1:4"])
    distances = []
    for step in range(5):
        model.updates(step)
        distances.append((scores(model) - scores(plain)).abs().max().item())
    assert distances[0] > distances[2] > 0 == distances[-1]


def test_a_network_alone_loses_attention_and_spectral_norm():
    def counts(network):
        modules = list(network.modules())
        attentions = sum(isinstance(module, SelfAttention) for module in modules)
        return attentions, sum(parametrize.is_parametrized(module) for module in modules)

    model = build(CycleGAN)
    attentions, normalised = counts(model.critic_objective)
    before = counts(model.translators)
    change(model, ["no_attention=critics"])
    assert counts(model.critic_objective) == (0, normalised - 3 * attentions) and counts(model.translators) == before
    change(model, ["no_spectral_norm=generators"])
    assert counts(model.translators) == (2, 0) == counts(model.average.module)


def test_the_critics_learning_rate_is_a_multiple():
    model = build(CycleGAN, "--lr=1e-3")
    change(model, ["critic_lr=4"])
    model.scale_lr(0.5)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in (model.optimizer_G, model.optimizer_D)]
    assert rates == pytest.approx([5e-4, 2e-3])


@pytest.mark.parametrize(
    ("kind", "groups_up"), [("instance", [16, 8]), ("way_up", [1, 1]), ("last", [16, 1]), ("eights", [2, 1])]
)
def test_norms_on_the_way_up(kind, groups_up):
    model = build(CycleGAN, "--ngf=8")
    change(model, [f"norm={kind}"])
    x = torch.randn(1, 16, 5, 7)
    for generator in model.translators.G_AB, model.average.module.G_AB:
        first, last = generator.decoder[2], generator.decoder[6]
        for norm, channels, groups in zip((first, last), (16, 8), groups_up, strict=True):
            torch.testing.assert_close(norm(x[:, :channels]), nn.functional.group_norm(x[:, :channels], groups))
        torch.testing.assert_close(generator.encoder[4](x), nn.functional.group_norm(x, 16))
    trained = {p for group in model.optimizer_G.param_groups for p in group["params"]}
    assert trained >= set(model.translators.parameters())


class Brightness(nn.Module):
    """Two patches of score 3 · mean(x): ‖∇C‖₂ = 3/√d for their mean, 6/√d for their sum."""

    def forward(self, x):
        return 3 * x.mean((1, 2, 3), keepdim=True).expand(-1, -1, 1, 2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mean", lambda n: (3 / n - 1) ** 2), ("sum", lambda n: (6 / n - 1) ** 2), ("zero", lambda n: 9 / n**2)],
)
def test_penalties_of_a_linear_critic(kind, expected):
    model = build(CycleGAN, "--lambda_gp=7")
    change(model, [f"penalty={kind}"])
    weight, measure = model.critic_objective.terms["penalty"]
    found = measure(Judgement(Brightness(), images(0, torch.double), images(1, torch.double), None, None))
    assert found.item() == pytest.approx(expected((3 * 32 * 32) ** 0.5))
    assert weight == 7


@pytest.mark.parametrize(("name", "update"), [("identity", "update_G"), ("penalty", "update_D")])
def test_a_term_at_every_third_step(name, update):
    """It weighs three times as much there, and is not computed at the others."""
    model = build(CycleGAN, "--gan_mode=wgan-gp")
    objective = {"identity": model.generator_objective, "penalty": model.critic_objective}[name]
    weight = objective.terms[name][0]
    change(model, [f"every={name}:3"])
    for step in range(1, 7):
        pair, logged = batch(), {}
        for one in model.updates(step):
            logged[one.__name__] = one(pair)
        assert (name in logged[update]) == (step % 3 == 0)
        assert objective.terms.get(name, (3 * weight,))[0] == 3 * weight


def test_antialiasing_keeps_every_size_and_what_is_constant():
    def sizes():
        return [network(batch()["A"]).shape for network in (model.translators.G_AB, model.critic_objective.D_A)]

    model = build(CycleGAN)
    before = sizes()
    change(model, ["antialiased=generators", "antialiased=critics"])
    assert sizes() == before
    sequences = (module for module in model.translators.modules() if isinstance(module, nn.Sequential))
    blur = next(layers[:-1] for layers in sequences if isinstance(layers[-2], nn.AvgPool2d))  # before a convolution
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 16
    assert blur(spike)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
