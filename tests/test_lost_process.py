"""A distributed training of which one process is killed: the others end, and the job resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import ROOT, run_tool, write_config

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def train_with_two(config, *arguments):
    return subprocess.Popen(
        [
            sys.executable, ROOT / "tools/train.py", config, "--trainer.devices=2",
            "--trainer.enable_progress_bar=false", *arguments,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ONE_THREAD,
    )  # fmt: skip


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(process):
    """Returns the processes that a process started, which Linux lists."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a run in /proc")
@pytest.mark.parametrize("victim", ["first", "second"])
def test_the_other_process_ends_within_a_minute_and_the_job_resumes(tmp_path, victim):
    config = write_config(tmp_path, num_train=32, num_val=2)
    process = train_with_two(config, "--trainer.max_epochs=500")
    checkpoint = tmp_path / "runs/tiny/1/checkpoints/last.ckpt"
    wait_for(checkpoint.is_file, 200)
    (second,) = children(process)
    time.sleep(0.5)  # somewhere within an epoch
    os.kill(process.pid if victim == "first" else second, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)  # ends when both have closed it
    number = 1 if victim == "first" else 0
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: process {number} of 2: another process of this run ended")
    assert line.endswith(f"--resume={checkpoint}")
    assert "Traceback" not in output
    run_tool(
        "train", config, "--trainer.devices=2", "--resume=last", "--trainer.max_steps=1",
        "--trainer.max_epochs=500", "--trainer.enable_progress_bar=false",
    )  # fmt: skip
