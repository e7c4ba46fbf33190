"""Rendered scenes of textured shapes: the images of the embedded data set.

- Colours and textures do not depend on the class: it can only be recognised by the silhouette.
- Later shapes are painted over earlier ones, which hides more than a fifth of the area of a quarter
  of the objects; `Scene.visible` is the part that stays visible.
- Images are not square, so that tests with these images detect code that swaps height and width.
- An image depends on seed, size, split and index alone: with larger numbers of images, the first
  ones stay the same.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mbv2det.errors import ConfigError

Map = Float[np.ndarray, "H W"]
Colour = Float[np.ndarray, "3"]
Canvas = Float[np.ndarray, "H W 3"]  # RGB from 0 to 255
Mask = Bool[np.ndarray, "H W"]
Masks = Bool[np.ndarray, "N H W"]
Counts = Int[np.ndarray, " N"]

SPLITS = ("train", "val")
MAX_OBJECTS = 10
SIDE_RANGE = (0.06, 0.6)  # sides of a whole object's box, as fractions of the image's sides
MIN_VISIBLE = 0.55  # share of an object that later ones must leave visible
OVERLAP_PROBABILITY = 0.34  # hides a quarter of the objects by more than a fifth
OVERLAP_HIDDEN = (0.22, 0.42)  # share of the overlapped object that a shape hides
STRAY_HIDDEN = 0.1  # share of any other object that it may hide
MIN_CONTRAST = 130.0  # distance in RGB of a shape's mean colour from what it is painted on
SUPERSAMPLING = 4


@dataclass(frozen=True)
class ShapesSpec:
    """Settings of a rendered data set.

    Attributes:
        seed: Seed of all images.
        num_train: Number of training images.
        num_val: Number of validation images.
        size: Nominal (height, width) in pixels; the sides of an image differ by up to a tenth.

    Raises:
        ConfigError: If a number is too small.
    """

    seed: int = 0
    num_train: int = 800
    num_val: int = 100
    size: tuple[int, int] = (240, 320)

    def __post_init__(self) -> None:
        if self.seed < 0 or min(self.num_train, self.num_val) < 1 or min(self.size) < 96:
            raise ConfigError(
                "expected seed >= 0, at least one image in each split, and sides of at least 96 "
                f"pixels, so that the smallest shapes can be recognised; got {self}"
            )


@dataclass(frozen=True)
class Scene:
    """One rendered image with its objects, in the order of painting.

    Attributes:
        image: RGB pixels.
        labels: Index into `CLASSES` of each object.
        full: Mask of each whole object, as if nothing were painted over it.
        visible: Mask of the part of each object that stays visible.
    """

    image: UInt8[np.ndarray, "H W 3"]
    labels: list[int]
    full: Masks
    visible: Masks


def _spokes(*radii: float) -> Float[np.ndarray, "P 2"]:
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii)[:, None]


# Contours around the origin, filled by the even-odd rule.
SILHOUETTES = {
    "ellipse": [_spokes(*[1.0] * 64)],
    "rectangle": [_spokes(*[1.0] * 4) @ np.array([(0.5, 0.5), (-0.5, 0.5)])],
    "triangle": [_spokes(*[1.0] * 3)],
    "star": [_spokes(*[1.0, 0.42] * 5)],
    "cross": [np.array([(-3, -1), (-1, -1), (-1, -3), (1, -3), (1, -1), (3, -1),
                        (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1)])],
    "ring": [_spokes(*[1.0] * 64), _spokes(*[0.52] * 64)],
}  # fmt: skip
CLASSES = tuple(SILHOUETTES)


def _draw_coverage(rng: np.random.Generator, label: int, size: tuple[int, int]) -> Map:
    """Draws a random object and return its coverage of each pixel of its box, in [0, 1].

    The logarithm of its size has a beta distribution that favours the middle of `SIDE_RANGE`: with
    many tiny objects, results would depend on the image size rather than on the detector.
    """
    low, high = SIDE_RANGE
    while True:
        angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.45)
        axes = [(stretch * np.cos(angle), stretch * np.sin(angle)), (-np.sin(angle), np.cos(angle))]
        contours = [contour @ np.array(axes) for contour in SILHOUETTES[CLASSES[label]]]
        corner, extent = contours[0].min(axis=0), np.ptp(contours[0], axis=0)
        side = low * (high / low) ** rng.beta(3.4, 1.4) * np.sqrt(size[0] * size[1])
        scale = side / np.sqrt(extent.prod())
        width, height = (int(length) for length in np.ceil(extent * scale))
        fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
        corners = [
            ((c - corner) * scale * SUPERSAMPLING).round().astype(np.int32) for c in contours
        ]
        cv2.fillPoly(fine, corners, [255])
        coverage = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)
        _, _, box_width, box_height = mask_box(coverage >= 0.5)
        sides = (box_height / size[0], box_width / size[1])
        if low <= min(sides) and max(sides) <= high:
            return coverage


def _smooth_noise(rng: np.random.Generator, size: tuple[int, int], cell: float) -> Map:
    """Draws noise in [0, 1] with features of about `cell` pixels."""
    grid = rng.random([int(side / cell) + 3 for side in size], dtype=np.float32)
    noise = np.asarray(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC))
    return (noise - noise.min()) / np.ptp(noise)


def _draw_texture(rng: np.random.Generator, size: tuple[int, int]) -> Map:
    """Draws the ratio of the two colours of a surface at each pixel, in [0, 1]."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, max(9.0, min(24.0, 0.3 * min(size))))
    y, x = (np.arange(side, dtype=np.float32) * 2 * np.pi / period for side in size)
    u = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y[:, None]
    v = np.float32(np.cos(angle)) * y[:, None] - np.float32(np.sin(angle)) * x
    match rng.choice(["stripes", "checks", "dots", "gradient", "noise"]):
        case "stripes":
            return 0.5 + 0.5 * np.tanh(3 * np.sin(u))
        case "checks":
            return 0.5 + 0.5 * np.tanh(5 * np.sin(u / 2) * np.sin(v / 2))
        case "dots":
            return 0.5 + 0.5 * np.tanh(3 * (np.cos(u) + np.cos(v) - 0.8))
        case "gradient":
            return (u - u.min()) / np.ptp(u)
    return _smooth_noise(rng, size, period / 2)


def _draw_colour(rng: np.random.Generator, max_saturation: float) -> Colour:
    hsv = rng.uniform((0, 0, 0.25), (360, max_saturation, 1)).astype(np.float32)
    return np.asarray(cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB))[0, 0] * 255


def _mix(first: Canvas | Colour, second: Canvas | Colour, ratio: Map) -> Canvas:
    return first + (second - first) * ratio[..., None]


def _draw_surface(rng: np.random.Generator, size: tuple[int, int], behind: Colour) -> Canvas:
    """Draws a textured surface in contrast to the mean colour behind it."""
    texture, tone = _draw_texture(rng, size), rng.choice([0.7, 0.8, 1.2, 1.35])
    while True:
        first = _draw_colour(rng, max_saturation=1.0)
        second = np.clip(first * tone + rng.normal(0, 12, 3), 0, 255).astype(np.float32)
        mean = first + (second - first) * texture.mean()
        if np.linalg.norm(mean - behind) >= MIN_CONTRAST:
            return _mix(first, second, texture)


def _draw_background(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Draws a background in pale colours: noise at several scales, texture, patches, strokes."""
    first, second, third = (_draw_colour(rng, max_saturation=0.5) for _ in range(3))
    canvas = _mix(first, second, 0.8 * _smooth_noise(rng, size, rng.uniform(60, 140)))
    patches = _smooth_noise(rng, size, rng.uniform(25, 60)) > 0.62
    canvas = _mix(canvas, third, patches * np.float32(0.3))
    canvas += 14 * (_smooth_noise(rng, size, 6.0) + _draw_texture(rng, size) - 1)[..., None]
    for _ in range(rng.integers(4, 13)):
        steps = rng.normal(0, 22, (rng.integers(3, 9), 2)).cumsum(axis=0)
        points = (steps + rng.uniform((0, 0), size[::-1])).astype(np.int32)
        colour = (first + rng.uniform(-60, 60, 3)).tolist()
        cv2.polylines(canvas, [points], False, colour, int(rng.integers(1, 4)))
    return canvas


def _is_allowed(hidden: Counts, remaining: Counts, areas: Counts, overlap: bool) -> bool:
    """Checks whether a shape partly hides exactly one earlier object if `overlap`, else none.

    Args:
        hidden: Visible pixels of each earlier object that the shape would hide.
        remaining: Pixels of each earlier object that are visible so far.
        areas: Pixels of each whole earlier object.
        overlap: Whether the shape is to hide part of one object.
    """
    share = hidden / areas
    overlapped = (share >= OVERLAP_HIDDEN[0]) & (share <= OVERLAP_HIDDEN[1])
    spared = (share <= STRAY_HIDDEN) | overlapped
    kept = remaining - hidden >= MIN_VISIBLE * areas
    return bool(overlapped.sum() == overlap and spared.all() and kept.all())


def _place(rng: np.random.Generator, label: int, full: Masks, visible: Masks) -> Map | None:
    """Draws an object at a random position; returns None if no position was allowed."""
    remaining, areas = (np.count_nonzero(masks, axis=(1, 2)) for masks in (visible, full))
    overlap = len(full) > 0 and rng.random() < OVERLAP_PROBABILITY
    size = (full.shape[1], full.shape[2])
    for _ in range(20):
        coverage = _draw_coverage(rng, label, size)
        for _ in range(4):
            y, x = rng.integers(0, np.subtract(size, coverage.shape), endpoint=True)
            box = (slice(y, y + coverage.shape[0]), slice(x, x + coverage.shape[1]))
            hidden = np.count_nonzero(visible[:, *box] & (coverage >= 0.5), axis=(1, 2))
            if _is_allowed(hidden, remaining, areas, overlap):
                placed = np.zeros(size, np.float32)
                placed[box] = coverage
                return placed
    return None


def _paint(rng: np.random.Generator, canvas: Canvas, coverage: Map) -> None:
    """Paints an object onto the canvas, with a soft shadow."""
    shadow = np.asarray(cv2.GaussianBlur(coverage, (0, 0), 2.5))
    canvas *= 1 - 0.4 * np.roll(shadow, rng.integers(-2, 3, 2), axis=(0, 1))[..., None]
    left, top, width, height = mask_box(coverage > 0)
    box = (slice(top, top + height), slice(left, left + width))
    surface = _draw_surface(rng, (height, width), behind=canvas[box].mean(axis=(0, 1)))
    canvas[box] = _mix(canvas[box], surface, coverage[box])


def _photograph(rng: np.random.Generator, canvas: Canvas) -> UInt8[np.ndarray, "H W 3"]:
    """Adds uneven light, blur and noise to the canvas, as in a photograph."""
    light = 0.85 + 0.3 * _smooth_noise(rng, canvas.shape[:2], cell=float(max(canvas.shape)))
    image = cv2.GaussianBlur(canvas * light[..., None], (0, 0), rng.uniform(0.4, 0.8))
    grain = rng.uniform(2, 6) * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(image + grain, 0, 255).round().astype(np.uint8)


def render_scene(spec: ShapesSpec, split: str, index: int) -> Scene:
    """Renders image `index` of a split, with one to `MAX_OBJECTS` objects."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    height, width = (round(side * rng.uniform(0.9, 1.1)) for side in spec.size)
    canvas = _draw_background(rng, (height, width))
    labels: list[int] = []
    full = visible = np.zeros((0, height, width), bool)
    for label in rng.integers(len(CLASSES), size=rng.integers(1, MAX_OBJECTS, endpoint=True)):
        coverage = _place(rng, int(label), full, visible)
        if coverage is not None:
            _paint(rng, canvas, coverage)
            mask = coverage >= 0.5
            labels.append(int(label))
            full = np.concatenate([full, mask[None]])
            visible = np.concatenate([visible & ~mask, mask[None]])
    return Scene(_photograph(rng, canvas), labels, full, visible)


def mask_box(mask: Mask) -> tuple[int, int, int, int]:
    """Returns left, top, width and height of the box whose edges enclose the mask's pixels."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
