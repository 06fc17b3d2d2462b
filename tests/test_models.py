"""Shapes, initialisation, spectral norm against an SVD, attention against the explicit softmax."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

import attention
from convolutions import ReflectConv2d, pad
from critics import CriticAttention
from layers import LayerNorm2d, norm_layer, standardize
from models import GeneratorResNet, SelfAttention, upsample_resize, weights_init_normal
from registry import NORMS, Entry
from spectral_norm import add_spectral_norm, fold_spectral_norm, normalise


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]


@settings(max_examples=25)
@given(height=st.integers(2, 12), width=st.integers(2, 12), batch=st.integers(1, 3), channels=st.sampled_from([1, 3]))
def test_any_size_divisible_by_four_passes_both_networks(height, width, batch, channels):
    images = torch.rand(batch, channels, 4 * height, 4 * width) * 2 - 1
    translated = GeneratorResNet(channels, ngf=4, n_residual_blocks=1)(images)
    assert translated.shape == images.shape
    assert translated.abs().max() <= 1
    scores = CriticAttention(channels, ndf=4)(images)
    assert scores.shape == (batch, 1, 4 * height // 8, 4 * width // 8)


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("spectral_norm", [True, False])
def test_switches_put_the_blocks_where_they_say(attention, spectral_norm):
    switches = dict(attention=attention, spectral_norm=spectral_norm)
    for network, expected in (
        (GeneratorResNet(ngf=8, n_residual_blocks=2, **switches), 1 + 3 * attention),  # those without a norm behind
        (CriticAttention(ndf=8, **switches), 9 + 3 * attention),
    ):
        assert any(isinstance(module, SelfAttention) for module in network.modules()) == attention
        normalised = [parametrize.is_parametrized(conv, "weight") for conv in convolutions(network)]
        assert sum(normalised) == (expected if spectral_norm else 0)


def test_layers_of_the_default_networks():
    generator, critic = GeneratorResNet(), CriticAttention()
    assert len(convolutions(generator)) == 1 + 2 + 2 * 9 + 3 + 2 + 1
    assert sum(isinstance(module, nn.InstanceNorm2d) for module in generator.modules()) == 1 + 2 + 2 * 9
    assert sum(isinstance(module, LayerNorm2d) for module in generator.modules()) == 2
    assert len(convolutions(critic)) == 3 + 2 * 2 + 3 + 2  # the 70×70 PatchGAN has 5
    assert sum(isinstance(module, nn.Dropout) for module in critic.modules()) == 2
    assert convolutions(critic)[-1].out_channels == 1
    assert generator.attention.query.out_channels == generator.attention.key.out_channels == 256 // 8
    assert generator.attention.value.out_channels == 256


@pytest.mark.parametrize("normalised_first", [True, False])
def test_initial_weights_are_normal_with_deviation_002_before_or_through_the_norm(normalised_first):
    conv = nn.Conv2d(64, 128, 3)
    if normalised_first:
        add_spectral_norm(conv)
    conv.apply(weights_init_normal)
    weight = conv.parametrizations.weight.original if normalised_first else conv.weight
    assert weight.mean().abs() < 5 * 0.02 / weight.numel() ** 0.5
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert conv.bias.abs().max() == 0


@pytest.mark.parametrize(
    "build",
    [partial(GeneratorResNet, ngf=8, n_residual_blocks=1), partial(CriticAttention, ndf=8)],
    ids=["generator", "critic"],
)
def test_spectral_norm_holds_the_largest_singular_value_at_one(build):
    torch.manual_seed(0)  # how fast power iterations converge depends on the weights
    network = build()
    normalised = [conv for conv in convolutions(network) if parametrize.is_parametrized(conv, "weight")]
    for _ in range(500):  # one power iteration each, as in training
        for conv in normalised:
            _ = conv.weight
    network.eval()
    for conv in normalised:
        largest = torch.linalg.svdvals(conv.weight.detach().double().flatten(1))[0].item()
        assert largest == pytest.approx(1, abs=1e-3)
        raw = torch.linalg.svdvals(conv.parametrizations.weight.original.detach().flatten(1))[0].item()
        assert abs(raw - 1) > 1e-2  # it is the norm that does it, not the initialisation


@pytest.mark.parametrize("convolution", [nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(3, 8, 5), nn.Conv2d(6, 1, 1)])
def test_spectral_norm_is_torchs(convolution):
    """Values, gradients, singular vectors, names and random draws; and its gradient can be taken twice."""
    ours, theirs = (copy.deepcopy(convolution).double() for _ in range(2))
    torch.manual_seed(0)
    normalise(ours)
    torch.manual_seed(0)
    spectral_norm(theirs)
    for _ in range(3):
        ours.zero_grad()
        theirs.zero_grad()
        weight, other = ours.weight, theirs.weight
        torch.testing.assert_close(weight, other)
        weight.pow(3).sum().backward()
        other.pow(3).sum().backward()
        torch.testing.assert_close(
            ours.parametrizations.weight.original.grad, theirs.parametrizations.weight.original.grad
        )
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    ours.zero_grad()
    weight = ours.weight
    for _ in range(2):
        (weight**2).sum().backward()
    once, original = ours.eval().weight, ours.parametrizations.weight.original
    torch.testing.assert_close(original.grad, 2 * torch.autograd.grad((once**2).sum(), original)[0])


def test_what_a_normalised_weight_needs_for_backward_is_kept_or_missed():
    """A power iteration after the use changes no gradient; a change of the weight itself is an error."""
    convolution = nn.Conv2d(3, 8, 3).double()
    normalise(convolution)
    original = convolution.parametrizations.weight.original
    weight = convolution.eval().weight
    (expected,) = torch.autograd.grad((weight**3).sum(), original, retain_graph=True)
    convolution.train()
    for _ in range(3):
        _ = convolution.weight
    assert torch.equal(torch.autograd.grad((weight**3).sum(), original)[0], expected)
    weight = convolution.weight
    with torch.no_grad():
        original.mul_(2)
    with pytest.raises(RuntimeError, match="in place"):
        weight.sum().backward()


LAYER_NORMS = {"cpu": LayerNorm2d(6), "gpu": partial(standardize, eps=LayerNorm2d.eps)}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", LAYER_NORMS.values(), ids=LAYER_NORMS)
def test_layer_norm_takes_all_of_an_image_together(norm, memory_format):
    x = torch.randn(2, 6, 5, 7).mul(3).add(1).to(memory_format=memory_format)
    torch.testing.assert_close(norm(x), nn.functional.layer_norm(x, x.shape[1:]))
    one_plane = nn.InstanceNorm2d(1)(x.flatten(1, 2).unsqueeze(1)).view_as(x)
    torch.testing.assert_close(norm(x), one_plane)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", LAYER_NORMS.values(), ids=LAYER_NORMS)
def test_layer_norm_is_twice_differentiable(norm, memory_format):
    x = torch.randn(2, 6, 2, 3, dtype=torch.double).to(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradcheck(norm, x) and torch.autograd.gradgradcheck(norm, x)


@pytest.mark.parametrize("norm", LAYER_NORMS.values(), ids=LAYER_NORMS)
def test_layer_norm_of_half_precision_computes_in_float32(norm):
    """A sum of these in bfloat16 would stop growing at 256 times its terms."""
    x = torch.randn(1, 6, 64, 64).add(10).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normed = norm(x)
    assert normed.dtype == torch.bfloat16
    torch.testing.assert_close(normed, norm(x.float()).bfloat16())


@pytest.mark.parametrize("size", [3, 7])
def test_padding_by_reflection_is_torchs_and_keeps_half_precision(size):
    """Torch's own would be float32 under autocast on a CPU, and half again in the convolution: two copies."""
    ours = ReflectConv2d(4, 6, size)
    torchs = nn.Conv2d(4, 6, size, padding=size // 2, padding_mode="reflect")
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 16, 12)
    assert torch.equal(ours(x), torchs(x))
    half = x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(half), torchs(half))
        assert pad(half, 4 * [size // 2], "reflect").dtype == torch.bfloat16


@pytest.mark.parametrize("size", [3, 7])
def test_a_convolution_looks_at_its_weight_once(size):
    """Each look at a normalised one is a power iteration."""
    convolution, looks = ReflectConv2d(4, 6, size), []
    nn.utils.parametrizations.spectral_norm(convolution)
    convolution.parametrizations.weight[0].register_forward_hook(lambda *inputs: looks.append(inputs))
    convolution(torch.randn(1, 4, 16, 12))
    assert len(looks) == 1


def test_a_flat_channel_stays_flat_on_the_way_up():
    """What an instance norm would make of it: as much contrast as of any other."""
    x = torch.randn(1, 8, 16, 16)
    x[:, 3] = 0.2 + 1e-2 * torch.randn(16, 16)
    norm = upsample_resize("instance", 8, 8)[2]
    assert norm(x)[:, 3].std() < 0.02 and nn.InstanceNorm2d(8)(x)[:, 3].std() > 0.9


def test_a_norm_of_ones_own_is_one(monkeypatch):
    class Own(nn.GroupNorm):
        def __init__(self, channels):
            super().__init__(1, channels)

    monkeypatch.setattr("layers.Own", Own, raising=False)
    layers = nn.Conv2d(3, 8, 3), Own(8)
    assert parametrize.is_parametrized(add_spectral_norm(nn.Sequential(*layers))[0])
    monkeypatch.setitem(NORMS, "own", Entry("layers:Own"))
    layers = nn.Conv2d(3, 8, 3), Own(8)
    assert not parametrize.is_parametrized(add_spectral_norm(nn.Sequential(*layers))[0])


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(8, eps=1e-12), nn.BatchNorm2d(8, eps=1e-12)])
@pytest.mark.parametrize("convolution", [nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(3, 8, 3)])
def test_a_norm_undoes_a_spectral_norm_before_it_which_is_therefore_left_out(convolution, norm):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 9, dtype=torch.double)
    plain = nn.Sequential(convolution, norm).double()
    assert not parametrize.is_parametrized(add_spectral_norm(plain)[0])
    expected = plain(x)
    upstream = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, plain[0].weight, upstream)
    add_spectral_norm(plain[0]).eval()  # alone it does not see what follows
    original = plain[0].parametrizations.weight.original
    normalised = plain(x)
    torch.testing.assert_close(normalised, expected)
    torch.testing.assert_close(torch.autograd.grad(normalised, original, upstream)[0], gradient)
    fold_spectral_norm(plain[0]).train()


def test_a_normalised_weight_that_was_made_for_inference():
    with torch.inference_mode():
        generator = GeneratorResNet(ngf=4, n_residual_blocks=1)
        assert fold_spectral_norm(generator)(torch.rand(1, 3, 16, 16)).isfinite().all()


def test_folding_the_spectral_norm_changes_nothing():
    generator, images = GeneratorResNet(ngf=8, n_residual_blocks=1).eval(), torch.rand(2, 3, 16, 16)
    expected = generator(images)
    fold_spectral_norm(generator)
    assert not any(parametrize.is_parametrized(conv) for conv in convolutions(generator))
    assert torch.equal(generator(images), expected)


def parts_of_graph(node):
    """The names of all that stands behind a gradient function."""
    found, left = set(), [node]
    while left:
        node = left.pop()
        if node and node not in found:
            found.add(node)
            left += [before for before, _ in node.next_functions]
    return {node.name() for node in found}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", ["instance", "layer", "batch"])
def test_nothing_is_written_into_a_view(norm, memory_format):
    """Autograd would copy the gradient of the whole, twice."""
    generator = GeneratorResNet(ngf=4, n_residual_blocks=1, norm=norm).to(memory_format=memory_format)
    parts = parts_of_graph(generator(torch.rand(2, 3, 16, 16).to(memory_format=memory_format)).grad_fn)
    assert "ReluBackward0" in parts and not parts & {"CopySlices", "AsStridedBackward0"}


def explicit_attention(module, x):
    """The textbook: an HW×HW softmax written out."""
    q, k, v = module.query(x).flatten(2), module.key(x).flatten(2), module.value(x).flatten(2)  # N×K×HW
    weights = torch.softmax(q.transpose(1, 2) @ k, dim=-1)  # N×HW×HW, a row for each query
    return x + module.gamma * (v @ weights.transpose(1, 2)).reshape(x.shape)


@pytest.mark.parametrize("way", [attention.attend, attention.attend_by_kernels])
@pytest.mark.parametrize("many", [0, 100])
@pytest.mark.parametrize("channels", [4, 16, 64])
def test_attention_equals_the_explicit_softmax_with_its_gradients(channels, many, way, monkeypatch):
    monkeypatch.setattr("models.attend", way)
    monkeypatch.setattr(attention, "MANY", many)  # the 35 positions here are many, or few
    monkeypatch.setattr(attention, "STRIP", 8)
    torch.manual_seed(0)
    layer = SelfAttention(channels).double()
    x = torch.randn(2, channels, 5, 7, dtype=torch.double, requires_grad=True)
    assert torch.equal(layer(x), x)  # gamma starts at 0
    nn.init.constant_(layer.gamma, 0.7)
    inputs = (x, *layer.parameters())
    ours, theirs = layer(x), explicit_attention(layer, x)
    assert not torch.allclose(ours, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("many", [0, 100])
def test_attention_in_strips_is_the_whole_and_has_a_second_derivative(many, monkeypatch):
    monkeypatch.setattr(attention, "MANY", many)
    monkeypatch.setattr(attention, "STRIP", 4)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, *shape, dtype=torch.double, requires_grad=True) for shape in ((6, 2), (5, 2), (5, 3)))
    torch.testing.assert_close(attention.attend(q, k, v), attention.attend_in_full(q, k, v), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(attention.attend, (q, k, v))
    assert torch.autograd.gradgradcheck(attention.attend, (q, k, v))


def test_the_weights_of_attention_are_not_rounded_before_the_softmax():
    """Scores of a size of 20 would lose a tenth of what they stand for in bf16's 8 bits."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 64, size).mul(3).bfloat16() for size in (8, 8, 16))
    exact = attention.attend_in_full(q.double(), k.double(), v.double())
    with torch.autocast("cpu", torch.bfloat16):
        error = (attention.attend(q, k, v).double() - exact).abs().max()
    in_bf16 = (q @ k.mT).softmax(2) @ v
    assert 3 * error < (in_bf16.double() - exact).abs().max()


def test_an_entry_of_a_norm_may_have_keywords(monkeypatch):
    monkeypatch.setitem(NORMS, "fast", Entry("torch.nn:BatchNorm2d", dict(momentum=0.5)))
    assert norm_layer("fast", 4).momentum == 0.5
