"""The app's models and its page, which Gradio draws and serves."""

import contextlib
import functools
import threading
from pathlib import Path

import torch
from PIL import Image

from datasets import WholeImages
from inference.pictures import PictureTranslator
from models import attends
from readers.domains import domains_of, to_pixels
from readers.files import BadImage, NothingLeft
from readers.geometry import squeezed
from readers.pictures import load_image, seen_size
from runtime import checkpoints
from runtime.device import ran_out_of_memory
from runtime.errors import UserError
from runtime.libraries import library
from translators import load_translators

MOST_PIXELS = 2**21  # of an image; larger ones are for test.py --tile
MOST_WITH_ATTENTION = 2**19  # whose time grows with the square of the pixels: all other visitors would wait for it
CAMERA = {"width": {"ideal": 640}, "height": {"ideal": 480}}  # cameras' own sizes are above that number of pixels
MOST_IMAGES = 100  # of a folder
KEPT = 2  # models in memory, besides those of live cameras
EVERY, AT_MOST = 0.1, 600  # seconds: between the frames of a live camera, and of one such film
UNREADABLE = "this file is not an image that can be read"
BUSY = "there is too little memory to read this file now; try again later"
HEIGHT = 400  # of the images on the page, in pixels
SHOWN = ", ".join(f"#{name} img" for name in ("image", "translation", "reconstruction", "live_translation"))
STYLE = f"{SHOWN} {{ width: 100%; height: 100%; object-fit: contain }}"


class Models:
    """The checkpoints of every run in ``folder``. Nothing outside of it can be named."""

    def __init__(self, folder, device):
        self.folder, self.device = Path(folder), device
        self._kept = functools.lru_cache(KEPT)(self._load)
        self.one_at_a_time = threading.Lock()  # among all visitors, each of whose requests is a thread

    def runs(self):
        """The names of the runs that have checkpoints, the newest first, as far as a browser can show them."""
        folders = [path for path in self.folder.glob("*/") if checkpoints.listed(path) and path.name.isprintable()]
        newest = sorted(folders, key=lambda path: checkpoints.listed(path)[-1].path.lstat().st_mtime, reverse=True)
        return [path.name for path in newest]

    def epochs(self, run):
        """The epochs of a run, the newest first, and ``best`` where there is one: a list of str.

        ``latest`` comes first where the newest checkpoint is of a part of an epoch.
        """
        listed = checkpoints.listed(self.folder / run)
        numbers = [str(name.epoch) for name in listed if not name.sample] + ["latest"] * bool(listed[-1].sample)
        return numbers[::-1] + ["best"] * (self.folder / run / "best.pth").exists()

    def load(self, run, epoch):
        """Translators and domains of a checkpoint, as it is now: its file may be replaced while it is kept."""
        if run not in self.runs() or epoch not in self.epochs(run):
            raise UserError(f"there is no epoch {epoch} of {run}")
        written = max((path.lstat().st_mtime_ns for path in (self.folder / run).glob("*.pth")), default=0)
        return self._kept(run, epoch, written)

    def _load(self, run, epoch, written):
        _, state = checkpoints.load(self.folder / run, epoch if epoch in ("best", "latest") else int(epoch))
        domains = domains_of(state)
        if not all(domain.picture for domain in domains.values()):
            raise UserError(f"{run} is not of 8-bit pictures; test.py translates its files")
        return load_translators(state, self.device, reordered=True), domains

    @torch.inference_mode()
    def translate(self, run, epoch, direction, path):
        """The image ``path`` as it is seen, translated, and translated back: three PIL images, of which the last may be
        None. Raises UserError."""
        translators, domains = self.load(run, epoch)
        side, other = translators.pick(direction)[0].split("to")
        height, width = size_in(path, translators)
        try:
            fit = dict(multiple=translators.multiple, least=translators.min_size)
            with unnamed():
                sample = WholeImages([path], domains[side], **fit)[0]
            real = sample["image"][None]
            with self.one_at_a_time:
                _, fake, back = translators.cycle(side, real.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            raise UserError(f"{width} × {height} pixels are too many for the memory") from error
        height, width = sample["height"], sample["width"]
        found = (real, domains[side]), (fake, domains[other]), (back, domains[side])
        return [None if images is None else as_image(images[..., :height, :width], domain) for images, domain in found]


class Live:
    """Translates the frames of one visitor's camera as they come, without flicker."""

    def __init__(self):
        self.choice = None

    def translate(self, models, choice, path):
        """The translation of the frame in the file ``path`` by ``choice``: run, epoch, direction. Where that is another
        than before, a new film begins. Raises UserError."""
        if choice != self.choice:
            *checkpoint, direction = choice
            self.translators, domains = models.load(*checkpoint)
            self.given = []
            frames = iter(self.given.pop, None)  # each is put there when its translation is asked for
            translator = PictureTranslator(self.translators, domains, models.device)
            self.translated = translator.translate_frames(frames, direction)
        self.given.append(frame_in(path, self.translators))
        self.choice = None  # after an error a new film begins
        with models.one_at_a_time:
            translation = next(self.translated)
        self.choice = choice
        return translation


@contextlib.contextmanager
def unnamed():
    """Inside, what names the server's path, a BadImage or NothingLeft, is raised as a UserError that does not."""
    try:
        yield
    except BadImage as error:
        raise UserError(UNREADABLE) from error
    except NothingLeft as error:
        raise UserError(BUSY) from error


def size_in(path, translators):
    """(height, width) of a visitor's image file. Raises UserError where it is none, or too large here."""
    with unnamed():
        height, width = seen_size(path)
    if width * height > (MOST_WITH_ATTENTION if attends(translators) else MOST_PIXELS):
        raise UserError(f"{width} × {height} pixels are too many here; test.py --tile takes images this large")
    return height, width


def frame_in(path, translators):
    """A camera's frame as a PIL image. Raises UserError."""
    size_in(path, translators)
    with unnamed():
        return load_image(path)


def as_image(images, domain):
    """1×C×H×W in [-1, 1] to a PIL image, as ``domain``, which is of 8-bit pictures, means them."""
    return Image.fromarray(squeezed(to_pixels(images, domain)[0]))


def unopened(component):
    """Let the Gradio ``component`` give a visitor's image as a file that nothing has opened yet: Gradio itself would
    decode it by any of Pillow's formats, some of which start programs, whatever its size.

    Frames of a live camera come inside the message, as base64, and are written to a file as they are.
    """
    gr = library("gradio", "the app", "requirements-app.txt")

    def preprocess(payload):
        if payload is None or not (payload.url or "").startswith("data:"):
            return payload and payload.path
        try:
            path = gr.processing_utils.save_base64_to_cache(payload.url, component.GRADIO_CACHE, "image.png")
        except ValueError as error:  # no base64
            raise gr.Error(UNREADABLE, print_exception=False) from error
        component.temp_files.add(path)  # which Gradio deletes in time
        return path

    component.preprocess = preprocess


def build(models):
    """The app, ready to be launched."""
    gr = library("gradio", "the app", "requirements-app.txt")

    def told(function):
        """``function``, whose UserErrors the page shows."""

        @functools.wraps(function)
        def call(*given):
            try:
                return function(*given)
            except UserError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return call

    @told
    def one(run, epoch, direction, path):
        return models.translate(run, epoch, direction, path)[1:] if path else (None, None)

    @told
    def many(run, epoch, direction, paths):
        if len(paths := paths or []) > MOST_IMAGES:
            raise UserError(f"{len(paths)} files are more than the {MOST_IMAGES} of this app; test.py takes any number")
        shown, left_out = [], []
        for path in paths:
            name = Path(path).name
            try:
                real, fake, _ = models.translate(run, epoch, direction, path)
                shown += [(real, name), (fake, f"{name}, translated")]
            except UserError as error:
                left_out.append(f"{name}: {error}")
        if left_out:
            gr.Warning("\n".join(left_out), duration=None)
        return shown

    @told
    def live(run, epoch, direction, path, film):
        return (film.translate(models, (run, epoch, direction), path) if path else None), film

    def epochs_of(run):
        epochs = models.epochs(run) if run in models.runs() else []
        return gr.Dropdown(epochs, value=epochs[0] if epochs else None)

    def refresh():
        """What was trained since the app started."""
        runs = models.runs()
        newest = runs[0] if runs else None  # all may be gone since
        return gr.Dropdown(runs, value=newest), epochs_of(newest)

    runs = models.runs()
    with gr.Blocks(title="Attention CycleGAN", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        with gr.Row():
            run = gr.Dropdown(runs, value=runs[0], label="Run")
            epoch = gr.Dropdown(models.epochs(runs[0]), value=models.epochs(runs[0])[0], label="Epoch")
            direction = gr.Radio([("A to B", "AtoB"), ("B to A", "BtoA")], value="AtoB", label="Direction")
        choice = [run, epoch, direction]
        with gr.Tab("Image or camera"):
            with gr.Row():
                given = dict(type="filepath", image_mode=None, sources=["upload", "webcam", "clipboard"], height=HEIGHT)
                made = dict(format="png", interactive=False, buttons=["download", "fullscreen"], height=HEIGHT)
                camera = gr.WebcamOptions(constraints={"video": CAMERA})
                image = gr.Image(label="Image", elem_id="image", webcam_options=camera, **given)
                fake = gr.Image(label="Translation", elem_id="translation", **made)
                back = gr.Image(label="Reconstruction", elem_id="reconstruction", **made)
            gr.on([image.change, epoch.change, direction.change], one, [*choice, image], [fake, back])
        with gr.Tab("Live"):
            with gr.Row():
                camera = gr.Image(label="Camera", elem_id="live", **given | {"sources": ["webcam"]}, streaming=True,
                                  webcam_options=camera)  # fmt: skip
                shown = gr.Image(label="Translation", elem_id="live_translation", **made | {"format": "webp"})
            film = gr.State(Live, time_to_live=AT_MOST)
            for component in (image, camera):
                unopened(component)
            streams = dict(stream_every=EVERY, time_limit=AT_MOST, concurrency_limit=1)
            camera.stream(live, [*choice, camera, film], [shown, film], **streams)
        with gr.Tab("Folder"):
            files = gr.File(label="Images", file_count="directory", file_types=["image"], elem_id="files")
            gallery = gr.Gallery(label="Images and translations", elem_id="gallery", columns=2, **made)
            files.upload(many, [*choice, files], gallery)
        run.change(epochs_of, run, epoch).then(one, [*choice, image], [fake, back])  # its epoch may have the same name
        app.load(refresh, None, [run, epoch])
    return app
