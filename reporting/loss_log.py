"""Losses on their way from the device to the screen, and the stop at one that is not finite."""

import math

import torch

from runtime.errors import UserError


class NotFinite(UserError):
    """A loss or a gradient became infinite or not a number."""


class LossLog:
    """Keeps losses on the device until they are read: nothing waits for the device until they are asked for."""

    def __init__(self):
        self._pending = []  # (step, names, their values on the device) since the last read

    def add(self, step, terms):
        """Keep ``terms``, name → scalar tensor, of one update."""
        self._pending.append((step, tuple(terms), torch.stack([term.detach() for term in terms.values()])))

    def read(self):
        """The mean of each term since the last read, name → number; empty if there was no step.

        Raises NotFinite at the first update with a value that is not finite, naming step and terms.
        """
        if not self._pending:
            return {}
        pending, self._pending = self._pending, []
        values = iter(torch.cat([row for *_, row in pending]).tolist())  # the one wait for the device
        series = {}
        for step, names, _ in pending:
            terms = {name: next(values) for name in names}
            if bad := [f"'{name}' ({value})" for name, value in terms.items() if not math.isfinite(value)]:
                raise NotFinite(f"not finite at step {step}: {', '.join(bad)}")
            for name, value in terms.items():
                series.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in series.items()}
