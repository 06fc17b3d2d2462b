"""Weights that other programs saved, read without trusting them."""

import io
import warnings
import zipfile

import torch

from runtime.errors import UserError
from runtime.files import open_regular

FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64
LARGEST = 2**30  # bytes; the published generators have 46 MB


def load_tensors(path):
    """A state_dict that ``torch.save`` wrote, in its present format or its old one: name → tensor on the CPU.

    No code of the file runs, and it gets no more memory than it is large. Raises UserError, and OSError where there is
    no such file.
    """
    with open_regular(path) as file:
        content = file.read(LARGEST + 1)
    size = len(content)
    if size > LARGEST:
        raise UserError(f"{path} has more than {LARGEST / 1e9:.1f} GB, more than any generator; choose another file")
    if unpacks_larger(content):
        raise UserError(f"{path} would unpack to more than it holds, and is not loaded; choose another file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the formats of files that are refused, or read all the same
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle makes the unpickler fail in any way
        raise UserError(f"{path} is not a file of weights alone, and is not loaded; choose another file") from error
    if not is_state_dict(state):
        raise UserError(f"{path} is no state_dict of floating-point tensors; save that of the generator alone")
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > size:
        raise UserError(f"{path} names more values than it holds, and is not loaded; choose another file")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise UserError(f"{path} holds values that are not finite; choose weights from an earlier epoch")
    return state


def unpacks_larger(content):
    """Whether a zip archive, as which torch saves, is compressed, or holds the same bytes twice."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return sum(member.file_size for member in archive.infolist()) > len(content)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False  # torch refuses it


def is_state_dict(content):
    """Whether ``content`` is name → tensor, of floats, or of the whole numbers that batch norms count."""
    return isinstance(content, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and (tensor.device.type, tensor.layout) == ("cpu", torch.strided)
        and (tensor.dtype in FLOATS or name.endswith("num_batches_tracked") and tensor.dtype == torch.int64)
        for name, tensor in content.items()
    )
