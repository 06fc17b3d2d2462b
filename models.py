"""The networks: a ResNet generator and a patch critic, both with self-attention.

Images are float tensors N×C×H×W in [-1, 1]. Both networks are fully convolutional: any H and W that are divisible by
``MULTIPLE`` and at least ``MIN_SIZE`` will do.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

MULTIPLE = 4  # the generator halves the image twice
MIN_SIZE = 8  # pixels; at less, reflection padding and instance norm of the innermost features are not defined


def weights_init_normal(module):
    """Initialise one module in place, for ``network.apply``: N(0, 0.02) for convolution weights, zero biases (DCGAN,
    https://arxiv.org/abs/1511.06434).

    A spectrally normalised weight is derived anew at every access, so the tensor behind it is the one to initialise.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        normalised = parametrize.is_parametrized(module, "weight")
        weight = module.parametrizations.weight.original if normalised else module.weight
        nn.init.normal_(weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)


def add_spectral_norm(network):
    """Divide every convolution weight of ``network`` by its largest singular value
    (https://arxiv.org/abs/1802.05957); returns the network.

    To be called after initialisation, whose weights the first estimate of the singular vectors needs.
    """
    for module in list(network.modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            parametrizations.spectral_norm(module)
    return network


def fold_spectral_norm(network):
    """Replace each normalised weight by its present value, for translation; returns the network, in eval mode."""
    network.eval()  # in training mode the removal would do one more power iteration
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


class SelfAttention(nn.Module):
    """Every position looks at every other one (SAGAN, https://arxiv.org/abs/1805.08318): N×C×H×W to the same shape.

    y = x + gamma · softmax(q kᵀ) v, with C//8 channels in query and key, C in value, and gamma starting at 0, so that
    a new network begins with local evidence alone. The softmax is not scaled by 1/√d, as in SAGAN.
    """

    def __init__(self, channels):
        super().__init__()
        self.query = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.key = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        def tokens(features):  # N×K×H×W → N×1×HW×K, one attention head
            return features.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()

        q, k, v = tokens(self.query(x)), tokens(self.key(x)), tokens(self.value(x))
        # The fused kernels want q, k and v equally wide. Zeros add nothing to q kᵀ, so this is exact.
        missing = v.shape[-1] - q.shape[-1]
        q, k = F.pad(q, (0, missing)), F.pad(k, (0, missing))
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return x + self.gamma * attended.squeeze(1).transpose(1, 2).reshape(x.shape)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), reflection-padded (https://arxiv.org/abs/1603.08155)."""

    def __init__(self, channels):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x):
        return x + self.block(x)


class CriticResidualBlock(nn.Module):
    """x + conv(dropout(lrelu(conv(lrelu(x))))). No norm: the gradient penalty constrains the critic instead."""

    def __init__(self, channels, dropout):
        super().__init__()
        self.block = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x):
        return x + self.block(x)


class GeneratorResNet(nn.Module):
    """Translates images, N×C×H×W in [-1, 1] to the same: down by 4, residual blocks, attention, up by 4.

    H and W must be divisible by ``MULTIPLE`` and at least ``MIN_SIZE``.
    """

    def __init__(self, channels=3, ngf=64, n_residual_blocks=9, attention=True, spectral_norm=True):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, ngf, 7, padding=3, padding_mode="reflect"),  # C×H×W → ngf×H×W
            nn.InstanceNorm2d(ngf),
            nn.ReLU(inplace=True),
            *self._down(ngf, 2 * ngf),
            *self._down(2 * ngf, 4 * ngf),  # → 4·ngf × H/4 × W/4
        )
        self.transformer = nn.Sequential(*(ResidualBlock(4 * ngf) for _ in range(n_residual_blocks)))
        self.attention = SelfAttention(4 * ngf) if attention else nn.Identity()
        self.decoder = nn.Sequential(
            *self._up(4 * ngf, 2 * ngf),
            *self._up(2 * ngf, ngf),
            nn.Conv2d(ngf, channels, 7, padding=3, padding_mode="reflect"),  # → C×H×W
            nn.Tanh(),
        )
        self.apply(weights_init_normal)
        if spectral_norm:
            add_spectral_norm(self)

    @staticmethod
    def _down(channels_in, channels_out):
        conv = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)
        return conv, nn.InstanceNorm2d(channels_out), nn.ReLU(inplace=True)

    @staticmethod
    def _up(channels_in, channels_out):
        # Resize, then convolve: a transposed convolution overlaps unevenly and leaves a checkerboard.
        conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="reflect")
        return nn.Upsample(scale_factor=2), conv, nn.InstanceNorm2d(channels_out), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.decoder(self.attention(self.transformer(self.encoder(x))))


class Discriminator(nn.Module):
    """The critic: N×C×H×W in [-1, 1] to a patch map of scores, N×1×H//8×W//8, without bounds.

    Twelve convolutions where the 70×70 PatchGAN has five: three halve the image, two residual blocks with dropout
    (four) and the attention (three) work at an eighth of it, and the last two score each patch.
    """

    def __init__(self, channels=3, ndf=64, attention=True, spectral_norm=True, dropout=0.2):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, ndf, 4, stride=2, padding=1),  # → ndf × H/2 × W/2
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, 2 * ndf, 4, stride=2, padding=1),  # → 2·ndf × H/4 × W/4
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * ndf, 4 * ndf, 4, stride=2, padding=1),  # → 4·ndf × H/8 × W/8
        )
        self.blocks = nn.Sequential(CriticResidualBlock(4 * ndf, dropout), CriticResidualBlock(4 * ndf, dropout))
        self.attention = SelfAttention(4 * ndf) if attention else nn.Identity()
        self.score = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * ndf, 8 * ndf, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8 * ndf, 1, 3, padding=1),  # → 1 × H/8 × W/8
        )
        self.apply(weights_init_normal)
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, x):
        return self.score(self.attention(self.blocks(self.encoder(x))))


def build_generator(options):
    """A generator for ``options``: the command line's, or a checkpoint's."""
    return GeneratorResNet(
        options.channels, options.ngf, options.n_residual_blocks, options.attention, options.spectral_norm
    )


def build_critic(options):
    """A critic for ``options``."""
    return Discriminator(options.channels, options.ndf, options.attention, options.spectral_norm)
