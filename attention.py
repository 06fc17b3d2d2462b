"""Attention, softmax(q kᵀ) v: on a GPU by torch's kernels, on a CPU by a way of its own that is faster there.

Queries are N×Q×D, keys N×K×D, values N×K×C, and what comes out N×Q×C.
"""

import torch
import torch.nn.functional as F

MANY = 32 * 32  # queries; of more, no weights are kept for backward
STRIP = 256  # queries whose weights are computed at once, in a processor's cache


def attend(q, k, v):
    """The mean of the values v for each query in q, weighted by the softmax of its products with the keys k.

    Memory grows with the number of queries, not with its square: not all weights are there at once.
    """
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        return attend_by_kernels(q, k, v)
    q, k = widened(q), widened(k)  # once, and not for each strip
    if q.shape[1] > MANY:
        return StripByStrip.apply(q, k, v)
    return torch.cat([attend_in_full(strip, k, v) for strip in q.split(STRIP, 1)], 1)


def attend_by_kernels(q, k, v):
    """``attend`` by torch's kernels."""
    if q.shape[1] > MANY:
        # The fused ones want q, k and v equally wide. Zeros add nothing to q kᵀ, so this is exact.
        missing = v.shape[2] - q.shape[2]
        q, k = F.pad(q, (0, missing)), F.pad(k, (0, missing))
    heads = (each[:, None] for each in (q, k, v))  # one head
    return F.scaled_dot_product_attention(*heads, scale=1.0)[:, 0]


def widened(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def weights(q, k):
    """The softmax of q kᵀ, N×Q×K, in float32 at least: in 16 bits large products would lose what tells them apart."""
    return torch.bmm(widened(q), widened(k).transpose(1, 2)).softmax(2)


def attend_in_full(q, k, v):
    """``attend`` with all weights at once."""
    with torch.autocast(q.device.type, enabled=False):
        return torch.bmm(weights(q, k).to(v.dtype), v)


class StripByStrip(torch.autograd.Function):
    """``attend`` for STRIP queries at a time, of q and k that are ``widened``. Weights are not kept for backward but
    computed again."""

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(q, k, v)
        # Made at once: small results left between the large weights would break memory into pieces.
        attended = v.new_empty(*q.shape[:2], v.shape[2])
        for strip, result in zip(q.split(STRIP, 1), attended.split(STRIP, 1), strict=True):
            result.copy_(attend_in_full(strip, k, v))
        return attended

    @staticmethod
    def backward(ctx, gradient):
        """Made of torch's operations, so that it can be differentiated again."""
        q, k, v = ctx.saved_tensors
        for_q, for_k, for_v = [], torch.zeros_like(k), torch.zeros_like(v, dtype=k.dtype)
        with torch.autocast(q.device.type, enabled=False):
            for strip, of_strip in zip(q.split(STRIP, 1), gradient.split(STRIP, 1), strict=True):
                shares = weights(strip, k)
                for_v = for_v + torch.bmm(shares.to(v.dtype).transpose(1, 2), of_strip)
                of_shares = torch.bmm(of_strip, v.transpose(1, 2)).to(k.dtype)
                of_products = torch.ops.aten._softmax_backward_data(of_shares, shares, 2, k.dtype)
                for_q.append(torch.bmm(of_products, k))
                for_k = for_k + torch.bmm(of_products.transpose(1, 2), strip)
        return torch.cat(for_q, 1), for_k, for_v.to(v.dtype)
