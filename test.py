"""Translate images with a trained model: ``python test.py --dataset_name monet2photo``; ``--help`` lists the flags.

The networks' shape comes from the checkpoint. Each image is translated at its own size by the averaged generator.
"""

from options import parse_translation
from runtime.errors import UserError, exit_cleanly

if __name__ == "__main__":
    exit_cleanly(parse_translation)  # answers --help and bad flags, before torch is imported

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from datasets import WholeImages, find_side, group_by_size, list_images, load_one_by_one, to_bytes
from inference.onnx_model import OnnxModel
from inference.tiles import OneWay, translate_in_tiles
from reporting import pages
from runtime import checkpoints, download
from runtime.device import autocast, pick_amp, pick_device, ran_out_of_memory, set_tf32
from runtime.folders import check_writable
from translators import load_translators

WRITERS = 4  # threads


def main():
    options = parse_translation()
    device = pick_device(options.device)
    path, translators = load_onnx(options) if options.onnx else load_checkpoint(options, device)
    results = Path(options.results_dir) / options.dataset_name / path.stem
    done = []
    for direction, source, output in work(options, results, translators):
        channels = translators.channels(direction[0])
        done += translate_folder(translators, direction, source, output, channels, device, options)
    folder = Path(options.output or results)
    pages.write_results(folder, done)
    print(f"look at {folder}/index.html")


def load_checkpoint(options, device):
    """(path, Translators); the precision that ``options`` leave open is what they were trained in."""
    path, state = checkpoints.load(Path(options.checkpoint_dir) / options.dataset_name, options.epoch)
    trained = state["options"]
    set_tf32(trained["tf32"])
    options.amp = pick_amp(trained["amp"] if options.amp == "trained" else options.amp, device)
    return path, load_translators(state, device)


def load_onnx(options):
    """(path, OnnxModel)."""
    if options.tile:
        raise UserError("--tile takes a network apart, which an ONNX file does not allow; leave one of them out")
    options.amp = "off"
    model = OnnxModel(options.onnx)
    return model.path, model


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
    there = [direction for direction, source in sources.items() if source.is_dir()]
    return [(direction, sources[direction], results / direction) for direction in there or wanted]


def translate_folder(translators, direction, source, output, channels, device, options):
    """Translate every image of ``source`` (a folder, or one file) into ``output``, under the same names.

    Returns a list of (direction, name, path of the input, path of the translation).
    """
    root, paths = (source.parent, [source]) if source.is_file() else (source, list_images(source))
    if output.resolve() == root.resolve():
        raise UserError(f"--output {output} would overwrite the images in --input; choose another folder")
    check_writable(output)

    multiple, least = translators.multiple, translators.min_size
    if options.tile and (options.tile % multiple or options.tile < 4 * least):
        raise UserError(f"--tile must be divisible by {multiple} and at least {4 * least}, not {options.tile}")
    images = WholeImages(paths, channels=channels, multiple=multiple, least=least)
    skipped, done = [], []
    singles = load_one_by_one(images, range(len(paths)), options.n_cpu, options.skip_bad_images, skipped)
    with (
        tqdm(total=len(paths), desc=f"{source} → {output}", unit="img", dynamic_ncols=True) as bar,
        Writers(WRITERS) as writers,
    ):
        for batch in group_by_size(singles, options.batch_size):
            for index, translation in zip(
                batch["index"], translate(translators, direction[0], batch, device, options), strict=True
            ):
                name = Path(paths[index]).relative_to(root)
                writers.save(translation, output / name)
                done.append((direction, name, paths[index], output / name))
                bar.update()
    bad = f"; {len(skipped)} images could not be read: {', '.join(skipped)}" if skipped else ""
    print(f"{len(done)} translations are in {output}/{bad}")
    return sorted(done, key=lambda row: row[1])


@torch.inference_mode()
def translate(translators, side, batch, device, options):
    """A batch of padded images in [-1, 1] to translations without the padding: uint8 arrays H×W×C, one by one."""

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
    pixels = to_bytes(translated).permute(0, 2, 3, 1).cpu().numpy()
    for image, height, width in zip(pixels, batch["height"], batch["width"], strict=True):
        yield image[:height, :width]


class Writers:
    """Encodes and writes images in threads, so that translating need not wait; an error comes out at the next call."""

    def __init__(self, count):
        self.pool, self.count, self.pending = ThreadPoolExecutor(count), count, deque()

    def save(self, array, path):
        """Take ``array`` over to be written; waits while many are still to be written."""
        self.pending.append(self.pool.submit(save_image, array, path))
        if len(self.pending) > 4 * self.count:
            self.pending.popleft().result()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.pool.shutdown(cancel_futures=exception[0] is not None)
        for written in self.pending if exception[0] is None else ():
            written.result()


def save_image(array, path):
    """Write H×W×C uint8 in the format of the path's suffix, with as little loss as that has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    image.save(path, quality=95, subsampling=0, lossless=True)  # JPEG reads the first two, WebP the last


if __name__ == "__main__":
    exit_cleanly(main)
