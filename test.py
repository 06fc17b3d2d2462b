"""Translate images with a trained model: ``python test.py --dataset_name monet2photo``; ``--help`` lists the flags.

The networks' shape comes from the checkpoint. Each image is translated at its own size by the averaged generator.
"""

from options import parse_translation
from runtime.errors import UserError, counted, exit_cleanly, printable, tell

if __name__ == "__main__":
    exit_cleanly(parse_translation)  # answers --help and bad flags, before torch is imported

import os
from pathlib import Path

import torch
from tqdm import tqdm

from datasets import WholeImages, group_by_size, load_one_by_one, unpadded
from inference.clip_writers import KINDS
from inference.clips import is_moving, translate_clip
from inference.flags import CLIPS, TRANSLATE, refuse_unused
from inference.onnx_model import OnnxModel
from inference.output import Output, check_output
from inference.tiles import SingleDirection, translate_in_tiles
from inference.writers import Writers
from readers.domains import domains_of, tell_outside, to_pixels
from readers.folders import find_side, has_images, list_images, list_input, side_sources
from readers.formats import suffix_of
from readers.headers import none_readable
from reporting import pages
from runtime import checkpoints, download
from runtime.device import (
    autocast,
    explain_compiler,
    flush_denormals,
    pick_device,
    ran_out_of_memory,
    set_translation_precision,
)
from runtime.folders import check_apart, claimed, remove_others
from runtime.signals import tidied_up
from translators import load_translators


def main():
    options = parse_translation()
    flush_denormals()
    device = pick_device(options.device)
    options.batch_size = options.batch_size or usual_batch(device)
    path, translators, domains = load_onnx(options) if options.onnx else load_checkpoint(options, device)
    moving = bool(options.input) and is_moving(options.input, options)
    check_ways(options, translators, moving)
    results = Path(options.results_dir) / options.name / path.stem / ("input" if options.input else "")
    if moving:
        direction = translators.pick(options.direction)[0]
        translations = translate_padded(direction[0], device, options)
        output = Path(options.output or results / direction)
        return translate_clip(translators, translations, direction, output, domains, options, device)
    folder, outputs = Path(options.output or results), plan(options, results, translators, domains)
    written = [*(folder / name for name in pages.FILES), *(path for output in outputs for path in output.files())]
    sources = [path for output in outputs for path in output.sources()]
    with tidied_up(), claimed(folder, written, sources, options.overwrite):
        done = [row for output in outputs for row in translate_all(translators, output, device, options)]
        if not options.input:
            remove_earlier(folder, outputs, translators.pick(options.direction))
        pages.write_results(folder, done)  # of the files that are there now
    tell_outdated(folder, path)
    tell(f"look at {folder}/index.html")


def remove_earlier(folder, outputs, directions):
    """Remove translations of earlier times that were not made anew: of images that are gone, or cannot be read now."""
    made = {os.path.relpath(path, folder) for output in outputs for path in output.written}
    if count := remove_others(folder, made, below=tuple(directions)):
        tell(f"{counted(count, 'file')} of earlier translations, which were not made anew, are removed")


def tell_outdated(folder, model):
    """Say which numbers in ``folder`` were measured before ``model``, a Path, was written."""
    written = model.stat().st_mtime
    if old := sorted(path.name for path in folder.glob("metrics*.json") if path.stat().st_mtime < written):
        tell(f"{folder} holds numbers of an earlier model ({', '.join(old)}); measure this one by evaluate.py")


def usual_batch(device):
    """How many images are translated at once: a CPU is no faster with several, and slower where they are large."""
    return 1 if device.type == "cpu" else 4


def load_checkpoint(options, device):
    """(path, Translators, domains); the precision that ``options`` leave open is what they were trained in."""
    path, state = checkpoints.load(Path(options.checkpoint_dir) / options.name, options.epoch)
    domains = domains_of(state, options.decoded_limit)
    options.amp = set_translation_precision(options.amp, state["options"], device, domains)
    translators = load_translators(state, device, reordered=not options.compile)
    if options.compile:
        translators.compile_generators()
    return path, translators, domains


def load_onnx(options):
    """(path, OnnxModel, domains)."""
    of_networks = "tile", "compile", "epoch", "amp"
    refuse_unused(options, TRANSLATE, of_networks, "needs the networks of a checkpoint, and --onnx is given")
    options.amp = "off"
    model = OnnxModel(options.onnx, options.decoded_limit)
    return model.path, model, model.domains


def check_ways(options, translators, moving):
    """Raise UserError where the networks cannot work in the way that is asked for."""
    if options.compile and (options.tile or moving):
        raise UserError(
            "--compile makes one piece of a network, which --tile takes apart and which changes from frame to frame of "
            "a clip; leave it out"
        )
    of_clips = [flag.name for flag in TRANSLATE[CLIPS]]
    refuse_unused(options, TRANSLATE, () if moving else of_clips, "is for videos and other clips, and there is none")
    refuse_unused(options, TRANSLATE, () if options.frames else ["fps"], "goes with --frames; a file has its own times")
    like_a_file = options.output and (suffix_of(options.output) or Path(options.output).suffix.lower() in KINDS)
    if not moving and like_a_file and not Path(options.output).is_dir():
        raise UserError(f"--output {options.output} looks like a file; name a folder for the translations of images")
    tile, multiple, least = options.tile, translators.multiple, translators.min_size
    if tile and (tile % multiple or tile < 4 * least):
        raise UserError(f"--tile must be divisible by {multiple} and at least {4 * least}, not {tile}")


def plan(options, results, translators, domains):
    """What is to be done, found before any of it is: a list of Outputs."""
    wanted = translators.pick(options.direction)
    if options.output and not options.input:
        raise UserError("--output goes with --input; translations of test folders go under --results_dir")
    if options.input:
        direction, output = wanted[0], Path(options.output or results / wanted[0])
        places, root = list_input(options.input, domains[direction[0]])
        planned = Output(direction, output, places, root, domains, options.output_format)
        for folder in planned.folders():
            check_output(folder, options)
        return [planned]
    folder = download.find_dataset(options)
    check_apart(results, side_sources(folder))
    sources = {direction: find_side(folder, "test", direction[0]) for direction in wanted}
    there = [direction for direction, source in sources.items() if has_images(source)]
    return [
        Output(
            direction,
            results / direction,
            list_images(sources[direction], domains[direction[0]]),
            sources[direction],
            domains,
            options.output_format,
        )
        for direction in there or wanted
    ]


def translate_all(translators, output, device, options):
    """Translate what goes to ``output``: a list of (direction, name, picture of input, picture of translation)."""
    places, origin = output.places, output.origin
    images = WholeImages(places, origin, translators.multiple, translators.min_size)
    skipped, done, outside, values = [], [], 0, 0
    singles = load_one_by_one(images, range(len(places)), options.n_cpu, options.skip_bad_images, skipped)
    way = printable(f"{output.root} → {output.folder}")
    with (
        tqdm(total=len(places), desc=way, unit="img", dynamic_ncols=True) as bar,
        Writers() as writers,
    ):
        for batch in group_by_size(singles, options.batch_size):
            translations = translate(translators, output.direction[0], batch, device, options)
            real, arrays = unpadded(batch, batch["image"]), to_pixels(translations, output.target)
            outside, values = outside + int(batch["outside"].sum()), values + real.numel()
            for index, *one in zip(batch["index"].tolist(), arrays, real, translations, strict=True):
                done.append((output.direction, *output.save(writers, index, *one)))
                bar.update()
    if skipped and not done:
        raise none_readable(places)
    tell_outside(outside, values, origin)
    if output.volumes and output.volumes.incomplete:
        tell(f"volumes that lack slices are not written: {', '.join(output.volumes.incomplete)}")
    bad = f"; {counted(len(skipped), 'image')} could not be read: {', '.join(skipped)}" if skipped else ""
    tell(f"{counted(len(done), 'translation')} {'is' if len(done) == 1 else 'are'} in {output.folder}/{bad}")
    return sorted(done, key=lambda row: row[1])


def translate_padded(side, device, options):
    """A function (networks, images N×C×H×W of allowed sizes) → their translations."""

    def call(networks, images):
        batch = {"image": images, "height": [images.shape[2]], "width": [images.shape[3]]}
        return translate(networks, side, batch, device, options)

    return call


@torch.inference_mode()
def translate(translators, side, batch, device, options):
    """A batch of padded images in [-1, 1] to translations without the padding, N×C×H×W in [-1, 1]."""

    def whole(images):
        with autocast(device, options.amp):
            return translators.translate(side, images.to(device, non_blocking=True))[0]

    def in_tiles(image):
        with autocast(device, options.amp):
            return translate_in_tiles(SingleDirection(translators, side), image, options.tile, device)

    try:
        if options.tile and max(batch["image"].shape[2:]) > options.tile:
            translated = torch.stack([in_tiles(image) for image in batch["image"]])
        else:
            translated = whole(batch["image"])
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            explain_compiler(error)
            raise
        count = len(batch["image"])
        size = f"{max(batch['width'])}×{max(batch['height'])}, {count} at once"
        raise UserError(f"{device} ran out of memory on images of {size}; take {less(count, options)}") from error
    return unpadded(batch, translated)


def less(count, options):
    """What takes less memory than translating so many images at once did."""
    if options.onnx:
        part_by_part = "the checkpoint instead of --onnx, with --tile 512"
    else:
        part_by_part = f"a --tile smaller than {options.tile}" if options.tile else "--tile 512: part by part"
    return f"a smaller --batch_size, or {part_by_part}" if count > 1 else part_by_part


if __name__ == "__main__":
    exit_cleanly(main)
