"""Prediction and --help load nothing that only training and evaluation need."""

import subprocess
import sys
from importlib import import_module

import pytest

HEAVY = ("albumentations", "cv2", "faster_coco_eval", "lightning", "pycocotools", "torchmetrics")
TRAINING_STACK = ("albumentations", "lightning", "tensorboard", "torchmetrics")
CODE = """
import sys
import mbv2det.data.dataset
import mbv2det.data.images
print(*(name for name in {heavy} if name in sys.modules))
"""


def test_reading_images_loads_no_library_of_training_or_evaluation():
    code = CODE.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "command", ["predict", "eval", "import_weights", "check_data", "prepare_data"]
)
def test_help_loads_no_training_stack(command):
    code = f"""
import sys
from mbv2det.cli.{command} import main
try:
    main(["--help"])
except SystemExit:
    pass
print(sorted({set(TRAINING_STACK)!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_of_train_lists_the_arguments_of_lightnings_trainer(capsys):
    with pytest.raises(SystemExit):
        import_module("mbv2det.cli.train").main(["--help"])
    assert "--trainer.max_epochs" in capsys.readouterr().out
