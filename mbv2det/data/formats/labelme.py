"""Settings of LabelMe's format."""

from dataclasses import dataclass

from mbv2det.data.annotations import Annotations
from mbv2det.data.formats.classes import choose_labels
from mbv2det.data.formats.data_format import DataFormat, SplitRequest
from mbv2det.data.labelme import LabelMeSource, read_labelme


@dataclass(frozen=True)
class LabelMeSplit:
    """JSON files with the names of the images.

    Attributes:
        images: The folder of images.
        annotations: The folder of JSON files; by default the folder of images.
        list: A file with one image name per line; by default every JSON file.
    """

    images: str
    annotations: str | None = None
    list: str | None = None


def _read(request: SplitRequest[LabelMeSplit]) -> Annotations:
    root, split = request.root, request.split
    source = LabelMeSource(
        images=root / split.images,
        annotations=root / (split.annotations or split.images),
        list_file=None if split.list is None else root / split.list,
    )
    every_image = request.data.missing_labels != "no_objects"
    annotations = read_labelme(source, every_image=every_image, masks=request.masks)
    return choose_labels(request, annotations)


FORMAT = DataFormat(LabelMeSplit, _read, frozenset({"missing_labels"}))
