"""File formats of an export: ONNX, ``torch.export`` and ExecuTorch, with functions that write and run each."""

from __future__ import annotations

import ast
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from kdcore import KdcoreError, UsageError, one_line
from kdcore_export.executorch_file import executorch_runner, save_executorch
from kdcore_export.exporters import innermost_cause, quiet
from kdcore_export.graph import Graph, as_text
from kdcore_export.onnx_student import PREFIX, open_session

Format = Literal["onnx", "torch-export", "executorch"]
SUFFIXES: Mapping[str, Format] = {".onnx": "onnx", ".pt2": "torch-export", ".pte": "executorch"}
"""File formats by suffix."""

FIXED: Format = "executorch"
"""Format whose inputs have a fixed shape: a single recording of a fixed length."""

Run = Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""Function that runs a file: from values (B, T, …) by modality to logits and probabilities."""

FACTS = "kdcore.json"
"""Name of the extra file with metadata in a ``torch.export`` file."""

ENCODER = ".encoder"
"""Marks the ONNX nodes of a student's network, as opposed to its preprocessing."""


def format_of(output: Path, asked: str | None) -> Format:
    """Return the format of `output`, from its suffix, which must not contradict `asked`.

    Raises:
        UsageError: If it does, or the format is undefined.
    """
    ending = SUFFIXES.get(output.suffix)
    if asked is not None and asked not in get_args(Format):
        raise UsageError(f"unknown format {asked!r} (known: {', '.join(get_args(Format))})")
    if ending and asked and ending != asked:
        right = next(suffix for suffix, name in SUFFIXES.items() if name == asked)
        raise UsageError(f"{output}: --format {asked} is written as {right}, and {output.suffix} is {ending}")
    if not (ending or asked):
        *others, last = SUFFIXES
        raise UsageError(f"{output}: the suffix must be {', '.join(others)} or {last}, or set --format")
    return asked or ending  # type: ignore[return-value]


def free_axes(graph: Graph) -> tuple[dict[int, torch.export.Dim], ...]:
    """Return the dynamic axes of each input: the batch, and time if a recording may have any number of samples."""
    batch = torch.export.Dim("batch")
    fixed = graph.samples
    return tuple(
        {0: batch} if fixed[name] else {0: batch, 1: torch.export.Dim(f"time_{number}", min=2)}
        for number, name in enumerate(graph.modalities)
    )


def save(
    format: Format, graph: Graph, example: tuple[torch.Tensor, ...], metadata: dict[str, Any], file: Path, opset: int | None
) -> Run:
    """Write `graph` to a file and return a function that runs it.

    Args:
        format: File format.
        graph: Module to export.
        example: Batch of inputs for tracing.
        metadata: Metadata for users of the file.
        file: Output file.
        opset: ONNX operator set version; None for the default of the exporter.

    Raises:
        KdcoreError: If the module cannot be traced or written, or the file is not in the format.
    """
    if format == "torch-export":
        _save_torch_export(graph, example, metadata, file)
        return torch_export_runner(file)
    if format == "executorch":
        save_executorch(graph, example, metadata, file)
        return executorch_runner(file)
    _save_onnx(graph, example, metadata, file, opset)
    return onnx_runner(file)


def _save_onnx(
    graph: Graph, example: tuple[torch.Tensor, ...], metadata: dict[str, Any], file: Path, opset: int | None
) -> None:
    import onnx

    try:
        with quiet():
            program = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                dynamic_shapes=(free_axes(graph),),
                input_names=graph.modalities,
                output_names=["logits", graph.answer],
                verbose=False,
                opset_version=opset,
            )
    except Exception as error:
        raise KdcoreError(f"this student cannot be exported to ONNX: {innermost_cause(error)}") from error
    assert program is not None
    model = program.model_proto
    written = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset is not None and written != opset:
        raise KdcoreError(f"this student cannot be exported with ONNX opset {opset}; it needs opset {written}")
    _tidy(model.graph)
    for key, value in as_text(metadata).items():
        model.metadata_props.add(key=PREFIX + key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _tidy(graph: Any) -> None:
    """Name nodes by their modules, and drop the tracer's annotations, which can be larger than a small student."""
    for number, node in enumerate(graph.node):
        notes = {each.key: each.value for each in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "['']"))
        node.name = f"{scopes[-2] if len(scopes) > 1 else ''}/{node.op_type}_{number}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    graph.ClearField("value_info")  # shapes can be inferred; the annotated ones are not always correct for recurrent layers
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    graph.ClearField("metadata_props")


def onnx_runner(file: Path) -> Run:
    """Return a function that runs an ONNX file on one core.

    Raises:
        KdcoreError: If ONNX Runtime cannot run the file.
    """
    try:
        session = open_session(file)
    except Exception as error:  # its exceptions have no common base
        raise KdcoreError(f"ONNX Runtime cannot run the file: {one_line(error)}") from error

    def run(piece: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        logits, probabilities = session.run(None, dict(piece))
        return np.asarray(logits), np.asarray(probabilities)

    return run


def _save_torch_export(graph: Graph, example: tuple[torch.Tensor, ...], metadata: dict[str, Any], file: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph, example, dynamic_shapes=(free_axes(graph),))
            with open(file, "wb") as stream:  # given a path, torch requires its own suffix
                torch.export.save(program, stream, extra_files={FACTS: json.dumps(metadata)})
    except Exception as error:
        raise KdcoreError(f"this student cannot be exported: {type(error).__name__}: {str(error)[:300]}") from error
    if not zipfile.is_zipfile(file):
        raise KdcoreError(f"{file.name}: torch.export did not write a .pt2 archive")


def torch_export_runner(file: Path) -> Run:
    """Return a function that runs a ``torch.export`` file."""
    extra = {FACTS: ""}
    with open(file, "rb") as stream:
        model = torch.export.load(stream, extra_files=extra).module()
    names = [told["name"] for told in json.loads(extra[FACTS])["inputs"]]

    @torch.no_grad()
    def run(piece: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        logits, probabilities = model(*(torch.from_numpy(np.ascontiguousarray(piece[name])) for name in names))
        return logits.numpy(), probabilities.numpy()

    return run
