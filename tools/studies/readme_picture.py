"""Draws what a model predicts on scenes of the embedded data set: the picture of the README.

    python tools/studies/readme_picture.py --weights FILE --out FILE.png [--scenes 0 1 2]

The scenes are validation images, which no training has seen; --scenes chooses them by number, from
0. Boxes, names, scores, tints and legends are drawn as by `predict`. The picture is stored with 256
colours, so that its file stays small. The README's picture is next to this script, as
readme_picture.png; the wheel does not contain it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mbv2det.atomic_write import atomic_write
from mbv2det.console import one_line_errors
from mbv2det.data.images import read_image
from mbv2det.data.shapes import ensure_shapes
from mbv2det.deploy.load import load
from mbv2det.deploy.predictor import Predictor
from mbv2det.drawing import side_by_side
from mbv2det.errors import ConfigError
from mbv2det.tasks.task import DrawingStyle, draw_prediction

_SCENES = (0, 1, 2)
_COLOURS = 256


def scene_files(data: Path, scenes: Sequence[int]) -> list[Path]:
    """Returns the validation images with some numbers; renders the data set on first use.

    Args:
        data: Folder of the embedded data set.
        scenes: Numbers of the images in the order of their names.

    Raises:
        ConfigError: If there is no image with one of the numbers.
    """
    if not (data / "val").is_dir():
        ensure_shapes(data)
    files = sorted((data / "val").glob("*.jpg"))
    for scene in scenes:
        if not 0 <= scene < len(files):
            raise ConfigError(f"--scenes: expected numbers from 0 to {len(files) - 1}, got {scene}")
    return [files[scene] for scene in scenes]


def draw_row(predictor: Predictor, files: Sequence[Path], min_score: float) -> Image.Image:
    """Returns the images with their predictions, in a row."""
    images = [read_image(file)[0] for file in files]
    predictions = [predictor([image])[0] for image in images]
    return side_by_side(
        [
            draw_prediction(image, prediction, predictor.tasks, min_score)
            for image, prediction in zip(images, predictions, strict=True)
        ]
    )


@one_line_errors
def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help=".safetensors or .ckpt file")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--scenes", type=int, nargs="+", default=_SCENES, help="numbers from 0")
    data = Path("data/shapes")
    parser.add_argument("--data", type=Path, default=data, help=f"embedded data set ({data})")
    parser.add_argument(
        "--min-score",
        type=float,
        default=DrawingStyle.min_score,
        help="draw detections with at least this score (default %(default)s)",
    )
    options = parser.parse_args()
    files = scene_files(options.data, options.scenes)
    row = draw_row(load(options.weights), files, options.min_score)
    with atomic_write(options.out) as part:
        row.quantize(_COLOURS).save(part, format="png", optimize=True)
    print(f"written to {options.out}: {row.width}x{row.height} pixels")


if __name__ == "__main__":
    main()
