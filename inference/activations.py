"""What a layer makes of a whole image, without all of it in memory."""

import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from runtime.errors import UserError


@dataclass(frozen=True)
class Activation:
    """``read(top, bottom)`` gives some of its rows, 1×C×rows×width: the reader's own, to be overwritten at will.

    ``count`` is the number of strips it is computed in, all about equally high.
    """

    height: int
    width: int
    count: int
    read: Callable

    def strips(self):
        """Their (top, bottom), downwards: multiples of 4, as ``Winograd`` wants them, where strips are high."""
        step = 4 if self.height >= 16 * self.count else 1
        edges = [self.height * i // self.count // step * step for i in range(self.count)] + [self.height]
        return [(top, bottom) for top, bottom in zip(edges, edges[1:], strict=False) if top < bottom]


IN_MEMORY = 4  # strips


def kept(x, note=lambda rows: None):
    """Activation ``x``, computed here and now, once, however often it is read. ``note`` gets to see each strip.

    It stays on its device if it has at most IN_MEMORY strips, else in a temporary file.
    """
    store = None
    for top, bottom in x.strips():
        rows = x.read(top, bottom)
        note(rows)
        rows = rows[0].permute(1, 2, 0).contiguous()  # rows × width × C: what is read together lies together
        if store is None:
            store = (InMemory if x.count <= IN_MEMORY else OnDisk)(rows, x.height)
        store.append(rows)

    def read(top, bottom):
        return store.read(top, bottom).permute(2, 0, 1).unsqueeze(0)

    return replace(x, read=read)


class InMemory:
    """``height`` rows on the device of the first of them, ``like``."""

    def __init__(self, like, height):
        self.rows, self.filled = like.new_empty(height, *like.shape[1:]), 0

    def append(self, rows):
        self.rows[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)

    def read(self, top, bottom):
        return self.rows[top:bottom].clone()


class OnDisk:
    """Rows like ``like`` in a temporary file without a name, gone with this object."""

    def __init__(self, like, height):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the object)
        weakref.finalize(self, self.file.close)
        self.like = like[:1].clone()

    def append(self, rows):
        try:
            self.file.write(as_bytes(rows.cpu()))
            self.file.flush()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise UserError(
                f"{folder}: {error.strerror}: no room for what a large image is between two layers; "
                "let TMPDIR name a folder with more, or take a --tile of half the image's longer side"
            ) from error

    def read(self, top, bottom):
        rows = torch.empty(bottom - top, *self.like.shape[1:], dtype=self.like.dtype)
        self.file.seek(top * self.like.nbytes)
        self.file.readinto(as_bytes(rows))
        return rows.to(self.like.device)


def as_bytes(rows):
    """The memory of a contiguous tensor of any type."""
    return memoryview(rows.flatten().view(torch.uint8).numpy())
