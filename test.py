"""Translate images with a trained model: ``python test.py --dataset_name monet2photo``; ``--help`` lists the flags.

The networks' shape comes from the checkpoint. Each image is translated at its own size by the averaged generator.
"""

from options import parse_translation
from runtime.errors import UserError, exit_cleanly

if __name__ == "__main__":
    exit_cleanly(parse_translation)  # answers --help and bad flags, before torch is imported

from pathlib import Path

import torch
from tqdm import tqdm

from datasets import WholeImages, find_side, group_by_size, list_images, load_one_by_one, unpadded
from inference.onnx_model import OnnxModel
from inference.output import Output
from inference.tiles import OneWay, translate_in_tiles
from inference.writers import Writers
from readers.archives import is_archive
from readers.domains import domains_of, to_pixels
from readers.formats import expand
from reporting import pages
from runtime import checkpoints, download
from runtime.device import autocast, pick_amp, pick_device, ran_out_of_memory, set_tf32
from runtime.folders import check_writable
from translators import load_translators

THREADS = 4  # that write


def main():
    options = parse_translation()
    device = pick_device(options.device)
    path, translators, domains = load_onnx(options) if options.onnx else load_checkpoint(options, device)
    results = Path(options.results_dir) / options.dataset_name / path.stem
    done = []
    for direction, source, output in work(options, results, translators):
        done += translate_folder(translators, direction, source, output, domains, device, options)
    folder = Path(options.output or results)
    pages.write_results(folder, done)
    print(f"look at {folder}/index.html")


def load_checkpoint(options, device):
    """(path, Translators, domains); the precision that ``options`` leave open is what they were trained in."""
    path, state = checkpoints.load(Path(options.checkpoint_dir) / options.dataset_name, options.epoch)
    trained = state["options"]
    set_tf32(trained["tf32"])
    options.amp = pick_amp(trained["amp"] if options.amp == "trained" else options.amp, device)
    return path, load_translators(state, device), domains_of(state, options.decoded_limit)


def load_onnx(options):
    """(path, OnnxModel, domains)."""
    if options.tile:
        raise UserError("--tile takes a network apart, which an ONNX file does not allow; leave one of them out")
    options.amp = "off"
    model = OnnxModel(options.onnx)
    return model.path, model, model.domains


def work(options, results, translators):
    """What is to be done: a list of (direction, folder or image, folder for the translations)."""
    wanted = translators.pick(options.direction)
    if options.output and not options.input:
        raise UserError("--output goes with --input; translations of test folders go under --results_dir")
    if options.input:
        if not (source := Path(options.input)).exists():
            raise UserError(f"--input {source} does not exist")
        return [(wanted[0], source, Path(options.output or results / wanted[0]))]
    folder = download.find_dataset(options)
    sources = {direction: find_side(folder, "test", direction[0]) for direction in wanted}
    there = [direction for direction, source in sources.items() if source.exists()]
    return [(direction, sources[direction], results / direction) for direction in there or wanted]


def translate_folder(translators, direction, source, output, domains, device, options):
    """Translate every image of ``source`` (a folder, an archive, or one file) into ``output``, under the same names.

    Returns a list of (direction, name, picture of the input, picture of the translation).
    """
    origin, target = (domains[side] for side in direction.split("to"))
    whole = is_archive(source) or not source.is_file()
    root = source if whole else source.parent
    paths = list_images(source, origin) if whole else list(expand([source], origin))
    if output.resolve() == root.resolve():
        raise UserError(f"--output {output} would overwrite the images in --input; choose another folder")
    check_writable(output)

    multiple, least = translators.multiple, translators.min_size
    if options.tile and (options.tile % multiple or options.tile < 4 * least):
        raise UserError(f"--tile must be divisible by {multiple} and at least {4 * least}, not {options.tile}")
    written = Output(output, paths, root, origin, target, options.output_format)
    images = WholeImages(paths, origin, multiple, least)
    skipped, done, outside, values = [], [], 0, 0
    singles = load_one_by_one(images, range(len(paths)), options.n_cpu, options.skip_bad_images, skipped)
    with (
        tqdm(total=len(paths), desc=f"{source} → {output}", unit="img", dynamic_ncols=True) as bar,
        Writers(THREADS) as writers,
    ):
        for batch in group_by_size(singles, options.batch_size):
            translations = translate(translators, direction[0], batch, device, options)
            real, arrays = unpadded(batch, batch["image"]), to_pixels(translations, target)
            outside, values = outside + int(batch["outside"].sum()), values + real.numel()
            for index, *one in zip(batch["index"].tolist(), arrays, real, translations, strict=True):
                done.append((direction, *written.save(writers, index, *one)))
                bar.update()
    if outside:
        print(f"{outside} of {values} values lay outside of {origin.low:g} to {origin.high:g}, and were clipped")
    if written.volumes and written.volumes.incomplete:
        print(f"volumes that lack slices are not written: {', '.join(written.volumes.incomplete)}")
    bad = f"; {len(skipped)} images could not be read: {', '.join(skipped)}" if skipped else ""
    print(f"{len(done)} translations are in {output}/{bad}")
    return sorted(done, key=lambda row: row[1])


@torch.inference_mode()
def translate(translators, side, batch, device, options):
    """A batch of padded images in [-1, 1] to translations without the padding, N×C×H×W in [-1, 1]."""

    def whole(images):
        with autocast(device, options.amp):
            return translators.translate(side, images.to(device, non_blocking=True))[0]

    def in_tiles(image):
        with autocast(device, options.amp):
            return translate_in_tiles(OneWay(translators, side), image, options.tile, device)

    try:
        if options.tile and max(batch["image"].shape[2:]) > options.tile:
            translated = torch.stack([in_tiles(image) for image in batch["image"]])
        else:
            translated = whole(batch["image"])
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        size = f"{max(batch['height'])}×{max(batch['width'])}, {len(batch['image'])} at once"
        raise UserError(
            f"{device} ran out of memory on images of {size}; take a smaller --batch_size, or a smaller --tile"
        ) from error
    return unpadded(batch, translated)


if __name__ == "__main__":
    exit_cleanly(main)
