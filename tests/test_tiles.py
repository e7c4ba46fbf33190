import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from networks import randomise
from runs import run_command, write_config

from mbv2det.build import build_model
from mbv2det.data.scenes import CLASSES
from mbv2det.deploy.tiles import TiledPredictor, Tiling, detect_tiles
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.structures import Detections, Sample, SampleKey
from mbv2det.tasks.task import Prediction
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights

INPUT = 64  # side of what the predictor below sees
# Corners of 6-pixel squares in an image of 500 x 800; the last three cross borders of tiles.
TINY = [(10, 20), (300, 40), (700, 450), (397, 100), (395, 247), (640, 250)]
LARGE = (500, 300, 620, 420)


class BlobPredictor:
    """Finds bright blobs in images that it shrinks to its input, as a network does.

    The more of an object an image shows, the higher its score.
    """

    def __init__(self, task="detection"):
        self.info = SimpleNamespace(
            label_maps={"detection": LabelMap(("blob",), (1,))}, eval=EvalConfig()
        )
        self.tasks = [SimpleNamespace(name=task)]
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        return [Prediction(detection=self.detect(image)) for image in images]

    def detect(self, image):
        height, width = image.shape[:2]
        seen = cv2.resize(image[:, :, 0], (INPUT, INPUT), interpolation=cv2.INTER_AREA)
        _, _, stats, _ = cv2.connectedComponentsWithStats((seen > 128).astype(np.uint8))
        x, y, w, h, _ = stats[1:].T
        scale = torch.tensor([width, height, width, height]) / INPUT
        boxes = torch.from_numpy(np.stack([x, y, x + w, y + h], 1)).float() * scale
        scores = (boxes[:, 2:] - boxes[:, :2]).prod(1) / 1e6  # square pixels of the image
        return Detections(boxes, scores, torch.zeros(len(boxes)).long())


@pytest.fixture
def library():
    return pytest.importorskip("supervision", reason="needs the extra supervision")


@pytest.fixture
def image():
    pixels = np.zeros((500, 800, 3), np.uint8)
    for x, y in TINY:
        pixels[y : y + 6, x : x + 6] = 255
    x_min, y_min, x_max, y_max = LARGE
    pixels[y_min:y_max, x_min:x_max] = 255
    return pixels


def corners(detections):
    return sorted(tuple(box) for box in detections.boxes[:, :2].tolist())


def test_tiles_find_tiny_objects_that_the_whole_image_hides(library, image):
    predictor = BlobPredictor()
    whole = predictor([image])[0].detection
    tiled = TiledPredictor(predictor, Tiling(grid=(4, 6)))([image])[0].detection
    assert len(whole) == 1
    # The predictor sees a tile of 148 x 160 pixels as 64 x 64: corners are at most two of its
    # pixels off, and that of the large object one of those that the whole image has, 12.5 wide.
    expected = np.array(sorted([*TINY, LARGE[:2]]))
    limits = np.where(expected == LARGE[:2], 12.5, 5.0)
    assert (np.abs(np.array(corners(tiled)) - expected) <= limits).all()


def test_a_batch_of_evaluation_is_cut_into_tiles_too(library, image):
    tiled = TiledPredictor(BlobPredictor(), Tiling(grid=(4, 6)))
    assert tiled.max_batch == 1
    sample = tiled.preprocessor(Sample(SampleKey(0, 0), image, Frame((500, 800))))
    pixels = torch.from_numpy(sample.image).permute(2, 0, 1)[None]
    (got,), (expected,) = tiled.predict_batch(pixels, [sample.frame]), tiled([image])
    assert len(got.detection) == len(TINY) + 1
    assert torch.equal(got.detection.boxes, expected.detection.boxes)


def test_an_object_in_several_tiles_and_larger_than_one_is_found_once(library, image):
    tiled = TiledPredictor(BlobPredictor(), Tiling(grid=(4, 6)))([image])[0].detection
    large = tiled.boxes[(tiled.boxes[:, 2] - tiled.boxes[:, 0]) > 50]
    # One pixel of what the predictor sees of the whole image is 7.8 x 12.5.
    np.testing.assert_allclose(large.numpy(), [LARGE], atol=12.5)


def test_tiles_go_through_the_network_in_batches(library, image):
    predictor = BlobPredictor()
    detect_tiles(predictor, image, Tiling(grid=(2, 5)), batch_size=4)
    assert predictor.batches == [4, 4, 2]


def test_tiles_of_a_blank_image_hold_nothing(library):
    blank = np.zeros((40, 30, 3), np.uint8)
    detections = TiledPredictor(BlobPredictor(), Tiling(side=16))([blank])[0].detection
    assert detections.boxes.shape == (0, 4)


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (3, 2), (7, 5)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.45])
def test_a_grid_has_the_rows_and_columns_asked_for(library, grid, overlap):
    predictor = BlobPredictor()
    detect_tiles(predictor, np.zeros((301, 407, 3), np.uint8), Tiling(grid, None, overlap), 99)
    assert sum(predictor.batches) == grid[0] * grid[1]


def test_tilings_are_a_grid_or_the_side_of_a_tile():
    assert Tiling.parse("2x3") == Tiling(grid=(2, 3))
    assert Tiling.parse("640", 0.1) == Tiling(side=640, overlap=0.1)
    assert Tiling.parse("640").tile((1000, 2000)) == ((640, 640), (128, 128))
    # Two tiles of 100 + 80 new pixels, three of 100 + 2 * 80.
    assert Tiling.parse("2x3").tile((180, 260)) == ((100, 100), (20, 20))


@pytest.mark.parametrize("text", ["x", "2x", "0x3", "0", "-5", "2x3x4", "1.5"])
def test_other_tilings_are_errors(text):
    with pytest.raises(ConfigError, match=f"--tiles: expected ROWSxCOLUMNS.*got {text}"):
        Tiling.parse(text)


@pytest.mark.parametrize("overlap", [-0.1, 0.5])
def test_overlaps_of_half_a_tile_or_below_nothing_are_errors(overlap):
    with pytest.raises(ConfigError, match=f"--tile-overlap: .*got {overlap}"):
        Tiling.parse("2x3", overlap)


def test_tiles_need_a_head_for_detection():
    with pytest.raises(ConfigError, match="--tiles: expected weights with a head for detection"):
        TiledPredictor(BlobPredictor("segmentation"), Tiling(grid=(2, 2)))


def test_eval_measures_what_tiles_find(library, tmp_path):
    config = write_config(tmp_path, num_train=1, num_val=2, heads="detection: {name: ssdlite}")
    info = WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=0.1), {"detection": SSDLiteConfig()}),
        PreprocessSpec((64, 96)),
        {"detection": LabelMap.of_masks(CLASSES)},
    )
    model = randomise(build_model(info.model, info.preprocess, info.label_maps))
    weights = tmp_path / "w.safetensors"
    save_weights(weights, model.state_dict(), info)
    documents = []
    for name, options in {"whole": [], "tiled": ["--tiles=2x2", "--tile-overlap=0.1"]}.items():
        out = tmp_path / f"{name}.json"
        run_command("eval", config, "--weights", weights, "--out", out, *options)
        documents.append(json.loads(out.read_text()))
    whole, tiled = documents
    assert tiled["tiles"] == "2x2, overlap 0.1"
    assert "tiles" not in whole
    assert tiled["images"] == whole["images"] == 2
    assert tiled["detection"]["AP"] is not None
    done = run_command("eval", config, "--weights", weights, "--tile-overlap=0.1", check=False)
    assert "--tile-overlap: expected --tiles beside it, got none" in done.stderr
