"""Trains torchvision's own SSD with its SSDLite head, to compare with: same data, same measure.

    python tools/studies/peer_ssdlite.py CONFIG --backbone.weights FILE [--key.sub=value ...]

Takes the data, the number of epochs, the batch size and the seed from CONFIG; model, anchors, loss
and postprocessing are torchvision's. Recipe: SGD 0.06, momentum 0.9, weight decay 4e-5, linear
warm-up over a tenth of the steps, cosine; IoU crop and flip; the weights after the last epoch.
"""

import math
import sys
from collections import OrderedDict
from functools import partial

import peer
import torch
from rich.progress import track
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block

from mbv2det.cli.report import print_results
from mbv2det.cli.session import one_line_errors
from mbv2det.config import AugmentConfig
from mbv2det.data.datamodule import DenseData
from mbv2det.metrics.detection_ap import DetectionAP
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD
from mbv2det.structures import Batch, Detections
from mbv2det.training.module import metrics_document

_LR = 0.06
_EXPANSION_BLOCK = 14  # its expansion is the first level, as in torchvision's own SSDLite


class Extractor(nn.Module):
    """torchvision's SSDLite feature extractor, on MobileNetV2 instead of V3."""

    def __init__(self, features: nn.Sequential, norm: partial[nn.BatchNorm2d]) -> None:
        super().__init__()
        block = features[_EXPANSION_BLOCK].conv
        self.low = nn.Sequential(*features[:_EXPANSION_BLOCK], block[0])
        self.high = nn.Sequential(*block[1:], *features[_EXPANSION_BLOCK + 1 :])
        sizes = ((1280, 512), (512, 256), (256, 256), (256, 128))
        self.extra = nn.ModuleList(_extra_block(a, b, norm) for a, b in sizes)
        for module in self.extra.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.03)

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """The six levels."""
        levels = [self.low(images)]
        levels.append(self.high(levels[-1]))
        for extra in self.extra:
            levels.append(extra(levels[-1]))
        return OrderedDict((str(i), level) for i, level in enumerate(levels))


def build(num_classes: int, size: tuple[int, int], weights: str) -> SSD:
    """Torchvision's SSD on the given ImageNet weights."""
    backbone = mobilenet_v2()
    backbone.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    head = SSDLiteHead(
        [576, 1280, 512, 256, 256, 128], anchors.num_anchors_per_location(), num_classes + 1, norm
    )
    return SSD(
        Extractor(backbone.features, norm),
        anchors,
        size,
        num_classes + 1,
        head=head,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
        score_thresh=0.001,
        nms_thresh=0.55,
        detections_per_img=100,
        topk_candidates=300,
    ).to(memory_format=torch.channels_last)


def targets(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """The batch's objects as torchvision wants them: background is label 0."""
    kept = batch.boxes.valid & ~batch.boxes.ignore
    return [
        {"boxes": batch.boxes.boxes[i][keep], "labels": batch.boxes.labels[i][keep] + 1}
        for i, keep in enumerate(kept)
    ]


@torch.inference_mode()
def evaluate(model: SSD, data: DenseData) -> dict[str, object]:
    """The validation split by this project's metric, in the frame of the original images."""
    metric = DetectionAP(data.val.objects)
    model.eval()
    for batch in track(data.val_dataloader(), "Evaluating", transient=True):
        found = [
            Detections(frame.boxes_to_original(one["boxes"]), one["scores"], one["labels"] - 1)
            for one, frame in zip(
                model(list(batch.images.float() / 255)), batch.frames, strict=True
            )
        ]
        metric.update(found, [key.index for key in batch.keys])
    return metrics_document({"detection": metric.compute()})


def factor(step: int, total: int) -> float:
    """Of the learning rate: linear warm-up over a tenth of the steps, cosine."""
    rise = min(1.0, (step + 1) / max(1, total // 10))
    return rise * 0.5 * (1 + math.cos(math.pi * step / total))


@one_line_errors
def main() -> None:
    """Trains and evaluates."""
    settings = peer.parse(__doc__ or "", sys.argv[1:])
    config = settings.config
    torch.manual_seed(config.seed)
    data = peer.make_data(settings, AugmentConfig(photometric=0, expand=0))
    assert data.train is not None
    assert data.train.objects is not None
    model = build(len(data.train.objects.label_map), config.data.size, str(config.backbone.weights))

    def loss(batch: Batch) -> torch.Tensor:
        return sum(model(list(batch.images.float() / 255), targets(batch)).values())

    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9, weight_decay=4e-5)
    epochs = settings.trainer["max_epochs"]
    peer.train(model, data, epochs, optimizer=optimizer, factor=factor, loss=loss)
    print_results(evaluate(model, data))


if __name__ == "__main__":
    main()
