"""The page of ``--target web``: packed as a user packs it, served by Python's server, and used in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from chromium import Tab, browser, executable
from numpy.typing import NDArray
from PIL import Image
from published import networks_of

from dataload.system.machine import usable_cores
from engine.inference.depth_network import load_depth_network
from engine.pictures import colour_disp
from engine.weights import InputSize, save_weights
from export.config import ExportConfig
from export.conversion.to_onnx import OPSET, depth_onnx
from export.runtime.model_facts import ModelFacts
from export.targets import web
from export.targets.exported import Export
from splits.errors import InputError

SIZE_PX = (64, 96)
METRIC_FACTOR = 5.4
NUM_POINTS = 20
RELATIVE_TOLERANCE = 0.01
REAL_FRAME = "kitti/raw_jpg/2011_09_26/2011_09_26_drive_0052_sync/image_02/data/0000000053.jpg"
READY = "document.body.dataset.state === 'ready'"
# A camera that needs no permission; without it there is none.
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A small export. The head is made steep, so that its depths differ from pixel to pixel though nothing was learnt."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    save_weights(folder / "weights", networks_of(), InputSize(*SIZE_PX, True))
    network = load_depth_network(folder / "weights")
    network.depth.decoder[10].conv.weight *= 100
    facts = ModelFacts(
        height_px=SIZE_PX[0], width_px=SIZE_PX[1], preprocessing=True, training="stereo", metric_factor=METRIC_FACTOR, opset=OPSET,
        licence="made by a test",
    )  # fmt: skip
    depth_onnx(network, facts, folder / "model.onnx")
    config = ExportConfig(weights=folder / "weights", out=folder / "page", target="web", preprocessing=True)
    return Export(config, network, facts, folder / "model.onnx", None, "", None)


@pytest.fixture(scope="module")
def site(exported: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve, with the page in a folder of it, so that no path can be absolute."""
    executable()
    if shutil.which("npm") is None:
        pytest.skip("no npm on PATH to fetch onnxruntime-web with")
    try:
        web.require(exported.config)
    except InputError as error:
        if "ENOTFOUND" in str(error) or "EAI_AGAIN" in str(error):
            pytest.skip(f"no connection to fetch onnxruntime-web by: {error}")
        raise
    page = tmp_path_factory.mktemp("site") / "some folder" / "page"
    page.mkdir(parents=True)
    web.pack(exported, page)
    return page.parent.parent


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page while Python's own server serves it, at a port that the system gives."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "localhost", "--directory", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        port = re.search(r"port (\d+)", said)
        assert port, said
        yield f"http://localhost:{port[1]}/some%20folder/page/"
    finally:
        server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def tab(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """The page, loaded."""
    with served(site) as address, browser(tmp_path_factory.mktemp("browser") / "profile", CAMERA) as tab:
        tab.call("Page.navigate", url=address)
        tab.wait(READY)
        yield tab


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    y, x = np.mgrid[0:150, 0:331]
    channels = [127 + 100 * np.sin(x / (7 + c) + y / 40) * np.cos(y / (5 + c)) for c in range(3)]
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.stack(channels, -1).astype(np.uint8)).save(path)
    return path


def drop(tab: Tab, file: Path) -> None:
    """Drop a file and wait until the page has done with it."""
    tab.evaluate("document.querySelector('#error').hidden = true; document.querySelector('#speed').textContent = ''")
    tab.drop(file)
    tab.wait("document.querySelector('#speed').textContent || !document.querySelector('#error').hidden")
    tab.wait(READY)


def expected_depth(exported: Export, file: Path) -> NDArray[np.float32]:
    """Metres (h,w), by onnxruntime in Python."""
    session = onnxruntime.InferenceSession(str(exported.model), providers=["CPUExecutionProvider"])
    frame = np.asarray(Image.open(file).convert("RGB"))
    inv_depth: Any = session.run(None, {"image": frame[None]})[0]
    return METRIC_FACTOR / inv_depth[0, 0]


def read_points(tab: Tab, selector: str, expected: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """What the page says under the pointer at points all over a picture, what it should say, and its words."""
    left, top, width, height = tab.box(selector)
    said, true, words = [], [], []
    for number in range(NUM_POINTS):
        across, down = (0.1 + 0.618 * number) % 1, (number + 0.5) / NUM_POINTS
        tab.move(left + across * width, top + down * height)
        said.append(float(tab.evaluate("document.querySelector('#value').value")))
        true.append(expected[int(down * expected.shape[0]), int(across * expected.shape[1])])
        words.append(tab.text("#reading"))
    return np.array(said), np.array(true), words


@pytest.mark.parametrize("kind", ["generated", "real"])
def test_the_depth_of_a_dropped_image_is_onnxruntimes(exported, tab, photo, kind, request):
    file = photo if kind == "generated" else request.getfixturevalue("shared") / REAL_FRAME
    drop(tab, file)
    expected = expected_depth(exported, file)
    for picture in ("#image", "#depth"):
        said, true, words = read_points(tab, picture, expected)
        assert true.max() > 1.5 * true.min()  # else a wrong pixel would pass
        np.testing.assert_allclose(said, true, rtol=RELATIVE_TOLERANCE)
        for value, text in zip(said, words, strict=True):
            assert text == f"{value:#.3g} m" or (value >= 100 and text == f"{value:.0f} m")
    assert tab.text("#size") == " × ".join(map(str, Image.open(file).size))
    assert "ms per frame" in tab.text("#speed")


def test_of_two_images_dropped_at_once_the_later_is_shown(exported, tab, photo, tmp_path):
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")
    tab.drop(tmp_path / "other.png")
    drop(tab, photo)
    said, true, _ = read_points(tab, "#depth", expected_depth(exported, photo))
    np.testing.assert_allclose(said, true, rtol=RELATIVE_TOLERANCE)


def test_the_colours_are_those_of_our_pictures(exported, tab, photo):
    drop(tab, photo)
    script = "Array.from(document.querySelector('#depth').getContext('2d').getImageData(0, 0, 96, 64).data)"
    for colormap in ("viridis", "magma"):
        chosen = f"Object.assign(document.querySelector('#colormap'), {{value: '{colormap}'}}).dispatchEvent(new Event('change'))"
        tab.evaluate(chosen)
        shown = np.array(tab.evaluate(script)).reshape(*SIZE_PX, 4)[..., :3]
        assert np.abs(shown - colour_disp(1 / expected_depth(exported, photo), colormap)).max() <= 8


def test_the_page_has_threads_and_tells_its_model(tab):
    assert tab.evaluate("crossOriginIsolated")
    facts = tab.evaluate("document.querySelector('#facts').textContent")
    assert "stereo pairs" in facts
    assert "made by a test" in facts
    assert re.search(r"WebAssembly, \d+ threads" if usable_cores() > 1 else "WebAssembly, one thread", facts)
    # Both make the same frame to check with.
    difference = re.search(r"depths within (\S+) % of onnxruntime", facts)
    assert difference
    assert float(difference[1]) < 1
    assert not [message for message in tab.messages if "rror" in message]


def test_a_file_that_is_no_image(tab, tmp_path, photo):
    (tmp_path / "notes.txt").write_text("no image")
    drop(tab, tmp_path / "notes.txt")
    assert tab.text("#error") == "notes.txt is not an image that this browser can read; choose a JPEG or PNG file"
    drop(tab, photo)
    assert tab.text("#error") == ""


def test_a_huge_photo_is_made_smaller_and_the_page_says_so(tab, tmp_path):
    Image.effect_mandelbrot((4096, 1024), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / "huge.jpg")
    drop(tab, tmp_path / "huge.jpg")
    assert tab.text("#size") == "2048 × 512 (made smaller from 4096 × 1024)"


def test_the_webcam_starts_and_stops(tab):
    tab.click("#webcam")
    tab.wait("document.querySelector('#size').textContent === '640 × 480'")
    assert tab.text("#webcam") == "Stop webcam"
    assert "frames/s" in tab.text("#speed")
    tab.click("#webcam")
    tab.wait("document.querySelector('#webcam').textContent === 'Start webcam'")


def test_clicks_that_come_before_the_webcam(tab, photo):
    # Each camera that the page was given, as it is given it.
    tab.evaluate("""(() => {
        const media = navigator.mediaDevices, given = media.getUserMedia.bind(media);
        window.cameras = [];
        media.getUserMedia = async (asked) => { const stream = await given(asked); window.cameras.push(stream); return stream; };
    })()""")
    # The page itself clicks as soon as it is busy: that lasts for a tenth of a second, which asking it again and again may miss.
    tab.evaluate("""new MutationObserver((_, observer) => {
        if (document.body.dataset.state !== 'busy') return;
        observer.disconnect();
        document.querySelector('#size').textContent = '';  // of the test before
        for (let click = 1; click <= 5; click++) setTimeout(() => { document.querySelector('#webcam').click(); window.clicks = click; });
    }).observe(document.body, {attributeFilter: ['data-state']})""")
    tab.drop(photo)
    tab.wait("window.clicks === 5")
    tab.wait("document.querySelector('#size').textContent === '640 × 480'")
    assert (tab.text("#webcam"), tab.text("#error"), tab.evaluate("document.body.dataset.state")) == ("Stop webcam", "", "ready")
    tab.click("#webcam")
    assert tab.text("#webcam") == "Start webcam"
    assert tab.evaluate("window.cameras.length") == 3
    tab.wait("window.cameras.every((stream) => !stream.active)", 5)


def test_offline_and_with_a_forbidden_camera(exported, site, photo, tmp_path):
    with browser(tmp_path / "profile") as tab:
        with served(site) as address:
            tab.call("Page.navigate", url=address)
            tab.wait(READY)
        # The server is gone.
        tab.evaluate("window.before = true")
        tab.call("Page.reload")
        tab.wait(f"!window.before && {READY}")
        drop(tab, photo)
        said, true, _ = read_points(tab, "#depth", expected_depth(exported, photo))
        np.testing.assert_allclose(said, true, rtol=RELATIVE_TOLERANCE)
        tab.click("#webcam")
        tab.wait("!document.querySelector('#error').hidden")
        assert re.fullmatch("(there is no webcam|the browser was not allowed to use the webcam); .*choose an image", tab.text("#error"))


def test_by_touch_and_without_a_service_worker(exported, site, photo, tmp_path):
    with served(site) as address, browser(tmp_path / "profile") as tab:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source="Object.defineProperty(navigator, 'serviceWorker', {value: undefined})")
        tab.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
        tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
        tab.call("Page.navigate", url=address)
        tab.wait(READY)
        assert "WebAssembly, one thread" in tab.evaluate("document.querySelector('#facts').textContent")
        drop(tab, photo)
        left, top, width, height = tab.box("#depth")
        for kind, points in (("touchStart", [{"x": left + width / 2, "y": top + height / 2}]), ("touchEnd", [])):
            tab.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        expected = expected_depth(exported, photo)[SIZE_PX[0] // 2, SIZE_PX[1] // 2]
        assert float(tab.text("#value")) == pytest.approx(expected, rel=RELATIVE_TOLERANCE)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_a_model_that_was_not_copied(site, photo, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    (copy / "some folder" / "page" / "model.onnx").unlink()
    with served(copy) as address, browser(tmp_path / "profile") as tab:
        tab.call("Page.navigate", url=address)
        tab.wait("document.body.dataset.state === 'error'")
        said = "model.onnx is missing on the server (404); export again, and copy the whole folder"
        assert tab.text("#error") == said
        tab.drop(photo)
        tab.click("#webcam")
        assert tab.text("#error") == said
