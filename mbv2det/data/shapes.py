"""The embedded data set: a COCO folder of rendered scenes of textured shapes.

Nothing is downloaded, the same specification gives the same files, and `read_coco` reads them.

- Annotations describe the visible part of each object, as in COCO.
- Category ids have gaps, so that tests with these images detect code that uses ids as indices.
- The folder is built under a temporary name and renamed at the end: it is complete or absent.
"""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import track

from mbv2det.data.scenes import CLASSES, SPLITS, Scene, ShapesSpec, mask_box, render_scene
from mbv2det.data.shape_outlines import run_lengths
from mbv2det.errors import ConfigError

VERSION = 1  # increase it whenever the same spec would give other files
SPEC_FILE = "spec.json"
CATEGORY_IDS = (1, 2, 4, 7, 11, 16)
DEFAULT_SPEC = ShapesSpec()


def _write_split(root: Path, spec: ShapesSpec, split: str, show_progress: bool) -> None:
    (root / split).mkdir()
    categories = zip(CATEGORY_IDS, CLASSES, strict=True)
    coco: dict[str, Any] = {
        "info": {"description": "Rendered shapes", "version": str(VERSION), "licence": "generated"},
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": n, "supercategory": "shape"} for i, n in categories],
    }
    indices = range(spec.num_train if split == "train" else spec.num_val)
    console = Console(stderr=True)  # standard output is for results
    for index in track(indices, f"Render {split}", console=console, disable=not show_progress):
        scene = render_scene(spec, split, index)
        name, (height, width) = f"{index + 1:06d}.jpg", scene.image.shape[:2]
        _write_jpeg(root / split / name, scene)
        image = {"id": index + 1, "file_name": name, "height": height, "width": width}
        coco["images"].append(image)
        coco["annotations"] += _annotate(scene, index + 1, len(coco["annotations"]) + 1)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))


def _write_jpeg(path: Path, scene: Scene) -> None:
    bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    path.write_bytes(jpeg.tobytes())


def _annotate(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Returns COCO's annotations of a scene's objects, with consecutive ids."""
    return [
        {
            "id": id_,
            "image_id": image_id,
            "category_id": CATEGORY_IDS[label],
            "bbox": [float(number) for number in mask_box(mask)],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": run_lengths(mask),
        }
        for id_, (label, mask) in enumerate(
            zip(scene.labels, scene.visible, strict=True), start=first_id
        )
    ]


def _spec_text(spec: ShapesSpec) -> str:
    return json.dumps({"version": VERSION, **asdict(spec)}) + "\n"


def make_shapes(root: Path, spec: ShapesSpec = DEFAULT_SPEC, show_progress: bool = True) -> None:
    """Renders the data set into the folder `root`, replacing an earlier one.

    Writes `annotations/instances_{train,val}.json`, `{train,val}/000001.jpg` and so on, and
    `spec.json`. An interrupted call leaves `root` as it was.

    Raises:
        ConfigError: If `root` has files but is not a folder of rendered shapes.
    """
    if root.exists() and not (root / SPEC_FILE).is_file() and any(root.glob("*")):
        raise ConfigError(
            f"data.root: expected {root} to be absent, empty or made by this package, got a folder "
            f"of other files without {SPEC_FILE}; set data.root to another folder"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as staging:
        built = Path(staging) / "built"
        (built / "annotations").mkdir(parents=True)
        for split in SPLITS:
            _write_split(built, spec, split, show_progress)
        (built / SPEC_FILE).write_text(_spec_text(spec))
        if root.exists():
            root.rename(Path(staging) / "replaced")
        built.rename(root)


def ensure_shapes(root: Path, spec: ShapesSpec = DEFAULT_SPEC, show_progress: bool = True) -> None:
    """Makes the data set unless `root` already holds the one of this spec; see `make_shapes`.

    In a distributed run, call it from one process only: each call renders its own copy.
    """
    stored = root / SPEC_FILE
    if not stored.is_file() or stored.read_text() != _spec_text(spec):
        make_shapes(root, spec, show_progress)
