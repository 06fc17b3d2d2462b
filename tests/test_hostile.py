"""Bad days and strangers' files: one line and exit code 2, nothing overwritten, nothing that hangs."""

import contextlib
import functools
import gzip
import io
import json
import math
import os
import pickle
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib
from argparse import Namespace
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from conftest import ROOT, TINY, noise_image, run_process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

import options as tables
import resuming
from inference.output import Output
from readers.codestreams import check_size
from readers.domains import PICTURES, domains_of, load_pixels, restored
from readers.files import opened
from readers.folders import list_images
from readers.formats import contents
from readers.geometry import PREPROCESS
from readers.headers import read_header
from readers.pictures import load_image, seen_size
from reporting import pages
from reporting.scalars import Scalars
from runtime import checkpoints, download, files, jsonl, pickles
from runtime.errors import UserError
from runtime.folders import (
    WRITTEN,
    check_apart,
    check_free,
    check_writable,
    claimed,
    read_written,
    remove_others,
    write_ours,
)
from runtime.weights import load_tensors
from translators import Translators, load_translators

SLOW = settings(max_examples=60, suppress_health_check=list(HealthCheck))
TRANSLATE = ["test", "--dataset_name=tiny", "--n_cpu=0"]
LATEST = "saved_models/tiny/epoch_1.pth"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with a trained model."""
    from conftest import make_dataset

    place = tmp_path_factory.mktemp("trained")
    make_dataset(place / "datasets/tiny")
    assert run_process("cycle_gan.py", *TINY, "--n_epochs=1", cwd=place).returncode == 0
    return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    shutil.copytree(trained, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def tree(folder):
    """The files below ``folder`` and what they hold."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# ---- one door for files to be read ----


def test_what_is_no_regular_file_is_not_opened(place, run, refused):
    os.mkfifo("datasets/tiny/testA/pipe.png")
    assert "testA/pipe.png is not a readable image (not a regular file)" in refused(*TRANSLATE)
    assert "not a regular file" in refused(*TRANSLATE, "--input=datasets/tiny/testA/pipe.png", "--output=out")
    os.remove("datasets/tiny/testA/pipe.png")
    os.mkfifo("saved_models/tiny/epoch_7.pth")
    os.mkdir("saved_models/tiny/epoch_8.pth")
    os.symlink("nowhere", "saved_models/tiny/epoch_9.pth")
    result = run(*TRANSLATE)
    assert result.code == 0 and all(f"epoch_{n}.pth: " in result.err for n in (7, 8, 9))
    assert "not a regular file" in refused(*TRANSLATE, "--epoch=7")


@pytest.mark.parametrize("name", ["photo", "photo.heic"])
def test_a_name_that_is_no_image_is_refused_before_the_work(place, refused, name):
    shutil.copy("datasets/tiny/testA/0.png", name)
    assert "is not named as an image" in refused(*TRANSLATE, f"--input={name}", "--output=out")
    assert not os.path.exists("out")


def test_files_of_other_formats_are_mentioned_once(place, run):
    for name in "ab":
        Path(f"datasets/tiny/testA/{name}.heic").write_bytes(b"")
    result = run(*TRANSLATE)
    assert result.code == 0 and result.out.count("2 files of datasets/tiny/testA were left out") == 1


@functools.cache
def file_of(kind):
    """The bytes of a small good file, one of test_formats.KINDS."""
    from test_formats import KINDS

    suffix, make = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / f"a{suffix}", 0)
        return (Path(folder) / f"a{suffix}").read_bytes()


@given(data=st.data())
@settings(SLOW, max_examples=300)
def test_a_folder_with_one_odd_file_is_read_or_said_to_be_bad(tmp_path_factory, data):
    """A file of any format, under any known name, with one stretch of bytes gone, put in or changed."""
    from test_formats import KINDS

    from readers.domains import load_pixels
    from readers.folders import list_images
    from readers.formats import READERS
    from readers.headers import read_headers
    from readers.survey import find_domain

    kind = data.draw(st.sampled_from(sorted(KINDS)))
    content, suffix = file_of(kind), KINDS[kind][0]
    if data.draw(st.integers(0, 3)) == 0:
        suffix = data.draw(st.sampled_from(sorted(READERS)))
    at = data.draw(st.integers(0, min(len(content), 1200)) | st.integers(0, len(content)))
    gone, put = data.draw(st.sampled_from([0, 1, 4, 10**9])), data.draw(st.binary(max_size=4))
    folder = tmp_path_factory.mktemp("odd")
    (folder / f"a{suffix}").write_bytes(content[:at] + put + content[at + gone :])
    with contextlib.suppress(UserError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = read_headers(list_images(folder), False)
        domain = find_domain("A", images, PICTURES)
        for path in images:
            assert load_pixels(path, domain).size * 8 < 2**30


@given(data=st.data())
@settings(SLOW, max_examples=40)
def test_an_archive_with_one_odd_place_is_read_or_said_to_be_bad(tmp_path_factory, data):
    """Zips and tars as a side, a stretch of their bytes changed."""
    from readers.folders import list_images
    from readers.headers import read_headers

    folder, suffix = tmp_path_factory.mktemp("odd"), data.draw(st.sampled_from(["zip", "tar"]))
    (folder / "in").mkdir()
    for name in "ab":
        (folder / f"in/{name}.png").write_bytes(file_of("8-bit png"))
    content = bytearray(Path(shutil.make_archive(str(folder / "side"), suffix, folder / "in")).read_bytes())
    at, put = data.draw(st.integers(0, len(content))), data.draw(st.binary(max_size=4))
    content[at : at + data.draw(st.sampled_from([0, 1, 4, 10**9]))] = put
    (folder / f"side.{suffix}").write_bytes(content)
    with contextlib.suppress(UserError):
        read_headers(list_images(folder / f"side.{suffix}"), False)


def test_weights_and_exports_are_regular_files_too(place, refused):
    os.mkfifo("pipe.pth")
    for flags in (["import_weights", "pipe.pth", "--name=x"], ["test", "--onnx=pipe.pth"],
                  ["cycle_gan", *TINY, "--init_from=pipe.pth"], ["evaluate", "--checkpoint=pipe.pth"]):  # fmt: skip
        refused(*flags)


def test_what_libraries_log_is_a_line_of_ours(tmp_path):
    code = (
        "import sys, logging; sys.path.insert(0, sys.argv[1]); from runtime.errors import exit_cleanly\n"
        "exit_cleanly(lambda: logging.getLogger('tifffile').warning('odd \\x1b[31m\\nsecond'))\n"
        "raise KeyboardInterrupt\n"
    )
    result = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True)
    assert result.stderr == "-c: warning: odd \\x1b[31m\n-c: error: interrupted\n"


@pytest.mark.parametrize(
    "reaction", ["raise", "raise RuntimeError('a library made this of it')", "raise UserError('of it')"]
)
def test_ctrl_c_is_one_line_whatever_a_library_makes_of_it(reaction):
    code = (
        "import os, signal, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from runtime.errors import UserError, exit_cleanly\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job has it ignored
        "def main():\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
        f"    except KeyboardInterrupt: {reaction}\n"
        "exit_cleanly(main)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (130, "-c: error: interrupted\n")


def test_an_ignored_ctrl_c_stays_ignored():
    """As with nohup, or where a shell script has started a program in the background."""
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from runtime.errors import exit_cleanly\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "exit_cleanly(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("error", ["ValueError('odd')", "OSError(5, 'odd', 'file')"])
def test_what_stops_a_thread_is_one_line(error):
    code = (
        "import sys, threading; sys.path.insert(0, sys.argv[1]); from runtime.errors import exit_cleanly\n"
        f"def work(): raise {error}\n"
        "exit_cleanly(lambda: threading.Thread(target=work, name='writer').start())\n"
    )
    result = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True)
    said = "file: odd" if "file" in error else "odd"
    assert result.stderr == f"-c: warning: writer: {said}\n"


def test_a_loader_process_that_dies_is_one_line(tmp_path):
    code = (
        "import os, sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "from datasets import load_batches; from runtime.errors import exit_cleanly\n"
        "class Deadly(torch.utils.data.Dataset):\n"
        "    def __getitem__(self, n): os.kill(os.getpid(), 9)\n"
        "exit_cleanly(lambda: list(load_batches(Deadly(), [[0]], 1)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "a process that loads images died" in result.stderr


# ---- one way to write ----


def test_tensorboard_ends_with_one_line_on_a_full_disk(tmp_path):
    pytest.importorskip("tensorboard")
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from reporting.scalars import Scalars; from runtime.errors import exit_cleanly\n"
        "def full(data): raise OSError(28, 'No space left on device')\n"
        "def main():\n"
        "    scalars = Scalars('.', True, 0)\n"
        "    scalars.writer.file_writer.event_writer._async_writer._writer.write = full\n"
        "    for step in range(50): scalars.add(step, {'epoch': 0, 'G': 1.0}); time.sleep(0.01)\n"
        "exit_cleanly(main)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0 and result.stderr.count("No space left on device") == result.stderr.count("\n") == 1
    assert (tmp_path / "scalars.jsonl").read_bytes().count(b"\n") == 50


def test_a_full_disk_leaves_what_was_there_and_names_the_file(tmp_path):
    path = tmp_path / "a.png"
    files.write(path, b"before")
    with pytest.raises(OSError, match="No space left") as caught, files.replacing(path) as file:
        file.write(b"half")
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)
    assert tree(tmp_path) == {path: b"before"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "npy"])
def test_translations_are_whole_or_not_there(place, refused, monkeypatch, suffix):
    def failing(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(files.os, "replace", failing)
    line = refused(*TRANSLATE, f"--output_format={suffix}")
    assert "No space left on device" in line
    assert not [path for path in Path("results").rglob("*") if path.is_file()]


# ---- outputs never meet inputs ----


@pytest.mark.parametrize(
    "flags",
    [
        ["--input=datasets/tiny/testA", "--output=datasets/tiny/testA"],
        ["--input=datasets/tiny/testA", "--output=datasets/tiny/testA/sub"],
        ["--input=datasets/tiny/testA", "--output=datasets/tiny/trainB"],
        ["--input=datasets/tiny/testA/0.png", "--output=datasets/tiny/testA"],
        ["--input=datasets/tiny/testA", "--output=linked"],
        ["--input=datasets/tiny/testA", "--output=hard"],
        ["--input=datasets/tiny/testA", "--output=mine"],
        ["--results_dir=datasets/tiny/testA"],
        ["--input=datasets/tiny/testA", "--output=loop"],
        ["--input=a.gif", "--output=datasets/tiny/trainB/new.png"],
        ["--input=a.gif", "--output=datasets/tiny/trainB/0.png", "--overwrite"],
        ["--frames", "--input=hard", "--output=hard/new.png"],
        ["--frames", "--input=hard", "--output=datasets/tiny/trainB/sub"],
        ["--input=x_previews", "--output=x", "--output_format=npy"],
    ],
)
def test_outputs_never_meet_inputs(place, refused, flags):
    os.symlink("loop", "loop")
    noise_image(0).save("a.gif", save_all=True, append_images=[noise_image(1)])
    shutil.copytree("datasets/tiny/testA", "x_previews")
    os.symlink(place / "datasets/tiny/testA", "linked")
    os.mkdir("hard")
    os.link("datasets/tiny/testA/0.png", "hard/0.png")
    os.mkdir("mine")
    noise_image(9).save("mine/0.png")
    before = tree(place)
    refused(*TRANSLATE, *flags)
    assert tree(place) == before


@pytest.mark.parametrize("number", [LATEST, "datasets/tiny/testA/0.png"])
def test_numbers_never_take_the_place_of_what_was_measured(place, refused, number):
    before = tree(place)
    measure = ["evaluate", "--features=efficientnet_lite0", f"--json={number}", "--overwrite"]
    assert "would be read" in refused(*measure, "--dataset_name=tiny", f"--checkpoint={LATEST}")
    folders = "--real=datasets/tiny/testA", "--fake=datasets/tiny/testB"
    if number != LATEST:
        assert "would be read" in refused(*measure, *folders)
    assert tree(place) == before


def test_a_file_that_is_no_lock_stays(place, refused):
    for content in (b"my notes\n", b"\xff\xfe"):
        Path("saved_models/tiny.lock").write_bytes(content)
        assert "tiny.lock is no lock" in refused("cycle_gan", *TINY, "--epoch=1", "--n_epochs=2")
        assert Path("saved_models/tiny.lock").read_bytes() == content
    Path("out").mkdir()
    Path("out/.write_test").write_text("mine")
    check_writable("out")
    assert tree("out") == {Path("out/.write_test"): b"mine"}


def test_own_files_are_replaced_and_others_if_asked(place, run):
    flags = [*TRANSLATE, "--input=datasets/tiny/testA", "--output=out"]
    assert run(*flags).code == run(*flags).code == 0
    assert run(*flags, "--direction=BtoA").code == 0
    shutil.copytree("datasets/tiny/testB", "mine")
    assert run(*TRANSLATE, "--input=datasets/tiny/testA", "--output=mine", "--overwrite").code == 0


@pytest.mark.parametrize("flag", ["--images_dir", "--checkpoint_dir"])
def test_a_data_set_is_never_set_aside(place, refused, flag):
    before = tree(place)
    refused("cycle_gan", *TINY, f"{flag}=datasets")
    assert tree(place) == before


def test_two_runs_never_share_pages(place, run):
    from runtime.lock import locked

    with locked("saved_models/tiny", "images/tiny"):
        result = run_process("cycle_gan.py", *TINY, "--checkpoint_dir=elsewhere", cwd=place)
    assert result.returncode == 2 and "images/tiny is in use" in result.stderr


@given(st.lists(st.sampled_from(["a.png", "b/a.png", "../x/a.png", ".written.json"]), unique=True))
@SLOW
def test_no_file_of_others_is_ever_replaced(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("out") / "x"
    (folder / "b").mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"[1, null")
    wanted = [folder / "a.png", folder / "b/a.png"]
    with contextlib.suppress(UserError), claimed(folder, wanted, ()):
        assert not [path for path in wanted if path.exists()]


def test_what_another_process_is_about_to_write_stays_its_own(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    with claimed(tmp_path, paths, ()):
        paths[0].touch()
        write_ours(tmp_path, {"metrics.json": b"{}"})
        assert paths[0].exists()
        paths[1].touch(), paths[2].touch()
    with claimed(tmp_path, paths, ()):
        pass


def test_what_two_processes_claim_is_whose_wrote_it(tmp_path):
    index = tmp_path / "index.html"
    with claimed(tmp_path, [index], ()):
        with contextlib.suppress(OSError), claimed(tmp_path, [index], ()):
            raise OSError
        files.write(index, b"ours")
    with claimed(tmp_path, [index], ()):
        pass


def test_what_may_be_overwritten_and_was_not_stays_somebodys(tmp_path):
    (tmp_path / "a.png").write_text("somebody's")
    with contextlib.suppress(OSError), claimed(tmp_path, [tmp_path / "a.png"], (), overwrite=True):
        raise OSError
    with pytest.raises(UserError, match="is there already"), claimed(tmp_path, [tmp_path / "a.png"], ()):
        pass
    with claimed(tmp_path, [tmp_path / "a.png"], (), overwrite=True):
        files.write(tmp_path / "a.png", b"ours")
    with claimed(tmp_path, [tmp_path / "a.png"], ()):
        pass


def test_what_was_not_written_is_nobodys(tmp_path):
    ours, others = tmp_path / "a.png", tmp_path / "b.png"
    with contextlib.suppress(OSError), claimed(tmp_path, [ours, others], ()):
        ours.write_text("ours")
        raise OSError
    others.write_text("somebody's")
    with claimed(tmp_path, [ours], ()):
        pass
    with (
        pytest.raises(UserError, match=r"b\.png is there already, and not by this program"),
        claimed(tmp_path, [others], ()),
    ):
        pass


def test_a_translation_that_is_terminated_claims_what_it_wrote_alone(workplace, run, monkeypatch):
    run("cycle_gan", *TINY, "--n_epochs=1")
    save, number = Output.save, []

    def terminated(output, writers, index, *images):
        number.append(index)
        if len(number) == 3:
            for written in writers.pending:  # what still waits for a thread is given up
                written.result()
            os.kill(os.getpid(), signal.SIGTERM)
        return save(output, writers, index, *images)

    monkeypatch.setattr(Output, "save", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    results = workplace / "results/tiny/epoch_1"
    there = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    assert len([name for name in there if name.startswith("AtoB")]) == 2
    assert read_written(results) == there - {".written.json"}


def test_what_was_written_stays_ours(tmp_path):
    """When others of ours are written beside it, when it is not written again, and in the middle of the work."""
    write_ours(tmp_path, {"a.png": b"1"})
    write_ours(tmp_path, {"b.png": b"1"})
    with contextlib.suppress(OSError), claimed(tmp_path, [tmp_path / "a.png"], ()):
        raise OSError
    with claimed(tmp_path, [tmp_path / "a.png", tmp_path / "c.png"], ()):
        files.write(tmp_path / "c.png", b"1")
        with claimed(tmp_path, [tmp_path / "c.png"], ()):  # as after a sudden death
            pass


def test_a_link_that_leads_nowhere_is_somebodys(tmp_path):
    (tmp_path / "a.png").symlink_to("nowhere")
    with pytest.raises(UserError, match="is there already"):
        write_ours(tmp_path, {"a.png": b"1"})
    write_ours(tmp_path, {"a.png": b"1"}, overwrite=True)
    assert (tmp_path / "a.png").read_bytes() == b"1" and not (tmp_path / "nowhere").exists()


def test_an_input_that_is_gone_is_in_nobodys_way(tmp_path):
    check_free(tmp_path, [tmp_path / "a.png"], [tmp_path / "gone.png", tmp_path / "no\0name"])


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_input_under_another_name_is_not_overwritten(tmp_path, link):
    (tmp_path / "a.png").touch()
    link(tmp_path / "a.png", tmp_path / "b.png")
    with pytest.raises(UserError, match="b.png would be read and overwritten"):
        check_free(tmp_path, [tmp_path / "b.png"], [tmp_path / "a.png"], overwrite=True)


def test_a_link_is_no_way_round_into_a_source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "link").symlink_to("source")
    for output, source in (("source", "link"), ("link/sub", "source"), ("source/../link", "link")):
        with pytest.raises(UserError, match="name another folder"):
            check_apart(tmp_path / output, [tmp_path / source])
    check_apart(tmp_path / "sources", [tmp_path / "source", tmp_path / "link"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no folder in which none can write")
def test_a_folder_in_which_none_can_write_is_found_at_the_start():
    with pytest.raises(OSError):
        check_writable("/proc/self")
    with pytest.raises(OSError):
        check_free("/proc/self", ["/proc/self/a.png"], ())


def test_what_goes_takes_its_empty_folder_along(tmp_path):
    write_ours(tmp_path, {"a/1.png": b"1", "a/2.png": b"1", "b/1.png": b"1", "ab.png": b"1"})
    (tmp_path / "ab.png").unlink()  # by hand
    remove_others(tmp_path, ["a/1.png"], below=("a/", "ab"))
    assert tree(tmp_path).keys() == {tmp_path / name for name in ("a/1.png", "b/1.png", WRITTEN)}
    assert json.loads((tmp_path / WRITTEN).read_text()) == ["a/1.png", "b/1.png"]
    remove_others(tmp_path, ())
    assert os.listdir(tmp_path) == [WRITTEN]


@pytest.mark.parametrize("name", ["../mine.png", "link/mine.png", "a\0b", "\ud800", "", ".", "sub", 3])
def test_a_list_of_ones_own_files_is_not_believed_too_much(tmp_path, name):
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to("..")
    (tmp_path / "mine.png").write_text("mine")
    (folder / WRITTEN).write_text(json.dumps(["old.png", name]))
    (folder / "old.png").touch()
    write_ours(folder, {"a.png": b"1"}, alone=True)
    assert (tmp_path / "mine.png").exists() and (folder / "sub").exists() and not (folder / "old.png").exists()


@pytest.mark.parametrize("content", ["[" * 100_000, "3", "{", "\xff", '["a.png"', "[[]]"])
def test_a_list_of_ones_own_files_that_is_damaged_is_none(tmp_path, content):
    (tmp_path / WRITTEN).write_text(content, encoding="latin-1")
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match="is there already"):
        write_ours(tmp_path, {"a.png": b"1"})


def test_a_page_leaves_what_was_put_in_the_place_of_an_old_file(tmp_path):
    write_ours(tmp_path, {"index.html": b"1", "A1.png": b"1"}, alone=True)
    write_ours(tmp_path, {"index.html": b"2"}, alone=True)
    assert not (tmp_path / "A1.png").exists()
    (tmp_path / "A1.png").write_text("somebody's")
    write_ours(tmp_path, {"index.html": b"3"}, alone=True)
    assert (tmp_path / "A1.png").read_text() == "somebody's" and (tmp_path / "index.html").read_bytes() == b"3"


# ---- values are checked where they enter ----

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**21, "meta"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@functools.cache
def saved(folder):
    return torch.load(io.BytesIO((Path(folder) / LATEST).read_bytes()), weights_only=True)


def opens_or_says_so(path, state):
    """Whatever a file says, it ends in a model or in a UserError."""
    checkpoints.write(path, state)
    with contextlib.suppress(UserError):
        loaded = checkpoints.load_file(path, resume=True)
        domains_of(loaded)
        resuming.resume(tables.parse_training([])[0], {}, loaded["options"], loaded["given"])
        load_translators(loaded, "cpu")


@given(data=st.data())
@SLOW
def test_a_checkpoint_with_one_odd_option(trained, tmp_path_factory, data):
    state = dict(saved(str(trained)))
    name = data.draw(st.sampled_from(sorted(state["options"])))
    state["options"] = {**state["options"], name: data.draw(ANYTHING)}
    opens_or_says_so(tmp_path_factory.mktemp("odd") / "epoch_1.pth", state)


@given(data=st.data())
@SLOW
def test_a_checkpoint_with_one_odd_part(trained, tmp_path_factory, data):
    state = dict(saved(str(trained)))
    name = data.draw(st.sampled_from(sorted(set(state) - {"format"})))
    if data.draw(st.booleans()):
        del state[name]
    elif isinstance(state[name], dict) and state[name] and data.draw(st.booleans()):
        part = data.draw(st.sampled_from(sorted(state[name])))
        state[name] = {**state[name], part: data.draw(ANYTHING)}
    else:
        state[name] = data.draw(ANYTHING)
    opens_or_says_so(tmp_path_factory.mktemp("odd") / "epoch_1.pth", state)


@pytest.mark.parametrize(
    "weight", [torch.full((4, 3, 7, 7), math.nan), torch.zeros(1).expand(10**5, 10**5, 7, 7), torch.zeros(2)]
)
def test_a_checkpoint_with_odd_weights(place, refused, weight):
    state = dict(saved("."))
    name = next(name for name in state["generators"] if name.endswith("weight"))
    state["generators"] = {**state["generators"], name: weight}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    checkpoints.write(Path(LATEST), state)
    refused(*TRANSLATE, "--epoch=1")


def test_a_checkpoint_with_what_no_network_of_it_has_beside_weights(place, refused):
    state = dict(saved("."))
    state["generators"] = {**state["generators"], "G_AB.foo_extra_state": {}}
    checkpoints.write(Path(LATEST), state)
    line = refused(*TRANSLATE, "--epoch=1")
    assert "1 difference, such as 'G_AB.foo_extra_state', no tensor in it and absent in the network" in line


@pytest.mark.parametrize("mask", ["given", "learned"])
def test_a_checkpoint_with_masks_between_unlike_channels(place, refused, mask):
    state = dict(saved("."))
    options = {**state["options"], "channels_B": 1, "lambda_id": 0.0, "mask": mask}
    with torch.device("meta"):
        unlike = Translators(Namespace(**{**options, "mask": "none"}))
    weights = {name: torch.zeros(part.shape) for name, part in unlike.state_dict().items()}
    domains = {**state["domains"], "B": {**state["domains"]["B"], "channels": 1}}
    checkpoints.write(Path(LATEST), {**state, "options": options, "generators": weights, "domains": domains})
    assert f"--mask {mask} needs equal numbers" in refused(*TRANSLATE, "--epoch=1")


def test_a_resumed_run_takes_no_folder_from_the_file(place, run):
    state = dict(saved("."))
    state["options"] = {**state["options"], "images_dir": "/proc/elsewhere", "dataset_dir": "/proc/elsewhere"}
    checkpoints.write(Path(LATEST), state)
    assert run("cycle_gan", "--dataset_name=tiny", "--n_cpu=0", "--epoch=1", "--n_epochs=2").code == 0


NUMBERS = [
    (program, flag.name)
    for program, groups in (("cycle_gan", tables.TRAIN), ("test", tables.TRANSLATE), ("evaluate", tables.EVALUATE))
    for group in groups.values()
    for flag in group
    if type(flag.default) in (int, float)
]


@pytest.mark.parametrize(("program", "name"), NUMBERS)
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "1e400", str(10**30), "1j", ""])
def test_no_number_is_without_a_bound(program, name, value):
    parse = {"cycle_gan": tables.parse_training, "test": tables.parse_translation, "evaluate": tables.parse_evaluation}
    with pytest.raises(UserError):
        parse[program]([f"--{name}={value}"])


# ---- logs are read line by line ----


@given(st.binary(max_size=40), st.integers(0, 3))
@SLOW
def test_a_damaged_line_costs_that_line_alone(tmp_path_factory, junk, where):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    good = [{"step": n} for n in range(3)]
    lines = [jsonl.line(row) for row in good]
    path.write_bytes(b"".join([*lines[:where], junk.replace(b"\n", b"") + b"\n", *lines[where:]]))
    assert [row for row in jsonl.read(path, lambda row: row.keys() == {"step"}) if row in good] == good


def test_a_torn_log_does_not_stop_a_run(place, run):
    for name in ("images/tiny/scalars.jsonl", "saved_models/tiny/runs.jsonl"):
        with open(name, "ab") as file:
            file.write(b'{"step": 3, "epo')
    result = run("cycle_gan", "--dataset_name=tiny", "--n_cpu=0", "--epoch=latest", "--n_epochs=2")
    assert result.code == 0 and "scalars.jsonl are damaged, and left out" in result.err
    for line in Path("images/tiny/scalars.jsonl").read_text().splitlines():
        json.loads(line)


# ---- downloads: archives ----

ENTRY = st.sampled_from(
    [
        "../x.png",
        "/x.png",
        "x/../../y.png",
        "..\\x.png",
        "C:/x.png",
        "a" * 300 + ".png",
        "x\0y.png",
        "",
        "/",
        "ok/x.png",
    ]
)


@given(ENTRY, st.sampled_from([0, 1, 0x41, 0x800]), st.sampled_from([0, stat.S_IFLNK << 16, stat.S_IFIFO << 16]))
@SLOW
def test_an_archive_with_one_odd_entry_writes_nothing_elsewhere(tmp_path_factory, name, flags, kind):
    place = tmp_path_factory.mktemp("archive")
    archive, folder = place / "a.zip", place / "deep" / "out"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("set/trainA/0.png", b"0")
        entry = zipfile.ZipInfo(name)
        entry.external_attr, entry.flag_bits = kind, flags
        file.writestr(entry, b"/etc/passwd")
    with contextlib.suppress(Exception):  # fetch turns all of them into one line
        download.extract(archive, folder)
    assert {path for path in place.rglob("*") if folder not in path.parents} == {archive, folder, folder.parent}
    assert not [path for path in folder.rglob("*") if path.is_symlink() or path.is_fifo()]


def test_what_unpacks_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("set/trainA/0.png", bytes(10**7))
    with pytest.raises(UserError, match="would unpack to 10.0 MB"):
        download.extract(tmp_path / "a.zip", tmp_path)


# ---- names, terminals, an image that turns bad ----


def test_names_in_no_encoding_and_with_control_characters(place, run):
    for side in ("trainA", "testA"):
        noise_image(3).save(os.fsencode(f"datasets/tiny/{side}/") + b"\xff\x1b[31m.png")
    result = run("cycle_gan", *TINY, "--n_epochs=1")
    assert result.code == 0, result.err
    result = run(*TRANSLATE)
    assert result.code == 0 and "\x1b[31m" not in result.out + result.err
    assert len(os.listdir(b"results/tiny/epoch_1/AtoB")) == 4
    assert "%FF%1B" in Path("results/tiny/epoch_1/data.js").read_text()


def test_an_image_that_turns_bad_while_training_loses_no_step(place, refused, monkeypatch):
    from readers import domains

    plain, calls = domains.load_image, []

    def failing(path, *more):
        calls.append(path)
        if len(calls) > 14:
            Path(str(path)).write_bytes(b"gone bad")
        return plain(path, *more)

    monkeypatch.setattr(domains, "load_image", failing)
    line = refused("cycle_gan", *TINY, "--n_epochs=5", "--cache=0", "--checkpoint_interval=0")
    assert "is not a readable image" in line and "--epoch latest" in line
    (name,) = checkpoints.listed("saved_models/tiny")
    assert checkpoints.load_file(name.path, resume=True)["steps"] >= 2


def test_a_reader_that_has_seen_enough_ends_it_quietly():
    command = f"{sys.executable} {ROOT / 'cycle_gan.py'} --help | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stderr == "" and "usage" in result.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_streams_change_nothing(closed):
    command = f"{shlex.quote(sys.executable)} {ROOT / 'cycle_gan.py'} --no_such_flag {closed}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from runtime.errors import exit_cleanly, tell; "
    code += "exit_cleanly(lambda: tell('a line'))"
    assert subprocess.run(["sh", "-c", f'{shlex.quote(sys.executable)} -c "{code}" {closed}']).returncode == 0


def test_what_an_archive_unpacks_to_is_bounded(tmp_path):
    """A picture with a tail of zeros, which shrink to a thousandth."""
    content = io.BytesIO()
    noise_image(0).save(content, "PNG")
    with zipfile.ZipFile(tmp_path / "side.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", content.getvalue() + bytes(2**21))
    place = list_images(tmp_path / "side.zip")[0]
    assert load_pixels(place, PICTURES).shape == (18, 23, 3)
    for read in (load_pixels, read_header):
        with pytest.raises(UserError, match="decoded_limit"):
            read(place, PICTURES._replace(limit=1e-3))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int8])
def test_weights_are_of_the_usual_types(trained, tmp_path, kind):
    state = saved(trained)
    weights = {name: tensor.to(kind) for name, tensor in state["generators"].items()}
    checkpoints.write(tmp_path / "epoch_1.pth", {**state, "generators": weights})
    refusals = "no usable 'generators'|more than weights and plain values|does not fit the networks"
    with pytest.raises(UserError, match=refusals):  # buffers may be of whole numbers, where the network has such
        load_translators(checkpoints.load(tmp_path, "latest")[1], "cpu")
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="no state_dict of floating-point tensors|not a file of weights alone"):
        load_tensors(tmp_path / "weights.pth")


def test_translations_that_are_not_finite_are_refused(trained, place, refused):
    state = saved(trained)
    for name, tensor in state["generators"].items():
        state["generators"][name] = torch.full_like(tensor, 1e38) if tensor.is_floating_point() else tensor
    checkpoints.write(place / LATEST, state)
    assert "a translation is not finite" in refused(*TRANSLATE)
    saved.cache_clear()


@pytest.mark.parametrize("span", [(0.0, 5e-324), (-1e308, 1e308), (1.0, 1.0), (float("-inf"), 0.0)])
def test_a_range_that_cannot_be_computed_with_is_refused(trained, span):
    domain = saved(trained)["domains"]["A"]
    with pytest.raises(UserError, match="does not say what its images are"):
        restored({**domain, "low": span[0], "high": span[1]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("dtype", kind) for kind in (",", "(,f8", "01f8", "complex64", "O", "")),
        *(("low", number) for number in (10**400, True, "0")),
        *(("nan", number) for number in ("nan", "inf", "much")),
        ("slice_axis", True),
        ("picture", 1),
    ],
)
def test_a_domain_of_nonsense_is_refused(trained, field, value):
    domain = {**saved(trained)["domains"]["A"], "picture": False}
    assert restored(domain)
    with pytest.raises(UserError, match="does not say what its images are"):
        restored({**domain, field: value})


@pytest.mark.parametrize("address", ["http://[bad", "https://127.0.0.1:99999999999999999999", "ftp://a/b", "maps"])
def test_odd_addresses_are_one_line(tmp_path, address):
    with pytest.raises(UserError, match="is not an address of the web"):
        download.download(address, tmp_path / "x")


def test_the_app_shows_what_a_browser_can(trained, tmp_path):
    from inference.app import Models

    for name in ("plain", os.fsdecode(b"t\xff"), "a\nb"):
        shutil.copytree(trained / "saved_models/tiny", tmp_path / name)
    os.symlink("nowhere", tmp_path / "plain/epoch_9.pth")
    assert Models(tmp_path, "cpu").runs() == ["plain"]


def test_an_export_of_a_name_in_no_encoding(place, run):
    pytest.importorskip("onnx")
    name = os.fsdecode(b"t\xff")
    os.rename("saved_models/tiny", f"saved_models/{name}")
    assert run("export", f"--dataset_name={name}", "--direction=AtoB").code == 0
    assert Path(f"exports/{name}/AtoB.onnx").exists()


def test_a_page_of_other_pictures_among_the_grids(tmp_path):
    for name in ("²", "²7", "other"):
        (tmp_path / f"{name}.png").touch()
    pages.write_run(tmp_path, tables.parse_training([])[0], 1, {})
    assert '"grids": []' in (tmp_path / "data.js").read_text()


def test_lab_colours_become_gray_or_colour(tmp_path):
    from readers.pictures import load_image

    Image.fromarray(np.full((8, 8, 3), 100, np.uint8), "LAB").save(tmp_path / "a.tif")
    assert load_image(tmp_path / "a.tif", 1).mode == "L" and load_image(tmp_path / "a.tif", 3).mode == "RGB"


# ---- memory that a file does not hold ----


class Called:
    """Pickled as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def members_of(file):
    """The members of a zip: pairs (name, content)."""
    with zipfile.ZipFile(file) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def zip_parts(members):
    """A zip of stored members in parts: what they are, its table of contents, and how many there are."""
    with zipfile.ZipFile(content := io.BytesIO(), "w", zipfile.ZIP_STORED) as archive:
        for name, member in members:
            archive.writestr(zipfile.ZipInfo(name), member)
        start = archive.start_dir
    whole = content.getvalue()
    return whole[:start], whole[start:-22], len(members)


def test_a_zip_that_two_programs_read_in_two_ways_is_refused():
    torch.save({"a": torch.zeros(2)}, good := io.BytesIO())
    harmless = members_of(good)
    makes_memory = b"\x80\x02c__builtin__\nbytearray\nJ" + struct.pack("<i", 1000) + b"\x85R." + bytes(200)
    harmful = [(name, makes_memory if name.endswith("data.pkl") else member) for name, member in harmless]
    (first, for_torch, count), (second, for_python, _) = zip_parts(harmful), zip_parts(harmless)
    table = bytearray(for_python)
    at = 0
    for _ in range(count):  # zipfile adds what stands in front of an archive to all places
        place = struct.unpack_from("<I", table, at + 42)[0] + len(first) + len(for_torch)
        struct.pack_into("<I", table, at + 42, (place - len(for_torch) - len(second)) % 2**32)
        at += 46 + sum(struct.unpack_from("<3H", table, at + 28))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(for_torch), len(first), 0)
    content = first + for_torch + second + table + end
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert b"bytearray" not in archive.read(archive.namelist()[0])
    assert isinstance(torch.load(io.BytesIO(content), weights_only=True), bytearray)  # so it would have been
    with pytest.raises(zipfile.BadZipFile, match="in two ways"):
        pickles.read(content)


def with_extra(members, extra, size):
    """A zip of ``members``, the last of which its table of contents says ``extra``, and the ``size``, of."""
    first, table, count = zip_parts(members)
    table = bytearray(table)
    last = table.rindex(b"PK\1\2")
    struct.pack_into("<I", table, last + 24, size)
    struct.pack_into("<H", table, last + 30, len(extra))
    sizes = len(table) + len(extra), len(first)
    return first + table + extra + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, *sizes, 0)


def test_a_member_that_says_its_size_or_name_twice_is_refused():
    torch.save({"a": torch.zeros(64)}, good := io.BytesIO())
    members = members_of(good)
    length = len(members[-1][1])
    assert pickles.read(with_extra(members, b"", length))["a"].tolist() == 64 * [0]
    twice = struct.pack("<HHQHHQ", 1, 8, 2**32 - 1, 1, 8, length)  # torch takes the first, Python the second
    forged = with_extra(members, twice, 2**32 - 1)
    with zipfile.ZipFile(io.BytesIO(forged)) as archive:
        assert archive.infolist()[-1].file_size == length
    of_newer_pythons = struct.pack("<HHBI", 0x7075, 6, 1, 0) + b"x"  # which make it the name
    renamed = with_extra(members, of_newer_pythons, length)
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(*member)
    for content in (forged, renamed, packed.getvalue()):
        with pytest.raises(zipfile.BadZipFile, match="compressed, or says"):
            pickles.read(content)


def test_a_member_of_a_zip_beyond_4_gib_says_its_place_in_64_bits_once():
    member = zipfile.ZipInfo("data/0")
    once, second = struct.pack("<HHQ", 1, 8, 7), struct.pack("<HHQ", 1, 8, 8)
    sound = []
    for member.extra in (b"", once, once + second, b"\1\0\x08", bytes(60000)):
        sound.append((pickles.is_plain(member, 2**32), pickles.is_plain(member, 2**32 - 1)))
    assert sound == [(True, True), (True, False), (False, False), (False, False), (False, False)]


def test_a_key_that_takes_for_ever_is_refused():
    """A tuple that is twice in one that is twice in one …: to hash it, each is looked at as often as it is there."""
    torch.save({"a": torch.zeros(2)}, content := io.BytesIO())
    nested, steps = b"\x80\x02}q\0)q\1", range(1, 60)
    nested += b"".join(b"h" + bytes([step]) + b"\x86q" + bytes([step + 1]) for step in steps) + b"K\1s."
    assert pickles.deepest_tuple(nested) == 59
    members = [(name, nested if name.endswith(".pkl") else part) for name, part in members_of(content)]
    first, table, count = zip_parts(members)
    forged = first + table + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(table), len(first), 0)
    with pytest.raises(pickle.UnpicklingError, match="over and over"):
        pickles.read(forged)


@pytest.mark.parametrize(
    "value", [(1, (2, (3,))), [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], {"a": {(1, 2): [(4, 5)]}}]
)
@pytest.mark.parametrize("new", [True, False])
def test_tuples_as_programs_write_them_are_read(value, new):
    same = (7, 8)
    torch.save([value, same, same], content := io.BytesIO(), _use_new_zipfile_serialization=new)
    assert pickles.read(content.getvalue()) == [value, same, same]
    for protocol in range(2, 6):
        depth = pickles.deepest_tuple(pickle.dumps([value, same, same], protocol))
        assert depth == (3 if isinstance(value, tuple) else 1)


@pytest.mark.parametrize("again", ["archive/data.pkl", "archive/DATA.PKL"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_members_of_one_name_is_refused(again):
    torch.save({"a": torch.zeros(2)}, content := io.BytesIO())
    assert pickles.read(content.getvalue())["a"].tolist() == [0, 0]
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(again, b"")
    with pytest.raises(zipfile.BadZipFile, match="in two ways"):
        pickles.read(content.getvalue())


def test_a_tile_larger_than_its_image_is_not_unpacked(tmp_path):
    side = 20000
    packer = zlib.compressobj(1)
    tile = b"".join(packer.compress(bytes(side * 100)) for _ in range(side // 100)) + packer.flush()
    numbers = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(tile)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in numbers.items())
    tile += bytes(len(tile) % 2)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(tile))
    (tmp_path / "a.tif").write_bytes(header + tile + struct.pack("<H", len(numbers)) + entries + bytes(4))
    for read in (load_image, seen_size, lambda path: read_header(path, PICTURES)):
        with pytest.raises(UserError, match="its tiles of 20000×20000 are larger than itself"):
            read(tmp_path / "a.tif")
    Image.new("RGB", (16, 16)).save(tmp_path / "b.tif", tiffinfo={322: 256, 323: 256}, compression="tiff_deflate")
    assert load_image(tmp_path / "b.tif").size == (16, 16)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "call", [(bytearray, 2**40), (torch.FloatTensor, 2**40), (torch.UntypedStorage, 2**40)], ids=str
)
def test_a_pickle_makes_no_memory_out_of_a_number(call, zipped, tmp_path, trained):
    """Torch would call these. They ask for more than there is, so that it would be noticed."""
    torch.save({"a": Called(*call)}, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="not a file of weights alone"):
        load_tensors(tmp_path / "weights.pth")
    checkpoints.write(tmp_path / "epoch_1.pth", {**saved(trained), "data": Called(*call)})
    with pytest.raises(UserError, match="more than weights and plain values"):
        checkpoints.load(tmp_path, "latest")


def itself():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "more",
    [
        lambda: [torch.ones(1, dtype=torch.half).expand(3, 2**12, 2**12)],  # as an image of the history
        lambda: [torch.zeros(2**18)] * 1000,
        itself,
    ],
)
def test_nothing_in_a_checkpoint_is_larger_than_the_file(more, tmp_path, trained):
    state = saved(trained)
    own = state["training"]["processes"][0]
    own = {**own, "buffer_A": {**own["buffer_A"], "images": more()}}
    checkpoints.write(tmp_path / "epoch_1.pth", {**state, "training": {**state["training"], "processes": [own]}})
    with pytest.raises(UserError, match="would unpack to more than it holds"):
        checkpoints.load(tmp_path, "latest")


@pytest.mark.parametrize(
    "part",
    [{"critics": 5}, {"critics": {"terms": {}}}, {"critics": {"D_A": {"a": 1}}}, {"imported": {"G_AB": torch.ones(1)}}],
    ids=str,
)
def test_what_an_imported_checkpoint_says_is_checked(part, tmp_path, trained):
    checkpoints.write(tmp_path / "epoch_1.pth", {**saved(trained), **part})
    with pytest.raises(UserError, match=f"no usable '{next(iter(part))}'"):
        checkpoints.load(tmp_path, "latest")


def test_what_stands_before_the_voxels_of_a_volume_is_not_unpacked(tmp_path):
    """nibabel reads it whole, with the header."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((4, 4, 1))
    header["vox_offset"] = 2**30
    for suffix, opener in ((".nii", open), (".nii.gz", gzip.open)):
        with opener(path := tmp_path / f"a{suffix}", "wb") as file:
            file.write(header.binaryblock + bytes(2**10))
        with pytest.raises(UserError, match="bytes before its voxels"):
            read_header(path, PICTURES)


def test_a_volume_has_no_more_slices_than_its_file_has_bytes(tmp_path):
    header = nibabel.Nifti2Header()
    header.set_data_shape((2, 2, 10**12))
    header["vox_offset"] = 544
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4))
    (place,) = list_images(tmp_path)
    with pytest.raises(UserError, match="promises 1000000000000 images"):
        read_header(place, PICTURES)


@contextlib.contextmanager
def little_memory():
    """What happens inside takes less than 8 MiB."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_an_extension_of_a_volume_is_no_longer_than_what_stands_before_its_voxels(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((4, 4, 1))
    header["vox_offset"] = 384
    note = struct.pack("<4B2i", 1, 0, 0, 0, 2**30, 6)
    with gzip.open(path := tmp_path / "a.nii.gz", "wb") as file:
        file.write(header.binaryblock + note + bytes(2**25))
    with little_memory(), contextlib.suppress(UserError):
        read_header(path, PICTURES)


@pytest.mark.parametrize("claimed", [0, 5])
def test_a_zips_member_unpacks_to_what_it_says_and_no_more(claimed, tmp_path):
    with zipfile.ZipFile(path := tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(2**25))
        archive.getinfo("0.png").file_size = claimed  # in the directory, which is written last
    (place,) = list_images(path)
    with little_memory(), pytest.raises(UserError):
        load_pixels(place, PICTURES)


def test_a_zips_member_that_deflates_to_its_own_length_is_read(tmp_path):
    """One image of a hundred does."""

    def deflated(content):
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        return packer.compress(content) + packer.flush()

    noise = np.random.default_rng(0).bytes(500)
    content = next(c for n in range(200) if len(deflated(c := noise + bytes(n))) == len(c))
    with zipfile.ZipFile(path := tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", content)
    (place,) = list_images(path)
    assert place.packed == place.size
    with opened(place) as file:
        assert file.read() == content


def test_a_tiff_opens_no_other_file(tmp_path):
    """An OME-TIFF may name the files that its other channels are in."""

    def description(own, *others):
        parts = "".join(
            f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{uuid}</UUID></TiffData>'
            for c, (name, uuid) in enumerate([own, *others])
        )
        schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
        return (
            f'<?xml version="1.0"?><OME xmlns="{schema}" UUID="urn:uuid:{own[1]}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="8" SizeY="8" SizeC="{1 + len(others)}" '
            f'SizeZ="1" SizeT="1">{parts}</Pixels></Image></OME>'
        )

    ids = [f"0000000{i}-0000-0000-0000-000000000000" for i in range(2)]
    given, secret = (str(tmp_path / "given.ome.tif"), ids[0]), (str(tmp_path / "secret.ome.tif"), ids[1])
    tifffile.imwrite(given[0], np.ones((8, 8), np.uint16), description=description(given, secret), metadata=None)
    tifffile.imwrite(secret[0], np.full((8, 8), 4242, np.uint16), description=description(secret), metadata=None)
    assert 4242 in tifffile.imread(given[0])  # so it would have been
    with contextlib.suppress(UserError), contents(given[0], PICTURES) as found:
        assert 4242 not in found.load(0)


STREAMS = {
    "jpeg": imagecodecs.jpeg8_encode,
    "12-bit jpeg": lambda image: imagecodecs.jpeg8_encode(image.astype(np.uint16), bitspersample=12),
    "lossless jpeg": lambda image: imagecodecs.jpeg8_encode(image, lossless=True),
    "jpeg-ls": imagecodecs.jpegls_encode,
    "codestream": lambda image: imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True),
    "jp2": lambda image: imagecodecs.jpeg2k_encode(image, codecformat="jp2", reversible=True),
}


@given(st.sampled_from(sorted(STREAMS)), st.integers(8, 300), st.integers(8, 300), st.sampled_from([1, 3]))
@settings(max_examples=40)
def test_a_stream_says_how_large_it_is(kind, height, width, channels):
    image = np.zeros((height, width, channels), np.uint8)
    stream = STREAMS[kind](image.squeeze(2) if channels == 1 else image)
    check_size(stream, height * width * channels)
    with pytest.raises(ValueError, match=f"{width}×{height}, {channels} channels?: more than fits in it"):
        check_size(stream, height * width * channels - 1)


@given(st.sampled_from(sorted(STREAMS)), st.data())
@settings(max_examples=60)
def test_a_damaged_stream_is_refused_or_known_by_size(kind, data):
    stream = bytearray(STREAMS[kind](np.zeros((16, 16), np.uint8)))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, min(len(stream), 100) - 1))] = data.draw(st.integers(0, 255))
    stream = bytes(stream[: data.draw(st.integers(0, len(stream)))])
    with contextlib.suppress(ValueError):
        check_size(stream, 256)


def boastful_jpeg(side):
    """A JPEG of 16×16 that says it is of side × side."""
    stream = imagecodecs.jpeg8_encode(np.zeros((16, 16), np.uint8))
    return stream.replace(struct.pack(">HH", 16, 16), struct.pack(">HH", side, side), 1)


def boastful_codestream(side):
    stream = imagecodecs.jpeg2k_encode(np.zeros((16, 16), np.uint16), codecformat="j2k", reversible=True)
    return stream.replace(struct.pack(">II", 16, 16), struct.pack(">II", side, side))


def test_a_packed_image_larger_than_its_file_says_is_not_decoded(tmp_path):
    scan = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    scan.Rows = scan.Columns = 16
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 8, 8, 7, 0
    for syntax, stream in (("JPEGBaseline8Bit", boastful_jpeg), ("JPEG2000Lossless", boastful_codestream)):
        scan.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        scan.PixelData = pydicom.encaps.encapsulate([stream(16)])
        scan.save_as(tmp_path / "honest.dcm")
        with contents(tmp_path / "honest.dcm", PICTURES) as found:
            assert found.load(0).shape[:2] == (16, 16)
        scan.PixelData = pydicom.encaps.encapsulate([stream(30000)])
        scan.save_as(tmp_path / "a.dcm")
        with pytest.raises(UserError, match="is of 30000×30000, 1 channel: more than fits in it"):
            load_first(tmp_path / "a.dcm")

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.uint16), compression="jpeg2000")
    content = (tmp_path / "a.tif").read_bytes()
    assert load_first(tmp_path / "a.tif").shape[:2] == (16, 16)
    (tmp_path / "a.tif").write_bytes(content.replace(struct.pack(">II", 16, 16), struct.pack(">II", 30000, 30000)))
    with pytest.raises(UserError, match="is of 30000×30000, 1 channel: more than fits in it"):
        load_first(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 16, 16), np.uint16), compression="jpeg2000", photometric=1)
    content = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        at = content.index(b"\xff\x4f\xff\x51", file.pages[2].dataoffsets[0]) + 8  # the size of the last page
    (tmp_path / "a.tif").write_bytes(content[:at] + struct.pack(">II", 30000, 30000) + content[at + 8 :])
    with contents(tmp_path / "a.tif", PICTURES._replace(pages="images")) as found:
        assert found.load(1).shape[:2] == (16, 16)
        with pytest.raises(ValueError, match="is of 30000×30000"):
            found.load(2)
    with pytest.raises(UserError, match="is of 30000×30000"):
        load_first(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((16, 16), np.uint16), compression="jpegxl")
    with pytest.raises(UserError, match="it is packed by 50002; save it with another compression"):
        load_first(tmp_path / "b.tif")


def as_tiff(path, stream, compression, side=16, samples=1, tile=None):
    """A TIFF of uint16 whose one strip, or tile, is ``stream``."""
    places = {"tile": tile} if tile else {"rowsperstrip": side}
    tifffile.imwrite(
        path, iter([stream]), shape=(side, side, samples) if samples > 1 else (side, side), dtype=np.uint16,
        compression=compression, photometric=1, planarconfig="contig" if samples > 1 else None, **places,
    )  # fmt: skip


def test_a_packed_page_takes_no_more_memory_than_it_has_pixels(tmp_path):
    path = tmp_path / "a.tif"
    as_tiff(path, imagecodecs.zstd_encode(np.zeros(256, np.uint16)), "zstd")
    assert load_first(path).shape[:2] == (16, 16)
    as_tiff(path, imagecodecs.zstd_encode(np.zeros((16000, 16000), np.uint16)), "zstd", tile=(16000, 16000))
    with pytest.raises(UserError, match="its tiles of 16000×16000 are larger than itself"):
        load_first(path)
    as_tiff(path, imagecodecs.lerc_encode(np.zeros((16, 16), np.uint16)), "lerc")
    with pytest.raises(UserError, match="it is packed by 34887"):
        load_first(path)
    as_tiff(
        path, imagecodecs.jpeg2k_encode(np.zeros((9000, 9000), np.uint8), codecformat="j2k"), "jpeg2000", samples=200
    )
    with pytest.raises(UserError, match="is of 9000×9000, 1 channel: more than fits"):
        load_first(path)


def test_a_palette_in_a_jp2_is_refused():
    stream = imagecodecs.jpeg2k_encode(np.zeros((16, 16), np.uint8), codecformat="jp2", reversible=True)
    check_size(stream, 256)
    length = int.from_bytes(stream[stream.index(b"jp2h") - 4 :][:4], "big")
    palette = struct.pack(">I4sHB", 12 + 255, b"pclr", 1, 255) + bytes(255 - 3 + 4)
    at = stream.index(b"jp2h") - 4
    grown = struct.pack(">I", length + len(palette)) + stream[at + 4 : at + length] + palette
    with pytest.raises(ValueError, match="does not say how large it is"):
        check_size(stream[:at] + grown + stream[at + length :], 10**9)


def test_frames_beyond_those_that_a_scan_promises_are_left_alone(tmp_path):
    frames = [np.full((16, 16), value, np.uint8) for value in range(5)]
    packed = [imagecodecs.jpeg2k_encode(frame, reversible=True, codecformat="j2k") for frame in frames]
    scan = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    scan.Rows = scan.Columns = 16
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation, scan.RescaleIntercept = 8, 8, 7, 0, 0
    scan.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    scan.PixelData = pydicom.encaps.encapsulate(packed)
    scan.save_as(tmp_path / "a.dcm")
    assert (load_first(tmp_path / "a.dcm") == 0).all()
    scan.NumberOfFrames = 5
    scan.PixelData = pydicom.encaps.encapsulate([*packed[:4], boastful_codestream(30000)])
    scan.save_as(tmp_path / "a.dcm")
    with contents(tmp_path / "a.dcm", PICTURES._replace(pages="images")) as found:
        assert (found.load(3) == 3).all()
        with pytest.raises(ValueError, match="more than fits"):
            found.load(4)
    with pytest.raises(UserError, match="more than fits"):
        load_first(tmp_path / "a.dcm")


def test_a_volume_that_is_read_whole_for_one_slice_is_bounded(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((64, 300, 300), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    ways = PICTURES._replace(picture=False, limit=0.001)
    with contents(tmp_path / "a.nii.gz", ways) as found:
        assert found.load(0).shape[0] == 300
    with (
        pytest.raises(UserError, match=r"for one slice all of it is read, 0\.\d+ GiB, and --decoded_limit is 0\.001"),
        contents(tmp_path / "a.nii.gz", ways._replace(slice_axis=0)),
    ):
        pass


@pytest.mark.parametrize("picture", [True, False])
def test_a_thin_strip_is_not_scaled_beyond_the_limit(tmp_path, picture):
    Image.new("RGB", (6000, 1)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((1, 6000, 3), np.uint8))
    wide = lambda size: PREPROCESS["scale_shorter_and_crop"](size, (100, 100))  # noqa: E731
    domain = PICTURES._replace(picture=picture, limit=0.1)
    with pytest.raises(UserError, match=r"a\.\w+ .*resized to 600000×100 it would take 0\.\d+ GiB"):
        load_pixels(tmp_path / ("a.png" if picture else "a.npy"), domain, wide)


def load_first(path):
    with contents(path, PICTURES) as found:
        return found.load(0)


@pytest.mark.parametrize("row", ['"self": 1', '"G": 1' + 400 * "0"], ids=["self", "huge"])
def test_a_line_of_a_log_that_is_not_ours_does_no_harm(row, tmp_path):
    names = [f"term {letter}" for letter in "gfedcba"]
    ours = {"step": 2, "epoch": 0, "G": 1.5} | dict.fromkeys(names, 0.5)
    (tmp_path / "scalars.jsonl").write_text(f'{{"step": 1, "epoch": 0, {row}}}\n{json.dumps(ours)}\n')
    curves = Scalars(tmp_path, False, 9).curves
    assert curves["G"].points == [[2, 1.5]]
    assert [name for name in curves if name != "self"] == ["G", *names]  # in the order in which they are logged


def test_domains_that_their_networks_do_not_fit_are_refused(tmp_path, trained):
    state = saved(trained)
    for change in ({"channels": 1}, {"dtype": "float32"}):
        domains = {**state["domains"], "A": {**state["domains"]["A"], **change}}
        checkpoints.write(tmp_path / "epoch_1.pth", {**state, "domains": domains})
        with pytest.raises(UserError, match="networks for 3|does not say what its images are"):
            domains_of(checkpoints.load(tmp_path, "latest")[1])


def test_a_history_of_other_channels_is_left_out_and_a_negative_average_refused(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    path = workplace / "saved_models/tiny/epoch_1.pth"
    state = checkpoints.load_file(path)
    training = state["training"]
    own = training["processes"][0]
    gray = {**own["buffer_A"], "images": [torch.zeros(1, 16, 20)] * 60}
    forged = {**training, "processes": [{**own, "buffer_A": gray}]}
    checkpoints.write(path, {**state, "training": forged})
    assert run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--n_epochs=2").code == 0
    state = checkpoints.load_file(workplace / "saved_models/tiny/epoch_2.pth")
    average = {**state["training"]["average"], "n_averaged": torch.tensor(-10)}
    checkpoints.write(path.with_name("epoch_3.pth"), {**state, "training": {**state["training"], "average": average}})
    line = refused("cycle_gan", "--dataset_name=tiny", "--epoch=3", "--n_epochs=9")
    assert "of a negative number of steps" in line
