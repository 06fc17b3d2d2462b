"""The generators, and the blocks that networks are made of.

Images are float tensors N×C×H×W in [-1, 1]. All networks are fully convolutional. Their names, and the sizes of images
that they take, stand in registry.py.
"""

from argparse import Namespace
from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrize

from attention import attend
from convolutions import Conv2d, ConvTranspose2d, Decoder, ReflectConv2d
from layers import norm_layer, run_stages
from registry import GENERATORS, build
from spectral_norm import add_spectral_norm


def weights_init_normal(module):
    """Initialise one module in place, for ``network.apply`` (DCGAN, https://arxiv.org/abs/1511.06434): convolution
    weights from N(0, 0.02), scales of batch norm from N(1, 0.02), biases 0.

    A spectrally normalised weight is derived at every access, so the tensor behind it is the one to initialise.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        normalised = parametrize.is_parametrized(module, "weight")
        weight = module.parametrizations.weight.original if normalised else module.weight
        nn.init.normal_(weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)


def initialise(network, spectral_norm):
    """The last step of every network's constructor: initial weights, then spectral norm, which estimates from them."""
    if not any(weight.is_meta for weight in network.parameters()):  # on the meta device there is nothing to draw
        network.apply(weights_init_normal)
    if spectral_norm:
        add_spectral_norm(network)


# ---------------------------------------------------------------------------------------------------------------------
# Blocks
# ---------------------------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Every position looks at every other one (SAGAN, https://arxiv.org/abs/1805.08318): N×C×H×W to the same shape.

    y = x + gamma · softmax(q kᵀ) v, with C//8 channels in query and key, C in value, and gamma starting at 0, so that
    a new network begins with local evidence alone. The softmax is not scaled by 1/√d, as in SAGAN. ``seen``, N×C×H'×W':
    the features that keys and values come from, where these are not those of x.
    """

    def __init__(self, channels):
        super().__init__()
        self.query = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.key = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x, seen=None):
        seen = x if seen is None else seen

        def tokens(features):  # N×K×H×W → N×HW×K
            return features.flatten(2).transpose(1, 2).contiguous()

        attended = attend(tokens(self.query(x)), tokens(self.key(seen)), tokens(self.value(seen)))
        return x + self.gamma * attended.transpose(1, 2).reshape(x.shape)


def attends(network):
    """Whether there is self-attention in ``network``: its time grows with the fourth power of an image's side."""
    return any(isinstance(module, SelfAttention) for module in network.modules())


def conv_norm_relu(norm, channels, *convolution):
    """The layers of a convolution to ``channels``, then norm and ReLU.

    Not in place: what LayerNorm2d returns is a view, and for one that is written to autograd copies its gradients.
    """
    return *convolution, norm_layer(norm, channels), nn.ReLU()


class ResidualBlock(nn.Module):
    """x + norm(conv([dropout] relu(norm(conv(x))))), the convolutions 3×3 (https://arxiv.org/abs/1603.08155)."""

    def __init__(self, channels, norm="instance", dropout=False, convolution=ReflectConv2d):
        super().__init__()
        self.block = nn.Sequential(
            *conv_norm_relu(norm, channels, convolution(channels, channels, 3)),
            *([nn.Dropout(0.5)] if dropout else []),
            convolution(channels, channels, 3),
            norm_layer(norm, channels),
        )

    def forward(self, x):
        return x + self.block(x)


# ---------------------------------------------------------------------------------------------------------------------
# Generators
# ---------------------------------------------------------------------------------------------------------------------


def upsample_resize(norm, channels_in, channels_out):
    """Twice the size by nearest neighbour, then a convolution: no checkerboard, since nothing overlaps unevenly.

    A layer norm takes the place of an instance norm, which would draw black blobs into images that are nearly flat.
    """
    convolution = ReflectConv2d(channels_in, channels_out, 3)
    norm = "layer" if norm == "instance" else norm
    return conv_norm_relu(norm, channels_out, nn.Upsample(scale_factor=2), convolution)


def upsample_transposed(norm, channels_in, channels_out):
    """Twice the size by a transposed convolution, as in the CycleGAN paper."""
    convolution = ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
    return conv_norm_relu(norm, channels_out, convolution)


UPSAMPLING = {"resize": upsample_resize, "transposed": upsample_transposed}


class GeneratorResNet(nn.Module):
    """Translates images, N×C×H×W in [-1, 1] to the same: down by 4, residual blocks, attention, up by 4.

    With ``upsample="transposed"``, without attention and spectral norm it is the generator of the CycleGAN paper.
    ``channels_out``: as many as ``channels`` if None. ``output``: the class of the last activation.
    """

    def __init__(
        self,
        channels=3,
        ngf=64,
        n_residual_blocks=9,
        norm="instance",
        dropout=False,
        attention=True,
        spectral_norm=True,
        upsample="resize",
        channels_out=None,
        output=nn.Tanh,
        checkpoint_activations=False,
    ):
        super().__init__()
        up = UPSAMPLING[upsample]
        self.encoder = nn.Sequential(
            *conv_norm_relu(norm, ngf, ReflectConv2d(channels, ngf, 7)),  # → ngf×H×W
            *conv_norm_relu(norm, 2 * ngf, Conv2d(ngf, 2 * ngf, 3, stride=2, padding=1)),
            *conv_norm_relu(norm, 4 * ngf, Conv2d(2 * ngf, 4 * ngf, 3, stride=2, padding=1)),  # → 4·ngf × H/4 × W/4
        )
        self.transformer = nn.Sequential(*(ResidualBlock(4 * ngf, norm, dropout) for _ in range(n_residual_blocks)))
        self.attention = SelfAttention(4 * ngf) if attention else nn.Identity()
        self.decoder = Decoder(
            *up(norm, 4 * ngf, 2 * ngf),
            *up(norm, 2 * ngf, ngf),
            ReflectConv2d(ngf, channels_out or channels, 7),  # → C×H×W
            output(),
        )
        self.checkpoint_activations = checkpoint_activations
        initialise(self, spectral_norm)

    def forward(self, x):
        stages = [self.encoder, *self.transformer, self.attention, self.decoder]
        return run_stages(stages, x, self.checkpoint_activations)


class GeneratorNotebook(nn.Module):
    """The generator of Udacity's notebook: three 4×4 convolutions down by 8, residual blocks, three transposed up.

    Zero padding, and no biases, as in the helper functions of that course. N×C×H×W in [-1, 1] to the same.
    """

    def __init__(
        self,
        channels=3,
        ngf=64,
        n_residual_blocks=6,
        norm="batch",
        dropout=False,
        attention=False,
        spectral_norm=False,
        channels_out=None,
        checkpoint_activations=False,
    ):
        super().__init__()

        convolution = partial(nn.Conv2d, padding=1, bias=False)
        transposed = partial(nn.ConvTranspose2d, padding=1, bias=False)

        def down(here, there):
            return conv_norm_relu(norm, there, convolution(here, there, 4, stride=2))

        def up(here, there):
            return conv_norm_relu(norm, there, transposed(here, there, 4, stride=2))

        self.encoder = nn.Sequential(*down(channels, ngf), *down(ngf, 2 * ngf), *down(2 * ngf, 4 * ngf))  # → H/8 × W/8
        self.transformer = nn.Sequential(
            *(ResidualBlock(4 * ngf, norm, dropout, convolution) for _ in range(n_residual_blocks))
        )
        self.attention = SelfAttention(4 * ngf) if attention else nn.Identity()
        self.decoder = nn.Sequential(
            *up(4 * ngf, 2 * ngf),
            *up(2 * ngf, ngf),
            transposed(ngf, channels_out or channels, 4, stride=2),
            nn.Tanh(),
        )
        self.checkpoint_activations = checkpoint_activations
        initialise(self, spectral_norm)

    def forward(self, x):
        stages = [self.encoder, *self.transformer, self.attention, self.decoder]
        return run_stages(stages, x, self.checkpoint_activations)


# ---------------------------------------------------------------------------------------------------------------------
# By name
# ---------------------------------------------------------------------------------------------------------------------


def build_generator(options, source="A"):
    """The generator ``options.gen_net`` from domain ``source``, "A" or "B", to the other; ``options`` are the command
    line's, or a checkpoint's."""
    channels_A, channels_B = options.channels_A, options.channels_B
    channels, channels_out = (channels_A, channels_B) if source == "A" else (channels_B, channels_A)
    sizes = {"channels": channels, "channels_out": channels_out}
    return build(GENERATORS[options.gen_net], Namespace(**{**vars(options), **sizes}))
