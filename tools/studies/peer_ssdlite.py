"""Trains torchvision's SSD with its SSDLite head for comparison: same backbone, weights and data.

    python tools/studies/peer_ssdlite.py CONFIG --backbone.weights FILE [--key.sub=value ...]

CONFIG gives the data, the number of epochs, the batch size and the seed; the model, the anchors,
the loss and the postprocessing are torchvision's. Recipe: SGD with learning rate 0.06, momentum 0.9
and weight decay 4e-5; linear warm-up over a tenth of the steps, then cosine; IoU crop and flip. The
weights after the last epoch are measured, without averaging.
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

from mbv2det.augment_config import AugmentConfig
from mbv2det.cli.tables import print_metrics
from mbv2det.console import one_line_errors
from mbv2det.data.datamodule import DenseData
from mbv2det.metrics.detection_ap import DetectionAP
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD
from mbv2det.structures import Batch, Detections
from mbv2det.tasks.task import metrics_document

_LR = 0.06
_EXPANSION_BLOCK = 14  # its expansion is the first feature level, as in torchvision's SSDLite


class Extractor(nn.Module):
    """torchvision's SSDLite feature extractor, on MobileNetV2 instead of MobileNetV3.

    Args:
        features: Layers of torchvision's MobileNetV2.
        norm: Builder of the norms of the extra levels.
    """

    def __init__(self, features: nn.Sequential, norm: partial[nn.BatchNorm2d]) -> None:
        super().__init__()
        block = features[_EXPANSION_BLOCK].get_submodule("conv")
        assert isinstance(block, nn.Sequential)
        self.low = nn.Sequential(*features[:_EXPANSION_BLOCK], block[0])
        self.high = nn.Sequential(*block[1:], *features[_EXPANSION_BLOCK + 1 :])
        sizes = ((1280, 512), (512, 256), (256, 256), (256, 128))
        self.extra = nn.ModuleList(_extra_block(a, b, norm) for a, b in sizes)
        for module in self.extra.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.03)

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Returns the six feature levels by number, from fine to coarse."""
        levels = [self.low(images)]
        levels.append(self.high(levels[-1]))
        for extra in self.extra:
            levels.append(extra(levels[-1]))
        return OrderedDict((str(i), level) for i, level in enumerate(levels))


def build(num_classes: int, size: tuple[int, int], weights: str) -> SSD:
    """Builds torchvision's SSD, with ImageNet weights from a file."""
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
    """Returns the objects of each image as torchvision expects them; label 0 is background."""
    objects = batch.boxes.valid & ~batch.boxes.ignore
    return [
        {"boxes": batch.boxes.boxes[i][keep], "labels": batch.boxes.labels[i][keep] + 1}
        for i, keep in enumerate(objects)
    ]


@torch.inference_mode()
def evaluate(model: SSD, data: DenseData) -> dict[str, object]:
    """Measures the validation split with mbv2det's metric, in the frame of the original images."""
    assert data.val.objects is not None
    metric = DetectionAP(data.val.objects)
    model.eval()
    for batch in track(data.val_dataloader(), "Evaluating", transient=True):
        outputs = model(list(batch.images.float() / 255))
        detections = [
            Detections(frame.boxes_to_original(out["boxes"]), out["scores"], out["labels"] - 1)
            for out, frame in zip(outputs, batch.frames, strict=True)
        ]
        metric.update(detections, [key.index for key in batch.keys])
    return metrics_document({"detection": metric.compute()})


def factor(step: int, total: int) -> float:
    """Returns the factor of the learning rate: warm-up over a tenth of the steps, then cosine."""
    warm_up = min(1.0, (step + 1) / max(1, total // 10))
    return warm_up * 0.5 * (1 + math.cos(math.pi * step / total))


@one_line_errors
def main() -> None:
    """Runs the study."""
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
    print_metrics(evaluate(model, data))


if __name__ == "__main__":
    main()
