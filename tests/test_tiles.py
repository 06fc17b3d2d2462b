"""Tiles: each layer makes the same of strips as of a whole image, and so do the networks; what memory and disk hold."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, noise_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import inference.activations
import inference.tiles
from convolutions import Decoder, ReflectConv2d
from inference.activations import Activation, kept
from inference.tiles import (
    SingleDirection,
    across,
    activation_of,
    advance,
    attend,
    grid_step,
    merge,
    translate_in_tiles,
)
from layers import LayerNorm2d
from models import GeneratorResNet, SelfAttention
from registry import GENERATORS, build
from runtime.errors import UserError
from translators import Translators

CPU = torch.device("cpu")


@torch.inference_mode()
def in_strips(network, image, tile):
    """As translate_in_tiles, of a network that may change an image's size."""
    activation = activation_of(network, image, tile, CPU)
    result = torch.cat([activation.read(*strip) for strip in activation.strips()], dim=2)[0]
    assert result.shape[1:] == (activation.height, activation.width)
    return result


def as_if_whole(network, image, tile, **tolerance):
    network = nn.Sequential(network).eval().requires_grad_(False)
    torch.testing.assert_close(in_strips(network, image, tile), network(image[None])[0], **tolerance)


@given(height=st.integers(1, 500), count=st.integers(1, 500))
def test_strips_cover_each_row_once(height, count):
    strips = Activation(height, 1, count, None).strips()
    assert [row for top, bottom in strips for row in range(top, bottom)] == list(range(height))
    assert all(top < bottom for top, bottom in strips) and len(strips) <= count


LAYERS = {
    "7×7 mirrored": lambda: nn.Conv2d(3, 5, 7, padding=3, padding_mode="reflect"),
    "3×3 with zeros": lambda: nn.Conv2d(3, 5, 3, padding=1),
    "no padding": lambda: nn.Conv2d(3, 5, (3, 2)),
    "stride 2": lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1),
    "4×4 stride 2": lambda: nn.Conv2d(3, 5, 4, stride=2, padding=1, bias=False),
    "rows unlike columns": lambda: nn.Conv2d(3, 5, (3, 5), (1, 2), (1, 3), (2, 1)),
    "edges repeated": lambda: nn.Conv2d(3, 5, 5, padding=2, padding_mode="replicate"),
    "dilation, groups": lambda: nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3),
    "up by 2": lambda: nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, output_padding=1),
    "4×4 up by 2": lambda: nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1, bias=False),
    "up by 3": lambda: nn.ConvTranspose2d(3, 6, 5, stride=3, dilation=2, groups=3),
    "up, rows unlike columns": lambda: nn.ConvTranspose2d(3, 5, (4, 3), (2, 3), (1, 0), (0, 1)),
    "nearest": lambda: nn.Upsample(scale_factor=3),
    "instance norm": lambda: nn.InstanceNorm2d(3),
    "another eps": lambda: nn.InstanceNorm2d(3, eps=0.5),
    "layer norm": lambda: LayerNorm2d(3),
    "batch norm": lambda: nn.BatchNorm2d(3),
    "dropout": lambda: nn.Dropout(),
    "in place": lambda: nn.ReLU(inplace=True),
    "to an image, row by row": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), ReflectConv2d(8, 3, 7)),
    "doubled in one": lambda: Decoder(nn.Upsample(scale_factor=2), ReflectConv2d(3, 5, 3)),
}


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=15)
@given(height=st.integers(7, 40), width=st.integers(7, 40), tile=st.integers(1, 45), seed=st.integers(0, 9))
def test_a_layer_makes_the_same_of_strips(layer, height, width, tile, seed):
    torch.manual_seed(seed)
    image = torch.randn(3, height, width)
    before = image.clone()
    as_if_whole(LAYERS[layer](), image, tile)
    assert layer == "in place" or torch.equal(image, before)
    in_strips(nn.Sequential(LAYERS[layer]().eval()), before, tile)
    assert layer != "in place" or not torch.equal(image, before)  # only the whole one overwrites its input


@pytest.mark.parametrize(
    "name, network",
    [
        ("winograd", lambda: ReflectConv2d(128, 128, 3)),
        ("convolve_padded", lambda: ReflectConv2d(128, 3, 7)),
        ("double", lambda: Decoder(nn.Upsample(scale_factor=2), ReflectConv2d(128, 3, 3))),
    ],
)
def test_strips_take_the_fast_ways_of_a_whole_image(name, network, monkeypatch):
    monkeypatch.setattr("convolutions.multiplies_slowly", lambda: False)
    calls, way = [], getattr(inference.tiles, name)
    monkeypatch.setattr(inference.tiles, name, lambda *given: calls.append(name) or way(*given))
    as_if_whole(network(), torch.randn(128, 48, 64), 32, atol=1e-3, rtol=1e-3)
    assert len(calls) == (1 if name == "double" else 3)


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), offset=st.sampled_from([0.0, 1000.0]))
def test_mean_and_variance_of_parts_merge_to_those_of_the_whole(sizes, offset):
    parts = [torch.randn(size, 3, dtype=torch.double) + offset for size in sizes]
    mean, variance = merge(
        torch.tensor(sizes),
        torch.stack([part.mean(0) for part in parts]),
        torch.stack([part.var(0, unbiased=False) for part in parts]),
    )
    whole = torch.cat(parts)
    torch.testing.assert_close(mean, whole.mean(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(variance, whole.var(0, unbiased=False), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gen_net", GENERATORS)
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("tile", [40, 16])  # in memory, on disk
def test_generators_translate_as_if_whole(gen_net, norm, tile):
    torch.manual_seed(0)
    generator = build(
        GENERATORS[gen_net],
        Namespace(ngf=4, n_residual_blocks=2, norm=norm, attention=False, spectral_norm=False),
    )
    image = torch.rand(3, 56, 72) * torch.linspace(0, 1, 72) * 2 - 1
    as_if_whole(generator.double(), image.double(), tile)


@pytest.mark.parametrize("mask", ["none", "given", "learned"])
@pytest.mark.parametrize("side", ["A", "B"])
def test_masks_are_those_of_the_whole(mask, side):
    torch.manual_seed(0)
    options = dict(
        gen_net="attention", channels_A=3, channels_B=3, ngf=4, n_residual_blocks=1, norm="instance", dropout=False
    )
    options |= dict(attention=False, spectral_norm=False, mask=mask, mask_threshold=100, mask_freeze_epoch=1)
    image = torch.rand(3, 40, 36) * 2 - 1
    translators = Translators(Namespace(**options))
    as_if_whole(SingleDirection(translators, side).double(), image.double(), 16)
    if mask != "none":
        assert translators.masks.mask(side, image[None].double()).shape == (1, 1, 40, 36)


def test_half_precision_loses_no_more_than_that_of_the_whole():
    torch.manual_seed(0)
    generator = GeneratorResNet(ngf=8, n_residual_blocks=1, attention=False, spectral_norm=False).eval()
    image = torch.rand(3, 48, 48) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        strips, whole = in_strips(generator, image, 16), generator(image[None])[0]
    assert strips.dtype == whole.dtype == torch.bfloat16
    exact = generator(image[None])[0]
    assert (strips - exact).abs().mean() < 1.5 * (whole - exact).abs().mean()


def test_half_precision_has_its_mean_and_variance_in_float32():
    image = (torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(0)) + 30).bfloat16()
    exact = nn.functional.instance_norm(image[None].float())[0]
    strips = in_strips(nn.Sequential(nn.InstanceNorm2d(3)), image, 16)
    torch.testing.assert_close(strips.float(), exact, rtol=0.01, atol=0.01)


def seeing_attention(channels):
    torch.manual_seed(0)
    attention = SelfAttention(channels).eval().requires_grad_(False)
    attention.gamma.fill_(1)
    return attention


def test_attention_looks_at_the_whole_image(monkeypatch):
    """Exactly, while it has few positions; else at a grid, which is nearer to it than each strip by itself."""
    attention = seeing_attention(8)
    image = torch.randn(8, 32, 32).cumsum(1).cumsum(2) / 32  # its strips differ
    as_if_whole(attention, image, 16)
    monkeypatch.setattr("inference.tiles.SEEN", 64)
    whole, strips = attention(image[None])[0], in_strips(nn.Sequential(attention), image, 16)
    alone = torch.cat([attention(image[None, :, top : top + 8])[0] for top in range(0, 32, 8)], dim=1)
    error, alone = (strips - whole).abs().mean(), (alone - whole).abs().mean()
    assert 0 < error < alone / 2


class Noting(SelfAttention):
    """Keeps the positions that it was given to look at."""

    def forward(self, x, seen=None):
        self.seen = seen
        return super().forward(x, seen)


advance.register(Noting, attend)


@pytest.mark.parametrize("tall", [True, False])
def test_the_grid_lies_in_the_middle_of_narrow_images_too(tall, monkeypatch):
    monkeypatch.setattr("inference.tiles.SEEN", 4)
    attention = Noting(8)
    image = torch.arange(300.0).expand(8, 2 if tall else 1, 300)
    in_strips(nn.Sequential(attention.eval()), image.mT if tall else image, 1 if tall else 9)
    rows = attention.seen[0, 0, :, 0] if tall else attention.seen[0, 0, 0]
    assert rows.tolist() == ([37, 112, 187, 262] if tall else list(range(300)))


@given(height=st.integers(1, 60), width=st.integers(1, 60), limit=st.integers(1, 5000))
def test_the_grid_is_as_fine_as_its_limit_allows(height, width, limit):
    def positions(step):
        return len(range(0, height, step)) * len(range(0, width, step))

    step = grid_step(height, width, limit)
    assert positions(step) <= limit and (step == 1 or positions(step - 1) > limit)


class Spy(nn.Identity):
    """Notes the sizes of what passes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(x.numel())
        return x


advance.register(Spy, across)


def test_a_layer_holds_no_more_than_a_tile_however_large_the_image():
    spy = Spy()
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8), spy, nn.Conv2d(8, 3, 3, padding=1))
    for height in (32, 36, 256):
        in_strips(network.eval(), torch.randn(3, height, 32), 16)
    two_more_rows = 2 * 32
    assert max(spy.sizes) == 8 * (16 * 16 + two_more_rows)


def test_each_convolution_before_a_norm_runs_once():
    """Without the file in between, each layer would compute all layers before it anew."""
    spies = [Spy() for _ in range(4)]
    blocks = [(spy, nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3)) for spy in spies]
    in_strips(nn.Sequential(*(layer for block in blocks for layer in block)).eval(), torch.randn(3, 16, 16), 8)
    assert all(sum(spy.sizes) == 3 * 16 * 16 for spy in spies)


class Added(nn.Module):
    """x + layers(x)"""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


@pytest.mark.parametrize("layers", [[Added(nn.Conv2d(8, 8, 1)) for _ in range(3)], [SelfAttention(8)]], ids=str)
def test_what_is_read_more_than_once_is_computed_once(layers):
    spy = Spy()
    in_strips(nn.Sequential(nn.Conv2d(3, 8, 1), spy, *layers).eval(), torch.randn(3, 16, 16), 8)
    assert sum(spy.sizes) == 8 * 16 * 16


def test_translations_hold_nothing_for_a_backward_pass():
    assert not translate_in_tiles(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.randn(3, 16, 16), 8, CPU).requires_grad


@pytest.mark.parametrize("count", [inference.activations.IN_MEMORY, inference.activations.IN_MEMORY + 1])
def test_what_is_kept_is_the_same_in_memory_and_on_disk(count, monkeypatch):
    if count <= inference.activations.IN_MEMORY:
        monkeypatch.setattr(inference.activations.tempfile, "TemporaryFile", None)
    else:
        monkeypatch.setattr(inference.activations, "InMemory", None)
    x = torch.randn(1, 3, 40, 5).bfloat16()
    seen = []
    copy = kept(Activation(40, 5, count, lambda top, bottom: x[:, :, top:bottom]), seen.append)
    assert torch.equal(torch.cat(seen, dim=2), x)
    copy.read(2, 7).zero_()  # the reader's own
    assert torch.equal(copy.read(0, 40), x) and torch.equal(copy.read(3, 4), x[:, :, 3:4])


class Failing(nn.Identity):
    def forward(self, x):
        raise RuntimeError("out of memory")


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(inference.activations.tempfile, "tempdir", str(tmp_path))
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1)).eval()
    image = torch.randn(3, 16, 16)
    monkeypatch.setattr(inference.activations, "IN_MEMORY", 1)
    before, attributes = network(image[None]), [set(vars(layer)) for layer in network]
    with pytest.raises(RuntimeError, match="out of memory"):
        in_strips(nn.Sequential(network, Failing()), image, 8)
    assert torch.equal(network(image[None]), before)
    assert [set(vars(layer)) for layer in network] == attributes
    assert not any(tmp_path.iterdir())


class Depends(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Reverses(nn.Module):
    def forward(self, x):
        return x.flip(2)


class Shrinks(nn.Module):
    def forward(self, x):
        return x[:, :, ::2]


class Measures(nn.Module):
    def forward(self, x):
        return x * x.shape[2]


class Narrows(nn.Module):
    def forward(self, x):
        return x[..., ::2]


class Centred(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.layer(input=x)


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = SelfAttention(3)

    def forward(self, x):
        return self.attention(x, seen=2 * x)


@pytest.mark.parametrize(
    "network",
    [
        Depends(),
        Reverses(),
        Shrinks(),
        Measures(),
        Narrows(),
        Centred(3, 3, 3, padding=1),
        Looks(),
        Added(nn.ReLU(inplace=True)),
        nn.AvgPool2d(3, 1, 1),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=1.5),
        nn.Upsample(scale_factor=(2, 2)),
        nn.Upsample(size=(32, 32)),
        nn.InstanceNorm2d(3, affine=True),
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 3, 3, padding="same"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_followed_is_refused_not_translated_wrongly(network):
    with pytest.raises(UserError, match="^--tile knows no way through .*without --tile$"):
        in_strips(nn.Sequential(network), torch.randn(3, 16, 16), 8)


class Functions(nn.Module):
    """What a generator of one's own may call in place of modules."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        first, second, third = self.layers
        x = torch.clamp(nn.functional.leaky_relu(second(nn.functional.relu(first(x))), 0.2), -0.5, 0.5)
        return torch.tanh(third(x).clamp(min=-2))


def test_functions_of_each_pixel_are_followed():
    network, image = Functions(), torch.randn(3, 16, 16)
    as_if_whole(network, image, 8)


def test_large_images_are_translated_in_strips(workplace, run, refused, monkeypatch):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    noise_image(7, 70, 100).save(workplace / "large.png")
    noise_image(8, 20, 30).save(workplace / "small.png")
    calls = []

    def counted(network, image, tile, device):
        calls.append(image.shape)
        return translate_in_tiles(network, image, tile, device)

    monkeypatch.setattr(inference.tiles, "translate_in_tiles", counted)
    test = ["test", "--dataset_name=tiny", "--n_cpu=0", "--amp=off"]
    for name in ("large", "small"):
        for direction in ("AtoB", "BtoA"):
            both = [*test, f"--input={name}.png", f"--direction={direction}"]
            assert run(*both, "--output=tiled", "--tile=40").code == 0
            assert run(*both, "--output=whole").code == 0
            tiled, whole = (np.asarray(Image.open(f"{way}/{name}.png")).astype(int) for way in ("tiled", "whole"))
            assert tiled.shape == whole.shape and np.abs(tiled - whole).max() <= 1
    assert calls == [(3, 72, 100)] * 2  # padded to a multiple of 4; the small one is not cut
    for tile in (30, 16):
        line = refused(*test, "--input=large.png", "--output=tiled", f"--tile={tile}")
        assert f"--tile must be divisible by 4 and at least 32, not {tile}" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_ends_the_run_with_one_line(workplace, run, refused, monkeypatch):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    noise_image(7, 70, 100).save(workplace / "large.png")
    monkeypatch.setattr(inference.activations, "IN_MEMORY", 1)
    full = open("/dev/full", "w+b")  # noqa: SIM115 (closed by what it is given to)
    monkeypatch.setattr(inference.activations.tempfile, "TemporaryFile", lambda: full)
    line = refused("test", "--dataset_name=tiny", "--n_cpu=0", "--input=large.png", "--output=tiled", "--tile=40")
    assert "No space left on device" in line and "TMPDIR" in line


def test_a_disk_that_is_full_is_told_of_when_a_strip_is_kept_however_small(monkeypatch):
    full = open("/dev/full", "w+b")  # noqa: SIM115 (closed by what it is given to)
    monkeypatch.setattr(inference.activations.tempfile, "TemporaryFile", lambda: full)
    store = inference.activations.OnDisk(torch.zeros(1, 2, 3), height=1)
    with pytest.raises(UserError, match="No space left on device"):
        store.append(torch.zeros(1, 2, 3))
    full.raw.close()  # what it could not write is not tried again


def test_an_image_that_cannot_be_written_ends_the_run(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    (workplace / "out").mkdir()
    (workplace / "out" / "1.png").mkdir()
    flags = ["--dataset_name=tiny", "--input=datasets/tiny/testA", "--output=out", "--n_cpu=0"]
    for more in ([], ["--overwrite"]):  # said before anything is translated
        assert "out/1.png is in the way; remove it" in refused("test", *flags, *more)
    (workplace / "file").write_text("mine")
    flags[2] = "--output=file/deep"
    assert "file/deep/0.png cannot be written: file is in the way" in refused("test", *flags)
    assert (workplace / "file").read_text() == "mine"


def test_translations_do_not_depend_on_workers_and_batches(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    flags = ["--dataset_name=tiny", "--direction=AtoB"]
    assert run("test", *flags, "--n_cpu=2", "--batch_size=1").code == 0
    assert run("test", *flags, "--n_cpu=0", "--batch_size=4", "--results_dir=again").code == 0
    for path in (workplace / "results/tiny/epoch_1/AtoB").iterdir():
        same = workplace / "again/tiny/epoch_1/AtoB" / path.name
        one, other = (np.asarray(Image.open(p)).astype(int) for p in (path, same))
        assert np.abs(one - other).max() <= 1


class UNet(nn.Module):
    """Down by a convolution of stride 2, up again, and on beside what was there before."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.Upsample(scale_factor=2)
        self.norm, self.out = nn.InstanceNorm2d(8), nn.Conv2d(11, 3, 3, padding=1)

    def forward(self, x):
        return self.out(torch.cat([x, self.up(self.norm(self.down(x)))], dim=1))


def test_channels_may_be_joined_as_in_a_unet():
    torch.manual_seed(0)
    as_if_whole(UNet().double(), torch.rand(3, 36, 20, dtype=torch.double), 8)


def test_a_layer_may_be_given_its_input_by_name():
    as_if_whole(Named(), torch.rand(3, 16, 12), 8)


def test_rows_are_not_joined():
    class Twice(nn.Module):
        def forward(self, x):
            return torch.cat([x, x], dim=2)

    with pytest.raises(UserError, match="knows no way through cat"):
        translate_in_tiles(Twice(), torch.rand(3, 16, 16), 8, CPU)
