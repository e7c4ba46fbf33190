"""Pictures of predictions and annotations: tinted masks, tagged boxes, legends and captions.

- Every function takes a picture and returns a new one, so that they can be chained.
- Lines and text are proportional to the shorter side of the picture (`DrawingSizes`): they look the
  same on a thumbnail and on a 12-megapixel photograph.
- Masks have Pascal VOC's colours. torchvision's drawing functions are not used: they draw no
  outlines between labels and need one mask per label (250 MB for such a photograph).
"""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from mbv2det.labels import BACKGROUND, LabelMap, voc_name
from mbv2det.structures import IGNORE_INDEX, Detections

Colour = tuple[int, int, int]  # RGB, 0..255
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_GOLDEN_RATIO = 0.618034
_TINT_OPACITY = 0.55


@dataclass(frozen=True)
class DrawingSizes:
    """Sizes of everything that is drawn on one picture, in its pixels.

    Attributes:
        line: Width of the lines of boxes.
        outline: Width of the outlines between labels.
        text: Height of the font.
        margin: Distance between text and its surroundings.
    """

    line: int
    outline: int
    text: int
    margin: int

    @classmethod
    def of(cls, picture: Image.Image) -> "DrawingSizes":
        """Returns the sizes for a picture; small ones keep legible text and visible lines."""
        unit = min(picture.size) / 240
        return cls(
            line=max(2, round(unit)),
            outline=max(1, round(unit / 2)),
            text=max(12, round(7 * unit)),
            margin=max(3, round(1.5 * unit)),
        )

    @property
    def row(self) -> int:
        """Height of a row of text in a legend or caption."""
        return self.text + 2 * self.margin

    def font(self) -> Font:
        """Returns the font for all text."""
        return ImageFont.load_default(size=self.text)


def class_colour(label: int) -> Colour:
    """Returns a saturated colour for a label; consecutive labels are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1.0, 0.75, 0.95)
    return int(red * 255), int(green * 255), int(blue * 255)


def voc_colour(value: int) -> Colour:
    """Returns the colour of a mask value in Pascal VOC's palette.

    The bits of the value go to red, green and blue in turn, highest bits of the colours first.
    """
    red = green = blue = 0
    for bit in range(8):
        red |= (value & 1) << (7 - bit)
        green |= (value >> 1 & 1) << (7 - bit)
        blue |= (value >> 2 & 1) << (7 - bit)
        value >>= 3
    return red, green, blue


def mask_palette(label_map: LabelMap) -> dict[str, Colour]:
    """Returns the colour of each class of masks, by its VOC name where VOC has the class.

    Args:
        label_map: Label map of the masks; the colours are those of its ids in VOC's palette.
    """
    named_values = zip(label_map.names, label_map.ids, strict=True)
    return {voc_name(name): voc_colour(value) for name, value in named_values}


def class_colours(label_map: LabelMap, palette: Mapping[str, Colour] | None = None) -> list[Colour]:
    """Returns the colour of each label of boxes.

    Args:
        label_map: Label map of the boxes.
        palette: Colours of classes that are fixed, such as the `mask_palette` of masks on the same
            picture; other classes have their `class_colour`.
    """
    palette = palette or {}
    return [
        palette.get(voc_name(name), class_colour(label))
        for label, name in enumerate(label_map.names)
    ]


def index_image(labels: UInt8[np.ndarray, "H W"], label_map: LabelMap) -> Image.Image:
    """Returns a mask as a palette image of the data set's own values, with VOC's colours.

    Args:
        labels: Label of each pixel, or `IGNORE_INDEX`, which is not changed.
        label_map: Label map of the masks; its ids are the values.
    """
    values = np.full(256, IGNORE_INDEX, np.uint8)
    values[: len(label_map)] = label_map.ids
    image = Image.fromarray(values[labels])
    image.putpalette([channel for value in range(256) for channel in voc_colour(value)])
    return image


def tint_labels(
    picture: Image.Image, labels: UInt8[np.ndarray, "H W"], label_map: LabelMap
) -> Image.Image:
    """Tints a picture with the colour of each pixel's label, with white outlines between labels.

    Args:
        picture: RGB picture of the labels' size.
        labels: Label of each pixel, or `IGNORE_INDEX`. The background is not tinted.
        label_map: Label map of the masks.
    """
    tint = index_image(labels, label_map).convert("RGB")
    tinted = Image.blend(picture, tint, _TINT_OPACITY)
    foreground = labels != label_map.label_of_name.get(BACKGROUND, -1)
    result = Image.composite(tinted, picture, Image.fromarray(foreground))
    outlines = _outlines(labels, DrawingSizes.of(picture).outline)
    result.paste((255, 255, 255), mask=Image.fromarray(outlines))
    return result


def _outlines(labels: UInt8[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """Marks the boundaries between labels with lines of a width in pixels."""
    edges = np.zeros(labels.shape, bool)
    edges[1:] |= labels[1:] != labels[:-1]
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    # Lines are widened along one axis and then the other, alternately to either side. Shifts are
    # far faster than PIL's MaxFilter (1.6 s for 12 megapixels and a width of 7).
    for axis in (0, 1):
        narrow = np.moveaxis(edges.copy(), axis, 0)
        wide = np.moveaxis(edges, axis, 0)
        for step in range(1, width):
            shift = (step + 1) // 2
            if step % 2:
                wide[:-shift] |= narrow[shift:]
            else:
                wide[shift:] |= narrow[:-shift]
    return edges


def draw_boxes(
    picture: Image.Image,
    boxes: Sequence[Sequence[float]],
    tags: Sequence[str],
    colours: Sequence[Colour],
) -> Image.Image:
    """Draws boxes with a text tag at the top left corner of each; later boxes are on top.

    Args:
        picture: RGB picture.
        boxes: xyxy boxes in pixels of the picture.
        tags: Text of each box; no tag is drawn where it is empty.
        colours: Colour of each box and its tag.
    """
    result = picture.copy()
    pen = ImageDraw.Draw(result)
    sizes = DrawingSizes.of(picture)
    font = sizes.font()
    for box, colour in zip(boxes, colours, strict=True):
        x_min, y_min, x_max, y_max = box
        pen.rectangle((x_min, y_min, x_max, y_max), outline=colour, width=sizes.line)
    # Tags are drawn after all boxes, so that no line crosses a tag.
    for (x_min, y_min, *_), tag, colour in zip(boxes, tags, colours, strict=True):
        if tag:
            _draw_tag(pen, (x_min, y_min), tag, colour, font, sizes)
    return result


def _draw_tag(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    background: Colour,
    font: Font,
    sizes: DrawingSizes,
) -> None:
    """Draws text on a coloured rectangle that stays within the picture.

    It is above the corner (x, y) of a box, or below it where there is no space above.
    """
    padding = max(2, sizes.margin // 2)
    width = round(font.getlength(text)) + 2 * padding
    _, top, _, bottom = font.getbbox("Ay")  # the same height for every text
    height = round(bottom - top) + 2 * padding
    x = max(0, min(corner[0], pen.im.size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=background)
    luminance = 0.3 * background[0] + 0.6 * background[1] + 0.1 * background[2]
    ink = "black" if luminance > 120 else "white"
    pen.text((x + padding, y + padding - top), text, fill=ink, font=font)


def draw_detections(
    picture: Image.Image,
    detections: Detections,
    label_map: LabelMap,
    colours: Sequence[Colour] | None = None,
    min_score: float = 0.0,
    show_scores: bool = True,
) -> Image.Image:
    """Draws each detection as a box with its class name and score; the best are on top.

    Args:
        picture: RGB picture in the frame of the detections.
        detections: Detections of one image, best score first.
        label_map: Label map of the boxes.
        colours: Colour of each label; by default `class_colours` of the label map.
        min_score: Lowest score of the detections that are drawn.
        show_scores: Whether tags show scores; False for annotations, which have none.
    """
    colours = class_colours(label_map) if colours is None else colours
    shown = detections[(detections.scores >= min_score).nonzero()[:, 0].flip(0)]
    labels = shown.labels.tolist()
    tags = [label_map.names[label] for label in labels]
    if show_scores:
        scores = shown.scores.tolist()
        tags = [f"{tag} {score:.2f}" for tag, score in zip(tags, scores, strict=True)]
    return draw_boxes(picture, shown.boxes.tolist(), tags, [colours[label] for label in labels])


def mask_legend(labels: UInt8[np.ndarray, "H W"], label_map: LabelMap) -> dict[str, Colour]:
    """Returns name and colour of each class in a mask, except background and `IGNORE_INDEX`.

    Args:
        labels: Label of each pixel, or `IGNORE_INDEX`.
        label_map: Label map of the masks.
    """
    counts = np.bincount(labels.ravel(), minlength=256)[: len(label_map)]
    classes = zip(label_map.names, label_map.ids, counts, strict=True)
    return {
        name: voc_colour(value) for name, value, count in classes if count and name != BACKGROUND
    }


def add_legend(picture: Image.Image, colours: Mapping[str, Colour]) -> Image.Image:
    """Adds a strip below a picture with the colour and name of each class.

    Args:
        picture: RGB picture.
        colours: Colour of each class name; if empty, the picture is returned unchanged.
    """
    if not colours:
        return picture
    sizes = DrawingSizes.of(picture)
    font, margin = sizes.font(), sizes.margin
    positions, x, y = [], margin, 0
    for name in colours:
        width = sizes.text + margin + round(font.getlength(name))
        if x > margin and x + width + margin > picture.width:
            x, y = margin, y + sizes.row
        positions.append((x, y + margin))
        x += width + 3 * margin
    strip = Image.new("RGB", (picture.width, y + sizes.row), "white")
    pen = ImageDraw.Draw(strip)
    for (left, top), (name, colour) in zip(positions, colours.items(), strict=True):
        swatch = (left, top, left + sizes.text, top + sizes.text)
        pen.rectangle(swatch, fill=colour, outline="black")
        middle = (left + sizes.text + margin, top + sizes.text / 2)
        pen.text(middle, name, fill="black", font=font, anchor="lm")
    return _stack(picture, strip)


def add_caption(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Adds a strip of text below a picture, as wide as the longest line needs.

    Args:
        picture: RGB picture.
        lines: Lines of text; if empty, the picture is returned unchanged.
    """
    if not lines:
        return picture
    sizes = DrawingSizes.of(picture)
    font, margin = sizes.font(), sizes.margin
    width = 2 * margin + round(max(font.getlength(line) for line in lines))
    strip = Image.new("RGB", (width, sizes.row * len(lines)), "white")
    pen = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        middle = row * sizes.row + sizes.row / 2
        pen.text((margin, middle), line, fill="black", font=font, anchor="lm")
    return _stack(picture, strip)


def _stack(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Puts one picture above another, left edges aligned, on white."""
    size = max(upper.width, lower.width), upper.height + lower.height
    stacked = Image.new("RGB", size, "white")
    stacked.paste(upper, (0, 0))
    stacked.paste(lower, (0, upper.height))
    return stacked


def side_by_side(pictures: Sequence[Image.Image], gap: int | None = None) -> Image.Image:
    """Puts pictures next to each other, upper edges aligned, on white.

    Args:
        pictures: RGB pictures; at least one.
        gap: Distance between them in pixels; by default twice the width of a line.
    """
    gap = 2 * DrawingSizes.of(pictures[0]).line if gap is None else gap
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width + gap
    return row
