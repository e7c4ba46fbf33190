import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mbv2det.geometry import Frame
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.postprocess import SegmentationPostprocess

postprocess = SegmentationPostprocess()


def random_outputs(num_images, cells, stride, num_labels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_labels, *cells, generator=generator)
    rows, columns = (torch.arange(size) * float(stride) for size in cells)
    return SegmentationOutputs(logits, rows, columns)


def assert_labels_of(result, logits):
    """Returns the map has the label of the largest logit, but for ties within rounding."""
    best = logits.topk(2, dim=0)
    clear = best.values[0] - best.values[1] > 1e-4
    assert clear.float().mean() > 0.99
    assert result.labels.dtype == torch.uint8
    assert result.labels.shape == logits.shape[1:]
    assert torch.equal(result.labels[clear].long(), best.indices[0][clear])


def evaluated(logits, rows, columns, stride):
    """Interpolates bilinearly along each axis, constant beyond the last cells."""
    cell_rows, cell_columns = (np.arange(size) * stride for size in logits.shape[1:])
    wide = [[np.interp(columns, cell_columns, line) for line in plane] for plane in logits.numpy()]
    high = [
        [np.interp(rows, cell_rows, line) for line in np.transpose(plane)]
        for plane in np.asarray(wide)
    ]
    return torch.from_numpy(np.asarray(high)).transpose(1, 2)


def test_padded_image_equals_aligned_interpolation_and_a_crop():
    outputs = random_outputs(1, (33, 33), stride=16)
    (result,) = postprocess(outputs, [Frame((500, 375))])
    full = F.interpolate(outputs.logits, (513, 513), mode="bilinear", align_corners=True)
    assert_labels_of(result, full[0, :, :500, :375])


def test_stretched_image_is_evaluated_at_the_centres_of_its_pixels():
    outputs = random_outputs(1, (5, 9), stride=8)  # 33x65 pixels
    (result,) = postprocess(outputs, [Frame((20, 91), (33 / 20, 65 / 91))])
    rows, columns = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in ((20, 33), (91, 65)))
    assert_labels_of(result, evaluated(outputs.logits[0], rows, columns, 8))


def test_each_image_of_a_batch_has_its_own_frame():
    outputs = random_outputs(3, (5, 7), stride=8)
    frames = [
        Frame((30, 40)),
        Frame((300, 41), (0.1, 1.2)),
        Frame((17, 23), (1.5, 2.0), offset=(3.0, -5.5)),
    ]
    results = postprocess(outputs, frames)
    for frame, logits, result in zip(frames, outputs.logits, results, strict=True):
        (height, width), (sy, sx), (oy, ox) = frame.original, frame.scale, frame.offset
        rows = (np.arange(height) + 0.5) * sy + oy - 0.5
        columns = (np.arange(width) + 0.5) * sx + ox - 0.5
        assert_labels_of(result, evaluated(logits, rows, columns, 8))


@pytest.mark.parametrize("threshold", [8.25, 8.75])
def test_labels_change_where_the_logits_cross(threshold):
    # Original pixel i of 8 is centred on 2 i + 0.5 of 16: pixel 4, on 8.5, lies between.
    cells = torch.tensor([0.0, 16.0])
    logits = torch.stack([torch.full((2,), threshold), cells]).view(1, 2, 1, 2)
    outputs = SegmentationOutputs(logits, torch.zeros(1), cells)
    (result,) = postprocess(outputs, [Frame((1, 8), (1.0, 2.0))])
    first = 4 if threshold < 8.5 else 5
    assert result.labels.tolist() == [[int(i >= first) for i in range(8)]]


def test_batch_without_images_gives_no_results():
    assert postprocess(random_outputs(0, (2, 2), stride=8), []) == []


def test_number_of_frames_must_be_that_of_images():
    with pytest.raises(ValueError, match="shorter"):
        postprocess(random_outputs(2, (2, 2), stride=8), [Frame((9, 9))])
