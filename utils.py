"""Small things that the loop needs: device, random state, replay buffer, averaged generators, grids, losses' log."""

import math
import os
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from runtime.errors import UserError


def pick_device(name):
    """``auto`` or a torch device's name to a device that works. Raises UserError where there is none."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name} is not available here: {str(error).splitlines()[0]}") from error


def tune_kernels(tf32):
    """Let the GPU's libraries choose the fastest convolutions for the crops' size, and compute them in TF32, or not."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def count_workers(n_cpu):
    """``--n_cpu``, or where it was not given the number of cores, at most 4."""
    return min(4, os.cpu_count()) if n_cpu is None else n_cpu


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


def check_writable(folder):
    """Create ``folder`` and try to write there, so that a run fails at its start and not at its first checkpoint."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".write_test"
    probe.touch()
    probe.unlink()


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


class Averaged(AveragedModel):
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


class SampleGrid:
    """The same few test images at every call, so that two grids of a run can be compared.

    ``real_A`` and ``real_B`` are N×C×H×W in [-1, 1]. Each row of the picture is
    A | A→B | A→B→A | B | B→A | B→A→B, with the mask behind each real image where there are masks.
    """

    def __init__(self, real_A, real_B):
        rows = min(len(real_A), len(real_B))
        self.real = {"A": real_A[:rows], "B": real_B[:rows]}

    @torch.no_grad()
    def save(self, translators, path):
        """Translate there and back (in eval mode) and write one PNG."""
        # Imported here, because it takes two seconds, for which --help and test.py need not wait.
        from torchvision.utils import make_grid, save_image

        columns = []
        for side, real in self.real.items():
            mask, fake, back = translators.cycle(side, real)
            shown = [] if mask is None else [mask.expand_as(real) * 2 - 1]
            columns += [real, *shown, fake, back]
        cells = torch.stack(columns, dim=1).flatten(0, 1)  # N·columns×C×H×W, row by row
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_image(make_grid(cells.float().cpu(), nrow=len(columns), normalize=True, value_range=(-1, 1)), path)


class NotFinite(UserError):
    """A loss or a gradient became infinite or not a number."""


class LossLog:
    """Losses on their way from the device to the screen. Nothing waits for the device until they are asked for."""

    def __init__(self):
        self._pending = []  # (step, names, their values on the device) since the last read

    def add(self, step, terms):
        """Keep ``terms``, name → scalar tensor, of one half step."""
        self._pending.append((step, tuple(terms), torch.stack([term.detach() for term in terms.values()])))

    def read(self):
        """The mean of each term since the last read, name → number; empty if there was no step.

        Raises NotFinite at the first half step with a value that is not finite, naming step and terms.
        """
        if not self._pending:
            return {}
        pending, self._pending = self._pending, []
        values = iter(torch.cat([row for *_, row in pending]).tolist())  # the one wait for the device
        series = {}
        for step, names, _ in pending:
            terms = {name: next(values) for name in names}
            if bad := [f"'{name}' ({value})" for name, value in terms.items() if not math.isfinite(value)]:
                raise NotFinite(
                    f"not finite at step {step}: {', '.join(bad)}; the checkpoints written before are kept. "
                    "Resume from one with a smaller --lr, or with --on_nan rollback"
                )
            for name, value in terms.items():
                series.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in series.items()}


def ran_out_of_memory(error):
    """Whether an exception means that a device, or the machine, had no memory left."""
    words = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in words


def memory_advice(options, device):
    """One line: what the run used, and the flags that would lessen it, the cheapest in quality first."""
    flags = [] if options.checkpoint_activations or options.norm == "batch" else ["--checkpoint_activations"]
    flags += [f"--batch_size {options.batch_size // 2}"] if options.batch_size > 1 else []
    flags += [f"--img_height {options.img_height // 8 * 4} --img_width {options.img_width // 8 * 4}"]
    flags += [f"--ndf {max(1, options.ndf // 2)}", f"--ngf {max(1, options.ngf // 2)}"]
    peak = f"; at its peak {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
    return (
        f"{device} ran out of memory with --batch_size {options.batch_size}, crops of {options.img_height}×"
        f"{options.img_width}, --ngf {options.ngf}, --ndf {options.ndf}{peak}. "
        f"What helps, the cheapest first: {'; '.join(flags)}"
    )
