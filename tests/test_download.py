"""Known data sets are fetched from a server on this machine: whole, resumed, and never outside their folder."""

import contextlib
import http.server
import io
import socketserver
import subprocess
import sys
import threading
import zipfile

import pytest
from conftest import ROOT, TINY, noise_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import download
from runtime.errors import UserError
from runtime.lock import FolderLock


def archive(names):
    """A zip with a small image under each name."""
    image = io.BytesIO()
    noise_image(0).save(image, "PNG")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, image.getvalue())
    return content.getvalue()


GOOD = archive([f"facades/{side}/{i}.png" for side in ("trainA", "trainB", "testA", "testB") for i in range(2)])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if self.path != "/facades.zip":
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : start + server.break_after])

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def good_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.requests, server.ranges, server.break_after = GOOD, [], True, 10**9
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server():
    with good_server() as server:
        yield server


FACADES = [*TINY, "--dataset_name", "facades", "--n_epochs", 1]


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_of_two_processes_one_fetches(server, tmp_path):
    """As on the machines of a cluster that share a folder: both would append to one file."""
    options = dict(dataset_name="facades", dataset_dir=str(tmp_path), download=True, dataset_url=server.url)
    find = (
        f"from argparse import Namespace; from runtime import download; download.find_dataset(Namespace(**{options}))"
    )
    with FolderLock(tmp_path / "facades"):
        command = [sys.executable, "-u", "-c", find]
        processes = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in "12"
        ]
        for process in processes:
            assert b"in use by process" in process.stdout.readline()
        assert server.requests == []
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert len(server.requests) == 1 and (tmp_path / "facades/trainA").is_dir()
    for process in processes:
        process.stdout.close()


def test_a_known_set_is_announced_fetched_and_trained_on(server, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("cycle_gan", *FACADES, "--dataset_url", server.url)
    assert result.code == 0, result.err
    assert f"fetching {server.url}/facades.zip ({len(GOOD) / 1e6:.1f} MB)" in result.out
    assert contents(tmp_path / "datasets") == sorted(
        ["facades", "facades.lock"] + [f"facades/{s}" for s in ("trainA", "trainB", "testA", "testB")]
        + [f"facades/{s}/{i}.png" for s in ("trainA", "trainB", "testA", "testB") for i in (0, 1)]
    )  # fmt: skip
    assert run("test", "--dataset_name", "facades", "--n_cpu", 0).code == 0
    assert len(server.requests) == 1  # what is there is not fetched again


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_resumes(server, tmp_path, ranges):
    server.ranges = ranges
    server.break_after = len(GOOD) // 3 + 1
    part = tmp_path / "facades.zip.part"
    if ranges:
        download.fetch("facades", tmp_path, server.url)
        starts = [0 if wanted is None else int(wanted[6:-1]) for _, wanted in server.requests]
        assert starts == [0, server.break_after, 2 * server.break_after]
    else:  # a server that cannot resume starts over, and what breaks each time ends with an error
        with pytest.raises(download.UserError, match="could not be fetched in 5 attempts"):
            download.fetch("facades", tmp_path, server.url)
        assert part.exists() and contents(tmp_path) == ["facades.zip.part"]
        server.break_after = 10**9
        download.fetch("facades", tmp_path, server.url)
    assert not part.exists() and len(list((tmp_path / "facades" / "trainA").iterdir())) == 2


def test_a_download_that_was_whole_but_not_unpacked_is_not_repeated(server, tmp_path):
    (tmp_path / "facades.zip.part").write_bytes(GOOD)
    download.fetch("facades", tmp_path, server.url)
    assert (tmp_path / "facades" / "trainA").is_dir()


def test_a_damaged_archive_is_removed_and_leaves_no_set(server, tmp_path):
    middle = len(GOOD) // 2
    server.content = GOOD[:middle] + bytes([GOOD[middle] ^ 255]) + GOOD[middle + 1 :]
    with pytest.raises(download.UserError, match="was damaged on the way"):
        download.fetch("facades", tmp_path, server.url)
    assert contents(tmp_path) == []


def test_an_archive_may_name_the_folder_that_it_was_packed_in(server, tmp_path):
    server.content = archive(["./", "facades/trainA/0.png"])
    download.fetch("facades", tmp_path, server.url)
    assert (tmp_path / "facades/trainA/0.png").is_file()


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "facades/../../outside.png", "..\\outside.png"])
def test_an_archive_cannot_write_outside(server, tmp_path, name):
    server.content = archive(["facades/trainA/0.png", name])
    root = tmp_path / "deep" / "datasets"
    with pytest.raises(download.UserError, match="not safe"):
        download.fetch("facades", root, server.url)
    assert contents(tmp_path) == ["deep", "deep/datasets"]  # and the next start can succeed


def test_refusals(server, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--no_download forbids" in refused("cycle_gan", *FACADES, "--no_download")
    assert server.requests == []
    assert "answers 404" in refused("cycle_gan", *TINY, "--dataset_name=maps", f"--dataset_url={server.url}")
    line = refused("cycle_gan", "--dataset_name", "horses")
    assert "datasets/horses/{trainA,trainB,testA,testB}" in line and "horse2zebra" in line
    assert "python datasets/earth.py topo2relief" in refused("cycle_gan", "--dataset_name", "topo2relief")
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.shutdown(), server.server_close()
    assert "in 1 attempt" in refused("cycle_gan", *TINY, "--dataset_name=facades", f"--dataset_url={server.url}")
    assert not (tmp_path / "datasets" / "facades").exists()


# ---- whatever a server does, it ends in a data set or in one line, and does not spoil the next start ----

STATUS = st.sampled_from([b"200 OK", b"206 Partial Content", b"204 No Content", b"404 Not Found", b"416 No",
                          b"429 Wait", b"503 Later", b"302 Found", b"999 \xff", b"0", b"x", b""])  # fmt: skip
BODIES = {"good": GOOD, "half": GOOD[:500], "empty": b"", "junk": b"junk", "longer": GOOD + b"junk"}
HEADER = st.sampled_from([
    b"Content-Length: -1", b"Content-Length: " + b"9" * 30, b"Content-Length: x", b"Content-Length: 5",
    b"Content-Range: bytes 7-9/10", b"Content-Range: bytes */3", b"Transfer-Encoding: chunked",
    b"Location: file:///etc/passwd", b"Location: ftp://127.0.0.1:1/x", b"Location: http://[", b"Location: /facades.zip",
    b"Location: http://127.0.0.1:1/", b"X: " + b"x" * 70000, b"no colon", b"\xff\x00: \xff",
])  # fmt: skip


@contextlib.contextmanager
def saying(answer):
    """The address of a server that says the bytes ``answer`` to whatever it is asked."""

    class Talker(socketserver.StreamRequestHandler):
        def handle(self):
            self.request.recv(1 << 16)
            with contextlib.suppress(OSError):
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talker) as talker:
        thread = threading.Thread(target=talker.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{talker.server_address[1]}"
        talker.shutdown()
        thread.join()


@given(STATUS, st.lists(HEADER, max_size=2), st.sampled_from(sorted(BODIES)),
       st.integers(0, 200) | st.none())  # fmt: skip
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_an_odd_server_spoils_nothing(tmp_path_factory, status, headers, body, cut):
    body = BODIES[body]
    place = tmp_path_factory.mktemp("odd")
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers, b"Connection: close", b"", b""]
    with pytest.MonkeyPatch.context() as patch, saying((b"\r\n".join(lines) + body)[:cut]) as url:
        for name, value in (("PAUSE", 0), ("ATTEMPTS", 2), ("TIMEOUT", 2), ("ANSWER", 4)):
            patch.setattr(download, name, value)
        with contextlib.suppress(UserError):
            download.fetch("facades", place, url)
    if not (place / "facades").exists():
        with good_server() as server:
            try:
                download.fetch("facades", place, server.url)
            except UserError:  # what the first left could have been the beginning of this one
                download.fetch("facades", place, server.url)
    assert [path.name for path in place.iterdir()] == ["facades"]
    assert len(list((place / "facades").rglob("*.png"))) == 8
