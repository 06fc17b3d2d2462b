"""What networks are made with beside convolutions: norms, and activation checkpointing.

Images and feature maps are N×C×H×W.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from registry import NORMS, load

# torch.compiler.disable imports the compiler at once, a second or two of each start; that of torch's own parts waits.
not_compiled = getattr(torch, "_disable_dynamo", torch.compiler.disable)


class InstanceNorm2d(nn.InstanceNorm2d):
    """Torch's, but on a CPU by kernels that compute the same faster: that of group norm or, in channels_last, that of
    batch norm for one image at a time. (Not on a GPU: there autocast would make it float32.)

    In channels_last both take sums of squares, in which a variance drowns that is small beside the square of its mean.
    So translation, where each digit of 16 bits counts, takes the mean off first; then whole images are what tiles and
    exported models make of them. In training batch norm's 1e-4 of a standard deviation would not pay for that.
    """

    SMALL = 1024  # pixels; below, group norm's kernel in channels_last is not vectorised (its backward never is)

    def forward(self, x):
        if x.device.type != "cpu" or self.affine or self.track_running_stats:
            return super().forward(x)
        channels_last, trains = in_channels_last(x), torch.is_grad_enabled()
        if channels_last and not trains:
            x = x - x.mean((2, 3), keepdim=True)
        if channels_last and (trains or x.shape[2] * x.shape[3] < self.SMALL):
            return image_by_image(x, self.eps)
        return F.group_norm(x, x.shape[1], eps=self.eps)


def in_channels_last(x):
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def image_by_image(x, eps):
    """The instance norm of x, N×C×H×W, by batch norm's kernel.

    In half precision it rounds mean and variance as it does x, so a flat channel becomes exactly 0, where ReLU stops
    the gradient. Kept in float32 (which weights in that type would do), the mean of a flat channel is off by rounding,
    and each norm behind it makes the gradient of a blank image 300 times as large.
    """
    if len(x) > 1:
        return torch.cat([image_by_image(image, eps) for image in x.split(1)])
    return F.batch_norm(x, None, None, training=True, eps=eps)


class LayerNorm2d(nn.Module):
    """Each image by one mean and one variance, over channels and pixels (https://arxiv.org/abs/1607.06450), and no
    parameters: N×C×H×W to the same.

    Unlike an instance norm it leaves a channel flat where the image is flat, instead of stretching what little there is
    in it to variance 1.

    On a CPU by the kernel of group norm, the fastest there. For channels_last that kernel would take sums of squares
    (see InstanceNorm2d). Such a tensor is contiguous as N×H×W×C, and for one mean over all values their order is the
    same.

    On a GPU that kernel, like layer norm's, gives each image to one thread block
    (aten/src/ATen/native/cuda/group_norm_kernel.cu in PyTorch), and one multiprocessor works while the others wait; a
    reduction is split over as many as there are (Reduce.cuh, beside it).
    """

    eps = 1e-5

    def __init__(self, channels):  # which other norms need
        super().__init__()

    def forward(self, x):
        if x.device.type != "cpu":
            return standardize(x, self.eps)
        if in_channels_last(x):
            return F.group_norm(x.permute(0, 2, 3, 1), 1, eps=self.eps).permute(0, 3, 1, 2)
        return F.group_norm(x, 1, eps=self.eps)


def standardize(x, eps):
    """Each image N×C×H×W minus its mean, over its standard deviation; computed in float32 at least, in x's type."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, (1, 2, 3), unbiased=False, keepdim=True)
    return ((wide - mean) * torch.rsqrt(variance + eps)).to(x.dtype)


def norm_layer(norm, channels):
    """The norm of that name for N×channels×H×W; see NORMS in registry.py."""
    return load(NORMS[norm])(channels, **NORMS[norm].keywords)


def norm_classes():
    """Those of NORMS, and torch's instance norm: for ``isinstance``."""
    kinds = (load(entry) for name, entry in NORMS.items() if name != "none")
    return nn.InstanceNorm2d, *(kind for kind in kinds if isinstance(kind, type))


def mixes_samples(network):
    """Whether what comes out for an image depends on the others of its batch: under batch norm, and where a module says
    so of itself by an attribute of this name."""
    kinds = nn.BatchNorm2d, nn.SyncBatchNorm
    return any(isinstance(part, kinds) or getattr(part, "mixes_samples", False) for part in network.modules())


def run_stages(stages, x, checkpoint_activations):
    """x through each of ``stages``. With ``checkpoint_activations`` only what passes between the stages is kept for
    backward, which computes the rest again: the same result with less memory, about a third slower.
    """
    for stage in stages:
        again = checkpoint_activations and torch.is_grad_enabled()
        x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
    return x
