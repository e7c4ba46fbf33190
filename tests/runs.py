"""Small runs of the commands, for the tests that need one."""

import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mbv2det.data.scenes import ShapesSpec
from mbv2det.data.shapes import make_shapes

ROOT = Path(__file__).parents[1]

CONFIG = """
seed: 0
backbone: {{width_mult: 0.35, output_stride: {stride}}}
heads: {{{heads}}}
data:
  root: {root}
  train: {{annotations: annotations/instances_train.json, images: train}}
  val: {{annotations: annotations/instances_val.json, images: val}}
  image_size: [96, 128]
  batch_size: 4
  num_workers: 0
optim: {{name: adamw, lr: 0.002, warmup_steps: 2, ema_decay: 0.9}}
trainer:
  max_epochs: 2
  accelerator: cpu
  precision: 32-true
  default_root_dir: {runs}
"""


DETECTION = "detection: {name: ssdlite}"
POINTS = "detection: {name: gfl_lite, channels: 64}"
SEGMENTATION = "segmentation: {name: deeplabv3}"


def write_config(
    folder: Path, num_train: int = 8, num_val: int = 5, *, heads: str = DETECTION, stride: int = 32
) -> Path:
    """Returns a tiny data set and a configuration for it, in `folder`."""
    make_shapes(
        folder / "shapes", ShapesSpec(num_train=num_train, num_val=num_val), show_progress=False
    )
    path = folder / "tiny.yaml"
    path.write_text(
        CONFIG.format(root=folder / "shapes", runs=folder / "runs", heads=heads, stride=stride)
    )
    return path


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def run_command(name: str, *arguments: object, check: bool = True) -> Done:
    """Runs a command in this process, which spares the seconds of importing torch again."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    old = sys.argv
    sys.argv = [f"{name}.py", *(str(a) for a in arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("default")
            import_module(f"mbv2det.cli.{name}").main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = old
    assert not check or code == 0, err.getvalue()
    return Done(code, out.getvalue(), err.getvalue())


def run_tool(name: str, *arguments: object) -> Done:
    """Runs a script of `tools/` as a user would, in a process of its own."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{name}.py", *(str(a) for a in arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)
