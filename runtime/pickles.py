"""What ``torch.save`` wrote, read without trusting it: nothing of it runs, and it gets no more memory than it is
large."""

import io
import itertools
import pickle
import pickletools
import zipfile

import torch

from runtime.device import ran_out_of_memory

ZIP = b"PK\3\4"  # with which torch's present format begins; the old one is pickles, one after the other
DEEPEST = 8  # tuples in tuples. One that is twice in one that is twice … takes for ever to become a dictionary's key
PICKLES = 5  # of the old format, before the numbers of its tensors
STORAGES = ["BFloat16", "Half", "Float", "Double", "Byte", "Char", "Short", "Int", "Long", "Bool"]
# All that weights and plain values need. Torch allows more, such as bytearray, which makes any memory out of a number.
KNOWN = {
    "collections OrderedDict",
    *(f"torch._utils _rebuild_{what}" for what in ("tensor", "tensor_v2", "parameter")),
    *(f"{module} {kind}Storage" for module in ("torch", "torch.cuda") for kind in STORAGES),
}


class TooLarge(ValueError):
    """A file that names more than it holds."""


def read(content, times=1):
    """The tensors, on the CPU, and plain values in ``content``, the bytes of a file. All that it names may take up to
    ``times`` as many bytes as it has, since one may be named more than once.

    Raises TooLarge; pickle.UnpicklingError where there is anything else; MemoryError; and whatever torch raises where
    the file is cut short or forged.
    """
    pickles = pickles_of(content)
    if max(map(deepest_tuple, pickles), default=0) > DEEPEST:
        raise pickle.UnpicklingError("tuples stand in tuples, over and over")
    if names := {name for each in pickles for name in names_in(each)} - KNOWN:
        raise pickle.UnpicklingError(f"there are {', '.join(sorted(names))}")
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except RuntimeError as error:
        if ran_out_of_memory(error):  # which torch has no exception of its own for
            raise MemoryError(str(error)) from error
        raise
    check_size(found, times * len(content), sum(map(len, pickles)))
    return found


def pickles_of(content):
    """The pickles in a file, which torch reads: a list of bytes. Raises TooLarge where it holds the same bytes twice,
    and zipfile.BadZipFile where Python and torch could read it in two ways."""
    if not content.startswith(ZIP):
        file, ends = io.BytesIO(content), [0]
        for _ in range(PICKLES):
            for _operation in pickletools.genops(file):
                pass
            ends.append(file.tell())
        return [content[begin:end] for begin, end in itertools.pairwise(ends)]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name.lower() for name in archive.namelist()]
        if archive.start_dir != directory_of(content) or len(set(names)) < len(names):
            raise zipfile.BadZipFile("its table of contents can be read in two ways")
        if sum(member.file_size for member in archive.infolist()) > len(content):
            raise TooLarge
        if not all(is_plain(member, len(content)) for member in archive.infolist()):
            raise zipfile.BadZipFile("a part is compressed, or says its size or name twice")
        return [archive.read(name) for name in archive.namelist() if name.lower().endswith(".pkl")]


def is_plain(member, size):
    """Whether a part of a zip of ``size`` bytes is as torch writes it: stored as it is, with no more to be said of it
    than its place and size, in 64 bits where they need those."""
    stored = member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
    kind, length = member.extra[:2], int.from_bytes(member.extra[2:4], "little")  # of the first field of more
    wide = size >= 2**32 and kind == b"\1\0" and length == len(member.extra) - 4  # and there is no second
    return stored and (not member.extra or wide)


END, LOCATOR, WIDE_END = 22, 20, 56  # bytes of what a zip ends with, the last two only in its 64-bit form


def directory_of(content):
    """Where a zip without a comment says that its table of contents begins; -1 where it does not end as one."""
    end = len(content) - END
    if content[end : end + 4] != b"PK\5\6":
        return -1
    wide = end - LOCATOR - WIDE_END
    if content[end - LOCATOR : end - LOCATOR + 4] != b"PK\6\7":
        return int.from_bytes(content[end + 16 : end + 20], "little")
    if int.from_bytes(content[end - 12 : end - 4], "little") != wide:
        return -1
    return int.from_bytes(content[wide + 48 : wide + 56], "little")


def names_in(pickled):
    """What a pickle calls by name, "module name" each."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "STACK_GLOBAL":
            yield "a name that it makes up"
        elif operation.name in ("GLOBAL", "INST"):
            yield argument


def deepest_tuple(pickled):
    """How deep tuples stand in tuples in a pickle, by what its operations do with the stack and the memo."""
    stack, memo, deepest = [], {}, 0  # of each value how deep the tuples in it are; None for a mark
    for operation, argument, _ in pickletools.genops(pickled):
        name, before = operation.name, [kind.name for kind in operation.stack_before]
        if name == "MARK":
            stack.append(None)
        elif name == "DUP":
            stack.append(stack[-1])
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name.endswith("PUT") or name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = stack[-1]
        else:
            taken, fixed = [], before.index("mark") if "mark" in before else len(before)
            while "mark" in before and (depth := stack.pop()) is not None:
                taken.append(depth)
            taken += [stack.pop() for _ in range(fixed)]
            depth = 1 + max(taken, default=0) if name.startswith("TUPLE") else 0
            deepest = max(deepest, depth)
            stack += [depth] * len(operation.stack_after)
    return deepest


def check_size(found, size, most):
    """Raise TooLarge where the tensors in ``found`` have more than ``size`` bytes, counted as often as they are there,
    or where there are more values than ``most``, as in a list that holds itself."""
    left = [found]
    for count in itertools.count():
        if not left:
            return
        value = left.pop()
        if torch.is_tensor(value):
            size -= value.numel() * value.element_size()
        elif isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            left.extend(value)
        if size < 0 or count + len(left) > most:
            raise TooLarge
