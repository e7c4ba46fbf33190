"""Trains torchvision's DeepLabv3 head for comparison: same backbone, weights, crops and steps.

    python tools/studies/peer_deeplabv3.py CONFIG --backbone.weights FILE [--key.sub=value ...]

CONFIG gives the data, the augmentation, the epochs, the batch size, the seed, the output stride of
MobileNetV2 (used up to layer 18), the optimizer and the schedule; with torchvision's own recipe
(SGD 0.01, poly) the network learns next to nothing in a few hundred steps. The head (ASPP with
three full atrous convolutions, 256 channels, then 3x3) and the interpolation are torchvision's. The
weights after the last epoch are measured, without averaging.
"""

import sys
from pathlib import Path

import peer
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from mbv2det.backbones.feature import Feature
from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.cli.tables import print_metrics
from mbv2det.console import one_line_errors
from mbv2det.data.datamodule import DenseData
from mbv2det.metrics.mean_iou import MeanIoU
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD
from mbv2det.structures import IGNORE_INDEX, Batch, SegmentationMap
from mbv2det.tasks.task import metrics_document
from mbv2det.training.optim import make_optimizer, schedule_factor
from mbv2det.weights.readers import load_backbone_weights, read_backbone

_FEATURE = Feature("layer_18")
# Atrous rates for output stride 16; torchvision's default, (12, 24, 36), is for 8.
_RATES = (6, 12, 18)


class Peer(nn.Module):
    """torchvision's DeepLabv3 head on mbv2det's backbone.

    Args:
        backbone: MobileNetV2 that returns `layer_18`.
        num_labels: Number of labels, background included.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: MobileNetV2, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(-1, 1, 1))
        self.backbone = backbone
        channels = backbone.feature_specs[_FEATURE].channels
        self.classifier = DeepLabHead(channels, num_labels, _RATES)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits at the size of the images, whose values are 0 to 255."""
        normalised = (images.float() / 255 - self.mean) / self.std
        logits = self.classifier(self.backbone(normalised)[_FEATURE])
        return F.interpolate(logits.float(), images.shape[-2:], mode="bilinear")

    def loss(self, batch: Batch) -> Tensor:
        """Returns the mean cross entropy over the annotated pixels."""
        assert batch.masks is not None
        logits = self(batch.images)
        return F.cross_entropy(logits, batch.masks.long(), ignore_index=IGNORE_INDEX)


@torch.inference_mode()
def evaluate(model: Peer, data: DenseData) -> dict[str, object]:
    """Measures the validation split with mbv2det's metric, in the frame of the original images."""
    assert data.val.masks is not None
    metric = MeanIoU(data.val.masks.label_map.names)
    model.eval()
    for batch in track(data.val_dataloader(), "Evaluating", transient=True):
        maps = []
        for logits, frame in zip(model(batch.images), batch.frames, strict=True):
            height, width = (
                round(side * scale) for side, scale in zip(frame.original, frame.scale, strict=True)
            )
            content = logits[None, :, :height, :width]
            full = F.interpolate(content, frame.original, mode="bilinear")
            maps.append(SegmentationMap(full[0].argmax(dim=0).to(torch.uint8)))
        metric.update(maps, batch.original_masks)
    return metrics_document({"segmentation": metric.compute()})


@one_line_errors
def main() -> None:
    """Runs the study."""
    settings = peer.parse(__doc__ or "", sys.argv[1:])
    config = settings.config
    torch.manual_seed(config.seed)
    data = peer.make_data(settings, config.augment)
    assert data.train is not None
    assert data.train.masks is not None
    backbone = MobileNetV2(1.0, config.backbone.output_stride, out_features=(_FEATURE,))
    load_backbone_weights(backbone, read_backbone(Path(str(config.backbone.weights))))
    model = Peer(backbone, len(data.train.masks.label_map)).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config.optim)
    epochs = settings.trainer["max_epochs"]

    def factor(step: int, total: int) -> float:
        return schedule_factor(config.optim, step, total)

    peer.train(model, data, epochs, optimizer=optimizer, factor=factor, loss=model.loss)
    print_metrics(evaluate(model, data))


if __name__ == "__main__":
    main()
