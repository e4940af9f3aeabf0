"""Exports of saved students: trace, write, compare with PyTorch, and describe in a model card."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kdcore import KdcoreError, Predictor, Target, UsageError, evaluate_target, find_student, load_predictor
from kdcore_export.clips import Clips, Piece, calibration_pieces, gather, of_split, run_of
from kdcore_export.formats import Run, format_of, onnx_runner, save
from kdcore_export.graph import Graph, facts
from kdcore_export.model_card import write_card

TOLERANCE = 1e-4
"""Largest difference between a file's outputs and PyTorch's, in logits and in probabilities."""

RUNS, FIRST = 200, 20

Outputs = list[tuple[np.ndarray, np.ndarray]]
"""Logits and probabilities of every piece."""


@dataclass(frozen=True)
class Request:
    """The options of ``kdcore export``."""

    student: str
    output: Path
    format: str | None = None
    int8: bool = False
    samples: int | None = None
    check: tuple[str | Path, ...] = ()
    dataset: str = ""
    rate: float | None = None
    seed: int | None = None
    ensemble: Literal["average", "max"] = "average"
    opset: int | None = None
    card: bool = True


def export_student(request: Request) -> Iterator[str]:
    """Export a student; yields lines that say what was done and measured.

    Raises:
        KdcoreError: If it cannot be exported, or the file's outputs differ from PyTorch's: nothing is written then.
    """
    format = format_of(request.output, request.format)
    for option, used in (("--int8", request.int8), ("--opset", request.opset is not None)):
        if used and format != "onnx":
            raise UsageError(f"{option} requires --format onnx")
    if not request.output.parent.is_dir():
        raise UsageError(f"{request.output.parent}: no such folder")
    folder = find_student(request.student, request.seed)
    predictor = load_predictor(folder, request.ensemble)
    if request.int8 and not predictor.target.is_classes:
        what = f"this student answers with {predictor.target.kind}"
        raise UsageError(f"--int8 is judged by how many predicted classes stay the same, and {what}; export it without")
    graph = Graph(predictor, request.samples)
    metadata = facts(predictor, graph.samples)
    run = run_of(folder)
    clips = gather(predictor, run, graph.samples, request.check, request.dataset, request.rate)
    said = [f"student     {folder}", f"input       {'; '.join(_inputs(metadata['inputs']))}"]
    yield from said
    with tempfile.TemporaryDirectory(dir=request.output.parent) as temporary:
        file = Path(temporary, request.output.name)
        runner = save(format, graph, example(graph, clips.pieces[0]), metadata, file, request.opset)
        reference = [_pytorch(predictor, signals) for signals in clips.signals]
        outputs = [runner(piece) for piece in clips.pieces]
        worst = difference(outputs, reference, predictor.target)
        if not worst <= TOLERANCE:
            raise KdcoreError(
                f"the exported file's outputs differ from PyTorch's on {len(outputs)} {clips.what}: by up to {worst:.1e}, "
                f"more than {TOLERANCE:.0e}; nothing was written"
            )
        measured = [f"parity      at most {worst:.1e} off PyTorch on {len(outputs)} {clips.what}"]
        if request.int8:
            before = file.stat().st_size
            judged = of_split(predictor, run, "validation", graph.samples) if run is not None else clips
            judged = judged if judged.pieces else clips
            float32 = [runner(piece) for piece in judged.pieces]
            from kdcore_export.int8 import quantise

            layers = quantise(file, calibration_pieces(predictor, run, graph.samples, clips))
            runner = onnx_runner(file)
            outputs = [runner(piece) for piece in clips.pieces]
            small = [runner(piece) for piece in judged.pieces]
            measured += [f"layer       {layer}" for layer in layers]
            measured += [f"int8        {file.stat().st_size / 1024:,.0f} KiB, float32 {before / 1024:,.0f} KiB"]
            measured += [f"agreement   {agreement(small, float32):.1%} of {len(small)} predictions unchanged ({judged.what})"]
            if judged is not clips and (line := accuracy(judged, small, float32, "float32")) is not None:
                measured.append(f"validation  {line}")
        if (line := quality(predictor, clips, outputs, reference)) is not None:
            measured.append(line)
        measured += _costs(graph, file, runner, clips.pieces[len(clips.pieces) // 2])
        yield from measured
        file.replace(request.output)
    yield f"written     {request.output}"
    if request.card:
        yield f"card        {write_card(request.output, predictor, metadata, run.folder if run else None, measured)}"


def difference(outputs: Outputs, reference: Outputs, target: Target | None = None) -> float:
    """The largest difference in logits or probabilities, of values in standard deviations; NaN if there is one."""
    scales = (1.0, np.asarray(target.std) if target and target.std else 1.0)
    gaps = [
        (np.abs(a - b) / scale).max()
        for pair, other in zip(outputs, reference, strict=True)
        for a, b, scale in zip(pair, other, scales, strict=True)
    ]
    return float(np.max(gaps))


def agreement(outputs: Outputs, reference: Outputs) -> float:
    """Share of pieces whose likeliest class is the same."""
    return float(np.mean([a[1].argmax() == b[1].argmax() for a, b in zip(outputs, reference, strict=True)]))


def accuracy(clips: Clips, outputs: Outputs, reference: Outputs, name: str) -> str | None:
    """Accuracy of both, in words; None where no label is known."""
    known = [number for number, label in enumerate(clips.labels) if label is not None]
    if not known:
        return None
    here, there = (
        np.mean([each[number][1].argmax() == clips.labels[number] for number in known]) for each in (outputs, reference)
    )
    return f"{here:.2%} ({name} {there:.2%}), n {len(known)}, {clips.what}"


def quality(predictor: Predictor, clips: Clips, outputs: Outputs, reference: Outputs) -> str | None:
    """The metric by which the target is judged, of the file and of PyTorch, in words; None where no target is known."""
    if predictor.target.is_classes:
        line = accuracy(clips, outputs, reference, "PyTorch")
        return line and f"accuracy    {line}"
    known = [number for number, label in enumerate(clips.labels) if label is not None]
    if not known:
        return None
    labels = np.array([clips.labels[number] for number in known])
    found = [
        evaluate_target(predictor.target, predictor.classes, np.concatenate([each[n][1] for n in known]), labels)
        for each in (outputs, reference)
    ]
    metric = found[0].primary
    here, there = (metric.text(each.metrics()[metric.name]) for each in found)
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{metric.title:<12}{here}{unit} (PyTorch {there}{unit}), n {len(known)}, {clips.what}"


def example(graph: Graph, piece: Piece) -> tuple[Tensor, ...]:
    """A batch of two, from which a graph is traced: a batch of one would be taken for the only size there is."""
    return tuple(torch.from_numpy(piece[name]).repeat_interleave(2, dim=0) for name in graph.modalities)


def _pytorch(predictor: Predictor, signals: dict) -> tuple[np.ndarray, np.ndarray]:
    """The student's own output for one piece, as `kdcore predict` computes it."""
    return predictor.logits([signals]), predictor.probabilities([signals])


def _inputs(inputs: Sequence[dict]) -> Iterator[str]:
    for told in inputs:
        length = f"{told['samples']} samples" if told["samples"] else "any number of samples"
        channels = f", channels {' '.join(told['channels'])}" if told["channels"] else ""
        yield f"{told['name']}, {length} at {told['rate'] or '?'} Hz, {told['units']}{channels}"


def _costs(graph: Graph, file: Path, run: Run, piece: Piece) -> Iterator[str]:
    size = sum(each.stat().st_size for each in file.parent.iterdir())
    yield f"size        {size / 1024:,.0f} KiB"
    yield f"parameters  {parameters(graph):,}"
    single = tuple(torch.from_numpy(piece[name]) for name in graph.modalities)
    samples = " and ".join(str(each.shape[1]) for each in single)
    yield f"operations  {operations(graph, single):,} multiply-adds for one recording of {samples} samples"
    yield f"latency     {1000 * latency(lambda: run(piece)):.2f} ms for it, on one core (median)"


def parameters(graph: nn.Module) -> int:
    """Number of learnt parameters."""
    return sum(each.numel() for each in graph.parameters())


@torch.no_grad()
def operations(graph: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Multiply-adds of convolutions and matrix products for `example`, preprocessing included."""
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FlopCounterMode(display=False) as counter, torch.backends.mkldnn.flags(enabled=False):  # its LSTM is not counted
            graph(*example)
    return counter.get_total_flops() // 2


def latency(call: Callable[[], object]) -> float:
    """Median seconds of a call on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = []
        for _ in range(FIRST + RUNS):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(taken[FIRST:])
