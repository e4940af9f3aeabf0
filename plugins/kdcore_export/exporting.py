"""From a saved student to a file: build the graph, compare its answers, then write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kdcore import KdcoreError, Predictor, UsageError, find_student, load_predictor
from kdcore_export.clips import Clips, Piece, gather
from kdcore_export.cost import latency, operations, parameters
from kdcore_export.graph import Graph, facts

TOLERANCE = 1e-4
"""Largest difference between a file's answers and PyTorch's, in logits and in probabilities."""

Run = Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""Runs a file: a piece → logits and probabilities."""


@dataclass(frozen=True)
class Request:
    """What is to be exported and how; as the command's options."""

    student: str
    output: Path
    format: Literal["onnx", "torch-export"] = "onnx"
    int8: bool = False
    samples: int | None = None
    check: tuple[Path, ...] = ()
    dataset: str = ""
    rate: float | None = None
    seed: int | None = None
    ensemble: Literal["average", "max"] = "average"


def write(request: Request) -> Iterator[str]:
    """Export a student; lines for the user.

    Raises:
        KdcoreError: If it cannot be exported, or the file would answer otherwise than PyTorch: nothing is written then.
    """
    if request.int8 and request.format != "onnx":
        raise UsageError("int8 is for --format onnx")
    folder = find_student(request.student, request.seed)
    predictor = load_predictor(folder, request.ensemble)
    graph = Graph(predictor, request.samples)
    clips = gather(predictor, folder, request.check, request.dataset, request.rate, graph.samples, request.int8)
    yield f"student     {folder}"
    yield f"input       {'; '.join(_inputs(graph))}"
    with tempfile.TemporaryDirectory(dir=_parent(request.output)) as temporary:
        file = Path(temporary, request.output.name)
        run = _save(request, graph, clips, file)
        reference = [_pytorch(predictor, signals) for signals in clips.signals]
        answers = [run(piece) for piece in clips.pieces]
        worst = difference(answers, reference)
        if not worst <= TOLERANCE:
            raise KdcoreError(
                f"the graph answers otherwise than PyTorch on {len(answers)} {clips.what}: by up to {worst:.1e}, "
                f"more than {TOLERANCE:.0e}; nothing was written"
            )
        yield f"parity      at most {worst:.1e} off PyTorch on {len(answers)} {clips.what}"
        if request.int8:
            run, answers = _quantised(file, clips)
            yield f"int8        {agreement(answers, reference):.1%} of answers as before"
        if (line := _accuracy(clips, answers, reference)) is not None:
            yield f"accuracy    {line}"
        yield from _costs(graph, file, run, clips.pieces[len(clips.pieces) // 2])
        file.replace(request.output)
    yield f"written     {request.output}"


def difference(answers: list[tuple[np.ndarray, np.ndarray]], reference: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest difference between answers, in logits or probabilities; NaN counts as such."""
    gaps = [
        np.abs(a - b).max() for pair, other in zip(answers, reference, strict=True) for a, b in zip(pair, other, strict=True)
    ]
    return float(np.max(gaps))


def agreement(answers: list[tuple[np.ndarray, np.ndarray]], reference: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Share of pieces for which the likeliest class is the same."""
    return float(np.mean([a[1].argmax() == b[1].argmax() for a, b in zip(answers, reference, strict=True)]))


def _parent(output: Path) -> Path:
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent}: no such folder")
    return output.parent


def _inputs(graph: Graph) -> Iterator[str]:
    for told in facts(graph)["inputs"]:
        length = f"{told['samples']} samples" if told["samples"] else "any number of samples"
        channels = f", channels {' '.join(told['channels'])}" if told["channels"] else ""
        yield f"{told['name']}, {length} at {told['rate'] or '?'} Hz, {told['units']}{channels}"


def _save(request: Request, graph: Graph, clips: Clips, file: Path) -> Run:
    if request.format == "onnx":
        from kdcore_export.onnx_file import runner, save
    else:
        from kdcore_export.torch_file import runner, save
    save(graph, example(graph, clips.pieces[0]), file)
    return runner(file)


def example(graph: Graph, piece: Piece) -> tuple[torch.Tensor, ...]:
    """A batch of two, from which a graph is traced: a batch of one would be taken for the only size there is."""
    return tuple(torch.from_numpy(piece[name]).repeat_interleave(2, dim=0) for name in graph.modalities)


@torch.no_grad()
def _pytorch(predictor: Predictor, signals: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """The student's own answer to one piece, by the way that `kdcore predict` goes."""
    logits = predictor.answers(signals, [None])
    return logits.numpy(), logits.softmax(-1).numpy()


def _quantised(file: Path, clips: Clips) -> tuple[Run, list[tuple[np.ndarray, np.ndarray]]]:
    from kdcore_export.int8 import quantise
    from kdcore_export.onnx_file import runner

    quantise(file, clips.calibration)
    run = runner(file)
    return run, [run(piece) for piece in clips.pieces]


def _accuracy(clips: Clips, answers: list, reference: list) -> str | None:
    known = [number for number, label in enumerate(clips.labels) if label is not None]
    if not known:
        return None
    here, there = (
        np.mean([each[number][1].argmax() == clips.labels[number] for number in known]) for each in (answers, reference)
    )
    return f"{here:.2%} on {len(known)} {clips.what} (PyTorch {there:.2%})"


def _costs(graph: Graph, file: Path, run: Run, piece: Piece) -> Iterator[str]:
    size = sum(each.stat().st_size for each in file.parent.iterdir())
    yield f"size        {size / 1024:,.0f} KiB"
    yield f"parameters  {parameters(graph):,}"
    single = tuple(torch.from_numpy(piece[name]) for name in graph.modalities)
    samples = " and ".join(str(each.shape[1]) for each in single)
    yield f"operations  {operations(graph, single):,} multiply-adds for one recording of {samples} samples"
    yield f"latency     {1000 * latency(lambda: run(piece)):.2f} ms for it, on one core (median)"
