"""The settings of a command: `CONFIG [--key.sub=value ...]`, parsed and checked."""

import difflib
import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import DefaultHelpFormatter, Namespace

from mbv2det.cli.config_files import with_config_path
from mbv2det.cli.other_head import without_settings_of_other_heads
from mbv2det.config import Config, DataConfig, SplitConfig
from mbv2det.data.formats.settings import data_keys_of_others
from mbv2det.errors import ConfigError
from mbv2det.model_config import HeadConfig, head_names
from mbv2det.parsing import OneLineParser, first_argument_as_config
from mbv2det.resolve import Overrides, Resolution
from mbv2det.tasks import TASKS, TrainableTask

_HELP = ("-h", "--help")
_LOGGER_HELP = (
    "csv, tensorboard, wandb, mlflow, or a list of these (default: [csv, tensorboard]); a logger "
    "of Lightning's by class_path and init_args; or false for none"
)
_COMPILE_HELP = "whether training compiles the network with torch.compile (default: false)"


@dataclass(frozen=True)
class Settings:
    """A parsed command line.

    Attributes:
        config: Settings of this toolkit.
        trainer: Arguments of Lightning's Trainer.
        compile: Whether training compiles the network; in files under `trainer`, too.
        name: Name of the configuration: the stem of its file.
        given: Names of the settings given on the command line.
        arguments: The command line, without the name of the command.
        options: Options of the command that are not settings.
        parser: Parser that read the command line.
        namespace: Result of the parser.
    """

    config: Config
    trainer: dict[str, Any]
    compile: bool
    name: str
    given: frozenset[str]
    arguments: tuple[str, ...]
    options: Namespace
    parser: OneLineParser
    namespace: Namespace

    @property
    def overrides(self) -> Overrides:
        """Settings by which the user overrides those of weights."""
        return Overrides(self.given, self.config.override_weights)

    def yaml(
        self,
        initial: Resolution | None = None,
        heads: Mapping[str, HeadConfig] | None = None,
        **trainer: Any,
    ) -> str:
        """Returns all settings as the text of a configuration file that reproduces the run.

        Args:
            initial: Settings that were resolved between initial weights and configuration.
            heads: Settings of the heads after that resolution.
            trainer: Values of the trainer arguments that the user does not set.
        """
        resolved = self.namespace.clone()
        if initial is not None and initial.values:
            for key, value in initial.values.items():
                resolved[key] = value
            for task, head in (heads or {}).items():
                resolved.heads[task] = Namespace(**asdict(head))
            resolved.override_weights = sorted(initial.overridden)
        for key, value in trainer.items():
            if resolved.trainer[key] is None:
                resolved.trainer[key] = value
        try:
            return self.parser.dump(resolved, skip_validation=True)
        except yaml.YAMLError as error:
            raise ConfigError(f"trainer: cannot be written to config.yaml ({error})") from None


class _HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help formatter that keeps the line breaks of the description and shows defaults."""


class SettingsParser:
    """Parser of `CONFIG [--key.sub=value ...]` and options of a command.

    Args:
        description: Description for --help.
        full_help: Whether --help lists the arguments of Lightning's Trainer, for which Lightning
            has to be imported.
        prog: Name of the command in its messages; by default that of the running script.
    """

    def __init__(self, description: str, full_help: bool = False, prog: str | None = None) -> None:
        self.description = description
        self.prog = prog
        self.full_help = full_help
        self.options: dict[str, dict[str, Any]] = {}

    def add_option(self, name: str, **kwargs: Any) -> None:
        """Adds an option of the command that is not a setting in configuration files."""
        self.options[name.removeprefix("--")] = kwargs

    def parse(self, command_line: Sequence[str]) -> Settings:
        """Reads the configuration file and the command line, which takes precedence."""
        given = {a.removeprefix("--").split("=")[0] for a in command_line if a.startswith("--")}
        arguments = with_config_path(first_argument_as_config(command_line))
        file = arguments[1] if arguments[:1] == ["--config"] else ""
        head_classes = _head_classes(file, arguments)
        parser = self._parser(head_classes, with_trainer=self._needs_trainer(arguments))
        if any(f"heads.{task}.name" in given for task in head_classes):
            parser.edit = partial(without_settings_of_other_heads, head_classes=head_classes)
        parser.given = frozenset(given)
        parser.file = file
        try:
            namespace = parser.parse_args(list(arguments))
        except ConfigError:
            raise
        except ValueError as error:  # another encoding, characters that no value can have
            raise ConfigError(f"{file}: expected a configuration in UTF-8, got {error}") from None
        if not namespace.config:
            parser.error("expected a configuration file as the first argument, got none")
        _check_sections(namespace)
        parser.refuse_nulls(namespace)
        _drop_settings_of_other_formats(namespace, file, parser.given)
        names = [name.replace("-", "_") for name in self.options]
        options = Namespace({name: namespace.pop(name, None) for name in names})
        name = Path(str(namespace.pop("config")[0])).stem
        built = _instantiated(parser, namespace)
        values = {f.name: getattr(built, f.name) for f in fields(Config)}
        return Settings(
            config=Config(**values | {"heads": _configured_heads(values["heads"])}),
            trainer={k: built.trainer[k] for k in vars(namespace.trainer) if k != "compile"},
            compile=built.trainer.get("compile", False),
            name=name,
            given=frozenset(given),
            arguments=tuple(command_line),
            options=options,
            parser=parser,
            namespace=namespace,
        )

    def _needs_trainer(self, arguments: Sequence[str]) -> bool:
        return self.full_help or not any(argument in _HELP for argument in arguments)

    def _parser(
        self, head_classes: Mapping[str, type[HeadConfig]], *, with_trainer: bool
    ) -> OneLineParser:
        parser = OneLineParser(
            prog=self.prog,
            usage="%(prog)s CONFIG [--key.sub=value ...]",
            description=self.description,
            formatter_class=_HelpFormatter,
        )
        parser.add_argument(
            "--config", action="config", help="YAML file of settings; also the first argument"
        )
        parser.add_class_arguments(_config_type(head_classes))
        if with_trainer:
            from lightning.pytorch import Trainer  # costs seconds, so not for --help

            from mbv2det.training.loggers import LoggerSetting

            parser.add_class_arguments(
                Trainer, "trainer", instantiate=False, skip={"use_distributed_sampler", "logger"}
            )
            parser.add_argument(
                "--trainer.logger", type=LoggerSetting, default=None, help=_LOGGER_HELP
            )
            parser.add_argument("--trainer.compile", type=bool, default=False, help=_COMPILE_HELP)
        else:
            group = parser.add_argument_group("trainer", "arguments of Lightning's Trainer")
            group.add_argument("--trainer.KEY", help="see `train --help`")
        for name, kwargs in self.options.items():
            parser.add_argument(f"--{name}", **kwargs)
        return parser


def _instantiated(parser: OneLineParser, namespace: Namespace) -> Namespace:
    """Returns the settings as objects, the trainer's callbacks and loggers among them.

    Raises:
        ConfigError: If one of them refuses its arguments, or needs a package that is missing.
    """
    try:
        return parser.instantiate(namespace.clone())
    except ConfigError:
        raise
    except Exception as error:  # Lightning's callbacks and loggers raise several kinds
        line = re.sub(r"\s+", " ", str(error)).strip()
        # Of a setting with several types, the fault as the first of them is what it was meant as.
        first = re.search(r"Errors: - (.*?)(?: - |$)", line)
        raise ConfigError(f"trainer: {first[1] if first else line}") from None


def _check_sections(namespace: Namespace) -> None:
    """Refuses a section of settings that is a single value."""
    for section in ("heads", "trainer", *_sections(Config())):
        value = namespace.get(section)
        if not isinstance(value, Namespace):
            raise ConfigError(f"{section}: expected a section of settings, got {value!r:.60}")


def _sections(settings: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of the settings that have settings of their own."""
    for one in fields(settings):
        value = getattr(settings, one.name)
        if is_dataclass(value):
            yield f"{prefix}{one.name}"
            yield from _sections(value, f"{prefix}{one.name}.")


def _drop_settings_of_other_formats(
    namespace: Namespace, file: str, given: Collection[str]
) -> None:
    """Unsets what a configuration file says about its data, where the command line has others.

    `train ssdlite_voc --data.format=coco ...` describes other data than the file: where the splits
    of the file are, and its settings that COCO does not have, are dropped. Settings on the command
    line are kept.
    """
    name = namespace.data.format
    if "data.format" not in given or _format_in_file(file) == name:
        return
    default = {f.name: f.default for f in fields(DataConfig)}
    unset = {f"data.{key}": default[key] for key in data_keys_of_others(name)}
    for split in ("train", "val"):
        unset |= {f"data.{split}.{f.name}": None for f in fields(SplitConfig)}
    for key, value in unset.items():
        if key not in given:
            namespace[key] = value


def _format_in_file(file: str) -> Any:
    """Returns `data.format` of a configuration file; None if it has none."""
    try:
        return yaml.safe_load(Path(file).read_text())["data"]["format"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return None


def _trained_tasks() -> list[type[TrainableTask]]:
    return [task for task in TASKS.values() if issubclass(task, TrainableTask)]


def _head_classes(file: str, arguments: Sequence[str]) -> dict[str, type[HeadConfig]]:
    """Returns the settings class of each task's head, selected by `heads.<task>.name`.

    Raises:
        ConfigError: For a name that selects no head.
    """
    chosen = _names_in_file(file)
    for argument in arguments:
        match = re.fullmatch(r"--heads\.(\w+)\.name=(.*)", argument)
        if match:
            chosen[match[1]] = match[2]
    head_classes = {}
    for task in _trained_tasks():
        class_of = {name: cls for cls in task.head_kinds for name in head_names(cls)}
        name = chosen.get(task.name, next(iter(class_of)))
        if not isinstance(name, str) or name not in class_of:
            near = difflib.get_close_matches(str(name), class_of, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"heads.{task.name}.name: expected one of {', '.join(class_of)}, got {name}{hint}"
            )
        head_classes[task.name] = class_of[name]
    return head_classes


def _names_in_file(file: str) -> dict[str, Any]:
    """Returns `heads.<task>.name` of a configuration file, by task.

    Returns nothing if the file cannot be read, which the parser reports later.
    """
    try:
        heads = yaml.safe_load(Path(file).read_text())["heads"]
        return {task: head["name"] for task, head in heads.items() if head and "name" in head}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return {}


def _config_type(head_classes: Mapping[str, type[HeadConfig]]) -> type[Config]:
    """Returns `Config` with a typed field for the head of each task."""
    typed = [(task, head_class | None, None) for task, head_class in head_classes.items()]
    heads = make_dataclass("HeadsConfig", typed, frozen=True)
    lines = [f"    {task}: {_head_help(task)}" for task in head_classes]
    heads.__doc__ = "\n".join(["The head of each task.", "", "Attributes:", *lines])
    config = make_dataclass(
        "Config", [("heads", heads, field(default_factory=heads))], bases=(Config,), frozen=True
    )
    config.__doc__ = Config.__doc__
    return config


def _head_help(task: str) -> str:
    names = [name for cls in TASKS[task].head_kinds for name in head_names(cls)]
    return f"Head for {task}, by name: {', '.join(names)}; null for none."


def _configured_heads(heads: Any) -> dict[str, HeadConfig]:
    """Returns the heads that are not null, by task.

    Raises:
        ConfigError: If there is none.
    """
    configured = {f.name: getattr(heads, f.name) for f in fields(heads)}
    configured = {task: head for task, head in configured.items() if head is not None}
    if not configured:
        names = " or ".join(task.name for task in _trained_tasks())
        raise ConfigError(f"heads: expected {names}, or both, got none")
    return configured
