"""What training needs beside networks and losses: schedule, replay buffer, averages, random state, augmentation."""

import math
import time

import torch
from torch.optim.swa_utils import AveragedModel


def lr_factor(epoch, n_epochs, decay_epoch):
    """What ``lr`` is multiplied by: 1 up to ``decay_epoch``, then falling linearly to reach 0 after the last epoch.

    The three may be counted in anything, shares of a time too.
    """
    return 1 if epoch <= decay_epoch else max(0, 1 - (epoch - decay_epoch) / (n_epochs - decay_epoch))


class TimeBudget:
    """The time that a run may take, and how much of it is gone: that of all its starts together.

    0 ``minutes``: no limit.
    """

    def __init__(self, minutes):
        self.seconds = 60 * minutes or math.inf
        self.begin = time.monotonic()

    def spent(self):
        """Seconds."""
        return time.monotonic() - self.begin

    def share(self):
        """The share of the budget that is gone."""
        return self.spent() / self.seconds

    def go_on(self, spent):
        """Count on from ``spent`` seconds."""
        self.begin = time.monotonic() - spent


class RandomState:
    """Torch's global random generators, the CPU's and the device's, with ``state_dict`` and ``load_state_dict``."""

    def __init__(self, device):
        self.device = device
        self.which = () if device.type == "mps" else (device,)  # there is one of Apple's, and its functions take none

    def state_dict(self):
        state = {"cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            state[self.device.type] = torch.get_device_module(self.device).get_rng_state(*self.which)
        return state

    def load_state_dict(self, state):
        """A device's generator is restored where the run was on one of its kind before."""
        torch.set_rng_state(state["cpu"])
        if self.device.type != "cpu" and self.device.type in state:
            torch.get_device_module(self.device).set_rng_state(state[self.device.type], *self.which)


class ReplayBuffer:
    """Shows the critics a history of translations (https://arxiv.org/abs/1612.07828), not only the newest ones.

    While it fills, each image is stored and returned. Once it holds ``size``, a coin is tossed for each image: heads,
    a stored one drawn at random is returned and the new one takes its place; tails, the new one is returned.
    """

    def __init__(self, size=50, seed=0, device="cpu"):
        self.size, self.device = size, device
        self.images = []
        self.random = torch.Generator().manual_seed(seed)  # on the CPU: a draw never waits for the device

    def push_and_pop(self, batch):
        """A batch N×C×H×W in, as many images of the history out, same shape."""
        return torch.stack([self._exchange(image) for image in batch.detach()])

    def _exchange(self, image):
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if torch.rand((), generator=self.random) < 0.5:
            return image
        place = int(torch.randint(len(self.images), (), generator=self.random))
        old, self.images[place] = self.images[place], image.clone()
        return old

    def state_dict(self):
        return {"images": [image.cpu() for image in self.images], "random": self.random.get_state()}

    def load_state_dict(self, state):
        self.images = [image.to(self.device, torch.float32) for image in state["images"]]
        self.random.set_state(state["random"])


class EMA(AveragedModel):
    """An exponential moving average of ``network``'s weights; call ``update_parameters(network)`` after each step.

    The first step copies the network. With t steps done the decay is min((1 + t) / (10 + t), ``decay``), so that a
    young average is not held back by the first weights.
    """

    def __init__(self, network, decay):
        super().__init__(network)
        self.decay = decay
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, network):
        """One step of the average. A step that fp16 skipped is one, too. (The base class would move its counter to the
        device, for which the host waits.)"""
        steps = int(self.n_averaged)
        weight = 1 - min((1 + steps) / (10 + steps), self.decay) if steps else 1.0
        torch._foreach_lerp_(list(self.module.parameters()), list(network.parameters()), weight)
        if buffers := list(self.module.buffers()):
            torch._foreach_copy_(buffers, list(network.buffers()))
        self.n_averaged += 1


# ---------------------------------------------------------------------------------------------------------------------
# Differentiable augmentation (Zhao et al., NeurIPS 2020, https://arxiv.org/abs/2006.10738): every image that a critic
# sees, real or translated, is varied first, so that a critic of few images cannot learn them by heart.
# Each function takes images N×C×H×W in [-1, 1] to the same shape, draws for each image, and can be differentiated.
# ---------------------------------------------------------------------------------------------------------------------


def uniform(images, low, high):
    """A number for each image: N×1×1×1."""
    return torch.empty(len(images), 1, 1, 1, device=images.device, dtype=images.dtype).uniform_(low, high)


def vary_color(images):
    """Brightness by up to ±0.5 (a quarter of the range), saturation times 0 to 2, contrast times 0.5 to 1.5."""
    images = images + uniform(images, -0.5, 0.5)
    gray = images.mean(1, keepdim=True)
    images = torch.lerp(gray, images, uniform(images, 0, 2))
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, uniform(images, 0.5, 1.5))


def pixels(images, offset_y, offset_x):
    """Coordinates of all pixels, moved by a whole number for each image (N×1×1): row N×H×1 and column N×1×W."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + offset_y
    columns = torch.arange(width, device=images.device).view(1, 1, -1) + offset_x
    return rows, columns


def whole_numbers(images, low, high):
    """A whole number from ``low`` to ``high`` for each image: N×1×1."""
    return torch.randint(low, high + 1, (len(images), 1, 1), device=images.device)


def vary_position(images):
    """Moved by up to an eighth of the size in each direction; what comes in from outside is 0."""
    height, width = images.shape[2:]
    rows, columns = pixels(
        images,
        whole_numbers(images, -(height // 8), height // 8),
        whole_numbers(images, -(width // 8), width // 8),
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # N×H×W
    sample = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    moved = images.permute(0, 2, 3, 1)[sample, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return moved.permute(0, 3, 1, 2) * inside.unsqueeze(1)


def cut_out(images):
    """A rectangle of half the height and half the width is set to 0; it may reach beyond the border."""
    height, width = images.shape[2:]
    rows, columns = pixels(
        images,
        -whole_numbers(images, -(height // 4), height - height // 4),
        -whole_numbers(images, -(width // 4), width - width // 4),
    )
    cut = (rows >= 0) & (rows < height // 2) & (columns >= 0) & (columns < width // 2)  # N×H×W
    return images * ~cut.unsqueeze(1)


def augmented(critic, functions):
    """``critic``, which from now on sees its images varied by each of ``functions`` in turn."""
    for vary in functions:
        critic.register_forward_pre_hook(lambda module, images, vary=vary: vary(*images))
    return critic
