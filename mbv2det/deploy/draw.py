"""Boxes with names and scores, and labels as colours with a legend, drawn over an image."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.structures import IGNORE_INDEX, Detections

_GOLDEN_RATIO = 0.618034
_OPACITY = 0.55  # of a label's tint
_LEGEND_TEXT = 14  # pixels


def colour(label: int) -> tuple[int, int, int]:
    """A colour for each label; neighbours are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1.0, 0.75, 0.95)
    return int(red * 255), int(green * 255), int(blue * 255)


def voc_colour(value: int) -> tuple[int, int, int]:
    """The colour that Pascal VOC's palette gives a mask's value: its bits, dealt out to RGB."""
    red = green = blue = 0
    for bit in range(8):
        red |= (value & 1) << (7 - bit)
        green |= (value >> 1 & 1) << (7 - bit)
        blue |= (value >> 2 & 1) << (7 - bit)
        value >>= 3
    return red, green, blue


def index_image(found: UInt8[np.ndarray, "H W"], labels: LabelMap) -> Image.Image:
    """Labels as the data set's own values, in a palette image with VOC's colours.

    Args:
        found: Labels, or `IGNORE_INDEX`, which stays.
        labels: Whose ids are the values.
    """
    values = np.full(256, IGNORE_INDEX, np.uint8)
    values[: len(labels)] = labels.ids
    image = Image.fromarray(values[found])
    image.putpalette([channel for value in range(256) for channel in voc_colour(value)])
    return image


def draw_segmentation(
    image: UInt8[np.ndarray, "H W 3"], found: UInt8[np.ndarray, "H W"], labels: LabelMap
) -> Image.Image:
    """The image with every label but background as a tint, and outlines between labels.

    Args:
        image: RGB.
        found: Labels of its pixels, or `IGNORE_INDEX`.
        labels: Names and values.
    """
    tint = np.asarray(index_image(found, labels).convert("RGB"), np.float32)
    tinted = found != labels.label_of_name.get(BACKGROUND, -1)
    picture = image.astype(np.float32)
    picture[tinted] += _OPACITY * (tint - picture)[tinted]
    outline = np.zeros(found.shape, bool)
    outline[1:] |= found[1:] != found[:-1]
    outline[:, 1:] |= found[:, 1:] != found[:, :-1]
    picture[outline] = 255
    return Image.fromarray(picture.round().astype(np.uint8))


def add_legend(
    picture: Image.Image, found: UInt8[np.ndarray, "H W"], labels: LabelMap
) -> Image.Image:
    """The picture above a strip with the colour and the name of every label found.

    Args:
        picture: Of any size.
        found: Labels; background and `IGNORE_INDEX` are not named.
        labels: Names and values.
    """
    shown = [i for i in np.unique(found).tolist() if i < len(labels)]
    shown = [i for i in shown if labels.names[i] != BACKGROUND]
    font = ImageFont.load_default(size=_LEGEND_TEXT)
    line, swatch = _LEGEND_TEXT + 8, _LEGEND_TEXT
    places, x, y = [], 4, 4
    for label in shown:
        width = swatch + 14 + round(font.getlength(labels.names[label]))
        if x > 4 and x + width > picture.width:
            x, y = 4, y + line
        places.append((x, y, label))
        x += width
    strip = Image.new("RGB", (picture.width, picture.height + y + line), "white")
    strip.paste(picture, (0, 0))
    pen = ImageDraw.Draw(strip)
    for left, top, label in places:
        top += picture.height
        box = (left, top, left + swatch, top + swatch)
        pen.rectangle(box, fill=voc_colour(labels.ids[label]), outline="black")
        pen.text((left + swatch + 4, top - 1), labels.names[label], fill="black", font=font)
    return strip


def add_caption(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture above a strip of text, wide enough for the longest line."""
    font = ImageFont.load_default(size=_LEGEND_TEXT)
    line = _LEGEND_TEXT + 8
    width = max([picture.width, *(8 + round(font.getlength(text)) for text in lines)])
    strip = Image.new("RGB", (width, picture.height + line * len(lines)), "white")
    strip.paste(picture, (0, 0))
    pen = ImageDraw.Draw(strip)
    for row, text in enumerate(lines):
        pen.text((4, picture.height + row * line + 2), text, fill="black", font=font)
    return strip


def draw_detections(
    image: Image.Image,
    found: Detections,
    names: Sequence[str],
    min_score: float = 0.0,
    show_scores: bool = True,
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> Image.Image:
    """The image with a box, a name and a score for each detection, best on top.

    Args:
        image: RGB, in the frame of the detections.
        found: Best first.
        names: Of the labels.
        min_score: Detections below are not drawn.
        show_scores: False for ground truth, which has none.
        colours: Of the labels; by default `colour` of each.
    """
    colours = [colour(label) for label in range(len(names))] if colours is None else colours
    canvas = image.copy()
    pen = ImageDraw.Draw(canvas)
    unit = max(1, round(min(canvas.size) / 240))
    font = ImageFont.load_default(size=max(10, 6 * unit + 4))
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    kept = [row for row in rows if row[1] >= min_score][::-1]
    for box, _, label in kept:
        pen.rectangle(box, outline=colours[label], width=unit + 1)
    for box, score, label in kept:  # after all boxes, whose lines would strike names out
        text = f"{names[label]} {score:.2f}" if show_scores else names[label]
        _tag(pen, (box[0], box[1]), text, colours[label], font)
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
