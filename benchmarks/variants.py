"""What experiments tried and the command line does not offer: each variant changes a CycleGAN that has just been built.

    python benchmarks/experiment.py --variant critic_lr=4 -- --recipe classic

``VARIANTS`` maps a name to a function of the model and of what stands behind ``=``.
"""

import math
from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrize
from torchvision.transforms.functional import gaussian_blur

from convolutions import ReflectConv2d
from layers import InstanceNorm2d, LayerNorm2d, run_stages
from losses import due, gradient_norm, interpolate
from models import GeneratorResNet, SelfAttention, weights_init_normal
from utils import EMA, augmented


def change(model, variants):
    """Apply ``variants``, each as NAME=VALUE."""
    for variant in variants:
        name, value = variant.split("=")
        VARIANTS[name](model, value)
    model.average = EMA(model.translators, model.options.ema_decay)  # of what the generators are now


def networks(model, which):
    """Both generators, or both critics."""
    return {"generators": model.translators, "critics": model.critic_objective}[which]


def replace(network, kind, build):
    """Put ``build(module)`` in the place of every module of ``kind`` for which it is not None."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind) and (new := build(child)) is not None:
                setattr(parent, name, new)


def critic_lr(model, ratio):
    """Two time scales (https://arxiv.org/abs/1706.08500): the critics' learning rate is ``ratio`` times --lr."""
    scale_lr = model.scale_lr

    def scale_both(factor):
        scale_lr(factor)
        for group in model.optimizer_D.param_groups:
            group["lr"] *= float(ratio)

    model.scale_lr = scale_both


def buffer(model, size):
    """The replay buffers hold so many images instead of 50; with 1, half of what critics see is the step's own."""
    for images in (model.buffer_A, model.buffer_B):
        images.size = int(size)


def fade(model, name):
    """The term ``name`` of the generators' loss loses weight as the learning rate falls: to 0 in the second half."""
    scale_lr, terms = model.scale_lr, model.generator_objective.terms
    weight, term = terms[name]

    def scale_both(factor):
        scale_lr(factor)
        terms[name] = weight * factor, term

    model.scale_lr = scale_both


def decay(model, shape):
    """The learning rate falls to 0, in the second half as it does anyway, along a ``cosine``
    (https://arxiv.org/abs/1608.03983) instead of a line."""
    scale_lr, curves = model.scale_lr, {"cosine": lambda factor: (1 - math.cos(math.pi * factor)) / 2}
    model.scale_lr = lambda factor: scale_lr(curves[shape](factor))


def blur(model, value):
    """``SIGMA:STEPS``: critics see all images through a Gaussian of SIGMA pixels, which falls linearly to nothing in so
    many steps (StyleGAN-XL's start, https://arxiv.org/abs/2202.00273)."""
    sigma, steps = map(float, value.split(":"))
    objective = model.critic_objective

    def blurred(images):
        now = sigma * max(1 - objective.step / steps, 0)
        size = 2 * math.ceil(3 * now) + 1
        return gaussian_blur(images, size, now) if now > 0.2 else images

    for critic in (objective.D_A, objective.D_B):
        augmented(critic, [blurred])


def first(model, size):
    """The generators' first convolution sees ``size``×``size`` pixels instead of 7×7."""
    for generator in model.translators.G_AB, model.translators.G_BA:
        old = generator.encoder[0]
        new = ReflectConv2d(old.in_channels, old.out_channels, int(size))
        generator.encoder[0] = new.apply(weights_init_normal)
        model.optimizer_G.add_param_group({"params": list(new.parameters())})


class SkipConnection(GeneratorResNet):
    """What the first convolution gives is added to what the last one reads, at full size, as in a U-Net
    (https://arxiv.org/abs/1505.04597)."""

    def forward(self, x):
        at_full_size = self.encoder[:3](x)
        stages = [self.encoder[3:], *self.transformer, self.attention, self.decoder[:-2]]
        return self.decoder[-2:](run_stages(stages, at_full_size, self.checkpoint_activations) + at_full_size)


def skip(model, which):
    """Generators with a SkipConnection; ``which`` is ``full``."""
    for generator in model.translators.G_AB, model.translators.G_BA:
        generator.__class__ = {"full": SkipConnection}[which]


def no_attention(model, which):
    """Self-attention is taken out of the generators or of the critics alone."""
    replace(networks(model, which), SelfAttention, lambda module: nn.Identity())


def no_spectral_norm(model, which):
    """Spectral norm is taken out of the generators or of the critics alone."""
    for module in list(networks(model, which).modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


def norm(model, kind):
    """Other norms in the ResNet generators: ``instance`` is the paper's, ``eps`` the same with 0.1 added to variances.

    The rest is group norm with a scale and shift for each channel. In a single group: in ``all`` places, in the two on
    the ``way_up``, or in the ``last``; and ``eights`` of channels on the way up. Elsewhere instance norm.
    """
    layer, eights = partial(nn.GroupNorm, 1), lambda channels: nn.GroupNorm(max(channels // 8, 1), channels)
    elsewhere, first_up, last_up = {
        "instance": [InstanceNorm2d] * 3,
        "eps": [partial(InstanceNorm2d, eps=0.1)] * 3,
        "all": [layer] * 3,
        "way_up": [InstanceNorm2d, layer, layer],
        "last": [InstanceNorm2d, InstanceNorm2d, layer],
        "eights": [InstanceNorm2d, eights, eights],
    }[kind]
    for generator in model.translators.G_AB, model.translators.G_BA:
        parts = [generator.encoder, *(block.block for block in generator.transformer), generator.decoder]
        places = [(p, i) for p in parts for i, old in enumerate(p) if isinstance(old, (nn.InstanceNorm2d, LayerNorm2d))]
        for (part, i), build in zip(places, [elsewhere] * (len(places) - 2) + [first_up, last_up], strict=True):
            part[i] = build(part[i - 1].out_channels)
            if new := list(part[i].parameters()):
                model.optimizer_G.add_param_group({"params": new})


def upsample(model, mode):
    """Generators that resize up by ``bilinear`` interpolation instead of nearest neighbours."""
    replace(networks(model, "generators"), nn.Upsample, lambda module: nn.Upsample(scale_factor=2, mode=mode))


def antialiased(model, which):
    """Low-pass filters [1 2 1]/4 around resampling (https://arxiv.org/abs/1904.11486): before each convolution of
    stride 2, and in generators as ``upsample=bilinear``."""

    def build(module):
        if module.stride == (2, 2):  # two means over 2×2 make one [1 2 1] filter in each direction
            return nn.Sequential(nn.ReflectionPad2d(1), nn.AvgPool2d(2, 1), nn.AvgPool2d(2, 1), module)
        return None

    replace(networks(model, which), nn.Conv2d, build)
    if which == "generators":
        upsample(model, "bilinear")


def penalty(model, kind):
    """Another gradient penalty at the points between real and fake, weighted by --lambda_gp. In place of (s − 1)²,
    where s is the gradient norm of the mean patch score in RMS pixel distance:

    ``mean``: (‖∇C‖₂ − 1)² of the mean patch score C; ``sum``: the same of the sum of the patches; ``zero``: ‖∇C‖₂².
    """

    def measure(judged):
        critic, real, fake = judged.critic, judged.real, judged.fake
        norm = gradient_norm(critic, interpolate(real, fake)) / real[0].numel() ** 0.5
        if kind == "zero":
            return norm.square().mean()
        with torch.no_grad():
            patches = critic(real)[0].numel() if kind == "sum" else 1
        return (patches * norm - 1).square().mean()

    model.critic_objective.terms["penalty"] = model.options.lambda_gp, measure


def every(model, which):
    """A term at each k-th step alone, with k-fold weight, as StyleGAN2 has its penalties (section 3.1 of
    https://arxiv.org/abs/1912.04958): ``identity:4``, ``penalty:8``."""
    name, k = which.split(":")
    objective = {"identity": model.generator_objective, "penalty": model.critic_objective}[name]
    objective.intervals, terms, updates = {}, objective.terms, model.updates

    def updates_of(step):
        objective.terms = due(terms, {name: int(k)}, step)
        return updates(step)

    model.updates = updates_of


CHOICES = (
    buffer, critic_lr, fade, decay, blur, first, skip, no_attention, no_spectral_norm, norm, upsample, antialiased,
    penalty, every,
)  # fmt: skip
VARIANTS = {function.__name__: function for function in CHOICES}
