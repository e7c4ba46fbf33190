"""`export [CONFIG] --weights FILE --format FORMAT --out FILE`: a file for another runtime."""

import sys
from collections.abc import Sequence

from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.errors import ConfigError

_DESCRIPTION = """
Writes weights as a file for another runtime, runs the file, and compares it with PyTorch. Core ML
files run on macOS alone: of them the description is checked.

  onnx        ONNX Runtime and many others       model.onnx
  openvino    Intel's processors                 model.xml, with model.bin beside it
  pt2         PyTorch without this toolkit       model.pt2
  litert      Android, single-board computers    model.tflite
  ncnn        phones, single-board computers     model.param, with model.bin beside it
  coreml      Apple's devices                    model.mlpackage

The file takes RGB images as uint8 (batch, 3, height, width) and normalises them itself; with
--resize also those of any size, and its results are in their pixels. It carries the classes,
preprocessing and thresholds: mbv2det.load, predict and eval need nothing else.

--weights takes a weights file, or weights from elsewhere: a release of TensorFlow's, OWNER/NAME of
the Hugging Face Hub, an address https://....

CONFIG names the data on whose validation split the file is compared, and whose training split int8
is calibrated with; without it the embedded data set gives the images. eval.* and data.image_size on
the command line override what the weights say.
"""
_DEFAULT_CONFIG = "joint_shapes"


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: The command line, by default that of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    parser.add_option("--format", help="onnx, openvino, pt2, litert, ncnn or coreml")
    parser.add_option("--precision", default="fp32", help="fp32, fp16, bf16 or int8")
    parser.add_option("--out", help="file to write")
    parser.add_option(
        "--resize",
        action="store_true",
        help="the file takes images of any size and resizes them itself (onnx)",
    )
    parser.add_option(
        "--calibration-images",
        type=int,
        default=300,
        help="int8: number of images of data.train that the ranges of the features are taken from",
    )
    parser.add_option(
        "--max-drop",
        type=float,
        help="int8: largest drop of AP and of mIoU, such as 0.01; parts of the network stay in "
        "float32 until it holds",
    )
    for name, text in _output_options().items():
        parser.add_option(f"--{name}", help=text)
    own_data = bool(given) and (not given[0].startswith("--") or given[0] in ("--help", "--config"))
    if not own_data:
        given = [_DEFAULT_CONFIG, *given]
    settings = parser.parse(given)
    for name in ("format", "out"):
        if settings.options[name] is None:
            raise ConfigError(f"--{name}: expected a value, got none")
    if "weights" not in settings.given:
        raise ConfigError("--weights: expected the .safetensors or .ckpt file to export, got none")
    keep_freed_memory()
    from mbv2det.cli.exporting import export_and_check  # --help needs no networks

    export_and_check(settings, tuple(_output_options()), own_data=own_data)


def _output_options() -> dict[str, str]:
    """Returns the help of the output option of each task that has one, by name of the option."""
    from mbv2det.tasks import TASKS

    options = [task.output_option for task in TASKS.values() if task.output_option is not None]
    return {
        option.name: "; ".join(f"{choice}: {what}" for choice, what in option.choices.items())
        for option in options
    }
