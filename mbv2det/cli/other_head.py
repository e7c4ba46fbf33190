"""A head that the command line names in place of the file's: `--heads.TASK.name=NAME`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import yaml

from mbv2det.console import log
from mbv2det.model_config import HeadConfig, head_names


def without_settings_of_other_heads(text: str, head_classes: Mapping[str, type[HeadConfig]]) -> str:
    """Returns a configuration without the settings that the chosen heads do not have; logs them.

    Args:
        text: Content of the configuration file.
        head_classes: Settings class of the chosen head of each task.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # the parser says what is wrong
    heads = content.get("heads") if isinstance(content, dict) else None
    for task, head_class in head_classes.items():
        section = heads.get(task) if isinstance(heads, dict) else None
        if not isinstance(section, dict) or section.get("name") in head_names(head_class):
            continue
        kept, left_out = _divided(section, {f.name for f in fields(head_class)} - {"name"})
        heads[task] = kept  # type: ignore[index]
        if left_out:
            new = head_names(head_class)[0]
            log(f"heads.{task}: {', '.join(left_out)} left out, which {new} does not have")
    return yaml.safe_dump(content, sort_keys=False)


def _divided(section: dict[str, Any], known: set[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings with known names, and the other names apart from `name`."""
    kept = {key: value for key, value in section.items() if key in known}
    return kept, [key for key in section if key not in known and key != "name"]
