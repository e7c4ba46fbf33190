"""The folder of a run: runs/<config name>/<n>/."""

import os
from pathlib import Path

from mbv2det.console import log
from mbv2det.errors import ConfigError
from mbv2det.run_files import CHECKPOINTS, CONFIG
from mbv2det.training.checkpoints import LAST, has_checkpoint, newest_readable
from mbv2det.training.launched_job import launched_job

# Lightning starts the other processes of a run with the same command line. The first process passes
# the folder that it created to them in this environment variable.
_VARIABLE = "MBV2DET_RUN_FOLDER"


def new_run(root: Path, name: str) -> Path:
    """Creates the next free folder for a run of a configuration, one for all processes.

    Args:
        root: Folder of all runs.
        name: Name of the configuration.

    Raises:
        ConfigError: If the folder cannot be made.
    """
    job = launched_job()
    if job is not None:  # also with a variable that an earlier run left: all processes share
        own = str(_publish(_next_free(root / name))) if job.rank == 0 else None
        return _publish(Path(job.share("run folder", own)))
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 and _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE])
    return _publish(_next_free(root / name))


def resumed_run(root: Path, name: str, checkpoint: str) -> tuple[Path, Path]:
    """Returns the folder and the checkpoint of the run to continue.

    Args:
        root: Folder of all runs.
        name: Name of the configuration.
        checkpoint: A file, or `last` for the newest run of the configuration.

    Raises:
        ConfigError: If there is no such run.
    """
    if checkpoint == "last":
        file = _newest_run(root / name) / CHECKPOINTS / LAST
    else:
        file = Path(checkpoint)
        if not (file.is_file() or (file.name == LAST and has_checkpoint(file.parent))):
            raise ConfigError(f"--resume: expected `last` or a checkpoint file, got {checkpoint}")
        if not (file.resolve().parents[1] / CONFIG).is_file():
            raise ConfigError(
                f"--resume: expected a checkpoint in the folder of its run, "
                f"runs/NAME/N/checkpoints, got {checkpoint}"
            )
    folder = file.resolve().parents[1]
    return _publish(folder), newest_readable(file)


def _next_free(runs: Path) -> Path:
    number = max((_number(p) for p in runs.glob("*")), default=0) + 1
    return runs / str(number)


def _newest_run(runs: Path) -> Path:
    """Returns the folder of the newest run with a checkpoint.

    Raises:
        ConfigError: If there is none.
    """
    numbered = sorted((p for p in runs.glob("*") if _number(p)), key=_number, reverse=True)
    for run in numbered:
        if has_checkpoint(run / CHECKPOINTS):
            return run
        log(f"--resume last: {run} ended before its first checkpoint; looking for an older run")
    raise ConfigError(f"--resume last: expected a run with a checkpoint under {runs}, found none")


def _publish(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"trainer.default_root_dir: expected a folder for runs, got {folder.parents[1]} "
            f"({error.strerror})"
        ) from None
    os.environ[_VARIABLE] = str(folder)
    return folder


def _number(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else 0
