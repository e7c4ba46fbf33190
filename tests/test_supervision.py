import sys

import numpy as np
import pytest
import torch

from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.structures import IGNORE_INDEX, Detections, SegmentationMap

BOXES = [[1.0, 2.0, 30.0, 40.0], [0.0, 0.0, 5.0, 6.0]]
DETECTIONS = Detections(torch.tensor(BOXES), torch.tensor([0.9, 0.4]), torch.tensor([1, 0]))
CLASSES = LabelMap(("cat", "dog"), (7, 90))
MASK_CLASSES = LabelMap.of_masks(("background", "cat", "dog"))


@pytest.fixture
def library():
    return pytest.importorskip("supervision", reason="needs the extra supervision")


def test_detections_keep_boxes_scores_labels_and_names(library):
    converted = DETECTIONS.to_supervision(CLASSES)
    assert isinstance(converted, library.Detections)
    assert converted.xyxy.tolist() == BOXES
    np.testing.assert_array_equal(converted.confidence, DETECTIONS.scores.numpy())
    assert converted.class_id.tolist() == [1, 0]
    assert converted.data["class_name"].tolist() == ["dog", "cat"]


def test_no_detections_are_no_detections(library):
    assert len(DETECTIONS.at_least(1.0).to_supervision(CLASSES)) == 0


def test_detections_go_through_zones_and_annotators(library):
    converted = DETECTIONS.to_supervision(CLASSES)
    zone = library.PolygonZone(np.array([[10, 30], [30, 30], [30, 60], [10, 60]]))
    assert zone.trigger(converted).tolist() == [True, False]
    picture = library.BoxAnnotator().annotate(np.zeros((50, 50, 3), np.uint8), converted)
    assert picture.any()


def test_maps_become_a_mask_with_its_box_for_each_class_but_background(library):
    labels = torch.zeros((6, 8), dtype=torch.uint8)
    labels[1:3, 2:7] = 2
    labels[5] = IGNORE_INDEX
    converted = SegmentationMap(labels).to_supervision(MASK_CLASSES)
    assert converted.class_id.tolist() == [2]
    assert converted.data["class_name"].tolist() == ["dog"]
    np.testing.assert_array_equal(converted.mask, (labels == 2).numpy()[None])
    # Rows 1 and 2, columns 2 to 6: corners where the pixels end.
    assert converted.xyxy.tolist() == [[2, 1, 7, 3]]


def test_a_map_of_background_alone_has_no_masks(library):
    blank = SegmentationMap(torch.zeros((4, 5), dtype=torch.uint8))
    assert len(blank.to_supervision(MASK_CLASSES)) == 0


def test_without_supervision_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match=r"pip install 'mbv2det\[supervision\]'"):
        DETECTIONS.to_supervision(CLASSES)


def test_sahi_slices_images_for_the_predictor():
    pytest.importorskip("sahi", reason="needs the extra sahi")
    from sahi.predict import get_sliced_prediction
    from test_tiles import TINY, BlobPredictor

    from mbv2det.deploy.sahi_model import SahiModel

    pixels = np.zeros((500, 800, 3), np.uint8)
    for x, y in TINY[:3]:
        pixels[y : y + 6, x : x + 6] = 255
    model = SahiModel(BlobPredictor(), confidence_threshold=0.0)
    result = get_sliced_prediction(pixels, model, 150, 150, verbose=0, batch_size=4)
    objects = sorted(tuple(o.bbox.to_xyxy()[:2]) for o in result.object_prediction_list)
    # The predictor sees 150 pixels as 64: corners are at most two of its pixels off.
    np.testing.assert_allclose(objects, sorted(TINY[:3]), atol=4.7)
    assert {o.category.name for o in result.object_prediction_list} == {"blob"}
