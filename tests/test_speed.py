"""What makes training fast or small changes nothing but rounding: every recipe against the textbook's step."""

import copy
import io
import subprocess
import sys
import weakref

import pytest
import torch
from conftest import ROOT
from textbook import Textbook
from torch import nn
from torch.nn.utils import parametrize

import convolutions
import trainer
from convolutions import (
    Decoder,
    ReflectConv2d,
    RowByRow,
    Winograd,
    convolve_doubled,
    rows_pay,
    transforms,
    winograd_pays,
)
from datasets import epoch_batches
from layers import InstanceNorm2d, LayerNorm2d
from losses import both_directions
from models import SelfAttention
from options import parse_training
from readers.domains import PICTURES
from registry import RECIPES
from reporting.loss_log import LossLog, NotFinite
from runtime.device import (
    autocast,
    memory_format,
    pick_amp,
    pick_translation_amp,
    set_translation_precision,
    swapped,
    tf32_for,
)
from spectral_norm import SpectralNorm
from trainer import CycleGAN

SMALL = ["--ngf=4", "--ndf=4", "--n_residual_blocks=1", "--img_height=32", "--img_width=32", "--batch_size=2"]
CPU = torch.device("cpu")


def build(kind, *flags, device=CPU):
    """A model of class ``kind`` for ``flags``; equal flags give equal weights."""
    torch.manual_seed(0)
    model = kind(parse_training([*SMALL, "--penalty_interval=1", *flags])[0], device)
    for network in networks(model):
        for module in network.modules():
            if isinstance(module, SelfAttention):
                nn.init.constant_(module.gamma, 0.5)  # at 0, where it starts, attention would do nothing
    return model


def networks(model):
    return model.translators, model.critic_objective


def images(seed, dtype=torch.float, device=CPU):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.double) * 2 - 1).to(device, dtype)


def batch(dtype=torch.float, device=CPU):
    return {"A": images(0, dtype, device), "B": images(1, dtype, device)}


def train(model, steps=3, device=CPU):
    """Train, and return what the log was told of each step."""
    torch.manual_seed(1)
    told = []
    for step in range(1, steps + 1):
        one = {"A": images(2 * step, device=device), "B": images(2 * step + 1, device=device)}
        told.append({name: term for update in model.updates(step) for name, term in update(one).items()})
    return told


def without_chance(model, dtype):
    """No dropout and no power iterations: the textbook makes more of them, since it calls the networks more often."""
    for network in networks(model):
        network.to(dtype)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if parametrize.is_parametrized(module, "weight"):
                module.parametrizations.eval()
    return model


def same_direction(ours, theirs, tolerance):
    """Whether two lists of gradients differ by less than ``tolerance`` of their length."""
    ours, theirs = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (ours, theirs))
    assert theirs.norm() > 0
    return (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(("dtype", "tolerance", "least"), [(torch.double, 1e-9, 5), (torch.float, 1e-4, 3)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_and_gradients_are_the_textbooks(recipe, dtype, tolerance, least):
    """Of five pairs of images. Rounding can put a value on the other side of a kink (of a ReLU, of the L1 distance),
    which leaves the loss as it is and shows in the gradient: in float32 most of the pairs must agree."""
    ours, theirs = (without_chance(build(kind, f"--recipe={recipe}"), dtype) for kind in (CycleGAN, Textbook))
    pairs = ({"A": images(2 * i, dtype), "B": images(2 * i + 1, dtype)} for i in range(5))
    assert sum(gradients_agree(ours, theirs, real, tolerance) for real in pairs) >= least


def gradients_agree(ours, theirs, real, tolerance):
    """Whether two models' gradients are the same within ``tolerance``; asserts that their losses are."""
    directions = both_directions(real["A"], real["B"])
    with parametrize.cached():
        to_B, to_A = (ours.generator_objective(*direction) for direction in directions)
    ours_total = to_B.total + to_A.total
    total, terms, fake_A, fake_B = theirs.generator_loss(real["A"], real["B"])
    means = {name: (term + to_A.terms[name]) / 2 for name, term in to_B.terms.items()}
    for name, term in {"G": ours_total, **means}.items():
        torch.testing.assert_close(term, terms[name], rtol=tolerance, atol=0)
    torch.testing.assert_close((to_A.fake, to_B.fake), (fake_A.detach(), fake_B.detach()))
    gradients = [
        torch.autograd.grad(loss, list(model.translators.parameters()))
        for loss, model in ((ours_total, ours), (total, theirs))
    ]
    agree = [same_direction(*gradients, tolerance)]

    torch.manual_seed(2)  # the penalty's points
    losses = ours.critic_objective(real["A"], fake_A.detach(), real["B"], fake_B.detach())
    torch.manual_seed(2)
    loss_A, loss_B = (
        theirs.critic_loss(critic, real[side], fake.detach())
        for critic, side, fake in ((theirs.D_A, "A", fake_A), (theirs.D_B, "B", fake_B))
    )
    torch.testing.assert_close(losses.total, loss_A + loss_B, rtol=tolerance, atol=0)
    for critic in "D_A", "D_B":
        loss = loss_A if critic == "D_A" else loss_B
        gradients = [
            torch.autograd.grad(total, list(getattr(model.critic_objective, critic).parameters()), retain_graph=True)
            for total, model in ((losses.total, ours), (loss, theirs))
        ]
        agree.append(same_direction(*gradients, tolerance))
    return all(agree)


@pytest.mark.parametrize("flags", [(), ("--recipe=classic", "--dropout"), ("--mask=learned",), ("--amp=bf16",)])
def test_checkpointing_activations_is_exact(flags):
    plain, checkpointed = (build(CycleGAN, *flags, *more) for more in ((), ("--checkpoint_activations",)))
    held = []
    for model in (plain, checkpointed):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: (kept.update({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}), x)[1],
            lambda x: x,
        ):
            loss = model.generator_objective("A", *batch().values()).total
        held.append(sum(kept.values()))
        del loss
    assert held[1] < 0.7 * held[0]
    assert all(map(same, train(plain), train(checkpointed)))
    for network, other in zip(networks(plain), networks(checkpointed), strict=True):
        assert same(network.state_dict(), other.state_dict())


class Kept:
    """What autograd keeps for a backward pass."""

    def __init__(self, x):
        self.x = x


def test_what_one_direction_keeps_is_gone_when_the_other_begins():
    model, kept, counts = build(CycleGAN), weakref.WeakSet(), []
    forward = model.generator_objective.forward

    def pack(x):
        kept.add(one := Kept(x))
        return one

    def counted(*direction):
        counts.append(len(kept))
        losses = forward(*direction)
        counts.append(len(kept))
        return losses

    model.generator_objective.forward = counted
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.x):
        model.update_G(batch())
    before_A, after_A, before_B, after_B = counts
    assert before_A == before_B == 0 < after_A == after_B


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- mixed precision ----


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_leaves_weights_losses_and_history_in_float32(recipe, amp):
    exact, mixed = build(CycleGAN, f"--recipe={recipe}"), build(CycleGAN, f"--recipe={recipe}", f"--amp={amp}")
    seen = set()
    for network in networks(mixed):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    (expected,), (told,) = train(exact, steps=1), train(mixed, steps=1)
    assert {"bf16": torch.bfloat16, "fp16": torch.float16}[amp] in seen
    assert all(term.dtype == torch.float for term in told.values())
    for name in ("cycle", "adversarial", "score real"):
        assert told[name].item() == pytest.approx(expected[name].item(), rel=0.05, abs=0.15)
    assert all(image.dtype == torch.float for image in mixed.buffer_A.images)
    for network in networks(mixed):
        assert all(value.dtype in (torch.float, torch.long) for value in (*network.parameters(), *network.buffers()))


def test_autocast_is_off_in_power_iterations(monkeypatch):
    """In both updates, where the critics' step translates, and where a model in training is measured."""
    seen, plain = [], SpectralNorm.largest

    def largest(self, matrix):
        seen.append(torch.is_autocast_enabled("cpu"))
        return plain(self, matrix)

    model = build(CycleGAN, "--critic_first", "--amp=bf16")
    monkeypatch.setattr(SpectralNorm, "largest", largest)
    train(model, steps=1)
    trained = len(seen)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model.average.module.cycle("A", torch.zeros(1, 3, 16, 16))
    assert 0 < trained < len(seen) and not any(seen)


def test_the_penalty_is_computed_in_float32_under_autocast():
    model = build(CycleGAN)
    real = [images(seed) for seed in range(4)]
    torch.manual_seed(0)
    expected = model.critic_objective.eval()(*real)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.critic_objective(*real)
    assert torch.equal(mixed.terms["penalty"], expected.terms["penalty"]) and expected.terms["penalty"] > 0
    assert not torch.equal(mixed.scores["score real"], expected.scores["score real"])


def test_an_overflow_in_fp16_skips_the_step_and_lowers_the_scale():
    model = build(CycleGAN, "--amp=fp16")
    model.scaler_G = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [p.clone() for p in model.translators.parameters()]
    (told,) = train(model, steps=1)
    assert all(map(torch.equal, before, model.translators.parameters()))
    assert model.scaler_G.get_scale() == 2.0**39
    assert told["gradient of G_AB"] == 0 and told["gradient of D_A"] > 0


def test_learned_masks_are_watched_as_long_as_they_learn():
    model = build(CycleGAN, "--recipe=lsgan", "--mask=learned", "--mask_freeze_epoch=1")
    (told,) = train(model, steps=1)
    assert told["gradient of masks"] > 0
    model.set_schedule(1)
    (told,) = train(model, steps=1)
    assert "gradient of masks" not in told and told["gradient of G_AB"] > 0


def test_what_no_scale_can_mend_is_reported_in_fp16_too():
    model = build(CycleGAN, "--amp=fp16")
    model.scaler_G = torch.amp.GradScaler("cpu", init_scale=1.0)
    model.translators.G_AB.encoder[0].weight.register_hook(lambda gradient: gradient * float("nan"))
    log = LossLog()
    for terms in train(model, steps=1):
        log.add(1, terms)
    with pytest.raises(NotFinite, match="gradient of G_AB"):
        log.read()


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, "off"),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, "off"),  # an Intel, slower than in float32
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": True, "sse4a": True}, "bf16"),  # an AMD
        ({"avx2": True, "sse4a": True}, "off"),
        ({"neon": True, "bf16": True}, "off"),  # an ARM processor, where nothing has been measured
    ],
)
def test_a_processor_computes_in_bf16_where_it_has_instructions_for_it(monkeypatch, instructions, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert pick_amp("auto", CPU) == expected
    assert CycleGAN(parse_training(SMALL)[0], CPU).amp == expected
    assert [pick_amp(amp, CPU) for amp in ("off", "bf16", "fp16")] == ["off", "bf16", "fp16"]
    assert [pick_translation_amp("trained", amp, CPU, {}) for amp in ("auto", "bf16")] == [expected] * 2
    assert pick_translation_amp("trained", "fp16", CPU, {}) == "off"
    assert pick_translation_amp("bf16", "off", CPU, {}) == "bf16"
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pick_amp("auto", CPU) == "off"


# ---- less work ----


@pytest.mark.parametrize("size", [(1, 2), (5, 4), (8, 7)])
@pytest.mark.parametrize("biased", [True, False])
def test_an_upsampling_and_the_convolution_behind_it_are_exactly_one(size, biased):
    """In float64, with all gradients, those of the gradients too."""
    torch.manual_seed(0)
    shapes = (2, 3, *size), (5, 3, 3, 3), *([(5,)] if biased else [])
    inputs = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]

    def plain(x, weight, bias=None):
        doubled = nn.functional.interpolate(x, scale_factor=2)
        return nn.functional.conv2d(nn.functional.pad(doubled, (1, 1, 1, 1), mode="reflect"), weight, bias)

    def folded(x, weight, bias=None):
        return convolve_doubled(x, weight, bias)

    torch.testing.assert_close(folded(*inputs), plain(*inputs), rtol=0, atol=1e-12)
    found = []
    for function in (plain, folded):
        gradients = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
        found.append((*gradients, *torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs)))
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Upsample(scale_factor=4), ReflectConv2d(2, 3, 3)),
        (nn.Upsample(scale_factor=2), ReflectConv2d(2, 3, 5)),
        (nn.Upsample(scale_factor=2), nn.Conv2d(2, 3, 3, padding=1)),
        (nn.Upsample(scale_factor=2), nn.ReLU()),
        (ReflectConv2d(2, 3, 3), nn.Upsample(scale_factor=2)),
    ],
)
def test_decoders_leave_other_layers_as_they_are(layers):
    decoder, x = Decoder(*layers), torch.randn(1, 2, 8, 8)
    assert torch.equal(decoder(x), nn.Sequential(*layers)(x))


def test_decoders_fold_wide_layers_in_bf16_on_a_cpu_and_all_in_float32(monkeypatch):
    decoder = build(CycleGAN, "--ngf=32", "--no_spectral_norm").translators.G_AB.decoder
    x, calls = torch.randn(1, 128, 8, 8), []

    def counted(x, weight, bias):
        calls.append(x.shape[1])
        return convolve_doubled(x, weight, bias)

    monkeypatch.setattr(convolutions, "convolve_doubled", counted)
    plain = nn.Sequential.forward(decoder, x)
    assert not calls
    torch.testing.assert_close(decoder(x), plain, rtol=0, atol=1e-5)
    assert calls == [128, 64]
    with torch.autocast("cpu", torch.bfloat16):
        folded, unfolded = decoder(x), nn.Sequential.forward(decoder, x)
    assert calls == [128, 64, 128]  # and not the one behind it, of 64
    with torch.autocast("cpu", torch.float16):
        decoder(x)
    assert calls == [128, 64, 128]
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolutions.folding_pays(x.to("meta"))
    error = (folded - plain).abs().mean()
    assert 0 < error < 1.5 * (unfolded - plain).abs().mean()
    decoder[0] = nn.Upsample(scale_factor=2, mode="bilinear")
    with torch.autocast("cpu", torch.bfloat16):
        decoder(x)
    assert calls == [128, 64, 128]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("filters", "size"), [(3, 7), (1, 3), (4, 5)])
def test_a_convolution_row_by_row_is_torchs(filters, size, layout):
    """In float64, with all gradients and those of the gradients."""
    torch.manual_seed(0)
    x, weight = (
        torch.randn(shape, dtype=torch.double).contiguous(memory_format=layout).requires_grad_()
        for shape in ((2, 5, 9, 11), (filters, 5, size, size))
    )
    inputs = x, weight, torch.randn(filters, dtype=torch.double, requires_grad=True)
    found = []
    for function in (nn.functional.conv2d, RowByRow.apply):
        result = function(*inputs)
        gradients = torch.autograd.grad(result.sin().sum(), inputs, create_graph=True)
        found.append((result, *gradients, *torch.autograd.grad(sum(g.sin().sum() for g in gradients), inputs)))
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)
    weight.requires_grad_(False)
    RowByRow.apply(*inputs).sum().backward()
    assert weight.grad is None and x.grad is not None


def test_convolutions_to_an_image_in_float32_on_a_cpu_go_row_by_row():
    torch.manual_seed(0)
    x, last = torch.randn(2, 8, 16, 12), convolutions.ReflectConv2d(8, 3, 7)
    with torch.no_grad():
        expected = nn.functional.conv2d(convolutions.pad(x, 4 * [3], "reflect"), last.weight, last.bias)
    result = last(x)
    assert result.grad_fn.name() == "RowByRowBackward"
    assert (result - expected).abs().max() < 1e-5 * expected.std()
    assert rows_pay(x, convolutions.ReflectConv2d(8, 4, 5).weight)
    assert not rows_pay(x.double(), last.weight) and not rows_pay(x.to("meta"), last.weight)
    assert not rows_pay(x, convolutions.ReflectConv2d(8, 5, 7).weight)
    assert not rows_pay(x, convolutions.ReflectConv2d(8, 3, 3).weight)
    assert not rows_pay(x[:, :7], convolutions.ReflectConv2d(7, 3, 7).weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not rows_pay(x, last.weight)
    program = torch.export.export(last, (x,), strict=False)
    torch.testing.assert_close(program.module()(x), expected)
    assert torch.ops.aten.conv2d.default in {node.target for node in program.graph.nodes}


@pytest.mark.parametrize("strip", [1, 2**10, 2**19])
@pytest.mark.parametrize(("channels", "filters"), [(5, 64), (64, 3)])
@pytest.mark.parametrize(
    ("size", "stride", "padding", "transposed", "output_padding"),
    [(3, 1, 0, False, 0), (7, 1, 3, False, 0), (4, 2, 1, False, 0), (3, 2, 1, True, 1), (4, 2, 3, True, 0)],
)
def test_a_convolution_with_gradients_by_patches_is_torchs(
    size, stride, padding, transposed, output_padding, channels, filters, strip, monkeypatch
):
    """In float64, with all gradients and those of the gradients, whatever strips of patches they are computed in."""
    monkeypatch.setattr(convolutions, "STRIP", strip)
    monkeypatch.setattr(convolutions, "eager_float32_on_a_cpu", lambda x: True)
    torch.manual_seed(0)
    more = {"output_padding": output_padding} if transposed else {}
    kind, torchs = (
        (convolutions.ConvTranspose2d, nn.ConvTranspose2d) if transposed else (convolutions.Conv2d, nn.Conv2d)
    )
    ours, plain = (layer(channels, filters, size, stride, padding, **more).double() for layer in (kind, torchs))
    plain.load_state_dict(ours.state_dict())
    x, found = torch.randn(2, channels, 9, 12, dtype=torch.double, requires_grad=True), []
    for layer, avx2 in ((plain, False), (ours, True)):
        monkeypatch.setattr(convolutions, "has_avx2_alone", lambda avx2=avx2: avx2)
        inputs, result = (x, *layer.parameters()), layer(x)
        gradients = torch.autograd.grad(result.sin().sum(), inputs, create_graph=True)
        found.append((result, *gradients, *torch.autograd.grad(sum(g.sin().sum() for g in gradients), inputs)))
    assert result.grad_fn.name() == "ByPatchesBackward"
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-9)


def test_what_needs_no_gradient_costs_none(monkeypatch):
    """As the weights of critics in a generator's step, or the images that a network begins with."""
    monkeypatch.setattr(convolutions, "has_avx2_alone", lambda: True)
    asked, plain = [], torch.ops.aten.convolution_backward

    def backward(*arguments):
        asked.append(list(arguments[-1]))
        return plain(*arguments)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", backward)
    x, layer = torch.randn(1, 64, 8, 8), convolutions.Conv2d(64, 8, 3, padding=1)
    layer(x).sum().backward()
    assert x.grad is None and asked == [[False, False, False]]  # the rest by patches
    monkeypatch.setattr(convolutions, "weight_gradient", None)
    layer.requires_grad_(False)(x.requires_grad_()).sum().backward()
    assert x.grad is not None and asked[1:] == [[True, False, False]]


@pytest.mark.parametrize("recipe", ["attention", "classic"])
def test_wide_generators_have_the_same_gradients_on_a_cpu_with_avx2(recipe, monkeypatch):
    flags = f"--recipe={recipe}", "--ngf=32", "--n_residual_blocks=1"
    generator = build(CycleGAN, *flags).translators.G_AB.double().eval()  # no more power iterations
    image, found = images(0, torch.double), []
    monkeypatch.setattr(convolutions, "has_avx2_alone", lambda: True)
    for faster in (False, True):
        monkeypatch.setattr(convolutions, "eager_float32_on_a_cpu", lambda x, faster=faster: faster)
        with parametrize.cached():
            result = generator(image)
            found.append((result, *torch.autograd.grad(result.square().sum(), list(generator.parameters()))))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_gradients_go_by_patches_from_64_channels_on_where_torchs_are_slow(monkeypatch):
    """Where a CPU has AVX2 alone, or the padding is wide, as that of an upsampling and a convolution in one."""

    def way(channels, avx2, padding=1):
        monkeypatch.setattr(convolutions, "has_avx2_alone", lambda: avx2)
        x = torch.randn(1, channels, 8, 8)
        return type(convolutions.Conv2d(channels, 8, 3, padding=padding)(x).grad_fn).__name__

    assert way(64, True) == way(64, False, padding=2) == "ByPatchesBackward"
    assert way(63, True) == way(63, False, padding=2) == way(64, False) == "ConvolutionBackward0"
    x, weight = torch.randn(1, 64, 8, 8), torch.randn(8, 64, 3, 3, requires_grad=True)
    assert type(convolve_doubled(x, weight, None).grad_fn).__name__ == "ByPatchesBackward"
    with torch.autocast("cpu", torch.bfloat16):
        assert way(64, True) == "ConvolutionBackward0"


@pytest.mark.parametrize("strip", [1, 36 * 3 * 5 * 3, 36 * 3 * 5 * 8, 2**20])
@pytest.mark.parametrize(("batch", "height", "width"), [(3, 16, 12), (2, 4, 12), (1, 4, 4)])
def test_winograds_convolution_is_torchs(strip, batch, height, width, monkeypatch):
    """In float64, with all gradients and those of the gradients, whatever strips of tiles it is computed in."""
    monkeypatch.setattr(Winograd, "STRIP", strip)
    torch.manual_seed(0)
    shapes = (batch, 5, height, width), (7, 5, 3, 3), (7,)
    inputs = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]

    def plain(x, weight, bias):
        return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias)

    found = []
    for function in (plain, Winograd.apply):
        result = function(*inputs)
        gradients = torch.autograd.grad(result.sin().sum(), inputs, create_graph=True)
        found.append((result, *gradients, *torch.autograd.grad(sum(g.sin().sum() for g in gradients), inputs)))
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)


def test_winograds_matrices_are_made_for_training_even_while_translating():
    transforms.cache_clear()
    x, weight, bias = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3), torch.zeros(2)
    with torch.inference_mode():
        Winograd.apply(x, weight, bias)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(Winograd.apply(x, weight, bias).square().sum(), x, create_graph=True)
    gradient.sum().backward()
    assert x.grad.isfinite().all()


def test_wide_convolutions_in_float32_on_a_cpu_are_winograds(monkeypatch):
    """Within rounding, in channels_last as everywhere; not where half precision, a compiler or another size is, nor
    where matrix products are slow."""
    monkeypatch.setattr(convolutions, "multiplies_slowly", lambda: False)
    torch.manual_seed(0)
    x, wide = torch.randn(2, 128, 32, 24), convolutions.ReflectConv2d(128, 128, 3)
    with torch.no_grad():
        expected = nn.functional.conv2d(convolutions.pad(x, 4 * [1], "reflect"), wide.weight, wide.bias)
    assert winograd_pays(x, wide.weight)
    result = wide(x)
    assert result.grad_fn.name() == "WinogradBackward" and result.is_contiguous(memory_format=torch.channels_last)
    assert (result - expected).abs().max() < 1e-4 * expected.std()
    (gradient,) = torch.autograd.grad(wide(probe := x.clone().requires_grad_()).sum(), probe)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert not winograd_pays(x[..., :22], wide.weight) and not winograd_pays(x[:, :, :30], wide.weight)
    assert not winograd_pays(x.to("meta"), wide.weight)
    assert not winograd_pays(x[..., :12], wide.weight)
    assert not winograd_pays(x.double(), wide.weight)
    assert not winograd_pays(x, convolutions.ReflectConv2d(128, 64, 3).weight)
    assert not winograd_pays(x, convolutions.ReflectConv2d(128, 128, 7).weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd_pays(x, wide.weight)
    with monkeypatch.context() as slow:
        slow.setattr(convolutions, "multiplies_slowly", lambda: True)
        assert not winograd_pays(x, wide.weight)
    program = torch.export.export(wide, (x,), strict=False)
    assert torch.ops.aten.conv2d.default in {node.target for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(x), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_is_torchs_in_both_orders_of_memory(layout):
    torch.manual_seed(0)
    x = torch.randn(3, 6, 5, 4, dtype=torch.double).contiguous(memory_format=layout).requires_grad_()
    found = []
    for norm in (nn.InstanceNorm2d(6), InstanceNorm2d(6)):
        normed = norm(x)
        (first,) = torch.autograd.grad(normed.sin().sum(), x, create_graph=True)
        found.append((normed, first, *torch.autograd.grad(first.square().sum(), x)))
    torch.testing.assert_close(*found, rtol=0, atol=1e-9)
    assert found[1][0].is_contiguous(memory_format=layout)
    with torch.no_grad():
        for size in (5, 33):
            x = torch.randn(2, 6, size, size, dtype=torch.double).contiguous(memory_format=layout)
            torch.testing.assert_close(InstanceNorm2d(6)(x), nn.InstanceNorm2d(6)(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_blank_image_has_no_larger_gradients_than_a_picture(layout, amp):
    """All its channels are flat. What rounding leaves of them, norms would enlarge 300 times each."""
    generator = build(CycleGAN, "--recipe=classic").translators.G_AB.to(memory_format=layout)

    def gradient(image):
        generator.zero_grad()
        with autocast(CPU, amp):
            translation = generator(image)
        (translation * torch.linspace(-1, 1, translation.numel()).view_as(translation)).mean().backward()
        return torch.nn.utils.get_total_norm([weight.grad for weight in generator.parameters()])

    picture = gradient(batch()["A"])
    for value in (-1.0, 0.37, 1.0):
        assert gradient(torch.full_like(batch()["A"], value)) < 3 * picture


@pytest.mark.parametrize("size", [5, 64])
@pytest.mark.parametrize("norm", [InstanceNorm2d(6), LayerNorm2d(6)], ids=["instance", "layer"])
def test_a_norm_keeps_its_digits_where_contrast_is_low(norm, size):
    """Kernels that sum squares lose 4 % of the largest value there."""
    x = 1 + torch.randn(2, 6, size, size) / 100
    with torch.no_grad():
        exact = norm(x.double())
        for layout in (torch.contiguous_format, torch.channels_last):
            found = norm(x.contiguous(memory_format=layout))
            assert found.is_contiguous(memory_format=layout)
            torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-5)


def test_a_translation_of_16_bits_keeps_its_digits_where_contrast_is_low():
    """Noise of 600 ± 50 in a range of 65,536, translated in float32, is that of float64 but for rounding: translations
    take half of the range, and some 6 levels of it are off."""
    generator = build(CycleGAN, "--recipe=lsgan").translators.G_AB.eval().requires_grad_(False)
    x = (600 + 50 * torch.randn(1, 3, 128, 128, dtype=torch.double)).round() / 32767.5 - 1
    exact = copy.deepcopy(generator).double()(x)
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            found = generator.to(memory_format=layout)(x.float().contiguous(memory_format=layout))
        assert (found.double() - exact).abs().max() * 32767.5 < 12


def test_instance_norm_has_parameters_where_they_are_wanted():
    x = torch.randn(2, 6, 5, 4)
    norm = InstanceNorm2d(6, affine=True)
    nn.init.constant_(norm.bias, 5.0)
    torch.testing.assert_close(norm(x), nn.functional.instance_norm(x) + 5)


def test_denormal_numbers_are_0_in_all_threads():
    """In a process of its own: the threads that another test has started would stay as they are."""
    code = """
import torch
from runtime.device import flush_denormals
flush_denormals()
torch.set_num_threads(4)
tiny = torch.full((2**22,), 1e-20)
assert (tiny * tiny == 0).all(), (tiny * tiny == 0).float().mean()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_images_of_more_than_8_bits_are_translated_without_tf32():
    """Whose products have 11 bits, as those of fp16."""
    deep, cpu = PICTURES._replace(picture=False, dtype="uint16", high=65535.0), torch.device("cpu")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        for domain, tf32, expected in [(PICTURES, True, (True, "bf16")), (PICTURES, False, (False, "bf16")),
                                       (deep, True, (False, "off"))]:  # fmt: skip
            amp = set_translation_precision("trained", {"tf32": tf32, "amp": "bf16"}, cpu, {"A": PICTURES, "B": domain})
            assert (torch.backends.cudnn.allow_tf32, amp) == expected
            assert torch.backends.cuda.matmul.allow_tf32 == expected[0]
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_is_left_out_inside_alone_and_where_images_are_deep_alone(allowed):
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    deep = PICTURES._replace(picture=False, dtype="uint16", high=65535.0)
    with swapped(backends[0], "allow_tf32", allowed), swapped(backends[1], "allow_tf32", allowed):
        for domain, expected in [(PICTURES, allowed), (deep, False)]:
            with tf32_for({"A": PICTURES, "B": domain}):
                assert [backend.allow_tf32 for backend in backends] == [expected] * 2
            assert [backend.allow_tf32 for backend in backends] == [allowed] * 2


# ---- compiled ----


@pytest.mark.parametrize("recipe", ["attention", "classic"])
def test_compiled_half_steps_compute_the_same(recipe):
    """Each call traced in one piece, but for the penalty; code generation, which takes minutes, is the compiler's own
    business."""
    torch._dynamo.reset()  # sizes that other tests compiled for would make these dynamic, which is slow to trace
    torch._dynamo.utils.counters.clear()
    traced = torch._dynamo.utils.counters["stats"]
    plain, compiled = (without_chance(build(CycleGAN, f"--recipe={recipe}"), torch.double) for _ in range(2))
    compiled.generator_objective.compile(backend="aot_eager")
    compiled.critic_objective.compile(backend="aot_eager")
    real = [images(seed, torch.double) for seed in range(4)]
    for one, other, parts in (
        (plain.generator_objective, compiled.generator_objective, both_directions(*real[:2])),
        (plain.critic_objective, compiled.critic_objective, [real]),
    ):
        with parametrize.cached():
            for part in parts:
                torch.manual_seed(0)
                expected = one(*part).total
                torch.manual_seed(0)
                total = other(*part).total
                torch.testing.assert_close(total, expected)
                expected.backward()
                total.backward()
        assert same_direction(*([p.grad for p in objective.parameters()] for objective in (other, one)), 1e-9)
        if recipe == "classic" or one is plain.generator_objective:
            assert traced.pop("unique_graphs") == len(parts)


@pytest.mark.parametrize("sizes", [(5, 4), (7, 7)])
def test_a_batch_that_is_not_full_is_left_out_when_compiled(sizes):
    """It would compile everything again."""
    batches = list(epoch_batches(max(sizes), 2, 0, 2, smallest=2))
    assert [len(batch) for batch in batches] == 2 * (max(sizes) // 2) * [2]
    samples = [sample for batch in batches for sample in batch]
    assert len(set(samples)) == len(samples)


# ---- the order of memory ----


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_run_that_goes_on_in_another_order_of_memory_differs_by_rounding_alone(order, optimizer, monkeypatch):
    """Adam's fused kernel goes through weights and moments as they lie."""

    def model(order):
        monkeypatch.setattr(trainer, "memory_format", lambda *_: order)
        return build(CycleGAN, "--recipe=classic", f"--optimizer={optimizer}", "--amp=off")

    straight = model(order)
    train(straight)
    saved = io.BytesIO()
    torch.save(straight.state_dict(), saved)
    other = model({torch.contiguous_format: torch.channels_last}.get(order, torch.contiguous_format))
    other.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    for name in ("optimizer_G", "optimizer_D"):
        ours, theirs = (getattr(each, name).state.items() for each in (straight, other))
        for (_, old), (weight, new) in zip(ours, theirs, strict=True):
            for moment in new.keys() - {"step"}:
                assert new[moment].stride() == weight.stride()
                torch.testing.assert_close(new[moment], old[moment], rtol=0, atol=0)
    before = kernels(straight)
    train(straight), train(other)
    assert (kernels(other) - kernels(straight)).abs().mean() < 0.05 * (kernels(straight) - before).abs().mean()


def kernels(model):
    """All generators' convolution weights in one vector. (A bias before a norm has no gradient but rounding.)"""
    weights = [weight.detach() for weight in model.translators.parameters() if weight.dim() == 4]
    return torch.cat([weight.reshape(-1) for weight in weights])


@pytest.mark.parametrize(
    ("flags", "norms", "cuda"),
    [
        ((), False, (False, True)),  # the attention critic has no norm
        (("--recipe=classic",), False, (False, False)),
        (("--recipe=notebook",), True, (True, True)),
    ],
)
def test_channels_last_is_decided_for_each_objective_and_device(monkeypatch, flags, norms, cuda):
    model = build(CycleGAN, *flags)

    def chosen(device):
        orders = (memory_format(network, torch.device(device)) for network in networks(model))
        return tuple(order == torch.channels_last for order in orders)

    assert chosen("cuda") == cuda
    for capability, gains in (("AVX512", True), ("AVX2", True), ("DEFAULT", norms)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda value=capability: value)
        assert chosen("cpu") == (gains, gains)
        for network in networks(build(CycleGAN, *flags)):
            weight = next(module.weight for module in network.modules() if isinstance(module, nn.Conv2d))
            assert weight.is_contiguous(memory_format=torch.channels_last) or not gains


# ---- on a GPU ----


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("flags", [*([f"--recipe={recipe}"] for recipe in RECIPES), ["--checkpoint_activations"]])
def test_no_step_waits_for_the_gpu(flags, amp):
    device = torch.device("cuda")
    model, log = build(CycleGAN, *flags, f"--amp={amp}", device=device), LossLog()
    train(model, steps=30, device=device)  # kernels are chosen, the histories are full
    batches = [batch(device=device) for _ in range(5)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step, one in enumerate(batches, start=1):
            for update in model.updates(step):
                log.add(step, update(one))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert log.read()
