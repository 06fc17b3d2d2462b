"""Random flags, files, cuts and kills against the programs, for as long as one likes: a line for each thing that fell.

    python tests/fuzz.py --minutes 2 [--seed 0]

Every case starts from a fresh copy of a data set with a trained run. A program must end with code 0 or 2 (or by the
signal that was sent), without a traceback; change nothing but its own folders; leave no process behind. An audit hook
sees that it starts no program but git and uname, for the record of a run, connects to nothing, and opens only files of
Python, of the system and of the case.
"""

# ruff: noqa: E402
import argparse
import contextlib
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch
import torch._dynamo  # which is imported late otherwise
from conftest import ROOT, TINY, make_dataset, run_process
from PIL import Image

import options as tables
from runtime.errors import exit_cleanly

Image.init()
PROGRAMS = {"cycle_gan": tables.TRAIN, "test": tables.TRANSLATE, "evaluate": tables.EVALUATE}
OWN = "saved_models", "images", "results", "out"  # where a program may write
VALUES = ["0", "1", "-1", "2", "7", "0.5", "1e9", "inf", "nan", "", "x", "latest", "best", "datasets", "..", "/", "a/b",
          "out", "datasets/tiny/testA", "datasets/tiny/testB", "10m", "auto", "none", "\u00e9\x1b[31m",
          "9" * 30]  # fmt: skip
AFTER = 120  # seconds until a case counts as hanging
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect"}
ROOTS = [ROOT, sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/proc", "/sys", "/dev", "/etc", "/opt"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for program in PROGRAMS:
        entry(program)  # so that no case has to wait for imports
    with tempfile.TemporaryDirectory() as folder:
        pristine = Path(folder) / "pristine"
        make_dataset(pristine / "datasets/tiny")
        made = run_process("cycle_gan.py", *TINY, "--n_epochs=2", "--no_tensorboard", cwd=pristine)
        assert made.returncode == 0, made.stderr
        end, number, fallen = time.monotonic() + 60 * arguments.minutes, 0, 0
        while time.monotonic() < end:
            case = f"{arguments.seed}.{number}"
            number += 1
            for complaint in try_one(random.Random(case), pristine, Path(folder) / "case"):
                fallen += 1
                print(f"case {case}: {complaint}", flush=True)
    print(f"{number} cases from seed {arguments.seed}, {fallen} fell")
    sys.exit(fallen > 0)


def try_one(draw, pristine, place):
    """One case in ``place``: a list of complaints."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(pristine, place)
    damage = [spoil(draw, place) for _ in range(draw.choice([0, 0, 1, 1, 2]))]
    program = draw.choice(list(PROGRAMS))
    flags = flags_for(draw, program)
    kill = draw.choice([None, None, None, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
    before = fingerprint(place)
    code, said = in_process(program, flags, place, kill, draw.uniform(0.05, 3))
    story = f"{program}.py {' '.join(map(repr, flags))} after {damage}, signal {kill and kill.name}"
    complaints = []
    if code not in (0, 2, *([-kill, 128 + kill, -signal.SIGTERM, -signal.SIGKILL] if kill else [])):
        complaints.append(f"ended with {code}: {said[-400:]!r}; {story}")
    for word in ("Traceback", "AUDIT"):
        if word in said:
            complaints.append(f"{said[said.find(word) :][:800]!r}; {story}")
    if changed := sorted(name for name in before if before[name] != fingerprint(place).get(name)):
        complaints.append(f"changed {changed[:3]}; {story}")
    return complaints


def flags_for(draw, program):
    """Flags that make a short run, and some that are anything."""
    flags = ["--dataset_name=tiny", "--n_cpu=0"]
    if program == "cycle_gan":
        start = draw.choice([["--epoch=latest", "--n_epochs=3"], [*TINY, "--n_epochs=1"]])
        flags = [*flags, *start, "--no_tensorboard", "--no_download"]
    if program == "evaluate":
        flags.append("--features=efficientnet_lite0")
    known = [flag for group in PROGRAMS[program].values() for flag in group]
    for flag in draw.sample(known, draw.choice([0, 1, 1, 2, 3])):
        if flag.name in ("compile", "device", "n_epochs", "minutes", "features", "onnx"):  # long, or another's
            continue
        if flag.type is bool:
            flags.append(f"--{draw.choice(['', 'no_'])}{flag.name}")
        else:
            flags.append(f"--{flag.name}={draw.choice([*VALUES, *map(str, flag.choices or ())])}")
    return flags


def spoil(draw, place):
    """Do something to one file: what it was."""
    path = draw.choice(sorted(path for path in place.rglob("*") if path.is_file()))
    content = path.read_bytes()
    kind = draw.choice(["cut", "flip", "empty", "gone", "pipe", "link", "folder", "junk", "eps"])
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
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest() if regular else "special"
    return found


def in_process(program, flags, place, kill, after):
    """Run a program in a fork, which has torch already: (exit code, what it said)."""
    said = place.parent / "said.txt"
    child = os.fork()
    if not child:
        run(program, flags, place, said)
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


def run(program, flags, place, said):
    """In the child: never returns."""
    os.setpgid(0, 0)
    os.chdir(place)
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = [f"{program}.py", *flags]
    shared = os.path.join(tempfile.gettempdir(), "pymp-")  # where loader processes meet
    allowed = (*(os.path.realpath(root) + "/" for root in [*ROOTS, place.parent]), shared)

    def audit(event, given):
        if event in STARTS and not expected(given):
            os.write(2, f"AUDIT {event} {given!r}\n".encode())
        if event == "open" and isinstance(given[0], str) and "/" in given[0]:
            path = os.path.realpath(given[0])
            if not (path + "/").startswith(allowed):
                os.write(2, f"AUDIT open {path!r} {given[1]!r}\n".encode())

    sys.addaudithook(audit)
    code = 1
    try:
        exit_cleanly(entry(program).main)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
