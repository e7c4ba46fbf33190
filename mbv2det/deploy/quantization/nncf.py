"""OpenVINO files, quantised by NNCF."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import ClassVar

from mbv2det.console import errors_alone
from mbv2det.deploy.openvino_file import save_openvino
from mbv2det.deploy.quantization.quantizer import Calibration, Quantizer

_NO_OPERATIONS = ("Constant", "Parameter", "Result")


class NncfQuantizer(Quantizer):
    """Static quantisation by NNCF, which also corrects the biases, one layer after the other.

    That is its accurate and slow setting: the fast one corrects each layer by itself.
    """

    extra: ClassVar[str] = "nncf"
    packages: ClassVar[Sequence[str]] = ("openvino", "nncf")
    distributions: ClassVar[Sequence[str]] = ("nncf",)

    def quantize(
        self, source: Path, path: Path, calibration: Calibration, metadata: Mapping[str, str]
    ) -> None:
        """Writes the int8 file."""
        import nncf
        import openvino

        model = openvino.Core().read_model(source)
        nodes = [op for op in model.get_ops() if op.get_type_name() not in _NO_OPERATIONS]
        names = [op.get_friendly_name() for op in nodes]
        # NNCF lists every node that it leaves alone, and draws progress bars.
        with errors_alone("nncf"), redirect_stdout(StringIO()):
            quantized = nncf.quantize(
                model,
                nncf.Dataset([image.numpy() for image in calibration.images.split(1)]),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(calibration.images),
                fast_bias_correction=False,
                ignored_scope=nncf.IgnoredScope(
                    names=[name for name in names if not calibration.quantizes(name)],
                    validate=False,
                ),
            )
        save_openvino(quantized, path, metadata)
