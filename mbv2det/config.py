"""The settings of a run: data, augmentation, optimiser, and the model configuration.

One flat YAML file, parsed into these dataclasses by jsonargparse; an unknown key or a wrong type is
an error. The arguments of Lightning's `Trainer` are in the same file, under `trainer`.

The settings that are stored with weights are declared in `model_config.py`; `BackboneSettings` and
`EvalSettings` add the settings of a single run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from mbv2det.augment_config import AugmentConfig
from mbv2det.distillation import DistillConfig
from mbv2det.model_config import BackboneConfig, EvalConfig, HeadConfig, ModelConfig, expect
from mbv2det.structures import IGNORE_INDEX

Parent = TypeVar("Parent")


def _as_parent(parent: type[Parent], settings: Any) -> Parent:
    """Returns the settings that a parent class declares, as an object of that class."""
    return parent(**{f.name: getattr(settings, f.name) for f in fields(parent)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class BackboneSettings(BackboneConfig):
    """The backbone, and the weights that it starts from.

    Attributes:
        weights: Backbone weights to start from: all that `weights` takes, whose padding, norm_eps,
            mean and standard deviation are used, or a state dict or a name of torchvision, for
            which ImageNet's mean and standard deviation are used.
        freeze: Part that keeps its loaded weights: none; norm, the batch norms, where a batch has
            fewer than about 12 images; stages, also the layers up to stride 4; or all of it.
    """

    weights: str | None = None
    freeze: Literal["none", "norm", "stages", "all"] = "none"

    def architecture(self) -> BackboneConfig:
        """Returns the settings that are stored with weights."""
        return _as_parent(BackboneConfig, self)


@dataclass(frozen=True)
class SplitConfig:
    """Location of one split; paths are relative to data.root.

    Every format has some of these settings, and refuses the others: see the classes of
    mbv2det/data/formats, which say what a setting means there.

    Attributes:
        annotations: A file or folder of annotations (coco, voc, yolo, labelme, cvat).
        images: The folder of images (all formats).
        masks: The folder of masks (voc, folder).
        list: A file with one image name per line (all formats).
        split: Name of the split, or several names (voc, yolo), or of the subset (cvat).
        year: The year of VOC, such as 2012, or one year for each split (voc).
        mask_split: The list of images with masks where it differs from split (voc).
        mask_year: The year of the masks where it differs from year (voc).
    """

    annotations: str | None = None
    images: str | None = None
    masks: str | None = None
    list: str | None = None
    split: str | tuple[str, ...] | None = None
    year: int | tuple[int, ...] | None = None
    mask_split: str | tuple[str, ...] | None = None
    mask_year: int | tuple[int, ...] | None = None


@dataclass(frozen=True)
class DataConfig:
    """The data set.

    Attributes:
        root: Folder of the data set.
        format: coco (JSON with boxes and outlines), voc (XML and index masks), yolo (text files
            and data.yaml), labelme (JSON files), cvat (XML), or folder (images and masks).
        train: The split to train on.
        val: The split to evaluate on.
        embedded: Whether the root is the embedded data set, which is rendered on first use.
        classes: Names of the classes, or auto for all classes of the data set. The labels of masks
            are these classes with background in front, or, in folder, the names of the mask values
            0, 1, ... VOC's masks have VOC's 20 classes where this is auto.
        mask_classes: Names of the labels of masks, where they differ from classes, or voc for the
            21 labels of Pascal VOC. In voc and folder they name the mask values 0, 1, ...; where
            masks are drawn from outlines they are background and some of the classes.
        mask_values: Values of mask_classes in the files, where they differ from 0, 1, ... (voc,
            folder).
        mask_colors: Colour [red, green, blue] of each of mask_classes, for masks by colour (voc,
            folder).
        ignore_color: Colour of the pixels that are left out of training and metrics (voc, folder).
        mask_channel: The channel, 0 for the first, that has the values, for masks of several
            channels (voc, folder).
        mask_name: Pattern of the names of mask files, where {stem} is the name of the image, such
            as {stem}_mask.png (folder).
        image_name: Pattern of the names of image files, such as {stem}_leftImg8bit.png, where
            {stem} is what image and mask have in common (folder).
        missing_labels: What an image without a label file is: an error, or an image with
            no_objects; null for the rule of the format (voc, labelme: error; yolo: no_objects).
        ignore_index: Mask value of the pixels that are left out of training and metrics; null for
            none (voc, folder).
        image_size: Size of the network input in pixels: one number, or [height, width].
        resize: Rule for resizing images to that size: stretch, or fit (keep the aspect ratio and
            pad).
        value_range: Values of images of more than 8 bits that become 0 and 255, or auto for the
            smallest and largest value in up to 100 training images. It is stored with the weights;
            weights to start from keep theirs.
        batch_size: Number of images per process and step.
        repeat_threshold: Fraction of the training images below which a class of boxes is rare;
            images with rare classes are shown more often, up to sqrt(threshold / fraction) times
            (LVIS has 0.001); 0 for all images equally often.
        num_workers: Number of processes that load data, per training process; at most one per core.
        on_error: What training does with an image or mask that cannot be used (no image, wrong
            size, unknown mask values): stop with an error, or skip: leave it out, say so, and count
            it at the end of each epoch.
    """

    root: str = "data"
    format: Literal["coco", "voc", "yolo", "labelme", "cvat", "folder"] = "coco"
    train: SplitConfig = field(default_factory=SplitConfig)
    val: SplitConfig = field(default_factory=SplitConfig)
    embedded: bool = False
    classes: Literal["auto"] | tuple[str, ...] = "auto"
    mask_classes: Literal["voc"] | tuple[str, ...] | None = None
    mask_values: tuple[int, ...] | None = None
    mask_colors: tuple[tuple[int, int, int], ...] | None = None
    ignore_color: tuple[int, int, int] | None = None
    mask_channel: int | None = None
    mask_name: str | None = None
    image_name: str | None = None
    missing_labels: Literal["error", "no_objects"] | None = None
    ignore_index: int | None = IGNORE_INDEX
    image_size: int | tuple[int, int] = 320
    resize: Literal["stretch", "fit"] = "stretch"
    value_range: Literal["auto"] | tuple[float, float] = "auto"
    batch_size: int = 16
    repeat_threshold: float = 0.0
    num_workers: int = 2
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        expect("data.batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        threshold = self.repeat_threshold
        expect("data.repeat_threshold", threshold, 0 <= threshold <= 1, "a fraction, 0 to 1")
        expect("data.num_workers", self.num_workers, self.num_workers >= 0, "at least 0")
        if self.value_range != "auto":
            low, high = self.value_range
            expect("data.value_range", self.value_range, low < high, "two ascending numbers")
        expect("data.image_size", self.image_size, min(self.size) >= 32, "at least 32 pixels")

    @property
    def size(self) -> tuple[int, int]:
        """image_size as (height, width)."""
        side = self.image_size
        return (side, side) if isinstance(side, int) else side


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, schedule and weight averaging.

    Attributes:
        name: sgd with momentum, rmsprop as in TensorFlow, or adamw.
        lr: Learning rate after the warm-up, for a step of `reference_batch` images.
        reference_batch: Images of a step that `lr` is for. The rate of a run is lr times its images
            a step (batch size, processes and accumulated batches multiplied) divided by this
            number; null takes lr as it is.
        schedule: cosine to zero, poly to zero ((1 - progress) ** 0.9, as DeepLab), or constant.
        warmup_steps: Optimiser steps of linear warm-up; at most a tenth of the run.
        momentum: Momentum of sgd and rmsprop.
        weight_decay: Weight decay of convolution weights; depthwise weights, norms and biases have
            none.
        rms_decay: Decay of rmsprop's running average of squares.
        rms_eps: Epsilon under rmsprop's square root.
        backbone_lr_mult: Multiplier of the backbone's learning rate; below 1 the heads learn
            faster.
        pretrained_lr_mult: Multiplier of the learning rate of the tensors that were copied as a
            whole from `weights`, since the rate for training from scratch would destroy them. All
            others learn at the full rate: newly initialised tensors, and class layers with at least
            one new class.
        freeze_norm: Whether the batch norms of the heads keep their loaded statistics and weights,
            too: none or all, which includes those of the backbone. See backbone.freeze. For batch
            statistics over several processes, see trainer.sync_batchnorm.
        ema_decay: Decay of the averaged weights, which are evaluated and saved; 0 for no averaging.
            It rises as (1 + n) / (10 + n) over the first n steps.
    """

    name: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    lr: float = 0.05
    reference_batch: int | None = None
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup_steps: int = 500
    momentum: float = 0.9
    weight_decay: float = 4e-5
    rms_decay: float = 0.9
    rms_eps: float = 1.0
    backbone_lr_mult: float = 1.0
    pretrained_lr_mult: float = 0.1
    freeze_norm: Literal["none", "all"] = "none"
    ema_decay: float = 0.9998

    def __post_init__(self) -> None:
        expect("optim.lr", self.lr, self.lr > 0, "above 0")
        reference = self.reference_batch
        expect("optim.reference_batch", reference, reference is None or reference > 0, "above 0")
        expect("optim.ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "from 0 to below 1")
        for key in (
            "warmup_steps",
            "momentum",
            "weight_decay",
            "backbone_lr_mult",
            "pretrained_lr_mult",
        ):
            expect(f"optim.{key}", getattr(self, key), getattr(self, key) >= 0, "at least 0")


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints to resume from.

    Attributes:
        every_n_steps: Optimiser steps after which a checkpoint is written, besides that at the end
            of every epoch; 0 for none. The newest two survive.
    """

    every_n_steps: int = 1000

    def __post_init__(self) -> None:
        steps = self.every_n_steps
        expect("checkpoint.every_n_steps", steps, steps >= 0, "at least 0")


@dataclass(frozen=True)
class EvalSettings(EvalConfig):
    """Postprocessing, augmentation at test time, and settings of the metrics.

    Attributes:
        backend: Package that computes COCO's average precision: faster_coco_eval, or pycocotools,
            the official code. Both give the same numbers.
    """

    backend: Literal["faster_coco_eval", "pycocotools"] = "faster_coco_eval"

    def thresholds(self) -> EvalConfig:
        """Returns the settings that are stored with weights."""
        return _as_parent(EvalConfig, self)


@dataclass(frozen=True)
class Config:
    """All settings of a run except the arguments of Lightning's Trainer.

    Attributes:
        seed: Seed of initialisation, data order and augmentation.
        weights: A whole model, to start training from or, in eval, to measure: a weights file; the
            name of a TensorFlow release such as ssdlite_mobilenet_v2_coco_2018_05_09, or its
            archive; a repository OWNER/NAME of the Hugging Face Hub, or its folder; or an address
            https://.... Its network, mean and standard deviation take precedence over the settings
            here; training copies the classes that both have by name, and initialises the others.
        override_weights: Names of settings in this file that take precedence over those of the
            weights, as settings on the command line do.
        backbone: The feature extractor.
        heads: Settings of the head of each task; detection, segmentation or both.
        data: The data set.
        augment: Augmentation of the training split.
        optim: Optimiser, schedule and weight averaging.
        distill: A larger network that teaches this one.
        eval: Postprocessing, augmentation at test time, and settings of the metrics.
        checkpoint: Checkpoints to resume from.
    """

    seed: int = 0
    weights: str | None = None
    override_weights: tuple[str, ...] = ()
    backbone: BackboneSettings = BackboneSettings()
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    eval: EvalSettings = field(default_factory=EvalSettings)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        weights = self.weights or self.backbone.weights
        for key, value in (
            ("optim.freeze_norm", self.optim.freeze_norm),
            ("backbone.freeze", self.backbone.freeze),
        ):
            valid = value == "none" or weights is not None
            expect(key, value, valid, "none without weights or backbone.weights")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have a head."""
        return tuple(self.heads)

    def model(self) -> ModelConfig:
        """Returns the configuration of the model, which is stored with weights."""
        return ModelConfig(self.backbone.architecture(), self.heads)
