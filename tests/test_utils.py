"""The replay buffer's statistics, the averaged generators, grids, the log of losses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from reporting.grids import SampleGrid
from reporting.loss_log import LossLog
from runtime.errors import UserError
from translators import GivenMasks, NoMasks, Translators
from utils import EMA, RandomState, ReplayBuffer


def numbered(first, n):
    """Images that carry their number: N×1×1×1."""
    return torch.arange(first, first + n, dtype=torch.float).view(n, 1, 1, 1)


def test_the_buffer_returns_what_it_gets_until_it_is_full():
    buffer = ReplayBuffer(50)
    assert torch.equal(buffer.push_and_pop(numbered(0, 50)), numbered(0, 50))
    assert len(buffer.images) == 50


def test_half_of_the_time_an_old_image_is_swapped_in():
    buffer, n = ReplayBuffer(50), 4000
    buffer.push_and_pop(numbered(0, 50))
    returned = buffer.push_and_pop(numbered(50, n)).flatten()
    old = (returned != torch.arange(50, 50 + n)).sum().item()
    assert abs(old - n / 2) < 5 * math.sqrt(n) / 2  # five standard deviations
    ages = (torch.arange(50, 50 + n) - returned)[2000:]  # geometric: each round an image leaves with chance 1/100
    assert ages[ages > 0].mean().item() == pytest.approx(100, rel=0.2)


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 5), max_size=15), capacity=st.integers(1, 8), seed=st.integers(0, 99))
def test_the_buffer_neither_invents_nor_doubles_images(sizes, capacity, seed):
    buffer, pushed, returned = ReplayBuffer(capacity, seed), [], []
    for size in sizes:
        batch = numbered(len(pushed), size)
        result = buffer.push_and_pop(batch)
        assert result.shape == batch.shape
        pushed += batch.flatten().tolist()
        returned += result.flatten().tolist()
    held = [image.item() for image in buffer.images]
    assert len(held) == min(capacity, len(pushed))
    assert set(held) | set(returned) == set(pushed)
    assert len(set(held)) == len(held)


def test_a_restored_buffer_goes_on_as_the_original():
    buffer, copy = ReplayBuffer(5), ReplayBuffer(5, seed=99)
    buffer.push_and_pop(numbered(0, 20))
    copy.load_state_dict(buffer.state_dict())
    assert torch.equal(buffer.push_and_pop(numbered(20, 50)), copy.push_and_pop(numbered(20, 50)))


def test_the_random_state_is_restored():
    state = RandomState(torch.device("cpu")).state_dict()
    drawn = torch.rand(3)
    RandomState(torch.device("cpu")).load_state_dict(state)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize("kind", ["cuda:1", "mps"])
def test_the_random_state_of_an_accelerator_is_restored_on_one_of_its_kind(kind, monkeypatch):
    """As torch's own functions take it: CUDA's for a device, Apple's for the only one."""
    device, generator, asked = torch.device(kind), torch.Generator(), []

    class Module:
        def get_rng_state(*which):
            asked.append(which)
            return generator.get_state()

        def set_rng_state(state, *which):
            asked.append(which)
            generator.set_state(state)

    monkeypatch.setattr(torch, "get_device_module", lambda wanted: {device: Module}[wanted])
    state = RandomState(device).state_dict()
    drawn = torch.rand(3, generator=generator)
    RandomState(device).load_state_dict(state)
    assert torch.equal(torch.rand(3, generator=generator), drawn)
    assert asked == 2 * ([()] if kind == "mps" else [(device,)])
    RandomState(device).load_state_dict({"cpu": state["cpu"]})  # of a run on a CPU
    RandomState(torch.device("cpu")).load_state_dict(state)
    assert len(asked) == 2


def test_the_average_follows_its_recurrence_and_leaves_the_network_alone():
    network = nn.Linear(1, 1, bias=False).double()
    average = EMA(network, decay=0.9)
    expected = None
    for step in range(100):
        nn.init.constant_(network.weight, float(step))
        average.update_parameters(network)
        memory = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if expected is None else memory * expected + (1 - memory) * step
        assert network.weight.item() == step and network.weight.requires_grad
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert not average.module.weight.requires_grad and not average.module.training


def test_the_average_has_the_newest_statistics_of_batch_norms():
    network = nn.BatchNorm2d(2)
    average = EMA(network, decay=0.9)
    for seed in range(3):
        network(torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(seed)))
        average.update_parameters(network)
    for buffer, newest in zip(average.module.buffers(), network.buffers(), strict=True):
        assert torch.equal(buffer, newest)
    assert average.module.running_mean.abs().min() > 0 and average.module.num_batches_tracked == 3


class Arithmetic(Translators):
    """A→B is 0, B→A adds a half."""

    def __init__(self, masks=None):
        nn.Module.__init__(self)
        self.G_AB, self.G_BA, self.masks = lambda x: x * 0, lambda x: x + 0.5, masks or NoMasks()


def test_a_grid_has_six_columns_and_shows_translations_and_reconstructions(tmp_path):
    A, B = torch.full((2, 3, 8, 12), -1.0), torch.full((2, 3, 8, 12), 1.0)
    path = tmp_path / "new" / "7.png"
    SampleGrid(A, B).save(Arithmetic(), path)
    with Image.open(path) as image:
        assert image.size == (6 * (12 + 2) + 2, 2 * (8 + 2) + 2)
        shades = [image.getpixel((2 + 14 * column + 6, 6))[0] for column in range(6)]
    assert shades == [0, 128, 191, 255, 255, 128]  # A, A→B, A→B→A, B, B→A (1.5, clipped), B→A→B


def test_a_grid_shows_the_masks_behind_the_real_images(tmp_path):
    A, B = torch.full((1, 3, 8, 8), -1.0), torch.full((1, 3, 8, 8), 1.0)
    A[..., :4] = 0.0
    path = tmp_path / "1.png"
    SampleGrid(A, B).save(Arithmetic(GivenMasks(32)), path)
    with Image.open(path) as image:
        assert image.size == (8 * (8 + 2) + 2, 8 + 2 + 2)
        row = [[image.getpixel((2 + 10 * c + x, 6))[0] for x in (1, 6)] for c in range(8)]
    assert row[:4] == [[128, 0], [255, 0], [128, 0], [191, 0]]  # A, its mask, A→B, A→B→A: black is left alone
    assert row[4:6] == [[255, 255], [255, 255]]


def test_a_grid_of_sides_of_different_numbers_shows_the_smaller_number(tmp_path):
    grid = SampleGrid(torch.zeros(3, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    assert [len(real) for real in grid.real.values()] == [1, 1]


def test_the_log_gives_means_and_forgets_them():
    log = LossLog()
    assert log.read() == {}
    log.add(1, {"a": torch.tensor(1.0), "b": torch.tensor(10.0)})
    log.add(2, {"a": torch.tensor(3.0)})
    assert log.read() == {"a": 2, "b": 10}
    assert log.read() == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_log_names_the_first_term_that_is_not_finite_and_its_step(bad):
    log = LossLog()
    log.add(4, {"a": torch.tensor(1.0), "b": torch.tensor(1.0)})
    log.add(5, {"a": torch.tensor(1.0), "b": torch.tensor(bad)})
    log.add(6, {"a": torch.tensor(bad)})
    with pytest.raises(UserError, match=r"not finite at step 5: 'b' \((nan|-?inf)\)$"):
        log.read()
