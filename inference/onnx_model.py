"""An exported direction in the place of Translators, for ``test.py --onnx``."""

import json
import os
from pathlib import Path

import torch

from readers.domains import PICTURES, domains_of, to_bytes
from runtime import files
from runtime.errors import UserError, dimensions
from runtime.libraries import library

FOLDER_OF_OTHERS = "session.model_external_initializers_file_folder_path"
SAFE = (1, 24)  # the first version that refuses models which name files elsewhere
MOST = 1024  # pixels: what a file may ask images to be padded to


class OnnxModel:
    """What export.py wrote, run by ONNX Runtime on the CPU. Raises UserError where the file is something else.

    ``limit``: GiB that an image may take decoded.
    """

    def __init__(self, path, limit=PICTURES.limit):
        runtime = library("onnxruntime", "--onnx", "requirements-export.txt")
        if (version := tuple(map(int, runtime.__version__.split(".")[:2]))) < SAFE:
            older, safe = (".".join(map(str, numbers)) for numbers in (version, SAFE))
            raise UserError(f"onnxruntime {older} opens any file that a model names; install {safe} or newer")
        runtime.set_default_logger_severity(4)  # what it says of a bad file is said here
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"--onnx {path} does not exist; write it: python export.py --dataset_name NAME")
        try:
            settings = runtime.SessionOptions()
            settings.add_session_config_entry(FOLDER_OF_OTHERS, os.devnull)  # no folder: no file that it names is there
            ways = dict(providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"])
            self.session = runtime.InferenceSession(files.read(path), settings, **ways)
            about = self.session.get_modelmeta().custom_metadata_map
            self.direction, self.bytes = about["direction"], {"uint8": True, "float": False}[about["io"]]
            self.multiple, self.min_size = int(about["multiple"]), int(about["min_size"])
            self.domains = domains_of({"domains": json.loads(about["domains"])}, limit)
            sound = min(self.multiple, self.min_size) >= 1 and max(self.multiple, self.min_size) <= MOST
        except Exception as error:  # onnxruntime's own kinds have no common name
            raise self.foreign() from error
        if self.direction not in ("AtoB", "BtoA") or self.domains.keys() != {"A", "B"} or not sound:
            raise self.foreign()

    def foreign(self):
        return UserError(f"--onnx {self.path} is damaged or not a file of export.py; write it anew with that")

    def pick(self, direction=None):
        """The one direction that the file translates in. Raises UserError for the other."""
        if direction not in (None, self.direction):
            raise UserError(f"--onnx {self.path} translates {self.direction}, not --direction {direction}")
        return [self.direction]

    def translate(self, side, x):
        """Images N×C×H×W in [-1, 1] to their translations, as Translators do: (translations, None)."""
        image = to_bytes(x).permute(0, 2, 3, 1).contiguous() if self.bytes else x.float()
        try:
            translated = torch.from_numpy(self.session.run(None, {"image": image.cpu().numpy()})[0])
            translated = translated.permute(0, 3, 1, 2) / 127.5 - 1 if self.bytes else translated
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"ONNX Runtime fails on images of {dimensions(x.shape)} ({reason})") from error
        if translated.shape != (len(x), self.domains[self.direction[-1]].channels, *x.shape[2:]):
            raise self.foreign()
        return translated, None
