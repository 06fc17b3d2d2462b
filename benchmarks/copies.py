"""What doing nothing gives: images taken for their own translations, measured as experiment.py measures; lines of JSON.

python benchmarks/copies.py topo2relief satellite2relief
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from experiment import SMALL, Measure

from options import parse_training
from runtime.errors import exit_cleanly
from translators import Translators


def main():
    for name in sys.argv[1:]:
        options = parse_training([*SMALL, f"--dataset_name={name}"])[0]
        copies = Translators(options)
        copies.G_AB = copies.G_BA = torch.nn.Identity()
        average = Namespace(module=copies)
        model = Namespace(options=options, translators=copies, average=average, device=torch.device("cpu"), amp="off")
        print(json.dumps({"dataset": name, **Measure(model, name)()}))


if __name__ == "__main__":
    exit_cleanly(main)
