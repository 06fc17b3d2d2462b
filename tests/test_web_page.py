"""The page that export.py --web writes, in a real browser: images in, translations out, and what it says if not.

Most tests put a stand-in into the place of onnxruntime-web, which takes negatives; one has the real thing.
"""

import base64
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from browser import ORT, SCREENSHOTS, chromium, drop, served, until
from conftest import ROOT, TINY, noise_image
from PIL import Image

from inference import web_page
from options import parse_export, parse_training
from runtime.errors import UserError
from translators import Translators

STAND_IN = """
export const env = { wasm: {} };
export class Tensor { constructor(type, data, dims) { Object.assign(this, { data, dims }); } }
export class InferenceSession {
  static async create() { return new InferenceSession(); }
  async run({ image: { data, dims } }) {
    if (dims[1] * dims[2] > MOST) throw new RangeError("Array buffer allocation failed");
    return { translation: { data: data.map(value => 255 - value) } };
  }
}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    with chromium(downloads) as driver:
        driver.downloads = downloads
        yield driver


@pytest.fixture
def page(tmp_path, browser):
    """``page(flags)``: opens a page with models of that kind, run by the stand-in; ``asked``: paths it asked for."""
    with served(tmp_path) as (address, asked):

        def open_page(*flags, most=10**9, ort=True):
            translators = Translators(parse_training(["--ngf=4", "--recipe=lsgan", *flags])[0])
            models = {direction: (f"{direction}.onnx", b"") for direction in ("AtoB", "BtoA")}
            (tmp_path / "ort").mkdir()
            for name in web_page.RUNTIME if ort else ():
                (tmp_path / "ort" / name).write_text(STAND_IN.replace("MOST", str(most)))
            options = parse_export(["--web", "--dataset_name=stand-in", f"--ort={tmp_path / 'ort'}"])
            web_page.write(tmp_path / "web", models, translators, options)
            browser.get(f"{address}/web/")
            until(browser, lambda: status(browser) == "")
            return SimpleNamespace(asked=asked, address=address, folder=tmp_path / "web")

        yield open_page


def status(browser):
    return browser.find_element("id", "status").text


def finished(browser):
    until(browser, lambda: "translated in" in status(browser))


def pixels(browser, canvas):
    url = browser.execute_script(f"return document.getElementById('{canvas}').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(int)


def put(browser, path):
    """Drop a file on the page, whose status begins anew."""
    browser.execute_script("document.getElementById('status').textContent = ''")
    drop(browser, "#drop", path)


def saved(browser, name):
    browser.find_element("id", "save").click()
    path = browser.downloads / name
    until(browser, path.exists)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_dropped_image_is_translated_and_saved(page, browser, tmp_path):
    opened = page()
    image = noise_image(0)
    image.save(tmp_path / "noise.png")
    put(browser, tmp_path / "noise.png")
    finished(browser)
    assert (pixels(browser, "before") == np.asarray(image)).all()
    assert (saved(browser, "noise_AtoB.png") == 255 - np.asarray(image)).all()
    addresses = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(address.startswith((opened.address, "blob:", "data:")) for address in addresses)
    assert not any("noise" in path for path in opened.asked)
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_the_other_ways_in(page, browser, tmp_path):
    page()
    noise_image(1, 20, 30).save(tmp_path / "chosen.png")
    browser.find_element("id", "file").send_keys(str(tmp_path / "chosen.png"))
    until(browser, lambda: "30 × 20, translated in" in status(browser))
    browser.execute_script("""
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [12, 34];
        canvas.toBlob(blob => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([blob], "image.png", { type: "image/png" }));
          dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        });""")
    until(browser, lambda: "12 × 34, translated in" in status(browser))
    assert (pixels(browser, "before") == 255).all()  # what is transparent shows white
    camera = browser.find_element("id", "camera")
    camera.click()
    until(browser, lambda: camera.text == "Take the picture")
    until(browser, lambda: browser.execute_script("return document.getElementById('video').videoWidth"))
    camera.click()
    until(browser, lambda: "640 × 480, translated in" in status(browser))
    assert camera.text == "Camera" and not browser.find_element("id", "video").is_displayed()


def test_before_and_after(page, browser, tmp_path):
    page()
    put(browser, ROOT / "docs/demo.png")
    finished(browser)
    slider = browser.find_element("id", "slider")
    browser.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('input'))", slider)
    style = "return getComputedStyle(document.getElementById('after')).clipPath"
    assert browser.execute_script(style) == "inset(0px 0px 0px 0%)"


def test_tiles_of_a_pixelwise_model_blend_to_the_whole(page, browser, tmp_path):
    page("--channels=1")
    image = noise_image(2, 700, 1100)
    image.save(tmp_path / "large.png")
    put(browser, tmp_path / "large.png")
    finished(browser)
    expected = 255 - np.array(image.convert("L"), dtype=int)
    assert np.abs(pixels(browser, "after") - expected[..., None]).max() <= 1


def test_short_memory(page, browser, tmp_path):
    """First smaller tiles, then a message."""
    page(most=128 * 128)
    noise_image(3, 300, 400).save(tmp_path / "large.png")
    put(browser, tmp_path / "large.png")
    finished(browser)
    assert (pixels(browser, "after") == 255 - pixels(browser, "before")).all()


def test_too_short_memory(page, browser, tmp_path):
    page(most=100)
    noise_image(3, 300, 400).save(tmp_path / "large.png")
    put(browser, tmp_path / "large.png")
    until(browser, lambda: "too little memory for 400 × 300" in status(browser))
    noise_image(3, 8, 8).save(tmp_path / "small.png")
    put(browser, tmp_path / "small.png")
    until(browser, lambda: "8 × 8, translated in" in status(browser))


def test_what_is_no_image(page, browser, tmp_path):
    page()
    (tmp_path / "text.png").write_text("no image")
    put(browser, tmp_path / "text.png")
    until(browser, lambda: status(browser) == "text.png is not an image that this browser can read")


def test_without_the_runtime(page, browser, tmp_path, capsys):
    page(ort=False)
    assert "npm install onnxruntime-web" in capsys.readouterr().err
    put(browser, ROOT / "docs/demo.png")
    until(browser, lambda: "onnxruntime-web is missing" in status(browser))


def test_files_of_the_page(workplace, capsys):
    """An address for the runtime is kept as it is; examples are a choice, and go when they are no longer wanted."""
    translators = Translators(parse_training(["--ngf=4", "--recipe=lsgan"])[0])
    folder = workplace / "web"

    def write(*flags):
        options = parse_export(["--dataset_name=tiny", "--web", "--ort=https://example.org/ort", *flags])
        web_page.write(folder, {"AtoB": ("AtoB.onnx", b"")}, translators, options)
        about = json.loads((folder / "models.json").read_text())
        assert about["ort"] == "https://example.org/ort/" and not (folder / "ort").exists()
        return about["models"][0]["examples"]

    assert write("--examples=2") == ["examples/A0.png", "examples/A1.png"]
    assert len(list((folder / "examples").iterdir())) == 2 and "fewer" not in capsys.readouterr().out
    assert len(write("--examples=300")) == 3
    assert "has fewer test images than --examples 300: the page gets all 3" in capsys.readouterr().out
    assert len(write("--examples=2")) == 2
    (folder / "examples/A7.png").write_bytes(b"somebody's own")
    assert write() == [] and [path.name for path in (folder / "examples").iterdir()] == ["A7.png"]
    with pytest.raises(UserError, match="AtoB.onnx is there already"):
        (folder / ".written.json").unlink()
        write()


def test_a_page_keeps_the_runtime_that_it_has(workplace, capsys):
    translators = Translators(parse_training(["--ngf=4", "--recipe=lsgan"])[0])
    ort, folder = workplace / "ort", workplace / "web"
    ort.mkdir()
    for name in web_page.RUNTIME:
        (ort / name).write_text(name)
    for _ in range(2):
        options = parse_export(["--dataset_name=tiny", "--web", f"--ort={ort}"])
        web_page.write(folder, {"AtoB": ("AtoB.onnx", b"")}, translators, options)
        assert [(folder / "ort" / name).read_text() for name in web_page.RUNTIME] == list(web_page.RUNTIME)
        assert "does not work" not in "".join(capsys.readouterr())
        shutil.rmtree(ort, ignore_errors=True)  # the second time it is gone


def real_runtime():
    if not (ORT / web_page.RUNTIME[0]).is_file():
        pytest.skip("needs onnxruntime-web: npm install onnxruntime-web, or ORT_WEB for its folder")
    return ORT


@pytest.mark.parametrize("flags", [["--recipe=attention"], ["--recipe=notebook", "--img_height=16", "--img_width=16"]])
def test_the_browser_translates_as_test_py_does(flags, workplace, run, browser):
    size = ["--img_height=32", "--img_width=32"]
    assert run("cycle_gan", *TINY, "--n_epochs=1", *flags, *size, "--dis_net=attention", "--norm=instance").code == 0
    assert run("test", "--dataset_name=tiny", "--n_cpu=0", "--amp=off").code == 0
    assert run("export", "--dataset_name=tiny", "--web", f"--ort={real_runtime()}").code == 0
    with served(workplace / "exports/tiny/web") as (address, _):
        for direction in ("AtoB", "BtoA"):
            browser.get(address)
            until(browser, lambda: status(browser) == "")
            browser.find_element("id", "direction").send_keys(direction.replace("to", " to "))
            put(browser, workplace / f"datasets/tiny/test{direction[0]}/1.png")
            finished(browser)
            expected = np.asarray(Image.open(f"results/tiny/epoch_1/{direction}/1.png")).astype(int)
            assert np.abs(saved(browser, f"1_{direction}.png") - expected).max() <= 2
            (browser.downloads / f"1_{direction}.png").unlink()


def test_the_demo_of_the_documents(tmp_path, browser):
    """It is small, whole but for the runtime, made of the present page, and works."""
    demo = tmp_path / "demo"
    shutil.copytree(ROOT / "docs/demo", demo)
    assert sum(path.stat().st_size for path in demo.rglob("*") if path.is_file()) < 3e6
    for file in web_page.SOURCE.iterdir():
        assert (demo / file.name).read_bytes() == file.read_bytes()
    shutil.copytree(real_runtime(), demo / "ort", ignore=lambda folder, names: set(names) - set(web_page.RUNTIME))
    with served(demo) as (address, _):
        browser.get(address)
        until(browser, lambda: status(browser) == "")
        until(browser, lambda: browser.find_elements("css selector", "#examples button"))[2].click()
        finished(browser)
        assert np.abs(pixels(browser, "after") - pixels(browser, "before")).mean() > 10
        if SCREENSHOTS:
            browser.save_screenshot(f"{SCREENSHOTS}/sharing_page.png")
