"""Eight-bit weights and activations with onnxruntime's quantiser."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from kdcore_export.onnx_file import ENCODER

LAYERS = ("Conv", "Gemm", "MatMul")


def quantise(file: Path, calibration: Sequence[dict[str, np.ndarray]]) -> None:
    """Quantise an ONNX file in place: what its encoder multiplies; preprocessing stays as it is.

    Ranges of activations come from `calibration`, once and for all (static quantisation, weights by channel). A recurrent
    network's are measured anew for every recording (dynamic), since onnxruntime quantises LSTM layers in no other way.

    Args:
        file: The file.
        calibration: Pieces such as the student will see.
    """
    model = onnx.load(file)
    kept = list(model.metadata_props)
    outside = [node.name for node in model.graph.node if node.op_type in LAYERS and ENCODER not in node.name]
    recurrent = any(node.op_type == "LSTM" for node in model.graph.node)
    with _quiet():
        if recurrent:
            layers = ["LSTM", "MatMul"]
            quantize_dynamic(model, file, op_types_to_quantize=layers, nodes_to_exclude=outside, weight_type=QuantType.QInt8)
        else:
            quantize_static(
                model,
                file,
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                nodes_to_exclude=outside,
                per_channel=True,
                reduce_range=True,  # 7-bit weights: sums of two products overflow 16 bits on x86 cores without VNNI
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
    written = onnx.load(file)
    del written.metadata_props[:]
    written.metadata_props.extend(kept)
    onnx.save(written, file)


class _Reader(CalibrationDataReader):
    def __init__(self, pieces: Sequence[dict[str, np.ndarray]]):
        self._pieces = iter(pieces)

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return next(self._pieces, None)


@contextlib.contextmanager
def _quiet():
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
