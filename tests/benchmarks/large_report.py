"""Time and memory of the analysis and the page of 5,000 images with 500,000 detections.

python tests/benchmarks/large_report.py
"""

import resource
import time

import numpy as np

from mbv2det.data.objects import Objects
from mbv2det.labels import LabelMap
from mbv2det.metrics.coco_ap import coco_ap
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.report.detection_analysis import analyse_detections
from mbv2det.report.detection_part import detection_part, image_boxes
from mbv2det.report.galleries import chosen_images, detection_galleries
from mbv2det.report.page import render
from mbv2det.report.summary import detection_sentences

IMAGES, OBJECTS, DETECTIONS, CLASSES = 5_000, 36_000, 500_000, 80


def random_split(seed=0):
    """Returns objects, and detections of which two in five are near one."""
    draw = np.random.default_rng(seed)
    corner = draw.uniform(0, 500, (OBJECTS, 2))
    boxes = np.concatenate([corner, corner + draw.uniform(8, 200, (OBJECTS, 2))], axis=1)
    truth = Objects.group_by_image(
        LabelMap.of_masks([f"class {number}" for number in range(CLASSES)]),
        IMAGES,
        draw.integers(0, IMAGES, OBJECTS),
        boxes=boxes,
        labels=draw.integers(0, CLASSES, OBJECTS),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        crowd=draw.random(OBJECTS) < 0.01,
    )
    near, far = draw.integers(0, OBJECTS, DETECTIONS), draw.random(DETECTIONS) < 0.6
    shifted = truth.boxes[near] + draw.normal(0, 12, (DETECTIONS, 4))
    shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 1)
    detections = ScoredBoxes(
        np.where(far, draw.integers(0, IMAGES, DETECTIONS), truth.image[near]),
        shifted,
        np.where(far, draw.beta(1, 8, DETECTIONS), draw.beta(2, 3, DETECTIONS)),
        np.where(far, draw.integers(0, CLASSES, DETECTIONS), truth.labels[near]),
    )
    return truth, detections


def main():
    truth, detections = random_split()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, processor = time.perf_counter(), time.process_time()
    scores = {**coco_ap(truth, detections), "images": IMAGES}
    metric = time.process_time() - processor
    analysis = analyse_detections(np.arange(IMAGES), truth, detections)
    part = detection_part(analysis, scores)
    galleries = detection_galleries(analysis)
    images = [image_boxes(analysis, index) for index in chosen_images(galleries.values(), 150)]
    text = render(
        {
            "title": "benchmark",
            "part": part,
            "images": images,
            "sentences": detection_sentences(analysis, scores),
        }
    )
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{IMAGES} images, {OBJECTS} objects, {len(detections)} detections, {CLASSES} classes")
    print(f"{wall:.0f} s, of the processor {processor:.0f} s, {metric:.0f} s of them for AP itself")
    print(f"memory: {peak:.0f} MB at most, {before:.0f} MB before; page {len(text) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
