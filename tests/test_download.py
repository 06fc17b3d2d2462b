"""Known data sets are fetched from a server on this machine: whole, resumed, and never outside their folder."""

import http.server
import io
import threading
import zipfile

import pytest
from conftest import TINY, noise_image

from runtime import download


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


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.requests, server.ranges, server.break_after = GOOD, [], True, 10**9
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


FACADES = [*TINY, "--dataset_name", "facades", "--n_epochs", 1]


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_known_set_is_announced_fetched_and_trained_on(server, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("cycle_gan", *FACADES, "--dataset_url", server.url)
    assert result.code == 0, result.err
    assert f"fetching {server.url}/facades.zip ({len(GOOD) / 1e6:.1f} MB)" in result.out
    assert contents(tmp_path / "datasets") == sorted(
        ["facades"] + [f"facades/{s}" for s in ("trainA", "trainB", "testA", "testB")]
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
    server.shutdown()
    assert not (tmp_path / "datasets" / "facades").exists()
