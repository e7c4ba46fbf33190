"""Teachers of random weights, for the tests of distillation."""

from dataclasses import replace

import torch

from mbv2det.build import build, build_preprocess, label_maps_of, read_split
from mbv2det.cli.settings import SettingsParser
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights


def write_teacher(path, *arguments, classes=None):
    """Writes the network of a configuration with random weights, which has outputs of all sizes.

    Args:
        path: File to write.
        arguments: Arguments of `train`.
        classes: Label maps by task instead of those of the data.
    """
    config = SettingsParser("").parse([str(a) for a in arguments]).config
    split = read_split(config.data, config.data.train, "data.train", config.tasks)
    info = WeightsInfo(
        config.model(),
        build_preprocess(config.data),
        label_maps_of(split, config.tasks) | (classes or {}),
        config.eval.thresholds(),
    )
    torch.manual_seed(1)
    model, _ = build(info)
    for head in model.heads.values():
        for layer in head.class_layers():  # in new networks all classes are alike
            last = [m for m in layer.modules() if isinstance(m, torch.nn.Conv2d)][-1]
            torch.nn.init.normal_(last.weight, std=1.0)
            torch.nn.init.zeros_(last.bias)
    save_weights(path, model.state_dict(), replace(info, metrics={}))
    return path
