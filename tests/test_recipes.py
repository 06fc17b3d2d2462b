"""Every system that the recipes stand for: its layers as its authors print them, its training, its translations."""

from argparse import Namespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import make_dataset, noise_image
from PIL import Image, ImageDraw
from torch import nn

import convolutions
import registry
from critics import PatchGAN, build_critic
from losses import both_directions
from models import SelfAttention, build_generator
from options import parse_training
from readers.domains import to_tensor
from registry import GENERATORS, RECIPES
from resuming import resume
from runtime import checkpoints
from runtime.errors import UserError
from trainer import CycleGAN
from translators import GivenMasks, LearnedMasks, NoMasks, Translators, compose


def options_of(recipe, *flags):
    return parse_training([f"--recipe={recipe}", *flags])[0]


SMALL = ["--ngf=4", "--ndf=4", "--n_residual_blocks=1", "--img_height=32", "--img_width=32", "--batch_size=2"]

# ---- the networks, written down ----


def layers(network):
    """Convolutions as (kind, in, out, kernel, stride), and the names of what stands between them, in forward order."""
    listed = []
    hooks = []

    def note(module, inputs, output):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            kind = "up" if isinstance(module, nn.ConvTranspose2d) else "conv"
            listed.append((kind, module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0]))
        elif not isinstance(module, nn.Identity):
            listed.append(type(module).__name__.removesuffix("2d"))

    for module in network.modules():
        if not list(module.children()):
            hooks.append(module.register_forward_hook(note))
    with patch.object(convolutions, "folding_pays", lambda x: False):  # which passes by two layers at once
        shape = network(torch.zeros(2, 3, 128, 128)).shape
    for hook in hooks:
        hook.remove()
    return listed, tuple(shape[1:])


def parameters(network):
    return sum(p.numel() for p in network.parameters())


IN, LN, BN, RELU, LRELU = "InstanceNorm", "LayerNorm", "BatchNorm", "ReLU", "LeakyReLU"
CLASSIC_BLOCK = [("conv", 256, 256, 3, 1), IN, RELU, ("conv", 256, 256, 3, 1), IN]
PATCHGAN = [
    ("conv", 3, 64, 4, 2), LRELU,
    ("conv", 64, 128, 4, 2), IN, LRELU,
    ("conv", 128, 256, 4, 2), IN, LRELU,
    ("conv", 256, 512, 4, 2), IN, LRELU,
    "ZeroPad", ("conv", 512, 1, 4, 1),
]  # fmt: skip


def classic_generator(blocks):
    return [
        ("conv", 3, 64, 7, 1), IN, RELU, ("conv", 64, 128, 3, 2), IN, RELU, ("conv", 128, 256, 3, 2), IN, RELU,
        *blocks * CLASSIC_BLOCK,
        ("up", 256, 128, 3, 2), IN, RELU, ("up", 128, 64, 3, 2), IN, RELU, ("conv", 64, 3, 7, 1), "Tanh",
    ]  # fmt: skip


@pytest.mark.parametrize("recipe", ["classic", "segmentation"])
def test_the_classic_networks(recipe):
    options = options_of(recipe)
    generator, critic = build_generator(options), build_critic(options)
    assert layers(generator) == (classic_generator(9), (3, 128, 128))
    assert parameters(generator) == 11_378_179
    assert layers(critic) == (PATCHGAN, (1, 128 // 16, 128 // 16))
    assert parameters(critic) == 2_764_737


def test_the_classic_generator_with_six_blocks():
    generator = build_generator(options_of("classic", "--gen_net=resnet_6blocks"))
    assert layers(generator)[0] == classic_generator(6)
    assert parameters(generator) == 7_837_699


def test_the_papers_critic():
    critic = build_critic(options_of("classic", "--dis_net=patch70"))
    expected = [layer for layer in PATCHGAN if layer != "ZeroPad"]
    expected[expected.index(("conv", 256, 512, 4, 2))] = ("conv", 256, 512, 4, 1)
    assert layers(critic) == (expected, (1, 128 // 8 - 2, 128 // 8 - 2))
    assert parameters(critic) == 2_764_737


def test_the_notebooks_networks():
    options = options_of("notebook")
    generator, critic = build_generator(options), build_critic(options)
    block = [("conv", 256, 256, 3, 1), BN, RELU, ("conv", 256, 256, 3, 1), BN]
    expected = [
        ("conv", 3, 64, 4, 2), BN, RELU, ("conv", 64, 128, 4, 2), BN, RELU, ("conv", 128, 256, 4, 2), BN, RELU,
        *6 * block,
        ("up", 256, 128, 4, 2), BN, RELU, ("up", 128, 64, 4, 2), BN, RELU, ("up", 64, 3, 4, 2), "Tanh",
    ]  # fmt: skip
    assert layers(generator) == (expected, (3, 128, 128))
    assert parameters(generator) == 8_402_176
    expected = [
        ("conv", 3, 64, 4, 2), RELU, ("conv", 64, 128, 4, 2), BN, RELU, ("conv", 128, 256, 4, 2), BN, RELU,
        ("conv", 256, 512, 4, 2), BN, RELU, ("conv", 512, 1, 4, 1),
    ]  # fmt: skip
    assert layers(critic) == (expected, (1, 7, 7))
    assert parameters(critic) == 2_765_568


def test_the_attention_networks():
    options = options_of("attention", "--no_spectral_norm")
    generator, critic = build_generator(options), build_critic(options)
    decoder = [
        "Upsample", ("conv", 256, 128, 3, 1), LN, RELU, "Upsample", ("conv", 128, 64, 3, 1), LN, RELU,
        ("conv", 64, 3, 7, 1), "Tanh",
    ]  # fmt: skip
    query_key_value = [("conv", 256, 32, 1, 1), ("conv", 256, 32, 1, 1), ("conv", 256, 256, 1, 1)]
    encoder_and_blocks = classic_generator(9)[:-8]
    assert layers(generator) == (encoder_and_blocks + query_key_value + decoder, (3, 128, 128))
    assert parameters(generator) == 11_460_420
    listed, shape = layers(critic)
    assert [layer for layer in listed if layer[0] == "conv"] == [
        ("conv", 3, 64, 4, 2), ("conv", 64, 128, 4, 2), ("conv", 128, 256, 4, 2), *4 * [("conv", 256, 256, 3, 1)],
        ("conv", 256, 32, 1, 1), ("conv", 256, 32, 1, 1), ("conv", 256, 256, 1, 1),
        ("conv", 256, 512, 3, 1), ("conv", 512, 1, 3, 1),
    ]  # fmt: skip
    assert listed.count("Dropout") == 2 and shape == (1, 16, 16)
    assert parameters(critic) == 4_286_210
    recipe = options_of("attention")
    assert (recipe.gan_mode, recipe.penalty, recipe.spectral_norm) == ("wgan-gp", "wgan-gp", True)


@pytest.mark.parametrize(
    ("critic", "field"),
    [(PatchGAN(norm="none"), 70), (PatchGAN(norm="none", strides=(2, 2, 2, 2), pad_before_score=True), 94)],
)
def test_receptive_fields(critic, field):
    """Which pixels move one patch's score; without norm, whose statistics see the whole image."""
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    scores = critic(image)
    middle = scores.shape[-1] // 2
    (gradient,) = torch.autograd.grad(scores[0, 0, middle, middle], image)
    touched = (gradient.abs().sum((0, 1)) > 0).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [field, field]


@pytest.mark.parametrize("gen_net", GENERATORS)
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_switches_reach_every_generator(gen_net, norm):
    flags = [f"--gen_net={gen_net}", f"--norm={norm}", "--dropout", "--ngf=8", "--n_residual_blocks=2"]
    listed, shape = layers(build_generator(options_of("classic", *flags)))
    assert shape == (3, 128, 128)
    assert listed.count("Dropout") == 2
    assert {IN: "instance", BN: "batch"}.get(next((n for n in listed if n in (IN, BN)), None), "none") == norm
    with_attention = build_generator(options_of("classic", *flags, "--attention"))
    assert any(isinstance(module, SelfAttention) for module in with_attention.modules())


# ---- training ----


@pytest.fixture(params=[*RECIPES, "learned"])
def recipe_flags(request):
    if request.param == "learned":
        return ["--recipe=segmentation", "--mask=learned", "--mask_freeze_epoch=1"]
    return [f"--recipe={request.param}"]


def fixed_batch():
    torch.manual_seed(3)
    return {side: torch.rand(2, 3, 32, 32) * 2 - 1 for side in "AB"}


def test_one_step_lowers_each_loss_on_a_fixed_batch(recipe_flags):
    torch.manual_seed(0)
    model = CycleGAN(parse_training([*recipe_flags, *SMALL])[0], torch.device("cpu"))
    batch = fixed_batch()
    fakes = [torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2)]

    full = batch | {"fake_A": fakes[0], "fake_B": fakes[1]}

    def loss(objective, parts):
        torch.manual_seed(1)  # the same dropout and the same points of the penalty
        return sum(objective(*part).total.item() for part in parts)

    critics = model.critic_objective, [[full[name] for name in ("A", "fake_A", "B", "fake_B")]]
    generators = model.generator_objective, both_directions(full["A"], full["B"])
    for step, update in ((critics, model.update_D), (generators, model.update_G)):
        before = loss(*step)
        torch.manual_seed(1)
        update(dict(full))
        assert loss(*step) < before


@pytest.mark.parametrize("lambda_id", [0, 5])
def test_batch_norm_sees_one_domain_at_a_time(lambda_id):
    """A is bright and B dark; no call of a generator or critic may hold both."""
    model = CycleGAN(options_of("notebook", *SMALL, f"--lambda_id={lambda_id}"), torch.device("cpu"))
    batch = {"A": torch.full((2, 3, 32, 32), 0.9), "B": torch.full((2, 3, 32, 32), -0.9)}
    calls = []
    for network in (*model.translators.children(), *model.critic_objective.children()):
        network.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0]))
    for update in model.updates(1):
        update(batch)
    assert all(len(call) == 2 for call in calls)
    assert all((call > 0.8).all() or (call < -0.8).all() or call.abs().max() < 0.8 for call in calls)
    assert any((call > 0.8).all() for call in calls) and any((call < -0.8).all() for call in calls)


def test_the_notebooks_critics_step_first_and_any_recipe_can():
    batch = fixed_batch()
    for recipe, names in (("notebook", ["D", "G"]), ("classic", ["G", "D"])):
        model = CycleGAN(options_of(recipe, *SMALL), torch.device("cpu"))
        assert [next(iter(update(batch))) for update in model.updates(1)] == names
    model = CycleGAN(options_of("classic", *SMALL, "--n_critic=3"), torch.device("cpu"))
    steps = [[step.__name__ for step in model.updates(number)] for number in range(1, 7)]
    assert steps == 2 * [["update_D"], ["update_D"], ["update_G", "update_D"]]


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_loss_has_the_name_of_another(recipe):
    """The log would show the mean of both."""
    model, batch = CycleGAN(options_of(recipe, *SMALL, "--penalty_interval=1"), torch.device("cpu")), fixed_batch()
    (first, second) = (update(batch) for update in model.updates(1))
    assert not first.keys() & second.keys()


def segmentation_image(seed, height=48, width=40):
    """Coloured shapes on black."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(2):
        x, y = random.integers(0, 20, 2).tolist()
        draw.rectangle([x, y, x + 14, y + 14], fill=tuple(random.choice([64, 128, 255], 3).tolist()))
    return image


@pytest.fixture
def segmentation_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_dataset(tmp_path / "datasets" / "soccer", sides=("realTrain", "realTest"))
    for side in ("segTrain", "segTest"):
        (folder / side).mkdir()
        for i in range(3):
            segmentation_image(i).save(folder / side / f"{i}.png")
    return folder


def test_a_recipe_trains_resumes_and_translates_by_name(segmentation_set, run, recipe_flags, tmp_path):
    flags = [*recipe_flags, *SMALL, "--dataset_name=soccer", "--n_cpu=0", "--decay_epoch=2"]
    result = run("cycle_gan", *flags, "--n_epochs=2", "--checkpoint_interval=1")
    assert result.code == 0, result.err
    assert run("cycle_gan", "--dataset_name=soccer", "--epoch=1", "--n_epochs=2", "--n_cpu=0").code == 0
    assert run("test", "--dataset_name=soccer", "--n_cpu=0", "--batch_size=1", "--amp=off").code == 0
    _, saved = checkpoints.load(tmp_path / "saved_models" / "soccer", 2)
    assert f"--recipe={saved['options']['recipe']}" in recipe_flags
    translators = Translators(Namespace(**saved["options"])).eval()
    translators.load_state_dict(saved["generators"])
    source = torch.from_numpy(np.array(Image.open(segmentation_set / "segTest" / "1.png"))).permute(2, 0, 1)
    expected, _ = translators.translate("A", source[None] / 127.5 - 1)
    path = tmp_path / "results" / "soccer" / "epoch_2" / "AtoB" / "1.png"
    written = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    assert ((expected[0] + 1) * 127.5 - written).abs().max() < 0.6
    if saved["options"]["mask"] == "given":
        black = source.amax(0) == 0
        assert (written[:, black] == 0).all() and (written[:, ~black] != source[:, ~black]).any()


# ---- masks ----


def test_pixels_outside_the_mask_are_untouched_to_the_last_bit_both_ways():
    translators = Translators(options_of("segmentation", *SMALL))
    images = torch.stack([torch.from_numpy(np.array(segmentation_image(i))) for i in range(4)])
    A = images.permute(0, 3, 1, 2) / 127.5 - 1
    mask, fake, back = translators.cycle("A", A)
    outside = mask.expand_as(A) == 0
    assert torch.equal(mask[:, 0] == 1, images.amax(-1) > 0)
    assert outside.any() and torch.equal(fake[outside], A[outside]) and torch.equal(back[outside], A[outside])
    assert (fake[~outside] != A[~outside]).float().mean() > 0.99
    B = (
        torch.stack([torch.from_numpy(np.array(noise_image(i, 48, 40))) for i in range(4)]).permute(0, 3, 1, 2) / 127.5
        - 1
    )
    mask, fake, back = translators.cycle("B", B)
    assert (mask == 1).all() and torch.equal(fake, translators.G_BA(B)) and torch.equal(back, translators.G_AB(fake))


def test_the_adversarial_and_the_cycle_path_go_through_the_mask():
    """With nothing but black in A, A→B and back is the identity: no cycle loss, and the critic sees A itself."""
    model = CycleGAN(options_of("segmentation", *SMALL, "--lambda_id=0"), torch.device("cpu"))
    black, seen = -torch.ones(2, 3, 32, 32), []
    model.critic_objective.D_B.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    direction = model.generator_objective._direction("A", "B", black, fixed_batch()["B"])
    assert torch.equal(direction.reconstructed, black) and torch.equal(direction.fake, black)
    assert torch.equal(seen[0], black)


@pytest.mark.parametrize("quality", [75, 90])
def test_jpeg_noise_near_black_does_not_leak_into_the_mask(tmp_path, quality):
    masks, path = GivenMasks(options_of("segmentation").mask_threshold), tmp_path / "image.jpg"
    wrong = total = 0
    for seed in range(20):
        image = segmentation_image(seed, 96, 80)
        image.save(path, quality=quality)
        clean, noisy = (
            torch.from_numpy(np.array(i)).permute(2, 0, 1)[None] / 127.5 - 1 for i in (image, Image.open(path))
        )
        truth = (clean.amax(1, keepdim=True) > -1).float()
        away = nn.functional.max_pool2d(truth, 3, 1, 1) == 0  # but for the edge itself
        leaks = (noisy.amax(1, keepdim=True) > -1) & away
        assert leaks.any()  # there is noise to be kept out
        wrong += (masks.mask("A", noisy)[away] > 0).sum().item()
        total += away.sum().item()
    assert wrong / total < 1e-3


def test_compose_mixes_by_the_mask():
    x, y, mask = torch.full((1, 3, 2, 2), 1.0), torch.full((1, 3, 2, 2), 3.0), torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    assert compose(mask[None, None], y, x)[0, 0].tolist() == [[1.0, 1.5], [2.0, 3.0]]
    assert compose(None, y, x) is y


def test_images_fit_the_generators_and_the_masks(monkeypatch):
    monkeypatch.setitem(registry.GENERATORS, "any", registry.Network("models:GeneratorResNet", min_size=2))
    options = Namespace(gen_net="any", mask="none")
    assert registry.sizes_for(options) == (1, 2)
    options.mask = "learned"  # whose networks halve images twice
    assert registry.sizes_for(options) == (4, 8)


def test_learned_masks_train_until_they_are_frozen():
    torch.manual_seed(0)
    flags = [*SMALL, "--mask=learned", "--mask_freeze_epoch=2"]
    model = CycleGAN(options_of("classic", *flags), torch.device("cpu"))
    masks = model.translators.masks
    assert isinstance(masks, LearnedMasks)

    def step(epoch):
        before = [p.detach().clone() for p in masks.parameters()]
        model.set_schedule(epoch)
        for update in model.updates(1):
            update(fixed_batch())
        return [not torch.equal(a, b) for a, b in zip(before, masks.parameters(), strict=True)]

    assert any(step(0)) and any(step(1))
    assert not any(step(2)) and not any(step(3))


def test_the_history_begins_anew_where_learned_masks_are_frozen_and_only_there():
    def build(freeze_epoch):
        flags = [*SMALL, "--mask=learned", f"--mask_freeze_epoch={freeze_epoch}"]
        return CycleGAN(options_of("classic", *flags), torch.device("cpu"))

    def begin(model, epoch):
        model.set_schedule(epoch)
        return len(model.buffer_A.images), len(model.buffer_B.images)

    def resumed(state, epoch, freeze_epoch=2):
        model = build(freeze_epoch)
        model.load_state_dict(state)
        return begin(model, epoch)

    model = build(freeze_epoch=2)
    assert begin(model, 0) == (0, 0)
    model.update_D(fixed_batch())
    n = len(model.buffer_A.images)
    assert begin(model, 1) == (n, n)
    unmasked = model.state_dict()
    assert begin(model, 2) == (0, 0)
    model.update_D(fixed_batch())
    masked = model.state_dict()
    assert begin(model, 3) == (n, n)

    assert resumed(unmasked, 1) == resumed(masked, 2) == resumed(masked, 3) == (n, n)
    assert resumed(unmasked, 1, freeze_epoch=1) == resumed(masked, 3, freeze_epoch=9) == (0, 0)
    model.load_state_dict(unmasked)  # rolled back to before the freeze
    assert begin(model, 3) == (0, 0)


def test_the_cycle_loss_moves_learned_masks_by_a_share_of_its_gradient():
    masks = LearnedMasks(3, mask_freeze_epoch=1)
    mask = torch.tensor([0.2, 0.9], requires_grad=True)
    assert torch.allclose(masks.for_cycle(mask), mask)
    (masks.for_cycle(mask) * torch.tensor([1.0, 3.0])).sum().backward()
    torch.testing.assert_close(mask.grad, masks.CYCLE_SHARE * torch.tensor([1.0, 3.0]))
    assert masks.mask("A", fixed_batch()["A"]).mean() > 0.9  # they begin nearly full


def test_critics_see_the_foreground_alone_once_the_masks_are_fixed():
    masks = LearnedMasks(3, mask_freeze_epoch=1)
    image, mask = torch.full((1, 3, 1, 2), 0.7), torch.tensor([0.05, 0.6]).view(1, 1, 1, 2)
    masks.start_epoch(0)
    assert masks.for_critic(image, mask) is image and masks.real_for_critic("A", image) is image
    masks.start_epoch(1)
    assert torch.equal(masks.for_critic(image, mask)[0, 0, 0], torch.tensor([0.0, 0.7]))
    real = fixed_batch()["A"]
    expected = real * (masks.mask("A", real) > masks.FOREGROUND)
    assert torch.equal(masks.real_for_critic("A", real), expected)
    assert masks.mask("B", real).min() >= 0 and masks.mask("B", real).max() <= 1
    assert NoMasks().for_critic(image, None) is image


# ---- options of the seeds ----


def full_of_holes(monkeypatch, *flags):
    """A model whose learned masks are fixed, and of which half of the pixels count as background."""
    monkeypatch.setattr(LearnedMasks, "FIRST_LOGIT", 0.0)
    monkeypatch.setattr(LearnedMasks, "FOREGROUND", 0.5)
    torch.manual_seed(0)
    flags = [*SMALL, "--mask=learned", "--mask_freeze_epoch=0", *flags]
    model = CycleGAN(options_of("classic", *flags), torch.device("cpu"))
    model.set_schedule(0)
    return model


def test_translations_for_the_critics_alone_are_those_of_the_generators_step(monkeypatch):
    model, batch = full_of_holes(monkeypatch, "--amp=off"), fixed_batch()
    alone = model._translate(batch)
    model.update_G(batch)
    for name, images in alone.items():
        torch.testing.assert_close(images, batch[name])
        assert 0.05 < (images == 0).float().mean() < 0.95


def test_masks_of_real_images_and_of_translations_have_one_precision(monkeypatch):
    model, batch, seen = full_of_holes(monkeypatch, "--amp=bf16"), fixed_batch(), []
    first = next(module for module in model.translators.masks.A.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for update in model.updates(1):
        update(batch)
    assert seen == 3 * [torch.bfloat16]  # there, on the way back of the other direction, and of real images


def test_the_way_back_has_a_learned_mask_of_its_own():
    translators = CycleGAN(options_of("classic", *SMALL, "--mask=learned"), torch.device("cpu")).translators.double()
    x = fixed_batch()["A"].double()

    def textbook(x, mask, generator):
        mask = torch.sigmoid(mask(x) + 3)
        return mask * generator(x) + (1 - mask) * x

    fake = textbook(x, translators.masks.A, translators.G_AB)
    back = textbook(fake, translators.masks.B, translators.G_BA)
    torch.testing.assert_close(translators.cycle("A", x)[1:], (fake, back))


def test_the_penalty_comes_at_each_kth_step_with_k_times_its_weight():
    model = CycleGAN(options_of("attention", *SMALL, "--amp=off", "--penalty_interval=3"), torch.device("cpu"))
    for step in range(1, 7):
        told, batch = {}, fixed_batch()
        for update in model.updates(step):
            told |= update(batch)
        assert ("penalty" in told) == (step % 3 == 0)
        of_both = told["adversarial of D"] + 3 * model.options.lambda_gp * told.get("penalty", 0)
        torch.testing.assert_close(told["D"], 2 * of_both)


def test_a_history_of_other_crops_is_left_behind():
    model = CycleGAN(options_of("classic", *SMALL), torch.device("cpu"))
    model.update_D(fixed_batch())
    state = model.state_dict()
    images = state["processes"][0]["buffer_A"]["images"]
    images[0] = images[0][:, :, :-4]
    model.load_state_dict(state)
    assert [len(buffer.images) for buffer in (model.buffer_A, model.buffer_B)] == [len(images) - 1, len(images)]


def test_other_spellings_are_understood():
    flags = "--epochs 40 --decay_epoch 20 --crop_height 64 --crop_width 32 --load_height 80 --load_width 72 --lamda 7"
    parsed, given = parse_training(
        f"{flags} --idt_coef 0.5 --gpu_ids -1 --no_dropout --gen_net resnet_6blocks --dis_net n_layers".split()
    )
    assert (parsed.n_epochs, parsed.img_height, parsed.img_width, parsed.lambda_cyc) == (40, 64, 32, 7)
    assert (parsed.load_height, parsed.load_width, parsed.dropout, parsed.device) == (80, 72, False, "cpu")
    assert (parsed.gen_net, parsed.n_residual_blocks, parsed.dis_net) == ("resnet", 6, "patch70")
    assert "epochs" not in given and given["n_epochs"] == 40
    assert parse_training(["--gpu_ids=1"])[0].device == "cuda:1"
    tiny = parse_training(["--ngf=4", "--ndf=4", "--n_residual_blocks=0", "--lamda=7", "--idt_coef=0.5"])[0]
    assert CycleGAN(tiny, torch.device("cpu")).generator_objective.terms["identity"][0] == 3.5
    later, given = parse_training(["--epoch=latest", "--idt_coef=0.5"])
    assert resume(later, given, {**vars(parsed), "lambda_cyc": 20.0}, []).lambda_id == 10  # a multiple of the run's own


@pytest.mark.parametrize(
    ("flags", "first", "second", "flag"),
    [
        ("--lambda_id 3 --lambda_identity 0.5", "lambda_id", "lambda_identity", "lambda_id"),
        ("--lambda_identity 0.5 --idt_coef 0.5", "lambda_identity", "idt_coef", "lambda_id"),
        ("--gpu_ids 0 --device cpu", "gpu_ids", "device", "device"),
        ("--gen_net resnet_9blocks --n_residual_blocks 1", "gen_net", "n_residual_blocks", "n_residual_blocks"),
    ],
)
def test_two_flags_that_mean_the_same_do_not_overrule_each_other(flags, first, second, flag):
    with pytest.raises(UserError, match=f"--{first} and --{second} both speak of --{flag}; leave one of them out"):
        parse_training(flags.split())


def test_a_flag_given_by_hand_wins_over_the_recipe():
    assert options_of("notebook").norm == "batch" and options_of("notebook", "--norm=instance").norm == "instance"
    assert options_of("classic", "--attention").attention
    assert options_of("classic").penalty == "none"
    assert options_of("classic", "--penalty=r1").penalty == "r1"
    assert options_of("classic", "--gan_mode=wgan-gp").penalty == "wgan-gp"


@pytest.mark.parametrize("threshold", range(256))
def test_a_pixel_of_the_threshold_is_black_and_one_above_it_is_not(threshold):
    pixels = np.full((1, 2, 3), threshold, np.uint8)
    pixels[0, 1, 1] = min(threshold + 1, 255)
    mask = GivenMasks(threshold).mask("A", to_tensor(pixels)[None])
    assert mask.flatten().tolist() == [0, float(threshold < 255)]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--recipe=classic", "--img_height=28"], "divisible by 4 and at least 32"),
        (["--recipe=notebook", "--img_width=36"], "divisible by 8 and at least 32"),
        (["--recipe=classic", "--load_height=16"], "--img_height 32 is larger than --load_height 16"),
        (["--recipe=notebook", "--penalty=wgan-gp"], "--norm batch goes with --penalty none"),
        (["--recipe=cubist"], "invalid choice"),
    ],
)
def test_settings_that_do_not_fit(segmentation_set, refused, flags, expected):
    assert expected in refused("cycle_gan", "--dataset_name=soccer", *SMALL, *flags)


def test_a_recipe_cannot_be_changed_on_the_way(segmentation_set, run, refused):
    assert run("cycle_gan", "--dataset_name=soccer", *SMALL, "--n_epochs=1", "--n_cpu=0", "--recipe=classic").code == 0
    line = refused("cycle_gan", "--dataset_name=soccer", "--epoch=1", "--n_epochs=2", "--recipe=notebook")
    assert "--recipe notebook contradicts the checkpoint, which was trained with --recipe classic" in line


def test_what_does_not_fit_is_named():
    model, wider = (CycleGAN(options_of("classic", *SMALL, f"--ngf={ngf}"), torch.device("cpu")) for ngf in (4, 8))
    expected = r"differences, such as 'translators\S+', 8 in it and 16 in the network"
    with pytest.raises(UserError, match=expected):
        wider.load_state_dict(model.state_dict())
