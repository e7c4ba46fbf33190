"""The preparation of a data set: its steps, its lines and its files."""

import re
import shlex
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from mbv2det.atomic_write import atomic_write
from mbv2det.checks.before_training import describe_unusable, unusable_files
from mbv2det.checks.check import tasks_of
from mbv2det.checks.contact_sheets import write_sheets
from mbv2det.cli.config_files import shipped_configs
from mbv2det.cli.settings import Settings, SettingsParser
from mbv2det.cli.splits import read_splits
from mbv2det.config import SplitConfig
from mbv2det.console import log
from mbv2det.errors import ConfigError
from mbv2det.prepare.find import find_layout
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.prepared import Kind, Splits, choose_kind, make_splits
from mbv2det.prepare.recipe import BASES, write_recipe
from mbv2det.run_files import BEST

_PICTURES = 20  # on a contact sheet
_IMAGENET = "--backbone.weights=MobileNet_V2_Weights.IMAGENET1K_V2"
_COCO = "--weights=ssdlite_mobilenet_v2_coco_2018_05_09"


def prepare(options: Namespace) -> Path:
    """Prepares the data of a command line.

    Returns:
        The configuration that was written.
    """
    root = options.root.absolute()
    out = _out_file(options.out, root, options.force)
    layout = find_layout(root, options.format)
    _log_layout(layout, root)
    kind, why_kind = choose_kind(layout, options.task)
    splits = make_splits(layout, kind, options.seed, partial(_write_list, out))
    for line in splits.reasons:
        log(line)
    skip = _log_unusable(splits)
    base = shipped_configs()[BASES[kind]]
    recipe = write_recipe(
        base.read_text(),
        kind,
        why_kind,
        splits,
        [
            f"Written by `mbv2det prepare_data` from {BASES[kind]}, for {layout.root}.",
            "",
            f"  command   {shlex.join(['mbv2det', 'train', str(out)])}",
        ],
        weights=options.weights,
        skip=skip,
    )
    for line in recipe.lines:
        log(line)
    for line in recipe.warnings:
        log(f"warning: {line}")
    _write(out, recipe.text)
    log(f"configuration: {out}")
    _draw(SettingsParser("").parse([str(out)]), out)
    _log_test_command(out, layout, splits)
    if options.weights is None:
        log(f"few images need a network that knows others: add {_start(kind)}")
    log(f"train: {shlex.join(['mbv2det', 'train', str(out)])}")
    return out


def _out_file(given: Path | None, root: Path, force: bool) -> Path:
    """Returns the configuration to write.

    Raises:
        ConfigError: If there is one already, or if it would be among the data.
    """
    name = re.sub(r"[^\w-]+", "_", root.resolve().name).strip("_") or "data"
    out = Path(f"{name}.yaml") if given is None else given
    if out.is_dir() or out.suffix not in (".yaml", ".yml"):
        out = out / f"{name}.yaml"
    out = out.absolute()
    if out.parent.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"--out: expected a place outside of {root}, where the pictures would be taken for "
            f"data, got {out}; such as --out {root.resolve().parent / out.name}"
        )
    if out.exists() and not force:
        raise ConfigError(f"{out}: expected no such file yet, found one; --force overwrites it")
    return out


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"{out}: cannot be written ({reason}); --out gives another place"
        ) from None


def _write_list(out: Path, split: str, names: Sequence[str]) -> str:
    """Writes the image names of a split beside the configuration; returns the path of the list."""
    path = out.with_name(f"{out.stem}_{split}.txt")
    _write(path, "".join(f"{name}\n" for name in names))
    return str(path)


def _write(path: Path, text: str) -> None:
    with _writable(path), atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _log_layout(layout: Layout, root: Path) -> None:
    if layout.root != root:
        log(f"root: {layout.root}, the only folder in {root}")
    log(f"format: {layout.format}")
    for line in layout.reasons:
        log(f"  {line}")


def _log_unusable(splits: Splits) -> bool:
    """Logs the files that training cannot use; returns whether there are any."""
    found = False
    for name, split in (("train", splits.train), ("val", splits.val)):
        unusable = unusable_files(split, name)
        if unusable:
            log(f"warning: {describe_unusable(unusable, split, name)}; left out (data.on_error)")
            found = True
    return found


def _draw(settings: Settings, out: Path) -> None:
    """Reads the splits as training does, and draws contact sheets."""
    splits = read_splits(settings.config)
    for name, split in zip(("train", "val"), splits, strict=True):
        tasks = tasks_of(split, settings.config)
        with _writable(out):
            write_sheets(split, tasks, (), out.parent, f"{out.stem}_{name}", most=_PICTURES)
        log(f"pictures: {out.parent / f'{out.stem}_{name}_01.jpg'}")


def _log_test_command(out: Path, layout: Layout, splits: Splits) -> None:
    if "test" in layout.splits:
        best = f"runs/{out.stem}/1/{BEST}"
        changes = _changes(splits.data.val, layout.splits["test"])
        line = shlex.join(["mbv2det", "eval", str(out), *changes, "--weights", best])
        log(f"measure the test split after training: {line}")


def _start(kind: Kind) -> str:
    """Returns the settings that start a training from published weights."""
    if kind == "segmentation":
        return f"{_IMAGENET}, which is downloaded, or a file of it"
    return f"{_COCO}, a detector for COCO, or {_IMAGENET}, which are downloaded, or files of them"


def _changes(before: SplitConfig, after: SplitConfig) -> list[str]:
    """Returns the settings on the command line that turn one split into another."""
    old, new = asdict(before), asdict(after)
    return [
        f"--data.val.{key}={'null' if value is None else value}"
        for key, value in new.items()
        if value != old[key]
    ]
