"""From folders of images to batches of tensors.

Every random draw of a sample depends on (seed, epoch, position in the epoch) alone: not on which worker process makes
it, nor on what was drawn before. A resumed run therefore sees exactly what an uninterrupted one would have seen.
"""

import contextlib
import ctypes
import functools
import math
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from readers.pictures import BadImage, load_image, reading
from runtime.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"}


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


SEGMENTATION_NAMES = {"trainA": "segTrain", "testA": "segTest", "trainB": "realTrain", "testB": "realTest"}


def find_side(folder, part, side):
    """The folder of ``part`` ("train" or "test") and ``side`` ("A" or "B"): trainA or, where that is not, segTrain."""
    usual = Path(folder) / f"{part}{side}"
    other = Path(folder) / SEGMENTATION_NAMES[usual.name]
    return other if other.is_dir() and not usual.is_dir() else usual


def list_images(folder):
    """The paths of all image files below ``folder``, by suffix, sorted. Linked folders are followed, never in a circle.

    Raises UserError if the folder is missing or has none.
    """
    if not Path(folder).is_dir():
        raise UserError(f"the folder {folder} is missing; a data set has trainA, trainB, testA and testB")
    found, seen, waiting = [], set(), [str(folder)]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(current) as entries:
            for entry in entries:
                if is_folder(entry):
                    waiting.append(entry.path)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not entry.name.startswith("."):
                    found.append(entry.path)
    if not found:
        raise UserError(f"the folder {folder} holds no images ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found)


def is_folder(entry):
    """``entry.is_dir()``, but False for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def check_headers(paths, skip_bad):
    """Open every image without decoding it. Returns the good paths; raises BadImage at a bad one, or skips it."""
    good, bad = [], []
    for path in tqdm(paths, desc="checking images", unit="img", delay=2, leave=False):
        try:
            with reading(path), Image.open(path):
                good.append(path)
        except BadImage as error:
            if not skip_bad:
                raise
            bad.append(error.path)
    if bad:
        print(f"{len(bad)} of {len(paths)} images are left out because they cannot be read: {', '.join(bad)}")
    if not good:
        raise none_readable(paths)
    return good


def none_readable(paths):
    return UserError(f"not one of the {len(paths)} images in {Path(paths[0]).parent} can be read")


# ---------------------------------------------------------------------------------------------------------------------
# One image
# ---------------------------------------------------------------------------------------------------------------------


def to_tensor(image):
    """A PIL image, or its uint8 array H×W[×C], to a float tensor C×H×W in [-1, 1]."""
    array = np.array(image)  # a copy: torch wants memory that it may write to
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array)).float().div_(127.5).sub_(1)


def to_bytes(images):
    """Float images of any shape in [-1, 1] to uint8, the way back from ``to_tensor``."""
    return images.add(1).mul(127.5).round().clamp(0, 255).byte()


def load_resized(path, size, channels):
    """Decode a file and resize it to (height, width): a uint8 array H×W[×C]. Raises BadImage."""
    image = load_image(path, channels)
    return np.asarray(image if image.size == size[::-1] else image.resize(size[::-1], Image.Resampling.BICUBIC))


def random_crop(array, size, random):
    """Cut (height, width) from H×W[×C] at random, and mirror it half of the time."""
    top, left = (random.integers(whole - part, endpoint=True) for whole, part in zip(array.shape, size, strict=False))
    crop = array[top : top + size[0], left : left + size[1]]
    return crop[:, ::-1] if random.random() < 0.5 else crop


def vary_saturation(array, strength, random):
    """Multiply the saturation of each pixel of uint8 H×W×3 by its own factor from [1 − strength, 1 + strength].

    The brightest channel (the value of HSV) stays as it is, so black stays black and no mask changes.
    """
    factor = random.uniform(1 - strength, 1 + strength, array.shape[:2])[..., None]
    value = array.max(-1, keepdims=True).astype(float)
    return np.clip(value - factor * (value - array), 0, 255).round().astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Training samples
# ---------------------------------------------------------------------------------------------------------------------


class Cache:
    """Arrays uint8 of one shape, in memory that the loader's processes share, so that each is made only once."""

    def __init__(self, count, shape):
        self.shape = (count, *shape)
        self.memory = multiprocessing.RawArray(ctypes.c_uint8, math.prod(self.shape))
        self.known = multiprocessing.RawArray(ctypes.c_bool, count)

    def get(self, index, make):
        """The array at ``index``, from ``make()`` if it is not there yet."""
        array = np.frombuffer(self.memory, np.uint8).reshape(self.shape)[index]
        if not self.known[index]:
            array[:] = make()
            self.known[index] = True
        return array


class NoCache:
    """Keeps nothing: makes each array again."""

    def get(self, index, make):
        return make()


class UnpairedImages(Dataset):
    """Training samples {"A", "B"}: float tensors C×H×W in [-1, 1], drawn independently of each other.

    An endless sequence: item n is at position n % len of epoch n // len, and len is the larger side's. A goes through
    its images in shuffled order, B is drawn at random. ``"skipped"`` lists bad files replaced by another draw.

    Where all images, resized, fit ``options.cache`` GiB, they are kept in memory: then each is decoded once in a run.
    """

    def __init__(self, paths_A, paths_B, options):
        self.paths_A, self.paths_B = paths_A, paths_B
        self.crop_size = options.img_height, options.img_width
        self.load_size = options.load_height, options.load_width
        self.channels, self.saturation_noise = options.channels, options.saturation_noise
        self.seed, self.skip_bad = options.seed, options.skip_bad_images
        shape = *self.load_size, *([3] if self.channels == 3 else [])
        self.bytes = (len(paths_A) + len(paths_B)) * math.prod(shape)
        self.cached = self.bytes <= options.cache * 2**30
        self.cache_A, self.cache_B = (
            Cache(len(paths), shape) if self.cached else NoCache() for paths in (paths_A, paths_B)
        )

    def __len__(self):
        return max(len(self.paths_A), len(self.paths_B))

    def __getitem__(self, n):
        epoch, position = divmod(n, len(self))
        random = np.random.default_rng([self.seed, epoch, position])
        lap, turn = divmod(position, len(self.paths_A))
        index_A = shuffled(len(self.paths_A), (self.seed, epoch, lap))[turn]
        index_B = random.integers(len(self.paths_B))
        skipped = []
        A = self._load(self.paths_A, self.cache_A, index_A, random, skipped)
        B = self._load(self.paths_B, self.cache_B, index_B, random, skipped)
        if self.saturation_noise:
            A = vary_saturation(A, self.saturation_noise, random)
        return {"A": to_tensor(A), "B": to_tensor(B), "skipped": skipped}

    def _load(self, paths, cache, index, random, skipped):
        def crop(index):
            array = cache.get(index, lambda: load_resized(paths[index], self.load_size, self.channels))
            return random_crop(array, self.crop_size, random)

        try:
            return crop(index)
        except BadImage as error:
            if not self.skip_bad:
                raise
            skipped.append(error.path)
        for other in random.permutation(len(paths)):  # in the bad one's place
            with contextlib.suppress(BadImage):
                return crop(other)
        raise none_readable(paths)


@functools.lru_cache(maxsize=8)
def shuffled(n, seed):
    """A permutation of range(n) that depends on ``seed`` alone. The bit marks it off from the draws of a sample."""
    return np.random.default_rng([*seed, 1]).permutation(n)


def epoch_batches(n_samples, batch_size, first_epoch, n_epochs, first_sample=0, rank=0, world=1, smallest=None):
    """Which samples make a batch, from ``first_sample`` of ``first_epoch`` to the end of the last epoch: ranges.

    No batch reaches into the next epoch; the last one of each may be smaller. Of ``world`` processes, each gets its own
    batch, all equally large: what is then left of an epoch, fewer samples than processes, is left out. ``smallest``:
    the fewest samples of a step of all processes together (default: one for each).
    """
    smallest = smallest or world
    for epoch in range(first_epoch, n_epochs):
        for start in range(first_sample if epoch == first_epoch else 0, n_samples - smallest + 1, batch_size * world):
            share = min(batch_size, (n_samples - start) // world)
            first = epoch * n_samples + start + rank * share
            yield range(first, first + share)


class CarriesErrors(Dataset):
    """Returns a UserError as an item: raised in a worker, it would reach the user as a traceback in a traceback."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def collate(samples):
    """The good samples as one batch, with the bad files that they replaced, and the errors among the samples."""
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    good = [sample for sample in samples if not isinstance(sample, UserError)]
    skipped = [path for sample in good for path in sample.pop("skipped", ())]
    return {**(default_collate(good) if good else {}), "skipped": skipped, "errors": errors}


def leave_signals_to_the_trainer(worker_id):
    """For the loader's processes, which a terminal's Ctrl-C and a cluster's SIGTERM reach as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def load_batches(dataset, batch_sampler, n_cpu, pin_memory=False, skip_bad=False):
    """Batches as dicts, loaded by ``n_cpu`` processes ahead of their use.

    Raises a sample's UserError here; with ``skip_bad`` a BadImage is left out of its batch and put in ``"skipped"``.
    """
    loader = DataLoader(
        CarriesErrors(dataset),
        batch_sampler=batch_sampler,
        num_workers=n_cpu,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_the_trainer,
        generator=torch.Generator(),  # its own, so that the loader draws nothing from the global one
    )
    for batch in loader:
        for error in batch.pop("errors"):
            if not (skip_bad and isinstance(error, BadImage)):
                raise error
            batch["skipped"].append(error.path)
        yield batch


# ---------------------------------------------------------------------------------------------------------------------
# Test samples
# ---------------------------------------------------------------------------------------------------------------------


class WholeImages(Dataset):
    """Images for translation: {"image": C×H×W in [-1, 1], "index": place in ``paths``, "height", "width"}.

    Each keeps its own size, unless ``size`` (height, width) is given. Below and at the right it is padded by reflection
    to a ``multiple`` and to ``least`` pixels; "height" and "width" are those before.
    """

    def __init__(self, paths, size=None, channels=3, multiple=1, least=1):
        self.paths, self.size, self.channels = paths, size, channels
        self.multiple, self.least = multiple, least

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = load_image(self.paths[index], self.channels)
        if self.size:
            image = image.resize(self.size[::-1], Image.Resampling.BICUBIC)
        array = np.asarray(image)
        height, width = array.shape[:2]
        padded = pad(array, self.multiple, self.least)
        return {"image": to_tensor(padded), "index": index, "height": height, "width": width}


def pad(array, multiple, least):
    """H×W[×C] continued by reflection, below and at the right, to ``least`` pixels a side and a ``multiple``."""
    padding = [(0, -max(side, least) % multiple + max(0, least - side)) for side in array.shape[:2]]
    return np.pad(array, padding + [(0, 0)] * (array.ndim - 2), mode="reflect")


def load_one_by_one(images, places, n_cpu, skip_bad, skipped):
    """Batches of one from the WholeImages ``images``, in the order of ``places``; see ``load_batches``.

    With ``skip_bad``, bad files are left out and their paths appended to the list ``skipped``.
    """
    for batch in load_batches(images, [[int(place)] for place in places], n_cpu, skip_bad=skip_bad):
        skipped += batch.pop("skipped")
        if batch:
            yield batch


def group_by_size(batches, batch_size):
    """Join batches of one, as they come, to batches of at most ``batch_size`` whose images are equally large, before
    and after padding."""
    waiting = {}
    for batch in batches:
        group = waiting.setdefault((batch["image"].shape, int(batch["height"]), int(batch["width"])), [])
        group.append(batch)
        if len(group) == batch_size or sum(map(len, waiting.values())) == 8 * batch_size:  # bounds the memory
            fullest = max(waiting, key=lambda sizes: len(waiting[sizes]))
            yield join(waiting.pop(fullest))
    yield from map(join, waiting.values())


def join(batches):
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def sample_images(paths, count, size, channels, skip_bad):
    """``count`` images spread evenly over ``paths``, N×C×H×W in [-1, 1]: the fixed ones of the sample grids."""
    places = np.unique(np.linspace(0, len(paths) - 1, count).round().astype(int))
    batches = load_one_by_one(WholeImages(paths, size, channels), places, 0, skip_bad, skipped=[])
    images = [batch["image"] for batch in batches]
    if not images:
        raise UserError(f"the {len(places)} images of {Path(paths[0]).parent} for the sample grids are all unreadable")
    return torch.cat(images)
