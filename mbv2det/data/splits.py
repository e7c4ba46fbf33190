"""The splits of a configured data set, in any of the formats."""

from pathlib import Path

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.annotations import Annotations
from mbv2det.data.formats import FORMATS
from mbv2det.data.formats.data_format import SplitRequest
from mbv2det.data.formats.settings import check_settings
from mbv2det.data.shapes import ensure_shapes
from mbv2det.errors import ConfigError
from mbv2det.structures import IGNORE_INDEX


def read_split(
    data: DataConfig, split: SplitConfig, key: str, *, boxes: bool, masks: bool
) -> Annotations:
    """Reads the annotation of one split, in the configured classes.

    Args:
        data: Settings of the data set.
        split: Settings of the split.
        key: Configuration key of the split, for messages.
        boxes: Whether to read boxes.
        masks: Whether to read masks.

    Raises:
        ConfigError: If the settings do not specify where the split is, or if the format has no such
            setting.
        DataError: If a file is missing or damaged.
    """
    root, data_format = Path(data.root), FORMATS[data.format]
    check_settings(data, train=data.train, val=data.val)
    check_settings(data, **{key.rsplit(".", 1)[-1]: split})
    if data.embedded:
        ensure_shapes(root)
    if not root.is_dir():
        raise ConfigError(f"data.root: expected a folder, found none at {root}")
    if boxes and not data_format.has_boxes:
        others = ", ".join(name for name, format in FORMATS.items() if format.has_boxes)
        raise ConfigError(
            f"data.format: expected one of {others} for boxes, got {data.format}, "
            "which has only masks"
        )
    request = SplitRequest(data, data_format.typed(split, key), key, boxes, masks)
    annotations = data_format.read(request)
    if annotations.masks is not None and len(annotations.masks.label_map) > IGNORE_INDEX:
        raise ConfigError(
            f"data.mask_classes: expected at most {IGNORE_INDEX} labels, "
            f"got the {len(annotations.masks.label_map)} of {annotations.name}"
        )
    return annotations
