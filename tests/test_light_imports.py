"""Prediction reads images without loading what only training and evaluation need."""

import subprocess
import sys

HEAVY = ("albumentations", "cv2", "faster_coco_eval", "lightning", "pycocotools", "torchmetrics")
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
