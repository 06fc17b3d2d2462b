"""Muon, an optimizer for convolutions (https://kellerjordan.github.io/posts/muon/)."""

from collections import defaultdict

import torch

from runtime.device import without_tf32

NARROW = 4  # up to so many channels in or out, a convolution mostly reads or writes images, or scores: not for Muon


def is_matrix(weight):
    """Whether Muon takes ``weight``: that of a convolution from and to more than ``NARROW`` channels."""
    return weight.dim() > 1 and min(weight.shape[:2]) > NARROW


class Muon(torch.optim.Adam):
    """Adam, but for weights that are ``is_matrix``: their step is the momentum of the gradient, with all its singular
    values made equal.

    A gradient mostly points in a few directions, which Adam follows; Muon goes as far in all the others. A convolution
    counts as a matrix of its first axis × all the rest. The root mean square of a step, where all directions are in the
    gradient, is ``SCALE`` times lr. So one learning rate serves both kinds of weights, as in
    https://arxiv.org/abs/2502.16982, which has 0.2 in the place of ``SCALE``. ``keywords`` are Adam's, and hold for its
    weights alone: so does weight decay.
    """

    SCALE = 2

    def __init__(self, weights, lr, betas, momentum=0.9, **keywords):
        weights = list(weights)
        others = {"params": [weight for weight in weights if not is_matrix(weight)]}
        matrices = {"params": [weight for weight in weights if is_matrix(weight)], "momentum": momentum}
        super().__init__([others, matrices], lr, betas, **keywords)
        self._step_supports_amp_scaling = False  # so a GradScaler skips steps, which Adam's fused kernel does itself

    @torch.no_grad()
    def step(self):
        """One step of all weights. The gradients of matrices are None afterwards."""
        _, group = self.param_groups[:2]
        gradients = {weight: weight.grad for weight in group["params"] if weight.grad is not None}
        for weight in gradients:
            weight.grad = None  # so Adam leaves it alone
        super().step()
        for weights in alike(gradients):
            axes = in_memory(weights[0])
            ahead = torch.stack([self._look_ahead(w, gradients[w], group["momentum"]).permute(axes) for w in weights])
            steps = orthogonalise(ahead.flatten(2)).view_as(ahead)
            torch._foreach_sub_([w.permute(axes) for w in weights], list(steps), alpha=self.SCALE * group["lr"])

    def _look_ahead(self, weight, gradient, decay):
        """Average ``gradient`` into the momentum of ``weight``, and once more into what is returned (Nesterov)."""
        state = self.state[weight]
        if not state:  # Adam looks for a step where it is loaded
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
        return gradient.lerp(state["momentum"].lerp_(gradient, 1 - decay), decay)


def alike(weights, numbers=2**21):
    """The weights in lists, each of one shape and memory format and, where it has more than one, of at most so many
    ``numbers``.

    What is made of a list at a time then stays small: in memory, and for the caches of a CPU.
    """
    lists = defaultdict(list)
    for weight in weights:
        lists[weight.shape, weight.stride()].append(weight)
    for (shape, _), same in lists.items():
        length = max(1, numbers // shape.numel())
        yield from (same[first : first + length] for first in range(0, len(same), length))


def in_memory(weight):
    """The axes of ``weight`` in the order in which they lie in memory, the first one first: nothing is moved to make a
    matrix of it then, and the order of a matrix's columns makes no difference to its singular values."""
    return [0, *sorted(range(1, weight.dim()), key=weight.stride, reverse=True)]


@without_tf32()
def orthogonalise(matrices, iterations=5):
    """Matrices N×R×C with their singular values brought near one another, and a root mean square near 1: N×R×C.

    Newton-Schulz iterations of fifth order X ← (a + b·XXᵀ + c·(XXᵀ)²) X, with the coefficients of Muon: singular values
    from 0.0015 of the norm on end between 0.68 and 1.21, times √max(R, C). Each XXᵀ is a polynomial of the first one,
    so the factors of all iterations are multiplied with one another, R×R, before X is multiplied by them. Where X has
    few directions, that needs all digits of float32.
    """
    rows, columns = matrices.shape[1:]
    if rows > columns:
        return orthogonalise(matrices.mT, iterations).mT
    squared = matrices @ matrices.mT
    norm = squared.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].sqrt() + 1e-12
    squared = squared / norm**2
    product = factor = quintic(squared)
    for _ in range(iterations - 1):
        squared = factor @ squared @ factor
        factor = quintic(squared)
        product = factor @ product
    return (product * (columns**0.5 / norm)) @ matrices


def quintic(squared, a=3.4445, b=-4.7750, c=2.0315):
    """The factor a + b·XXᵀ + c·(XXᵀ)² of X in an iteration, for ``squared`` XXᵀ: N×R×R."""
    factor = torch.baddbmm(squared, squared, squared, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor
