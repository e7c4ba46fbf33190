"""A toy detection method, to prove that one can be added in files of its own.

Dense points instead of anchors: each cell of one feature predicts, for the object whose centre lies
in it, a class and the distances to its four sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from mbv2det.detection.method import DetectionMethod
from mbv2det.model_config import carried
from mbv2det.structures import Detections, LossTerms


@dataclass
class PointOutputs:
    logits: torch.Tensor  # (B, P, K)
    distances: torch.Tensor  # (B, P, 4): left, top, right, bottom in strides
    points: torch.Tensor  # (P, 2): x, y in pixels of the network input
    stride: float


class PointHead(nn.Module):
    def __init__(self, feature, channels, stride, num_classes, hidden):
        super().__init__()
        self.feature, self.stride = feature, stride
        self.trunk = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU())
        self.classes = nn.Conv2d(hidden, num_classes, 1)
        self.sides = nn.Conv2d(hidden, 4, 1)

    def forward(self, features, image_size):
        x = self.trunk(features[self.feature])
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape[-2:])
        y, x_ = torch.meshgrid(rows, columns, indexing="ij")
        points = (torch.stack([x_, y], dim=-1).flatten(0, 1) + 0.5) * self.stride
        logits, sides = (m(x).flatten(2).transpose(1, 2) for m in (self.classes, self.sides))
        return PointOutputs(logits, F.softplus(sides), points, self.stride)

    def class_layers(self):
        return [self.classes]


@dataclass(frozen=True)
class PointLoss:
    terms: Sequence[str] = ("points", "sides")

    def __call__(self, outputs, targets):
        boxes, labels = targets.boxes, targets.labels
        low, high = boxes[:, None, :, :2], boxes[:, None, :, 2:]
        offset = outputs.points[None, :, None] - (low + high) / 2
        inside = (offset.abs() <= outputs.stride / 2).all(-1) & targets.valid[:, None]
        positive, owner = inside.float().max(dim=2)
        positive = positive > 0
        target = F.one_hot(labels.clamp(min=0), outputs.logits.shape[-1]).float()
        target = target.gather(1, owner[..., None].expand(-1, -1, target.shape[-1]))
        target = target * positive[..., None]
        classes = F.binary_cross_entropy_with_logits(outputs.logits, target, reduction="sum")
        box = boxes.gather(1, owner[..., None].expand(-1, -1, 4))
        point = outputs.points[None]
        target_sides = (
            torch.cat([point - box[..., :2], box[..., 2:] - point], dim=-1) / outputs.stride
        )
        sides = F.l1_loss(outputs.distances[positive], target_sides[positive], reduction="sum")
        return LossTerms({"points": classes, "sides": sides}, positive.sum().float())


@dataclass(frozen=True)
class PointPostprocess:
    most: int

    def __call__(self, outputs, frames):
        detections = []
        for logits, distances, frame in zip(outputs.logits, outputs.distances, frames, strict=True):
            scores, labels = logits.sigmoid().max(dim=1)
            scores, order = scores.topk(min(self.most, len(scores)))
            points, sides = outputs.points[order], distances[order] * outputs.stride
            boxes = torch.cat([points - sides[:, :2], points + sides[:, 2:]], dim=1)
            detections.append(Detections(frame.boxes_to_original(boxes), scores, labels[order]))
        return detections


@dataclass(frozen=True, kw_only=True)
class PointConfig(DetectionMethod):
    """Dense points.

    Attributes:
        name: points.
        hidden: Channels of the hidden layer.
    """

    name: Literal["points"] = carried("points")
    hidden: int = carried(16)

    def features(self, available: Any) -> tuple[Any, ...]:
        return (available.stride_16,)

    def build(self, backbone, width_mult, label_map):
        (feature,) = self.features(backbone.head_features)
        spec = backbone.feature_specs[feature]
        return PointHead(feature, spec.channels, spec.stride, len(label_map), self.hidden)

    def build_loss(self, class_weights=None):
        return PointLoss()

    def build_postprocess(self, label_map, thresholds):
        return PointPostprocess(thresholds.max_detections)

    def raw_tensor(self, outputs):
        return torch.cat([outputs.logits, outputs.distances], dim=-1)

    def describe_coverage(self, outputs, boxes):
        return f"points: {len(outputs.points)} for {len(boxes)} objects"
