"""Weights that other programs saved, read without trusting them."""

import contextlib
import os
import warnings

import torch

from runtime import pickles
from runtime.errors import UserError
from runtime.files import open_regular

SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch's variable
FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64
WHOLE = torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64
LARGEST = 2**30  # bytes; the published generators have 46 MB


@contextlib.contextmanager
def tensors_alone():
    """Inside, ``torch.load`` runs no code of a file, though a library asks for that."""
    before = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    try:
        yield
    finally:
        os.environ.pop(SAFE)
        if before is not None:
            os.environ[SAFE] = before


def load_tensors(path):
    """A state_dict that ``torch.save`` wrote, in its present format or its old one: name → tensor on the CPU.

    No code of the file runs, and it gets no more memory than it is large (pickles.py). Raises UserError,
    and OSError where there is no such file.
    """
    with open_regular(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{path} has more than {LARGEST / 1e9:.1f} GB, more than any generator; choose another file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the formats of files that are refused, or read all the same
            state = pickles.read(content)
    except pickles.TooLarge:
        raise UserError(f"{path} would unpack to more than it holds, and is not loaded; choose another file") from None
    except MemoryError as error:
        raise UserError(f"there is too little memory to read {path}; close other programs") from error
    except Exception as error:  # a broken or hostile pickle makes the unpickler fail in any way
        raise UserError(f"{path} is not a file of weights alone, and is not loaded; choose another file") from error
    if not is_state_dict(state):
        raise UserError(f"{path} is no state_dict of floating-point tensors; save that of the generator alone")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise UserError(f"{path} holds values that are not finite; choose weights from an earlier epoch")
    return state


def is_state_dict(content):
    """Whether ``content`` is name → tensor, of floats, or of the whole numbers that batch norms count."""
    return isinstance(content, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and (tensor.device.type, tensor.layout) == ("cpu", torch.strided)
        and (tensor.dtype in FLOATS or name.endswith("num_batches_tracked") and tensor.dtype == torch.int64)
        for name, tensor in content.items()
    )
