"""Weights files and exported files as subjects of a benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import mbv2det
from mbv2det.benchmark.subject import STAGES, Facts, Images, Setup, StageClock, Subject
from mbv2det.build import build, trainable
from mbv2det.counting import count
from mbv2det.deploy.load import is_exported
from mbv2det.errors import ConfigError
from mbv2det.weights.header import WeightsInfo

if TYPE_CHECKING:
    from mbv2det.deploy.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class FileSetup(Setup):
    """A weights file or an exported file, and the way it is run.

    Attributes:
        path: The file.
        device: Device to run on.
    """

    path: Path
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the file with its folder, since runs call all their files alike."""
        return f"{self.path.parent.name}/{self.path.name}"

    def load(self) -> Subject:
        """Loads the file.

        Raises:
            ConfigError: If it cannot be read or run in this way, or has no head.
        """
        predictor: Predictor = mbv2det.load(self.path, **self._options())
        if not predictor.tasks:
            raise ConfigError(f"{self.path}: expected a network with a head, got a backbone alone")
        return Subject(
            _facts(predictor.info, self.path), _TimedPredictor(predictor, StageClock(self.device))
        )

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"device": self.device}
        if is_exported(self.path):
            options |= {"backend": self.backend, "threads": self.threads}
        elif self.precision != "float32":
            options["dtype"] = self.precision
        return options


class _TimedPredictor:
    """Predicts and tells how long each stage took.

    Everything that is neither preprocessing nor network counts as postprocessing.

    Args:
        predictor: Predictor to time; its parts are replaced by timed ones.
        clock: Clock of the stages.
    """

    def __init__(self, predictor: "Predictor", clock: StageClock) -> None:
        self._predictor = predictor
        self._clock = clock
        vars(predictor)["preprocessor"] = clock.timed("preprocess", predictor.preprocessor)
        vars(predictor)["runtime"] = _TimedRuntime(predictor.runtime, clock)

    def __call__(self, images: Images) -> Mapping[str, float]:
        clock = self._clock
        clock.reset()
        start = clock.now()
        self._predictor(images)
        total = clock.now() - start
        preprocess, network = (clock.seconds[stage] for stage in STAGES[:2])
        return clock.seconds | {STAGES[2]: total - preprocess - network}


class _TimedRuntime:
    """A predictor's runtime whose calls are timed.

    Args:
        runtime: Runtime to time.
        clock: Clock of the stages.
    """

    def __init__(self, runtime: Any, clock: StageClock) -> None:
        self._runtime = runtime
        self._timed = clock.timed("network", runtime)

    def __call__(self, *args: Any) -> Any:
        return self._timed(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)


def _facts(info: WeightsInfo, path: Path) -> Facts:
    """Returns the facts of a file; its network is counted without being computed."""
    with torch.device("meta"):
        model, tasks = build(info)
        images = torch.zeros(1, 3, *info.preprocess.size)
        counts = count(model.eval(), lambda: model(images))
    measured = {
        f"{task.name} {task.monitor}": info.metrics[task.name][task.monitor]
        for task in trainable(tasks)
        if task.name in info.metrics
    }
    return Facts(
        info.preprocess.size,
        counts.parameters,
        counts.multiply_adds,
        file_bytes(path),
        {name: value for name, value in measured.items() if value is not None},
    )


def file_bytes(path: Path) -> int:
    """Returns the size of a file, with the weights that OpenVINO and ncnn put beside theirs."""
    beside = path.suffix in (".xml", ".param")
    files = [path, path.with_suffix(".bin")] if beside else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
