"""JPEG of 12 bits, lossless JPEG and JPEG-LS in DICOM: a plugin of pydicom's decoders, by imagecodecs."""

from pydicom import uid
from pydicom.pixels import get_decoder

from readers.files import library

CODECS = {
    uid.JPEGExtended12Bit: "jpeg8_decode",
    uid.JPEGLossless: "jpeg8_decode",
    uid.JPEGLosslessSV1: "jpeg8_decode",
    uid.JPEGLSLossless: "jpegls_decode",
    uid.JPEGLSNearLossless: "jpegls_decode",
}
DECODER_DEPENDENCIES = {syntax: ("imagecodecs",) for syntax in CODECS}  # asked for by pydicom


def ready(syntax):
    """Let pydicom decode the transfer ``syntax``, if it is one of these. Raises UserError without imagecodecs."""
    if syntax in CODECS and "imagecodecs" not in get_decoder(syntax).available_plugins:
        library("imagecodecs")
        get_decoder(syntax).add_plugin("imagecodecs", (__name__, "decode"))


def is_available(syntax):
    return True


def decode(stream, runner):
    """One frame's bytes, in the colours that it is stored in; ``runner`` is told how they lie."""
    colours = {}
    if runner.samples_per_pixel == 3 and CODECS[runner.transfer_syntax] == "jpeg8_decode":
        stored = "RGB" if runner.photometric_interpretation == "RGB" else "YCBCR"
        colours = {"colorspace": stored, "outcolorspace": stored}
    pixels = getattr(library("imagecodecs"), CODECS[runner.transfer_syntax])(stream, **colours)
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return bytearray(pixels)
