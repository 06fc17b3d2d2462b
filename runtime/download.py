"""The data sets and the weights of the CycleGAN paper by name, fetched."""

import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from runtime.errors import UserError

KNOWN = (
    "ae_photos", "apple2orange", "cezanne2photo", "facades", "horse2zebra", "iphone2dslr_flower", "maps",
    "monet2photo", "summer2winter_yosemite", "ukiyoe2photo", "vangogh2photo",
)  # fmt: skip
BUILT = ("topo2relief", "satellite2relief")
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
TIMEOUT = 30  # seconds without a byte


def find_dataset(options):
    """The folder of ``options.dataset_name``; a known one that is missing is fetched first. Raises UserError."""
    name, folder = options.dataset_name, Path(options.dataset_dir) / options.dataset_name
    if folder.is_dir():
        return folder
    if name in BUILT:
        raise UserError(f"{folder} is missing; build it: python datasets/earth.py {name}")
    if name not in KNOWN:
        raise UserError(
            f"there is no data set {folder}; put images into {folder}/{{trainA,trainB,testA,testB}}, "
            f"or take one that is known by name: {', '.join((*KNOWN, *BUILT))}"
        )
    if not options.download:
        raise UserError(f"{folder} is missing and --no_download forbids fetching it; leave that out to fetch {name}")
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
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
            archive.unlink()
            raise UserError(f"the archive from {url} is damaged ({error}); run again to fetch it anew") from error
        whole = Path(scratch) / name
        if not (whole / "trainA").is_dir():
            raise UserError(f"{url} holds no folder {name}/trainA; see {archive}")
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


def download(url, path, flag="--dataset_url", largest=None):
    """Fetch ``url`` into ``path``, going on where an earlier try broke off. Raises UserError when it breaks again.

    ``flag`` is where the address came from; ``largest`` is the most bytes that are taken.
    """
    announced = False
    for _ in range(ATTEMPTS):
        have = path.stat().st_size if path.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                resumed = response.status == 206
                have = have if resumed else 0
                length = response.headers.get("Content-Length")
                total = have + int(length) if length else None
                if not announced:
                    size = f"{total / 1e6:.1f} MB" if total else "unknown size"
                    print(f"fetching {url} ({size})" + (f", {have / 1e6:.1f} MB are here already" if have else ""))
                    announced = True
                if largest and total and total > largest:
                    raise UserError(f"{url} has {total / 1e6:.1f} MB, more than is believed; is {flag} right?")
                if total and total - have > shutil.disk_usage(path.parent).free:
                    raise UserError(f"{path.parent} has no room for the {total / 1e6:.1f} MB of {url}")
                receive(response, path, have, total, largest)
                return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to send: the earlier try had it all
                return
            raise UserError(f"{url} answers {error.code} {error.reason}; is {flag} right?") from error
        except OSError as error:  # as all failures of a connection are
            failure = getattr(error, "reason", error)
    raise UserError(f"{url} broke off {ATTEMPTS} times ({failure}); run again to go on from there")


def receive(response, path, have, total, largest):
    """Append the body of ``response`` to the ``have`` bytes of ``path``.

    Raises ConnectionError if it is short, and UserError if there come to be more than ``largest``, where that is given.
    """
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1000)
    with bar, open(path, "ab" if have else "wb") as file:
        while chunk := response.read(1 << 16):
            file.write(chunk)
            bar.update(len(chunk))
            if largest and bar.n > largest:
                raise UserError(f"{response.url} does not end after {largest / 1e6:.0f} MB; remove {path}")
    if total and bar.n < total:
        raise ConnectionError(f"the connection closed after {bar.n} of {total} bytes")


def extract(archive, folder):
    """Unpack a zip file into ``folder``. Raises UserError if a name in it points elsewhere."""
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise UserError(f"{archive} is not safe to unpack: it holds {name!r}; remove it")
        for member in tqdm(content.infolist(), desc="unpacking", unit="file", delay=2):
            content.extract(member, folder)
