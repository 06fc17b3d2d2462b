"""Spectral norm: a convolution's weight divided by its largest singular value (https://arxiv.org/abs/1802.05957).

The singular vectors are estimated by a power iteration for each half of a training step (``one_power_iteration``).
"""

from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn
from torch.linalg import vector_norm
from torch.nn.utils import parametrize

from layers import norm_classes, not_compiled

TINY = 1e-12  # the least that is divided by


class SpectralNorm(nn.Module):
    """A parametrization that divides a convolution weight by its largest singular value
    (https://arxiv.org/abs/1802.05957), taken as a matrix of channels out × all other axes; ``dim`` is the axis of the
    channels out.

    Values, first derivatives, random draws and names in a checkpoint are those of ``spectral_norm`` in
    torch.nn.utils.parametrizations. This one has fewer operations, which for small networks are most of its time, and
    several backward passes may go through one normalised weight. In training mode each call begins with a power
    iteration.
    """

    FIRST_ITERATIONS = 15

    def __init__(self, weight, dim):
        super().__init__()
        self.dim = dim
        matrix = as_matrix(weight.detach(), dim)
        u, v = (matrix.new_empty(size) for size in matrix.shape)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)
        if not matrix.is_meta:  # in a mere shape there is nothing to find
            self.begin(matrix)

    def begin(self, matrix):
        """Draw the singular vectors, and bring them near those of ``matrix``."""
        for vector in (self._u, self._v):
            vector.normal_()
            vector /= vector_norm(vector)
        for _ in range(self.FIRST_ITERATIONS):
            self.largest(matrix)

    def forward(self, weight):
        if weight.is_meta:  # a mere shape, which stays as it is
            return weight
        with torch.autocast(weight.device.type, enabled=False):  # the division by a norm needs the weight's precision
            return Normalised.apply(weight, *self.largest(as_matrix(weight.detach(), self.dim)), self.dim)

    def largest(self, matrix):
        """The left and right singular vectors u and v of the largest singular value of ``matrix``, and that itself."""
        if not self.training:
            u, v = self._u.clone(), self._v.clone()  # a later power iteration must not change what backward needs
            return u, v, torch.dot(u, matrix @ v)
        u = matrix @ self._v
        u /= vector_norm(u).clamp_min_(TINY)
        v = u @ matrix
        sigma = vector_norm(v).clamp_min_(TINY)  # uᵀ W v, for this v
        v /= sigma
        self._u.copy_(u)  # in place: DistributedDataParallel sends these buffers to all processes
        self._v.copy_(v)
        return u, v, sigma


class Normalised(torch.autograd.Function):
    """N = W/σ, where σ = uᵀ W v and the singular vectors u and v are constants. With G = ∂L/∂N,

        ∂L/∂W = (G − ⟨G, N⟩ u vᵀ) / σ.

    What backward needs is not given to ``save_for_backward``, whose tensors are gone after one: both directions of the
    generators' half step use the same N, and each has a backward of its own. Backward raises RuntimeError where the
    weight has changed since. It cannot be differentiated again, which the gradient penalty does not need: that
    differentiates twice by images, and by the weight only once.
    """

    @staticmethod
    def forward(ctx, weight, u, v, sigma, dim):
        ctx.weight, ctx.u, ctx.v, ctx.sigma, ctx.dim = weight, u, v, sigma, dim
        ctx.version = None if weight.is_inference() else weight._version  # those have no backward
        return weight / sigma

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        if ctx.weight._version != ctx.version:
            raise RuntimeError("a normalised weight was changed in place before backward")
        along = torch.sum(gradient * ctx.weight) / ctx.sigma
        outer = torch.outer(along * ctx.u, ctx.v).view(ctx.weight.transpose(0, ctx.dim).shape)
        return (gradient - outer.transpose(0, ctx.dim)) / ctx.sigma, None, None, None, None


def as_matrix(weight, dim):
    """A convolution weight as channels out × all else."""
    return weight.transpose(0, dim).flatten(1)


def add_spectral_norm(network):
    """Give the convolutions of ``network`` a SpectralNorm; returns the network.

    Not where a norm follows: it takes any factor of weight and bias out again, so that nothing would be gained. To be
    called after initialisation, whose weights the first estimate of the singular vectors needs.
    """
    norms = norm_classes()
    sequences = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    undone = {layer for layers in sequences for layer, after in pairwise(layers) if isinstance(after, norms)}
    for module in list(network.modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module not in undone:
            normalise(module)
    return network


def normalise(convolution):
    """Give one convolution a SpectralNorm."""
    dim = 1 if isinstance(convolution, nn.ConvTranspose2d) else 0
    parametrize.register_parametrization(convolution, "weight", SpectralNorm(convolution.weight, dim))


def fold_spectral_norm(network):
    """Replace each normalised weight by its present value, for translation; returns the network, in eval mode."""
    network.eval()  # in training mode the removal would do one more power iteration
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


@contextmanager
def one_power_iteration(*networks, settled=()):
    """Inside, each spectrally normalised weight is computed once, however often it is used: after one power iteration
    or, in the networks ``settled``, with the singular vectors that they have. Inside another ``parametrize.cached()``,
    once in the whole of it.
    """
    with parametrize.cached():
        compute_weights(networks, settled)
        yield


@not_compiled  # compiled functions have one backward
def compute_weights(networks, settled):
    """Put all normalised weights into the cache."""
    for network in (*networks, *settled):
        for module in filter(parametrize.is_parametrized, network.modules()):
            compute_weight(module, network in settled)


def compute_weight(module, settled):
    (norm,) = module.parametrizations.weight
    training = norm.training
    norm.training = training and not settled
    module.weight  # noqa: B018
    norm.training = training
