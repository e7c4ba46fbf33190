"""Real data in every format: the content that the writers of `data_formats` write."""

import os

import numpy as np
from data_formats import Content, Thing, draw

from mbv2det.drawing import voc_colour


class RealContent(Content):
    """Images of a data set with their boxes or outlines; image files are linked, not copied."""

    def __init__(self, annotations, most=60):
        objects = annotations.objects
        masks = annotations.masks
        images, self.paths = {}, {}
        for index in range(min(most, len(annotations))):
            path = annotations.path(index)
            rows = range(*objects.starts[index : index + 2])
            things = [thing(objects, masks, row) for row in rows]
            size = annotations.size(index)
            images[path.stem] = size, [t for t in things if t and draw(t.polygon, *size).sum() > 9]
            self.paths[path.stem] = path
            self.suffix = path.suffix
        names = list(objects.label_map.names)
        super().__init__(images, names, [voc_colour(label) for label in range(len(names) + 1)])

    def write_images(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for stem, path in self.paths.items():
            os.symlink(path, folder / f"{stem}{self.suffix}")


def thing(objects, masks, row):
    """An object with its largest polygon, or with its box; None for a crowd."""
    name = objects.label_map.names[objects.labels[row]]
    if objects.crowd[row]:
        return None
    polygons = [] if masks is None else masks.outlines.polygons(row)
    if polygons:
        return Thing(name, tuple(max(polygons, key=lambda polygon: np.ptp(polygon)).tolist()))
    x_min, y_min, x_max, y_max = objects.boxes[row].tolist()
    return Thing(name, (x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max))
