"""Settings of CVAT's format."""

from dataclasses import dataclass

from mbv2det.data.annotations import Annotations
from mbv2det.data.cvat import read_cvat
from mbv2det.data.formats.classes import choose_labels
from mbv2det.data.formats.data_format import DataFormat, SplitRequest, single
from mbv2det.data.listed_images import listed_images


@dataclass(frozen=True)
class CVATSplit:
    """One XML file ("CVAT for images") and a folder of images.

    Attributes:
        images: The folder that the file's names are relative to.
        annotations: The XML file.
        split: The subset of the file; by default all its images.
        list: A file with one image name per line, relative to `images`; by default all images.
    """

    images: str
    annotations: str = "annotations.xml"
    split: str | tuple[str, ...] | None = None
    list: str | None = None


def _read(request: SplitRequest[CVATSplit]) -> Annotations:
    root, split = request.root, request.split
    annotations = read_cvat(
        root / split.annotations,
        root / split.images,
        root,
        subset=single(split.split, f"{request.key}.split"),
        masks=request.masks,
    )
    if split.list is not None:
        annotations = listed_images(annotations, root / split.images, root / split.list)
    return choose_labels(request, annotations)


FORMAT = DataFormat(CVATSplit, _read)
