"""Convolutions that give torch's result in less time: padded in their own precision, to an image's few channels, after
an upsampling, 3×3.

Feature maps are N×C×H×W. Nothing here changes a result beyond rounding.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn


def pad(x, padding, mode):
    """``F.pad`` in the precision of x: autocast on a CPU would make it float32, and copy it there and back."""
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, padding, mode)


class ReflectConv2d(nn.Conv2d):
    """Torch's convolution of odd size, padded by reflection so that the image keeps its own; see ``pad``."""

    def __init__(self, channels_in, channels_out, kernel_size):
        super().__init__(channels_in, channels_out, kernel_size, padding=kernel_size // 2, padding_mode="reflect")

    def forward(self, x):
        if winograd_pays(x, self.weight):
            return Winograd.apply(x, self.weight, self.bias)
        padded = pad(x, 4 * [self.padding[0]], "reflect")
        convolve = RowByRow.apply if rows_pay(x, self.weight) else F.conv2d
        return convolve(padded, self.weight, self.bias)


def eager_float32_on_a_cpu(x):
    """Whether x is computed with where the ways below can be faster than torch's. A compiler, or an exporter, sees
    torch's, and so does half precision."""
    cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return cpu and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


# ---------------------------------------------------------------------------------------------------------------------
# A convolution to an image's few channels
# ---------------------------------------------------------------------------------------------------------------------


def rows_pay(x, weight):
    """Whether ``RowByRow`` is faster than torch's convolution: from 8 channels or more to at most 4, by a large kernel
    (docs/performance.md)."""
    filters, channels, size, _ = weight.shape
    return eager_float32_on_a_cpu(x) and filters <= 4 and channels >= 8 and size >= 5


class RowByRow(torch.autograd.Function):
    """x N×C×H×W convolved with ``weight`` K×C×k×k, where K is small: N×K×(H−k+1)×(W−k+1).

    A processor computes 16 filters at once, and an image has 3 channels. So each row of the kernel becomes a filter of
    its own, k·K filters of 1×k, and the results are shifted and added. The backward pass is torch's.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        filters, channels, size, _ = weight.shape
        rows = F.conv2d(x, weight.permute(2, 0, 1, 3).reshape(size * filters, channels, 1, size))
        image, one, row, column = rows.stride()  # of which ``one`` is from a filter to the next
        shape = len(x), filters, size, x.shape[2] - size + 1, rows.shape[3]
        shifted = rows.as_strided(shape, (image, one, filters * one + row, row, column))  # N×K×k×(H−k+1)×(W−k+1)
        return shifted.sum(2) + bias[:, None, None]

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        plain = [1, 1], [0, 0], [1, 1], False, [0, 0], 1  # stride, padding, dilation, not transposed, one group
        return torch.ops.aten.convolution_backward(gradient, x, weight, [len(weight)], *plain, ctx.needs_input_grad)


# ---------------------------------------------------------------------------------------------------------------------
# A 3×3 convolution behind an upsampling
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# A 3×3 convolution by Winograd's minimal filtering
# ---------------------------------------------------------------------------------------------------------------------


def winograd_pays(x, weight):
    """Whether ``Winograd`` is faster than torch's convolution: 3×3, wide, of many pixels (docs/performance.md)."""
    if not eager_float32_on_a_cpu(x):  # first: a compiler cannot read the rest
        return False
    n, _, height, width = x.shape
    fits = weight.shape[2:] == (3, 3) and height % 4 == width % 4 == 0
    return fits and min(weight.shape[:2]) >= Winograd.WIDE and n * height * width >= Winograd.MANY


class Winograd(torch.autograd.Function):
    """x N×C×H×W, padded by reflection, convolved with ``weight`` K×C×3×3: N×K×H×W; H and W divisible by 4.

    F(4×4, 3×3) of Lavin and Gray (https://arxiv.org/abs/1509.09308): the 4×4 pixels of a tile cost 36 products a pair
    of channels instead of 144. Tiles of 6×6 and kernels are transformed (``transforms``), multiplied point by point,
    which is a matrix product over the channels, and transformed back. Rounding adds some 5e-5 of the result's standard
    deviation in float32; in bf16 it would be too much. Only x and the weight are kept for backward, which is made of
    torch's operations, so that it can be differentiated again.

    Tiles are taken in strips whose copies fit into the processor's cache.
    """

    WIDE = 128  # channels on both sides from which it pays
    MANY = 1024  # pixels from which what the kernels' transformation takes is made up for
    STRIP = 2**20  # numbers in the 36 values of all tiles of a strip

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        _, _, back = transforms(x.dtype)
        kernels = transformed_kernels(weight)
        n, channels, height, width = x.shape
        result = x.new_empty(n, height, width, len(weight))
        blocks = result.view(n, height // 4, 4, width // 4, 4, -1)
        for images, rows, tiles in strips(x):
            products = torch.bmm(tiles, kernels)
            strip = blocks[images, rows]
            pixels = (back @ products.flatten(1)).view(4, 4, *strip.shape[:2], *strip.shape[3::2])
            torch.add(pixels.permute(2, 3, 0, 4, 1, 5), bias, out=strip)
        return result.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_tiles, of_kernels, back = transforms(x.dtype)
        kernels = transformed_kernels(weight).transpose(1, 2)
        n, channels, height, width = x.shape
        blocks = gradient.permute(0, 2, 3, 1).reshape(n, height // 4, 4, width // 4, 4, -1)
        for_kernels = kernels.new_zeros(36, channels, len(weight))
        for_padded = x.new_zeros(n, height // 4 + 1, 4, width // 4 + 1, 4, channels)
        for images, rows, tiles in strips(x):
            strip = blocks[images, rows]
            products = (back.T @ strip.permute(2, 4, 0, 1, 3, 5).reshape(16, -1)).view(36, -1, len(weight))
            for_kernels.baddbmm_(tiles.transpose(1, 2), products)
            for_tiles = (of_tiles.T @ torch.bmm(products, kernels).flatten(1)).view(
                6, 6, *strip.shape[:2], -1, channels
            )
            add_tiles(for_padded[images, rows.start : rows.stop + 1], for_tiles.permute(2, 3, 0, 4, 1, 5))
        for_weight = (of_kernels.T @ for_kernels.flatten(1)).view(3, 3, channels, -1).permute(3, 2, 0, 1)
        for_padded = for_padded.view(n, height + 4, width + 4, channels).permute(0, 3, 1, 2)
        return unpad(for_padded[:, :, : height + 2, : width + 2]), for_weight, gradient.sum((0, 2, 3))


@cache
@torch.inference_mode(False)  # what is made in that mode could not be differentiated later
def transforms(dtype):
    """The matrices that transform tiles (36×36), kernels (36×9) and products back to pixels (16×36): Lavin and Gray's
    Bᵀ, G and Aᵀ, on rows and columns at once."""
    of_tiles = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]  # fmt: skip
    of_kernels = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # 24ths
    back = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    matrices = (torch.tensor(rows, dtype=torch.float64) for rows in (of_tiles, of_kernels, back))
    of_tiles, of_kernels, back = (torch.kron(matrix, matrix).to(dtype) for matrix in matrices)
    return of_tiles, of_kernels / 24**2, back


def transformed_kernels(weight):
    """``weight`` K×C×3×3 as 36×C×K."""
    _, of_kernels, _ = transforms(weight.dtype)
    return (of_kernels @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, *weight.shape[1::-1])


def strips(x):
    """The tiles of x N×C×H×W, strip by strip: which images, which rows of tiles, and 36×T×C, the transformed tiles."""
    of_tiles, _, _ = transforms(x.dtype)
    n, channels, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1), "reflect").permute(0, 2, 3, 1)
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)  # 6×6×N×H/4×W/4×C, no copy
    rows = max(Winograd.STRIP // (36 * width // 4 * channels), 1)
    images = max(rows // (height // 4), 1)
    for first in range(0, n, images):
        for top in range(0, height // 4, rows):
            which = slice(first, min(first + images, n)), slice(top, min(top + rows, height // 4))
            strip = tiles[:, :, which[0], which[1]].reshape(36, -1)
            yield *which, (of_tiles @ strip).view(36, -1, channels)


def add_tiles(padded, tiles):
    """Add overlapping tiles, N×h×6×w×6×C, to the image N×(h+1)×4×(w+1)×4×C of which they are views."""
    padded[:, :-1, :, :-1] += tiles[:, :, :4, :, :4]
    padded[:, 1:, :2, :-1] += tiles[:, :, 4:, :, :4]
    padded[:, :-1, :, 1:, :2] += tiles[:, :, :4, :, 4:]
    padded[:, 1:, :2, 1:, :2] += tiles[:, :, 4:, :, 4:]


def unpad(gradient):
    """The gradient of an image, N×C×H×W, of that of its padding by one pixel of reflection."""
    rows = gradient[:, :, 1:-1].clone()
    rows[:, :, 1] += gradient[:, :, 0]
    rows[:, :, -2] += gradient[:, :, -1]
    image = rows[..., 1:-1].contiguous(memory_format=torch.channels_last)
    image[..., 1] += rows[..., 0]
    image[..., -2] += rows[..., -1]
    return image
