"""What a training is made of: the data, the network with its initial weights, and their header."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mbv2det.build import annotation_of, build, evaluation_model, label_maps_of, trainable
from mbv2det.cli.command_line import command_line
from mbv2det.cli.resume import check_resumed
from mbv2det.cli.settings import Settings
from mbv2det.cli.splits import read_splits
from mbv2det.config import DataConfig
from mbv2det.console import log
from mbv2det.data.annotations import Annotations
from mbv2det.data.augment import Augment
from mbv2det.data.datamodule import DenseData
from mbv2det.data.mixing import mixing_of_run
from mbv2det.data.repeat_factors import repeat_factors
from mbv2det.data.statistics import measure_value_range
from mbv2det.model import MultiTaskModel
from mbv2det.preprocess import Preprocessor
from mbv2det.training.class_weights import apply_class_weights
from mbv2det.training.initial_weights import InitialWeights, initial_weights
from mbv2det.training.module import DenseModule
from mbv2det.training.teacher import load_teacher
from mbv2det.training.trainer import num_loader_workers
from mbv2det.weights.header import WeightsInfo, encode_info
from mbv2det.weights.share_file import load_origin
from mbv2det.weights.transfer import Transfer


@dataclass(frozen=True)
class RunParts:
    """What a command line describes, before a network is built.

    Attributes:
        settings: The command line.
        training: Training split.
        validation: Validation split.
        initial: Weights to start from, with the settings that are stored with them.
        info: Header of the weights that the run writes.
        checkpoint: Checkpoint of a run that is resumed.
    """

    settings: Settings
    training: Annotations
    validation: Annotations
    initial: InitialWeights
    info: WeightsInfo
    checkpoint: Path | None = None

    @classmethod
    def read(cls, settings: Settings, checkpoint: Path | None = None) -> "RunParts":
        """Reads annotations and weights; logs what they are.

        Args:
            settings: The command line.
            checkpoint: Checkpoint of a run that is resumed.

        Raises:
            ConfigError: If settings and weights contradict each other.
            DataError: If a split cannot be read.
        """
        config = settings.config
        training, validation = read_splits(config)
        initial = initial_weights(config, settings.overrides, checkpoint)
        initial = with_value_range(initial, config.data, training)
        value_range = initial.preprocess.value_range
        training, validation = (
            replace(split, value_range=value_range) for split in (training, validation)
        )
        info = weights_info(settings, initial, training, checkpoint)
        return cls(settings, training, validation, initial, info, checkpoint)

    def module(self) -> DenseModule:
        """Builds the Lightning module, with the initial weights loaded."""
        config, info = self.settings.config, self.info
        model, tasks = build(info)
        transfer = self._load_into(model)
        for task in trainable(tasks):
            line = apply_class_weights(task, self.training)
            if line is not None:
                log(line)
        teacher = load_teacher(config.distill, model, trainable(tasks), info.preprocess.size)
        return DenseModule(
            model,
            trainable(tasks),
            config.optim,
            metrics={
                task.name: task.metric(self.validation, config.eval) for task in trainable(tasks)
            },
            image_names=self.training.image_ids.tolist(),
            evaluation_model=partial(
                evaluation_model, tasks=trainable(tasks), thresholds=info.eval
            ),
            header=encode_info(info),
            seed=config.seed,
            loaded=transfer.loaded,
            transferred=transfer.transferred,
            freeze=config.backbone.freeze,
            teacher=teacher,
        )

    def _load_into(self, model: MultiTaskModel) -> Transfer:
        """Loads the weights that the training starts from, and logs what was loaded."""
        if self.checkpoint is not None:  # its tensors are loaded by the trainer
            return Transfer([], *load_origin(self.checkpoint))
        transfer = self.initial.load_into(model, self.info.label_maps)
        for line in transfer.lines:
            log(line)
        if transfer.transferred:
            rate = self.settings.config.optim.pretrained_lr_mult
            log(f"  transferred tensors learn at {rate} of optim.lr (optim.pretrained_lr_mult)")
        return transfer

    def data(self) -> DenseData:
        """Builds the data loaders."""
        config, preprocessor = self.settings.config, Preprocessor(self.info.preprocess)
        annotation = annotation_of(config.tasks)
        augment = Augment(config.augment, preprocessor, config.seed, annotation)
        return DenseData(
            self.training,
            self.validation,
            preprocessor,
            augment,
            batch_size=config.data.batch_size,
            num_workers=num_loader_workers(config.data),
            seed=config.seed,
            on_error=config.data.on_error,
            factors=self._repeat_factors(),
            mix=mixing_of_run(
                config.augment,
                preprocessor,
                config.seed,
                self.training,
                self.settings.trainer["max_epochs"],
            ),
            reduction=augment.decoding_factor,
        )

    def _repeat_factors(self) -> Float[np.ndarray, " images"] | None:
        """Returns how often images are shown; logs how many are shown more often than others."""
        threshold = self.settings.config.data.repeat_threshold
        if not threshold:
            return None
        factors = repeat_factors(self.training, threshold)
        log(
            f"train: {int((factors > 1).sum())} of {len(factors)} images have rare classes and are "
            f"shown up to {factors.max():.1f} times as often (data.repeat_threshold)"
        )
        return factors


def with_value_range(
    initial: InitialWeights, data: DataConfig, training: Annotations
) -> InitialWeights:
    """Returns the weights with the value range of the images; logs it if an image needs one."""
    measured = measure_value_range(training)
    configured = measured if data.value_range == "auto" else data.value_range
    value_range = initial.preprocess.value_range or configured
    if measured is not None and value_range is not None:
        log(
            "train: images of more than 8 bits; their values "
            f"{value_range[0]:g}..{value_range[1]:g} become 0..255 (data.value_range)"
        )
    return replace(initial, preprocess=replace(initial.preprocess, value_range=value_range))


def weights_info(
    settings: Settings, initial: InitialWeights, training: Annotations, checkpoint: Path | None
) -> WeightsInfo:
    """Returns the header of the weights that the run writes; logs resolved settings.

    Raises:
        ConfigError: If the checkpoint to resume from is of another model.
    """
    for difference in initial.resolution.differences:
        log(str(difference))
    info = WeightsInfo(
        initial.model,
        initial.preprocess,
        label_maps_of(training, settings.config.tasks),
        settings.config.eval.thresholds(),
        command=command_line("train", settings.arguments),
    )
    if checkpoint is None:
        return info
    return replace(info, command=check_resumed(checkpoint, info).command)
