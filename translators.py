"""From generators to translations: which part of an image a generator may change, and what the critics see of it.

A mask is N×1×H×W in [0, 1]; the translation of x is mask · G(x) + (1 − mask) · x. Three kinds:
``none`` (the whole image is translated), ``given`` (segmentation images mark it by not being black) and ``learned``
(an attention network for each domain finds it).
"""

import reprlib
from argparse import Namespace
from contextlib import contextmanager

import torch
from torch import nn

from inference.pictures import PictureTranslator
from models import GeneratorResNet, build_generator
from readers.domains import domains_of
from registry import MASKS, build, sizes_for
from runtime import checkpoints
from runtime.device import memory_format, pick_device
from runtime.errors import UserError, counted, dimensions, first_line
from spectral_norm import fold_spectral_norm

GENERATOR_NAMES = ("G_AB", "G_BA")
OTHER = {"A": "B", "B": "A"}  # domain → the one that its images are translated to


def compose(mask, translated, x):
    """mask · translated + (1 − mask) · x. Where the mask is exactly 0, x comes out to the last bit; None is 1."""
    return translated if mask is None else mask * translated + (1 - mask) * x


def forward_as(network, x):
    """``network(x)`` in the precision of ``x``, whatever autocast makes the network compute in."""
    return network(x).to(x.dtype)


class NoMasks(nn.Module):
    """Whole images are translated and judged. Its methods are what every kind of mask has."""

    frozen = False

    def mask(self, side, x):
        """The mask of images ``x`` of domain ``side``, "A" or "B"."""
        return None

    def mask_back(self, side, fake, mask):
        """The mask for the way back of ``fake``, images translated to domain ``side`` under ``mask``."""
        return None

    def for_cycle(self, mask):
        """``mask`` as the cycle loss uses it: the same values, but its gradient may be scaled."""
        return mask

    def for_critic(self, image, mask):
        """What a critic sees of a translation made under ``mask``, or of a real image with its own mask."""
        return image

    def real_for_critic(self, side, x):
        """What a critic sees of real images of domain ``side``."""
        return x

    def start_epoch(self, epoch):
        """Called with the number of epochs done, before each step."""


class GivenMasks(NoMasks):
    """A holds segmentation images, black where nothing is to be translated; B holds real ones, translated everywhere.

    A pixel counts as black while its brightest channel is at most ``mask_threshold`` of 255, so that the noise of JPEG
    near black does not leak into the mask. The way back keeps to the mask that the image came with.
    """

    def __init__(self, mask_threshold):
        super().__init__()
        self.threshold = (mask_threshold + 0.5) / 127.5 - 1  # between two pixels' values, whatever rounding does

    def mask(self, side, x):
        if side == "B":
            return torch.ones_like(x[:, :1])
        return (x.amax(1, keepdim=True) > self.threshold).to(x.dtype)

    def mask_back(self, side, fake, mask):
        return mask


class LearnedMasks(NoMasks):
    """Attention networks, one a domain (Mejjati et al., NeurIPS 2018, https://arxiv.org/abs/1806.02311).

    They train with the generators until ``mask_freeze_epoch``. From then on they are fixed, and the critics see the
    foreground alone: an image is 0 wherever its mask is at most ``FOREGROUND``.

    An empty mask reconstructs best, since it translates nothing. In the first epochs the cycle loss is the largest
    term, and would empty the masks before the critics can object. Hence two things that the paper does not have: masks
    begin nearly full (``FIRST_LOGIT``) and feel only ``CYCLE_SHARE`` of the cycle loss's gradient. Without them, masks
    on topo2relief were empty within three epochs.
    """

    FOREGROUND = 0.1
    FIRST_LOGIT = 3.0  # a mask of 0.95
    CYCLE_SHARE = 0.1

    def __init__(self, channels_A, mask_freeze_epoch, checkpoint_activations=False):
        super().__init__()
        shape = dict(ngf=32, n_residual_blocks=1, attention=False, spectral_norm=False, channels_out=1)
        shape |= dict(output=nn.Identity, checkpoint_activations=checkpoint_activations)
        self.A, self.B = (GeneratorResNet(channels_A, **shape) for _ in "AB")
        self.freeze_epoch, self.frozen = mask_freeze_epoch, False

    def mask(self, side, x):
        return torch.sigmoid(forward_as(getattr(self, side), x) + self.FIRST_LOGIT)

    def mask_back(self, side, fake, mask):
        return self.mask(side, fake)

    def for_cycle(self, mask):
        return torch.lerp(mask.detach(), mask, self.CYCLE_SHARE)

    def for_critic(self, image, mask):
        return image * (mask > self.FOREGROUND) if self.frozen else image

    @torch.no_grad()
    def real_for_critic(self, side, x):
        return self.for_critic(x, self.mask(side, x)) if self.frozen else x

    def start_epoch(self, epoch):
        self.frozen = epoch >= self.freeze_epoch
        self.requires_grad_(not self.frozen)


class Translators(nn.Module):
    """Both generators with their masks: all that translation needs, and what a checkpoint keeps for it.

    Images need ``min_size`` pixels a side, divisible by ``multiple``, and have as many ``channels`` {"A", "B"}.
    Raises UserError where masks would have to compose images of unlike channels.
    """

    def __init__(self, options):
        super().__init__()
        if options.mask != "none" and options.channels_A != options.channels_B:
            raise UserError(
                f"the channels of A are {options.channels_A} and those of B {options.channels_B}: "
                f"--mask {options.mask} needs equal numbers; leave it out"
            )
        self.G_AB, self.G_BA = (build_generator(options, side) for side in "AB")
        self.masks = build(MASKS[options.mask], options)
        self.multiple, self.min_size = sizes_for(options)
        self.channels = {"A": options.channels_A, "B": options.channels_B}

    def pick(self, direction=None):
        """The directions to translate in: ``direction`` alone, or all that there are. Raises UserError for another.

        Imported checkpoints may hold one generator alone; the other one is then None.
        """
        there = [f"{name[-2]}to{name[-1]}" for name in GENERATOR_NAMES if getattr(self, name) is not None]
        if direction is not None and direction not in there:
            raise UserError(f"this checkpoint has no generator for {direction}, only for {' and '.join(there)}")
        return [direction] if direction else there

    def generator(self, side):
        """The one that translates images of domain ``side``."""
        return self.G_AB if side == "A" else self.G_BA

    def compile_generators(self):
        """Compile those that there are, each when it is first called; the first image of another size once more."""
        for name in GENERATOR_NAMES:
            if generator := getattr(self, name):
                generator.compile()

    def translate(self, side, x):
        """Images N×C×H×W in [-1, 1] of domain ``side``, "A" or "B", to the other: (translations, masks or None)."""
        mask = self.masks.mask(side, x)
        return compose(mask, forward_as(self.generator(side), x), x), mask

    def cycle(self, side, x):
        """There and back: (masks or None, translations, reconstructions, or None where nothing translates back)."""
        fake, mask = self.translate(side, x)
        other = OTHER[side]
        if self.generator(other) is None:
            return mask, fake, None
        mask_back = self.masks.mask_back(other, fake, mask)
        return mask, fake, compose(mask_back, forward_as(self.generator(other), fake), fake)


# ---------------------------------------------------------------------------------------------------------------------
# From a checkpoint
# ---------------------------------------------------------------------------------------------------------------------


def load_translators(state, device, reordered=False):
    """The averaged generators of a checkpoint, ready to translate. Raises UserError where it does not hold them.

    ``reordered``: put the weights into the memory format that is fastest on ``device``.
    """
    check_generators(state)
    translators = assemble(state)
    translators.load_state_dict(state["generators"])
    translators = fold_spectral_norm(translators).requires_grad_(False).to(device)
    return translators.to(memory_format=memory_format(translators, torch.device(device))) if reordered else translators


def assemble(state):
    """The Translators of a checkpoint's options, with None for a generator that it lacks."""
    translators = Translators(Namespace(**state["options"]))
    for name in GENERATOR_NAMES:
        if not any(key.startswith(f"{name}.") for key in state["generators"]):
            setattr(translators, name, None)
    return translators


def check_generators(state):
    """Raise UserError where a checkpoint does not hold the generators of its options; before they get any memory."""
    with without_memory():
        check_shapes(assemble(state), state["generators"])


@contextmanager
def without_memory():
    """Networks that are built inside have shapes, and no numbers. Raises UserError where one needs them there."""
    try:
        with torch.device("meta"):
            yield
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(
            "a network cannot be built without memory, as those of checkpoints are at first "
            f"({first_line(error, type(error).__name__)}); where its constructor computes with numbers, let it take "
            "those of Python or NumPy instead of tensors"
        ) from error


def check_shapes(network, weights):
    """Raise UserError where the state_dict ``weights`` of a checkpoint is not one of ``network``: by name, shape, and
    whether it holds fractions or whole numbers."""

    def shape(x):
        if not torch.is_tensor(x):
            return "no tensor"
        return dimensions(x.shape) + (", whole" if not x.is_floating_point() else "")

    wanted, found = ({name: shape(x) for name, x in part.items()} for part in (network.state_dict(), weights))
    if differing := sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)):
        first = differing[0]
        there, here = (shapes.get(first, "absent") for shapes in (found, wanted))
        raise UserError(
            f"the checkpoint does not fit the networks of its options: {counted(len(differing), 'difference')}, such "
            f"as {reprlib.repr(first)}, {there} in it and {here} in the network; choose another --epoch"
        )


def load_weights(network, weights):
    """Copy the state_dict ``weights`` of a checkpoint into ``network``. Raises UserError where they do not fit."""
    check_shapes(network, weights)
    network.load_state_dict(weights)


def load(path, epoch="latest", device="auto"):
    """What translates pictures by a checkpoint: ``load("saved_models/horse2zebra")(picture, "AtoB")``.

    ``path``: a run's folder, of which ``epoch`` (a number, "latest" or "best") is taken, or a checkpoint's file.
    Returns a PictureTranslator. Raises UserError where there is no such checkpoint or device.
    """
    device = pick_device(device)
    _, state = checkpoints.find(path, epoch)
    return PictureTranslator(load_translators(state, device, reordered=True), domains_of(state), device)
