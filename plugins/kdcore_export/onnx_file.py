"""ONNX: the graph as a file, and running it."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdcore import KdcoreError
from kdcore_export.graph import Graph, as_text, facts

PREFIX = "kdcore."
"""Before every key of the file's metadata."""

ENCODER = ".encoder"
"""In the names of nodes that are a student's network, as opposed to its preprocessing."""


def axes(graph: Graph) -> tuple[dict[int, torch.export.Dim], ...]:
    """Which axes of each input are free: the batch, and time where a recording may have any number of samples."""
    batch = torch.export.Dim("batch")
    free = graph.samples
    return tuple(
        {0: batch} if free[name] else {0: batch, 1: torch.export.Dim(f"time_{number}", min=2)}
        for number, name in enumerate(graph.modalities)
    )


def save(graph: Graph, example: tuple[torch.Tensor, ...], file: Path) -> None:
    """Write `graph` with all that its users must know in its metadata.

    Raises:
        KdcoreError: If something in it cannot be put into ONNX.
    """
    import onnx

    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                dynamic_shapes=(axes(graph),),
                input_names=graph.modalities,
                output_names=["logits", "probabilities"],
                verbose=False,
            )
    except Exception as error:
        raise KdcoreError(f"this student cannot be put into ONNX: {_reason(error)}") from error
    assert program is not None
    model = program.model_proto
    _tidy(model.graph)
    for key, value in as_text(facts(graph)).items():
        model.metadata_props.add(key=PREFIX + key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _tidy(graph: Any) -> None:
    """Name nodes by the module they come from, and drop the tracer's notes, which take more room than a small student."""
    for number, node in enumerate(graph.node):
        notes = {each.key: each.value for each in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "['']"))
        node.name = f"{scopes[-2] if len(scopes) > 1 else ''}/{node.op_type}_{number}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    graph.ClearField("value_info")  # shapes can be inferred; those noted for recurrent layers are not always right
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    graph.ClearField("metadata_props")


def runner(file: Path) -> Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Runs the file on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(piece: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        logits, probabilities = session.run(["logits", "probabilities"], dict(piece))
        return np.asarray(logits), np.asarray(probabilities)

    return run


@contextlib.contextmanager
def _quiet():
    """Without the exporter's talk about itself."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: the exporter wraps it in pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
