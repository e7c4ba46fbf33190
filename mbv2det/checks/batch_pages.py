"""Pages of training batches with their targets, exactly as the network gets them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mbv2det.checks.contact_sheets import sheet
from mbv2det.drawing import add_caption, draw_boxes
from mbv2det.structures import Batch, Instances, Sample
from mbv2det.tasks.task import Prediction, TrainableTask, draw_prediction

_COLUMNS = 4
_GREY = (150, 150, 150)


def batch_page(batch: Batch, tasks: Sequence[TrainableTask], names: Sequence[str]) -> Image.Image:
    """Returns one picture of all images of a batch, in their own pixels.

    Args:
        batch: Batch of the training loader.
        tasks: Tasks that draw their targets.
        names: Name of each image of the split, by index.
    """
    cells = [
        add_caption(_draw(sample, tasks), [names[sample.key.index]]) for sample in samples_of(batch)
    ]
    return sheet(cells, _COLUMNS)


def samples_of(batch: Batch) -> list[Sample]:
    """Returns the images of a batch with their targets, without the padding."""
    images = batch.images.permute(0, 2, 3, 1).numpy()
    valid, boxes = batch.boxes.valid.numpy(), batch.boxes
    samples = []
    for row, (key, frame) in enumerate(zip(batch.keys, batch.frames, strict=True)):
        instances = Instances(
            boxes.boxes[row].numpy()[valid[row]],
            boxes.labels[row].numpy()[valid[row]],
            boxes.ignore[row].numpy()[valid[row]],
        )
        annotated = bool(boxes.annotated[row])
        mask = None if batch.masks is None else batch.masks[row].numpy()
        image = np.ascontiguousarray(images[row])
        samples.append(Sample(key, image, frame, instances if annotated else None, mask))
    return samples


def _draw(sample: Sample, tasks: Sequence[TrainableTask]) -> Image.Image:
    """Draws the targets; boxes that are neither required nor counted as errors are grey."""
    objects = sample.instances
    if objects is None:
        shown, ignored = sample, np.zeros((0, 4), np.float32)
    else:
        shown = Sample(
            sample.key, sample.image, sample.frame, objects[~objects.ignore], sample.mask
        )
        ignored = objects.boxes[objects.ignore]
    targets = Prediction(**{task.name: task.annotation_of(shown) for task in tasks})
    picture = draw_prediction(sample.image, targets, tasks, show_scores=False)
    return draw_boxes(picture, ignored.tolist(), ["ignored"] * len(ignored), [_GREY] * len(ignored))
