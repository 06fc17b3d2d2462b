"""What the processes of a run tell each other in a training step, and how many images a second they make together.

    OMP_NUM_THREADS=2 python benchmarks/communication.py -- --recipe lsgan
    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 benchmarks/communication.py -- --recipe lsgan

Bytes are those of the gradients that one process hands in, calls the buckets in which they travel, and beside them the
one call by which all agree on what to do next. "waits" is the part of the step in which backward is done and gradients
are still under way, as DistributedDataParallel measures it. Behind ``--`` stand flags of cycle_gan.py.
"""

import argparse
import time
from functools import partial

from common import show, synchronize  # first: it makes the folder above importable

# isort: split
from train_step import stepper

from runtime import distributed
from runtime.device import pick_device
from runtime.errors import exit_cleanly
from trainer import CycleGAN


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--bucket_mb", type=int, default=25, help="of DistributedDataParallel")
    parser.add_argument("--views", action="store_true", help="gradients are views of the buckets")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of cycle_gan.py, behind --")
    arguments = parser.parse_args()
    device = distributed.local_device(pick_device(arguments.device))
    words = [f"--device={device}", f"--img_height={arguments.size}", f"--img_width={arguments.size}", *arguments.flags]
    ways = dict(bucket_cap_mb=arguments.bucket_mb, gradient_as_bucket_view=arguments.views)
    distributed.data_parallel = partial(distributed.data_parallel, **ways)
    with distributed.process_group(device):
        row = measure(words, device, arguments)
        if distributed.is_main():
            show([row], arguments.json, device)


def measure(words, device, arguments):
    """One row of the table."""
    models = []

    class Kept(CycleGAN):
        def __init__(self, *given):
            super().__init__(*given)
            models.append(self)

    step = stepper(Kept, words, device)

    def agreed_step():
        step()
        distributed.all_reduce_max(0, 0, 0, 0, 0)  # as the loop does

    for _ in range(3):
        agreed_step()
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(arguments.steps):
        agreed_step()
    synchronize(device)
    seconds = (time.perf_counter() - begin) / arguments.steps
    batch = models[0].options.batch_size * distributed.WORLD
    row = {"processes": distributed.WORLD, "recipe": models[0].options.recipe, "size": arguments.size, "s": seconds}
    return row | {"images/s": batch / seconds, **told(models[0], seconds)}


def told(model, seconds):
    """What DistributedDataParallel says of both half steps."""
    if distributed.WORLD == 1:
        return {"MB": 0.0, "calls": 0, "waits": 0.0}
    logs = [half._get_ddp_logging_data() for half in (model._parallel_G, model._parallel_D)]
    waits = [log["avg_backward_comm_time"] - log["avg_backward_compute_comm_overlap_time"] for log in logs]
    return {
        "MB": sum(log["total_parameter_size_bytes"] for log in logs) / 1e6,
        "calls": 1 + sum(len(log["rebuilt_bucket_sizes"].split(",")) for log in logs),
        "waits": sum(waits) / 1e9 / seconds,
    }


if __name__ == "__main__":
    exit_cleanly(main)
