"""The Lightning module, which connects the model, its tasks and the trainer."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import SumMetric

from mbv2det.config import OptimConfig
from mbv2det.console import log
from mbv2det.errors import NonFiniteLossError
from mbv2det.model import MultiTaskModel
from mbv2det.structures import Batch, LossTerms
from mbv2det.tasks.task import (
    Prediction,
    SplitMetric,
    TrainableTask,
    mean_monitor,
    predict_all,
)
from mbv2det.training.freezing import BackboneFreeze, frozen_parts
from mbv2det.training.optim import (
    make_optimizer,
    make_schedule,
    scaled_to_batch,
    warmup_steps,
)
from mbv2det.training.teacher import Teacher
from mbv2det.weights.header import HEADER, upgrade_checkpoint
from mbv2det.weights.share_file import ORIGIN, encode_origin

_COUNT = "count"
_FEW_STEPS = 300  # fewer, and a detector that starts from ImageNet finds few objects


class DenseModule(pl.LightningModule):
    """Trains and evaluates a model on any number of tasks.

    Args:
        model: Backbone and heads.
        tasks: One task for each head.
        optim: Optimiser and schedule.
        metrics: Metric of each task over the validation split, by task name.
        image_names: Name of each training image by index, for error messages.
        evaluation_model: Function that returns the model for evaluation, such as
            `mbv2det.build.evaluation_model`.
        header: Header of the weights files, stored in checkpoints.
        seed: Seed of dropout.
        loaded: Names of the model's tensors that were loaded from a file.
        transferred: Names of the loaded tensors that come from a whole model.
        freeze: Part of the backbone that keeps its loaded weights (`backbone.freeze`).
        teacher: Network that teaches the model, besides the annotation; None without distillation.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        tasks: Sequence[TrainableTask],
        optim: OptimConfig,
        metrics: Mapping[str, SplitMetric],
        image_names: Sequence[str],
        evaluation_model: Callable[[MultiTaskModel], nn.Module],
        header: str = "",
        seed: int = 0,
        loaded: Collection[str] = (),
        transferred: Collection[str] = (),
        freeze: BackboneFreeze = "none",
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tasks = tasks
        self.configured_optim = self.optim = optim
        # Plain containers: metrics are not submodules, whose state would be saved and averaged.
        self.metrics = dict(metrics)
        self.loss_sums = {
            (task.name, term): SumMetric() for task in tasks for term in (*task.loss_terms, _COUNT)
        }
        self.image_names = image_names
        self.evaluation_model = evaluation_model
        self.header = header
        self.seed = seed
        self.loaded = frozenset(loaded)
        self.transferred = frozenset(transferred)
        self.results: dict[str, dict[str, Any]] = {}
        self.network: Callable[[Tensor], dict[str, Any]] | None = None  # compiled
        self.backbone_freeze = freeze
        self.teacher = teacher
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self.train()  # Lightning does not change the modes of the submodules

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Returns the raw outputs by task name."""
        return (self.network or self.model)(images)

    def compile_network(self) -> None:
        """Makes `forward` run the network compiled; the first call of it takes a minute.

        Evaluation runs the network as it is, so that metrics equal those of `eval`. The compiled
        function is no module: names of tensors in checkpoints stay as they are.
        """
        model = self.model

        def network(images: Tensor) -> dict[str, Any]:
            return model(images)

        self.network = torch.compile(network)
        log("model: compiled at the first step (trainer.compile)")

    def train(self, mode: bool = True) -> "DenseModule":
        """Sets training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        return frozen_parts(self.model, self.backbone_freeze, self.optim.freeze_norm, self.loaded)

    def losses(self, outputs: Mapping[str, Any], batch: Batch) -> dict[str, LossTerms]:
        """Returns the loss terms by task name."""
        return {task.name: task.loss(outputs[task.name], batch) for task in self.tasks}

    def training_losses(self, batch: Batch) -> list[tuple[float, LossTerms]]:
        """Returns all loss terms of a training step, with the weight of each group of terms."""
        outputs = self(batch.images)
        losses = self.losses(outputs, batch)
        weighted = [(task.weight, losses[task.name]) for task in self.tasks]
        if self.teacher is not None:
            taught = self.teacher.terms(outputs, batch.images)
            weighted += [(t.weight * self.teacher.weight, taught[t.name]) for t in self.tasks]
        return weighted

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout from (seed, step, rank), so that a resumed run drops the same values."""
        step = self.trainer.fit_loop.total_batch_idx
        state = np.random.SeedSequence([self.seed, step, self.global_rank]).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch.

        Losses are divided by the mean count of all processes. DDP averages the gradients, so that N
        processes of batch size b train like one process of batch size N x b.

        Raises:
            NonFiniteLossError: If the loss is not finite; no optimiser step is taken.
        """
        weights, losses = zip(*self.training_losses(batch), strict=True)
        counts = _mean_over_processes(torch.stack([terms.count for terms in losses]))
        means = [
            terms.means(count, min_count=1 / _num_processes())
            for terms, count in zip(losses, counts, strict=True)
        ]
        totals = [
            weight * torch.stack(list(terms.values())).sum()
            for weight, terms in zip(weights, means, strict=True)
        ]
        total = torch.stack(totals).sum()
        if not torch.isfinite(total):
            raise NonFiniteLossError(self._explain(losses, batch))
        logged = {f"train/{term}_loss": value for terms in means for term, value in terms.items()}
        self.log_dict(logged, batch_size=len(batch))
        self.log("train/loss", total, prog_bar=True, batch_size=len(batch))
        return total

    def _explain(self, losses: Sequence[LossTerms], batch: Batch) -> str:
        terms = [
            f"{term} {float(value.detach()):g}"
            for group in losses
            for term, value in group.means().items()
        ]
        images = ", ".join(str(self.image_names[key.index]) for key in batch.keys)
        return (
            f"step {self.global_step}: the loss is not finite ({', '.join(terms)}); no step was "
            f"taken. Try a lower optim.lr, trainer.gradient_clip_val or trainer.precision=32-true. "
            f"Images of the batch: {images}"
        )

    def on_validation_epoch_start(self) -> None:
        """Resets the metrics."""
        for metric in (*self.metrics.values(), *self.loss_sums.values()):
            metric.reset()
            metric.to(self.device)
        for loss_sum in self.loss_sums.values():
            loss_sum.update(0.0)  # for a process without images

    def validation_step(  # type: ignore[override]  # for our callbacks, which take predictions
        self, batch: Batch, batch_idx: int
    ) -> list[Prediction]:
        """Predicts the images of a batch and adds the predictions to the metrics.

        It does not use the mixed precision of training, so that the metrics equal those of `eval`.
        """
        batch = batch.counted()
        if not len(batch):
            return []
        with torch.autocast(self.device.type, enabled=False):
            outputs = self.evaluation_model(self.model)(batch.images)
        predictions = predict_all(self.tasks, outputs, batch.frames)
        for task in self.tasks:
            task.update(self.metrics[task.name], predictions, batch)
        self._count_losses(self.losses(outputs, batch))
        return predictions

    def _count_losses(self, losses: Mapping[str, LossTerms]) -> None:
        for task, terms in losses.items():
            for term, value in {**terms.sums, _COUNT: terms.count}.items():
                self.loss_sums[task, term].update(value)

    def on_validation_epoch_end(self) -> None:
        """Computes and logs the metrics of the whole split."""
        self.results = {name: metric.compute() for name, metric in self.metrics.items()}
        for block in self.results.values():
            scalars = {f"val/{k}": v for k, v in block.items() if isinstance(v, float)}
            self.log_dict(scalars)
        score = mean_monitor(self.tasks, self.results)
        if score is not None:
            self.log("val/score", score)
        self.log_dict(self._mean_losses())

    def _mean_losses(self) -> dict[str, float]:
        """Returns the mean losses; without those of tasks that had no ground truth to count."""
        sums = {key: float(metric.compute()) for key, metric in self.loss_sums.items()}
        means = {
            f"val/{term}_loss": value / sums[task, _COUNT]
            for (task, term), value in sums.items()
            if term != _COUNT and sums[task, _COUNT]
        }
        weights = {
            f"val/{term}_loss": task.weight for task in self.tasks for term in task.loss_terms
        }
        total = sum(weights[name] * value for name, value in means.items())
        return means | ({"val/loss": total} if means else {})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns the configured optimiser, and its schedule, which is updated at every step."""
        self._scale_rate()
        optimizer = make_optimizer(self.model, self.optim, self.transferred)
        steps = self.trainer.estimated_stepping_batches
        self._log_steps(steps)
        schedule = make_schedule(optimizer, self.optim, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _scale_rate(self) -> None:
        """Scales the learning rate from the reference batch to the images of a step; logs it."""
        configured = self.configured_optim
        if configured.reference_batch is None:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        batches = self.trainer.world_size * self.trainer.accumulate_grad_batches
        num_images = data.batch_size * batches
        self.optim = scaled_to_batch(configured, num_images)
        if self.optim.lr != configured.lr:
            log(
                f"optim.lr: {self.optim.lr:g} for {num_images} images a step; {configured.lr:g} is "
                f"configured for {configured.reference_batch} (optim.reference_batch)"
            )

    def _log_steps(self, steps: float) -> None:
        """Logs the length of the schedule, and warns of one that is too short to learn much."""
        if math.isinf(steps):
            return
        warmup = warmup_steps(self.optim, steps)
        log(f"schedule: {self.optim.schedule}, {steps:.0f} steps, {warmup:.0f} of them warm-up")
        epochs = self.trainer.max_epochs
        if steps < _FEW_STEPS and self.trainer.max_steps == -1 and epochs:
            enough = math.ceil(epochs * _FEW_STEPS / steps)
            log(
                f"warning: a network learns little in {steps:.0f} steps; "
                f"--trainer.max_epochs={enough} makes {_FEW_STEPS} of them"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the header of the weights, and the origin of the tensors for resuming."""
        checkpoint[HEADER] = self.header
        checkpoint[ORIGIN] = encode_origin(self.loaded, self.transferred)

    def on_train_start(self) -> None:
        """Gives the optimiser of a resumed run the configured rates, instead of the stored ones."""
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        if not isinstance(schedulers, LambdaLR):  # those of Lightning's tuner set rates themselves
            return
        assert isinstance(optimizers, LightningOptimizer)
        configured = make_optimizer(self.model, self.optim, self.transferred).param_groups
        for group, fresh in zip(optimizers.param_groups, configured, strict=True):
            group.update({k: v for k, v in fresh.items() if k not in ("params", "lr")})
            group["initial_lr"] = fresh["lr"]
        step = schedulers.last_epoch
        schedulers.base_lrs = [group["initial_lr"] for group in optimizers.param_groups]
        factors = [factor(step) for factor in schedulers.lr_lambdas]
        for group, factor in zip(optimizers.param_groups, factors, strict=True):
            group["lr"] = group["initial_lr"] * factor

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Updates a checkpoint of an earlier version, in place."""
        upgrade_checkpoint(checkpoint)


def _num_processes() -> int:
    """Returns the number of processes of a distributed run, else 1."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _mean_over_processes(counts: Tensor) -> Tensor:
    """Returns the mean of a tensor over all processes, without gradient."""
    if _num_processes() == 1:
        return counts
    counts = counts.detach().clone()
    dist.all_reduce(counts)
    return counts / _num_processes()
