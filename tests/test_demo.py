"""The demo: its page in headless Chromium predicts what `predict` predicts."""

import json
import re
import shutil
import threading
from contextlib import contextmanager

import jaxtyping
import numpy as np
import pytest
from networks import randomise
from PIL import Image
from runs import run_command

import mbv2det
from mbv2det.build import build_model
from mbv2det.data.scenes import ShapesSpec, render_scene
from mbv2det.demo.server import HOST, demo_server
from mbv2det.demo.site import check_folder, check_runtime, write_site
from mbv2det.errors import ConfigError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module", autouse=True)
def sizes_may_be_symbols():
    """Switches off the checks of types, which know no symbolic sizes of a traced graph."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium with a camera that shows a moving picture."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    try:
        check_runtime()
    except ConfigError as error:
        pytest.skip(str(error))
    with driver.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def weights_and_image(tmp_path_factory):
    """Returns the weights of a random joint model, which finds objects and labels, and an image."""
    folder = tmp_path_factory.mktemp("demo")
    info = WeightsInfo(
        ModelConfig(
            BackboneConfig(width_mult=0.35, output_stride=16),
            {"detection": SSDLiteConfig(), "segmentation": DeepLabV3Config(channels=16)},
        ),
        PreprocessSpec((97, 129), "stretch"),
        {
            "detection": LabelMap(("cat", "dog"), (7, 90)),
            "segmentation": LabelMap.of_masks(("background", "tree", "sea")),
        },
    )
    network = build_model(info.model, info.preprocess, info.label_maps)
    randomise(network, seed=5, gain=2**0.5)  # all three labels on the image
    save_weights(folder / "random.safetensors", network.state_dict(), info)
    image = render_scene(ShapesSpec(num_val=1), "val", 0).image
    Image.fromarray(image).save(folder / "shapes.png")
    return folder / "random.safetensors", folder / "shapes.png"


@pytest.fixture(scope="module")
def site(browser, weights_and_image, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    write_site(weights_and_image[0], out)
    return out


@contextmanager
def opened_page(browser, folder, **context):
    """Opens the page of a demo; after the test there were no errors, and no requests elsewhere."""
    with demo_server(folder, 0) as server, browser.new_context(**context) as window:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page, errors, requests = window.new_page(), [], []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        address = f"http://{HOST}:{server.server_port}/"
        try:
            page.goto(address)
            page.locator("#choose:enabled").wait_for(timeout=60_000)
            yield page
        finally:
            server.shutdown()
            thread.join()
        assert errors == []
        assert [r for r in requests if not r.startswith((address, "blob:", "data:"))] == []


@pytest.fixture(params=[(1440, 900, "light"), (390, 844, "dark")], ids=["wide", "phone"])
def tab(request, browser, site):
    width, height, scheme = request.param
    viewport = {"width": width, "height": height}
    with opened_page(
        browser, site, viewport=viewport, color_scheme=scheme, permissions=["camera"]
    ) as page:
        yield page


def predict_in(tab, image):
    """Drops an image on the page; returns its results and its mask as they are saved."""
    tab.set_input_files("#files", image)
    tab.locator(f'#picture[aria-label^="{image.name}"]').wait_for()
    saved = []
    for button in ("#save-json", "#save-mask"):
        if tab.locator(button).is_visible():
            with tab.expect_download() as download:
                tab.click(button)
            saved.append(download.value.path())
    return json.loads(saved[0].read_text()), saved[1:]


def assert_same_detections(results, detections, label_map, *, scores=1e-3):
    expected = detections.at_least(results["settings"]["score"])
    found = results["detections"]
    assert len(found) == len(expected.scores)
    x, y, width, height = np.array([row["bbox"] for row in found]).reshape(-1, 4).T
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    np.testing.assert_allclose(boxes, expected.boxes.numpy(), atol=0.5)
    np.testing.assert_allclose([row["score"] for row in found], expected.scores, atol=scores)
    names = [label_map.names[label] for label in expected.labels.tolist()]
    assert [row["category_name"] for row in found] == names


@pytest.mark.browser
def test_a_dropped_image_has_the_results_of_its_file(tab, site, weights_and_image):
    _, image = weights_and_image
    results, (mask,) = predict_in(tab, image)
    # The same file natively: random weights enlarge the grey level by which its resizing may differ
    # from PyTorch's. The test of a real photograph compares with PyTorch.
    predictor = mbv2det.load(site / "model.onnx")
    prediction = predictor.predict_file(image)
    expected = np.asarray(prediction.segmentation.labels)
    assert len(np.unique(expected)) > 1
    assert len(results["detections"]) > 1  # there is something to compare
    values = np.array(predictor.info.label_maps["segmentation"].ids)[expected]
    assert (np.asarray(Image.open(mask).convert("L")) == values).mean() >= 0.999
    assert_same_detections(results, prediction.detection, predictor.info.label_maps["detection"])
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_the_camera_is_predicted_until_it_is_stopped(tab):
    tab.click("#camera")
    tab.locator("#times", has_text=re.compile(r"Frames per second\s*\d")).wait_for()
    tab.click("#camera")
    assert tab.locator("#camera").inner_text() == "Start camera"
    assert tab.locator("#notice").inner_text() == ""


@pytest.mark.browser
def test_classes_are_switched_off(tab, weights_and_image):
    predict_in(tab, weights_and_image[1])
    tab.click("#none")
    assert "background" in tab.locator("#summary").inner_text()
    assert tab.locator("#results tr").count() == 0


@pytest.mark.browser
def test_a_real_photograph_has_the_boxes_of_predict(browser, real_data, real_weights, tmp_path):
    weights = tmp_path / "detector.safetensors"
    source = real_weights("ssdlite_voc_tf.npz")
    run_command("import_weights", "tf", source, "--out", weights)
    write_site(weights, tmp_path / "site")
    native = mbv2det.load(tmp_path / "site/model.onnx")
    predictor = mbv2det.load(weights)
    with opened_page(browser, tmp_path / "site") as page:
        for file in sorted(real_data("photos").glob("*.jpg"))[:3]:
            photo = tmp_path / f"{file.stem}.png"  # decoders of JPEG differ by a grey level
            Image.open(file).save(photo)
            results, _ = predict_in(page, photo)
            assert results["detections"]
            label_map = predictor.info.label_maps["detection"]
            same_file = native.predict_file(photo).detection
            assert_same_detections(results, same_file, label_map, scores=1e-4)
            # The graph resizes to within a grey level of PyTorch.
            by_pytorch = predictor.predict_file(photo).detection
            assert_same_detections(results, by_pytorch, label_map, scores=2e-3)


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="--static: expected a new folder, an empty one"):
        check_folder(tmp_path)


def test_the_missing_runtime_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("mbv2det.demo.site.RUNTIME", tmp_path)
    with pytest.raises(ConfigError, match="run `make demo` in the clone"):
        check_runtime()
