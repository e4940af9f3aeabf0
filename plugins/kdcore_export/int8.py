"""Eight-bit weights and activations with ONNX Runtime's quantisers, and a list of the quantised layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from kdcore import KdcoreError
from kdcore_export.exporters import quiet
from kdcore_export.formats import ENCODER

STATIC = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("LSTM", "GRU", "RNN")
EIGHT_BITS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)

LEAST = 0.5
"""Minimum share of the network's weights in eight bits for a file to count as int8."""


@dataclass(frozen=True)
class Layer:
    """A layer of the network with weights.

    Args:
        name: Module of the layer.
        kind: ONNX operator.
        weights: Number of weights.
        int8: Whether the weights are stored in eight bits.
    """

    name: str
    kind: str
    weights: int
    int8: bool

    def __str__(self) -> str:
        return f"{self.name}  {self.kind}  {self.weights:,} weights  {'int8' if self.int8 else 'float32'}"


def quantise(file: Path, calibration: Sequence[dict[str, np.ndarray]]) -> list[Layer]:
    """Quantise the network of an ONNX file in place. Preprocessing stays in floating point.

    Convolutions and matrix products are quantised statically: activation ranges come from `calibration`, and weights are scaled
    per channel. LSTM layers are quantised dynamically, since ONNX Runtime supports nothing else for them.

    Args:
        file: The file.
        calibration: Representative inputs of the student.

    Returns:
        All layers of the network, and whether they were quantised.

    Raises:
        KdcoreError: If more than half of the weights could not be quantised.
    """
    model = onnx.load(file)
    kept, layers = list(model.metadata_props), weighted_layers(model)
    network = {node.name for node in layers}
    outside = [node.name for node in model.graph.node if node.op_type in STATIC and node.name not in network]
    with quiet():
        if any(node.op_type in STATIC for node in layers):
            quantize_static(
                model,
                file,
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(STATIC),
                nodes_to_exclude=outside,
                per_channel=True,
                reduce_range=True,  # 7-bit weights: sums of two products overflow 16 bits on x86 cores without VNNI
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
        if any(node.op_type == "LSTM" for node in layers):
            quantize_dynamic(onnx.load(file), file, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
    written = onnx.load(file)
    del written.metadata_props[:]
    written.metadata_props.extend(kept)
    onnx.save(written, file)
    found = [Layer(_module(node), node.op_type, _count(model, node), is_int8(written, node)) for node in layers]
    share = sum(layer.weights for layer in found if layer.int8) / max(1, sum(layer.weights for layer in found))
    if share < LEAST:
        left = ", ".join(f"{layer.name} ({layer.kind})" for layer in found if not layer.int8)
        raise KdcoreError(
            f"--int8: ONNX Runtime quantises {share:.0%} of this network's weights and leaves {left or 'all'} in float32; "
            "export without --int8"
        )
    return found


def weighted_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of the student's network that multiply by stored weights."""
    return [
        node
        for node in model.graph.node
        if node.op_type in (*STATIC, *RECURRENT) and ENCODER in node.name and _count(model, node)
    ]


def is_int8(written: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Return whether the weights of a layer are stored in eight bits in the quantised model.

    Args:
        written: The quantised model.
        node: The layer in the original model.
    """
    stored = {each.name: each.data_type for each in written.graph.initializer}
    passing = ("DequantizeLinear", "Transpose")
    sources = {name: each.input[0] for each in written.graph.node if each.op_type in passing for name in each.output}

    def kind(name: str) -> int | None:
        while name in sources:
            name = sources[name]
        return stored.get(name)

    for each in written.graph.node:
        if each.name == node.name or each.name.startswith(f"{node.name}_"):
            weights = each.input[1:3] if each.op_type.endswith(RECURRENT) else each.input[1:2]
            if weights and all(kind(name) in EIGHT_BITS for name in weights):
                return True
    return False


def _count(model: onnx.ModelProto, node: onnx.NodeProto) -> int:
    """Return the number of weights of a layer, also if other nodes reorder them; 0 if it multiplies two computed tensors."""
    made_from = {each.name: {each.name} for each in model.graph.initializer}
    for each in model.graph.node:
        inputs = [name for name in each.input if name]
        if inputs and all(name in made_from for name in inputs):
            made_from |= {output: set().union(*(made_from[name] for name in inputs)) for output in each.output}
    sizes = {each.name: int(np.prod(each.dims)) for each in model.graph.initializer if len(each.dims) > 1}
    names = node.input[1:3] if node.op_type in RECURRENT else node.input[:2]
    return sum(sizes.get(source, 0) for source in set().union(*(made_from.get(name, set()) for name in names)))


def _module(node: onnx.NodeProto) -> str:
    """Return ``encoder.blocks.0.lstm`` for ``members.0.encoder.blocks.0.lstm/LSTM_29``."""
    return node.name.rpartition("/")[0].partition(ENCODER)[2].lstrip(".") or "encoder"


class _Reader(CalibrationDataReader):
    def __init__(self, pieces: Sequence[dict[str, np.ndarray]]):
        self._pieces = iter(pieces)

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return next(self._pieces, None)
