"""The Lightning module: wiring between the model, its tasks and the trainer, and nothing more."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from mbv2det.config import OptimConfig
from mbv2det.model import DensePredictor
from mbv2det.structures import Batch, LossTerms
from mbv2det.tasks import Task, monitored
from mbv2det.training.optim import frozen_norms, make_optimizer, make_schedule
from mbv2det.weights.share_file import ORIGIN, encode_origin

_COUNT = "count"


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; raised before the optimiser could spread it."""


class DenseModule(pl.LightningModule):
    """Trains and evaluates a model on any number of tasks.

    Args:
        model: Backbone and heads.
        tasks: One for each head.
        optim: Optimiser and schedule.
        metrics: By task name, over the validation split.
        image_names: Of the training split by index, for error messages.
        seen_by: Wraps the model for evaluation, as `mbv2det.build.seen_by`.
        header: Of the weights files; stored in checkpoints.
        seed: Of dropout.
        loaded: Names of the model's tensors that come from a file.
        kept: Those of them that come from a whole model.
    """

    def __init__(
        self,
        model: DensePredictor,
        tasks: Sequence[Task],
        optim: OptimConfig,
        metrics: Mapping[str, Metric],
        image_names: Sequence[str],
        seen_by: Callable[[DensePredictor], nn.Module],
        header: str = "",
        seed: int = 0,
        loaded: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.tasks = tasks
        self.optim = optim
        # In plain containers: metrics are neither weights nor averaged with them.
        self.metrics = dict(metrics)
        self.loss_sums = {
            (task.name, term): SumMetric() for task in tasks for term in (*task.loss_terms, _COUNT)
        }
        self.image_names = image_names
        self.seen_by = seen_by
        self.header = header
        self.seed = seed
        self.loaded = frozenset(loaded)
        self.kept = frozenset(kept)
        self.results: dict[str, dict[str, Any]] = {}
        for norm in frozen_norms(model, optim, self.loaded):
            norm.requires_grad_(False)
        self.train()  # Lightning keeps the modes that it finds

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Raw outputs by task."""
        return self.model(images)

    def train(self, mode: bool = True) -> "DenseModule":
        """Training or evaluation mode; frozen norms stay in the latter."""
        super().train(mode)
        for norm in frozen_norms(self.model, self.optim, self.loaded):
            norm.eval()
        return self

    def losses(self, outputs: Mapping[str, Any], batch: Batch) -> dict[str, LossTerms]:
        """Loss terms by task."""
        return {task.name: task.loss(outputs[task.name], batch) for task in self.tasks}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes what is dropped a function of (seed, step, rank): a resumed run drops the same."""
        step = self.trainer.fit_loop.total_batch_idx
        state = np.random.SeedSequence([self.seed, step, self.global_rank]).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, refused if it is not finite."""
        losses = self.losses(self(batch.images), batch)
        total = torch.stack([task.weight * losses[task.name].total() for task in self.tasks]).sum()
        if not torch.isfinite(total):
            raise NonFiniteLossError(self._explain(losses, batch))
        logged = {f"train/{term}_loss": v for t in losses.values() for term, v in t.means().items()}
        self.log_dict(logged, batch_size=len(batch))
        self.log("train/loss", total, prog_bar=True, batch_size=len(batch))
        return total

    def _explain(self, losses: Mapping[str, LossTerms], batch: Batch) -> str:
        terms = [
            f"{term} {float(v.detach()):g}"
            for t in losses.values()
            for term, v in t.means().items()
        ]
        images = ", ".join(str(self.image_names[key.index]) for key in batch.keys)
        return (
            f"step {self.global_step}: the loss is not finite ({', '.join(terms)}); no step was "
            f"taken. Try a lower optim.lr, trainer.gradient_clip_val or trainer.precision=32-true. "
            f"Images of the batch: {images}"
        )

    def on_validation_epoch_start(self) -> None:
        """Empties the metrics."""
        for metric in (*self.metrics.values(), *self.loss_sums.values()):
            metric.reset()
            metric.to(self.device)
        for loss_sum in self.loss_sums.values():
            loss_sum.update(0.0)  # a process may come to have no image

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Any]]:
        """Predictions of the batch's images by task, already counted by the metrics.

        Without the training's mixed precision, so that its numbers are those of `eval`.
        """
        batch = batch.counted()
        if not len(batch):
            return {task.name: [] for task in self.tasks}
        with torch.autocast(self.device.type, enabled=False):
            outputs = self.seen_by(self.model)(batch.images)
        predictions = {}
        for task in self.tasks:
            found = predictions[task.name] = task.predict(outputs[task.name], batch.frames)
            task.update(self.metrics[task.name], found, batch)
        self._count_losses(self.losses(outputs, batch))
        return predictions

    def _count_losses(self, losses: Mapping[str, LossTerms]) -> None:
        for task, terms in losses.items():
            for term, value in {**terms.sums, _COUNT: terms.count}.items():
                self.loss_sums[task, term].update(value)

    def on_validation_epoch_end(self) -> None:
        """Computes and logs what the whole split says."""
        self.results = {name: metric.compute() for name, metric in self.metrics.items()}
        for block in self.results.values():
            scalars = {f"val/{k}": v for k, v in block.items() if isinstance(v, float)}
            self.log_dict(scalars)
        self.log("val/score", monitored(self.tasks, self.results))
        self.log_dict(self._mean_losses())

    def _mean_losses(self) -> dict[str, float]:
        sums = {key: float(metric.compute()) for key, metric in self.loss_sums.items()}
        means = {
            f"val/{term}_loss": value / max(1.0, sums[task, _COUNT])
            for (task, term), value in sums.items()
            if term != _COUNT
        }
        weights = {
            f"val/{term}_loss": task.weight for task in self.tasks for term in task.loss_terms
        }
        return means | {"val/loss": sum(weights[name] * value for name, value in means.items())}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The configured optimiser, with a schedule that steps with it."""
        optimizer = make_optimizer(self.model, self.optim, self.kept)
        steps = self.trainer.estimated_stepping_batches
        schedule = make_schedule(optimizer, self.optim, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what it takes to use the weights without the configuration, and to resume."""
        checkpoint["mbv2det"] = self.header
        checkpoint[ORIGIN] = encode_origin(self.loaded, self.kept)


def metrics_document(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json: a block a task, and the most images that any of them covers."""
    images = max(block["images"] for block in results.values())
    return {**{name: dict(block) for name, block in results.items()}, "images": images}
