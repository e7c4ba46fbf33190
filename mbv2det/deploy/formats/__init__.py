"""One file per format of exported networks, and the list of all formats."""

from mbv2det.deploy.formats.coreml import CoreMlFormat
from mbv2det.deploy.formats.format import DTYPES as DTYPES
from mbv2det.deploy.formats.format import INT8 as INT8
from mbv2det.deploy.formats.format import PRECISIONS as PRECISIONS
from mbv2det.deploy.formats.format import Format as Format
from mbv2det.deploy.formats.litert import LiteRtFormat
from mbv2det.deploy.formats.ncnn import NcnnFormat
from mbv2det.deploy.formats.onnx import OnnxFormat
from mbv2det.deploy.formats.openvino import OpenVinoFormat
from mbv2det.deploy.formats.pt2 import Pt2Format

# By name, in the order in which they are listed.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        OnnxFormat(),
        OpenVinoFormat(),
        Pt2Format(),
        LiteRtFormat(),
        NcnnFormat(),
        CoreMlFormat(),
    )
}
