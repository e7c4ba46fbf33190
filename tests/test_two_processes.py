import json

import pytest
from runs import DETECTION, SEGMENTATION, run_tool, write_config


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
@pytest.mark.parametrize("batch_size", [4, 1])
def test_two_processes_evaluate_21_images_with_the_metrics_of_one(
    trained_by_two, tmp_path, batch_size
):
    config, run = trained_by_two
    metrics = {}
    for devices in (1, 2):
        out = tmp_path / f"{devices}.json"
        run_tool(
            "eval", config, "--weights", run / "best.safetensors", "--out", out,
            f"--trainer.devices={devices}", f"--data.batch_size={batch_size}",
        )  # fmt: skip
        metrics[devices] = json.loads(out.read_text())
    assert metrics[1]["images"] == metrics[2]["images"] == 21
    assert metrics[1]["detection"] == metrics[2]["detection"]
    assert metrics[1]["segmentation"] == metrics[2]["segmentation"]
