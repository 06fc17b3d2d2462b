"""Chromium for the tests of page and app, and a server of folders."""

import contextlib
import functools
import http.server
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from conftest import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
ORT = Path(os.environ.get("ORT_WEB", ROOT / "node_modules/onnxruntime-web/dist"))
SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder: the tests leave the documents' pictures there


@contextlib.contextmanager
def chromium(downloads):
    """A headless Chromium with a camera that shows a test picture; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -r requirements-dev.txt")
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=900,1000"
    flags += "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@contextlib.contextmanager
def served(folder):
    """``folder`` on a port of this machine: (address, list of the paths that were asked for)."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *told):
            asked.append(self.path)

        def log_message(self, *told):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def until(driver, condition, seconds=120):
    """Wait until ``condition()`` is true, and return what it returned."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds, 0.1).until(lambda driver: condition())


def drop(driver, selector, path):
    """Drop a file on an element, as if it came from a file manager."""
    place = driver.find_element("css selector", selector).rect
    data = {"items": [], "files": [str(Path(path).resolve())], "dragOperationsMask": 1}
    where = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2, "data": data}
    for kind in ("dragEnter", "dragOver", "drop"):
        driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **where})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
