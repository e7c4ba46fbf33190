"""Opens a file for prediction: weights of this toolkit, or a file that it exported."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from mbv2det.build import build_tasks
from mbv2det.deploy.graph import graph_reader
from mbv2det.deploy.predictor import Predictor, load_model
from mbv2det.deploy.runtimes.runtime import GraphRuntime
from mbv2det.errors import ConfigError
from mbv2det.preprocess import unchanged

Backend = Literal["torch", "onnxruntime", "openvino", "litert", "ncnn"]
Dtype = Literal["float32", "float16", "bfloat16"]

# The backends that run a file, by its suffix; the first is the default. Weights files run in torch.
_RUNTIMES: dict[str, dict[str, str]] = {
    ".pt2": {"torch": "pt2:Pt2Runtime"},
    ".onnx": {"onnxruntime": "onnxruntime:OnnxRuntime", "openvino": "openvino:OpenVinoRuntime"},
    ".xml": {"openvino": "openvino:OpenVinoRuntime"},
    ".tflite": {"litert": "litert:LiteRtRuntime"},
    ".param": {"ncnn": "ncnn:NcnnRuntime"},
}
EXPORTED = tuple(_RUNTIMES)


def load(
    path: str | Path,
    backend: Backend | None = None,
    device: torch.device | str = "auto",
    threads: int | None = None,
    *,
    dtype: Dtype = "float32",
    compile: bool = False,
) -> Predictor:
    """Loads a predictor from a weights file or an exported file.

    Args:
        path: A `.safetensors` file of this toolkit, a `.ckpt` of one of its runs, or a file that
            `export` wrote: `.onnx`, `.xml` (OpenVINO), `.pt2`, `.tflite` (LiteRT), `.param`
            (ncnn); or weights from elsewhere, as for `mbv2det.weights.readers.read_model`.
        backend: Backend to run it; None for that of the file's suffix.
        device: Device to run on; "auto" takes a GPU if there is one and the backend can use it.
        threads: Number of threads; None leaves it to the backend. PyTorch has one number for the
            whole process.
        dtype: Type of weights and features; an exported file has its own.
        compile: Whether to compile the network at its first call (`torch.compile`); for weights.

    Raises:
        ConfigError: If the file is missing, damaged or of another toolkit, the backend cannot run
            it or is not installed, or there is no such device.
    """
    if is_exported(path):
        if dtype != "float32" or compile:
            raise ConfigError(
                f"{path}: dtype and compile are for weights files; an exported file has the "
                "precision that it was exported with"
            )
        return _load_exported(Path(path), backend, str(device), threads)
    if Path(path).suffix == ".mlpackage":
        raise ConfigError(f"{path}: only macOS runs Core ML files, by Core ML itself")
    if backend not in (None, "torch"):
        raise ConfigError(
            f"{path}: expected a file that {backend} runs, got weights; export them first"
        )
    model, info = load_model(path)
    return Predictor.of_model(
        model, info, device, dtype=getattr(torch, dtype), compile=compile, threads=threads
    )


def load_graph(
    path: Path, backend: str | None = None, device: str = "auto", threads: int | None = None
) -> GraphRuntime:
    """Opens an exported file; arguments and errors as for `load`."""
    if not path.is_file():
        raise ConfigError(f"{path}: expected a file, found none")
    runtimes = _RUNTIMES[path.suffix]
    chosen = default_backend(path) if backend is None else backend
    if chosen not in runtimes:
        raise ConfigError(
            f"backend: expected {' or '.join(runtimes)} for a {path.suffix} file, got {backend}"
        )
    module, name = runtimes[chosen].split(":")
    runtime: Callable[..., Any] = getattr(import_module(f"mbv2det.deploy.runtimes.{module}"), name)
    return runtime(path, device, threads)


def default_backend(path: str | Path) -> str:
    """Returns the backend that runs an exported file where none is asked for."""
    return next(iter(_RUNTIMES[Path(path).suffix]))


def is_exported(path: str | Path) -> bool:
    """Returns whether a file is an exported one, judged by its name."""
    return Path(path).suffix in EXPORTED


def _load_exported(path: Path, backend: str | None, device: str, threads: int | None) -> Predictor:
    runtime = load_graph(path, backend, device, threads)
    info = runtime.info
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    reader = graph_reader(tasks, runtime.graph)
    preprocessor = unchanged if runtime.graph.resizes else None
    return Predictor(runtime, info, read=reader, preprocessor=preprocessor)
