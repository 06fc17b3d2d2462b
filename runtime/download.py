"""The data sets and the weights of the CycleGAN paper by name, fetched."""

import contextlib
import http.client
import math
import shlex
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from runtime.errors import DISK_REFUSES, UserError, did_you_mean, tell
from runtime.files import named_errors, open_regular
from runtime.lock import in_turn

KNOWN = (
    "ae_photos", "apple2orange", "cezanne2photo", "facades", "horse2zebra", "iphone2dslr_flower", "maps",
    "monet2photo", "summer2winter_yosemite", "ukiyoe2photo", "vangogh2photo",
)  # fmt: skip
BUILT = {  # data set → the program that makes it
    "topo2relief": "datasets/earth.py",
    "satellite2relief": "datasets/earth.py",
    "topo2satellite": "datasets/earth.py",
    "elevation2satellite": "datasets/earth.py",
    "ink2colour": "datasets/glyphs.py",
    "outline2filled": "datasets/glyphs.py",
}
PRETRAINED = {  # data set → the files of its generators AtoB and BtoA
    "apple2orange": ("apple2orange", "orange2apple"),
    "cezanne2photo": (None, "style_cezanne"),
    "cityscapes": ("cityscapes_photo2label", "cityscapes_label2photo"),
    "facades": ("facades_photo2label", "facades_label2photo"),
    "horse2zebra": ("horse2zebra", "zebra2horse"),
    "iphone2dslr_flower": ("iphone2dslr_flower", None),
    "maps": ("sat2map", "map2sat"),
    "monet2photo": ("monet2photo", "style_monet"),
    "summer2winter_yosemite": ("summer2winter_yosemite", "winter2summer_yosemite"),
    "ukiyoe2photo": (None, "style_ukiyoe"),
    "vangogh2photo": (None, "style_vangogh"),
}
ATTEMPTS = 5
PAUSE = 1  # seconds before the second attempt; before each later one, twice as many
TIMEOUT = 30  # seconds without a byte
ANSWER = 60  # seconds until a server has answered
SLOWEST, WINDOW = 1000, 60  # bytes a second, on average over so many seconds, below which a server is given up
AGAIN = {429, 500, 502, 503, 504}  # answers that may be others later
RATIO = 100  # what archives of images may unpack to, in times of their size


def find_dataset(options):
    """The folder of ``options.dataset_name``; a known one that is missing is fetched first. Raises UserError."""
    name, folder = options.dataset_name, Path(options.dataset_dir) / options.dataset_name
    if folder.is_dir():
        return folder
    if name in BUILT:
        root = "" if Path(options.dataset_dir) == Path("datasets") else f" --root {shlex.quote(options.dataset_dir)}"
        raise UserError(f"{folder} is missing; build it: python {BUILT[name]} {name}{root}")
    if name not in KNOWN:
        there = {*KNOWN, *BUILT, *(path.name for path in Path(options.dataset_dir).glob("*/"))}
        near = did_you_mean(name, there)
        if (run := Path(options.checkpoint_dir) / name).is_dir():
            near = f"; {run} is a run: name its data set by --dataset_name"
        raise UserError(
            f"there is no data set {folder}; put images into {folder}/{{trainA,trainB,testA,testB}}, or take for "
            f"--dataset_name one that is known: {', '.join((*KNOWN, *BUILT))}{near}"
        )
    if not hasattr(options, "download"):  # only training fetches
        raise UserError(f"{folder} is missing; cycle_gan.py fetches it, and test.py --input translates other images")
    if not options.download:
        raise UserError(f"{folder} is missing and --no_download forbids fetching it; leave that out to fetch {name}")
    with in_turn(folder):
        if not folder.is_dir():  # nor has another process fetched it meanwhile
            fetch(name, Path(options.dataset_dir), options.dataset_url)
    return folder


def fetch(name, root, base_url):
    """Download ``base_url/name.zip`` and unpack it as ``root/name``, whole or not at all. Raises UserError."""
    root.mkdir(parents=True, exist_ok=True)
    url, archive = f"{base_url.rstrip('/')}/{name}.zip", root / f"{name}.zip.part"
    download(url, archive)
    # Unpacked beside its place and renamed when whole: a half-extracted set never looks complete.
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as scratch:
        try:
            extract(archive, Path(scratch))
            whole = Path(scratch) / name
            if not (whole / "trainA").is_dir():
                raise UserError(f"there is no folder {name}/trainA in it")
        except NoRoom:
            raise
        except Exception as error:  # zipfile and its decoders raise what they like
            if getattr(error, "errno", None) in DISK_REFUSES:
                raise
            archive.unlink()
            raise UserError(
                f"{url} is not an archive of this data set, or was damaged on the way ({error}); run again to fetch it "
                "anew, or fetch it by hand"
            ) from error
        whole.rename(root / name)
    archive.unlink()


def fetch_pretrained(name, folder, base_url, largest):
    """Download the published generators of data set ``name``, each of at most ``largest`` bytes, into ``folder``.

    Returns "G_AB" and "G_BA", as far as they were published → path. Raises UserError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for network, file in zip(("G_AB", "G_BA"), PRETRAINED[name], strict=True):
        if file:
            paths[network] = folder / f"{file}.pth.part"
            download(f"{base_url.rstrip('/')}/{file}.pth", paths[network], "--pretrained_url", largest)
    return paths


# ---------------------------------------------------------------------------------------------------------------------
# From an address to a file
# ---------------------------------------------------------------------------------------------------------------------


class NoRoom(UserError):
    """The disk has too little space left."""


def download(url, path, flag="--dataset_url", largest=math.inf):
    """Fetch ``url`` into ``path``, going on where an earlier try broke off. ``flag`` is where the address came from;
    ``largest`` is the most bytes that are taken.

    Raises UserError when it breaks ATTEMPTS times, or cannot succeed; OSError where ``path`` cannot be written.
    """
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("which begins with http:// or https://")
        url = encrypted(url)
    except ValueError as error:
        raise UserError(f"{url} is not an address of the web ({error}); is {flag} right?") from error
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            return attempt_download(url, path, largest, announce=not attempt)
        except urllib.error.HTTPError as error:
            if error.code not in AGAIN:
                raise UserError(f"{url} answers {error.code} {error.reason}; is {flag} right?") from error
            failure = f"it answers {error.code} {error.reason}"
        except (ValueError, OverflowError, http.client.InvalidURL) as error:
            raise UserError(f"{url} is not an address of the web ({error}); is {flag} right?") from error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "filename", None):  # not the connection, but the file
                raise
            failure = getattr(error, "reason", None) or str(error) or type(error).__name__
    raise UserError(f"{url} could not be fetched in {ATTEMPTS} attempts ({failure}); run again to go on from there")


def encrypted(url):
    """``url`` by https where the server has it there."""
    if not url.startswith("http://") or ":" in urlsplit(url).netloc:  # what is behind another port speaks one language
        return url
    secure = url.replace("http", "https", 1)
    with contextlib.suppress(Exception), urllib.request.urlopen(head(secure), timeout=TIMEOUT / 3):
        return secure
    return url


def head(url):
    return urllib.request.Request(url, method="HEAD")


def attempt_download(url, path, largest, announce):
    """One attempt: append to ``path`` what is missing of it."""
    have = path.stat().st_size if path.exists() else 0
    try:
        response = opened(urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {}))
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        whole = error.headers.get("Content-Range", f"bytes */{have}").removeprefix("bytes */")
        if whole == str(have):  # nothing is left to send: an earlier attempt had it all
            return
        path.unlink()  # what is here is of another file
        raise ConnectionError("what was here already was of another file, and is removed") from error
    with response:
        start = f"bytes {have}-"
        if response.status != 206 or not response.headers.get("Content-Range", start).startswith(start):
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        size = f"{total / 1e6:.1f} MB" if total else "unknown size"
        if announce:
            tell(f"fetching {url} ({size})" + (f", {have / 1e6:.1f} MB are here already" if have else ""))
        receive(response, path, have, total, largest)


def opened(request):
    """``urlopen``, given up after ANSWER seconds: TIMEOUT alone counts anew with every byte of a header."""
    box = []

    def wait():
        try:
            box.append(urllib.request.urlopen(request, timeout=TIMEOUT))
        except Exception as error:
            box.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(ANSWER)
    if not box:
        raise TimeoutError(f"no answer in {ANSWER} seconds")
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]


def receive(response, path, have, total, largest):
    """Append the body of ``response``, of ``total`` bytes or an unknown number, to the ``have`` bytes of ``path``.

    Raises ConnectionError if it is short or slow, NoRoom if it does not fit the disk, and UserError if there are more
    than ``largest``.
    """
    room = have + 0.95 * shutil.disk_usage(path.parent).free
    check_size(response.url, path, total or 0, room, largest)
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1000)
    with bar, named_errors(path), open_regular(path, "ab" if have else "wb") as file:
        since, then = time.monotonic(), have
        while chunk := read(response):
            file.write(chunk)
            bar.update(len(chunk))
            check_size(response.url, path, bar.n, room, largest)
            if (passed := time.monotonic() - since) > WINDOW:
                if bar.n - then < SLOWEST * passed:
                    raise ConnectionError(f"fewer than {SLOWEST} bytes a second came for {WINDOW} seconds")
                since, then = time.monotonic(), bar.n
    if total and bar.n < total:
        raise ConnectionError(f"the connection closed after {bar.n} of {total} bytes")


def check_size(url, path, size, room, largest):
    """Raise UserError where ``size`` bytes at ``path`` are more than there is ``room`` for, or than are taken."""
    if size > largest:
        path.unlink(missing_ok=True)
        raise UserError(f"{url} has more than {largest / 1e6:.0f} MB, more than is believed; is the address right?")
    if size > room:
        raise NoRoom(f"{path.parent} has no room for the {size / 1e6:.1f} MB of {url}; remove {path}, or make room")


def read(response):
    """The next bytes of a body. Raises ConnectionError without a number, which an error of the disk would have."""
    try:
        return response.read1(1 << 16)
    except OSError as error:
        raise ConnectionError(str(error)) from error


# ---------------------------------------------------------------------------------------------------------------------
# From an archive to a folder
# ---------------------------------------------------------------------------------------------------------------------


def extract(archive, folder):
    """Unpack a zip file into ``folder``. Raises UserError if a name in it points elsewhere, or there is too much."""
    with open_regular(archive) as file, zipfile.ZipFile(file) as content:
        members = content.infolist()
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
                raise UserError(f"it is not safe to unpack: it holds {member.filename!r}")
        size, packed = sum(member.file_size for member in members), archive.stat().st_size
        tell(f"unpacking {len(members)} files, {size / 1e6:.1f} MB")
        if size > RATIO * packed:
            raise UserError(f"{packed / 1e6:.1f} MB would unpack to {size / 1e6:.1f} MB: no archive of images does")
        if size > 0.95 * shutil.disk_usage(folder).free:
            raise NoRoom(f"{folder.parent} has no room for the {size / 1e6:.1f} MB in {archive}")
        for member in tqdm(members, desc="unpacking", unit="file", delay=2):
            content.extract(member, folder)
