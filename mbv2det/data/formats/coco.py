"""Settings of COCO's format."""

from dataclasses import dataclass

from mbv2det.data.annotations import Annotations
from mbv2det.data.coco import read_coco
from mbv2det.data.formats.classes import choose_labels
from mbv2det.data.formats.data_format import DataFormat, SplitRequest
from mbv2det.data.listed_images import listed_images
from mbv2det.errors import ConfigError

_ROBOFLOW_FILE = "_annotations.coco.json"


@dataclass(frozen=True)
class COCOSplit:
    """One JSON file with boxes and outlines, and a folder of images.

    Attributes:
        images: The folder that the file's names are relative to.
        annotations: The JSON file; by default `_annotations.coco.json` in the folder of images, as
            Roboflow exports it.
        list: A file with one image name per line, relative to `images`; by default all images of
            the file.
    """

    images: str
    annotations: str | None = None
    list: str | None = None


def _read(request: SplitRequest[COCOSplit]) -> Annotations:
    images = request.root / request.split.images
    file = request.split.annotations
    annotations = images / _ROBOFLOW_FILE if file is None else request.root / file
    if file is None and not annotations.is_file():
        raise ConfigError(
            f"{request.key}.annotations: expected a JSON file, relative to data.root, since there "
            f"is no {annotations}"
        )
    split = read_coco(annotations, images, masks=request.masks, root=request.root)
    if request.split.list is not None:
        split = listed_images(split, images, request.root / request.split.list)
    return choose_labels(request, split)


FORMAT = DataFormat(COCOSplit, _read)
