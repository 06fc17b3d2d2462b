"""Measure a model, or a folder of translations: ``python evaluate.py --dataset_name monet2photo``; see ``--help``.

FID, KID with its standard error, precision and recall compare translations with real images of the domain, and so do,
without a pretrained network, the sliced Wasserstein distance of their patches (SWD) and their sharpness at scales of 1,
2 and 4 pixels (1 is that of real images). Where both folders hold the same names, L1, PSNR and SSIM compare each
translation with its truth: L1 and SSIM of images in [0, 1], PSNR in dB.
"""

from options import parse_evaluation
from runtime.errors import UserError, exit_cleanly, tell

if __name__ == "__main__":
    exit_cleanly(parse_evaluation)  # answers --help and bad flags, before torch is imported

import json
import math
from argparse import Namespace
from itertools import chain
from pathlib import Path

from inference.flags import EVALUATE, FILES, unusual
from readers.archives import is_archive
from readers.domains import domains_of
from readers.files import files_of
from readers.folders import files_in, find_side, list_images, side_sources
from readers.headers import read_headers
from readers.survey import AUTO, check_alike, find_domain, idle_ways, tell_reduced, ways_of
from registry import BACKBONES
from reporting.metrics import FEWEST, Evaluation, Folder, Truths, build_features, check_measure, describe, mean_of
from runtime import checkpoints, download
from runtime.device import flush_denormals, pick_device, ran_out_of_memory, set_translation_precision
from runtime.folders import check_free, write_ours
from translators import load_translators


def main():
    options = parse_evaluation()
    flush_denormals()
    device = pick_device(options.device)
    try:
        report = measure_folders(options, device) if options.real or options.fake else measure_model(options, device)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise UserError(f"{device} ran out of memory; {less(options)}") from error
    show(report)
    path = report["json"]
    content = (json.dumps(as_json(report), indent=1) + "\n").encode()
    write_ours(path.parent, {path.name: content}, options.overwrite)
    tell(f"the numbers are in {path}")


def less(options):
    """What takes less memory than measuring so many images at once did."""
    if options.batch_size > 1:
        return "take a smaller --batch_size"
    if options.real or options.fake:
        return "these images are too large to be measured here; take smaller copies of both folders"
    return "translate by test.py --tile 512, and measure those files by --real and --fake"


def file_for_numbers(options, usual, inputs):
    """Where the numbers go, found free before anything is measured; none of ``inputs``. Raises UserError."""
    path = Path(options.json or usual)
    if path.is_dir():
        raise UserError(f"--json {path} is a folder; name a file in it")
    check_free(path.parent, [path], inputs, options.overwrite)
    return path


def as_json(report):
    """``report`` without what only this program needs; a number that could not be had is null."""

    def with_null(columns):
        return {
            title: {name: None if math.isnan(value) else value for name, value in values.items()}
            for title, values in columns.items()
        }

    told = {name: report[name] for name in ("of", "features", "images", "compared")}
    told["ranges"] = {where: [domain.low, domain.high] for where, domain in report["domains"].items()}
    return told | {name: with_null(report[name]) for name in ("numbers", "untranslated") if name in report}


def measure_folders(options, device):
    """A report on --real and --fake."""
    for flag in ("real", "fake"):
        if not Path(folder := getattr(options, flag)).is_dir() and not is_archive(folder):
            raise UserError(f"--{flag} {folder} is no folder of images")
    places = [list_images(folder, ways_of(options)) for folder in (options.real, options.fake)]
    path = file_for_numbers(options, Path(options.results_dir) / "metrics.json", files_of(chain(*places)))
    network = build_features(options.features, device)
    domain = domain_of_both(*places, options)
    folders = {name: Folder(getattr(options, name), options, domain) for name in ("fake", "real")}
    fake, real = (describe(folder, network, device) for folder in folders.values())
    truths = Truths(folders["fake"], folders["real"])
    pairs = list(truths.of_copies())
    return {
        "of": f"{options.fake} against {options.real}",
        "features": options.features,
        "images": {name: len(folder) for name, folder in folders.items()},
        "numbers": {"fake": fake.distances(real) | mean_of(pairs)},
        "compared": {"fake": len(pairs)} if truths.known else {},
        "truths": truths,
        "width": network.width,
        "domains": {"both folders": domain},
        "json": path,
    }


def domain_of_both(real, fake, options):
    """The Domain as which the images at the places ``real`` and ``fake`` are read; says which flags do nothing there.
    Raises UserError where they are of two kinds."""
    ways = ways_of(options)
    headers, others = (read_headers(places, options.skip_bad_images, ways) for places in (real, fake))
    domain = find_domain("real", headers, ways, span=options.range, skip_bad=options.skip_bad_images)
    if options.range != AUTO and not domain.picture and any(header.floats for header in others.values()):
        domain = domain._replace(dtype="float32")  # floats and whole numbers may share a range that is given
    check_alike(others, domain)
    if domain.picture:
        tell_reduced("translations", others)
    given = unusual(options, EVALUATE, [flag.name for flag in FILES])
    tell(*idle_ways(ways, given, headers | others))
    return domain


def measure_model(options, device):
    """A report on a checkpoint's averaged generators."""
    if options.checkpoint:
        path = Path(options.checkpoint)
        if not path.is_file():
            what = "is a folder; name a file in it" if path.is_dir() else "does not exist; it is a file"
            raise UserError(f"--checkpoint {path} {what}, such as saved_models/NAME/epoch_5.pth")
        state = checkpoints.load_file(path)
    else:
        path, state = checkpoints.load(Path(options.checkpoint_dir) / options.name, options.epoch)
    folder = download.find_dataset(options)
    file = f"metrics_{options.direction}.json" if options.direction else "metrics.json"
    usual = Path(options.results_dir) / path.absolute().parent.name / path.stem / file
    images = [files_in(source) for source in side_sources(folder)]
    target = file_for_numbers(options, usual, [path, *files_of(chain(*images))])
    trained, domains = state["options"], domains_of(state, options.decoded_limit)
    check_measure(options.features, Namespace(**trained))
    amp = set_translation_precision(options.amp, trained, device, domains)
    translators = load_translators(state, device, reordered=True)
    directions = translators.pick(options.direction)
    folders = {side: find_side(folder, "test", side) for side in "AB"}
    evaluation = Evaluation(folders, options, device, translators, amp, domains)
    return {
        "of": f"{path} on {folder}",
        "features": options.features,
        "images": {side: len(side_folder) for side, side_folder in evaluation.folders.items()},
        "numbers": evaluation(translators, directions),
        "compared": evaluation.compared,
        "truths": evaluation.truths["A"],  # of names alone, those of B say the same
        "untranslated": evaluation.untranslated(directions),
        "width": evaluation.network.width,
        "domains": {f"side {side}": domain for side, domain in domains.items()},
        "json": target,
    }


def show(report):
    """A table on the screen, and what a reader must know of it."""
    counts = ", ".join(f"{count} {name}" for name, count in report["images"].items())
    tell(report["of"])
    tell(f"images: {counts}; features: {report['features']}")
    columns = dict(report["numbers"])
    rows = [name for name in next(iter(columns.values())) if name != "KID error"]
    columns |= {f"{side} as it is": numbers for side, numbers in report.get("untranslated", {}).items()}
    print(f"{'':12}" + "".join(f"{column:>20}" for column in columns))
    for row in rows:
        print(f"{row:12}" + "".join(f"{cell(numbers, row):>20}" for numbers in columns.values()))
    if "untranslated" in report:
        print("As it is: the test images themselves, before any translation, against those of the other side.")
    for where, domain in report["domains"].items():
        if not domain.whole_picture:
            of_pairs = "; L1, PSNR and SSIM are over all channels and relative to that range"
            tell(f"{where}: {domain}{of_pairs if report['compared'] else ''}")
    for column, count in report["compared"].items():
        print(
            f"{column}: L1, PSNR and SSIM take images of the same name for each other's truth; {count} of "
            f"{report['images'][column.partition('to')[0]]} have one of their size."
        )
    if not report["compared"]:
        truths = report["truths"]
        why = f"{truths.alone} is not" if truths.alone else "one of them has a name twice"
        print(
            f"No L1, PSNR and SSIM: they want the same names in both folders, and {truths.shared} of "
            f"{max(report['images'].values())} are in both; {why}."
        )
    if "fake" in report["numbers"] and report["features"] in BACKBONES:
        print(
            f"If they were made by a model whose critics look through {report['features']} (--backbone), take other "
            "--features: those critics know these too well."
        )
    few = min(report["images"].values())
    if FEWEST <= few < report["width"]:
        print(
            f"With {few} images, fewer than the {report['width']} features, FID is biased upwards and compares only "
            "with an FID of as many images; KID is unbiased."
        )


def cell(numbers, row):
    value = numbers.get(row)
    if value is None:
        return "–"
    if math.isnan(value):
        return "too small images" if row.startswith(("SSIM", "SWD", "sharpness")) else "too few images"
    if row == "KID":
        return f"{value:.4f} ± {numbers['KID error']:.4f}"
    return f"{value:.4g}"


if __name__ == "__main__":
    exit_cleanly(main)
