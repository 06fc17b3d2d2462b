"""The critics: images N×C×H×W in [-1, 1] to patch maps of scores, without bounds. Their names, and the sizes of images
that they take, stand in registry.py.
"""

from argparse import Namespace

import torch
import torch.nn.functional as F
from torch import nn

from layers import norm_layer
from models import SelfAttention, initialise
from registry import BACKBONES, CRITICS, build, load
from runtime.errors import UserError

# ---------------------------------------------------------------------------------------------------------------------
# Convolutional critics
# ---------------------------------------------------------------------------------------------------------------------


class CriticResidualBlock(nn.Module):
    """x + conv(dropout(lrelu(conv(lrelu(x))))), the convolutions 3×3."""

    def __init__(self, channels, dropout_rate):
        super().__init__()
        self.block = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout(dropout_rate),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x):
        return x + self.block(x)


class CriticAttention(nn.Module):
    """A critic with self-attention: N×C×H×W in [-1, 1] to a patch map of scores, N×1×H//8×W//8, without bounds.

    Twelve convolutions where the 70×70 PatchGAN has five: three halve the image, two residual blocks with dropout
    (four) and the attention (three) work at an eighth of it, and the last two score each patch. No norm: the gradient
    penalty constrains it instead.
    """

    def __init__(self, channels=3, ndf=64, attention=True, spectral_norm=True, dropout_rate=0.2):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, ndf, 4, stride=2, padding=1),  # → ndf × H/2 × W/2
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, 2 * ndf, 4, stride=2, padding=1),  # → 2·ndf × H/4 × W/4
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * ndf, 4 * ndf, 4, stride=2, padding=1),  # → 4·ndf × H/8 × W/8
        )
        self.blocks = nn.Sequential(*(CriticResidualBlock(4 * ndf, dropout_rate) for _ in range(2)))
        self.attention = SelfAttention(4 * ndf) if attention else nn.Identity()
        self.score = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * ndf, 8 * ndf, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8 * ndf, 1, 3, padding=1),  # → 1 × H/8 × W/8
        )
        initialise(self, spectral_norm)

    def forward(self, x):
        return self.score(self.attention(self.blocks(self.encoder(x))))


class PatchGAN(nn.Module):
    """Four 4×4 convolutions, then one that scores: N×C×H×W in [-1, 1] to a patch map of scores N×1×H'×W'.

    ``strides`` are those of the four. They decide the receptive field of a score: 94×94 pixels for (2, 2, 2, 2), and
    the 70×70 of the CycleGAN paper for (2, 2, 2, 1). ``pad_before_score`` adds a row above and a column at the left, so
    that the last convolution keeps the size: H//16 × W//16 with strides of 2.
    """

    def __init__(
        self,
        channels=3,
        ndf=64,
        norm="instance",
        attention=False,
        spectral_norm=False,
        strides=(2, 2, 2, 1),
        pad_before_score=False,
        activation="leaky_relu",
        bias=True,
    ):
        super().__init__()
        widths = [channels, ndf, 2 * ndf, 4 * ndf, 8 * ndf]
        layers = []
        for i, stride in enumerate(strides):
            layers.append(nn.Conv2d(widths[i], widths[i + 1], 4, stride, padding=1, bias=bias))
            if i > 0:  # none on the first layer, which would hide the colours
                layers.append(norm_layer(norm, widths[i + 1]))
            layers.append(nn.ReLU(inplace=True) if activation == "relu" else nn.LeakyReLU(0.2, inplace=True))
        if attention:
            layers.append(SelfAttention(8 * ndf))
        if pad_before_score:
            layers.append(nn.ZeroPad2d((1, 0, 1, 0)))
        layers.append(nn.Conv2d(8 * ndf, 1, 4, padding=1, bias=bias))
        self.model = nn.Sequential(*layers)
        initialise(self, spectral_norm)

    def forward(self, x):
        return self.model(x)


# ---------------------------------------------------------------------------------------------------------------------
# On frozen features
# ---------------------------------------------------------------------------------------------------------------------


class FeatureCritic(nn.Module):
    """A critic that looks through a frozen, pretrained network (Projected GANs, https://arxiv.org/abs/2111.01007):
    N×C×H×W in [-1, 1], of 1 or 3 channels, to scores N×K×H'×W', one map for each of K depths.

    Each depth has a head of its own, two 3×3 convolutions with spectral norm, and counts equally: the coarser maps are
    repeated to the size of the finest. ``feature_size`` resizes the shorter side of images first, 0 leaves them.
    ``feature_mixing`` mixes channels and depths by fixed random convolutions, as that paper does.

    The features come in a standard deviation of about 8. At that, the heads' first gradients drown the cycle loss, and
    a young generator hatches more (docs/experiment-notes.md): hence SCALE.

    The backbone is part of no checkpoint; ``get_extra_state`` says which it was.
    """

    STRIDES = (4, 8, 16)
    SCALE = 1 / 8

    def __init__(self, channels=3, ndf=64, backbone="efficientnet_lite1", feature_size=0, feature_mixing=False):
        super().__init__()
        if channels not in (1, 3):
            raise UserError(
                f"critics on features look at images of 1 or 3 channels, not {channels}; take --dis_net patch70"
            )
        self.name, self.feature_size = backbone, feature_size
        self._backbone = [build_backbone(backbone)]  # a list hides it from nn.Module
        widths = [self._backbone[0].widths[stride] for stride in self.STRIDES]
        self.mixing = FeatureMixing(widths) if feature_mixing else nn.Identity()
        self.heads = nn.ModuleList(head(width, 4 * ndf) for width in getattr(self.mixing, "widths", widths))

    def forward(self, x):
        x = x.expand(-1, 3, -1, -1)
        if self.feature_size:
            shorter = min(x.shape[2:])
            size = [round(side * self.feature_size / shorter) for side in x.shape[2:]]
            x = F.interpolate(x, size, mode="bilinear", antialias=self.feature_size < shorter)
        features = [self.SCALE * each for each in self._backbone[0](x, self.STRIDES)]
        scores = [head(each) for head, each in zip(self.heads, self.mixing(features), strict=True)]
        return torch.cat([F.interpolate(score, scores[0].shape[2:]) for score in scores], dim=1)

    def _apply(self, function, recurse=True):
        self._backbone[0]._apply(function, recurse)  # to a device, or to another type
        return super()._apply(function, recurse)

    def get_extra_state(self):
        return {"backbone": self.name, "sha256": self._backbone[0].sha256}

    def set_extra_state(self, state):
        """Raises UserError where the critic was trained on another backbone."""
        if state.get("backbone") != self.name:
            raise UserError(f"the critics were trained on {state.get('backbone')}, not on {self.name}")
        if state != self.get_extra_state():
            raise UserError(
                f"the critics were trained on {self.name} with other weights than those installed; "
                "install the version of its package that they were trained with"
            )


def build_backbone(name):
    """The frozen network ``name`` of BACKBONES. Raises UserError where its package is not installed."""
    entry = BACKBONES[name]
    return load(entry)(**entry.keywords, purpose="--dis_net features", requirements="requirements-features.txt")


def check_backbone(options):
    """Raise UserError where the critics look through a network whose package is not installed: before a data set is
    fetched for them."""
    if CRITICS[options.dis_net].features:
        build_backbone(options.backbone)


def head(channels, width):
    """Scores of feature maps: N×channels×H×W to N×1×H×W."""
    layers = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(width, 1, 3, padding=1)
    )
    initialise(layers, spectral_norm=True)
    return layers


class FeatureMixing(nn.Module):
    """Channels and depths of feature maps, the finest first, mixed by fixed random convolutions (Projected GANs,
    section 3.2): a 1×1 convolution of each, then from the coarsest on a 3×3 one of it and of what lies below.

    N×C×H×W each to N×width×H×W each. Mixed, no part of the features can be left out of sight.
    """

    def __init__(self, widths, width=64):
        super().__init__()
        self.across = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for channels in widths)
        self.below = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in widths)
        for convolution in (*self.across, *self.below):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")
        self.requires_grad_(False)
        self.widths = [width] * len(widths)

    def forward(self, features):
        mixed = []
        for x, across, below in zip(reversed(features), reversed(self.across), reversed(self.below), strict=True):
            x = across(x)
            coarser = F.interpolate(mixed[0], x.shape[2:], mode="bilinear") if mixed else 0
            mixed.insert(0, below(x + coarser))
        return mixed


class FeaturesAndPatches(nn.Module):
    """A FeatureCritic beside a 70×70 PatchGAN: N×C×H×W in [-1, 1] to the scores of both, N×K×H'×W'.

    The former knows what things look like, and hardly sees whether a surface is black or white; the latter sees every
    pixel. It pulls with ``patch_share`` of the former's force (``Balanced``): a tenth is enough to fill outlines. As
    strong as the former it spoils textures (docs/experiment-notes.md).
    """

    def __init__(
        self,
        channels=3,
        ndf=64,
        norm="instance",
        spectral_norm=False,
        backbone="efficientnet_lite1",
        feature_size=0,
        feature_mixing=False,
        patch_share=0.1,
    ):
        super().__init__()
        self.patch_share = patch_share
        self.features = FeatureCritic(channels, ndf, backbone, feature_size, feature_mixing)
        self.patches = PatchGAN(channels, ndf, norm, spectral_norm=spectral_norm)

    def forward(self, x):
        for_features, for_patches = Balanced.apply(x, self.patch_share)
        scores = self.features(for_features), self.patches(for_patches)
        size = [max(sides) for sides in zip(*(each.shape[2:] for each in scores), strict=True)]  # no patch is left out
        return torch.cat([F.interpolate(each, size) for each in scores], dim=1)


class Balanced(torch.autograd.Function):
    """Images N×C×H×W twice, for two critics. The second one's gradient comes back at ``share`` of the first one's norm,
    image by image, whatever their scales. There is no second derivative."""

    @staticmethod
    def forward(ctx, x, share):
        ctx.share = share
        return x.clone(), x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, first, second):
        wide = torch.promote_types(first.dtype, torch.float32)
        norm, other = (torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True, dtype=wide) for x in (first, second))
        factor = torch.where(other > 0, ctx.share * norm / other, 0)
        return first + (factor * second).to(second.dtype), None


# ---------------------------------------------------------------------------------------------------------------------
# By name
# ---------------------------------------------------------------------------------------------------------------------


def build_critic(options, side="A"):
    """The critic ``options.dis_net`` of domain ``side``; ``options`` are the command line's, or a checkpoint's."""
    channels = options.channels_A if side == "A" else options.channels_B
    return build(CRITICS[options.dis_net], Namespace(**{**vars(options), "channels": channels}))
