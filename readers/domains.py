"""What the images of one side are: channels, type, range. Found once from the training files, then kept with the model.

Between files and networks stand two functions, ``to_tensor`` and ``to_pixels``: a domain's range is [-1, 1] there.
"""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from readers import geometry
from readers.files import BadImage, as_place, over
from readers.formats import contents
from readers.pictures import load_image
from runtime.errors import UserError, counted, tell

MOST_CHANNELS = 2**16
PAGES, AXES = ("channels", "images"), (0, 1, 2)
TYPES = {np.dtype(code).name for code in "bBhHiIqQefd"}  # whole numbers and floating-point ones of up to 64 bits


class Domain(NamedTuple):
    """What the images of one side are, and how their files are read. The defaults: 8-bit colour pictures.

    ``low`` and ``high`` become -1 and 1; ``dtype`` is NumPy's name; ``suffix`` that of the training files; ``picture``:
    decoded as a person sees them, with 8 bits and ``channels`` 3 or 1. ``show``: which channels are red, green and blue
    (from 1). ``pages``, ``slice_axis``, ``nan``: as the flags. ``limit``: GiB that an image may take decoded.
    """

    channels: int = 3
    low: float = 0.0
    high: float = 255.0
    dtype: str = "uint8"
    suffix: str = ".png"
    picture: bool = True
    show: tuple = (1, 2, 3)
    pages: str = "channels"
    slice_axis: int = 2
    nan: str = "refuse"
    limit: float = 1.0

    @property
    def floats(self):
        return np.dtype(self.dtype).kind == "f"

    @property
    def deep(self):
        """Whether its numbers have more than 8 bits."""
        return np.dtype(self.dtype).itemsize > 1

    @property
    def half(self):
        return (self.high - self.low) / 2

    @property
    def whole_type(self):
        """Whether the range is all that 8 bits can hold, so that nothing can lie outside."""
        return (self.dtype, self.low, self.high) == ("uint8", 0, 255)

    @property
    def whole_picture(self):
        """Whether it is an 8-bit picture whose range is all of its bits, as programs take it that know no other."""
        return self.picture and (self.low, self.high) == (0, 255)

    def __str__(self):
        channels = counted(self.channels, "channel")
        kind = "8-bit pictures" if self.picture else f"{self.dtype} ({self.suffix})"
        return f"{channels} of {kind}, range {self.low:g} to {self.high:g}"


PICTURES = Domain()


def pictures_of(options):
    """Both domains as 8-bit pictures: {"A", "B"}."""
    return {side: PICTURES._replace(channels=getattr(options, f"channels_{side}")) for side in "AB"}


def plain(domains):
    """Domains {"A", "B"} as a checkpoint keeps them."""
    return {side: domain._asdict() for side, domain in domains.items()}


def domains_of(state, limit=PICTURES.limit):
    """The domains of a checkpoint, or of what else says them: {"A", "B"}. ``limit``: as in Domain. Raises UserError
    where they cannot be used, or are not what the networks of the checkpoint take."""
    domains = {side: restored(fields)._replace(limit=limit) for side, fields in state["domains"].items()}
    for side, domain in domains.items():
        if domain.channels != (taken := state.get("options", {}).get(f"channels_{side}", domain.channels)):
            channels = counted(domain.channels, "channel")
            raise UserError(f"the checkpoint has images of {channels} and networks for {taken}")
    return domains


def restored(fields):
    """The Domain of a dict that may be anybody's. Raises UserError."""
    try:
        domain = Domain(**fields)
        kinds = {name: (type(default),) for name, default in Domain._field_defaults.items()}
        kinds |= dict.fromkeys(("low", "high", "limit"), (int, float)) | {"show": (list, tuple), "nan": (str, float)}
        for name, value in domain._asdict().items():
            if type(value) not in kinds[name]:
                raise ValueError(f"{name} is {value!r}")
        finite = domain.half > 0 and np.isfinite([domain.low, domain.high, domain.half]).all()
        counts = [domain.channels, *domain.show]
        if not finite or len(counts) != 4 or not all(type(n) is int and 1 <= n <= MOST_CHANNELS for n in counts):
            raise ValueError(f"channels and range are {counts}, {domain.low} to {domain.high}")
        if domain.picture and (domain.dtype, domain.channels) not in (("uint8", 1), ("uint8", 3)):
            raise ValueError(f"pictures are of {counted(domain.channels, 'channel')} of {domain.dtype}")
        if domain.dtype not in TYPES or domain.pages not in PAGES or domain.slice_axis not in AXES:
            raise ValueError(f"files are read as {domain.dtype}, {domain.pages}, {domain.slice_axis}")
        if domain.nan != "refuse" and not np.isfinite(float(domain.nan)):
            raise ValueError(f"what is not finite is read as {domain.nan}")
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"the checkpoint does not say what its images are ({error}); choose another --epoch") from None
    return domain._replace(show=tuple(domain.show))


# ---------------------------------------------------------------------------------------------------------------------
# Files to arrays
# ---------------------------------------------------------------------------------------------------------------------


def own_size(size):
    """(height, width) as they are. (Not a lambda: those cannot be sent to a worker that was not forked.)"""
    return size


def load_pixels(path, domain, size_of=own_size):
    """Decode one image to H×W×C in its own type, resized to ``size_of((height, width))``. Raises BadImage.

    Only a view of the file where that is mapped and nothing was resized.
    """
    if domain.picture:
        image = load_image(path, domain.channels, domain.limit)
        size = resized_size(path, image.size[::-1], size_of, domain)
        image = image if image.size == size[::-1] else image.resize(size[::-1], Image.Resampling.BICUBIC)
        array = np.asarray(image)
        return array if array.ndim == 3 else array[..., None]
    array = load_array(path, domain)
    return geometry.resize(array, resized_size(path, array.shape[:2], size_of, domain), domain.low, domain.high)


def resized_size(path, size, size_of, domain):
    """``size_of(size)``. Raises BadImage where that would take more than the domain's limit, as of a thin strip whose
    shorter side is scaled."""
    height, width = size_of(size)
    gib = height * width * domain.channels * np.dtype(domain.dtype).itemsize / 2**30
    if (height, width) != tuple(size) and gib > domain.limit:
        raise BadImage(path, f"resized to {width}×{height} it would take {over(domain.limit, gib)}")
    return height, width


def load_array(path, domain):
    """Decode an image that is no 8-bit picture: H×W×C, all finite. Raises BadImage."""
    place = as_place(path)
    with contents(place, domain) as found:
        if found.picture:
            raise BadImage(place, f"it is an 8-bit picture, and images of this side are {domain}")
        if found.channels != domain.channels:
            channels = counted(found.channels, "channel")
            raise BadImage(place, f"it has {channels}, and images of this side {domain.channels}")
        array = np.asarray(found.load(place.part))
        if array.shape[:2] != (found.height, found.width):
            raise BadImage(place, f"its header says {found.width}×{found.height}, and its pixels are something else")
        array = fitting(array.reshape(found.height, found.width, found.channels), domain)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def fitting(array, domain):
    """``array``, where what is not finite is replaced as the domain says. Raises ValueError where that is refused, and
    at fractions where all numbers were whole: those are often between 0 and 1."""
    if array.dtype.kind != "f":
        return array
    if not (known := np.isfinite(array)).all():
        if domain.nan == "refuse":
            raise ValueError("NaN or infinite pixels; in training and for two folders, --nan 0 takes them as 0")
        array = np.where(known, array, array.dtype.type(domain.nan))
    if not domain.floats and (array != np.rint(array)).any():
        raise ValueError(f"it holds fractions, and images of this side are {domain}; scale and round them")
    return array


def count_outside(array, domain):
    """How many values of an array lie outside the domain's range."""
    return 0 if domain.whole_type else int(((array < domain.low) | (array > domain.high)).sum())


def tell_outside(outside, values, domain, where=""):
    """Say how many of ``values``, those ``where``, lay outside of the range of ``domain``, where some did."""
    if outside:
        tell(f"{outside} of {values} values{where} lay outside of {domain.low:g} to {domain.high:g}, and were clipped")


# ---------------------------------------------------------------------------------------------------------------------
# Arrays to tensors and back
# ---------------------------------------------------------------------------------------------------------------------


def to_tensor(image, domain=PICTURES):
    """A PIL image, or an array H×W[×C], to a float32 tensor C×H×W: the domain's range to [-1, 1], others clipped."""
    array = np.array(image)  # a copy: torch wants memory that it may write to
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if array.dtype != np.uint8:
        array = array.astype(np.float32 if np.can_cast(array.dtype, np.float32) else np.float64)
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    tensor = tensor.float() if tensor.dtype == torch.uint8 else tensor
    if domain.low:
        tensor.sub_(domain.low)
    tensor.div_(domain.half).sub_(1)
    return tensor if domain.whole_type else tensor.float().clamp_(-1, 1)


def to_bytes(images):
    """Float images of any shape in [-1, 1] to uint8, the way back from ``to_tensor``."""
    return images.add(1).mul(127.5).round().clamp(0, 255).byte()


def to_values(images, domain):
    """Float images of any shape in [-1, 1] to the domain's range, on the CPU: of whole numbers where it is of such.

    Raises UserError where a value is not finite.
    """
    check_finite(images)
    if domain.whole_type:
        return to_bytes(images).cpu()
    values = images.detach().cpu().double().add(1).mul(domain.half).add(domain.low)
    return (values if domain.floats else values.round()).clamp(domain.low, domain.high)


def check_finite(images):
    """Raise UserError where a value of translations is not finite."""
    if not images.isfinite().all():
        raise UserError("a translation is not finite: the weights are of no use; choose another --epoch")


def to_pixels(images, domain):
    """Float images N×C×H×W in [-1, 1] to an array N×H×W×C of the domain's type."""
    return geometry.in_type(to_values(images, domain).permute(0, 2, 3, 1).numpy(), domain.dtype)


def to_unit(images, domain):
    """Float images of any shape in [-1, 1] to [0, 1], rounded to what a file of the domain can hold."""
    return to_values(images, domain).sub(domain.low).div(domain.high - domain.low).float()


def to_colours(images, domain):
    """Float images N×C×H×W in [-1, 1] as they are shown, N×3×H×W: one channel as gray, three as colours, of others
    those of ``show``, and black where there are too few."""
    if images.shape[1] in (1, 3):
        return images.expand(-1, 3, -1, -1)
    dark = -torch.ones_like(images[:, 0])
    planes = [images[:, place - 1] if place <= images.shape[1] else dark for place in domain.show]
    return torch.stack(planes, 1)
