"""A data set's folders and archives, and which of the files in them are images."""

import functools
import os
from pathlib import Path

from readers.archives import ARCHIVES, is_archive, list_archive
from readers.domains import PICTURES
from readers.formats import READERS, expand, suffix_of
from runtime.errors import UserError, tell

OTHER_IMAGES = (
    *(".heic", ".heif", ".jxl", ".ppm", ".pgm", ".pbm", ".tga", ".pcx", ".svg", ".psd"),
    *(".raw", ".dng", ".cr2", ".nef", ".exr", ".hdr", ".mha", ".nrrd", ".ima"),
)
SEGMENTATION_NAMES = {"trainA": "segTrain", "testA": "segTest", "trainB": "realTrain", "testB": "realTest"}


def find_side(folder, part, side):
    """The folder, .zip or .tar of ``part`` ("train" or "test") and ``side`` ("A" or "B"): trainA or, where none of them
    is there, segTrain."""
    usual = Path(folder) / f"{part}{side}"
    other = Path(folder) / SEGMENTATION_NAMES[usual.name]
    archives = [usual.with_suffix(suffix) for suffix in ARCHIVES]
    return next((path for path in (usual, *archives, other) if path.exists()), usual)


def side_sources(folder):
    """The folders and archives of a data set from which images are read."""
    return [find_side(folder, part, side) for part in ("train", "test") for side in "AB"]


def has_images(source):
    """Whether there is an image below a folder or in an archive; no, where that is missing."""
    return any(map(is_image, files_in(source)))


def is_image(path):
    """Whether a file of this name is taken for an image."""
    name = os.path.basename(path)
    return bool(suffix_of(name)) and not name.startswith(".")


def known_suffixes():
    return " ".join(sorted(READERS))


def list_images(folder, ways=PICTURES):
    """The Places of all images below ``folder`` or in an archive, by suffix, sorted. Linked folders are followed, never
    in a circle. ``ways``: a Domain that says what an image is, where a file may hold several.

    Raises UserError if the folder is missing or has none.
    """
    if not Path(folder).is_dir() and not is_archive(folder):
        there = sorted(path.name for path in Path(folder).parent.glob("[!.]*/"))[:8]
        told = f", and there is {', '.join(there)}" if there and Path(folder).name in SEGMENTATION_NAMES else ""
        raise UserError(f"the folder {folder} is missing; a data set has trainA, trainB, testA and testB{told}")
    files = list(files_in(folder))
    if not (found := sorted(filter(is_image, files))):
        kind = "folder" if Path(folder).is_dir() else "archive"
        bare = next((path for path in files if not Path(path).suffix and not Path(path).name.startswith(".")), None)
        remedy = f"; {bare} has no ending: if it is a DICOM file, name it .dcm" if bare else ""
        raise UserError(f"the {kind} {folder} holds no images with a name that ends in {known_suffixes()}{remedy}")
    if others := sorted(path for path in files if path.lower().endswith(OTHER_IMAGES) and not is_image(path)):
        tell_once(f"{len(others)} files of {folder} were left out, as {others[0]}: their format cannot be read")
    return list(expand(found, ways))


tell_once = functools.cache(tell)  # a run lists its test folders more than once


def list_input(path, ways=PICTURES):
    """The Places of the images in ``--input``, a folder, an archive or one image, and the folder below which they lie.

    Raises UserError where it is none of them.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"--input {path} does not exist")
    if path.is_dir() or is_archive(path):
        return list_images(path, ways), path
    if not is_image(path):
        raise UserError(f"{path} is not named as an image; those that can be read end in {known_suffixes()}")
    return list(expand([path], ways)), path.parent


def files_in(source):
    """The paths of all files below a folder, or Places in an archive; none, where it is missing."""
    if is_archive(source):
        yield from list_archive(source)
    elif Path(source).is_dir():
        yield from walk(str(source))


def walk(folder):
    """The paths of all files below ``folder``, without those of hidden folders, such as .ipynb_checkpoints."""
    seen, waiting = set(), [folder]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(current) as entries:
            for entry in entries:
                if not is_folder(entry):
                    yield entry.path
                elif not entry.name.startswith("."):
                    waiting.append(entry.path)


def is_folder(entry):
    """``entry.is_dir()``, but False for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False
