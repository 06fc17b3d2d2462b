"""A trained direction as an ONNX file, written by torch's exporter and compared with torch before anybody uses it.

The file needs nothing of this program: masks are inside its graph, and so is, with ``--io uint8``, all that turns the
bytes of an image into what the network sees and back.
"""

import json
import warnings

import numpy as np
import torch
from torch import nn

from inference.tiles import SingleDirection
from readers.domains import Domain, to_bytes
from runtime.errors import UserError
from runtime.libraries import library

TOLERANCE = 1e-3  # of a range of 2
HALF_TOLERANCE = 1.0  # what rounding does is told; above this, weights were out of the range of float16
SIZES = ((1, 64, 64), (2, 60, 92), (1, 136, 144))  # N, H, W on which the file is compared with torch


def needs(name):
    return library(name, "exporting to ONNX", "requirements-export.txt")


# ---------------------------------------------------------------------------------------------------------------------
# What goes in and out
# ---------------------------------------------------------------------------------------------------------------------


class Floats(SingleDirection):
    """Translates N×C×H×W in [-1, 1] to the same; H and W fit the network."""

    words = "float32 N×C×H×W, -1 to 1"
    axes = {0: "N", 2: "H", 3: "W"}

    def example(self, n, height, width):
        """Noise of about that size, whose sides the network takes."""
        height, width = (fitting(side, self.translators) for side in (height, width))
        return torch.rand(n, self.translators.channels[self.side], height, width) * 2 - 1

    def difference(self, x, got):
        """The largest difference of ``got`` from the translation of ``x``."""
        return (got - self(x)).abs().max().item()


class Bytes(nn.Module):
    """Translates uint8 N×H×W×C to the same, H and W as they come, to what test.py makes of the same pixels."""

    words = "uint8 N×H×W×C, 0 to 255"
    axes = {0: "N", 1: "H", 2: "W"}

    def __init__(self, translators, side):
        super().__init__()
        self.floats = Floats(translators, side)

    def forward(self, x):
        return to_bytes(self.translated(x)).permute(0, 2, 3, 1)

    def translated(self, x):
        """As floats N×C×H×W in [-1, 1]."""
        _, height, width, _ = x.shape
        rows, columns = (reflected(side, self.floats.translators) for side in (height, width))
        padded = x.permute(0, 3, 1, 2).index_select(2, rows).index_select(3, columns)
        return self.floats(padded.float() / 127.5 - 1)[:, :, :height, :width]

    def example(self, n, height, width):
        """Noise of that size less one, so that it has to be padded."""
        channels = self.floats.translators.channels[self.floats.side]
        return torch.randint(256, (n, height - 1, width - 1, channels), dtype=torch.uint8)

    def difference(self, x, got):
        """The largest difference of ``got`` from the translation of ``x`` in [-1, 1], beside that of rounding."""
        expected = self.translated(x).clamp(-1, 1).permute(0, 2, 3, 1)
        return ((got.float() / 127.5 - 1 - expected).abs().max() - 0.5 / 127.5).clamp(min=0).item()


IO = {"uint8": Bytes, "float": Floats}


def fitting(length, translators):
    """``readers.geometry.allowed`` of a ``length`` that is known only where the model runs."""
    # No negative numbers: ONNX rounds their quotients towards 0, and Python away from it.
    up = translators.multiple - 1
    return torch.sym_max(length + up, translators.min_size + up) // translators.multiple * translators.multiple


def reflected(length, translators):
    """Which of ``length`` rows or columns stand in those that a network takes: all, then back, and forth again."""
    places = torch.arange(fitting(length, translators))
    period = (2 * torch.arange(length)[-1:]).clamp(min=1)
    places = places - places // period * period
    return torch.minimum(places, period - places)


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


def encode(translators, direction, about, options):
    """``<direction>.onnx``: (name, bytes, a line about it); ``about`` goes into its metadata, dict of str.

    Raises UserError where what onnxruntime makes of it differs from torch by more than TOLERANCE.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        needs(name)
    for domain in (Domain(**told) for told in json.loads(about["domains"]).values()):
        if options.io == "uint8" and not domain.whole_picture:
            what, instead = ("a page", "leave --web out, and add") if options.web else ("--io uint8", "export with")
            raise UserError(
                f"{domain}: {what} is for 8-bit pictures; {instead} --io float, which takes the range as -1 to 1"
            )
    network = IO[options.io](translators, direction[0]).eval()
    model = convert(network)
    model.metadata_props.update(about | facts(network, translators, direction, options))
    content, said = checked(model, network, TOLERANCE)
    if options.half:
        halve(model)
        content, of_half = checked(model, network, HALF_TOLERANCE)
        said += f"; with float16 weights {of_half}"
    return f"{direction}.onnx", content, f"largest difference from torch, of a range of 2: {said}"


def checked(model, network, tolerance):
    """``model`` as the bytes of a file, if it does what ``network`` does; and the largest difference, in words."""
    content = needs("onnx_ir").to_proto(model).SerializeToString()
    difference = largest_difference(content, network)
    if not difference <= tolerance:  # so that it stops at what is not a number, too
        raise UserError(
            f"ONNX Runtime differs from torch by {difference:.1e}, more than {tolerance}; nothing is written"
        )
    return content, f"{difference:.1e}"


def facts(network, translators, direction, options):
    """What a caller must know to use the file."""
    here, there = direction.split("to")
    return {
        "direction": direction,
        "io": options.io,
        "images": network.words,
        "channels_in": str(translators.channels[here]),
        "channels_out": str(translators.channels[there]),
        "multiple": str(translators.multiple),
        "min_size": str(translators.min_size),
        "weights": "float16" if options.half else "float32",
    }


def convert(network):
    """``network`` as a model of onnx_ir, with any N, H and W."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (network.example(*SIZES[1]),),
            dynamo=True,
            dynamic_shapes=(network.axes,),
            input_names=["image"],
            output_names=["translation"],
            verbose=False,
        )
    model = program.model
    for node in model.graph:
        node.metadata_props.clear()  # a third of the file, and paths of this machine
    [image], [translation] = model.graph.inputs, model.graph.outputs
    channels = [axis for axis in range(4) if axis not in network.axes]
    shape = [network.axes.get(axis) or translation.shape[channels[0]] for axis in range(4)]
    translation.shape = type(image.shape)(shape)  # the exporter's own is a formula of H and W that comes to the same
    return model


def halve(model):
    """Keep the weights of convolutions as float16; whoever loads the file makes them float32 again."""
    ir = needs("onnx_ir")
    for name, value in list(model.graph.initializers.items()):
        array = value.const_value.numpy()
        if array.dtype != np.float32 or array.ndim < 2:
            continue
        half = ir.val(f"{name}.half", const_value=ir.tensor(array.astype(np.float16), name=f"{name}.half"))
        cast = ir.node("Cast", [half], attributes={"to": ir.DataType.FLOAT})
        value.replace_all_uses_with(cast.outputs[0])
        del model.graph.initializers[name]
        model.graph.register_initializer(half)
        model.graph.insert_before(model.graph[0], cast)


@torch.inference_mode()
def largest_difference(content, network):
    """How far onnxruntime with a file's bytes is from ``network``, over images of several sizes."""
    session = needs("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])

    def difference(size):
        image = network.example(*size)
        return network.difference(image, torch.from_numpy(session.run(None, {"image": image.numpy()})[0]))

    return max(map(difference, SIZES), key=lambda value: (value != value, value))  # what is not a number is the largest
