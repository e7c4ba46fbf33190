"""The operators of this toolkit in ONNX."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset20 as op

from mbv2det.preprocess import PreprocessSpec

# ONNX's numbers of the types that a Cast can give.
_FLOAT32, _UINT8, _INT64, _BOOL, _FLOAT64 = 1, 2, 7, 9, 11


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Returns the ONNX function of each operator, for PyTorch's exporter."""
    return {
        torch.ops.mbv2det.nms_mask.default: _nms_mask,
        torch.ops.mbv2det.resize_image.default: _resize_image,
    }


def _nms_mask(boxes: Any, scores: Any, iou: float) -> Any:
    # NonMaxSuppression gives (image, class, box) of each box that it keeps.
    kept = op.NonMaxSuppression(
        boxes,
        scores,
        _ints(2**31 - 1),  # none is selected where this limit is absent
        op.Constant(value_floats=[iou]),
        op.Constant(value_floats=[0.0]),
    )
    count = op.Slice(op.Shape(kept), _ints(0), _ints(1))
    nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
    ones = op.Expand(op.Constant(value_float=1.0), count)
    return op.Cast(op.ScatterND(nothing, kept, ones), to=_BOOL)


def _resize_image(
    images: Any, size: Sequence[int], resize: str, mean: Sequence[float]
) -> tuple[Any, Any]:
    # In float64, as Python computes the size of the content.
    original = op.Cast(op.Slice(op.Shape(images), _ints(2), _ints(4)), to=_FLOAT64)
    target = op.Cast(_ints(*size), to=_FLOAT64)
    content = target
    if resize == "fit":
        scale = op.ReduceMin(op.Div(target, original))
        one = op.Cast(_ints(1), to=_FLOAT64)
        content = op.Max(op.Round(op.Mul(original, scale)), one)
    resized = op.Resize(
        images,
        None,
        None,
        op.Cast(content, to=_INT64),
        antialias=1,
        axes=[2, 3],
        coordinate_transformation_mode="half_pixel",
        exclude_outside=1,  # as PyTorch: pixels outside the image have no part in a mean
        mode="linear",
    )
    if resize == "fit":
        red, green, blue = mean
        fill = PreprocessSpec((size[0], size[1]), "fit", (red, green, blue)).fill
        resized = _padded(resized, op.Cast(content, to=_INT64), size, fill)
    frame = op.Concat(op.Div(content, original), original, axis=0)
    return resized, op.Cast(frame, to=_FLOAT32)


def _padded(images: Any, content: Any, size: Sequence[int], fill: Sequence[int]) -> Any:
    """Pads images on the right and at the bottom with a colour.

    Args:
        images: Images of the content's size.
        content: Size of the content, (height, width) of int64.
        size: Size to pad to.
        fill: Colour of the padding, RGB.
    """
    missing = op.Sub(_ints(*size), content)
    pads = op.Concat(_ints(0, 0, 0, 0, 0, 0), missing, axis=0)
    canvas = op.Pad(images, pads, op.Cast(op.Constant(value_int=0), to=_UINT8))
    rows, columns = (
        op.Less(_ints(*range(side)), op.Slice(content, _ints(axis), _ints(axis + 1)))
        for axis, side in enumerate(size)
    )
    inside = op.And(op.Unsqueeze(rows, _ints(1)), columns)
    colour = op.Cast(op.Reshape(_ints(*fill), _ints(1, 3, 1, 1)), to=_UINT8)
    return op.Where(inside, canvas, colour)


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))
