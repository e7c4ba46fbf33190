import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from runs import DETECTION, ROOT, SEGMENTATION, run_tool, write_config

from mbv2det.errors import ConfigError
from mbv2det.training.launched_job import launched_job


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    config = write_config(
        folder, num_train=16, num_val=21, heads=f"{DETECTION}, {SEGMENTATION}", stride=16
    )
    run_tool("train", config, "--trainer.devices=2", "--trainer.max_epochs=1")
    return config, folder / "runs/tiny/1"


def test_two_processes_train_one_run(trained_by_two):
    _, run = trained_by_two
    assert (run / "best.safetensors").is_file()
    assert [p.name for p in run.parent.iterdir()] == ["1"]


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "batch_size"), [(2, 4), (2, 1), (3, 4)])
def test_several_processes_evaluate_21_images_with_the_metrics_of_one(
    trained_by_two, tmp_path, devices, batch_size
):
    config, run = trained_by_two
    metrics = {}
    for number in (1, devices):
        out = tmp_path / f"{number}.json"
        run_tool(
            "eval", config, "--weights", run / "best.safetensors", "--out", out,
            f"--trainer.devices={number}", f"--data.batch_size={batch_size}",
        )  # fmt: skip
        metrics[number] = json.loads(out.read_text())
    assert metrics[1]["images"] == metrics[devices]["images"] == 21
    assert metrics[1]["detection"] == metrics[devices]["detection"]
    assert metrics[1]["segmentation"] == metrics[devices]["segmentation"]


def srun(rank, job):
    """Returns the variables that SLURM sets for one of two tasks on a node."""
    return {
        "SLURM_JOB_ID": job, "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "SLURM_STEP_ID": "0",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_processes_of_a_launcher_share_one_run(tmp_path, launcher):
    config = write_config(tmp_path, num_train=8, num_val=2)
    train = [
        ROOT / "tools/train.py", config, "--trainer.devices=2", "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    if launcher == "torchrun":
        run = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29517"]
        started = [([*run, *train], {})]
    else:
        started = [(train, srun(rank, str(os.getpid()))) for rank in (0, 1)]
    # An earlier run of the same shell or notebook leaves this variable.
    shared = {"OMP_NUM_THREADS": "1", "MBV2DET_RUN_FOLDER": str(tmp_path / "an earlier run")}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *arguments], env={**os.environ, **shared, **variables}
                )
            )
            for arguments, variables in started
        ]
        for process in processes:
            stack.callback(process.kill)  # before it is waited for, if another failed
        assert [process.wait(timeout=250) for process in processes] == [0] * len(processes)
    assert [path.name for path in (tmp_path / "runs/tiny").iterdir()] == ["1"]
    assert (tmp_path / "runs/tiny/1/best.safetensors").is_file()


def test_a_job_of_several_tasks_without_srun_is_one_line(monkeypatch):
    for name, value in srun(0, "1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_ID")
    with pytest.raises(ConfigError, match="SLURM_NTASKS: expected srun to start all 2 tasks"):
        launched_job()
