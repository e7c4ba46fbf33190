"""Finds objects with an exported detector: numpy and onnxruntime are all that it needs.

    mbv2det export --weights best.safetensors --format onnx --out model.onnx
    python examples/onnx_detect.py model.onnx photo.npy [MIN_SCORE]

The photograph is an array (height, width, 3) of RGB bytes that numpy.save wrote; in an application
it comes from a camera or from the library that reads its images. Take this file as a beginning.
"""

import json
import sys

import numpy as np
import onnxruntime


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an (H, W, 3) image to (height, width): bilinear, antialiased where it shrinks."""
    rows, columns = (_weights(*sides) for sides in zip(image.shape[:2], size, strict=True))
    half = np.einsum("xw,hwc->hxc", columns, image.astype(np.float32), optimize=True).round()
    return np.einsum("yh,hxc->yxc", rows, half, optimize=True).round().astype(np.uint8)


def _weights(before: int, after: int) -> np.ndarray:
    """Returns what every pixel after resizing takes from every pixel before, (after, before)."""
    scale = before / after
    distances = np.arange(before) + 0.5 - (np.arange(after)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(distances) / max(scale, 1)).astype(np.float32)
    return weights / weights.sum(axis=1, keepdims=True)


def detect(model: onnxruntime.InferenceSession, image: np.ndarray, min_score: float = 0.3) -> list:
    """Returns (class name, score, [x_min, y_min, x_max, y_max] in pixels) of each object."""
    header = json.loads(model.get_modelmeta().custom_metadata_map["mbv2det"])
    if header["preprocess"]["resize"] != "stretch":
        raise SystemExit("expected a model of `resize: stretch`, which needs no padding")
    names = header["labels"]["detection"]["names"]
    if header["preprocess"].get("value_range"):
        raise SystemExit("expected a model of images of 8 bits, got one of more")
    height, width = header["preprocess"]["size"]
    pixels = resize(image, (height, width)).transpose(2, 0, 1)[None]
    wanted = ["boxes", "scores", "labels", "count"]
    boxes, scores, labels, count = (values[0] for values in model.run(wanted, {"images": pixels}))
    boxes = boxes * np.tile([image.shape[1] / width, image.shape[0] / height], 2)
    found = zip(labels[:count], scores[:count], boxes[:count], strict=True)
    return [(names[k], float(s), box.tolist()) for k, s, box in found if s >= min_score]


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    least = float(sys.argv[3]) if len(sys.argv) > 3 else 0.3
    for name, score, box in detect(session, np.load(sys.argv[2]), least):
        print(json.dumps({"class": name, "score": score, "box": box}))
