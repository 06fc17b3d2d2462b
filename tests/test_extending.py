"""docs/extending.md is true: its changes, made to a copy of this repository, train, and break no test."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, TINY
from torch import nn

import registry
import trainer
from convolutions import Conv2d, ConvTranspose2d, Decoder, ReflectConv2d
from datasets import Cache
from layers import mixes_samples
from losses import CriticObjective, GeneratorObjective, both_directions
from models import GeneratorResNet
from options import parse_training
from registry import Network, crops_for
from trainer import CycleGAN

PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(section.split("\n", 1) for section in PAGE.split("\n## ")[1:] if "```diff" in section)

HOUSE = "tests/test_house.py::test_files_stay_small"
MEASURED = {"A loss term": "edges", "A penalty": "penalty"}  # what a change adds to the losses


def apply(diff, folder):
    """Make the change of one ``diff`` block, whose unchanged lines must stand in the file exactly once."""
    name, *lines = diff.splitlines()
    path = folder / name.removeprefix("+++ ")
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    content = path.read_text()
    assert content.count(before) == 1, (name, before)
    path.write_text(content.replace(before, after))


def test_the_changes_train_and_break_no_test(workplace):
    folder = workplace / "copy"
    shutil.copytree(ROOT, folder, ignore=lambda path, names: {n for n in names if n.startswith(".") or n == "datasets"})
    for section in SECTIONS.values():
        for diff in re.findall(r"```diff\n(.*?)```", section, re.S):
            apply(diff, folder)
    for title, section in SECTIONS.items():
        command = re.search(r"^python cycle_gan.py --dataset_name cats2dogs (.*)$", section, re.M)[1].split()
        words = [sys.executable, folder / "cycle_gan.py", *TINY, "--n_epochs=1", "--penalty_interval=1", *command]
        result = subprocess.run(words, cwd=workplace, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        last = json.loads((workplace / "images/tiny/scalars.jsonl").read_text().splitlines()[-1])
        if title in MEASURED:
            assert last[MEASURED[title]] > 0
        used = json.loads((workplace / "saved_models/tiny/runs.jsonl").read_text().splitlines()[-1])["options"]
        assert str(used[command[-2].removeprefix("--")]) in (command[-1], f"{command[-1]}.0")
    own = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_losses.py", HOUSE]
    result = subprocess.run(own, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


# ---- what one may rely on ----

SMALL = ["--recipe=lsgan", "--ngf=4", "--ndf=4", "--n_residual_blocks=1", "--img_height=32", "--img_width=32"]


def small(*flags):
    return CycleGAN(parse_training([*SMALL, *flags])[0], torch.device("cpu"))


@pytest.fixture
def generator(monkeypatch):
    """Puts a class of generators into the place of ``--gen_net resnet``."""

    def enter(kind):
        monkeypatch.setattr("models.Mine", kind, raising=False)
        monkeypatch.setitem(registry.GENERATORS, "resnet", Network("models:Mine", 8, multiple=4))

    return enter


class WithBuffer(GeneratorResNet):
    kept = True

    def __init__(self, ngf=64, n_residual_blocks=9):
        super().__init__(ngf=ngf, n_residual_blocks=n_residual_blocks)
        self.register_buffer("shape", self.values(), persistent=self.kept)


class WithMask(WithBuffer):
    def values(self):
        return torch.tensor([True, False])


class WithInfinity(WithBuffer):
    def values(self):
        return torch.tensor([0.0, -torch.inf])


class WithExpanded(WithBuffer):
    def values(self):
        return torch.zeros(1).expand(2)


class WithInfinityApart(WithInfinity):
    kept = False


class WithItem(WithBuffer):
    def values(self):
        return torch.tensor([x.item() for x in torch.linspace(0, 1, 3)])


@pytest.mark.parametrize("kind", [WithMask, WithInfinityApart])
def test_a_checkpoint_of_a_network_with_a_buffer_is_read_again(workplace, run, generator, kind):
    generator(kind)
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--gen_net=resnet").code == 0
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=1", "--n_epochs=2", "--n_cpu=0").code == 0
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 0


@pytest.mark.parametrize(
    ("kind", "why"),
    [(WithInfinity, "the buffer"), (WithExpanded, "the buffer"), (WithItem, "cannot be built without memory")],
)
def test_what_no_checkpoint_could_give_back_is_refused_at_the_start(workplace, refused, generator, kind, why):
    generator(kind)
    assert why in refused("cycle_gan", *TINY, "--n_epochs=1", "--gen_net=resnet")
    assert not (workplace / "saved_models").exists()


def test_terms_are_computed_in_float32():
    """Even those of convolutions, which autocast would compute in bf16."""
    seen = []

    def term(part):
        image = part.real if hasattr(part, "real_scores") else part.translation
        seen.append(F.conv2d(image, torch.ones(1, 3, 3, 3)).dtype)
        return image.mean()

    model, real = small(), torch.rand(2, 1, 3, 32, 32) * 2 - 1
    (D_A, D_B), terms = model.critic_objective.children(), {"mine": (1, term)}
    G, D = GeneratorObjective(model.translators, D_A, D_B, terms), CriticObjective(D_A, D_B, terms)
    with torch.autocast("cpu", torch.bfloat16):
        for direction in both_directions(*real):
            G(*direction)
        D(real[0], real[1], real[1], real[0])
    assert seen == 4 * [torch.float]


def test_a_schedule_that_begins_at_0_and_a_rate_of_the_critics_own_are_kept(monkeypatch):
    monkeypatch.setattr(trainer, "lr_factor", lambda epoch, n_epochs, decay_epoch: min(1, (epoch + 1) / 5))
    model = small("--lr=1e-3", "--optimizer=adam")
    (group,) = model.optimizer_D.param_groups
    group["lr"] *= 4
    for epoch, factor in ((0, 0.2), (2, 0.6), (9, 1)):
        model.set_schedule(epoch)
        rates = [optimizer.param_groups[0]["lr"] for optimizer in (model.optimizer_G, model.optimizer_D)]
        assert rates == pytest.approx([1e-3 * factor, 4e-3 * factor])


def test_a_critic_has_its_say_about_crops(monkeypatch):
    monkeypatch.setitem(registry.CRITICS, "mine", registry.CRITICS["patch70"]._replace(multiple=16, min_size=48))
    options = parse_training(["--recipe=lsgan"])[0]
    options.dis_net = "mine"
    assert crops_for(options) == (16, 48)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("more", [{"padding_mode": "reflect"}, {"dilation": 2}, {"groups": 2}])
def test_a_convolution_refuses_what_it_would_not_do(kind, more):
    with pytest.raises(TypeError):
        kind(4, 4, 3, padding=1, **more)


def test_a_class_of_a_convolution_with_a_way_of_its_own_goes_that_way():
    class Half(ReflectConv2d):
        def forward(self, x):
            return super().forward(x) / 2

    layers, x = Decoder(nn.Upsample(scale_factor=2), Half(64, 64, 3)), torch.rand(1, 64, 32, 32)
    torch.testing.assert_close(layers(x), layers[1](layers[0](x)))


def test_a_module_says_that_it_mixes_samples():
    class Deviation(nn.Identity):
        mixes_samples = True

    assert mixes_samples(nn.Sequential(nn.Conv2d(3, 3, 1), Deviation())) and mixes_samples(nn.SyncBatchNorm(3))
    assert not mixes_samples(nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3)))


def test_a_cached_image_is_not_changed_in_place():
    cache = Cache(np.array([[2, 3, 1]]), "uint8")
    for _ in range(2):
        array = cache.get(0, lambda: np.ones((2, 3, 1), np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
        assert (array == 1).all()
