"""``torch.export``: the graph as a file that needs torch and nothing of kdcore."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from kdcore import KdcoreError
from kdcore_export.graph import Graph, facts
from kdcore_export.onnx_file import axes

FACTS = "kdcore.json"
"""Name of the extra file inside: what users of the graph must know."""


def save(graph: Graph, example: tuple[torch.Tensor, ...], file: Path) -> None:
    """Write `graph`.

    Raises:
        KdcoreError: If something in it cannot be traced.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph, example, dynamic_shapes=(axes(graph),))
            torch.export.save(program, file, extra_files={FACTS: json.dumps(facts(graph))})
    except Exception as error:
        raise KdcoreError(f"this student cannot be exported: {type(error).__name__}: {str(error)[:300]}") from error


def runner(file: Path) -> Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Runs the file."""
    extra = {FACTS: ""}
    model = torch.export.load(file, extra_files=extra).module()
    names = [told["name"] for told in json.loads(extra[FACTS])["inputs"]]

    @torch.no_grad()
    def run(piece: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        logits, probabilities = model(*(torch.from_numpy(np.ascontiguousarray(piece[name])) for name in names))
        return logits.numpy(), probabilities.numpy()

    return run
