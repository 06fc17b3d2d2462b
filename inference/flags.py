"""Flags of the programs that use what was trained, and those that all programs share."""

import os

from registry import FEATURES, FORMATS
from runtime.download import PRETRAINED
from runtime.errors import UserError
from runtime.flags import MANY, NATURAL, POSITIVE, Flag, complete, epoch, folder_name, number, word_or_number


def usable_cores():
    """The cores that this process may use: fewer than there are where a cluster's queue, or taskset, says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


WHERE = [
    Flag("dataset_name", "monet2photo", "folder with trainA, trainB, testA, testB under --dataset_dir", folder_name),
    Flag("dataset_dir", "datasets", "where the data sets lie"),
    Flag(
        "name",
        lambda options: options.dataset_name,
        "what the run is called, where one data set has several (default: as the data set; alone, it names both)",
        folder_name,
    ),
    Flag("checkpoint_dir", "saved_models", "where checkpoints lie, in a folder for each run"),
]
MACHINE = [
    Flag("device", "auto", "cpu, cuda, cuda:1, mps …; auto takes a GPU where there is one"),
    Flag(
        "n_cpu",
        lambda options: min(4, usable_cores()),
        "processes that load images, 0 for none (default: the cores, at most 4)",
        number(int, 0, 2**10),
    ),
    Flag("skip_bad_images", False, "go on without the images that cannot be read, and count them", bool),
    Flag(
        "decoded_limit",
        1.0,
        "GiB that an image may take when decoded; larger ones are refused",
        number(float, 1e-9, MANY),
    ),
]
FEATURE_FLAG = Flag("features", "inception", "the network whose features FID, KID, precision and recall compare", str,
                    tuple(FEATURES))  # fmt: skip
OVERWRITE = Flag("overwrite", False, "replace files that this program did not write, where output has their names",
                 bool)  # fmt: skip
AMP_OF_THE_MODEL = Flag("amp", "trained", "precision of the networks: as they were trained, but float32 for images of "
                        "more than 8 bits, and where the device has no fast instructions for it; or another", str,
                        ("trained", "auto", "off", "bf16", "fp16"))  # fmt: skip

FILES = [
    Flag("pages", "channels", "what the pages of a stack or the frames of a scan are", str, ("channels", "images"),
         fixed=True),
    Flag("slice_axis", 2, "volumes are cut into sagittal (0), coronal (1) or axial (2) images", int, (0, 1, 2),
         fixed=True),
    Flag("nan", "refuse", "the value for pixels that are NaN or infinite; refuse: stop, and name the file",
         word_or_number("refuse"), fixed=True),
]  # fmt: skip
RANGE = word_or_number("auto")
SIDES = [
    Flag("channels", 3, "3 or 1, for 8-bit pictures of both sides; other files have what they have", POSITIVE,
         fixed=True),
    *(Flag(f"channels_{side}", lambda options: options.channels, f"the same for {side} alone (default: --channels)",
           POSITIVE, fixed=True) for side in "AB"),
    *(Flag(f"range_{side}", ["auto"], f"the lowest and the highest value of {side}, as in 0 4095; auto is all that its "
           "type can hold, for floats the 0.1 and 99.9 percentiles", RANGE, fixed=True, several=True) for side in "AB"),
    *FILES,
    Flag("show_channels", [1, 2, 3], "which channels are red, green and blue in grids, where there are not 1 or 3",
         number(int, 1, 2**16), several=True),
]  # fmt: skip

CLIPS = "videos and other clips"
OUTPUT_FORMATS = ("png", "jpg", "webp", "bmp", "tif", "npy", "nii.gz")
TRANSLATE = {
    "what to translate": [
        *WHERE,
        Flag("epoch", "latest", "the checkpoint after this epoch, the latest, or the best", epoch),
        Flag("input", None, "a folder, an image or a video to translate instead of the test folders"),
        Flag("onnx", None, "translate with this file of export.py instead of a checkpoint"),
        Flag("output", None, "where the translations of --input go (default: under --results_dir)"),
        Flag("direction", None, "default: both, as far as there are test folders; with --input one, AtoB before BtoA",
             str, ("AtoB", "BtoA")),
        Flag("results_dir", "results", "where translations go, in a folder for each run and epoch"),
        Flag("output_format", "trained", "the translations' format: that of the training files, or another", str,
             ("trained", *OUTPUT_FORMATS)),
        OVERWRITE,
    ],
    CLIPS: [
        Flag("frames", False, "the images in --input are the frames of one clip, in the order of their numbers", bool),
        Flag("fps", 25.0, "with --frames: how many a second go to a video", number(float, 0.1, 1001)),
        Flag("steady", 0.9, "against flicker: how much of the norms' statistics comes from the frames before; 0 "
             "translates each frame by itself", number(float, 0, 1)),
        Flag("passes", 1, "2: look at the whole clip first, and take those statistics from all of a shot", int, (1, 2)),
        Flag("compare", False, "show input and translation side by side", bool),
        Flag("codec", "auto", "the encoder of videos, by FFmpeg's name; auto is H.264, in WebM VP9"),
        Flag("crf", 18, "constant rate factor: smaller is better quality and a larger file", number(int, 0, 64)),
    ],
    "machine": [
        Flag("batch_size", None, "images translated at once, where their sizes agree (default: 4, on a CPU 1)",
             POSITIVE),
        Flag("tile", 0, "translate images larger than this in strips of as many pixels as a square of this side has; "
             "0 for whole images", NATURAL),
        Flag("compile", False, "compile the networks: half a minute for each of the first sizes, then faster, "
             "with large images above all", bool),
        AMP_OF_THE_MODEL,
        *MACHINE,
    ],
}  # fmt: skip

EVALUATE = {
    "what to measure": [
        *WHERE,
        Flag("epoch", "latest", "the checkpoint after this epoch, the latest, or the best", epoch),
        Flag("checkpoint", None, "a checkpoint's file, instead of --checkpoint_dir and --epoch"),
        Flag("direction", None, "default: both", str, ("AtoB", "BtoA")),
        Flag("real", None, "measure two folders instead, without a model: this one"),
        Flag("fake", None, "and the translations in this one"),
        Flag("range", ["auto"], "with --real and --fake: the lowest and the highest value", RANGE, several=True),
        *FILES,
        FEATURE_FLAG,
        Flag("json", None, "file for the numbers (default: metrics.json, or metrics_AtoB.json of one direction, "
             "under --results_dir)"),
        Flag("results_dir", "results", "where numbers go, in a folder for each run and epoch"),
        OVERWRITE,
    ],
    "machine": [
        Flag("batch_size", 8, "images measured at once, where their sizes agree", POSITIVE),
        AMP_OF_THE_MODEL,
        *[flag for flag in MACHINE if flag.name != "n_cpu"],
    ],
}  # fmt: skip

IMPORT = {
    "what to import": [
        Flag("name", None, "what to call it: test.py and the others find it by the same flag (default: with "
             "--pretrained, the name of its data set)", folder_name),
        Flag("pretrained", None, "fetch the published generators of this data set", str, tuple(PRETRAINED)),
        Flag("pretrained_url", "http://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models",
             "where --pretrained is fetched from, as FILE.pth"),
        Flag("direction", "AtoB", "what the generator _net_G_A translates, or else the first one: BtoA for a run that "
             "was trained there with --direction BtoA", str, ("AtoB", "BtoA")),
        Flag("checkpoint_dir", "saved_models", "where checkpoints lie, in a folder for each name"),
    ],
}  # fmt: skip

EXPORT = {
    "what to export": [
        *WHERE,
        Flag("epoch", "latest", "the checkpoint after this epoch, the latest, or the best", epoch),
        Flag("direction", None, "default: both", str, ("AtoB", "BtoA")),
        Flag("exports_dir", "exports", "where the files go, in a folder for each run"),
        Flag("format", "onnx", "the kind of file", str, tuple(FORMATS)),
        OVERWRITE,
    ],
    "ONNX": [
        Flag("io", "uint8", "images as they come, N×H×W×C, of any size; or as the network sees them, N×C×H×W in "
             "[-1, 1]", str, ("uint8", "float")),
        Flag("half", False, "keep the weights in float16: half the size", bool),
    ],
    "page": [
        Flag("web", False, "write a page, too, that translates in its visitor's browser", bool),
        Flag("ort", "node_modules/onnxruntime-web/dist", "the folder of onnxruntime-web, of which the page gets its "
             "own copy; or the http address of one, from where visitors load it"),
        Flag("examples", 0, "so many test images of each direction, which the page offers to try, and publishes",
             NATURAL),
        *[flag for flag in MACHINE if flag.name == "decoded_limit"],
    ],
}  # fmt: skip


def refuse_unused(options, table, names, why):
    """Raise UserError where one of the flags ``names`` has another value than its default in ``table``: nothing would
    come of it."""
    for name in unusual(options, table, names):
        raise UserError(f"--{name} {why}; leave it out")


def unusual(options, table, names):
    """Those of the flags ``names`` that have another value in ``options`` than their default in ``table``."""
    usual = vars(complete(table, {}))
    return [name for name in names if getattr(options, name) != usual[name]]


def check_evaluation(options):
    if options.real or options.fake:
        if not (options.real and options.fake):
            raise UserError("--real and --fake go together: the folder of real images, and that of translations")
        of_models = "dataset_name", "dataset_dir", "name", "checkpoint_dir", "epoch", "checkpoint", "direction", "amp"
        refuse_unused(options, EVALUATE, of_models, "is of a model, not of two folders")
    else:
        of_files = [flag.name for flag in FILES]
        refuse_unused(options, EVALUATE, ("range", *of_files), "goes with --real and --fake; a model has its own")
        if options.checkpoint:
            why = "chooses a checkpoint, and --checkpoint has done so"
            refuse_unused(options, EVALUATE, ("epoch", "checkpoint_dir"), why)
            if options.name != options.dataset_name:
                raise UserError(f"--name {why}; leave it out")


def check_export(options):
    if options.web and (options.format, options.io) != ("onnx", "uint8"):
        raise UserError("--web goes with --format onnx and --io uint8")
    if not options.web:
        refuse_unused(options, EXPORT, ("ort", "examples", "decoded_limit"), "is of the page that --web writes")
    if options.format != "onnx":
        refuse_unused(options, EXPORT, ("io", "half"), "goes with --format onnx")


APP = {
    "app": [
        *[flag for flag in WHERE if flag.name == "checkpoint_dir"],
        Flag(
            "host",
            lambda options: os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1",  # which hosted apps set
            "the address to listen at; 0.0.0.0 opens the app to the whole network (default: 127.0.0.1, this machine)",
        ),
        Flag("port", 7860, "the port to listen at", number(int, 1, 65536)),
        Flag("share", False, "let anyone with the link use it, through Gradio's servers", bool),
        Flag("max_upload", 20, "largest file that is taken, in MB", POSITIVE),
        *[flag for flag in MACHINE if flag.name == "device"],
    ],
}
