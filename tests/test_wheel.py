"""The wheel works without the repository: commands, shipped configurations, studies."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from runs import ROOT, write_config

# Runs several commands in one process, which imports torch once; prints what each wrote.
DRIVER = """
import contextlib, io, json, sys
from importlib.metadata import entry_points

(command,) = entry_points(group="console_scripts", name="mbv2det")
main = command.load()
results = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["mbv2det", *arguments]
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            code = end.code
    results.append([code, out.getvalue()])
import mbv2det
print(json.dumps({"file": mbv2det.__file__, "results": results}))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Returns folder of the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", folder, ROOT,
    ]  # fmt: skip
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "unpacked")
    return folder / "unpacked"


def in_repository(pattern):
    return {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}


def test_the_wheel_contains_the_package_the_configurations_and_the_studies(unpacked):
    files = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    package = {file for file in files if not file.startswith("mbv2det-")}
    shipped = {f"mbv2det/{file}" for file in in_repository("configs/*.yaml")}
    studies = {
        file.replace("tools/studies", "mbv2det/studies")
        for file in in_repository("tools/studies/*.py")
    }
    rest = {"mbv2det/py.typed", "mbv2det/deploy/model_card.md", "mbv2det/demo/onnxruntime-web.txt"}
    rest |= in_repository("mbv2det/report/templates/*") | in_repository("mbv2det/demo/page/*")
    rest |= in_repository("mbv2det/demo/runtime/ort*")  # where `make demo` was run
    assert package == in_repository("mbv2det/**/*.py") | rest | shipped | studies


def test_the_commands_run_without_the_repository(unpacked, tmp_path):
    write_config(tmp_path, num_train=8, num_val=2)
    train = [
        "train", "ssdlite_shapes", "--data.embedded=false", f"--data.root={tmp_path / 'shapes'}",
        "--data.image_size=64", "--data.batch_size=4", "--data.num_workers=0",
        "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.precision=32-true",
    ]  # fmt: skip
    commands = [
        ["--help"],
        ["predict", "--help"],
        ["model_table", "--table", "5"],
        ["study"],
        ["study", "relu_embedding", "--matrices", "5", "--out", "study"],
        train,
    ]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert Path(document["file"]).is_relative_to(unpacked)
    assert [code for code, _ in document["results"]] == [0] * len(commands), done.stderr
    usage, predict, table, studies, _, _ = (text for _, text in document["results"])
    assert "study" in usage
    assert "--weights" in predict
    assert "14,776,629" in table
    assert "block_cost" in studies
    assert (folder / "study/relu_embedding.png").is_file()
    assert (folder / "runs/ssdlite_shapes/1/best.safetensors").is_file()
