"""Muon: its matrices against their singular values and torch's own Muon, its vectors against Adam, and its runs."""

import copy

import pytest
import torch
from conftest import TINY, equal
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import muon
from muon import Muon, alike, in_memory, is_matrix, orthogonalise
from options import parse_training
from registry import OPTIMIZERS, RECIPES, Entry
from runtime import checkpoints
from runtime.device import pick_device, swapped
from trainer import CycleGAN, restore_moments

SIDES = st.integers(1, 9)


@given(st.integers(1, 3), SIDES, SIDES, st.integers(0, 99), st.floats(1e-6, 1e6))
def test_directions_stay_and_singular_values_become_alike(count, rows, columns, seed, scale):
    drawn = torch.randn(count, rows, columns, generator=torch.manual_seed(seed), dtype=torch.float64)
    left, before, right = torch.linalg.svd(drawn, full_matrices=False)
    after = left.mT @ orthogonalise(scale * drawn) @ right.mT / max(rows, columns) ** 0.5
    values = after.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(after, torch.diag_embed(values), rtol=0, atol=1e-6)
    shares = before / before.norm(dim=1, keepdim=True)
    assert torch.all(values[shares > 0.0016] > 0.67) and torch.all(values < 1.21)


def test_the_short_cut_is_the_iteration_of_the_textbook():
    drawn = torch.randn(2, 5, 7, generator=torch.manual_seed(0), dtype=torch.float64)
    x = drawn / drawn.norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
    torch.testing.assert_close(orthogonalise(drawn), x * 7**0.5)
    torch.testing.assert_close(orthogonalise(drawn.mT), x.mT * 7**0.5)


@pytest.mark.parametrize("size", [0.0, 1e-30])
def test_a_gradient_of_nothing_makes_no_step(size):
    assert orthogonalise(torch.full((1, 3, 4), size)).abs().max() < 1e-6


def network():
    torch.manual_seed(0)
    first, hidden, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 1, 3)
    return nn.Sequential(first, nn.InstanceNorm2d(8, affine=True), nn.ReLU(), hidden, nn.ReLU(), last)


def steps(net, optimizer, count=5):
    generator = torch.manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 9, 9, generator=generator)).square().mean().backward()
        optimizer.step()


def test_a_matrix_takes_the_steps_of_torchs_own_muon():
    """Which computes in bfloat16, and has a fifth of Adam's scale."""
    ours, theirs = (nn.Linear(6, 9, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    before = ours.weight.detach().clone()
    reference = torch.optim.Muon(
        theirs.parameters(), lr=1e-2, momentum=0.9, weight_decay=0, adjust_lr_fn="match_rms_adamw"
    )
    optimizer = Muon(ours.parameters(), 1e-2 * 0.2 / Muon.SCALE, (0.5, 0.999))
    for seed in range(4):
        gradient = torch.randn(9, 6, generator=torch.manual_seed(seed))
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        optimizer.step(), reference.step()
    moved = (ours.weight - before).norm()
    assert (ours.weight - theirs.weight).norm() < 0.03 * moved


@pytest.mark.parametrize("axes", [2, 4])
def test_a_step_is_as_large_as_it_says(axes):
    weight = nn.Parameter(torch.zeros((16, 8, 3, 3)[:axes]))
    weight.grad = torch.randn(weight.shape, generator=torch.manual_seed(0))
    Muon([weight], 1e-3, (0.5, 0.999)).step()
    assert 0.7 < weight.detach().square().mean().sqrt() / (Muon.SCALE * 1e-3) < 1.2


def test_all_but_matrices_takes_the_steps_of_adam():
    ours, theirs = network(), network()
    optimizer = Muon(ours.parameters(), 1e-3, (0.5, 0.999), fused=True)
    vectors = [weight for weight in theirs.parameters() if not is_matrix(weight)]
    assert len(vectors) == 7
    reference = torch.optim.Adam(vectors, 1e-3, (0.5, 0.999), fused=True)
    generator = torch.manual_seed(0)
    for _ in range(3):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        optimizer.step(), reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other) != is_matrix(mine)


def test_weights_of_one_shape_do_not_mix():
    together = [nn.Parameter(torch.randn(6, 5, 3, 3, generator=torch.manual_seed(seed))) for seed in range(3)]
    apart = [nn.Parameter(weight.detach().clone()) for weight in together]
    for weight, alone in zip(together, apart, strict=True):
        weight.grad = torch.randn_like(weight)
        alone.grad = weight.grad.clone()
        Muon([alone], 1e-2, (0.5, 0.999)).step()
    Muon(together, 1e-2, (0.5, 0.999)).step()
    for weight, alone in zip(together, apart, strict=True):
        torch.testing.assert_close(weight, alone)


def test_the_memory_format_makes_no_difference():
    """Neither that of a weight nor that of its gradient."""
    drawn = torch.randn(2, 8, 6, 3, 3, generator=torch.manual_seed(0))
    formats = torch.contiguous_format, torch.channels_last
    results = []
    for of_weight in formats:
        for of_gradient in formats:
            weights = [nn.Parameter(each.clone(memory_format=of_weight)) for each in drawn]
            for weight, gradient in zip(weights, drawn.flip(0), strict=True):
                weight.grad = gradient.clone(memory_format=of_gradient)
            Muon(weights, 1e-2, (0.5, 0.999)).step()
            results.append(torch.stack(list(weights)))
    assert not torch.equal(results[0], drawn)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


def test_weights_of_two_memory_formats_keep_apart():
    contiguous, last = torch.empty(6, 5, 3, 3), torch.empty(6, 5, 3, 3).contiguous(memory_format=torch.channels_last)
    assert [len(each) for each in alike([contiguous, last, contiguous])] == [2, 1]
    assert in_memory(contiguous) == [0, 1, 2, 3] and in_memory(last) == [0, 2, 3, 1]
    assert in_memory(torch.empty(6, 5)) == [0, 1]


@pytest.mark.parametrize(("numbers", "lengths"), [(1000, [5, 2]), (48, [2, 2, 1, 1, 1]), (1, [1] * 7)])
def test_weights_are_taken_together_by_shape_and_few_at_a_time(numbers, lengths):
    small, large = [torch.empty(4, 6) for _ in range(5)], [torch.empty(6, 5, 3, 3) for _ in range(2)]
    lists = list(alike([*small[:2], *large, *small[2:]], numbers))
    assert [len(each) for each in lists] == lengths
    assert [id(weight) for each in lists for weight in each] == [id(weight) for weight in small + large]


def test_a_weight_without_a_gradient_stays():
    net = network()
    before = net[3].weight.detach().clone()
    optimizer = Muon(net.parameters(), 1e-2, (0.5, 0.999))
    net[3].weight.requires_grad_(False)
    steps(net, optimizer, 2)
    assert torch.equal(net[3].weight, before)


def test_what_overflows_in_fp16_makes_no_step():
    net = network()
    optimizer, scaler = Muon(net.parameters(), 1e-2, (0.5, 0.999), fused=True), torch.amp.GradScaler("cpu")
    steps(net, optimizer)
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    for value in (torch.inf, torch.nan):
        optimizer.zero_grad()
        scaler.scale(value * net(torch.ones(1, 3, 9, 9)).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert equal(before, (net.state_dict(), optimizer.state_dict()))


# ---- the moments that a checkpoint holds ----


def test_a_restored_optimizer_goes_on_to_the_last_bit():
    net = network()
    optimizer = Muon(net.parameters(), 1e-3, (0.5, 0.999), fused=True)
    steps(net, optimizer)
    twin = copy.deepcopy(net)
    other = Muon(twin.parameters(), 1e-3, (0.5, 0.999), fused=True)
    restore_moments(other, copy.deepcopy(optimizer.state_dict()))
    steps(net, optimizer), steps(twin, other)
    assert equal(net.state_dict(), twin.state_dict())


MATRIX, SHAPE = 7, (6, 8, 3, 3)  # the number of the hidden convolution's weight, behind all others


@pytest.mark.parametrize(
    ("number", "forged"),
    [
        (MATRIX, {"momentum": torch.zeros(3), "step": torch.tensor(1.0)}),
        (MATRIX, {"exp_avg": torch.zeros(SHAPE), "exp_avg_sq": torch.zeros(SHAPE), "step": torch.tensor(1.0)}),
        (MATRIX, {"exp_avg": torch.zeros(SHAPE), "step": torch.tensor(1.0)}),
        (MATRIX, {}),
        (MATRIX, []),
        (0, ()),
        (0, {"momentum": torch.zeros(8, 3, 3, 3), "step": torch.tensor(1.0)}),
        (999, {"momentum": torch.zeros(SHAPE), "step": torch.tensor(1.0)}),
        ("x", "y"),
    ],
)
def test_moments_of_other_weights_are_refused(number, forged):
    """By what CycleGAN makes one line of."""
    net = network()
    optimizer = Muon(net.parameters(), 1e-3, (0.5, 0.999))
    steps(net, optimizer)
    state = optimizer.state_dict()
    assert state["state"][MATRIX]["momentum"].shape == SHAPE
    with pytest.raises((ValueError, KeyError, AttributeError)):
        restore_moments(optimizer, {**state, "state": {**state["state"], number: forged}})


def test_digits_are_not_rounded_away_on_a_gpu(monkeypatch):
    """All iterations are powers of one product, so that an error in it stays."""
    seen = []
    monkeypatch.setattr(muon, "quintic", lambda x: seen.append(torch.backends.cuda.matmul.allow_tf32) or x)
    with swapped(torch.backends.cuda.matmul, "allow_tf32", True):
        orthogonalise(torch.ones(1, 2, 3))
        assert set(seen) == {False} and torch.backends.cuda.matmul.allow_tf32


def test_every_convolution_between_feature_maps_is_a_matrix():
    model = CycleGAN(parse_training(["--ngf=8", "--ndf=8", "--n_residual_blocks=1"])[0], pick_device("cpu"))
    for objective, optimizer in (
        (model.generator_objective, model.optimizer_G),
        (model.critic_objective, model.optimizer_D),
    ):
        others, matrices = ({id(weight) for weight in group["params"]} for group in optimizer.param_groups)
        assert matrices == {id(weight) for weight in objective.parameters() if is_matrix(weight)} != set()
        assert others | matrices == {id(weight) for weight in objective.parameters()}
    model.scale_lr(0.5)
    assert {group["lr"] for group in model.optimizer_G.param_groups} == {1e-4}


def test_the_keywords_of_an_entry_reach_the_optimizer(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "decaying", Entry("torch.optim:Adam", dict(weight_decay=0.5)))
    options = parse_training(["--ngf=4", "--ndf=4", "--n_residual_blocks=1"])[0]
    options.optimizer = "decaying"
    model = CycleGAN(options, pick_device("cpu"))
    assert {group["weight_decay"] for group in model.optimizer_D.param_groups} == {0.5}


# ---- runs ----


def test_what_is_as_published_has_adam():
    chosen = {name: parse_training([f"--recipe={name}"])[0].optimizer for name in RECIPES}
    published = dict.fromkeys(("classic", "notebook", "segmentation"), "adam")
    assert chosen == dict.fromkeys(("attention", "lsgan", "features", "features+patch"), "muon") | published


@pytest.mark.parametrize("recipe", ["attention", "classic"])
def test_a_stopped_run_goes_on_to_the_last_bit(workplace, run, recipe):
    flags = [*TINY, f"--recipe={recipe}", "--img_height=32", "--img_width=32", "--load_factor=1.2"]
    flags.append("--optimizer=muon")  # of classic as well
    assert run("cycle_gan", *flags, "--n_epochs=2", "--decay_epoch=1", "--name=whole").code == 0
    assert run("cycle_gan", *flags, "--n_epochs=1", "--decay_epoch=1", "--name=cut").code == 0
    assert run("cycle_gan", "--name=cut", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--n_cpu=0").code == 0
    whole, cut = (checkpoints.load(f"saved_models/{name}", 2, resume=True)[1] for name in ("whole", "cut"))
    assert whole["options"]["optimizer"] == cut["options"]["optimizer"] == "muon"
    assert equal(whole["training"], cut["training"])


def test_a_resumed_run_keeps_its_optimizer(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    assert "contradicts the checkpoint" in refused("cycle_gan", *TINY, "--epoch=1", "--optimizer=adam")


@pytest.mark.parametrize(("given", "then"), [([], "muon"), (["--optimizer=adam"], "adam")])
def test_networks_may_start_under_another_optimizer(workplace, run, given, then):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--optimizer=adam").code == 0
    flags = "--dataset_name=tiny", "--init_from=saved_models/tiny", "--name=second", "--n_epochs=1", "--n_cpu=0"
    result = run("cycle_gan", *flags, "--img_height=16", "--img_width=20", *given)
    assert result.code == 0, result.err
    assert checkpoints.load("saved_models/second", 1)[1]["options"]["optimizer"] == then
