"""The configuration: every setting with its type, default and meaning.

One flat YAML file, parsed into these dataclasses by jsonargparse; an unknown key or a wrong type is
an error. Lightning's own `Trainer` arguments stand beside them under `trainer`.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mbv2det.backbones.layers import Padding
from mbv2det.backbones.mobilenet_v2 import Bottleneck, Shortcut
from mbv2det.errors import ConfigError
from mbv2det.structures import IGNORE_INDEX


def _expect(key: str, value: object, fine: bool, expected: str) -> None:
    if not fine:
        raise ConfigError(f"{key}: expected {expected}, got {value}")


_BACKBONE_SETTINGS = {
    "mobilenet_v2": (
        "width_mult",
        "padding",
        "scale_last_layer",
        "bottleneck",
        "shortcut",
        "zero_init_residual",
    ),
    "mobilenet_v1": ("width_mult", "padding"),
    "resnet50": (),
    "resnet101": (),
}


@dataclass(frozen=True)
class BackboneConfig:
    """The feature extractor.

    Attributes:
        name: mobilenet_v2, or what its paper compares it with: mobilenet_v1, resnet50, resnet101.
        width_mult: Multiplies its channels (not of a ResNet).
        output_stride: Input pixels per cell of its last feature: 16 or 8 for segmentation. SSDLite
            reads the same cells at any.
        padding: symmetric, or same as TensorFlow pads.
        norm_eps: Added to batch norm's variance; 1e-5 in torchvision's weights.
        norm_momentum: Weight of the newest batch in batch norm's running statistics.
        scale_last_layer: Of mobilenet_v2: let width_mult < 1 shrink the last 1280 channels too.
        bottleneck: Of mobilenet_v2: linear, or relu6 to see what the linear bottleneck is for.
        shortcut: Of mobilenet_v2: between bottlenecks, or between expansions, or none, to see what
            it is for.
        zero_init_residual: Of mobilenet_v2: blocks with a shortcut start as identity, which speeds
            up the first epochs.
        weights: File of backbone weights to start from: a weights file of this toolkit, which
            brings its padding, norm_eps, mean and standard deviation along, or torchvision's state
            dict, which brings ImageNet's mean and standard deviation.
    """

    name: Literal["mobilenet_v2", "mobilenet_v1", "resnet50", "resnet101"] = "mobilenet_v2"
    width_mult: float = 1.0
    output_stride: Literal[8, 16, 32] = 32
    padding: Padding = "symmetric"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.03
    scale_last_layer: bool = False
    bottleneck: Bottleneck = "linear"
    shortcut: Shortcut = "bottleneck"
    zero_init_residual: bool = True
    weights: str | None = None

    def __post_init__(self) -> None:
        _expect("backbone.width_mult", self.width_mult, self.width_mult > 0, "above 0")
        for name in {n for names in _BACKBONE_SETTINGS.values() for n in names} - set(self.own):
            value, default = getattr(self, name), getattr(type(self), name)
            _expect(f"backbone.{name}", value, value == default, f"{default} of {self.name}")

    @property
    def own(self) -> dict[str, Any]:
        """Settings that this backbone has and not all have, by name."""
        return {name: getattr(self, name) for name in _BACKBONE_SETTINGS[self.name]}


@dataclass(frozen=True)
class DetectionHeadConfig:
    """SSDLite and its loss.

    Attributes:
        name: ssdlite, or ssd with plain 3x3 convolutions.
        loss_weight: Of the task's loss beside those of other tasks.
        class_loss: softmax with 3:1 hard negatives; sigmoid with the same, each class and
            background for itself, as TensorFlow's weights were trained; or focal (sigmoid).
        box_weight: Multiplies the box loss.
        min_scale: Of the lowest level's anchors, as a fraction of the shorter side.
        max_scale: Of the highest level's.
        norm_eps: Added to batch norm's variance.
        norm_momentum: Weight of the newest batch in batch norm's running statistics.
    """

    name: Literal["ssdlite", "ssd"] = "ssdlite"
    loss_weight: float = 1.0
    class_loss: Literal["softmax", "sigmoid", "focal"] = "softmax"
    box_weight: float = 1.0
    min_scale: float = 0.2
    max_scale: float = 0.95
    norm_eps: float = 1e-3
    norm_momentum: float = 0.03

    @property
    def has_background(self) -> bool:
        """Whether the class logits have a slot for background."""
        return self.class_loss != "focal"


@dataclass(frozen=True)
class SegmentationHeadConfig:
    """DeepLabv3 or LR-ASPP and its loss.

    Attributes:
        name: deeplabv3, or lraspp for the lightest.
        loss_weight: Of the task's loss beside those of other tasks.
        aspp: Of deeplabv3: pool is image pooling and a 1x1 convolution, the paper's choice for
            mobile; full adds three atrous 3x3 convolutions, separable makes them depthwise
            separable. Their rates follow from backbone.output_stride.
        decoder: Of deeplabv3: refine at stride 4, as DeepLabv3+.
        channels: Of the head's convolutions; default 256, for lraspp 128.
        dropout: In front of the logits.
        auxiliary_weight: Of the loss of an auxiliary head on an earlier feature; 0 builds none.
        norm_eps: Added to batch norm's variance.
        norm_momentum: Weight of the newest batch in batch norm's running statistics.
    """

    name: Literal["deeplabv3", "lraspp"] = "deeplabv3"
    loss_weight: float = 1.0
    aspp: Literal["pool", "full", "separable"] = "pool"
    decoder: bool = False
    channels: int | None = None
    dropout: float = 0.1
    auxiliary_weight: float = 0.0
    norm_eps: float = 1e-5
    norm_momentum: float = 0.03

    def __post_init__(self) -> None:
        key = "heads.segmentation"
        _expect(f"{key}.dropout", self.dropout, 0 <= self.dropout < 1, "from 0 to below 1")
        weight = self.auxiliary_weight
        _expect(f"{key}.auxiliary_weight", weight, weight >= 0, "at least 0")
        if self.name == "lraspp":
            fine = self.aspp == "pool" and not self.decoder and not self.auxiliary_weight
            asked = f"aspp {self.aspp}, decoder {self.decoder}, auxiliary_weight {weight}"
            _expect(key, asked, fine, "lraspp without aspp, decoder and auxiliary head")


@dataclass(frozen=True)
class ClassificationHeadConfig:
    """A class for the whole image: of imported weights, which predict; no data set trains it.

    Attributes:
        dropout: In front of the logits.
    """

    dropout: float = 0.2


@dataclass(frozen=True)
class HeadsConfig:
    """The heads on the backbone, by task; none in the weights of a backbone alone.

    Attributes:
        detection: Boxes, or null for none.
        segmentation: A label for every pixel, or null for none.
        classification: A class for the whole image, or null for none.
    """

    detection: DetectionHeadConfig | None = None
    segmentation: SegmentationHeadConfig | None = None
    classification: ClassificationHeadConfig | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have a head."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)


@dataclass(frozen=True)
class SplitConfig:
    """Where one split lies, relative to data.root.

    Attributes:
        annotations: COCO: the JSON file. VOC: the folder of XML files (default Annotations).
        images: The folder of images (VOC: default JPEGImages; folder: default images).
        masks: The folder of index images (VOC: default SegmentationClass, then
            SegmentationClassAug; folder: default masks).
        list: VOC and folder: a file with one image name a line, instead of year and split.
        year: VOC: 2012, or several years for as many splits.
        split: VOC: a list in ImageSets/Main for boxes and in ImageSets/Segmentation for masks, or
            several.
        mask_split: VOC: the list in ImageSets/Segmentation, where it is another.
        mask_year: VOC: its year, or years.
    """

    annotations: str | None = None
    images: str | None = None
    masks: str | None = None
    list: str | None = None
    year: int | tuple[int, ...] = 2012
    split: str | tuple[str, ...] | None = None
    mask_split: str | tuple[str, ...] | None = None
    mask_year: int | tuple[int, ...] | None = None


@dataclass(frozen=True)
class DataConfig:
    """The data set.

    Attributes:
        root: Its folder.
        format: coco (JSON with boxes and outlines), voc (XML and index images), or folder (images
            and index images of the same names).
        train: Split trained on.
        val: Split evaluated on.
        embedded: The root is the embedded data set, rendered there on first use.
        classes: Names, or auto for all that the data set has. Of masks too: coco and voc (auto:
            Pascal's 20) put background in front; folder takes the names as those of the values
            0, 1, ...
        mask_classes: Names of the masks' labels where they are not those of classes, or voc for the
            21 of Pascal VOC. In voc and folder, of the values 0, 1, ... in the files; in coco, of
            background and some of its classes.
        mask_values: Values of mask_classes in the files, where they are not 0, 1, ...
        ignore_index: Value of the pixels that are neither learnt nor counted; null for none.
        image_size: Of the network input: one number, or height and width.
        resize: stretch to the input size, or fit and pad.
        batch_size: Images per process and step.
        num_workers: Processes that prepare batches, per training process; at most one a core.
    """

    root: str = "data"
    format: Literal["coco", "voc", "folder"] = "coco"
    train: SplitConfig = field(default_factory=SplitConfig)
    val: SplitConfig = field(default_factory=SplitConfig)
    embedded: bool = False
    classes: Literal["auto"] | tuple[str, ...] = "auto"
    mask_classes: Literal["voc"] | tuple[str, ...] | None = None
    mask_values: tuple[int, ...] | None = None
    ignore_index: int | None = IGNORE_INDEX
    image_size: int | tuple[int, int] = 320
    resize: Literal["stretch", "fit"] = "stretch"
    batch_size: int = 16
    num_workers: int = 2

    def __post_init__(self) -> None:
        _expect("data.batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        _expect("data.num_workers", self.num_workers, self.num_workers >= 0, "at least 0")
        _expect("data.image_size", self.image_size, min(self.size) >= 32, "at least 32 pixels")

    @property
    def size(self) -> tuple[int, int]:
        """image_size as (height, width)."""
        side = self.image_size
        return (side, side) if isinstance(side, int) else side


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the training split. A probability of 0 switches one off.

    Attributes:
        flip: Probability of a horizontal flip.
        photometric: Probability of each of brightness, contrast, saturation and hue jitter.
        expand: Probability of zooming out: the image on a larger canvas of the mean colour.
        expand_max: Largest side of the canvas, in sides of the image.
        iou_crop: Whether to crop by overlap with an object, as SSD does.
        crop_min_scale: Smallest side of a crop, in sides of the image.
        scale: Smallest and largest random scale, relative to the one that evaluation shows the
            image at, followed by a crop of the input's size, as DeepLab does; null for none.
    """

    flip: float = 0.5
    photometric: float = 0.5
    expand: float = 0.5
    expand_max: float = 4.0
    iou_crop: bool = True
    crop_min_scale: float = 0.3
    scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for key in ("flip", "photometric", "expand"):
            value = getattr(self, key)
            _expect(f"augment.{key}", value, 0 <= value <= 1, "a probability")
        _expect("augment.expand_max", self.expand_max, self.expand_max >= 1, "at least 1")
        scale = self.crop_min_scale
        _expect("augment.crop_min_scale", scale, 0 < scale <= 1, "above 0 and at most 1")
        if self.scale is not None:
            low, high = self.scale
            _expect("augment.scale", self.scale, 0 < low <= high, "two rising scales above 0")


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, schedule and weight averaging.

    Attributes:
        name: sgd with momentum, rmsprop as TensorFlow's, or adamw.
        lr: Learning rate at the end of the warm-up, for the batch size at hand.
        schedule: cosine to zero, poly to zero ((1 - progress) ** 0.9, as DeepLab), or constant.
        warmup_steps: Optimiser steps of linear warm-up; at most a tenth of the run.
        momentum: Of sgd and rmsprop.
        weight_decay: On convolution weights; depthwise weights, norms and biases have none.
        rms_decay: Of rmsprop's average of squares.
        rms_eps: Inside rmsprop's root.
        backbone_lr_mult: Multiplies the backbone's learning rate: below 1 the heads learn faster.
        kept_lr_mult: Multiplies the learning rate of the tensors that come whole from `weights`,
            which rates for training from scratch would destroy. Others learn at the full rate:
            those that start anew, and class layers as soon as one class does.
        freeze_norm: Batch norm that keeps its statistics and weights as they were loaded, where
            it was: none, of the backbone, or all. For batches of several processes,
            trainer.sync_batchnorm.
        ema_decay: Of the averaged weights that are evaluated and saved; 0 for none. Ramped up as
            (1 + n) / (10 + n) over the first steps.
    """

    name: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    lr: float = 0.05
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup_steps: int = 500
    momentum: float = 0.9
    weight_decay: float = 4e-5
    rms_decay: float = 0.9
    rms_eps: float = 1.0
    backbone_lr_mult: float = 1.0
    kept_lr_mult: float = 0.1
    freeze_norm: Literal["none", "backbone", "all"] = "none"
    ema_decay: float = 0.9998

    def __post_init__(self) -> None:
        _expect("optim.lr", self.lr, self.lr > 0, "above 0")
        _expect("optim.ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "from 0 to below 1")
        for key in ("warmup_steps", "momentum", "weight_decay", "backbone_lr_mult", "kept_lr_mult"):
            _expect(f"optim.{key}", getattr(self, key), getattr(self, key) >= 0, "at least 0")


@dataclass(frozen=True)
class EvalConfig:
    """Postprocessing.

    Attributes:
        score_threshold: Detections below are dropped.
        nms_iou: Of two boxes of a class overlapping by more, the weaker is dropped.
        max_detections: Kept of an image.
        scales: Sizes that segmentation sees the input at; its probabilities are averaged.
        flip: Whether segmentation sees the input mirrored too.
    """

    score_threshold: float = 0.001
    nms_iou: float = 0.6
    max_detections: int = 100
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        for key in ("score_threshold", "nms_iou"):
            value = getattr(self, key)
            _expect(f"eval.{key}", value, 0 <= value <= 1, "from 0 to 1")
        _expect("eval.max_detections", self.max_detections, self.max_detections >= 1, "at least 1")
        fine = len(self.scales) > 0 and min(self.scales) > 0
        _expect("eval.scales", self.scales, fine, "scales above 0")


@dataclass(frozen=True)
class ModelConfig:
    """What a weights file needs to rebuild its network."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)


@dataclass(frozen=True)
class Config(ModelConfig):
    """Everything but Lightning's Trainer arguments.

    Attributes:
        seed: Of initialisation, order and augmentation.
        weights: File of a whole model to start from, or in eval the one to measure. Its network,
            mean and standard deviation win over what is configured here; a training keeps the
            classes that both have by name and starts the others anew.
        over_weights: Names of settings in this file that win over the weights', as those on the
            command line do.
        backbone: The feature extractor.
        heads: The heads on it, by task.
        data: The data set.
        augment: Augmentation of the training split.
        optim: Optimiser, schedule and weight averaging.
        eval: Postprocessing.
    """

    seed: int = 0
    weights: str | None = None
    over_weights: tuple[str, ...] = ()
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        norm, weights = self.optim.freeze_norm, self.weights or self.backbone.weights
        fine = norm == "none" or weights is not None
        _expect("optim.freeze_norm", norm, fine, "none without weights or backbone.weights to keep")
        _expect("heads", "none", len(self.heads.tasks) > 0, "detection, segmentation or both")
        fine = self.heads.classification is None
        _expect(
            "heads.classification", "it", fine, "detection or segmentation, which data sets train"
        )
