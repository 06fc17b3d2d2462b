"""Steady translation: the motion that is found, the statistics that are kept, and that flicker falls."""

import copy
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from inference import motion
from inference.pictures import PictureTranslator
from inference.steady import Past, Steady, SteadyNorm, lay, lift
from inference.tiles import SingleDirection, translate_in_tiles
from layers import InstanceNorm2d, LayerNorm2d
from options import parse_training
from readers.domains import pictures_of, to_bytes, to_tensor
from translators import Translators

SMALL = ["--ngf=4", "--n_residual_blocks=1"]


def translators_of(*flags):
    torch.manual_seed(0)
    options = parse_training([*SMALL, *flags])[0]
    return Translators(options).eval().requires_grad_(False)


def scene(seed, height=96, width=120):
    """A smooth random picture, 3×H×W in [-1, 1]."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, 3, height, width))).float()
    kernel = torch.exp(-torch.linspace(-2, 2, 11).square())
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(3, 1, 11, 11)
    return (F.conv2d(F.pad(noise, (5,) * 4, mode="circular"), kernel, groups=3)[0] * 2).clamp(-1, 1)


def glide(picture, steps, size=48):
    """Frames that show ``picture`` from (4, 4) on, moved on by whole ``steps`` (y, x)."""
    return torch.stack([picture[:, 4 + y : 4 + y + size, 4 + x : 4 + x + size] for y, x in steps])


# ---- motion ----


@settings(max_examples=20)
@given(dy=st.integers(-9, 9), dx=st.integers(-9, 9), fy=st.floats(-0.4, 0.4), fx=st.floats(-0.4, 0.4))
def test_a_shift_is_found_to_a_twentieth_of_a_pixel(dy, dx, fy, fx):
    whole = motion.moved(scene(3), fy, fx)
    before, now = scene(3)[:, 16:80, 16:96], whole[:, 16 - dy : 80 - dy, 16 - dx : 96 - dx]
    found = motion.shift(now, before)
    if max(abs(dy + fy), abs(dx + fx)) > 0.5:  # less may be taken for no motion
        assert np.abs(np.subtract(found, (dy + fy, dx + fx))).max() < 0.05


def test_where_no_camera_moves_nothing_is_followed():
    before = scene(1)
    assert motion.shift(before, before) == (0, 0)
    noisy = before + 0.02 * torch.from_numpy(np.random.default_rng(0).standard_normal(before.shape)).float()
    assert motion.shift(noisy, before) == (0, 0)
    thing = before.clone()
    thing[:, 30:60, 40:70] = before[:, 30:60, 35:65]  # moves before a camera that does not
    assert motion.shift(thing, before) == (0, 0)
    assert motion.shift(torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)) == (0, 0)
    assert motion.shift(torch.zeros(3, 12, 12), torch.ones(3, 12, 12)) == (0, 0)


def test_moving_by_nothing_changes_nothing_and_back_is_back():
    picture = scene(2)
    assert torch.equal(motion.moved(picture, 0.0, 0.0), picture)
    there_and_back = motion.moved(motion.moved(picture, 0.3, -0.45), -0.3, 0.45)
    assert (there_and_back - picture)[:, 16:-16, 16:-16].abs().max() < 0.02


def test_moving_follows_a_wave():
    x = torch.arange(64, dtype=torch.double)
    wave = torch.sin(x / 5).expand(1, 40, 64)
    expected = torch.sin((x - 0.37) / 5).expand(1, 40, 64)
    assert (motion.moved(wave, 0.0, 0.37) - expected)[:, :, 10:-10].abs().max() < 5e-3


def test_cuts():
    one, other = scene(1), -scene(2) + 0.5
    assert motion.follow(one, None) is None and motion.follow(one[:, :50], one) is None
    assert motion.follow(other, one) is None
    assert motion.follow(one * 0.9, one) == (0, 0)  # a fade
    assert np.allclose(motion.follow(one[:, 9:, 9:], one[:, :-9, :-9]), (-9, -9), atol=0.05)


# ---- the grid ----


@settings(max_examples=20)
@given(y=st.integers(0, 3), x=st.integers(0, 3), height=st.integers(8, 20), width=st.integers(8, 20))
def test_laid_and_lifted_is_the_same(y, x, height, width):
    image = torch.rand(3, height, width)
    laid = lay(image, (y, x), (0, 0), (24, 24))
    assert laid.shape == (3, 24, 24)
    assert torch.equal(lift(laid, ((y, x), (0, 0)), height, width), image)


def test_content_keeps_its_place_on_the_grid():
    """A network that marks the grid's corners marks the same details in each frame of a pan."""
    picture, steps = scene(5), [(0, 0), (1, 2), (2, 5), (5, 7), (9, 8)]
    frames, marked = glide(picture, steps), []
    steady = Steady(translators_of(), 0.5)
    for frame in frames:

        def marks(images):
            grid = torch.zeros_like(images)
            grid[:, :, ::4, ::4] = 1
            return grid

        marked.append(steady.translate(frame[None], marks)[0])
    for (y, x), one in zip(steps, marked, strict=True):
        expected = torch.zeros(48, 48)
        expected[-y % 4 :: 4, -x % 4 :: 4] = 1
        assert (one[0] - expected)[12:-12, 12:-12].abs().max() < 0.1


# ---- statistics ----


@pytest.mark.parametrize("batch", [1, 3, 10])
@pytest.mark.parametrize(("kind", "dims"), [(nn.InstanceNorm2d, (2, 3)), (LayerNorm2d, (1, 2, 3))])
def test_statistics_are_exponential_averages_that_begin_anew_at_a_cut(kind, dims, batch):
    torch.manual_seed(0)
    x = torch.randn(10, 4, 6, 5, dtype=torch.double) * 3 + 1
    past = Past(0.75, 1)
    norm, cuts, outputs = SteadyNorm(dims, 1e-5, past), (0, 6), []
    for start in range(0, 10, batch):
        past.frames = []
        for number in range(start, min(start + batch, 10)):
            past.add(number in cuts)
        outputs.append(norm(x[start : start + batch]))
    for number, output in enumerate(torch.cat(outputs)):
        first = max(cut for cut in cuts if cut <= number)
        mean = variance = None
        for place, frame in enumerate(x[first : number + 1]):
            share = max(0.25, 1 / (place + 1))
            own = [f(frame.unsqueeze(0), dims, keepdim=True) for f in (torch.mean, biased_variance)]
            mean = own[0] if mean is None else mean + share * (own[0] - mean)
            variance = own[1] if variance is None else variance + share * (own[1] - variance)
        assert torch.allclose(output, ((x[number] - mean) / (variance + 1e-5).sqrt())[0])


def biased_variance(x, dims, keepdim):
    return x.var(dims, unbiased=False, keepdim=keepdim)


def test_the_second_pass_takes_the_mean_of_the_shot():
    x, past = torch.randn(6, 4, 5, 5, dtype=torch.double), Past(0.5, 2)
    norm = SteadyNorm((2, 3), 1e-5, past)

    def go():
        past.frames = []
        for number in range(6):
            past.add(number in (0, 4))
        return norm(x)

    go()
    past.whole, past.shot = True, -1
    second = go()
    for shot in (x[:4], x[4:]):
        mean, variance = shot.mean((2, 3)).mean(0), shot.var((2, 3), unbiased=False).mean(0)
        expected = (shot - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        assert torch.allclose(second[:4] if len(shot) == 4 else second[4:], expected)


@pytest.mark.parametrize("flags", [[], ["--mask=learned"], ["--recipe=classic"]])
def test_a_still_clip_is_translated_as_its_first_frame(flags):
    translators = translators_of(*flags)
    frames = scene(7, 32, 36).expand(5, -1, -1, -1)
    steady = Steady(translators, 0.9)
    assert any(isinstance(module, SteadyNorm) for module in steady.networks.modules())
    assert not any(isinstance(module, SteadyNorm) for module in translators.modules())
    result = torch.stack(steady.translate(frames, lambda x: steady.networks.translate("A", x)[0]))
    padded = lay(frames[0], (0, 0), (0, 0), (36, 40))[None]
    assert torch.allclose(result, translators.translate("A", padded)[0][:, :, :32, :36].expand_as(result), atol=1e-4)


def test_a_shot_begins_where_the_grid_does_and_a_second_pass_with_the_first_shot():
    """The last shot goes on with the first one's scene, as in a clip that loops."""
    home, away = (lambda y, x: scene(1)[:, y : y + 48, x : x + 48]), scene(2)[:, :48, :48] * -1 + 0.4
    steady, ways, shots = Steady(translators_of("--recipe=lsgan"), 0.9, passes=2), [], []
    for clip in range(2):
        for frame in (home(10, 10), home(10, 15), away, home(10, 14)):
            steady.translate(frame[None], lambda images: images)
            ways.append(steady.way)
            shots += steady.past.frames
        if clip == 0:
            steady.again()
    assert ways[0] == ways[2] == ways[3] == (0.0, 0.0) != ways[1]
    assert ways[4:] == ways[:4] and shots == 2 * [(0, 0), (0, 1), (1, 0), (2, 0)]


def test_weights_are_shared_and_clips_do_not_meet():
    translators = translators_of("--mask=learned")
    one, other = Steady(translators, 0.9), Steady(translators, 0.9)
    weights = {id(weight) for weight in translators.parameters()}
    assert {id(weight) for weight in one.networks.parameters()} == weights
    clip, alone = torch.stack([scene(1, 32, 32), scene(2, 32, 32)]), Steady(translators, 0.9)
    expected = alone.translate(clip[:1], lambda x: alone.networks.translate("A", x)[0])
    one.translate(clip[1:], lambda x: one.networks.translate("A", x)[0])
    found = other.translate(clip[:1], lambda x: other.networks.translate("A", x)[0])
    assert torch.equal(found[0], expected[0])


def test_strength_0_is_frame_by_frame():
    translators = translators_of()
    steady = Steady(translators, 0.0)
    frames = torch.stack([scene(i, 32, 32) for i in range(3)])
    found = torch.stack(steady.translate(frames, lambda x: steady.networks.translate("A", x)[0]))
    assert steady.networks is translators and torch.equal(found, translators.translate("A", frames)[0])


def test_in_tiles_as_whole():
    translators = translators_of("--no_attention")
    whole, tiled = Steady(translators, 0.7), Steady(translators, 0.7)

    def in_tiles(images):
        return torch.stack(
            [translate_in_tiles(SingleDirection(tiled.networks, "A"), image, 20, "cpu") for image in images]
        )

    with torch.inference_mode():
        for frame in glide(scene(4), [(0, 0), (2, 1), (4, 2)]):
            expected = whole.translate(frame[None], lambda x: whole.networks.translate("A", x)[0])
            assert torch.allclose(tiled.translate(frame[None], in_tiles)[0], expected[0], atol=1e-4)


def test_norms_with_parameters_stay():
    translators = translators_of("--norm=batch", "--gan_mode=lsgan")
    networks = Steady(translators, 0.9).networks
    assert any(isinstance(module, nn.BatchNorm2d) for module in networks.modules())
    layered = copy.deepcopy(translators)
    layered.G_AB.encoder[1] = InstanceNorm2d(4, affine=True)
    assert isinstance(Steady(layered, 0.9).networks.G_AB.encoder[1], InstanceNorm2d)


# ---- flicker ----


def test_a_pan_flickers_less_than_half():
    """A generator of random weights, on a pan by whole pixels: what should be equal is compared as it is."""
    translators, steps = translators_of(), [(i, 2 * i) for i in range(8)]
    frames = glide(scene(6), steps, 64)

    def flicker(strength):
        steady = Steady(translators, strength)
        made = [steady.translate(one[None], lambda x: steady.networks.translate("A", x)[0])[0] for one in frames]
        pairs = zip(made, made[1:], strict=False)
        return sum((now[:, 9:-10, 9:-11] - then[:, 10:-9, 11:-9]).abs().mean() for then, now in pairs)

    assert flicker(0.9) < 0.5 * flicker(0.0)


def test_frames_from_python_are_those_of_a_clip():
    translators = translators_of()
    translate = PictureTranslator(translators, pictures_of(Namespace(channels_A=3, channels_B=3)), "cpu")
    frames = [to_bytes(frame).permute(1, 2, 0).numpy() for frame in glide(scene(8), [(0, 0), (2, 1), (4, 2)], 40)]
    asked = []

    def camera():
        for number, frame in enumerate(frames):
            asked.append(number)
            yield Image.fromarray(frame) if number % 2 else frame

    made = []
    for picture in translate.translate_frames(camera(), "AtoB"):
        made.append(np.asarray(picture))
        assert len(asked) == len(made)  # it waits for no later frame
    steady = Steady(translators, 0.9)
    expected = steady.translate(torch.stack([to_tensor(frame) for frame in frames]),
                                lambda x: steady.networks.translate("A", x)[0])  # fmt: skip
    difference = np.stack(made).astype(int) - to_bytes(torch.stack(expected)).permute(0, 2, 3, 1).numpy()
    assert np.abs(difference).max() <= 1
    again = list(translate.translate_frames(frames[:1], "AtoB", steady=0))
    assert (np.asarray(again[0]) == np.asarray(translate(Image.fromarray(frames[0]), "AtoB"))).all()
