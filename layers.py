"""What the networks' blocks are made with: norms, spectral norm, and activations that are computed twice.

Images and feature maps are N×C×H×W.
"""

from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from registry import NORMS, load


def pad(x, padding, mode):
    """``F.pad`` in the precision of x: autocast on a CPU would make it float32, and copy it there and back."""
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, padding, mode)


class ReflectConv2d(nn.Conv2d):
    """Torch's convolution of odd size, padded by reflection so that the image keeps its own; see ``pad``."""

    def __init__(self, channels_in, channels_out, kernel_size):
        super().__init__(channels_in, channels_out, kernel_size, padding=kernel_size // 2, padding_mode="reflect")

    def forward(self, x):
        return F.conv2d(pad(x, 4 * [self.padding[0]], "reflect"), self.weight, self.bias)


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


def norm_layer(norm, channels):
    """The norm of that name for N×channels×H×W; see NORMS in registry.py."""
    return load(NORMS[norm])(channels)


def mixes_samples(network):
    """Whether what comes out for an image depends on the others of its batch, as under batch norm."""
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


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
def one_power_iteration(*networks):
    """Inside, each spectrally normalised weight is computed once (one power iteration), however often it is used.

    In the weight's own precision, whatever autocast says: the division by a norm needs all of it.
    """
    with parametrize.cached():
        for module in (module for network in networks for module in network.modules()):
            if parametrize.is_parametrized(module, "weight"):
                with torch.autocast(module.parametrizations.weight.original.device.type, enabled=False):
                    module.weight  # noqa: B018 (its value is now in the cache)
        yield


def convolve_doubled(x, weight, bias):
    """x N×C×H×W, doubled by nearest neighbours and padded by reflection, convolved with a 3×3 ``weight``:
    N×C'×2H×2W.

    Nearest neighbours are a transposed convolution with 2×2 ones, so that both convolutions are one, transposed, 4×4
    and of stride 2, with four ninths of the products: exactly the same. Reflection on the doubled image repeats the
    border of x.
    """
    rows = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    kernel = (F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))).flip(2, 3).transpose(0, 1)
    return F.conv_transpose2d(pad(x, (1, 1, 1, 1), "replicate"), kernel, bias, stride=2, padding=3)


class Decoder(nn.Sequential):
    """Layers one after the other; an upsampling by nearest neighbours and the 3×3 convolution behind it as one, where
    that is faster: in bf16 on a CPU, from 128 channels on (docs/performance.md)."""

    WIDE = 128

    def forward(self, x):
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, nn.Upsample) and layer.mode == "nearest" and self.folds(x):
                convolution = next(layers)
                x = convolve_doubled(x, convolution.weight, convolution.bias)
            else:
                x = layer(x)
        return x

    def folds(self, x):
        """Whether x is so wide, and in such a precision."""
        half = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        return half and torch.get_autocast_dtype("cpu") == torch.bfloat16 and x.shape[1] >= self.WIDE


def run_stages(stages, x, checkpoint_activations):
    """x through each of ``stages``. With ``checkpoint_activations`` only what passes between the stages is kept for
    backward, which computes the rest again: the same result with less memory, about a third slower.
    """
    for stage in stages:
        again = checkpoint_activations and torch.is_grad_enabled()
        x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
    return x
