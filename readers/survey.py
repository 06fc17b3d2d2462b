"""What one side's training files are, found out once: by all of their headers, and a sample of their pixels."""

import contextlib
from collections import Counter

import numpy as np

from readers.domains import Domain, load_pixels
from readers.files import BadImage
from readers.formats import suffix_of
from readers.headers import none_readable
from runtime.errors import UserError, counted, tell

SAMPLE_FILES, SAMPLE_PIXELS = 64, 65536  # looked at for the range, and of each of them
PERCENTILES = 0.1, 99.9
AUTO = ["auto"]
VOLUMES = ".nii", ".nii.gz"
LITTLE = 1 / 8  # of the range; less use of it is pointed out


def ways_of(options):
    """How files are read, by the options alone: a Domain whose other fields are still to be found."""
    names = dict(pages=options.pages, slice_axis=options.slice_axis, nan=options.nan)
    return Domain(**names, limit=options.decoded_limit)


def find_domain(side, headers, ways, channels=None, span=AUTO, skip_bad=False):
    """The Domain of ``side`` ("A" or "B") whose training images have the ``headers``; prints it, if not pictures.

    ``channels`` and ``span`` [low, high] are what was given by hand. Raises UserError where the files contradict each
    other, or that.
    """
    picture = next((path for path, header in headers.items() if header.picture), None)
    if picture is not None:
        return picture_domain(side, headers, picture, ways, channels, span, skip_bad)
    first, of_first = next(iter(headers.items()))
    for path, header in headers.items():
        if header.channels != of_first.channels:
            raise UserError(
                f"{first} has {counted(of_first.channels, 'channel')} and {path} has {header.channels}; "
                f"the images of a side need the same number"
            )
    volumes = {path: header for path, header in headers.items() if is_volume(path)}
    flat = next((path for path, header in volumes.items() if header.count == 1), None)
    if flat and max(header.count for header in headers.values()) > 1:
        raise UserError(f"{flat} has one slice along --slice_axis {ways.slice_axis}, and others have many; remove it")
    if channels not in (None, of_first.channels):
        raise UserError(
            f"{first} has {counted(of_first.channels, 'channel')}, not the {channels} of --channels_{side} or of the "
            "networks of --init_from; leave that out"
        )
    floats = {header.floats: path for path, header in headers.items()}
    if len(floats) > 1 and span == AUTO:
        raise UserError(
            f"{floats[True]} holds floats and {floats[False]} whole numbers; name their {range_flag(side)}, if they "
            "mean the same, or put them into different data sets"
        )
    dtype = np.result_type(*{header.dtype for header in headers.values()}).newbyteorder("=")
    found = ways._replace(channels=of_first.channels, dtype=dtype.name, suffix=suffix_of(name_of(first)), picture=False)
    found = find_range(side, found, headers, span, skip_bad)
    tell(f"side {side}: {found}")
    return found


def check_show(side, show, channels):
    """Raise UserError where ``--show_channels`` names one that images of so many ``channels`` lack."""
    if max(show) > channels > 3 and tuple(show) != (1, 2, 3):
        raise UserError(f"--show_channels {max(show)} is more than the {counted(channels, 'channel')} of side {side}")


def check_known(side, headers, domain):
    """Raise UserError where training images are not what a checkpoint's ``domain`` says."""
    for path, header in headers.items():
        if not fits(header, domain):
            raise UserError(
                f"{path} has {counted(header.channels, 'channel')} of {header.dtype}, and the checkpoint was trained "
                f"with {domain} on side {side}; start anew without --epoch"
            )


def check_alike(headers, domain):
    """Raise UserError where translations with these ``headers`` cannot be compared with real images of ``domain``."""
    for path, header in headers.items():
        if fits(header, domain):
            continue
        kind = "of an 8-bit picture" if header.picture else f"of {header.dtype}"
        alike = not (header.picture or domain.picture) and header.channels == domain.channels
        remedy = "name the --range that both have" if alike else "take files of one kind, and of as many channels"
        raise UserError(
            f"{path} has {counted(header.channels, 'channel')} {kind}, and real images are {domain}; {remedy}"
        )


def fits(header, domain):
    """Whether images with this ``header`` can be read as those of ``domain``."""
    if domain.picture:
        return header.picture or header.viewable
    return not header.picture and header.channels == domain.channels and (domain.floats or not header.floats)


def idle_ways(ways, given, headers):
    """A line for each flag ``given`` by hand that means nothing for files with these ``headers``: path → header."""
    if "slice_axis" in given and not any(map(is_volume, headers)):
        yield "--slice_axis does nothing here: it is for volumes, and there are none"
    if "pages" in given and ways.pages == "images" and all(header.count == 1 for header in headers.values()):
        yield "--pages images does nothing here: each file holds one image"
    if "nan" in given and not any(header.floats for header in headers.values()):
        yield "--nan does nothing here: it is for floating-point numbers, and there are none"
    if "show_channels" in given and all(header.channels in (1, 3) for header in headers.values()):
        yield "--show_channels does nothing here: images of 1 and 3 channels are shown as they are"


def name_of(path):
    return getattr(path, "name", str(path))


def is_volume(path):
    return suffix_of(name_of(path)) in VOLUMES


def picture_domain(side, headers, picture, ways, channels, span, skip_bad):
    """The Domain of a side with an 8-bit ``picture``: all others are read with 8 bits, too."""
    for path, header in headers.items():
        if not (header.picture or header.viewable):
            raise UserError(f"{picture} is an 8-bit picture and {path} is not; put them into different data sets")
    if channels not in (None, 1, 3):
        raise UserError(f"--channels_{side} must be 3 or 1 for 8-bit pictures, such as {picture}, not {channels}")
    deep = deeper(headers)
    if 2 * deep > len(headers):
        raise UserError(
            f"{picture} has 8 bits, and {deep} of the {len(headers)} images of side {side} have more, which would all "
            "be read with 8; take it out"
        )
    tell_reduced(f"side {side}", headers)
    if channels == 1 and any(header.channels > 1 for header in headers.values()):
        tell(f"side {side}: colours are read as grey, for --channels, --channels_{side} or the networks of --init_from")
    found = ways._replace(channels=channels or 3, suffix=suffix_of(name_of(picture)))
    return found if span == AUTO else find_range(side, found, headers, span, skip_bad)


def deeper(headers):
    """How many images of those ``headers`` are no 8-bit pictures."""
    return sum(not header.picture for header in headers.values())


def tell_reduced(where, headers):
    """Say how many of the 8-bit pictures that ``headers`` are read as have more bits, where some do."""
    if deep := deeper(headers):
        tell(f"{where}: {deep} of {len(headers)} images have more than 8 bits, and are read with 8 as the others")


def find_range(side, domain, headers, span, skip_bad):
    """``domain`` with its range: ``span``, or for AUTO the whole type's, or percentiles of floats."""
    sample = sample_pixels(list(headers), domain, skip_bad)
    if span != AUTO:
        low, high = span
    elif domain.floats:
        low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
    else:
        whole = np.iinfo(domain.dtype)
        low = min(whole.min if header.low is None else header.low for header in headers.values())
        high = max(whole.max if header.high is None else header.high for header in headers.values())
    least, most = float(sample.min()), float(sample.max())
    seen = f"the pixels looked at on side {side} lie between {least:g} and {most:g}"
    flag = range_flag(side)
    if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
        raise UserError(f"{seen}, beyond what float32 holds; divide them, or give another range by {flag}")
    if not low < high:
        raise UserError(f"{seen}, which is no range; give one by {flag}")
    outside = float(((sample < low) | (sample > high)).mean())
    if outside == 1:
        raise UserError(f"{seen}, none of them in the range {low:g} to {high:g}; give another {flag}")
    if outside:
        share = f"{outside:.2%}" if outside >= 1e-4 else "less than 0.01%"
        tell(f"{seen}; {share} of them, outside of {low:g} to {high:g}, are clipped")
    if most - least < LITTLE * (high - low):
        part = f"{seen}, a small part of {low:g} to {high:g}, so that they look almost alike"
        tell(f"{part}; try {flag} {least:g} {most:g}" if least < most else part)
    return domain._replace(low=float(low), high=float(high))


def range_flag(side):
    return f"--range_{side}" if side in "AB" else "--range"  # of evaluate.py, which has one for both


def sample_pixels(paths, domain, skip_bad):
    """Pixels of some of the images, evenly spread: an array N×C. Raises BadImage."""
    chosen = {int(place) for place in np.linspace(0, len(paths) - 1, SAMPLE_FILES).round()}
    pixels = []
    for place in sorted(chosen):
        with contextlib.suppress(*[BadImage] if skip_bad else []):
            array = load_pixels(paths[place], domain)
            flat = array.reshape(-1, array.shape[-1])
            pixels.append(np.array(flat[:: -(-len(flat) // SAMPLE_PIXELS)]))
    if not pixels:
        raise none_readable(paths)
    return np.concatenate(pixels)


def check_sizes(headers, size_of, crop, options):
    """Raise UserError where ``--small refuse`` or ``--preprocess none`` does not allow an image's size."""
    first, refuse = None, options.small == "refuse" and options.preprocess != "none"  # which has no crop
    for path, header in headers.items():
        size = size_of((header.height, header.width))
        if refuse and (size[0] < crop[0] or size[1] < crop[1]):
            raise UserError(
                f"{path} is {size[1]}×{size[0]} pixels, less than the crop of {crop[1]}×{crop[0]}; "
                "remove it, take smaller crops, or pad it: --small pad"
            )
        first = first or (path, size)
        if options.preprocess == "none" and size != first[1]:
            raise UserError(
                f"{first[0]} is {first[1][1]}×{first[1][0]} pixels and {path} is {size[1]}×{size[0]}; "
                "--preprocess none needs images of one size, --preprocess crop does not"
            )


def squashed(headers, preprocess, load):
    """A line that says how images change their shape, by more than a fifth; None where they keep it."""
    if preprocess != "resize_and_crop":
        return None
    sizes = Counter((header.height, header.width) for header in headers)
    for (height, width), _ in sizes.most_common():
        change = (width / height) / (load[1] / load[0])
        if max(change, 1 / change) > 1.2:
            return (
                f"images of {width}×{height} are squashed to {load[1]}×{load[0]}; "
                "--preprocess scale_shorter_and_crop keeps their shape"
            )
    return None
