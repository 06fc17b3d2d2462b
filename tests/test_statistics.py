"""Measures without a pretrained network: closed forms, and what they notice."""

import math

import pytest
import torch

from reporting import statistics
from reporting.statistics import MEASURES, blurred, laplacian_pyramid, sliced_wasserstein


def noise(n=40, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator).to(torch.uint8)


def smooth(n=40, seed=0, times=2):
    images = noise(n, seed=seed).float()
    for _ in range(times):
        images = blurred(images)
    return images.round().to(torch.uint8)


def numbers(fake, real):
    """All that is found out about two sets of uint8 images."""
    found = {}
    for measure in MEASURES.values():
        described = (
            measure.describe(images, torch.Generator().manual_seed(i)) for i, images in enumerate((fake, real))
        )
        found |= measure.compare(*described)
    return found


def test_a_pyramid_adds_up_and_a_flat_image_has_no_details():
    images = torch.rand(2, 3, 64, 80, dtype=torch.double)
    coarsest, *details = laplacian_pyramid(images)
    assert [tuple(each.shape[2:]) for each in (*details, coarsest)] == [(64, 80), (32, 40), (16, 20)]
    total = coarsest
    for detail in reversed(details):
        raised = torch.zeros_like(detail)
        raised[..., ::2, ::2] = 4 * total
        total = detail + blurred(raised)
    torch.testing.assert_close(total, images)
    inner = laplacian_pyramid(torch.full((1, 1, 64, 64), 7.0))[1][..., 8:-8, 8:-8]
    assert inner.abs().max() < 1e-5


def test_of_many_patches_some_are_compared(monkeypatch):
    """Those at the same places in sets of one size, so that equal sets stay equal."""
    sets = [statistics.laplacian_patches(images, torch.Generator()) for images in (smooth(), noise())]
    of_all = sliced_wasserstein(*sets)["SWD"]
    monkeypatch.setattr(statistics, "MOST", 2000)
    assert sliced_wasserstein(sets[0], sets[0])["SWD"] == 0
    of_some = sliced_wasserstein(*sets)["SWD"]
    assert of_some != of_all and of_some == pytest.approx(of_all, rel=0.1)


def test_the_distance_between_gaussians_in_one_dimension(monkeypatch):
    """Patches of one pixel have one direction: the distance between two normalised samples, here x and |x|."""
    monkeypatch.setattr(statistics, "DIRECTIONS", 1)
    x = torch.randn(20000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein([x], [5 * x + 3])["SWD"] == pytest.approx(0, abs=20)
    half = (x.abs() - math.sqrt(2 / math.pi)) / math.sqrt(1 - 2 / math.pi)
    exact = (half.flatten().sort().values - x.flatten().sort().values).abs().mean().item()
    mirrored = (half.flatten().sort().values + x.flatten().sort(descending=True).values).abs().mean().item()
    found = sliced_wasserstein([x.abs()], [x])["SWD"] / 1000
    assert min(abs(found - exact), abs(found - mirrored)) < 0.05 * exact  # a direction may be -1


def test_what_the_measures_notice():
    real, same, blurry = smooth(seed=0), smooth(seed=1), smooth(seed=2, times=8)
    hatched = (same.float() + 20 * (torch.arange(64) % 2)).clamp(0, 255).to(torch.uint8)
    good, soft, striped = (numbers(fake, real) for fake in (same, blurry, hatched))
    assert good["SWD"] < soft["SWD"] / 1.5 and good["SWD"] < striped["SWD"] / 3
    assert good["sharpness 1"] == pytest.approx(1, abs=0.02)
    assert soft["sharpness 1"] < 0.8 < 1.2 < striped["sharpness 1"]
    assert striped["sharpness 4"] == pytest.approx(1, abs=0.05)  # stripes of a pixel are gone at a quarter


def test_a_ramp_has_the_gradient_of_its_slope_at_every_scale():
    ramp = (torch.arange(64) * 2).to(torch.uint8).expand(5, 3, 64, 64)
    described = MEASURES["gradients"].describe(ramp, None)
    inner = [level.mean().item() for level in described]
    assert inner[0] == pytest.approx(2) and inner[1:] == pytest.approx([4, 8], rel=0.05)


def test_contrast_is_the_matter_of_sharpness_and_not_of_patches():
    real = smooth(seed=0)
    pale = (real.float() / 2 + 60).round().to(torch.uint8)
    found = numbers(pale, real)
    assert found["sharpness 1"] == pytest.approx(0.5, abs=0.02)
    assert found["SWD"] < numbers(smooth(seed=2, times=8), real)["SWD"] / 2


def test_images_too_small_for_a_patch_have_no_such_distance():
    small = noise(size=6)
    assert math.isnan(numbers(small, small)["SWD"])


def test_patches_of_the_last_row_and_column_count():
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    images[:, :, -1] = images[:, :, :, -1] = 255
    finest = statistics.laplacian_patches(images, torch.Generator().manual_seed(0))[0].float()
    assert len({patch.numpy().tobytes() for patch in finest}) == 4  # a patch of 7×7 has four places


def test_of_the_larger_set_patches_of_all_images_are_compared():
    """Half of the real images are smooth, and of three times as many translations the last half."""
    real = torch.cat([noise(20), smooth(20, seed=1)])
    fake = torch.cat([noise(60, seed=2), smooth(60, seed=3)])
    alike, backwards = numbers(fake, real)["SWD"], numbers(fake.flip(0), real)["SWD"]
    noise_alone = numbers(noise(120, seed=2), real)["SWD"]
    assert max(alike, backwards) < noise_alone / 3
