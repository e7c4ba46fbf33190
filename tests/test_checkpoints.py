"""Checkpoints: exact resume after any step, the newest two, damaged files, full disks, signals."""

import os
import signal

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from runs import run_command, write_config

from mbv2det.errors import ConfigError
from mbv2det.training.checkpoints import LAST, PREVIOUS, StopSignal, newest_readable

PARTS = ("state_dict", "current_model_state", "averaging_state", "optimizer_states",
         "lr_schedulers")  # fmt: skip
SHORT = ("--data.batch_size=2", "--checkpoint.every_n_steps=3", "--optim.schedule=constant",
         "--trainer.enable_progress_bar=false")  # fmt: skip


class SignalAt(Callback):
    """Sends this process a signal after a number of steps."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.step = step
        self.number = number

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


class ImagesOf(Callback):
    """Adds the epoch and the images of every training batch to a file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open(self.file, "a") as file:
            file.writelines(f"{trainer.current_epoch} {key.index}\n" for key in batch.keys)


def is_equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(is_equal, first, second))
    return first == second


def final_state(runs):
    content = torch.load(runs / "tiny/1/checkpoints" / LAST, weights_only=True)
    return {part: content[part] for part in PARTS}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Returns the configuration of a run of two epochs of four steps, and its final state."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder)
    run_command("train", config, *SHORT)
    return config, final_state(folder / "runs")


def stopped_run(config, runs, step, number=signal.SIGTERM):
    return run_command(
        "train", config, *SHORT, f"--trainer.default_root_dir={runs}",
        "--trainer.callbacks+=test_checkpoints.SignalAt", f"--trainer.callbacks.step={step}",
        f"--trainer.callbacks.number={int(number)}", check=False,
    )  # fmt: skip


# Forking with threads is the library's business.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(("step", "workers"), [(1, 0), (2, 1), (4, 0), (6, 1)])
def test_a_resumed_run_equals_the_unbroken_one(unbroken, tmp_path, step, workers):
    config, expected = unbroken
    done = stopped_run(config, tmp_path, step)
    assert done.returncode == 128 + signal.SIGTERM
    assert f"--resume={tmp_path / 'tiny/1/checkpoints/last.ckpt'}" in done.stderr
    saved = torch.load(tmp_path / "tiny/1/checkpoints" / LAST, weights_only=True)
    assert saved["global_step"] == step
    run_command(
        "train", config, *SHORT, f"--trainer.default_root_dir={tmp_path}", "--resume=last",
        f"--data.num_workers={workers}",
    )  # fmt: skip
    assert is_equal(expected, final_state(tmp_path))


@pytest.mark.parametrize("step", [3, 4])  # within an epoch, and after one
def test_a_run_of_max_steps_goes_on_with_more_of_them(unbroken, tmp_path, step):
    config, state = unbroken
    train = ("train", config, *SHORT, f"--trainer.default_root_dir={tmp_path}")
    run_command(*train, f"--trainer.max_steps={step}")
    run_command(*train, "--trainer.max_steps=8", "--resume=last")
    assert is_equal(final_state(tmp_path), state)


@pytest.mark.parametrize(
    ("first", "second", "stop", "steps"), [(4, 2, 1, 1 + 2 + 4), (2, 4, 2, 2 + 1 + 2)]
)
def test_another_batch_size_takes_the_rest_of_the_epoch_once(
    unbroken, tmp_path, first, second, stop, steps
):
    config, _ = unbroken
    record = (
        "--trainer.callbacks+=test_checkpoints.ImagesOf",
        f"--trainer.callbacks.file={tmp_path / 'images.txt'}",
    )
    runs = f"--trainer.default_root_dir={tmp_path}"
    first, second = (f"--data.batch_size={size}" for size in (first, second))
    run_command("train", config, *SHORT, runs, f"--trainer.max_steps={stop}", first, *record)
    run_command("train", config, *SHORT, runs, "--resume=last", second, *record)
    saved = torch.load(tmp_path / "tiny/1/checkpoints" / LAST, weights_only=True)
    assert saved["global_step"] == steps
    taken = (tmp_path / "images.txt").read_text().splitlines()
    assert sorted(taken) == sorted(f"{epoch} {index}" for epoch in (0, 1) for index in range(8))


def test_ctrl_c_saves_first(unbroken, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    done = stopped_run(unbroken[0], tmp_path, 2, signal.SIGINT)
    assert done.returncode == 128 + signal.SIGINT
    assert "SIGINT: the run saves and ends after this step" in done.stderr
    assert "to resume: mbv2det train" in done.stderr
    assert signal.getsignal(signal.SIGINT) is before


def test_the_newest_two_checkpoints_survive(unbroken, tmp_path):
    config, _ = unbroken
    run_command("train", config, *SHORT, f"--trainer.default_root_dir={tmp_path}")
    folder = tmp_path / "tiny/1/checkpoints"
    steps = {
        p.name: torch.load(p, weights_only=True)["global_step"] for p in sorted(folder.iterdir())
    }
    # Two epochs of four steps: saved after steps 3, 4, 6 and 8.
    assert steps == {LAST: 8, PREVIOUS: 6}


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(unbroken, tmp_path, damage):
    config, expected = unbroken
    stopped_run(config, tmp_path, 5)
    last = tmp_path / "tiny/1/checkpoints" / LAST
    content = last.read_bytes()
    last.unlink()
    if damage != "missing":
        last.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    done = run_command(
        "train", config, *SHORT, f"--trainer.default_root_dir={tmp_path}", "--resume=last"
    )
    assert "the run resumes from" in done.stderr
    assert "previous.ckpt, step 4" in done.stderr
    assert is_equal(expected, final_state(tmp_path))


def test_a_run_without_a_readable_checkpoint_is_an_error(tmp_path):
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(ConfigError, match=r"--resume: .*last\.ckpt: .*previous\.ckpt: "):
        newest_readable(tmp_path / LAST)


def test_resume_says_that_the_newest_run_has_no_checkpoint(unbroken, tmp_path):
    config, _ = unbroken
    stopped_run(config, tmp_path, 1)
    (tmp_path / "tiny/2").mkdir()
    done = run_command(
        "train", config, *SHORT, f"--trainer.default_root_dir={tmp_path}", "--resume=last"
    )
    assert f"{tmp_path / 'tiny/2'} ended before its first checkpoint" in done.stderr


def test_a_full_disk_leaves_the_checkpoints_as_they_are(unbroken, tmp_path, monkeypatch):
    config, expected = unbroken
    save = pl.Trainer.save_checkpoint

    def full(trainer, path, weights_only=None):
        if trainer.global_step > 4:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(trainer, path, weights_only)

    arguments = ("train", config, *SHORT, f"--trainer.default_root_dir={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "save_checkpoint", full)
        done = run_command(*arguments)
    assert "warning: step 6: the checkpoint cannot be written to" in done.stderr
    folder = tmp_path / "tiny/1/checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == [LAST, PREVIOUS]
    assert torch.load(folder / LAST, weights_only=True)["global_step"] == 4
    run_command(*arguments, "--resume=last")
    assert is_equal(expected, final_state(tmp_path))


def test_a_second_signal_ends_the_run_at_once():
    stop = StopSignal()
    stop.listen()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        stop.ignore()
