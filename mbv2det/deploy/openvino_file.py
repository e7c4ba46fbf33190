"""OpenVINO's files: an `.xml` file with a `.bin` file beside it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECTION = "mbv2det"  # of the texts in the file's runtime information


def save_openvino(
    model: Any, path: Path, metadata: Mapping[str, str], *, compress: bool = False
) -> None:
    """Writes an OpenVINO model; the `.xml` file appears once both are complete.

    Args:
        model: The `openvino.Model`.
        path: The `.xml` file.
        metadata: Texts that the file carries, by key.
        compress: Whether the weights are stored as float16.
    """
    import openvino

    for key, text in metadata.items():
        model.set_rt_info(text, [SECTION, key])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        openvino.save_model(model, part, compress_to_fp16=compress)
        for file in (part.with_suffix(".bin"), part):
            file.replace(path.with_name(file.name))
