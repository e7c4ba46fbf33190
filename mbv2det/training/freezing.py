"""Parts of a network that keep the weights that they were loaded with.

Freezing helps where there are few images, or few in a batch: statistics of batch norm over less
than about 12 images are worse than the loaded ones, and what the first layers of a network trained
on ImageNet compute fits any photograph. It saves time, too: gradients are not computed before the
first layer that learns.
"""

from collections.abc import Collection, Iterator
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature

BackboneFreeze = Literal["none", "norm", "stages", "all"]
_STAGES_STRIDE = 4  # as Detectron2's and MMDetection's defaults: the stem and the first stage


def frozen_parts(
    model: nn.Module,
    backbone: BackboneFreeze,
    norms: Literal["none", "all"],
    loaded: Collection[str],
) -> list[nn.Module]:
    """Returns the modules that are not trained: only those that were loaded.

    Args:
        model: Network to train; its backbone is `model.backbone`.
        backbone: Value of `backbone.freeze`.
        norms: Value of `optim.freeze_norm`.
        loaded: Names of the tensors that come from a file.
    """
    names = list(_frozen_names(model, backbone, norms))
    modules = dict(model.named_modules())
    return [modules[name] for name in names if _is_loaded(name, modules[name], loaded)]


def _frozen_names(
    model: nn.Module, backbone: BackboneFreeze, norms: Literal["none", "all"]
) -> Iterator[str]:
    for name, module in model.named_modules():
        in_backbone = name.startswith("backbone.") and backbone != "none"
        if isinstance(module, _BatchNorm) and (norms == "all" or in_backbone):
            yield name
    network = getattr(model, "backbone", None)
    if isinstance(network, Backbone) and backbone in ("stages", "all"):
        for layer in network.layers:
            stride = network.feature_specs[Feature(layer)].stride
            if backbone == "all" or stride <= _STAGES_STRIDE:
                yield f"backbone.layers.{layer}"


def _is_loaded(name: str, module: nn.Module, loaded: Collection[str]) -> bool:
    return all(f"{name}.{own}" in loaded for own, _ in module.named_parameters())
