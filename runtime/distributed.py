"""One process or several that torchrun started: who they are, and how they agree. In one process all of it is trivial.

Tensors on GPUs travel by NCCL, and what the hosts tell each other by gloo: agreeing never waits for a GPU.
"""

import atexit
import gc
import os
import sys
import warnings
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist

from runtime.errors import UserError, first_line

RANK, WORLD, LOCAL_RANK = (
    int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
)
# How long the processes wait for each other. They wait for the main one while it fetches a data set or the weights of
# an evaluation, evaluates, and writes checkpoints and grids: hours, on a slow network or disk, in a healthy run.
# When a process dies, torchrun ends the others long before this limit, which is for one that lives and hangs.
LONGEST_WAIT = timedelta(days=1)
LEFT = []  # groups, until the program ends: see leave()


def is_main():
    """Whether this is the process that writes and prints."""
    return RANK == 0


def local_device(device):
    """The device of this process, where ``device`` was asked for. Raises UserError where the machine has too few."""
    if WORLD == 1 or device.type != "cuda":
        return device
    if torch.cuda.device_count() <= LOCAL_RANK:
        raise UserError(
            f"this machine has {torch.cuda.device_count()} GPUs; start as many processes: torchrun --nproc_per_node"
        )
    return torch.device("cuda", LOCAL_RANK)


def meeting_point():
    """The store in which the processes leave their addresses for each other.

    With ``--max_restarts`` it is the same at each start, and still holds the addresses of those who died; so each start
    takes names of its own. Only agents of one machine count restarts alike: for several, see scripts/slurm.sh.
    """
    store, _, _ = next(dist.rendezvous("env://", RANK, WORLD, timeout=LONGEST_WAIT))
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT') if alone else 0}", store)


@contextmanager
def process_group(device):
    """Inside, the processes can reach each other; only the main one prints."""
    if WORLD == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Imported when the group is there, its functions would have that as their default, and keep it for ever.
    from torch.distributed import nn  # noqa: F401

    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=meeting_point(), rank=RANK, world_size=WORLD, timeout=LONGEST_WAIT)
    try:
        with nullcontext() if is_main() else open(os.devnull, "w") as silence, redirect_stdout(silence or sys.stdout):
            yield
    except SystemExit:  # after a signal, at the same step in all processes
        leave()
        raise
    except RuntimeError as error:
        if "onnection" not in str(error):  # gloo's word where the process at the other end is gone
            raise
        why = first_line(error, "the connection broke")
        raise UserError(f"process {RANK} lost another one, whose own last words say more ({why})") from error
    leave()  # not after an error: the others, still at work, are torchrun's to end


def leave():
    """Leave the process group, and let go of it when the program ends, after every network and before the interpreter.

    Whoever lets go of a group last waits for its threads, one of which may need the interpreter's lock to free a
    tensor. Python's reference gives the lock away first. That of a network, which is within DistributedDataParallel,
    does not, and the process hangs. A thread that asks an interpreter which is being taken down ends the process.
    """
    if not LEFT:
        atexit.register(let_go)
    LEFT.append(dist.group.WORLD)
    dist.destroy_process_group()


def let_go():
    gc.collect()  # networks in cycles of references
    LEFT.clear()


def data_parallel(objective, **options):
    """``objective`` with its gradients averaged over the processes in backward."""
    if WORLD == 1:
        return objective
    # A 1×1 kernel lies in memory in the same way whichever order its strides tell, and torch compares the strides.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return torch.nn.parallel.DistributedDataParallel(objective, **options)


def no_sync(objective):
    """Inside, gradients of what ``data_parallel`` made add up in this process; the next backward outside sends them."""
    return nullcontext() if WORLD == 1 else objective.no_sync()


def all_reduce_max(*numbers):
    """For each number, the largest that any process has: so all of them do the same."""
    if WORLD == 1:
        return numbers
    numbers = torch.tensor([float(number) for number in numbers], dtype=torch.double)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()


def all_gather(value):
    """The ``value`` of each process: a list in the order of their ranks."""
    if WORLD == 1:
        return [value]
    values = [None] * WORLD
    dist.all_gather_object(values, value)
    return values


def gather(value):
    """In the main process the ``value`` of each one: a list in the order of their ranks; None in the others."""
    if WORLD == 1:
        return [value]
    values = [None] * WORLD if is_main() else None
    dist.gather_object(value, values)
    return values


def broadcast(make):
    """What ``make()`` returns in the main process."""
    box = [make() if is_main() else None]
    if WORLD > 1:
        dist.broadcast_object_list(box)
    return box[0]


@contextmanager
def local_main_first():
    """On each machine one process goes through the block before the others, which then find done what it did."""
    if WORLD > 1 and LOCAL_RANK:
        dist.barrier()
    yield
    if WORLD > 1 and not LOCAL_RANK:
        dist.barrier()
