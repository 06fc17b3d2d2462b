"""Tiles: they cover the image, blend to one, and share the statistics of their norms."""

import numpy as np
import pytest
import torch
from conftest import TINY, noise_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from inference.tiles import SharedStatistics, starts, translate_in_tiles, window
from models import GeneratorResNet, LayerNorm2d


@given(length=st.integers(8, 500), tile=st.integers(8, 500))
def test_tiles_cover_every_pixel_and_overlap(length, tile):
    tile = min(tile, length)
    begins = starts(length, tile)
    assert begins[0] == 0 and begins[-1] + tile == length
    assert all(0 < after - before <= tile - tile // 4 for before, after in zip(begins, begins[1:], strict=False))


def test_weights_fall_towards_neighbours_alone_and_add_up_to_one():
    assert window(16, True, True).tolist() == 16 * [1]
    middle = window(16, False, False)
    torch.testing.assert_close(middle[-4:] + middle[:4], torch.ones(4))
    assert (middle > 0).all() and middle[8] == 1


@settings(max_examples=20, deadline=None)
@given(height=st.integers(8, 70), width=st.integers(8, 70), batch_size=st.integers(1, 5), passes=st.integers(1, 3))
def test_a_pixelwise_network_is_translated_as_if_whole(height, width, batch_size, passes):
    image = torch.rand(3, height, width)
    sizes = []

    def translate(images):
        sizes.append(images.shape)
        return 1 - images

    result = translate_in_tiles(translate, nn.Identity(), image, 24, batch_size, passes)
    torch.testing.assert_close(result, 1 - image)
    assert all(n <= batch_size and max(h, w) <= 24 for n, _, h, w in sizes)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d, LayerNorm2d])
def test_the_norms_take_the_statistics_of_all_tiles(norm):
    """What is left of the difference is that overlapping parts count twice."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 1), norm(3)).eval().requires_grad_(False)
    image = torch.rand(3, 48, 48) * torch.linspace(0, 4, 48)  # darker at the left
    whole = network(image[None])[0]
    tiles = lambda passes: translate_in_tiles(network, network, image, 48 - 12, 1, passes)  # noqa: E731
    alone, shared = tiles(1), tiles(2)
    assert (alone - whole).abs().mean() > 2 * (shared - whole).abs().mean()
    torch.testing.assert_close(network(image[None])[0], whole)  # forgotten afterwards


def test_gathered_statistics_are_the_mean_and_variance_over_all_that_passed():
    norm = nn.InstanceNorm2d(3).eval()
    parts = [torch.randn(2, 3, 4, 5), torch.randn(1, 3, 7, 2) + 3]
    statistics = SharedStatistics(norm)
    with statistics.gathered():
        for part in parts:
            norm(part)
    values = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], 1)
    torch.testing.assert_close(norm.running_mean, values.mean(1))
    torch.testing.assert_close(norm.running_var, values.var(1, unbiased=False))


def test_tiles_of_a_generator_come_nearer_to_the_whole_by_sharing():
    torch.manual_seed(0)
    generator = GeneratorResNet(ngf=8, n_residual_blocks=1, attention=False).eval().requires_grad_(False)
    image = torch.rand(3, 128, 128) * torch.linspace(0, 1, 128) * 2 - 1
    whole = generator(image[None])[0]
    errors = [
        (translate_in_tiles(generator, generator, image, 64, 4, passes) - whole).abs().mean() for passes in (1, 2)
    ]
    assert errors[1] < 0.75 * errors[0]


def test_large_images_are_translated_in_tiles(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    noise_image(7, 70, 100).save(workplace / "large.png")
    noise_image(8, 20, 30).save(workplace / "small.png")
    test = ["test", "--dataset_name=tiny", "--n_cpu=0"]
    for name in ("large", "small"):
        assert run(*test, f"--input={name}.png", "--output=tiled", "--tile=40").code == 0
        assert run(*test, f"--input={name}.png", "--output=whole").code == 0
    tiled, whole = (np.asarray(Image.open(f"{folder}/large.png")).astype(int) for folder in ("tiled", "whole"))
    assert tiled.shape == whole.shape == (70, 100, 3)
    assert (tiled != whole).any()
    small = [Image.open(f"{folder}/small.png").tobytes() for folder in ("tiled", "whole")]
    assert small[0] == small[1]
    for tile in (30, 16):
        line = refused(*test, "--input=large.png", "--output=tiled", f"--tile={tile}")
        assert f"--tile must be divisible by 4 and at least 32, not {tile}" in line


def test_an_image_that_cannot_be_written_ends_the_run(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    (workplace / "out").mkdir()
    (workplace / "out" / "1.png").mkdir()
    line = refused("test", "--dataset_name=tiny", "--input=datasets/tiny/testA", "--output=out", "--n_cpu=0")
    assert "1.png: Is a directory" in line


@pytest.mark.parametrize("n_cpu", [0, 2])
def test_translations_do_not_depend_on_the_workers(workplace, run, n_cpu):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    assert run("test", "--dataset_name=tiny", f"--n_cpu={n_cpu}", "--direction=AtoB", "--batch_size=1").code == 0
    assert run("test", "--dataset_name=tiny", "--n_cpu=0", "--direction=AtoB", "--results_dir=again").code == 0
    for path in (workplace / "results/tiny/epoch_1/AtoB").iterdir():
        same = workplace / "again/tiny/epoch_1/AtoB" / path.name
        one, other = (np.asarray(Image.open(p)).astype(int) for p in (path, same))
        assert np.abs(one - other).max() <= 1
