"""Kills a short training at random moments, resumes it, and compares it with an unbroken one.

    python tools/studies/interrupted_runs.py [--kills 100] [--signal KILL] [--seed 0]

Every training is killed once and resumed by `--resume last`, every second one with another number
of workers. Compared are weights, averaged weights, optimiser and schedule of the last checkpoint,
bit by bit. A run that is killed before its first checkpoint starts again. Prints how many equal the
unbroken one, and exits with code 1 if any differs. The trainings run in children of one process,
which spares them the imports. Linux and macOS only.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mbv2det.cli import train
from mbv2det.console import one_line_errors
from mbv2det.data.scenes import ShapesSpec
from mbv2det.data.shapes import make_shapes
from mbv2det.training.checkpoints import LAST, has_checkpoint

_CONFIG = """
backbone: {{width_mult: 0.35}}
heads: {{detection: {{name: ssdlite}}}}
data:
  root: {root}
  train: {{annotations: annotations/instances_train.json, images: train}}
  val: {{annotations: annotations/instances_val.json, images: val}}
  image_size: 96
  batch_size: 4
  num_workers: 0
optim: {{name: adamw, lr: 0.002, warmup_steps: 2, ema_decay: 0.9}}
checkpoint: {{every_n_steps: 2}}
trainer: {{max_epochs: 4, check_val_every_n_epoch: 3, accelerator: cpu, precision: bf16-mixed}}
"""
_COMPARED = (
    "state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"
)  # fmt: skip


def start(config: Path, runs: Path, workers: int, *options: str) -> int:
    """Starts a training in a child and returns the child's process id."""
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        with (runs.parent / "log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        torch.set_num_threads(1)
        train.main(
            [str(config), f"--trainer.default_root_dir={runs}", f"--data.num_workers={workers}",
             "--trainer.enable_progress_bar=false", *options]
        )  # fmt: skip
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(child: int) -> int:
    """Waits for a child and returns its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_equal(first: Any, second: Any) -> bool:
    """Returns whether two parts of checkpoints are equal, tensors bit by bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(is_equal, first, second))
    return bool(first == second)


def last_state(runs: Path) -> dict[str, Any]:
    """Returns the compared parts of a run's last checkpoint."""
    content = torch.load(runs / "tiny/1/checkpoints" / LAST, weights_only=True)
    return {part: content[part] for part in _COMPARED}


def interrupted(config: Path, runs: Path, delay: float, number: int, workers: int) -> str:
    """Runs a training, sends it a signal after a delay, and finishes it.

    Returns:
        What the resumed run started from.
    """
    child = start(config, runs, 0)
    time.sleep(delay)
    os.kill(child, number)
    finish(child)
    resumes = has_checkpoint(runs / "tiny/1/checkpoints")
    if not resumes:
        for path in sorted(runs.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    code = finish(start(config, runs, workers, *(["--resume=last"] if resumes else [])))
    return ("checkpoint" if resumes else "nothing") if code == 0 else f"failed with code {code}"


@one_line_errors
def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="trainings to interrupt")
    parser.add_argument("--signal", default="KILL", help="name of the signal: KILL, TERM or INT")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    number = signal.Signals[f"SIG{options.signal}"]
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shapes(folder / "shapes", ShapesSpec(num_train=24, num_val=4), show_progress=False)
        config = folder / "tiny.yaml"
        config.write_text(_CONFIG.format(root=folder / "shapes"))
        begin = time.perf_counter()
        assert finish(start(config, folder / "unbroken", 0)) == 0, (folder / "log").read_text()
        seconds = time.perf_counter() - begin
        unbroken, equal = last_state(folder / "unbroken"), 0
        starts: dict[str, int] = {}
        for kill in range(options.kills):
            runs = folder / f"run{kill}"
            outcome = interrupted(config, runs, moments.uniform(0, seconds), number, kill % 2)
            same = not outcome.startswith("failed") and is_equal(unbroken, last_state(runs))
            equal += same
            starts[outcome] = starts.get(outcome, 0) + 1
            if not same:
                print(f"{kill}: {outcome}; log:\n{(folder / 'log').read_text()[-2000:]}")
        print(f"{equal} of {options.kills} equal the unbroken run ({seconds:.1f} s); {starts}")
    sys.exit(equal != options.kills)


if __name__ == "__main__":
    main()
