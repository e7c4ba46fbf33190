"""The export to int8: calibration images, what stays in float32, and what int8 gains and costs."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from mbv2det.benchmark.files import file_bytes
from mbv2det.benchmark.report import load_of_machine
from mbv2det.build import build_tasks, read_split
from mbv2det.cli.evaluation import with_own_classes
from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.data.annotations import evenly_spaced
from mbv2det.data.dataset import AnnotatedImages
from mbv2det.deploy.export import Export, export, quantize
from mbv2det.deploy.formats import INT8
from mbv2det.deploy.graph import GraphInfo
from mbv2det.deploy.load import load_graph
from mbv2det.deploy.quantization.quantizer import Calibration
from mbv2det.deploy.quantization.search import Search, search_float_parts
from mbv2det.deploy.quantization.sensitivity import signal_to_noise
from mbv2det.deploy.runtimes.runtime import Runtime
from mbv2det.errors import ConfigError
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import SampleKey

_NUM_RANKED_WITH = 16  # images that the sensitivity of the parts is found with
_ROUNDS, _WARM_UP = 30, 5


@dataclass(frozen=True)
class Int8Export:
    """An int8 file, and how it came about.

    Attributes:
        graph: Description of the file; None if no file stayed within the allowed drop.
        report: What was done, and the sizes and times of the file and its float32 version.
    """

    graph: GraphInfo | None
    report: dict[str, Any]


def export_int8(
    request: Export,
    path: Path,
    images: UInt8[Tensor, "N 3 H W"],
    *,
    max_drop: float | None = None,
    drop_of: Callable[[Path], float] | None = None,
) -> Int8Export:
    """Writes an int8 file, with as few parts in float32 as the allowed drop takes.

    Args:
        request: What to export.
        path: File to write; it is not written if the drop is too large with any part in int8.
        images: Calibration images of the network's input size.
        max_drop: Largest drop of a task's main metric, 0..1; None for any.
        drop_of: Measures the largest drop of an exported file; None where nothing is annotated.

    Raises:
        ConfigError: If there is a largest drop and nothing to measure it with.
    """
    if max_drop is not None and drop_of is None:
        raise ConfigError("--max-drop: expected a CONFIG with annotations to measure, got none")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        files = _Int8Files(request, images, Path(folder), path.name)
        report: dict[str, Any] = {"calibration_images": len(images)}
        float_parts: tuple[str, ...] = ()
        if max_drop is None:
            files.write(float_parts)
        else:
            assert drop_of is not None
            search = _search(files, max_drop, drop_of)
            report |= {"max_drop": max_drop, "steps": [asdict(step) for step in search.steps]}
            if search.found is None:
                return Int8Export(None, report)
            float_parts = search.found.float_parts
        report |= _costs(files.source, files.path(float_parts), images)
        for file in sorted(files.path(float_parts).parent.iterdir()):
            file.replace(path.with_name(file.name))
        return Int8Export(files.graphs[float_parts], report)


class _Int8Files:
    """The float32 file of a network, and int8 files of it, in a folder.

    Args:
        request: What to export.
        images: Calibration images of the network's input size.
        folder: Folder to write to.
        name: Name of the files, each of which has a folder of its own.

    Attributes:
        source: The float32 file.
        graphs: Description of each int8 file, by the parts that it computes in float32.
    """

    def __init__(self, request: Export, images: Tensor, folder: Path, name: str) -> None:
        self.request = request
        self.images = images
        self._folder = folder
        self._name = name
        self.source = folder / "float32" / name
        self._float_graph = export(replace(request, precision="fp32"), self.source)
        self.graphs: dict[tuple[str, ...], GraphInfo] = {}

    def path(self, float_parts: tuple[str, ...]) -> Path:
        """Returns the int8 file with these parts in float32, which differ in number."""
        return self._folder / f"int8_{len(float_parts)}" / self._name

    def write(self, float_parts: tuple[str, ...]) -> Path:
        """Writes the int8 file with these parts in float32, and returns it."""
        path, calibration = self.path(float_parts), Calibration(self.images, float_parts)
        self.graphs[float_parts] = quantize(
            self.request, self.source, self._float_graph, path, calibration
        )
        return path


def _search(files: _Int8Files, max_drop: float, drop_of: Callable[[Path], float]) -> Search:
    """Searches what stays in float32, and logs every step."""
    info, images = files.request.info, files.images

    def ranking() -> list[str]:
        tasks = build_tasks(info.model, info.eval, info.label_maps)
        chosen = images[evenly_spaced(len(images), _NUM_RANKED_WITH)]
        ratios = signal_to_noise(files.request.model, tasks, chosen)
        ranked = sorted(ratios, key=lambda part: ratios[part])
        worst = ", ".join(f"{part} {ratios[part]:.1f}" for part in ranked[:5])
        log(f"signal to noise with one part in int8, in dB: {worst}, ...")
        return ranked

    def measured(float_parts: tuple[str, ...]) -> float:
        drop = drop_of(files.write(float_parts))
        held = "within" if drop <= max_drop else "above"
        log(f"int8, {_in_words(float_parts)}: drop {drop:.4f}, {held} --max-drop {max_drop}")
        return drop

    return search_float_parts(ranking, measured, max_drop)


def _in_words(float_parts: Sequence[str]) -> str:
    if not float_parts:
        return "no part left in float32"
    parts = "part" if len(float_parts) == 1 else "parts"
    return f"{len(float_parts)} {parts} left in float32 ({', '.join(float_parts)})"


def check_int8_options(settings: Settings) -> None:
    """Refuses options of int8 with another precision, and values that make no sense.

    Raises:
        ConfigError: For such an option.
    """
    options = settings.options
    for name in ("calibration-images", "max-drop"):
        if name in settings.given and options.precision != INT8:
            raise ConfigError(f"--{name}: expected --precision int8, got {options.precision}")
    if options.calibration_images < 1:
        raise ConfigError(
            f"--calibration-images: expected at least 1, got {options.calibration_images}"
        )
    if options.max_drop is not None and not 0 <= options.max_drop <= 1:
        raise ConfigError(f"--max-drop: expected from 0 to 1, as AP, got {options.max_drop}")


def stop_without_file(report: dict[str, Any]) -> None:
    """Says that no int8 file stays within the allowed drop, and ends with exit code 1."""
    best = min(step["drop"] for step in report["int8"]["steps"])
    log(
        f"no file written: the smallest drop found is {best:.4f}, above --max-drop "
        f"{report['int8']['max_drop']}; allow more, or export with another precision"
    )
    sys.exit(1)


def calibration_images(
    settings: Settings, request: Export, *, own_data: bool
) -> UInt8[Tensor, "N 3 H W"]:
    """Returns images spread evenly over the training split, in the network's input size.

    Args:
        settings: Settings, with the options of the command.
        request: What to export.
        own_data: Whether the user named a configuration.

    Raises:
        DataError: If a file is damaged.
    """
    count = settings.options.calibration_images
    data = with_own_classes(settings.config.data, request.info.label_maps if own_data else {})
    split = read_split(data, data.train, "data.train", settings.config.tasks)
    images = AnnotatedImages(split, Preprocessor(request.info.preprocess))
    indices = evenly_spaced(len(split), count)
    pixels = np.stack([images[SampleKey(0, index)].image for index in indices])
    whose = "" if own_data else " of the embedded data set; give CONFIG to calibrate with yours"
    log(f"calibration: {len(indices)} images of data.train{whose}")
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _costs(source: Path, path: Path, images: Tensor) -> dict[str, Any]:
    """Returns sizes and times of the float32 and the int8 file, timed in turns with one thread."""
    files = {"fp32": source, "int8": path}
    load_before = load_of_machine()
    times = _times([load_graph(file, threads=1) for file in files.values()], images)
    return {
        "bytes": {name: file_bytes(file) for name, file in files.items()},
        "network_ms": dict(zip(files, (1000 * np.median(times, axis=1)).tolist(), strict=True)),
        "ratio": float(np.median(times[1] / times[0])),
        "threads": 1,
        "rounds": _ROUNDS,
        "load": [load_before, load_of_machine()],
    }


def _times(runtimes: Sequence[Runtime], images: Tensor) -> Float[np.ndarray, "files rounds"]:
    """Returns the seconds that each file takes for one image, in every round."""
    times = np.zeros((len(runtimes), _ROUNDS))
    for turn in range(-_WARM_UP, _ROUNDS):
        batch = images[turn % len(images), None]
        for row, runtime in enumerate(runtimes):
            start = time.perf_counter()
            runtime(batch)
            times[row, max(turn, 0)] = time.perf_counter() - start
    return times


def print_costs(costs: dict[str, Any], float_parts: Sequence[str]) -> None:
    """Prints sizes and times as a table on standard output."""
    if "bytes" not in costs:
        return
    table = Table(
        f"{costs['threads']} thread, {costs['rounds']} rounds in turns",
        *(Column(name, justify="right") for name in ("fp32", "int8", "ratio")),
    )
    sizes, times = ([costs[key]["fp32"], costs[key]["int8"]] for key in ("bytes", "network_ms"))
    table.add_row("file, MB", *(f"{n / 1e6:.2f}" for n in sizes), f"{sizes[1] / sizes[0]:.2f}")
    table.add_row("network, ms an image", *(f"{t:.2f}" for t in times), f"{costs['ratio']:.2f}")
    console = Console()
    console.print(table)
    console.print(_in_words(float_parts), highlight=False)
