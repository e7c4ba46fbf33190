"""The metrics of a predictor on a split, whatever runs its network."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from mbv2det.config import EvalSettings
from mbv2det.console import track
from mbv2det.data.annotations import Annotations
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.geometry import Frame
from mbv2det.structures import Batch, Sample, SampleKey
from mbv2det.tasks import TrainableTask
from mbv2det.tasks.task import Prediction, metrics_document


@runtime_checkable
class BatchPredictor(Protocol):
    """A predictor of images that a loader has read and preprocessed."""

    @property
    def preprocessor(self) -> Callable[[Sample], Sample]:
        """Preprocessing of the images."""
        ...

    @property
    def max_batch(self) -> int | None:
        """Largest number of images of a batch; None if there is no limit."""
        ...

    def predict_batch(
        self, images: UInt8[Tensor, "B 3 H W"], frames: Sequence[Frame]
    ) -> list[Prediction]:
        """Predicts images that are preprocessed already."""
        ...


def ignore_predictions(predictions: Sequence[Prediction], batch: Batch) -> None:
    """Does nothing with the predictions of a batch."""


def measure(
    predictor: BatchPredictor,
    tasks: Sequence[TrainableTask],
    split: Annotations,
    settings: EvalSettings,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    observe: Callable[[Sequence[Prediction], Batch], None] = ignore_predictions,
) -> dict[str, Any]:
    """Measures a predictor on a split; images are read and resized as in training.

    Args:
        predictor: Predictor to measure.
        tasks: Those of its tasks that the split is annotated for.
        split: Annotations in the labels of the predictor.
        settings: How results are measured.
        batch_size: Number of images that the network gets at once.
        num_workers: Number of processes that read images; 0 reads in this process.
        observe: Gets the predictions of every batch.

    Returns:
        The content of metrics.json.

    Raises:
        DataError: If a file is damaged.
    """
    metrics = {task.name: task.metric(split, settings) for task in tasks}
    batches = _batches(split, predictor, batch_size, num_workers)
    for batch in track(batches, "Measuring"):
        predictions = predictor.predict_batch(batch.images, batch.frames)
        for task in tasks:
            task.update(metrics[task.name], predictions, batch)
        observe(predictions, batch)
    return metrics_document({name: metric.compute() for name, metric in metrics.items()})


def _batches(
    split: Annotations, predictor: BatchPredictor, batch_size: int, num_workers: int
) -> "DataLoader[Batch]":
    images = AnnotatedImages(split, predictor.preprocessor)
    keys = [SampleKey(0, index) for index in range(len(images))]
    batch_size = min(batch_size, predictor.max_batch or batch_size)
    loader: DataLoader[Any] = DataLoader[Sample](
        images, batch_size, sampler=keys, num_workers=num_workers, collate_fn=collate
    )
    return loader
