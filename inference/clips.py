"""Clips, translated frame by frame: from a file or numbered frames to a file or numbered frames, in one pass or two."""

import os
import sys
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from inference.clip_writers import KINDS, write_video
from inference.flags import TRANSLATE, refuse_unused
from inference.output import check_output
from inference.steady import Steady
from inference.writers import Writers, check_format, output_names
from readers.archives import is_archive
from readers.clips import by_number, is_clip, numbered, open_clip
from readers.domains import count_outside, tell_outside, to_pixels, to_tensor
from readers.files import files_of
from readers.folders import list_images
from runtime.errors import UserError, printable, tell, warn
from runtime.files import replacing
from runtime.folders import claimed
from runtime.signals import StopSignal


def is_moving(source, options):
    """Whether what ``--input`` names is to be translated as a clip."""
    return options.frames or is_clip(source)


def translate_clip(translators, translate, direction, output, domains, options, device):
    """Translate the clip ``--input``, a file, or a folder or archive of numbered frames; so may ``output`` be.

    ``translate(networks, images)`` → translations, all N×C×H×W in [-1, 1]. Raises UserError. Ends the process after a
    signal, when what is done is kept: a file under another name.
    """
    source, (origin, target) = Path(options.input), (domains[side] for side in direction.split("to"))
    if not source.exists():
        raise UserError(f"--input {source} does not exist")
    if from_file := is_clip(source):
        refuse_unused(options, TRANSLATE, ("frames",), f"is for numbered frames, and {source} is a file")
    if from_file or output.suffix.lower() in KINDS:
        refuse_unused(options, TRANSLATE, ("output_format",), "is for images, and here a video is written")
    job = Job(translators, translate, origin, target, options, device)
    if from_file:
        check_eight_bits(source, origin)
        clip, places, output = open_clip(source, origin), [source], output_file(output, source)
    elif source.is_dir() or is_archive(source):
        places = sorted(list_images(source, origin), key=by_number)
        clip = numbered(places, origin, options.fps, options.skip_bad_images)
    else:
        raise UserError(f"--frames takes a folder or an archive of images, and {source} is neither")
    into_file = output.suffix.lower() in KINDS
    if not into_file:
        refuse_unused(options, TRANSLATE, ("fps",), f"is of a video's file, and {output} is a folder")
    if not into_file or KINDS[output.suffix.lower()].write is not write_video:
        refuse_unused(options, TRANSLATE, ("codec", "crf"), f"is for encoders of videos, and {output} has none")
    if os.path.realpath(output) == os.path.realpath(source):
        raise UserError(f"--output {output} would overwrite --input; choose another")
    check_output(output, options)
    with StopSignal() as stop:
        if into_file:
            check_eight_bits(output, target)
            with claimed(output.parent, [output, partial_name(output)], files_of(places), options.overwrite):
                output = write_file(job, clip, output, stop)
        else:
            check_format(options.output_format, target)
            paths = [output / name for name in output_names(places, source, origin, target, options.output_format)]
            with claimed(output, paths, files_of(places), options.overwrite):
                write_folder(job.frames(clip, stop, output), clip.rate, paths)
    for problem in clip.problems:
        warn(problem)
    tell_outside(job.outside, job.values, origin)
    tell(f"{job.done} frames are in {output}")
    if stop.received:
        sys.exit(128 + stop.received)


def output_file(output, source):
    """The file that a clip is written to: ``output``, or one in that folder under the input's name."""
    if output.is_dir() or not output.suffix:
        suffix = source.suffix.lower() if source.suffix.lower() in KINDS else ".mp4"
        return output / f"{source.stem}{suffix}"
    if output.suffix.lower() not in KINDS:
        raise UserError(f"--output {output}: no kind of video is called {output.suffix}; take one of {' '.join(KINDS)}")
    return output


def check_eight_bits(path, domain):
    if not domain.picture or domain.channels not in (1, 3):
        raise UserError(f"{path}: a video holds 8-bit pictures, and here the model knows {domain}")


def write_file(job, clip, output, stop):
    """The translation of ``clip`` in ``output``: whole, or not at all. After a signal what is done is in the file whose
    name it returns."""
    partial = partial_name(output)
    kind = KINDS[output.suffix.lower()]
    with closing(job.frames(clip, stop, output)) as frames:
        first = next(frames, None)
        if first is None:
            if stop.received:
                sys.exit(128 + stop.received)
            raise UserError(f"not one frame of {job.options.input} can be read")
        with replacing(partial) as file:
            kind.write(of_one_size(chain([first], frames)), file, kind, clip, job.options, stop)
    if stop.received:
        return partial
    os.replace(partial, output)
    return output


def of_one_size(frames):
    """``frames``. Raises UserError at one of another size than the first."""
    size = None
    for number, frame in enumerate(frames, start=1):
        height, width = frame.array.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            raise UserError(
                f"frame {number} is {width}×{height} pixels and the first is {size[0]}×{size[1]}: "
                "a video has one size; name a folder as --output"
            )
        yield frame


def partial_name(output):
    return output.with_name(f"{output.stem}.partial{output.suffix}")


def write_folder(frames, rate, paths):
    """The frames, ``rate`` a second, as images at ``paths``: each at its own, though bad ones are left out."""
    with Writers() as writers:
        for frame in frames:
            writers.save(frame.array, paths[int(frame.time * rate)])


class Job:
    """What it takes to translate frames of the domain ``origin`` to ``target``. ``done``: how many came out.
    ``outside``: how many of their ``values`` were clipped to the range of ``origin``."""

    def __init__(self, translators, translate, origin, target, options, device):
        if options.passes > 1 and not (options.steady and isinstance(translators, torch.nn.Module)):
            raise UserError("--passes 2 steadies the norms of a checkpoint: it goes with --steady, and not with --onnx")
        if options.compare and not (origin.picture and target.picture):
            raise UserError("--compare shows 8-bit pictures side by side, and this model has others; leave it out")
        self.steady = Steady(translators, options.steady, options.passes)
        self.translate, self.origin, self.target, self.options = translate, origin, target, options
        self.device = "cpu" if options.tile else device  # strips go to the device one by one
        self.done = self.outside = self.values = 0

    def frames(self, clip, stop, output):
        """The Frames of ``clip``, translated; until there is a signal."""
        for number in range(1, self.options.passes):
            for _ in self._translations(clip, stop, f"looking, {number} of {self.options.passes}"):
                pass
            clip.problems.clear()  # which the next pass finds again
            self.steady.again()
        for frame, translation in self._translations(clip, stop, f"→ {output}"):
            pixels = to_pixels(translation[None], self.target)[0]
            self.done += 1
            self.outside += count_outside(frame.array, self.origin)
            self.values += frame.array.size
            yield frame._replace(array=side_by_side(frame.array, pixels) if self.options.compare else pixels)

    def _translations(self, clip, stop, what):
        count = 1 if self.options.tile else self.options.batch_size
        with tqdm(total=clip.count, desc=printable(what), unit="frame", dynamic_ncols=True) as bar:
            for frames in in_batches(clip.read(), count):
                images = torch.stack([to_tensor(frame.array, self.origin) for frame in frames]).to(self.device)
                for one in zip(frames, self.steady.translate(images, self._translate), strict=True):
                    if stop.received:
                        return
                    yield one
                    bar.update()

    def _translate(self, images):
        return self.translate(self.steady.networks, images)


def in_batches(frames, count):
    """Lists of at most ``count`` frames in a row, each list of one size."""
    batch = []
    for frame in frames:
        if batch and (len(batch) == count or frame.array.shape != batch[0].array.shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def side_by_side(*pictures):
    """H×W×C of 8 bits, with 1 or 3 channels, in one row of colours."""
    return np.concatenate([np.broadcast_to(picture, (*picture.shape[:2], 3)) for picture in pictures], 1)
