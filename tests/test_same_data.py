"""The same data in any two formats gives the same boxes and the same masks."""

import data_formats
import numpy as np
import pytest

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.splits import read_split


def read(root, writer, *, boxes, masks):
    data, split = writer(root)
    config = DataConfig(root=str(root), **data)
    return read_split(config, SplitConfig(**split), "data.train", boxes=boxes, masks=masks)


def image_of(annotations, stem):
    paths = [str(annotations.path(index)) for index in range(len(annotations))]
    (index,) = (i for i, path in enumerate(paths) if path.endswith(f"/{stem}.png"))
    return index


@pytest.mark.parametrize("name", data_formats.BOXES)
def test_boxes_are_those_of_the_data(tmp_path, name):
    annotations = read(tmp_path, data_formats.BOXES[name], boxes=True, masks=False)
    assert len(annotations) == len(data_formats.IMAGES)
    names = annotations.objects.label_map.names
    assert set(names) == set(data_formats.NAMES)
    for stem, (size, things) in data_formats.IMAGES.items():
        index = image_of(annotations, stem)
        assert annotations.size(index) == size
        start, end = annotations.objects.starts[index : index + 2]
        assert [names[i] for i in annotations.objects.labels[start:end]] == [t.name for t in things]
        # Masks have whole pixels, and slanted sides end within the corners.
        tolerance = 1.0 if name == "cvat_masks" else 1e-9
        expected = np.array([t.box for t in things], np.float64)
        np.testing.assert_allclose(
            annotations.objects.boxes[start:end], expected, rtol=0, atol=tolerance
        )
    assert annotations.faults.lines() == []


@pytest.mark.parametrize("name", data_formats.MASKS)
def test_masks_are_those_of_the_data(tmp_path, name):
    annotations = read(tmp_path, data_formats.MASKS[name], boxes=False, masks=True)
    assert annotations.masks.label_map.names == data_formats.LABELS
    for stem in data_formats.IMAGES:
        mask = annotations.mask(image_of(annotations, stem))
        np.testing.assert_array_equal(mask, data_formats.index_mask(stem))
    assert annotations.objects is None
    assert annotations.faults.lines() == []


def test_formats_with_boxes_alone_have_no_masks(tmp_path):
    with pytest.raises(ValueError, match="expected outlines"):
        read(tmp_path, data_formats.yolo_boxes, boxes=False, masks=True)
