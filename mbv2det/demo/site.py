"""The folder of a demo: the page, its runtime, the network, its description and samples."""

import json
import shutil
from pathlib import Path

from PIL import Image

from mbv2det.data.scenes import ShapesSpec, render_scene
from mbv2det.demo.description import describe
from mbv2det.demo.exported import write_network
from mbv2det.errors import ConfigError

_HERE = Path(__file__).parent
RUNTIME = _HERE / "runtime"
# What a browser loads of onnxruntime-web.
_RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
_SAMPLES = ShapesSpec(num_val=12, size=(480, 640))
_SHOWN_SAMPLES = 6  # those with the most objects


def check_runtime() -> None:
    """Refuses to go on without the runtime's files, which `make demo` puts beside this module.

    Raises:
        ConfigError: If one is missing.
    """
    missing = [name for name in _RUNTIME_FILES if not (RUNTIME / name).is_file()]
    if missing:
        raise ConfigError(
            f"demo: expected the files of onnxruntime-web in {RUNTIME}, found no {missing[0]}; run "
            "`make demo` in the clone, and install the package again if it is not editable"
        )


def check_folder(out: Path) -> None:
    """Refuses to write into a folder of other files.

    Raises:
        ConfigError: If the folder has files and no demo.
    """
    if out.is_file() or (out.exists() and any(out.iterdir()) and not (out / "model.json").exists()):
        raise ConfigError(
            f"--static: expected a new folder, an empty one or that of a demo, got {out}"
        )


def write_site(file: Path, out: Path) -> None:
    """Writes a demo as a folder that any web server serves.

    Args:
        file: Weights, or an ONNX file that was exported with `--resize`.
        out: Folder to write to.

    Raises:
        ConfigError: If the runtime is missing, the folder has other files, or the file is of
            another kind than expected.
    """
    check_runtime()
    check_folder(out)
    if not file.is_file():
        raise ConfigError(f"--weights: expected a file, found none at {file}")
    (out / "samples").mkdir(parents=True, exist_ok=True)
    network = out / "model.onnx"
    description = describe(file.stem, network, *write_network(file, network))
    shutil.copytree(_HERE / "page", out, dirs_exist_ok=True)
    (out / "runtime").mkdir(exist_ok=True)
    for name in _RUNTIME_FILES:
        shutil.copyfile(RUNTIME / name, out / "runtime" / name)
    shutil.copyfile(_HERE / "onnxruntime-web.txt", out / "runtime/LICENSE.txt")
    description["samples"] = _write_samples(out)
    (out / "model.json").write_text(json.dumps(description))


def _write_samples(out: Path) -> list[str]:
    """Renders images of the embedded data set; returns their paths in the folder."""
    scenes = [render_scene(_SAMPLES, "val", index) for index in range(_SAMPLES.num_val)]
    scenes.sort(key=lambda scene: len(scene.labels), reverse=True)
    names = []
    for number, scene in enumerate(scenes[:_SHOWN_SAMPLES], start=1):
        names.append(f"samples/shapes_{number}.jpg")
        Image.fromarray(scene.image).save(out / names[-1], quality=92, subsampling=0)
    return names
