"""How good translations are, in numbers: how far apart two sets of images are by their features, and how far
translations are from a known truth.

FID, KID, precision and recall are torch-fidelity's, SSIM is torchmetrics'; the rest is computed here. Features are of
images as they are shown, uint8 N×3×H×W; distances to a truth are over all channels, in [0, 1] over the domain's range.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from datasets import WholeImages, group_by_size, load_one_by_one, unpadded
from readers.domains import PICTURES, tell_outside, to_bytes, to_colours, to_unit
from readers.folders import list_images
from readers.formats import suffix_of
from readers.headers import none_readable
from registry import CRITICS, FEATURES, load
from reporting.statistics import MEASURES
from runtime import libraries
from runtime.device import autocast, tf32_for, tuned_kernels
from runtime.errors import UserError, first_line, tell
from runtime.pretrained import efficientnet_lite
from runtime.weights import tensors_alone

MEASURING = "measuring", "requirements-eval.txt"


def library(name):
    """A library to measure with; raises UserError where it is not installed."""
    return libraries.library(name, *MEASURING)


FEWEST = 4  # images of which anything can be said
LEAST_FOR_SSIM = 6  # pixels a side: half of its window has to fit


class Inception(nn.Module):
    """Inception-v3 as the FID's authors trained and scaled it, which torch-fidelity fetches once: N×3×H×W to N×2048."""

    width = 2048

    def __init__(self):
        super().__init__()
        extractor = library("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        try:
            with tensors_alone():
                self.network = extractor("inception-v3-compat", ["2048"])
        except Exception as error:  # what was fetched may be cut short, and torch raises what it likes
            reason, place = first_line(error, type(error).__name__), f"{torch.hub.get_dir()}/checkpoints"
            raise UserError(
                f"the weights of Inception-v3 cannot be fetched, or are damaged ({reason}); remove those in {place} to "
                "fetch them again; --features efficientnet_lite0 works offline"
            ) from error

    def forward(self, images):
        return self.network(images)[0].flatten(1)


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite ``version``, its weights from the package index: N×3×H×W to N×1280."""

    width = 1280

    def __init__(self, version):
        super().__init__()
        self.network = efficientnet_lite(version, *MEASURING)

    def forward(self, images):
        images = F.interpolate(images.float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        return self.network.extract_features((images - 127) / 128).mean((2, 3))


def check_measure(features, trained):
    """Raise UserError where ``features`` are of the network that the critics of a model look through, which was
    ``trained`` with these options: by what it was trained to deceive, it cannot be measured."""
    critic = CRITICS.get(trained.dis_net)
    if critic and critic.features and features == trained.backbone:
        other = next(name for name in FEATURES if name not in ("inception", features))
        raise UserError(f"the critics look through {features}, which they know too well; measure by --features {other}")


def build_features(name, device):
    """The feature network called ``name``, images to features, in eval mode."""
    return load(FEATURES[name])(**FEATURES[name].keywords).to(device).eval().requires_grad_(False)


def set_distances(fake, real):
    """Features of translations and of real images, N×D and M×D, to FID (https://arxiv.org/abs/1706.08500), KID
    (https://arxiv.org/abs/1801.01401) with its standard error, and precision and recall
    (https://arxiv.org/abs/1904.06991). NaN where there are too few images.

    KID is averaged over random subsets of at most half the images. Halves of a sample vary about the whole as samples
    of that size vary about the truth, so their spread, scaled, is the standard error of the whole. (Where one set is
    much larger than the other it is too large, up to three times: of the larger one far less than half is taken.)
    """
    fid, kid, prc = (library(f"torch_fidelity.metric_{name}") for name in ("fid", "kid", "prc"))
    fake, real = fake.double().cpu(), real.double().cpu()
    few = min(len(fake), len(real))
    if few < FEWEST:
        return dict.fromkeys(("FID", "KID", "KID error", "precision", "recall"), math.nan)
    statistics = (fid.fid_features_to_statistics(features) for features in (fake, real))
    subset = min(1000, few // 2)
    kernel = kid.kid_features_to_metric(fake, real, kid_subset_size=subset, kid_subsets=100, verbose=False)
    spread = kernel["kernel_inception_distance_std"] * math.sqrt(subset / (few - subset))
    shares = prc.prc_features_to_metric(fake, real, verbose=False)
    return {
        "FID": fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "KID": kernel["kernel_inception_distance_mean"],
        "KID error": spread,
        "precision": shares["precision"],
        "recall": shares["recall"],
    }


def pair_distances(fake, truth):
    """Translations and their truth, N×C×H×W in [0, 1], to the mean L1 distance, PSNR in dB (100 at most) and SSIM (NaN
    where it is smaller than the window) of each image."""
    image = library("torchmetrics.functional.image")
    ssim = torch.full((len(fake),), math.nan)  # of an image smaller than its window
    if min(fake.shape[2:]) >= LEAST_FOR_SSIM:
        ssim = image.structural_similarity_index_measure(fake, truth, data_range=1.0, reduction="none")
    squared = (fake - truth).square().flatten(1).mean(1)
    return {
        "L1": (fake - truth).abs().flatten(1).mean(1),
        "PSNR": -10 * squared.clamp(min=1e-10).log10(),
        "SSIM": ssim.reshape(-1),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Whole folders
# ---------------------------------------------------------------------------------------------------------------------


class Folder:
    """The images below a folder, batch by batch. Once all were read, ``unreadable`` are the paths of those that
    ``--skip_bad_images`` left out, and ``outside`` of all ``values`` were clipped to the domain's range."""

    def __init__(self, folder, options, domain=PICTURES, multiple=1, least=1):
        self.folder, self.options, self.domain = folder, options, domain
        self.paths = list_images(folder, domain)
        self.images = WholeImages(self.paths, domain, multiple, least)
        self.names = [Path(path).relative_to(folder) for path in self.paths]
        self.unreadable, self.outside, self.values = set(), 0, 0

    def __len__(self):
        return len(self.paths) - len(self.unreadable)

    def batches(self):
        """Dicts as WholeImages makes them, of images of one size."""
        skipped, outside, values = [], 0, 0
        singles = load_one_by_one(self.images, range(len(self.paths)), 0, self.options.skip_bad_images, skipped)
        for batch in group_by_size(singles, self.options.batch_size):
            outside, values = outside + int(batch["outside"].sum()), values + unpadded(batch, batch["image"]).numel()
            yield batch
        self.unreadable, self.outside, self.values = set(skipped), outside, values

    def names_of_unreadable(self):
        """Those of ``names`` whose images are ``unreadable``."""
        return [name for name, path in zip(self.names, self.paths, strict=True) if path in self.unreadable]

    def whole(self, index):
        """One image C×H×W in [0, 1], without padding."""
        item = self.images[index]
        return to_unit(item["image"][:, : item["height"], : item["width"]], self.domain)


class Description:
    """What distances between sets need to know of the images that are added to it. It does not depend on how they come
    in batches: each is described by itself, with random draws of its own, and they are compared in order."""

    def __init__(self, network, device):
        self.network, self.device = network, device
        self.features, self.described = {}, {}

    def add(self, images, places):
        """Batch N×3×H×W, uint8; ``places`` are those of its images in the set."""
        features = self.network(images.to(self.device)).cpu()
        for place, image, feature in zip(places.tolist(), images.cpu(), features, strict=True):
            self.features[place] = feature
            self.described[place] = {
                name: measure.describe(image[None], torch.Generator().manual_seed(place))
                for name, measure in MEASURES.items()
            }

    def distances(self, real):
        """Name → number: how far the images added are from those of the Description ``real``."""
        numbers = set_distances(*(torch.stack(in_order(each.features)) for each in (self, real)))
        for name, measure in MEASURES.items():
            described = ([one[name] for one in in_order(each.described)] for each in (self, real))
            numbers |= measure.compare(*map(joined, described))
        return numbers


def in_order(found):
    return [found[place] for place in sorted(found)]


def joined(descriptions):
    """Of lists with a tensor for each scale: one such list. It ends with the scale that the smallest images lack."""
    return [torch.cat(scale) for scale in zip(*descriptions, strict=False)]


@torch.inference_mode()
def describe(folder, network, device):
    """The Description of the images in a Folder; says which could not be read, and how many values were clipped.
    Raises UserError where none could be read."""
    description = Description(network, device)
    for batch in folder.batches():
        description.add(shown(unpadded(batch, batch["image"]), folder.domain), batch["index"])
    if not len(folder):
        raise none_readable(folder.paths)
    if folder.unreadable:
        tell(f"not measured, since they cannot be read: {', '.join(sorted(folder.unreadable))}")
    tell_outside(folder.outside, folder.values, folder.domain, f" in {folder.folder}")
    return description


class Truths:
    """The images of the Folder ``truths`` that are the truth of those of the Folder ``of``, by their names; both were
    read before.

    ``known``: whether there are any. ``shared``: how many names are in both; ``alone``: one that is not, or None.
    """

    def __init__(self, of, truths):
        self.of, self.truths = of, truths
        lost = [folder.names_of_unreadable() for folder in (of, truths)]
        self.places = namesakes(truths.names, of.names, [*lost[0], *lost[1]])
        self.known = self.places is not None
        read = [set(map(without_suffix, folder.names)) for folder in (of, truths)]
        unread = set(map(without_suffix, [*lost[0], *lost[1]]))
        self.shared = len((read[0] & read[1]) - unread)
        self.alone = min((read[0] ^ read[1]) - unread, default=None)

    def distances(self, batch, images):
        """``pair_distances`` of ``images`` N×C×H×W in [0, 1], which a ``batch`` of ``of`` became, where the truth can
        be read and has the same size."""
        if not self.known:
            return
        for index, image in zip(batch["index"], images, strict=True):
            place = self.places[index]
            if place is not None and (truth := self.truths.whole(place)).shape == image.shape:
                yield pair_distances(image[None], truth[None])

    def of_copies(self):
        """Those of the images of ``of`` as they are, each folder in its own range."""
        batches = self.of.batches() if self.known else ()
        for batch in batches:
            yield from self.distances(batch, to_unit(unpadded(batch, batch["image"]), self.of.domain))


class Evaluation:
    """Measures translations against the test folders ``{"A": path, "B": path}`` of a data set.

    The generators compute in the precision ``amp``: "off", "bf16" or "fp16".

    The real images are described once, so that it may be called many times. Where both folders hold the same
    names, each image is taken for the truth of its namesake's translation.
    """

    def __init__(self, folders, options, device, translators, amp, domains):
        self.device, self.amp, self.domains = device, amp, domains
        self.network = build_features(options.features, device)
        sizes = translators.multiple, translators.min_size
        self.folders = {side: Folder(path, options, domains[side], *sizes) for side, path in folders.items()}
        self.real = {side: describe(folder, self.network, device) for side, folder in self.folders.items()}
        self.truths = {side: Truths(self.folders[other], self.folders[side]) for side, other in ("AB", "BA")}
        self.compared = {}  # direction → how many translations had a truth of their size, when last measured

    @torch.inference_mode()
    def __call__(self, translators, directions=("AtoB", "BtoA")):
        """Direction → name → number. ``translators`` in eval mode, on the device."""
        with tuned_kernels(False), tf32_for(self.domains):  # test images may have any size
            return {direction: self._measure(translators, *direction.split("to")) for direction in directions}

    @torch.inference_mode()
    def untranslated(self, directions=("AtoB", "BtoA")):
        """How far the test images are from the other side's, as they are: side → name → number, for the side that each
        of ``directions`` begins with."""
        pairs = (direction.split("to") for direction in directions)
        return {
            side: self.real[side].distances(self.real[other]) | mean_of(list(self.truths[other].of_copies()))
            for side, other in pairs
        }

    def _measure(self, translators, source, target):
        translated, pairs, cycles = Description(self.network, self.device), [], []
        for batch in self.folders[source].batches():
            real = batch["image"].to(self.device)
            with autocast(self.device, self.amp):
                _, fake, back = translators.cycle(source, real)
            fake = to_unit(unpadded(batch, fake), self.domains[target])  # as a file has it
            translated.add(shown(2 * fake - 1, self.domains[target]), batch["index"])
            if back is not None:
                there, again = (to_unit(unpadded(batch, images), self.domains[source]) for images in (real, back))
                cycles.append((again - there).abs().flatten(1).mean(1))
            pairs += self.truths[target].distances(batch, fake)
        numbers = translated.distances(self.real[target])
        self.compared |= {f"{source}to{target}": len(pairs)} if self.truths[target].known else {}
        if cycles:
            numbers["cycle L1"] = torch.cat(cycles).mean().item()
        return numbers | mean_of(pairs)


def mean_of(pairs):
    """Name → mean over all ``pairs``, results of ``pair_distances``, where it is a number; {} of none."""
    names = pairs[0] if pairs else ()
    return {name: torch.cat([pair[name] for pair in pairs]).nanmean().item() for name in names}


def namesakes(names, others, lost=()):
    """For each of ``others`` the place among ``names`` of the same name, or of the same but for its suffix; None where
    not all have exactly one. Those ``lost`` on either side are not asked for: their place is None."""
    for key in (lambda name: name, without_suffix):
        own, theirs, gone = list(map(key, names)), list(map(key, others)), set(map(key, lost))
        places = {name: place for place, name in enumerate(own)}
        there, wanted = ([name for name in each if name not in gone] for each in (own, theirs))
        if set(there) == set(wanted) and len(set(there)) == len(there) == len(wanted):
            return [None if name in gone else places[name] for name in theirs]
    return None


def without_suffix(name):
    """A path as it is called in any format: ``a/b.nii.gz`` is a/b, and the slice ``b.nii.gz/7`` of a volume b/7."""
    return Path(*(part[: len(part) - len(suffix_of(part))] for part in name.parts))


class Best:
    """Remembers the best evaluation of a run, by the mean KID of both directions, and how many came after it."""

    def __init__(self):
        self.score, self.waited = math.inf, 0

    def improved_by(self, numbers, keep):
        """Take note of an evaluation's ``numbers``; whether they are the best so far. Then ``keep()`` saves what they
        are of, and says whether that worked: if not, what was the best before still is."""
        score = sum(direction["KID"] for direction in numbers.values()) / len(numbers)
        better = score < self.score
        self.waited = 0 if better else self.waited + 1
        if better and keep():
            self.score = score
        return better

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        self.score, self.waited = state["score"], state["waited"]


def best_so_far(saved, options):
    """The Best of the checkpoint ``saved``; a new one where that is by other features, whose KIDs do not compare."""
    best = Best()
    if saved["options"]["features"] == options.features:
        best.load_state_dict(saved["best"])
    return best


def left_unmeasured(saved, options):
    """Whether the last evaluation before the checkpoint ``saved`` was broken off, and is to be made up for."""
    return bool(options.eval_interval) and saved.get("unmeasured", False)


def shown(images, domain):
    """``images`` in [-1, 1] of ``domain`` as uint8 N×3×H×W, as they are shown."""
    return to_bytes(to_colours(images, domain))
