"""Networks of other libraries as subjects of a benchmark.

They run as their users run them: from the image to boxes or labels in its own pixels. Their weights
are random, which changes the time of detection alone: there drawn class logits take the place of
those that the network computes, of which as many reach non-maximum suppression as with trained
weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import detection, segmentation
from torchvision.transforms.v2 import functional as transforms

from mbv2det.benchmark.subject import STAGES, Facts, Images, Setup, StageClock, Subject
from mbv2det.counting import count
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD

_VOC_LABELS = 21
# Pairs of anchor and class that trained weights leave above the threshold in a usual image.
_CANDIDATES = 300
_SMP = "segmentation_models_pytorch"


class _DetectionPeer:
    """SSDLite of torchvision.

    Args:
        model: The network.
    """

    input_size = (320, 320)

    def __init__(self, model: Any) -> None:
        self.model = model
        pixels = torch.zeros(3, *self.input_size)
        (_, outputs), _ = self._forward(model.transform([pixels])[0])
        self._logits = torch.randn(outputs["cls_logits"].shape)
        scores = self._logits.softmax(dim=-1)[..., 1:]
        model.score_thresh = scores.flatten().topk(_CANDIDATES).values[-1].item()

    def preprocess(self, images: Images) -> Any:
        """Returns resized images with the sizes of the originals."""
        pixels = [_channels_first(image).float() / 255 for image in images]
        return self.model.transform(pixels)[0], [image.shape[:2] for image in images]

    def network(self, inputs: Any) -> Any:
        """Returns raw outputs with what the postprocessing needs besides."""
        images, sizes = inputs
        return *self._forward(images), sizes

    def postprocess(self, results: Any) -> Any:
        """Returns boxes, scores and labels."""
        (features, outputs), images, sizes = results
        outputs = outputs | {"cls_logits": self._logits.expand(len(sizes), -1, -1)}
        anchors = self.model.anchor_generator(images, features)
        boxes = self.model.postprocess_detections(outputs, anchors, images.image_sizes)
        return self.model.transform.postprocess(boxes, images.image_sizes, sizes)

    @torch.inference_mode()
    def _forward(self, images: Any) -> Any:
        features = list(self.model.backbone(images.tensors).values())
        return (features, self.model.head(features)), images


class _SegmentationPeer:
    """A segmentation network.

    Args:
        model: The network, from normalised images to logits on their pixels.
        side: Height and width of the input in pixels.
    """

    def __init__(self, model: Any, side: int = 513) -> None:
        self.model = model
        self.input_size = (side, side)

    def preprocess(self, images: Images) -> Any:
        """Returns normalised images with the sizes of the originals."""
        resized = [
            transforms.resize(_channels_first(image), list(self.input_size)) for image in images
        ]
        pixels = torch.stack(resized).float() / 255
        pixels = transforms.normalize(pixels, list(IMAGENET_MEAN), list(IMAGENET_STD))
        return pixels, [image.shape[:2] for image in images]

    def network(self, inputs: Any) -> Any:
        """Returns logits with the sizes of the originals."""
        pixels, sizes = inputs
        outputs = self.model(pixels)
        return (outputs["out"] if isinstance(outputs, Mapping) else outputs), sizes

    def postprocess(self, results: Any) -> list[Tensor]:
        """Returns the label of every pixel of each original."""
        logits, sizes = results
        return [
            F.interpolate(one[None], size, mode="bilinear")[0].argmax(dim=0)
            for one, size in zip(logits, sizes, strict=True)
        ]


def _channels_first(image: Any) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _ssdlite() -> _DetectionPeer:
    return _DetectionPeer(
        detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=_VOC_LABELS
        ).eval()
    )


def _torchvision_segmenter(build: Callable[..., nn.Module]) -> _SegmentationPeer:
    model = build(weights=None, weights_backbone=None, num_classes=_VOC_LABELS)
    return _SegmentationPeer(model.eval())


def _smp_segmenter(kind: str) -> _SegmentationPeer:
    import segmentation_models_pytorch as smp

    model = getattr(smp, kind)("mobilenet_v2", encoder_weights=None, classes=_VOC_LABELS)
    return _SegmentationPeer(model.eval(), side=512)  # sides are multiples of 16


_PEERS: dict[str, Callable[[], Any]] = {
    "torchvision ssdlite320_mobilenet_v3_large": _ssdlite,
    "torchvision deeplabv3_mobilenet_v3_large": lambda: _torchvision_segmenter(
        segmentation.deeplabv3_mobilenet_v3_large
    ),
    "torchvision lraspp_mobilenet_v3_large": lambda: _torchvision_segmenter(
        segmentation.lraspp_mobilenet_v3_large
    ),
    f"{_SMP} DeepLabV3 mobilenet_v2": lambda: _smp_segmenter("DeepLabV3"),
    f"{_SMP} DeepLabV3Plus mobilenet_v2": lambda: _smp_segmenter("DeepLabV3Plus"),
}


def installed_peers() -> Sequence[str]:
    """Returns the names of the peers whose library is installed."""
    return [name for name in _PEERS if find_spec(name.split()[0]) is not None]


@dataclass(frozen=True, kw_only=True)
class PeerSetup(Setup):
    """A peer, and the way it is run.

    Attributes:
        peer: Name of the peer, with its library first.
    """

    peer: str

    @property
    def name(self) -> str:
        """Name of the peer."""
        return self.peer

    def load(self) -> Subject:
        """Builds the peer with random weights, always the same."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            peer = _PEERS[self.peer]()
        return Subject(_facts(peer), _TimedPeer(peer, StageClock()))


class _TimedPeer:
    """Predicts and tells how long each stage took.

    Args:
        peer: Peer to time.
        clock: Clock of the stages.
    """

    def __init__(self, peer: Any, clock: StageClock) -> None:
        self._clock = clock
        self._stages = [clock.timed(stage, getattr(peer, stage)) for stage in STAGES]

    @torch.inference_mode()
    def __call__(self, images: Images) -> Mapping[str, float]:
        self._clock.reset()
        result: Any = images
        for stage in self._stages:
            result = stage(result)
        return self._clock.seconds


@torch.inference_mode()
def _facts(peer: Any) -> Facts:
    image = torch.zeros(*peer.input_size, 3, dtype=torch.uint8).numpy()
    inputs = peer.preprocess([image])
    counts = count(peer.model, lambda: peer.network(inputs))
    return Facts(peer.input_size, counts.parameters, counts.multiply_adds)
