"""`import_weights FORMAT SOURCE --out FILE`: converts weights of other libraries."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mbv2det.console import one_line_errors
from mbv2det.weights.releases import RELEASES

_FORMATS = ("torchvision", "timm", "hf", "tf", "ckpt")

_DESCRIPTION = """
Converts weights of other libraries into one file of this toolkit with architecture, preprocessing
and labels, for evaluation, prediction and fine-tuning.

FORMAT       SOURCE
torchvision  a state dict of mobilenet_v2, resnet50 or resnet101, or the name of its weights:
             MobileNet_V2_Weights.IMAGENET1K_V2
timm         a state dict of mobilenetv2_035 ... mobilenetv2_140, or such a name
hf           a repository of the Hugging Face Hub, OWNER/NAME or OWNER/NAME@REVISION, or a folder
             (or a file of weights alone): MobileNetV2ForImageClassification,
             MobileNetV2ForSemanticSegmentation or MobileNetV2Model, or files of this toolkit
tf           the name of a release, listed below, its archive (.tar.gz) or folder, a TensorFlow
             checkpoint, a frozen graph (.pb), or an .npz of variables; TensorFlow is not needed:
             slim's MobileNetV1 and V2, the Object Detection API's SSDLite on MobileNetV2, DeepLab
             with any ASPP
ckpt         a checkpoint of a training run of this toolkit: its averaged weights

SOURCE can also be the address of such a file, https://..., with #sha256=... at its end to check it.
Files are downloaded once, into torch's cache (TORCH_HOME) and the Hub's (HF_HOME); an interrupted
download goes on where it ended. Releases:

{releases}

Every tensor must match one of the network; otherwise the mismatches are listed, and nothing is
written.
Nothing in SOURCE is executed. Then:

  python tools/predict.py --weights FILE photo.jpg --out predictions
  python tools/train.py CONFIG --weights=FILE            a whole model, for the same or new classes
  python tools/train.py CONFIG --backbone.weights=FILE   its backbone alone

Both also take a release, a repository or an address without an import:

  python tools/train.py CONFIG --weights=ssdlite_mobilenet_v2_coco_2018_05_09
""".format(releases="\n".join(f"  {name}" for name in RELEASES))


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", metavar="FORMAT", help=", ".join(_FORMATS))
    parser.add_argument("source", metavar="SOURCE", help="file, folder, name or address")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="file to write")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the classes, one per line, if the source has none: for boxes without "
        "background, for masks from value 0 on",
    )
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    names = Path(options.labels) if options.labels else None
    from mbv2det.cli.weights_import import import_weights  # --help needs no networks

    import_weights(options.format, options.source, Path(options.out), names)
