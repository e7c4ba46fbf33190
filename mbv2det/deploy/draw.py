"""Boxes with names and scores, drawn over an image."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mbv2det.structures import Detections

_GOLDEN_RATIO = 0.618034


def colour(label: int) -> tuple[int, int, int]:
    """A colour for each label; neighbours are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1.0, 0.75, 0.95)
    return int(red * 255), int(green * 255), int(blue * 255)


def draw_detections(
    image: UInt8[np.ndarray, "H W 3"],
    found: Detections,
    names: Sequence[str],
    min_score: float = 0.0,
    show_scores: bool = True,
) -> Image.Image:
    """The image with a box, a name and a score for each detection, best on top.

    Args:
        image: In the frame of the detections.
        found: Best first.
        names: Of the labels.
        min_score: Detections below are not drawn.
        show_scores: False for ground truth, which has none.
    """
    canvas = Image.fromarray(image).convert("RGB")
    pen = ImageDraw.Draw(canvas)
    unit = max(1, round(min(canvas.size) / 240))
    font = ImageFont.load_default(size=max(10, 6 * unit + 4))
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    kept = [row for row in rows if row[1] >= min_score][::-1]
    for box, _, label in kept:
        pen.rectangle(box, outline=colour(label), width=unit + 1)
    for box, score, label in kept:  # after all boxes, whose lines would strike names out
        text = f"{names[label]} {score:.2f}" if show_scores else names[label]
        _tag(pen, (box[0], box[1]), text, colour(label), font)
    return canvas


def _tag(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    background: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Text on a coloured ground, above the corner, or below it at the image's upper edge."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x, y = corner[0], corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=background)
    luminance = 0.3 * background[0] + 0.6 * background[1] + 0.1 * background[2]
    ink = (0, 0, 0) if luminance > 120 else (255, 255, 255)
    pen.text((x + 2 - left, y + 2 - top), text, fill=ink, font=font)


def side_by_side(pictures: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures in a row on white."""
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width + gap
    return row
