"""The networks: generators and critics, assembled from the same few blocks.

Images are float tensors N×C×H×W in [-1, 1]. All networks are fully convolutional: any H and W that are divisible by
their ``multiple`` and at least their ``min_size`` (attributes, in pixels) will do.
"""

from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint


class InstanceNorm2d(nn.InstanceNorm2d):
    """Torch's, but on a CPU by the kernel of group norm, which computes the same faster. (Not on a GPU: there autocast
    would make it float32.)"""

    def forward(self, x):
        if x.device.type == "cpu" and not self.track_running_stats:
            return F.group_norm(x, x.shape[1], eps=self.eps)
        return super().forward(x)


class LayerNorm2d(nn.Module):
    """Each image by one mean and one variance, over channels and pixels (https://arxiv.org/abs/1607.06450), and no
    parameters: N×C×H×W to the same.

    Unlike an instance norm it leaves a channel flat where the image is flat, instead of stretching what little there is
    in it to variance 1.

    On a CPU by the kernel of group norm, which is the fastest there. On a GPU that kernel, like layer norm's, gives
    each image to one thread block (aten/src/ATen/native/cuda/group_norm_kernel.cu in PyTorch), and one multiprocessor
    works while the others wait; a reduction is split over as many as there are (Reduce.cuh, beside it).
    """

    eps = 1e-5

    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return F.group_norm(x, 1, eps=self.eps) if x.device.type == "cpu" else standardize(x, self.eps)


def standardize(x, eps):
    """Each image N×C×H×W minus its mean, over its standard deviation; computed in float32 at least, in x's type."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, (1, 2, 3), unbiased=False, keepdim=True)
    return ((wide - mean) * torch.rsqrt(variance + eps)).to(x.dtype)


NORMS = {"instance": InstanceNorm2d, "layer": LayerNorm2d, "batch": nn.BatchNorm2d, "none": nn.Identity}


def weights_init_normal(module):
    """Initialise one module in place, for ``network.apply`` (DCGAN, https://arxiv.org/abs/1511.06434): convolution
    weights from N(0, 0.02), scales of batch norm from N(1, 0.02), biases 0.

    A spectrally normalised weight is derived anew at every access, so the tensor behind it is the one to initialise.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        normalised = parametrize.is_parametrized(module, "weight")
        weight = module.parametrizations.weight.original if normalised else module.weight
        nn.init.normal_(weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)


def add_spectral_norm(network):
    """Divide the convolution weights of ``network`` by their largest singular values
    (https://arxiv.org/abs/1802.05957); returns the network.

    Not where a norm follows: it takes any factor of weight and bias out again, so that nothing would be gained. To be
    called after initialisation, whose weights the first estimate of the singular vectors needs.
    """
    norms = nn.InstanceNorm2d, LayerNorm2d, nn.BatchNorm2d
    sequences = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    undone = {layer for layers in sequences for layer, after in pairwise(layers) if isinstance(after, norms)}
    for module in list(network.modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module not in undone:
            parametrizations.spectral_norm(module)
    return network


def fold_spectral_norm(network):
    """Replace each normalised weight by its present value, for translation; returns the network, in eval mode."""
    network.eval()  # in training mode the removal would do one more power iteration
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


@contextmanager
def normalised_once(*networks):
    """Inside, each spectrally normalised weight is computed once (one power iteration), however often it is used.

    In the weight's own precision: half of it would not do for a division by a norm.
    """
    with parametrize.cached():
        for module in (module for network in networks for module in network.modules()):
            if parametrize.is_parametrized(module, "weight"):
                with torch.autocast(module.parametrizations.weight.original.device.type, enabled=False):
                    module.weight  # noqa: B018 (its value is now in the cache)
        yield


def in_turn(stages, x, recompute):
    """x through each of ``stages``. With ``recompute``, backward computes anew what lies within a stage, instead of
    finding it in memory: exact, about a third slower, and only what stands between the stages is kept.
    """
    for stage in stages:
        x = checkpoint(stage, x, use_reentrant=False) if recompute and torch.is_grad_enabled() else stage(x)
    return x


def finish(network, spectral_norm):
    """The last lines of every network's constructor.

    ``network.sees_samples_alone`` tells whether each image passes as if it were the only one of its batch, so that
    batches may be joined.
    """
    network.sees_samples_alone = not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    network.apply(weights_init_normal)
    if spectral_norm:
        add_spectral_norm(network)


# ---------------------------------------------------------------------------------------------------------------------
# Blocks
# ---------------------------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Every position looks at every other one (SAGAN, https://arxiv.org/abs/1805.08318): N×C×H×W to the same shape.

    y = x + gamma · softmax(q kᵀ) v, with C//8 channels in query and key, C in value, and gamma starting at 0, so that
    a new network begins with local evidence alone. The softmax is not scaled by 1/√d, as in SAGAN. ``seen``, N×C×H'×W',
    holds other positions to look at than those of x.
    """

    SMALL = 32 * 32  # positions up to which the matrix of all by all is cheaper than the zeros that avoid it

    def __init__(self, channels):
        super().__init__()
        self.query = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.key = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x, seen=None):
        seen = x if seen is None else seen

        def tokens(features):  # N×K×H×W → N×1×HW×K, one attention head
            return features.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()

        q, k, v = tokens(self.query(x)), tokens(self.key(seen)), tokens(self.value(seen))
        if q.shape[2] > self.SMALL:
            # The fused kernels want q, k and v equally wide. Zeros add nothing to q kᵀ, so this is exact.
            missing = v.shape[-1] - q.shape[-1]
            q, k = F.pad(q, (0, missing)), F.pad(k, (0, missing))
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return x + self.gamma * attended.squeeze(1).transpose(1, 2).reshape(x.shape)


class ResidualBlock(nn.Module):
    """x + norm(conv([dropout] relu(norm(conv(x))))), the convolutions 3×3 (https://arxiv.org/abs/1603.08155)."""

    def __init__(self, channels, norm="instance", dropout=False, padding_mode="reflect", bias=True):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode, bias=bias),
            NORMS[norm](channels),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode, bias=bias),
            NORMS[norm](channels),
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


# ---------------------------------------------------------------------------------------------------------------------
# Generators
# ---------------------------------------------------------------------------------------------------------------------


def normed(norm, channels, *convolution):
    """The layers of a convolution to ``channels``, then norm and ReLU."""
    return *convolution, NORMS[norm](channels), nn.ReLU(inplace=True)


def resize_up(norm, channels_in, channels_out):
    """Twice the size by nearest neighbour, then a convolution: no checkerboard, since nothing overlaps unevenly.

    A layer norm takes the place of an instance norm, which would draw black blobs into images that are nearly flat.
    """
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="reflect")
    return normed("layer" if norm == "instance" else norm, channels_out, nn.Upsample(scale_factor=2), convolution)


def transposed_up(norm, channels_in, channels_out):
    """Twice the size by a transposed convolution, as in the CycleGAN paper."""
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
    return normed(norm, channels_out, convolution)


class GeneratorResNet(nn.Module):
    """Translates images, N×C×H×W in [-1, 1] to the same: down by 4, residual blocks, attention, up by 4.

    With ``transposed_up``, without attention and spectral norm it is the generator of the CycleGAN paper.
    """

    multiple, min_size = 4, 8
    checkpoint_activations = False

    def __init__(
        self,
        channels=3,
        ngf=64,
        n_residual_blocks=9,
        norm="instance",
        dropout=False,
        attention=True,
        spectral_norm=True,
        up=resize_up,
        channels_out=None,
        squash=nn.Tanh,
    ):
        super().__init__()
        self.encoder = nn.Sequential(
            *normed(norm, ngf, nn.Conv2d(channels, ngf, 7, padding=3, padding_mode="reflect")),  # → ngf×H×W
            *normed(norm, 2 * ngf, nn.Conv2d(ngf, 2 * ngf, 3, stride=2, padding=1)),
            *normed(norm, 4 * ngf, nn.Conv2d(2 * ngf, 4 * ngf, 3, stride=2, padding=1)),  # → 4·ngf × H/4 × W/4
        )
        self.transformer = nn.Sequential(*(ResidualBlock(4 * ngf, norm, dropout) for _ in range(n_residual_blocks)))
        self.attention = SelfAttention(4 * ngf) if attention else nn.Identity()
        self.decoder = nn.Sequential(
            *up(norm, 4 * ngf, 2 * ngf),
            *up(norm, 2 * ngf, ngf),
            nn.Conv2d(ngf, channels_out or channels, 7, padding=3, padding_mode="reflect"),  # → C×H×W
            squash(),
        )
        finish(self, spectral_norm)

    def forward(self, x):
        return in_turn([self.encoder, *self.transformer, self.attention, self.decoder], x, self.checkpoint_activations)


class GeneratorNotebook(nn.Module):
    """The generator of Udacity's notebook: three 4×4 convolutions down by 8, residual blocks, three transposed up.

    Zero padding, and no biases, as in the helper functions of that course. N×C×H×W in [-1, 1] to the same.
    """

    multiple, min_size = 8, 16
    checkpoint_activations = False

    def __init__(
        self, channels=3, ngf=64, n_residual_blocks=6, norm="batch", dropout=False, attention=False, spectral_norm=False
    ):
        super().__init__()

        def down(channels_in, channels_out):
            return normed(norm, channels_out, nn.Conv2d(channels_in, channels_out, 4, 2, padding=1, bias=False))

        def up(channels_in, channels_out):
            return normed(
                norm, channels_out, nn.ConvTranspose2d(channels_in, channels_out, 4, 2, padding=1, bias=False)
            )

        self.encoder = nn.Sequential(*down(channels, ngf), *down(ngf, 2 * ngf), *down(2 * ngf, 4 * ngf))  # → H/8 × W/8
        self.transformer = nn.Sequential(
            *(ResidualBlock(4 * ngf, norm, dropout, "zeros", bias=False) for _ in range(n_residual_blocks))
        )
        self.attention = SelfAttention(4 * ngf) if attention else nn.Identity()
        self.decoder = nn.Sequential(
            *up(4 * ngf, 2 * ngf),
            *up(2 * ngf, ngf),
            nn.ConvTranspose2d(ngf, channels, 4, stride=2, padding=1, bias=False),
            nn.Tanh(),
        )
        finish(self, spectral_norm)

    def forward(self, x):
        return in_turn([self.encoder, *self.transformer, self.attention, self.decoder], x, self.checkpoint_activations)


# ---------------------------------------------------------------------------------------------------------------------
# Critics
# ---------------------------------------------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """The critic: N×C×H×W in [-1, 1] to a patch map of scores, N×1×H//8×W//8, without bounds.

    Twelve convolutions where the 70×70 PatchGAN has five: three halve the image, two residual blocks with dropout
    (four) and the attention (three) work at an eighth of it, and the last two score each patch.
    """

    min_size = 8

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
        finish(self, spectral_norm)

    def forward(self, x):
        return self.score(self.attention(self.blocks(self.encoder(x))))


class PatchGAN(nn.Module):
    """Four 4×4 convolutions, then one that scores: N×C×H×W in [-1, 1] to a patch map of scores N×1×H'×W'.

    ``strides`` are those of the four. Each patch sees as many pixels as they add up to: 94×94 for (2, 2, 2, 2), and the
    70×70 of the CycleGAN paper for (2, 2, 2, 1). ``pad_before_score`` adds a row above and a column at the left, so
    that the last convolution keeps the size: H//16 × W//16 with strides of 2.
    """

    min_size = 32

    def __init__(
        self,
        channels=3,
        ndf=64,
        norm="instance",
        attention=False,
        spectral_norm=False,
        strides=(2, 2, 2, 1),
        pad_before_score=False,
        activation=lambda: nn.LeakyReLU(0.2, inplace=True),
        bias=True,
    ):
        super().__init__()
        widths = [channels, ndf, 2 * ndf, 4 * ndf, 8 * ndf]
        layers = []
        for i, stride in enumerate(strides):
            layers.append(nn.Conv2d(widths[i], widths[i + 1], 4, stride, padding=1, bias=bias))
            if i > 0:  # none on the first layer, which would hide the colours
                layers.append(NORMS[norm](widths[i + 1]))
            layers.append(activation())
        if attention:
            layers.append(SelfAttention(8 * ndf))
        if pad_before_score:
            layers.append(nn.ZeroPad2d((1, 0, 1, 0)))
        layers.append(nn.Conv2d(8 * ndf, 1, 4, padding=1, bias=bias))
        self.model = nn.Sequential(*layers)
        finish(self, spectral_norm)

    def forward(self, x):
        return self.model(x)


# ---------------------------------------------------------------------------------------------------------------------
# By name
# ---------------------------------------------------------------------------------------------------------------------

GENERATORS = {
    "attention": GeneratorResNet,
    "resnet": partial(GeneratorResNet, up=transposed_up),
    "notebook": GeneratorNotebook,
}
CRITICS = {
    "attention": lambda norm, **rest: Discriminator(**rest),  # has no norm: the gradient penalty constrains it
    "patchgan": partial(PatchGAN, strides=(2, 2, 2, 2), pad_before_score=True),
    "patch70": PatchGAN,
    "notebook": partial(PatchGAN, strides=(2, 2, 2, 2), activation=lambda: nn.ReLU(inplace=True), bias=False),
}


def build_generator(options):
    """A generator for ``options``: the command line's, or a checkpoint's."""
    return GENERATORS[options.gen_net](
        channels=options.channels,
        ngf=options.ngf,
        n_residual_blocks=options.n_residual_blocks,
        norm=options.norm,
        dropout=options.dropout,
        attention=options.attention,
        spectral_norm=options.spectral_norm,
    )


def build_critic(options):
    """A critic for ``options``."""
    return CRITICS[options.dis_net](
        channels=options.channels,
        ndf=options.ndf,
        norm=options.norm,
        attention=options.attention,
        spectral_norm=options.spectral_norm,
    )
