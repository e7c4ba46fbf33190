"""What the commands share: the parser of configurations, the run's parts, the ends of errors."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Column, Table
from yaml import YAMLError

from mbv2det.cli.config_files import with_config_path
from mbv2det.config import Config, DataConfig
from mbv2det.data.annotations import Annotations
from mbv2det.errors import ConfigError, DataError
from mbv2det.parsing import OneLineParser, first_argument_as_config
from mbv2det.training.module import NonFiniteLossError
from mbv2det.weights.source import MismatchError

_PLAIN_REFRESH = 20  # batches between updates of a progress bar that is not on a terminal

console = Console(stderr=True, soft_wrap=True)


@rank_zero_only
def say(message: str) -> None:
    """Prints a line from one process only."""
    console.print(message, highlight=False, markup=False)


def say_split(word: str, split: Annotations) -> None:
    """Prints the counts of a split and whatever had to be worked around."""
    for line in (split.summary(), *split.faults.lines()):
        say(f"{word}: {line}")


def one_line_errors(command: Callable[[], None]) -> Callable[[], None]:
    """Ends a command that meets a user's error in one line: code 2, or 1 for a failed training."""

    def guarded() -> None:
        try:
            command()
        except (ConfigError, DataError, MisconfigurationException) as error:
            if isinstance(error, MismatchError):
                print_mismatches(error)
            _end(error, 2)
        except NonFiniteLossError as error:
            _end(error, 1)
        except KeyboardInterrupt:
            sys.exit(130)

    return guarded


def print_mismatches(error: MismatchError) -> None:
    """Every tensor without its counterpart, in one table."""
    # Names are what it is for: in full, where the terminal is narrow on several lines.
    columns = [Column(name, overflow="fold") for name in ("tensor", "problem", "expected", "got")]
    table = Table(*columns)
    for row in error.rows:
        table.add_row(row.name, row.problem, row.expected, row.got)
    console.print(table)


def _end(error: Exception, code: int) -> None:
    # An error from a data loader's worker carries its traceback; the message is its last line.
    lines = str(error).strip().splitlines()
    message = lines[-1] if lines[0].startswith("Caught ") else " ".join(lines)
    sys.stderr.write(f"error: {message.removeprefix(f'mbv2det.errors.{type(error).__name__}: ')}\n")
    sys.exit(code)


@dataclass(frozen=True)
class Settings:
    """A parsed command line.

    Attributes:
        config: Of this toolkit.
        trainer: Arguments of Lightning's Trainer.
        name: Of the configuration: its file's stem.
        given: Keys that the command line itself gave.
        options: The command's own options.
        parser: What parsed it.
        namespace: What it was parsed into.
    """

    config: Config
    trainer: dict[str, Any]
    name: str
    given: frozenset[str]
    options: Namespace
    parser: OneLineParser
    namespace: Namespace

    def insists_on(self, key: str) -> bool:
        """Whether a setting wins over the weights': from the command line, or over_weights."""
        return _names(key, self.given) or _names(key, self.config.over_weights)

    def winner(self, key: str, stored: Any, asked: Any) -> Any:
        """A weights file's value, or the user's who insists on it; a difference is said.

        Args:
            key: Of the setting.
            stored: Value in the weights.
            asked: Value in the configuration, command line included.
        """
        insists = self.insists_on(key)
        if stored != asked:
            wins = "the command line wins" if _names(key, self.given) else "over_weights wins"
            winner = wins if insists else "the weights win"
            say(f"{key}: {stored} in the weights, {asked} asked for; {winner}")
        return asked if insists else stored

    def yaml(self, winners: Mapping[str, Any] | None = None, **trainer: Any) -> str:
        """Everything as a configuration file, which does the same again.

        Args:
            winners: Settings that were chosen between a weights file and the user.
            trainer: What was chosen where the user's argument is not set.
        """
        resolved = self.namespace.clone()
        for key, value in (winners or {}).items():
            resolved[key] = value
        if winners:
            resolved.over_weights = sorted(key for key in winners if self.insists_on(key))
        for key, value in trainer.items():
            if resolved.trainer[key] is None:
                resolved.trainer[key] = value
        try:
            return self.parser.dump(resolved, skip_validation=True)
        except YAMLError as error:
            raise ConfigError(f"trainer: cannot be written to config.yaml ({error})") from None


def _names(key: str, names: Iterable[str]) -> bool:
    """Whether a setting is among some names, or within the section that one names."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


class ConfigParser:
    """Parses `CONFIG [--key.sub=value ...]` and a command's own options.

    Args:
        description: For --help.
    """

    def __init__(self, description: str) -> None:
        self.parser = OneLineParser(
            usage="%(prog)s CONFIG [--key.sub=value ...]", description=description
        )
        self.parser.add_argument(
            "--config", action="config", help="YAML file of settings; also the first argument"
        )
        self.own: list[str] = []
        self.parser.add_class_arguments(Config)
        self.parser.add_class_arguments(
            Trainer, "trainer", instantiate=False, skip={"use_distributed_sampler"}
        )

    def add_option(self, name: str, **kwargs: Any) -> None:
        """An option of the command itself, which no configuration file holds."""
        self.own.append(name.removeprefix("--"))
        self.parser.add_argument(name, **kwargs)

    def parse(self, arguments: Sequence[str]) -> Settings:
        """Reads the file, then the command line over it."""
        given = {a.removeprefix("--").split("=")[0] for a in arguments if a.startswith("--")}
        arguments = with_config_path(first_argument_as_config(arguments))
        self.parser.given = frozenset(given)
        self.parser.file = arguments[1] if arguments[:1] == ["--config"] else ""
        namespace = self.parser.parse_args(arguments)
        if not namespace.config:
            self.parser.error("expected a configuration file as the first argument, got none")
        options = Namespace({name: namespace.pop(name, None) for name in self.own})
        name = Path(str(namespace.pop("config")[0])).stem
        built = self.parser.instantiate(namespace.clone())
        values = {key: getattr(built, key) for key in Config.__dataclass_fields__}
        return Settings(
            config=Config(**values),
            trainer={key: built.trainer[key] for key in vars(namespace.trainer)},
            name=name,
            given=frozenset(given),
            options=options,
            parser=self.parser,
            namespace=namespace,
        )


def make_trainer(settings: Settings, callbacks: Sequence[Callback], **ours: Any) -> Trainer:
    """Lightning's trainer from the user's arguments, ours beneath them.

    Args:
        settings: Whose `trainer` part holds the user's arguments.
        callbacks: Ours, after the user's own.
        ours: Taken where the user's argument is not set.
    """
    quieten_lightning()
    arguments = settings.trainer | {
        key: value for key, value in ours.items() if settings.trainer[key] is None
    }
    bars: list[Callback] = []
    if arguments["enable_progress_bar"] is not False:
        bars = [RichProgressBar() if sys.stdout.isatty() else TQDMProgressBar(_PLAIN_REFRESH)]
    arguments["callbacks"] = [*(arguments["callbacks"] or []), *callbacks, *bars]
    every, epochs = arguments["check_val_every_n_epoch"], arguments["max_epochs"]
    if every and epochs and 0 < epochs < every:  # a short run is validated at its end, not never
        arguments["check_val_every_n_epoch"] = epochs
    # Lightning would wrap our samplers in one that pads the epoch with repeats.
    arguments["use_distributed_sampler"] = False
    try:
        return Trainer(**arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {error}") from None


def loader_workers(data: DataConfig) -> int:
    """Processes of each data loader: those asked for, but no more than there are cores."""
    cores = os.cpu_count() or 1
    if data.num_workers > cores:
        say(f"data.num_workers: {data.num_workers} asked for; {cores}, as there are cores")
    return min(data.num_workers, cores)


def quieten_lightning() -> None:
    """Silences advertisements and known noise; what a user should act on stays."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for noise in (
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 with a newer torch
        r".*does not have many workers.*",
        r"Found \d+ module\(s\) in eval mode at the start of training.*",  # frozen norms
        r"Experiment logs directory .* exists and is not empty.*",
        r"Checkpoint directory .* exists and is not empty.*",
        r".*is not supported by the model summary.*",
        r".*smaller than the logging interval.*",
        r"`ModelCheckpoint.*could not find the monitored key.*",  # a run that never validates
        r".*sync_dist=True.*",  # our validation metrics are already those of all processes
    ):
        warnings.filterwarnings("ignore", message=noise)


def default_precision(accelerator: Any) -> str:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        native = bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    return "bf16-mixed" if native else "32-true"
