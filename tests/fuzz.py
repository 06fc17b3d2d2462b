"""Random flags, files, cuts, full disks and kills against the programs, for as long as one likes: a line for each thing
that fell.

    python tests/fuzz.py --minutes 2 [--seed 0]

Every case starts from a fresh copy of a folder with data sets and trained runs. A program must end with code 0 or 2 (or
by the signal that was sent), without a traceback or a control character; change nothing but its own folders; lose no
checkpoint; leave no half a picture, no temporary file and no process behind. An audit hook sees that it starts no
program but git and uname, for the record of a run, connects to nothing, and opens only files of Python, of the system
and of the case.
"""

# ruff: noqa: E402
import argparse
import contextlib
import importlib.util
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import numpy as np
import torch
import torch._dynamo  # which is imported late otherwise
from conftest import ROOT, TINY, make_dataset, noise_image, run_process
from PIL import Image

import options as tables
from runtime import checkpoints
from runtime.errors import UserError, exit_cleanly
from runtime.files import LEFTOVER
from runtime.pretrained import checksum

Image.init()
PROGRAMS = {
    "cycle_gan": tables.TRAIN,
    "test": tables.TRANSLATE,
    "evaluate": tables.EVALUATE,
    "export": tables.EXPORT,
    "import_weights": tables.IMPORT,
}
OFTEN = ["cycle_gan"] * 4 + ["test"] * 4 + ["evaluate", "export", "import_weights"]
DATA = {  # the networks of each data set's run
    "tiny": ["--recipe=classic", "--dis_net=attention", "--n_residual_blocks=6"],
    "zipped": [],
    "deep": [],
}
OWN = "saved_models", "images", "results", "out", "exports"  # where a program may write
PICTURES = ".png", ".jpg", ".tif", ".npy"
VALUES = ["0", "1", "-1", "2", "7", "0.5", "1e9", "inf", "nan", "", "x", "latest", "best", "datasets", "..", "a/b",
          "out", "/proc/none", "datasets/tiny/testA", "datasets/tiny/testB", "datasets/tiny/testA/0.png",
          "datasets/zipped/testA.zip", "datasets/deep/testA/0.npy", "clip.gif", "saved_models/tiny",
          "latest_net_G_A.pth", "AtoB.onnx", "10m", "auto", "none", "\u00e9\x1b[31m", "9" * 30]  # fmt: skip
LONG = {"compile", "device", "n_epochs", "minutes", "features", "epoch", "host", "port", "pretrained"}  # or not ours
AFTER = 120  # seconds until a case counts as hanging
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect"}
ROOTS = [
    ROOT,
    sys.prefix,
    sys.base_prefix,
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/sys",
    "/dev",
    "/etc",
    "/opt",
    os.path.expanduser("~/.cache"),
]  # the last of libraries


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--case", type=int, help="this case alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for program in PROGRAMS:
        entry(program)  # so that no case has to wait for imports
    with tempfile.TemporaryDirectory() as folder:
        pristine = Path(folder) / "pristine"
        make_pristine(pristine)
        end, number, fallen = time.monotonic() + 60 * arguments.minutes, arguments.case or 0, 0
        while time.monotonic() < end:
            case = f"{arguments.seed}.{number}"
            number += 1
            for complaint in try_one(random.Random(case), pristine, Path(folder) / "case"):
                fallen += 1
                print(f"case {case}: {complaint}", flush=True)
            if arguments.case is not None:
                break
    print(f"{number - (arguments.case or 0)} cases from seed {arguments.seed}, {fallen} fell")
    sys.exit(fallen > 0)


def make_pristine(place):
    """Three data sets of pictures, of archives and of arrays; a run on each; a clip; files to import and to run."""
    make_dataset(place / "datasets/tiny")
    for side in ("trainA", "trainB", "testA", "testB"):
        kind = "zip" if side.endswith("A") else "tar"
        (place / "datasets/zipped").mkdir(exist_ok=True)
        shutil.make_archive(str(place / f"datasets/zipped/{side}"), kind, place / f"datasets/tiny/{side}")
        (place / f"datasets/deep/{side}").mkdir(parents=True)
        for number in range(3):
            array = np.random.default_rng(number).integers(0, 4096, (24, 26, 2), np.uint16)
            np.save(place / f"datasets/deep/{side}/{number}.npy", array)
    noise_image(0).save(place / "clip.gif", save_all=True, append_images=[noise_image(1)])
    for data, nets in DATA.items():
        finish("cycle_gan.py", *TINY, *nets, f"--dataset_name={data}", "--n_epochs=2", "--no_tensorboard", place=place)
    for form in ("onnx", "pytorch-cyclegan"):
        finish("export.py", "--dataset_name=tiny", "--direction=AtoB", f"--format={form}", place=place)
    for file in (place / "exports/tiny").glob("*[!n]"):
        shutil.copy(file, place)
    shutil.copy(place / "exports/tiny/AtoB.onnx", place)


def finish(*command, place):
    made = run_process(*command, cwd=place)
    assert made.returncode == 0, made.stderr


def try_one(draw, pristine, place):
    """One case in ``place``: a list of complaints."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(pristine, place)
    damage = [spoil(draw, place) for _ in range(draw.choice([0, 0, 1, 1, 2]))]
    program = draw.choice(OFTEN)
    flags = flags_for(draw, program)
    kill = draw.choice([None, None, None, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
    room = draw.choice([None, None, None, None, 40_000, 150_000])  # bytes that a file may grow to
    before, whole = fingerprint(place), whole_checkpoints(place)
    there = {checksum(path) for path in pictures(place)}
    code, said = in_process(program, flags, place, kill, draw.uniform(0.05, 3), room)
    story = f"{program}.py {' '.join(map(repr, flags))} after {damage}, signal {kill and kill.name}, room {room}"
    complaints = []
    if code not in (0, 2, *([-kill, 128 + kill, -signal.SIGTERM, -signal.SIGKILL] if kill else [])):
        complaints.append(f"ended with {code}: {said[-400:]!r}")
    for word in ("Traceback", "AUDIT", "\x1b[31m"):
        if word in said:
            complaints.append(repr(said[said.find(word) :][:800]))
    after = fingerprint(place)
    if changed := sorted(name for name in before if before[name] != after.get(name)):
        complaints.append(f"changed {changed[:3]}")
    if lost := [path for path in whole if not still_there(place, path)]:
        complaints.append(f"lost {lost}")
    if code in (0, 2) and (left := [path for path in place.rglob(".*.tmp") if LEFTOVER.fullmatch(path.name)]):
        complaints.append(f"left {left[0]}")
    made = [path for path in pictures(place) if checksum(path) not in there]  # by content: runs move folders aside
    complaints += [f"{path} is half a file" for path in made if not readable(path)]
    return [f"{complaint}; {story}" for complaint in complaints]


def whole_checkpoints(place):
    """The paths below ``place`` of the checkpoints that can be read."""
    return [path.relative_to(place) for path in place.glob("saved_models/*/*.pth") if loads(path)]


def loads(path):
    try:
        return checkpoints.load_file(path)
    except (UserError, OSError):
        return None


def still_there(place, path):
    """Whether a checkpoint is where it was, or in the folder that its run was moved to."""
    aside = place.glob(f"{path.parent}.*/{path.name}")
    return any(there.is_file() and loads(there) for there in [place / path, *aside])


def pictures(place):
    """The pictures and arrays in the folders that programs write to."""
    paths = (path for folder in OWN[1:] for path in (place / folder).rglob("*"))
    return [path for path in paths if path.suffix in PICTURES and path.is_file()]


def readable(path):
    try:
        if path.suffix == ".npy":
            return np.load(path).size
        with Image.open(path) as image:
            image.load()
    except Exception:
        return False
    return True


def flags_for(draw, program):
    """Flags that make a short run, and some that are anything."""
    data = draw.choice([*DATA])
    flags = [f"--dataset_name={data}"]
    if program in ("cycle_gan", "test"):
        flags.append(f"--n_cpu={draw.choice([0, 0, 0, 0, 1])}")
    if program == "cycle_gan":
        tiny = [flag for flag in TINY if not flag.startswith("--dataset_name")]
        start = draw.choice(
            [
                ["--epoch=latest", "--n_epochs=3"],
                [*tiny, *DATA[data], "--epoch=auto", "--n_epochs=3"],  # small as well where no run is found
                [*tiny, "--n_epochs=1"],
                [*tiny, "--n_epochs=1", "--init_from=saved_models/tiny"],
            ]
        )
        flags += [*start, "--no_tensorboard", "--no_download"]  # fmt: skip
    if program == "evaluate":
        flags.append("--features=efficientnet_lite0")
    if program == "export":
        flags.append(f"--format={draw.choice(['onnx', *3 * ['pytorch-cyclegan']])}")
    if program == "import_weights":
        flags = ["latest_net_G_A.pth", f"--name={draw.choice(['new', 'tiny'])}"]
    if program == "test" and draw.random() < 0.5:
        flags += [f"--input={draw.choice(VALUES)}", f"--output={draw.choice([*VALUES, 'out.gif'])}"]
        flags += ["--onnx=AtoB.onnx"] * draw.choice([0, 0, 1])
    known = [flag for group in PROGRAMS[program].values() for flag in group if flag.name not in LONG]
    for flag in draw.sample(known, draw.choice([0, 1, 1, 2, 3])):
        if flag.type is bool:
            flags.append(f"--{draw.choice(['', 'no_'])}{flag.name}")
        else:
            flags.append(f"--{flag.name}={draw.choice([*VALUES, *map(str, flag.choices or ())])}")
    return flags


def spoil(draw, place):
    """Do something to one file: what it was."""
    path = draw.choice(sorted(path for path in place.rglob("*") if path.is_file()))
    content = path.read_bytes()
    kind = draw.choice(["cut", "flip", "empty", "gone", "pipe", "link", "folder", "junk", "eps", "line"])
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(draw.choice(["nowhere", path.name, "/dev/zero", "/etc/passwd"]))
    elif kind == "folder":
        path.mkdir()
    elif kind != "gone":
        at = draw.randrange(len(content) + 1)
        spoilt = {"cut": content[:at], "empty": b"", "junk": draw.randbytes(200), "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}
        spoilt["line"] = content + b'{"step": 3, "epo'
        flipped = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :] if at < len(content) else content
        path.write_bytes(spoilt.get(kind, flipped))
    return f"{kind} {path.relative_to(place)}"


def fingerprint(place):
    """What must stay as it is: everything outside of the folders that programs write to."""
    found = {}
    for path in place.rglob("*"):
        name = path.relative_to(place)
        if name.parts[0] not in OWN and not name.parts[0].startswith(("said", "tiny.")):
            regular = path.is_file() and not path.is_symlink()
            found[str(name)] = checksum(path) if regular else "special"
    return found


def in_process(program, flags, place, kill, after, room):
    """Run a program in a fork, which has torch already: (exit code, what it said)."""
    said = place.parent / "said.txt"
    said.touch()
    child = os.fork()
    if not child:
        run(program, flags, place, said, room)
    deadline = time.monotonic() + AFTER
    due = time.monotonic() + after if kill else deadline
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > due:
            os.kill(child, kill or signal.SIGKILL)
            due, kill = deadline, None
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        for _ in range(200):  # loader processes look every few seconds whether the one that they work for is there
            os.killpg(child, 0)
            time.sleep(0.1)
        os.killpg(child, signal.SIGKILL)
        return "processes that it left behind", said.read_text(errors="replace")
    return os.waitstatus_to_exitcode(done[1]), said.read_text(errors="replace")


def expected(given):
    """The revision that a run records, the name of the processor, and the loader processes among themselves."""
    return given[0] in ("git", "uname") or "/pymp-" in str(given[-1])


def entry(program):
    """The module of a program."""
    spec = importlib.util.spec_from_file_location("entry", ROOT / f"{program}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(program, flags, place, said, room):
    """In the child: never returns."""
    code = 130  # where a signal comes before the program has begun
    try:
        os.setpgid(0, 0)
        os.chdir(place)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.argv = [f"{program}.py", *flags]
        main = entry(program).main
        sys.addaudithook(audit_of(place))
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        code = 1
        exit_cleanly(main)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        if code == 1:
            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def audit_of(place):
    """A hook that says what a program opens, starts and connects to, where it should not."""
    shared = os.path.join(tempfile.gettempdir(), "pymp-")  # where loader processes meet
    allowed = (*(os.path.realpath(root) + "/" for root in [*ROOTS, place.parent]), shared)

    def audit(event, given):
        if event in STARTS and not expected(given):
            os.write(2, f"AUDIT {event} {given!r}\n".encode())
        if event == "open" and isinstance(given[0], str) and "/" in given[0]:
            path = os.path.realpath(given[0])
            if not (path + "/").startswith(allowed):
                os.write(2, f"AUDIT open {path!r} {given[1]!r}\n".encode())

    return audit


if __name__ == "__main__":
    main()
