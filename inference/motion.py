"""How a frame follows from the one before: by a cut, or by a shift of the whole picture."""

import torch
import torch.nn.functional as F

CUT = 0.1  # of the range
TAPS = 7  # on each side of the windowed sinc that moves by fractions
STEPS = 3
LEAST = 16  # pixels a side that two frames must have in common
LEFT = 0.8  # how much of the difference between two frames a shift may leave, to be believed


def follow(frame, before):
    """(dy, dx) in pixels by which the picture has moved from ``before`` to ``frame``, C×H×W in [-1, 1]; None at a cut.

    There is a cut where the size changes; or where no shift explains the frame, and it differs from the one before by
    more than a tenth of the range on average, both shrunk to 16×16 means. A fade has none.
    """
    if before is None or frame.shape != before.shape:
        return None
    step = shift(frame, before)
    return None if step == (0, 0) and differ(frame, before) else step


def differ(frame, before):
    small, small_before = (F.adaptive_avg_pool2d(image, 16) for image in (frame, before))
    return ((small - small_before).abs().mean() / 2 > CUT).item()


def shift(frame, before):
    """As ``follow``, with fractions of pixels, and never None.

    To a whole pixel by phase correlation (Kuglin and Hines 1975), then by steps of Lucas and Kanade (1981) over the
    whole picture. It is (0, 0) unless that explains ``frame`` clearly better than standing still does: where things
    move before a camera that does not, nothing is to be followed.
    """
    now, then = frame.mean(0), before.mean(0)
    dy, dx = whole_shift(now, then)
    now_there, then_here = overlap(now, then, dy, dx)
    if any(2 * part < side or part < LEAST + 2 * TAPS for part, side in zip(now_there.shape, now.shape, strict=True)):
        return 0.0, 0.0
    seen, guess, more = inner(now_there), inner(then_here), (0.0, 0.0)
    for _ in range(STEPS):
        step = lucas_kanade(seen, guess)
        more = tuple(max(-1, min(1, sum(parts))) for parts in zip(more, step, strict=True))
        guess = inner(moved(then_here[None], *more)[0])
    still = inner(overlap(then, then, dy, dx)[0])
    if (seen - guess).abs().mean() >= LEFT * (seen - still).abs().mean():
        return 0.0, 0.0
    return dy + more[0], dx + more[1]


def inner(image):
    """H×W without the edge that ``moved`` has to guess."""
    return image[TAPS:-TAPS, TAPS:-TAPS]


def whole_shift(now, then):
    """(dy, dx) at the peak of the phase correlation of two pictures H×W."""
    height, width = now.shape
    window = (torch.hann_window(height)[:, None] * torch.hann_window(width)).to(now)
    seen, seen_then = (torch.fft.rfft2((image - image.mean()) * window) for image in (now, then))
    product = seen * seen_then.conj()
    correlation = torch.fft.irfft2(product / product.abs().clamp(min=1e-8), s=now.shape)
    row, column = divmod(correlation.argmax().item(), width)
    return (row + height // 2) % height - height // 2, (column + width // 2) % width - width // 2


def overlap(now, then, dy, dx):
    """What both show, when ``then`` has moved by (dy, dx) to become ``now``: two views of equal size."""
    height, width = now.shape
    now_there = now[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
    then_here = then[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
    return now_there, then_here


def lucas_kanade(now, then):
    """(dy, dx): the small shift that explains ``now``, H×W, by ``then`` with the least squares."""
    mean = (now + then) / 2
    gradients = mean[2:, 1:-1] - mean[:-2, 1:-1], mean[1:-1, 2:] - mean[1:-1, :-2]
    slopes = torch.stack([gradient.flatten() / 2 for gradient in gradients])
    change = (then - now)[1:-1, 1:-1].flatten()
    matrix = slopes @ slopes.T
    matrix += 1e-6 * (1 + matrix.diagonal().mean()) * torch.eye(2).to(matrix)  # for pictures without an edge
    return torch.linalg.solve(matrix, slopes @ change).tolist()


def moved(image, dy, dx):
    """C×H×W moved by fractions of a pixel, down and to the right, continued by reflection.

    By a Lanczos-windowed sinc of many taps, which keeps what is sharp: there and back loses about a hundredth of it.
    """
    channels = len(image)
    image = F.pad(image[None], (TAPS,) * 4, mode="reflect")
    down, right = (taps(step).to(image).expand(channels, 1, -1) for step in (dy, dx))
    image = F.conv2d(image, down[..., None], groups=channels)
    return F.conv2d(image, right[:, :, None], groups=channels)[0]


def taps(step):
    """The kernel that moves by ``step`` in [-0.5, 0.5] pixels; at 0 it changes nothing."""
    away = torch.arange(-TAPS, TAPS + 1, dtype=torch.double) + step
    kernel = torch.sinc(away) * torch.sinc(away / (TAPS + 1))
    return kernel / kernel.sum()
