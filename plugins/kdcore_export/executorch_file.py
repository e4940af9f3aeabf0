"""ExecuTorch programs (``.pte``) for phones, watches and boards: writing, and running with the ExecuTorch runtime."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdcore import KdcoreError, UsageError, one_line
from kdcore_export.exporters import innermost_cause, quiet
from kdcore_export.graph import Graph

METADATA = "kdcore"
"""Name of the method of a program that returns the metadata as JSON text."""


def refuse_missing() -> None:
    """Check that ExecuTorch is installed.

    Raises:
        UsageError: If it is not.
    """
    if importlib.util.find_spec("executorch") is None:
        raise UsageError("--format executorch requires the package executorch: pip install 'kdcore[executorch]'")


def save_executorch(graph: Graph, example: tuple[torch.Tensor, ...], metadata: dict[str, Any], file: Path) -> None:
    """Write a program for one recording at a time, with XNNPACK kernels for supported layers.

    Args:
        graph: Module to export; all recordings must have a fixed number of samples.
        example: Batch of inputs for tracing.
        metadata: Metadata for users of the file, returned by the method ``kdcore`` of the program.
        file: Output file.

    Raises:
        KdcoreError: If the module cannot be traced or lowered.
    """
    try:
        with quiet(), _silent():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
                XnnpackPartitioner,
            )
            from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

            traced = torch.export.export(graph, tuple(each[:1] for each in example))
            methods = {METADATA: json.dumps(metadata, ensure_ascii=False)}
            edge = to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()], constant_methods=methods)
            file.write_bytes(edge.to_executorch().buffer)
    except Exception as error:
        raise KdcoreError(f"this student cannot be exported to ExecuTorch: {innermost_cause(error)}") from error


def executorch_runner(file: Path) -> Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Return a function that runs an ExecuTorch program on one core.

    Raises:
        KdcoreError: If the runtime cannot load the program, or lacks a kernel.
    """
    try:
        with quiet(), _silent():
            from executorch.extension.pybindings import portable_lib  # pyright: ignore[reportMissingImports]
            from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

            portable_lib._unsafe_reset_threadpool(1)
            program = Runtime.get().load_program(file)
            method = program.load_method("forward")
            [told] = program.load_method(METADATA).execute([])
    except Exception as error:
        raise KdcoreError(f"ExecuTorch cannot run the file: {one_line(error)}") from error
    names = [each["name"] for each in json.loads(told)["inputs"]]

    started = False

    def run(piece: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        nonlocal started
        inputs = [torch.from_numpy(np.ascontiguousarray(piece[name])) for name in names]
        with contextlib.nullcontext() if started else _silent():  # later calls log nothing, and are timed
            outputs = method.execute(inputs)
        started = True
        logits, answers = (each.numpy().copy() for each in outputs)  # the next call overwrites them
        return logits, answers

    return run


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard the runtime's log messages about the processor, which bypass Python's standard error."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
