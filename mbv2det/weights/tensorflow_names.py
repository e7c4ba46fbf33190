"""Names of variables in TensorFlow's MobileNets and their heads.

The name of a variable is the scope of its layer and its type: `MobilenetV2/Conv/weights`,
`MobilenetV2/Conv/BatchNorm/gamma`.

Source: TensorFlow research slim/nets/mobilenet, object_detection, deeplab.
"""

import re
from collections.abc import Iterable, Mapping

from mbv2det.weights.architecture import TensorPath

# Modules of our MobileNetV1's pointwise layers, and the first full convolution.
MOBILENET_V1_LAYERS = ("Conv2d_0", *(f"Conv2d_{k}.pointwise" for k in range(1, 14)))
# Scopes by the names of our modules; those of MobileNetV2's layers follow from their number.
MOBILENET_V1_SCOPES = {
    f"backbone.layers.{module}": f"MobilenetV1/{module.replace('.', '_')}"
    for module in (*MOBILENET_V1_LAYERS, *(f"Conv2d_{k}.depthwise" for k in range(1, 14)))
}
DEEPLAB_SCOPES = {
    "heads.segmentation.aspp.pool": "image_pooling",
    "heads.segmentation.aspp.pointwise": "aspp0",
    "heads.segmentation.aspp.project": "concat_projection",
    "heads.segmentation.classifier": "logits/semantic",
    **{f"heads.segmentation.aspp.atrous.{i}": f"aspp{i + 1}" for i in range(3)},
    **{f"heads.segmentation.aspp.atrous.{i}.0": f"aspp{i + 1}_depthwise" for i in range(3)},
    **{f"heads.segmentation.aspp.atrous.{i}.1": f"aspp{i + 1}_pointwise" for i in range(3)},
}
SSDLITE_LEVELS = 6
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_KINDS = ("conv", "norm")


def tf_name(name: str, *, prefix: str, scopes: Mapping[str, str]) -> str:
    """Returns TensorFlow's name of a tensor of our network.

    Args:
        name: Name of the tensor in our network.
        prefix: Scope of MobileNetV2's layers.
        scopes: Scopes of all other modules, by the names of our modules.
    """
    path = TensorPath.of(name)
    if path is not None:
        scope, kind, tensor = prefix + _layer_scope(path), path.kind, path.tensor
        is_depthwise = path.part == "depthwise"
    else:
        module, _, tensor = name.rpartition(".")
        kind = module.rpartition(".")[2]
        scope = scopes.get(module.removesuffix(f".{kind}") if kind in _KINDS else module, module)
        is_depthwise = scope.endswith("_depthwise")
    if kind == "norm":
        return f"{scope}/BatchNorm/{_NORM.get(tensor, tensor)}"
    if tensor == "bias":
        return f"{scope}/biases"
    return f"{scope}/depthwise_weights" if is_depthwise else f"{scope}/weights"


def _layer_scope(path: TensorPath) -> str:
    """Returns the scope of a layer of MobileNetV2; our layer 2 is TensorFlow's first block."""
    if not path.part:
        return "Conv" if path.layer == 1 else "Conv_1"
    block = "expanded_conv" if path.layer == 2 else f"expanded_conv_{path.layer - 2}"
    return f"{block}/{path.part}"


def ssdlite_scopes(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Returns the scopes of SSDLite's modules, by the names of our modules.

    The scopes of the extra levels end in their channels, so they are searched among the names.

    Args:
        prefix: Scope of the backbone.
        names: Names of all variables.
    """
    all_scopes = {name.rpartition("/")[0].removesuffix("/BatchNorm") for name in names}
    scopes = {}
    for level in range(SSDLITE_LEVELS):
        for kind, predictor in (("class", "ClassPredictor"), ("box", "BoxEncodingPredictor")):
            scope = f"BoxPredictor_{level}/{predictor}"
            scopes[f"heads.detection.{kind}_predictors.{level}.0"] = f"{scope}_depthwise"
            scopes[f"heads.detection.{kind}_predictors.{level}.1"] = scope
    for extra in range(SSDLITE_LEVELS - 2):
        squeeze = f"{prefix}layer_19_1_Conv2d_{extra + 2}_1x1"
        stride_2 = f"{prefix}layer_19_2_Conv2d_{extra + 2}_3x3_s2"
        modules = ((squeeze, ""), (stride_2, "_depthwise"), (stride_2, ""))
        for position, (scope, suffix) in enumerate(modules):
            pattern = re.compile(re.escape(scope) + r"_\d+" + suffix)
            matches = [name for name in all_scopes if pattern.fullmatch(name)]
            # Without a match, this name appears in the message about the missing variable.
            scopes[f"heads.detection.extras.{extra}.{position}"] = min(
                matches, default=f"{scope}_N{suffix}"
            )
    return scopes
