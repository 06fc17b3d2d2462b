"""Muon, an optimizer for convolutions (https://kellerjordan.github.io/posts/muon/)."""

from collections import defaultdict

import torch


class Muon(torch.optim.Adam):
    """Adam, but for weights with two axes and more: their step is the momentum of the gradient, with all its singular
    values made equal.

    A gradient mostly points in a few directions, which Adam follows; Muon goes as far in all the others. A convolution
    counts as a matrix of its first axis × all the rest. A step has ``SCALE`` · lr as its root mean square, as in
    https://arxiv.org/abs/2502.16982, so that one learning rate serves both kinds of weights.
    """

    SCALE = 2

    def __init__(self, weights, lr, betas, momentum=0.9, **keywords):
        weights = list(weights)
        matrices, vectors = ([w for w in weights if (w.dim() > 1) == many_axes] for many_axes in (True, False))
        super().__init__([{"params": vectors}, {"params": matrices, "momentum": momentum}], lr, betas, **keywords)
        self._step_supports_amp_scaling = False  # so a GradScaler skips steps, which Adam's fused kernel does itself

    @torch.no_grad()
    def step(self):
        """Uses up the gradients of all matrices."""
        group = self.param_groups[1]
        gradients = {weight: weight.grad for weight in group["params"] if weight.grad is not None}
        for weight in gradients:
            weight.grad = None  # so Adam leaves it alone
        super().step()
        for weights in of_same_shape(gradients):
            ahead = torch.stack([self.momentum(w, gradients[w], group["momentum"]) for w in weights])
            steps = self.SCALE * group["lr"] * orthogonalise(ahead.flatten(2)).view_as(ahead)
            torch._foreach_sub_(weights, list(steps))

    def momentum(self, weight, gradient, decay):
        """Average ``gradient`` into the momentum of ``weight``; returns a look ahead at its next value (Nesterov)."""
        state = self.state[weight]
        if not state:
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
        state["step"] += 1  # Adam looks for it where it is loaded
        return gradient.lerp(state["momentum"].lerp_(gradient, 1 - decay), decay)


def of_same_shape(weights):
    """The weights in lists, one for each shape."""
    lists = defaultdict(list)
    for weight in weights:
        lists[weight.shape].append(weight)
    return lists.values()


def orthogonalise(matrices, iterations=5):
    """Matrices N×R×C with their singular values brought near one another, and a root mean square near 1: N×R×C.

    Newton-Schulz iterations of fifth order X ← (a + b·XXᵀ + c·(XXᵀ)²) X, with the coefficients of Muon: singular values
    from 0.0015 of the norm on end between 0.68 and 1.21, times √max(R, C). All factors are polynomials of the first
    XXᵀ, which is small: so they are multiplied with one another, and X but once.
    """
    rows, columns = matrices.shape[1:]
    if rows > columns:
        return orthogonalise(matrices.mT, iterations).mT
    matrices = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-12)
    squared = matrices @ matrices.mT
    product = factor = quintic(squared)
    for _ in range(iterations - 1):
        squared = factor @ squared @ factor
        factor = quintic(squared)
        product = factor @ product
    return product @ matrices * columns**0.5


def quintic(squared, a=3.4445, b=-4.7750, c=2.0315):
    """The factor a + b·XXᵀ + c·(XXᵀ)² of X in an iteration, for ``squared`` XXᵀ: N×R×R."""
    identity = torch.eye(squared.shape[1], dtype=squared.dtype, device=squared.device)
    return a * identity + squared @ (b * identity + c * squared)
