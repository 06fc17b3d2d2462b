"""Differentiable augmentation: what each function does to an image, its gradient, and the training with it."""

import pytest
import torch
from conftest import TINY, equal
from hypothesis import given, settings
from hypothesis import strategies as st
from test_speed import batch, build

import utils
from registry import AUGMENTATIONS, load
from runtime import checkpoints
from trainer import CycleGAN

FUNCTIONS = {name: load(entry) for name, entry in AUGMENTATIONS.items()}


@settings(max_examples=30)
@given(name=st.sampled_from(list(FUNCTIONS)), n=st.integers(1, 3), channels=st.sampled_from([1, 3, 13]),
       height=st.integers(8, 24), width=st.integers(8, 24), seed=st.integers(0, 99))  # fmt: skip
def test_shapes_stay(name, n, channels, height, width, seed):
    torch.manual_seed(seed)
    images = torch.rand(1, channels, height, width, dtype=torch.double).expand(n, -1, -1, -1) * 2 - 1
    varied = FUNCTIONS[name](images)
    assert varied.shape == images.shape and varied.dtype == images.dtype
    assert varied.isfinite().all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_image_is_drawn_for_itself(name):
    torch.manual_seed(0)
    varied = FUNCTIONS[name](torch.rand(1, 3, 16, 24).expand(20, -1, -1, -1))
    assert len({image.numpy().tobytes() for image in varied}) > 10


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_agrees_with_finite_differences(name):
    images = (torch.rand(2, 3, 8, 9, dtype=torch.double) * 2 - 1).requires_grad_()

    def varied(images):
        torch.manual_seed(4)
        return FUNCTIONS[name](images)

    assert torch.autograd.gradcheck(varied, images)
    assert torch.autograd.gradgradcheck(varied, images)


def test_a_position_is_a_shift_with_nothing_coming_in():
    torch.manual_seed(0)
    images = torch.rand(200, 1, 16, 24) + 1
    moved = utils.vary_position(images)
    shifts = set()
    for image, result in zip(images[:, 0], moved[:, 0], strict=True):
        matches = [
            (dy, dx) for dy in range(-2, 3) for dx in range(-3, 4) if torch.equal(result, shifted(image, dy, dx))
        ]
        assert len(matches) == 1
        shifts.add(matches[0])
    assert {dy for dy, _ in shifts} == set(range(-2, 3)) and {dx for _, dx in shifts} == set(range(-3, 4))


def shifted(image, dy, dx):
    result = torch.zeros_like(image)
    height, width = image.shape
    result[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)] = image[
        max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)
    ]
    return result


def test_what_is_cut_out_is_one_rectangle_of_half_the_sides_where_it_lies_inside():
    torch.manual_seed(0)
    cut = utils.cut_out(torch.ones(300, 2, 16, 24)) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert (cut[:, 0].sum((1, 2)) == rows * columns).all()  # a rectangle
    assert rows.max() == 8 and columns.max() == 12 and rows.min() == 4 and columns.min() == 6


def test_colors_are_varied_within_their_bounds():
    torch.manual_seed(0)
    gray = torch.zeros(2000, 3, 2, 2)
    brightness = utils.vary_color(gray)[
        :, 0, 0, 0
    ]  # flat and gray: neither saturation nor contrast has anything to vary
    assert brightness.abs().max() <= 0.5 and brightness.std().item() == pytest.approx(1 / 12**0.5, rel=0.1)


def test_contrast_and_saturation_are_varied_within_their_bounds():
    """Between two pixels grey differs by as much as the contrast says; the colours of one by both."""
    torch.manual_seed(0)
    pixels = torch.tensor([[0.5, -0.1], [0.1, -0.3], [-0.3, 0.1]])  # 3 channels of 2 pixels
    varied = utils.vary_color(pixels.view(1, 3, 1, 2).expand(2000, -1, -1, -1))[:, :, 0]
    contrast = (varied.mean(1)[:, 0] - varied.mean(1)[:, 1]) / (pixels.mean(0)[0] - pixels.mean(0)[1])
    saturation = (varied[:, 0, 0] - varied[:, 2, 0]) / (pixels[0, 0] - pixels[2, 0]) / contrast
    for ratio, low, high in ((contrast, 0.5, 1.5), (saturation, 0, 2)):
        assert low - 1e-4 < ratio.min() < low + 0.05 and high - 0.05 < ratio.max() < high + 1e-4


def test_a_run_with_augmentation_resumes_exactly(workplace, run, refused):
    flags = [*TINY, "--diffaugment=color,translation,cutout", "--n_epochs=2", "--decay_epoch=1"]
    assert run("cycle_gan", *flags, "--checkpoint_dir=straight").code == 0
    assert run("cycle_gan", *flags, "--n_epochs=1").code == 0
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--n_cpu=0").code == 0
    straight, resumed = (checkpoints.load(f"{folder}/tiny", 2)[1] for folder in ("straight", "saved_models"))
    assert equal(straight["training"], resumed["training"])
    assert "must be some of color,translation,cutout" in refused("cycle_gan", *TINY, "--diffaugment=colour")


def test_the_critic_alone_is_changed():
    seen = []
    critic = torch.nn.Identity()
    utils.augmented(critic, [utils.cut_out])
    critic.register_forward_pre_hook(lambda module, images: seen.append(images[0]))
    images = torch.ones(1, 1, 8, 8)
    critic(images)
    assert (seen[0] == 0).any() and (images == 1).all()


def test_both_critics_see_real_and_translated_images_varied():
    """A rectangle is missing in each; of images of 32×32 it is at least 8×8. No pixel of the images is 0 itself."""
    model, seen = build(CycleGAN, "--recipe=classic", "--diffaugment=cutout"), {"D_A": [], "D_B": []}
    for name, images in seen.items():
        critic = getattr(model.critic_objective, name)
        critic.register_forward_pre_hook(lambda module, inputs, images=images: images.extend(inputs[0].detach()))
    for update in model.updates(1):
        update(batch())
    for images in seen.values():
        assert len(images) == 6  # translated ones for the generators; real ones and those of the history
        assert all((image == 0).all(0).sum() >= 64 for image in images)
