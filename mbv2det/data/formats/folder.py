"""Settings of a folder of images and a folder of masks."""

from dataclasses import dataclass

from mbv2det.data.annotations import Annotations
from mbv2det.data.folder import MaskSource, read_masks
from mbv2det.data.formats.classes import MASK_FILE_SETTINGS, mask_reading, value_label_map
from mbv2det.data.formats.data_format import DataFormat, SplitRequest
from mbv2det.data.name_patterns import STEM, NamePatterns
from mbv2det.errors import ConfigError
from mbv2det.labels import VOC_NAMES, with_background


@dataclass(frozen=True)
class FolderSplit:
    """Images and masks, with equal names or names that patterns relate.

    Attributes:
        images: The folder of images.
        masks: The folder of masks. It may be the folder of images.
        list: A file with one image name per line; by default all images.
    """

    images: str = "images"
    masks: str = "masks"
    list: str | None = None


def _read(request: SplitRequest[FolderSplit]) -> Annotations:
    data, split, root = request.data, request.split, request.root
    source = MaskSource(
        images=root / split.images,
        masks=(root / split.masks,),
        list_file=None if split.list is None else root / split.list,
    )
    names = data.classes if data.mask_classes is None else data.mask_classes
    if names == "auto":
        raise ConfigError(
            "data.classes: expected the names of the masks' values 0, 1, ... in that order, "
            "got auto; a folder of masks has no names"
        )
    names = with_background(VOC_NAMES) if names == "voc" else names
    return read_masks(
        [source],
        value_label_map(data, names),
        data.ignore_index,
        reading=mask_reading(data),
        names=NamePatterns(data.image_name or STEM, data.mask_name or STEM),
    )


FORMAT = DataFormat(
    FolderSplit,
    _read,
    MASK_FILE_SETTINGS | {"mask_name", "image_name"},
    has_boxes=False,
    draws_masks=False,
)
