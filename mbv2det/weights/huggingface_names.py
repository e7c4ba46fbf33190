"""Names of tensors in transformers' MobileNetV2."""

from collections.abc import Iterable

from mbv2det.weights.architecture import CLASSIFIER, TensorPath

PREFIX = "mobilenet_v2."  # prefix of the backbone's tensors, except in a bare model
LAST_LAYER = "conv_1x1"

_MODULES = {
    CLASSIFIER: "classifier",
    "heads.segmentation.aspp.pool": "segmentation_head.conv_pool",
    "heads.segmentation.aspp.pointwise": "segmentation_head.conv_aspp",
    "heads.segmentation.aspp.project": "segmentation_head.conv_projection",
    "heads.segmentation.classifier": "segmentation_head.classifier.convolution",
}
_PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
_KINDS = {"conv": "convolution", "norm": "normalization"}


def backbone_prefix(names: Iterable[str]) -> str:
    """Returns the prefix of the backbone's tensors in a state dict; empty for a bare model."""
    return PREFIX if any(name.startswith(PREFIX) for name in names) else ""


def hf_name(name: str, prefix: str = PREFIX) -> str:
    """Returns transformers' name of a tensor of our network.

    Args:
        name: Name of the tensor in our network.
        prefix: Prefix of the backbone's tensors.
    """
    path = TensorPath.of(name)
    if path is not None:
        return f"{prefix}{_layer(path)}.{_KINDS[path.kind]}.{path.tensor}"
    for module, hf_module in _MODULES.items():
        if name.startswith(f"{module}."):
            rest = name.removeprefix(module)
            for kind, hf_kind in _KINDS.items():
                rest = rest.replace(f".{kind}.", f".{hf_kind}.")
            return hf_module + rest
    return name


def _layer(path: TensorPath) -> str:
    """Returns the module of a layer; our layers 1 and 2 are the stem, layer 3 is layer 0."""
    if path.layer == 19:
        return LAST_LAYER
    if path.layer == 1:
        return "conv_stem.first_conv"
    block = "conv_stem" if path.layer == 2 else f"layer.{path.layer - 3}"
    return f"{block}.{_PARTS[path.part]}"
