"""The app: what it translates, in a real browser; and what it does not give away."""

import base64
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browser import SCREENSHOTS, chromium, free_port, until
from conftest import ROOT, TINY, make_dataset, noise_image, run_process
from PIL import Image
from torch import nn

from inference.app import Live, Models, build, size_in, unnamed
from inference.visits import ShortMessages, guards
from models import SelfAttention
from readers.files import reading
from runtime.errors import UserError
from translators import load

gradio = pytest.importorskip("gradio")
ImageData = gradio.components.image.ImageData


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with a trained model and its translations."""
    place = tmp_path_factory.mktemp("app")
    make_dataset(place / "datasets/tiny")
    translation = ["--dataset_name=tiny", "--n_cpu=0", "--amp=off"]  # the app's precision
    for script, flags in (("cycle_gan.py", [*TINY, "--n_epochs=2"]), ("test.py", translation)):
        result = run_process(script, *flags, cwd=place)
        assert result.returncode == 0, result.stderr
    return place


@pytest.fixture(scope="module")
def app(trained):
    """The app as a user starts it: its address, and what it printed."""
    port = free_port()
    saves = ROOT / "saved_models" if SCREENSHOTS else trained / "saved_models"
    command = [sys.executable, ROOT / "app.py", f"--port={port}", "--max_upload=1", f"--checkpoint_dir={saves}"]
    log = open(trained / "app.log", "w+")  # noqa: SIM115 (closed below)
    process = subprocess.Popen([*command, "--device=cpu"], cwd=trained, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            if process.poll() is not None or answer(address) == 200:
                break
            time.sleep(0.1)
        assert process.poll() is None, (trained / "app.log").read_text()
        yield SimpleNamespace(address=address, port=port, log=trained / "app.log")
    finally:
        process.terminate()
        process.wait()
        log.close()


def answer(address, data=None, headers=None):
    """The status that a request gets; None where nothing listens."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers or {}), timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_in_a_browser(app, trained, tmp_path):
    with chromium(tmp_path) as browser:
        browser.set_window_size(1200, 800)
        browser.get(app.address)
        path = ROOT / "docs/demo/examples/A1.png" if SCREENSHOTS else trained / "datasets/tiny/testA/1.png"
        until(browser, lambda: browser.find_elements("css selector", "#image input[type=file]"))[0].send_keys(str(path))
        shown = until(browser, lambda: browser.find_elements("css selector", "#reconstruction img"))
        shown = browser.find_elements("css selector", "#translation img") + shown
        assert len(shown) == 2
        if SCREENSHOTS:
            time.sleep(2)  # the pictures fade in
            browser.save_screenshot(f"{SCREENSHOTS}/sharing_app.png")
            return
        with urllib.request.urlopen(shown[0].get_attribute("src")) as response:
            translation = np.asarray(Image.open(response).convert("RGB")).astype(int)
        expected = np.asarray(Image.open(trained / "results/tiny/epoch_2/AtoB/1.png")).astype(int)
        assert np.abs(translation - expected).max() <= 1


def test_a_folder_in_a_browser(app, trained, tmp_path):
    with chromium(tmp_path) as browser:
        browser.get(app.address)
        tab = "//button[@role='tab'][contains(., 'Folder')]"
        until(browser, lambda: browser.find_elements("xpath", tab))[0].click()
        chooser = until(browser, lambda: browser.find_elements("css selector", "#files input[type=file]"))[0]
        chooser.send_keys(str(trained / "datasets/tiny/testA"))
        count = 2 * len(list((trained / "datasets/tiny/testA").iterdir()))
        shown = "#gallery .thumbnail-item img"
        until(browser, lambda: len(browser.find_elements("css selector", shown)) == count)
        assert "0.png, translated" in browser.find_element("css selector", "#gallery").text


def test_the_camera_in_a_browser(app, tmp_path):
    """Chromium's made-up camera: its picture is translated."""
    with chromium(tmp_path) as browser:
        browser.get(app.address)

        def click(words):
            button = f"//*[@id='image']//button[@aria-label='{words}' or contains(., '{words}')]"
            until(browser, lambda: browser.find_elements("xpath", button))[0].click()

        def taken():
            """Once more, while the camera has not started: then a click does nothing."""
            capture = "#image button[aria-label='capture photo']"
            browser.execute_script("document.querySelector(arguments[0])?.click()", capture)
            return browser.find_elements("css selector", "#reconstruction img")

        click("Capture from camera")
        click("Click to Access Webcam")
        until(browser, taken)


def test_a_live_camera_in_a_browser(app, tmp_path):
    """Its frames are translated one after the other."""
    with chromium(tmp_path) as browser:
        browser.get(app.address)

        def click(xpath):
            until(browser, lambda: browser.find_elements("xpath", xpath))[0].click()

        def shown():
            images = browser.find_elements("css selector", "#live_translation img")
            return {image.get_attribute("src") for image in images}

        click("//button[@role='tab'][contains(., 'Live')]")
        click("//*[@id='live']//button[contains(., 'Click to Access Webcam')]")
        click("//*[@id='live']//button[contains(., 'Record')]")
        seen = set()
        until(browser, lambda: seen.update(shown()) or len(seen) > 3)


def saved(path, image):
    image.save(path)
    return path


def test_a_range_of_pictures_is_that_of_the_training(trained, monkeypatch, tmp_path):
    """As --range_A 0 100 --range_B 0 200: what is white in A is half of that in B."""
    models = Models(trained / "saved_models", "cpu")
    translators, domains = models.load("tiny", "1")
    ranges = {"A": domains["A"]._replace(high=100.0), "B": domains["B"]._replace(high=200.0)}
    monkeypatch.setattr(models, "load", lambda run, epoch: (translators, ranges))
    monkeypatch.setattr(translators, "cycle", lambda side, x: (None, x, x))
    path = saved(tmp_path / "a.png", Image.new("RGB", (24, 20), (50, 50, 50)))
    images = models.translate("tiny", "1", "AtoB", path)
    assert [np.unique(np.asarray(image)).tolist() for image in images] == [[50], [100], [50]]


def test_one_image_is_translated_at_a_time(trained, tmp_path, monkeypatch):
    models, film = Models(trained / "saved_models", "cpu"), Live()
    path = saved(tmp_path / "a.png", noise_image(0, 24, 20))
    translators, _ = models.load("tiny", "1")
    found = []
    for network in (translators.G_AB, translators.G_BA):
        network.register_forward_hook(lambda *_: found.append(models.one_at_a_time.locked()))
    models.translate("tiny", "1", "AtoB", path)
    film.translate(models, ("tiny", "1", "AtoB"), path)
    assert len(found) >= 3 and all(found) and not models.one_at_a_time.locked()


def test_live_frames_are_those_of_a_clip(trained, tmp_path):
    models, film = Models(trained / "saved_models", "cpu"), Live()
    frames = [noise_image(i, 24, 20) for i in range(3)]
    files = [saved(tmp_path / f"{i}.png", frame) for i, frame in enumerate(frames)]
    for choice in (("tiny", "2", "AtoB"), ("tiny", "1", "BtoA"), ("tiny", "2", "AtoB")):
        made = [np.asarray(film.translate(models, choice, file)) for file in files]
        translate = load(trained / "saved_models/tiny", int(choice[1]))
        expected = [np.asarray(picture) for picture in translate.translate_frames(frames, choice[2])]
        assert all((one == other).all() for one, other in zip(made, expected, strict=True))
    with pytest.raises(UserError, match="too many"):
        film.translate(models, choice, saved(tmp_path / "long.png", noise_image(0, 1, 2**19 + 1)))
    (tmp_path / "frame.webp").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n")
    with pytest.raises(UserError, match="not an image that can be read"):
        film.translate(models, choice, tmp_path / "frame.webp")
    assert film.translate(models, choice, files[0]).size == frames[0].size


def test_a_camera_frame_is_not_decoded_by_the_page(trained):
    """Gradio would open it by any of Pillow's formats, some of which start programs."""
    page = build(Models(trained / "saved_models", "cpu"))
    given = [block for block in page.blocks.values() if getattr(block, "elem_id", None) in ("image", "live")]
    after = [step["inputs"] for step in page.config["dependencies"] if step["trigger_after"] is not None]
    assert [given[0]._id in inputs for inputs in after] == [True]  # another run's translation is shown, whatever epoch
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    message = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    for block in given:
        kept = block.preprocess(ImageData(url=message))  # a frame, which comes inside the message
        assert Path(kept).read_bytes() == content and kept in block.temp_files
        assert (
            block.preprocess(ImageData(path="bad.png", orig_name="bad.png")) == "bad.png"
        )  # not opened: none is there
        assert block.preprocess(None) is None
        for junk in ("data:image/png;base64,AAA", "data:image/png;base64,A", "data:,ä"):
            with pytest.raises(gradio.Error, match="not an image that can be read"):
                block.preprocess(ImageData(url=junk))
    with pytest.raises(UserError, match="not an image that can be read"):
        Models(trained / "saved_models", "cpu").translate("tiny", "2", "AtoB", kept)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
        ({"Host": "evil.example:{port}"}, 403),  # as after DNS rebinding
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_only_its_own_page_may_ask(app, headers, status):
    headers = {name: value.format(port=app.port) for name, value in headers.items()}
    assert answer(f"{app.address}/config", headers=headers) == status
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n0\r\n--x--\r\n'
    assert answer(f"{app.address}/gradio_api/upload", body, headers | form) == status


def test_any_name_is_right_where_anyone_may_come():
    for host, share in (("0.0.0.0", False), ("::", False), ("127.0.0.1", True)):
        assert [guard.cls for guard in guards(host, share, 1)] == [ShortMessages]
    guard, _ = guards("fe80::1", False, 1)
    assert {"[fe80::1]", "localhost", "127.0.0.1"} <= guard.kwargs["names"]
    guard, _ = guards("DESKTOP-ABC", False, 1)
    assert {"desktop-abc", socket.gethostname().lower()} <= guard.kwargs["names"]


def test_nothing_of_the_server_can_be_read(app, trained):
    for path in ("/etc/passwd", trained / "saved_models/tiny/runs.jsonl", trained / "app.log", ROOT / "options.py"):
        assert path == "/etc/passwd" or path.exists()
        for way in (f"file={path}", f"file=../{path}", f"file=saved_models/tiny/../../{path}"):
            assert answer(f"{app.address}/gradio_api/{way}") in (403, 404)


def test_large_files_are_refused(app):
    def upload(size):
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        body = head + bytes(size) + b"\r\n--x--\r\n"
        return answer(f"{app.address}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})

    assert upload(1000) == 200 and upload(3_000_000) == 413
    place, json = f"{app.address}/gradio_api/call/one", {"Content-Type": "application/json"}
    image = "data:image/png;base64," + "A" * 3_000_000
    message = b'{"data": ["tiny", "2", "AtoB", {"url": "%s", "meta": {"_type": "gradio.FileData"}}]}' % image.encode()
    assert answer(place, message, json) in (413, None)  # an image may also stand in a message; None: while it is sent
    assert answer(place, iter([message]), json) != 200  # in parts, without its length
    assert answer(place, message.replace(b"A" * 2_990_000, b""), json) == 200


def test_it_listens_here_alone(app):
    if not (table := Path("/proc/net/tcp")).exists():
        pytest.skip("needs Linux, which tells who listens where")
    addresses = [line.split()[1].split(":") for line in table.read_text().splitlines()[1:]]
    assert {host for host, port in addresses if int(port, 16) == app.port} == {"0100007F"}
    assert ".live" not in app.log.read_text()  # as an address made by --share ends


def test_only_runs_and_epochs_that_are_there(trained, tmp_path):
    models = Models(trained / "saved_models", "cpu")
    assert models.runs() == ["tiny"] and models.epochs("tiny") == ["2", "1"]
    image = trained / "datasets/tiny/testA/0.png"
    assert [shown.size for shown in models.translate("tiny", "1", "BtoA", image)] == [(23, 18)] * 3
    for run, epoch in (("../saved_models/tiny", "2"), ("tiny", "3"), ("tiny", "../2"), ("..", "best")):
        with pytest.raises(UserError, match="there is no epoch"):
            models.translate(run, epoch, "AtoB", image)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="^this file is not an image that can be read$"):
        models.translate("tiny", "2", "AtoB", tmp_path / "text.png")
    noise_image(0, 1, 2**21 + 1).save(tmp_path / "long.png")
    with pytest.raises(UserError, match="test.py --tile"):
        models.translate("tiny", "2", "AtoB", tmp_path / "long.png")


@pytest.mark.parametrize(("network", "most"), [(SelfAttention(8), 2**19), (nn.Identity(), 2**21)])
def test_how_large_an_image_may_be_depends_on_attention(tmp_path, network, most):
    assert size_in(saved(tmp_path / "largest.png", Image.new("L", (most, 1))), network) == (1, most)
    with pytest.raises(UserError, match="test.py --tile"):
        size_in(saved(tmp_path / "larger.png", Image.new("L", (most + 1, 1))), network)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "too many"), ValueError("bad")], ids=repr)
def test_no_visitor_is_told_a_path(error):
    with pytest.raises(UserError) as raised, unnamed(), reading("/srv/uploads/a.png"):
        raise error
    assert "/srv" not in str(raised.value)


def test_ctrl_c_ends_the_app_in_the_middle_of_a_translation(trained):
    client, port = pytest.importorskip("gradio_client"), free_port()
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ["app.py", "--port={port}"]
import app, torch
def translate(*given):
    print("begun", flush=True)
    while True:
        torch.rand(400, 400) @ torch.rand(400, 400)
app.Models.translate = translate
app.main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=trained, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(1200):
            if process.poll() is not None or answer(address) == 200:
                break
            time.sleep(0.1)
        image = client.handle_file(trained / "datasets/tiny/testA/0.png")
        client.Client(address, verbose=False).submit("tiny", "2", "AtoB", image, api_name="/one")
        while process.stdout.readline() != "begun\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
        assert process.returncode == 0 and "terminate called" not in err, err
    finally:
        process.kill()


def test_a_run_that_is_gone_since_the_start_is_no_longer_offered(trained, tmp_path):
    models = Models(shutil.copytree(trained / "saved_models", tmp_path / "saved_models"), "cpu")
    refresh = next(each.fn for each in build(models).fns.values() if each.fn and each.fn.__name__ == "refresh")
    assert [dropdown.value for dropdown in refresh()] == ["tiny", "2"]
    shutil.rmtree(tmp_path / "saved_models/tiny")
    assert [dropdown.value for dropdown in refresh()] == [None, None]


def test_a_folder_is_translated_but_for_what_is_no_image(trained, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no png")
    paths = [str(tmp_path / "bad.png"), str(trained / "datasets/tiny/testA/0.png")]
    page = build(Models(trained / "saved_models", "cpu"))
    (many,) = (function.fn for function in page.fns.values() if function.name == "many")
    with pytest.warns(UserWarning, match=r"bad.png: this file is not an image that can be read"):
        shown = many("tiny", "2", "AtoB", paths)
    assert [name for _, name in shown] == ["0.png", "0.png, translated"]


def test_without_checkpoints(workplace, refused):
    assert "train first" in refused("app")


def test_a_checkpoint_that_is_written_anew_is_loaded_anew(trained):
    models = Models(trained / "saved_models", "cpu")
    first = models.load("tiny", "2")
    assert models.load("tiny", "2") is first
    path = trained / "saved_models/tiny/epoch_2.pth"
    path.write_bytes(path.read_bytes())
    os.utime(path, (time.time() + 9, time.time() + 9))
    assert models.load("tiny", "2") is not first
