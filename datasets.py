"""From folders of images to batches of tensors.

Every random draw of a sample depends on (seed, epoch, position in the epoch) alone: not on which worker process makes
it, nor on what was drawn before. A resumed run therefore sees exactly what an uninterrupted one would have seen.
"""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from readers.domains import PICTURES, count_outside, load_pixels, own_size, pictures_of, to_tensor
from readers.files import BadImage
from readers.folders import find_side, list_images
from readers.geometry import PREPROCESS, allowed, centre_crop, random_crop, vary_saturation
from readers.headers import none_readable, read_headers
from readers.survey import check_known, check_show, check_sizes, find_domain, idle_ways, squashed, ways_of
from runtime.errors import UserError, describe, tell
from runtime.signals import held_back, kept_handler, watched

# ---------------------------------------------------------------------------------------------------------------------
# Training images
# ---------------------------------------------------------------------------------------------------------------------


def find_training_images(folder, options, given, known, header):
    """All training images of a data set: ({side: path → header}, {side: Domain}, size). Says what is done to them.

    ``size`` is (height, width) with ``--preprocess none``, otherwise None.

    ``given``: the names of options given by hand. ``known``: the domains of the checkpoint that a run goes on from, or
    None. ``header``: a function as ``read_header``.
    """
    ways, images, domains = ways_of(options), {}, known or {}
    crop, load = (options.img_height, options.img_width), (options.load_height, options.load_width)
    for side in "AB":
        paths = list_images(find_side(folder, "train", side), ways)
        images[side] = read_headers(paths, options.skip_bad_images, ways, header)
        by_hand = {"channels", f"channels_{side}"} & set(given)
        channels = getattr(options, f"channels_{side}") if by_hand else None
        span = getattr(options, f"range_{side}")
        if known:
            check_known(side, images[side], domains[side])
        else:
            domains[side] = find_domain(side, images[side], ways, channels, span, options.skip_bad_images)
        check_show(side, options.show_channels, domains[side].channels)
        domains[side] = domains[side]._replace(limit=options.decoded_limit, show=tuple(options.show_channels))
    if options.saturation_noise and not (domains["A"].picture and domains["A"].channels == 3):
        raise UserError("--saturation_noise is for 8-bit colour pictures in A; add --saturation_noise 0")
    headers = {**images["A"], **images["B"]}
    tell(*idle_ways(ways, given, headers))
    check_sizes(headers, lambda size: PREPROCESS[options.preprocess](size, load), crop, options)
    if line := squashed(headers.values(), options.preprocess, load):
        tell(line)
    first = next(iter(headers.values()))
    return images, domains, (first.height, first.width) if options.preprocess == "none" else None


# ---------------------------------------------------------------------------------------------------------------------
# Training samples
# ---------------------------------------------------------------------------------------------------------------------


class Cache:
    """Arrays of the N×3 ``shapes`` and one type, in memory that the loader's processes share, so that each is made only
    once."""

    def __init__(self, shapes, dtype):
        self.shapes, self.dtype = shapes, np.dtype(dtype)
        self.ends = shapes.prod(1).cumsum()
        self.memory = multiprocessing.RawArray(ctypes.c_uint8, int(shapes.prod(1).sum()) * self.dtype.itemsize)
        self.known = multiprocessing.RawArray(ctypes.c_bool, len(shapes))

    def get(self, index, make):
        """The array at ``index``, from ``make()`` if it is not there yet, or does not fit: its header told a wrong
        shape, or a run goes on with files of another type."""
        shape, end = self.shapes[index], self.ends[index]
        array = np.frombuffer(self.memory, self.dtype)[end - shape.prod() : end].reshape(shape)
        if not self.known[index]:
            made = make()
            fits = np.can_cast(made.dtype, array.dtype) or made.dtype.kind == array.dtype.kind == "f"
            if made.shape != array.shape or not fits:
                return made
            array[:] = made
            self.known[index] = True
        array.flags.writeable = False  # else what changes a crop in place would change it for the rest of the run
        return array


def has_room(size):
    """Whether there is room for so many bytes of memory that processes share, in each process of a run on this machine,
    and for as much again. On Linux that is a file of a disk in memory, which containers often have too little of, or
    else a temporary one."""
    places = [place for place in ("/dev/shm", tempfile.gettempdir()) if Path(place).is_dir()]
    needed = 2 * size * int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return os.name == "nt" or any(shutil.disk_usage(place).free > needed for place in places)


class NoCache:
    """Keeps nothing: makes each array again."""

    def get(self, index, make):
        return make()


class UnpairedImages(Dataset):
    """Training samples {"A", "B"}: float tensors C×H×W in [-1, 1], drawn independently of each other.

    An endless sequence: item n is at position n % len of epoch n // len, and len is the larger side's. A goes through
    its images in shuffled order, B is drawn at random. ``"skipped"`` lists bad files replaced by another draw.

    ``images_A`` and ``images_B`` are paths; where images keep their shape, dicts path → header. ``domains``: by side,
    8-bit pictures unless said otherwise. Where all images, resized, fit ``options.cache`` GiB, they are kept in memory:
    then each is decoded once in a run.
    """

    def __init__(self, images_A, images_B, options, domains=None):
        self.paths_A, self.paths_B = list(images_A), list(images_B)
        self.domains = domains or pictures_of(options)
        self.options = options
        self.crop_size = options.img_height, options.img_width
        self.load_size = options.load_height, options.load_width
        self.seed, self.skip_bad = options.seed, options.skip_bad_images
        shapes = {side: self._shapes(images, self.domains[side]) for side, images in (("A", images_A), ("B", images_B))}
        types = {side: np.dtype(domain.dtype) for side, domain in self.domains.items()}
        self.bytes = sum(int(shapes[side].prod(1).sum()) * types[side].itemsize for side in "AB")
        self.cached = self.bytes <= options.cache * 2**30 and has_room(self.bytes)
        self.cache_A, self.cache_B = (Cache(shapes[side], types[side]) if self.cached else NoCache() for side in "AB")

    def _size_of(self, size):
        return PREPROCESS[self.options.preprocess](size, self.load_size)

    def _shapes(self, images, domain):
        """N×3: the shapes of ``images`` when they are resized."""
        if self.options.preprocess == "resize_and_crop":
            return np.tile([*self.load_size, domain.channels], (len(images), 1))
        sizes = [self._size_of((header.height, header.width)) for header in images.values()]
        return np.array([[*size, domain.channels] for size in sizes])

    def __len__(self):
        return max(len(self.paths_A), len(self.paths_B))

    def __getitem__(self, n):
        epoch, position = divmod(n, len(self))
        random = np.random.default_rng([self.seed, epoch, position])
        lap, turn = divmod(position, len(self.paths_A))
        index_A = shuffled(len(self.paths_A), (self.seed, epoch, lap))[turn]
        index_B = random.integers(len(self.paths_B))
        skipped = []
        A = self._load("A", self.paths_A, self.cache_A, index_A, random, skipped)
        B = self._load("B", self.paths_B, self.cache_B, index_B, random, skipped)
        if self.options.saturation_noise:
            A = vary_saturation(A, self.options.saturation_noise, random)
        return {"A": to_tensor(A, self.domains["A"]), "B": to_tensor(B, self.domains["B"]), "skipped": skipped}

    def _load(self, side, paths, cache, index, random, skipped):
        def crop(index):
            array = cache.get(index, lambda: load_pixels(paths[index], self.domains[side], self._size_of))
            return random_crop(array, self.crop_size, random, self.options.flip, self.options.rotate90)

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
    """A permutation of range(n) that depends on ``seed`` alone. The 1 keeps its draws apart from those of a sample."""
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
    """For the loader's processes, which a terminal's Ctrl-C or end and a cluster's SIGTERM reach as well."""
    for number in watched():
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = about_no_connection  # what the trainer, when it stops, does not fetch any more


def about_no_connection(kind, error, trace):
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


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
    with held_back(), kept_handler("SIGCHLD"):  # by which torch would say in the middle of a step that one died
        batches = iter(loader)  # processes are started
    try:
        for batch in fetched(batches):
            for error in batch.pop("errors"):
                if not (skip_bad and isinstance(error, BadImage)):
                    raise error
                batch["skipped"].append(error.path)
            yield batch
    finally:
        del batches  # ends its processes now; Python itself would wait for them for ever, since they ignore SIGTERM


def fetched(batches):
    """The ``batches`` of a loader. Raises UserError where one of its processes died."""
    try:
        yield from batches
    except (ConnectionError, EOFError, FileNotFoundError, RuntimeError) as error:
        if isinstance(error, RuntimeError):
            died = "DataLoader worker (pid" in str(error)
        else:  # what it had sent cannot be fetched from it; an error about a file is another one
            died = not getattr(error, "filename", None)
        if not died:
            raise
        raise UserError(f"a process that loads images died ({describe(error)}); try a smaller --n_cpu") from error


# ---------------------------------------------------------------------------------------------------------------------
# Test samples
# ---------------------------------------------------------------------------------------------------------------------


class WholeImages(Dataset):
    """Images for translation: {"image": C×H×W in [-1, 1], "index": place in ``paths``, "height", "width", "outside"}.

    Each keeps its own size, unless ``size_of`` makes another of (height, width), and ``crop`` takes the middle of that.
    Below and at the right it is padded by reflection to a ``multiple`` and to ``least`` pixels; "height" and "width"
    are those before. "outside": how many values were clipped to the range of the domain.
    """

    def __init__(self, paths, domain=PICTURES, multiple=1, least=1, size_of=own_size, crop=None):
        self.paths, self.domain = paths, domain
        self.multiple, self.least = multiple, least
        self.size_of, self.crop = size_of, crop

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        array = load_pixels(self.paths[index], self.domain, self.size_of)
        if self.crop:
            array = centre_crop(array, self.crop)
        height, width = array.shape[:2]
        outside = count_outside(array, self.domain)
        image = to_tensor(pad_to_multiple(array, self.multiple, self.least), self.domain)
        return {"image": image, "index": index, "height": height, "width": width, "outside": outside}


def pad_to_multiple(array, multiple, least):
    """H×W[×C] continued by reflection, below and at the right, to ``least`` pixels a side and a ``multiple``."""
    padding = [(0, allowed(side, multiple, least) - side) for side in array.shape[:2]]
    return np.pad(array, padding + [(0, 0)] * (array.ndim - 2), mode="reflect")


def load_one_by_one(images, indices, n_cpu, skip_bad, skipped):
    """Batches of one from the WholeImages ``images``, in the order of ``indices``; see ``load_batches``.

    With ``skip_bad``, bad files are left out and their paths appended to the list ``skipped``.
    """
    for batch in load_batches(images, [[int(index)] for index in indices], n_cpu, skip_bad=skip_bad):
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


def unpadded(batch, images):
    """``images`` without the padding of ``batch``, which all of its images have alike."""
    return images[..., : batch["height"][0], : batch["width"][0]]


def join(batches):
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def sample_images(paths, count, domain, options):
    """``count`` images spread evenly over ``paths``, N×C×H×W in [-1, 1]: the fixed ones of the sample grids."""
    places = np.unique(np.linspace(0, len(paths) - 1, count).round().astype(int))
    size = options.img_height, options.img_width
    whole = WholeImages(paths, domain, size_of=lambda before: PREPROCESS[options.preprocess](before, size), crop=size)
    batches = load_one_by_one(whole, places, 0, options.skip_bad_images, skipped=[])
    images = [batch["image"] for batch in batches]
    if not images:
        raise UserError(f"the {len(places)} images of {Path(paths[0]).parent} for the sample grids are all unreadable")
    return torch.cat(images)
