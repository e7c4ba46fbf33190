"""The networks of `mbv2det.weights.tensorflow` in TensorFlow's own operations, to compare with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbv2det.tasks import DetectionTask, SegmentationTask
from mbv2det.weights.architecture import CLASSIFIER
from mbv2det.weights.source import WeightsSource

# Strides of layers 2 to 18 at output stride 32.
_STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
_LEVELS = 6
_ANCHORS = (3, 6, 6, 6, 6, 6)  # per cell, by level


@dataclass(frozen=True)
class TensorFlowNetwork:
    """MobileNetV2 and its heads on TensorFlow's variables.

    Modules have the names of ours, so that the two can be read side by side.

    Attributes:
        variables: Arrays by TensorFlow's names, in its layouts.
        name_of: Maps the name of a tensor of ours to its variable's.
        norm_eps: Epsilon of batch norm in the backbone and in SSDLite.
    """

    variables: Mapping[str, np.ndarray]
    name_of: Callable[[str], str]
    norm_eps: float

    def classifier(self, images: Tensor) -> Tensor:
        """Returns the logits (B, K) of normalised images (B, 3, H, W)."""
        x = self._features(_nhwc(images), 32)["layer_19"].numpy().mean(axis=(1, 2), keepdims=True)
        return torch.from_numpy(self._plain(x, CLASSIFIER).numpy()[:, 0, 0])

    def deeplab(self, images: Tensor, output_stride: int, norm_eps: float) -> Tensor:
        """Returns the logits (B, L, h, w) of normalised images, without atrous branches."""
        import tensorflow as tf

        x = self._features(_nhwc(images), output_stride)["layer_18"]
        settings = {"norm_eps": norm_eps, "act": tf.nn.relu}
        pooled = tf.reduce_mean(x, axis=(1, 2), keepdims=True)
        pooled = self._conv(pooled, "heads.segmentation.aspp.pool", **settings)
        pooled = tf.broadcast_to(pooled, [*x.shape[:3], pooled.shape[3]])
        joined = tf.concat(
            [pooled, self._conv(x, "heads.segmentation.aspp.pointwise", **settings)], axis=3
        )
        joined = self._conv(joined, "heads.segmentation.aspp.project", **settings)
        return _nchw(self._plain(joined, "heads.segmentation.classifier"))

    def ssdlite(self, images: Tensor, slots: Sequence[int]) -> Tensor:
        """Returns class logits and box deltas, in our order, (B, A, slots + 4).

        Args:
            images: Normalised images (B, 3, H, W).
            slots: Class slots in use, background among them.
        """
        import tensorflow as tf

        features = self._features(_nhwc(images), 32)
        levels = [features["layer_15/expansion"], features["layer_19"]]
        for extra in range(_LEVELS - 2):
            module = f"heads.detection.extras.{extra}"
            x = self._conv(levels[-1], f"{module}.0")
            x = self._conv(x, f"{module}.1", stride=2)
            levels.append(self._conv(x, f"{module}.2"))
        predictions = []
        for kind in ("class", "box"):
            by_level = []
            for level, x in enumerate(levels):
                module = f"heads.detection.{kind}_predictors.{level}"
                x = self._plain(self._conv(x, f"{module}.0"), f"{module}.1")
                anchors = _ANCHORS[level] * x.shape[1] * x.shape[2]
                by_level.append(tf.reshape(x, [x.shape[0], anchors, -1]))
            predictions.append(tf.concat(by_level, axis=1).numpy())
        logits, (ty, tx, th, tw) = predictions[0], np.moveaxis(predictions[1], 2, 0)
        deltas = np.stack([tx, ty, tw, th], axis=2)
        return torch.from_numpy(np.concatenate([logits[..., slots], deltas], axis=2))

    def _features(self, x: Any, output_stride: int) -> dict[str, Any]:
        """Returns the outputs of the layers and of the expansions, as slim's `mobilenet_base` does.

        Strides beyond the output stride become atrous rates of the later layers.
        """
        features = {"layer_1": self._conv(x, "backbone.layers.layer_1", stride=2)}
        x, total, rate = features["layer_1"], 2, 1
        for layer, nominal in enumerate(_STRIDES, start=2):
            module = f"backbone.layers.layer_{layer}"
            stride, next_rate = nominal, rate
            if total * nominal > output_stride:
                stride, next_rate = 1, rate * nominal
            y = x if layer == 2 else self._conv(x, f"{module}.expand")
            features[f"layer_{layer}/expansion"] = y
            y = self._conv(y, f"{module}.depthwise", stride=stride, rate=rate)
            y = self._conv(y, f"{module}.project", act=None)
            x = x + y if stride == 1 and x.shape == y.shape else y
            features[f"layer_{layer}"] = x
            total, rate = total * stride, next_rate
        if self.name_of("backbone.layers.layer_19.conv.weight") in self.variables:
            features["layer_19"] = self._conv(x, "backbone.layers.layer_19")
        return features

    def _conv(
        self,
        x: Any,
        module: str,
        stride: int = 1,
        rate: int = 1,
        norm_eps: float | None = None,
        act: Any = "relu6",
    ) -> Any:
        """Runs a convolution, batch norm and the activation."""
        import tensorflow as tf

        name = self.name_of(f"{module}.conv.weight")
        weight = self.variables[name]
        if name.endswith("depthwise_weights"):
            strides, rates = [1, stride, stride, 1], [rate, rate]
            x = tf.nn.depthwise_conv2d(x, weight, strides, "SAME", dilations=rates)
        else:
            x = tf.nn.conv2d(x, weight, stride, "SAME", dilations=rate)
        mean, variance, beta, gamma = (
            self.variables[self.name_of(f"{module}.norm.{tensor}")]
            for tensor in ("running_mean", "running_var", "bias", "weight")
        )
        eps = self.norm_eps if norm_eps is None else norm_eps
        x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, eps)
        act = tf.nn.relu6 if act == "relu6" else act
        return x if act is None else act(x)

    def _plain(self, x: Any, module: str) -> Any:
        """Runs a 1x1 convolution with bias."""
        import tensorflow as tf

        weight, bias = (
            self.variables[self.name_of(f"{module}.{tensor}")] for tensor in ("weight", "bias")
        )
        return tf.nn.conv2d(x, weight, 1, "SAME") + bias


def outputs_in_tensorflow(
    weights: WeightsSource, variables: Mapping[str, np.ndarray], images: Tensor
) -> Tensor:
    """Runs the network that some weights are for, in TensorFlow, on normalised images.

    MobileNetV2 alone, and of DeepLab only the head without atrous branches.
    """
    network = TensorFlowNetwork(variables, weights.name_of, norm_eps=1e-3)
    model = weights.info.model
    if DetectionTask.name in model.heads:
        return network.ssdlite(images, slots=[0, *weights.info.label_maps["detection"].ids])
    if SegmentationTask.name in model.heads:
        return network.deeplab(images, model.backbone.output_stride, norm_eps=1e-5)
    return network.classifier(images)


def _nhwc(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def _nchw(x: Any) -> Tensor:
    return torch.from_numpy(x.numpy()).permute(0, 3, 1, 2)
