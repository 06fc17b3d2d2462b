"""What training needs beside networks and losses: schedule, replay buffer, averages, random state."""

import torch
from torch.optim.swa_utils import AveragedModel


def lr_factor(epoch, n_epochs, decay_epoch):
    """What ``lr`` is multiplied by: 1 up to ``decay_epoch``, then falling linearly to reach 0 after the last epoch."""
    return 1 - max(0, epoch - decay_epoch) / max(1, n_epochs - decay_epoch)


class RandomState:
    """Torch's global random generators, the CPU's and the device's, as a thing with a state."""

    def __init__(self, device):
        self.device = device

    def state_dict(self):
        state = {"cpu": torch.get_rng_state()}
        return state | {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else state

    def load_state_dict(self, state):
        """A GPU's generator is restored where the run was on a GPU before."""
        torch.set_rng_state(state["cpu"])
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)


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
        self.images = [image.to(self.device) for image in state["images"]]
        self.random.set_state(state["random"])


class EMA(AveragedModel):
    """An exponential moving average of ``network``'s weights; call ``update_parameters(network)`` after each step.

    The memory grows from 10 steps to ``decay``, so that a young average is not held back by the initial weights.
    """

    def __init__(self, network, decay):
        super().__init__(network)
        self.decay = decay
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, network):
        """One step of the average. (The base class would move its counter to the device, for which the host waits.)"""
        steps = int(self.n_averaged)
        weight = 1 - min((1 + steps) / (10 + steps), self.decay) if steps else 1.0
        torch._foreach_lerp_(list(self.module.parameters()), list(network.parameters()), weight)
        if buffers := list(self.module.buffers()):
            torch._foreach_copy_(buffers, list(network.buffers()))
        self.n_averaged += 1
