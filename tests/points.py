"""Random outputs and targets of dense points, and the loss in loops over images and points."""

import math

import torch

from mbv2det.detection.outputs import PointOutputs
from mbv2det.detection.point_grid import make_points
from mbv2det.structures import BoxTargets

NUM_CLASSES = 3
BINS = 8
IMAGE_SIZE = (64, 96)
GRIDS = ((8, 12), (4, 6), (2, 3), (1, 2))  # the last cells are 48 x 64 pixels


def random_boxes(count, generator):
    """Boxes of 1 to 40 pixels a side, most of them in the image."""
    low = torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 50.0])
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=generator) * 39], dim=1)


def random_case(counts, seed=0, confident=True):
    """Outputs and targets of images with `counts` objects each.

    The scores are high, so that some objects are found, or those of a new network.
    """
    generator = torch.Generator().manual_seed(seed)
    most = max(1, *counts)
    boxes, labels = torch.zeros(len(counts), most, 4), torch.full((len(counts), most), -1)
    for i, count in enumerate(counts):
        boxes[i, :count] = random_boxes(count, generator)
        labels[i, :count] = torch.randint(NUM_CLASSES, (count,), generator=generator)
    points, levels = make_points(GRIDS, IMAGE_SIZE)
    logits = torch.randn(len(counts), len(points), NUM_CLASSES, generator=generator)
    sides = torch.randn(len(counts), len(points), 4, BINS, generator=generator)
    outputs = PointOutputs(logits if confident else logits - 5, sides, points, levels)
    annotated = torch.ones(len(counts), dtype=torch.bool)
    return outputs, BoxTargets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool), annotated)


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def giou(a, b):
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    overlap = iou(a, b)
    union = sum(areas) / (1 + overlap)
    return overlap - (hull - union) / hull


def softmax(row):
    powers = [math.exp(v - max(row)) for v in row]
    return [p / sum(powers) for p in powers]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def is_inside(box, point, smallest=(0.0, 0.0)):
    width, height = max(box[2] - box[0], smallest[0]), max(box[3] - box[1], smallest[1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return abs(point[0] - x) <= width / 2 and abs(point[1] - y) <= height / 2


def looped_boxes(sides, points):
    boxes = []
    for distributions, (x, y, width, height) in zip(sides, points, strict=True):
        left, top, right, bottom = (
            sum(i * p for i, p in enumerate(softmax(row))) for row in distributions
        )
        boxes.append([x - left * width, y - top * height, x + right * width, y + bottom * height])
    return boxes


def looped_atss(box, points, levels, inside):
    """Algorithm 1 of the paper for one object: returns the positive points and all overlaps."""
    centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    overlaps = [
        iou(box, [x - 2.5 * w, y - 2.5 * h, x + 2.5 * w, y + 2.5 * h]) for x, y, w, h in points
    ]
    candidates = []
    for level in sorted(set(levels)):
        rows = [p for p, own in enumerate(levels) if own == level]
        candidates += sorted(rows, key=lambda p: math.dist(points[p][:2], centre))[:9]
    found = [overlaps[p] for p in candidates]
    mean = sum(found) / len(found)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in found) / (len(found) - 1))
    positive = [p for p in candidates if p in inside and overlaps[p] >= mean + deviation]
    if not positive and inside:
        positive = [max(inside, key=lambda p: overlaps[p])]
    return positive, overlaps


def looped_assignment(outputs, targets, i, aligned_from):
    """Returns (object, quality) of each point of an image, None for background or "ignored"."""
    points, levels = outputs.points.tolist(), outputs.levels.tolist()
    boxes = looped_boxes(outputs.sides[i].tolist(), points)
    scores = [[sigmoid(v) for v in row] for row in outputs.logits[i].tolist()]
    smallest = min(p[2] for p in points), min(p[3] for p in points)
    claims, state = {}, [None] * len(points)
    objects = list(zip(targets.boxes[i].tolist(), targets.labels[i].tolist(), strict=True))
    for n, (box, label) in enumerate(objects):
        if label < 0 or targets.ignore[i, n]:
            continue
        inside = [p for p in range(len(points)) if is_inside(box, points[p], smallest)]
        overlaps = [iou(box, predicted) for predicted in boxes]
        best = max((scores[p][label] * overlaps[p] for p in inside), default=0.0)
        alignment = [scores[p][label] * overlaps[p] ** 6 for p in range(len(points))]
        if best > 0 and best >= aligned_from:
            positive = sorted(inside, key=lambda p: -alignment[p])[:13]
            positive = [p for p in positive if alignment[p] > 0]
            rank = overlaps
        else:
            positive, rank = looped_atss(box, points, levels, inside)
            alignment = None
        for p in positive:
            claims.setdefault(p, []).append((rank[p], -n, alignment, overlaps))
    owned = {}
    for p, claim in claims.items():
        owned.setdefault(-max(claim, key=lambda c: c[:2])[1], []).append(p)
    for n, rows in owned.items():
        alignment, overlaps = next(c[2:] for c in claims[rows[0]] if c[1] == -n)
        for p in rows:
            quality = overlaps[p]
            if alignment is not None:
                scale = max(overlaps[q] for q in rows) / max(alignment[q] for q in rows)
                quality = alignment[p] * scale
            state[p] = n, quality
    for n, (box, label) in enumerate(objects):
        if label >= 0 and targets.ignore[i, n]:
            for p in range(len(points)):
                if state[p] is None and is_inside(box, points[p]):
                    state[p] = "ignored"
    return state


def looped_varifocal(value, quality):
    p = sigmoid(value)
    if quality > 0:
        return -quality * (quality * math.log(p) + (1 - quality) * math.log(1 - p))
    return -0.75 * p**2 * math.log(1 - p)


def looped_quality_focal(value, quality):
    p = sigmoid(value)
    entropy = -(quality * math.log(p) + (1 - quality) * math.log(1 - p))
    return abs(quality - p) ** 2 * entropy


def looped_distribution_loss(row, distance):
    distance = min(max(distance, 0.0), len(row) - 1 - 0.01)
    lower = math.floor(distance)
    p = softmax(row)
    return -(lower + 1 - distance) * math.log(p[lower]) - (distance - lower) * math.log(
        p[lower + 1]
    )


def looped_loss(outputs, targets, aligned_from, class_loss):
    """Returns the sums of the three terms, without weights, and the sum of the qualities."""
    sums = {"boxes": 0.0, "distribution": 0.0, "classes": 0.0, "count": 0.0}
    points = outputs.points.tolist()
    for i in range(len(outputs.logits)):
        state = looped_assignment(outputs, targets, i, aligned_from)
        boxes = looped_boxes(outputs.sides[i].tolist(), points)
        for p, target in enumerate(state):
            if target == "ignored" or (target is None and not targets.annotated[i]):
                continue
            label, quality = -1, 0.0
            if target is not None:
                n, quality = target
                label, box = int(targets.labels[i, n]), targets.boxes[i, n].tolist()
                x, y, width, height = points[p]
                distances = [
                    (x - box[0]) / width, (y - box[1]) / height,
                    (box[2] - x) / width, (box[3] - y) / height,
                ]  # fmt: skip
                rows = zip(outputs.sides[i, p].tolist(), distances, strict=True)
                loss = sum(looped_distribution_loss(row, d) for row, d in rows) / 4
                sums["boxes"] += quality * (1 - giou(boxes[p], box))
                sums["distribution"] += quality * loss
                sums["count"] += quality
            for k, value in enumerate(outputs.logits[i, p].tolist()):
                sums["classes"] += class_loss(value, quality if k == label else 0.0)
    return sums
