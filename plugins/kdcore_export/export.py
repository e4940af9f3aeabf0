"""Export of saved students: tracing, writing, comparison with PyTorch, and the model card."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kdcore import KdcoreError, Predictor, UsageError, find_student, load_predictor
from kdcore_export.clips import Clips, Given, Piece, calibration_pieces, gather, of_split, run_of
from kdcore_export.executorch_file import refuse_missing
from kdcore_export.formats import FIXED, Run, format_of, onnx_runner, save
from kdcore_export.graph import Graph, facts
from kdcore_export.measures import TOLERANCE, agreement, difference, score
from kdcore_export.model_card import write_card

RUNS, FIRST = 200, 20


@dataclass(frozen=True)
class Request:
    """Options of ``kdcore export``."""

    student: str
    output: Path
    format: str | None = None
    int8: bool = False
    samples: int | None = None
    check: Given = field(default_factory=Given)
    seed: int | None = None
    ensemble: Literal["average", "max"] = "average"
    opset: int | None = None
    card: bool = True


def export_student(request: Request) -> Iterator[str]:
    """Export a student. Yields lines for the user with what was done and measured.

    Raises:
        KdcoreError: If it cannot be exported, or the outputs of the file differ from PyTorch's; nothing is written then.
    """
    format = format_of(request.output, request.format)
    for option, used in (("--int8", request.int8), ("--opset", request.opset is not None)):
        if used and format != "onnx":
            raise UsageError(f"{option} requires --format onnx; {request.output} is {format}")
    if format == "executorch":
        refuse_missing()
    request.check.refuse_unused()
    if not request.output.parent.is_dir():
        raise UsageError(f"{request.output.parent}: no such folder")
    folder = find_student(request.student, request.seed)
    predictor = load_predictor(folder, request.ensemble)
    graph = Graph(predictor, request.samples, fixed=format == FIXED)
    metadata = facts(predictor, graph.samples)
    if format == FIXED:
        metadata["batch"] = 1
    run = run_of(folder)
    clips = gather(predictor, run, graph.samples, request.check)
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
        measured = [f"parity      within {worst:.1e} of PyTorch on {len(outputs)} {clips.what}"]
        if clips.too_short:
            measured.append(f"left out    {clips.too_short} of the {clips.what}, which are shorter than the file's input")
        if request.int8:
            judged = of_split(predictor, run, "validation", graph.samples) if run is not None else clips
            judged = judged if judged.pieces else clips
            lines, runner = _quantised(
                predictor, file, runner, judged, calibration_pieces(predictor, run, graph.samples, clips)
            )
            measured += lines
            outputs = [runner(piece) for piece in clips.pieces]
        if (found := score(predictor, clips, outputs, reference, "PyTorch")) is not None:
            measured.append(f"{found[0]:<12}{found[1]}")
        measured += _costs(graph, file, runner, clips.pieces[len(clips.pieces) // 2])
        yield from measured
        file.replace(request.output)
    yield f"written     {request.output}"
    if request.card:
        yield f"card        {write_card(request.output, predictor, metadata, run.folder if run else None, measured)}"


def _quantised(
    predictor: Predictor, file: Path, float32: Run, judged: Clips, calibration: Sequence[Piece]
) -> tuple[list[str], Run]:
    """Quantise an ONNX file in place. Return lines for the user, and a function that runs the file.

    Args:
        predictor: The student in the file.
        file: The file.
        float32: Function that runs the unquantised file.
        judged: Recordings for evaluating the file before and after.
        calibration: Recordings for calibrating activation ranges.
    """
    from kdcore_export.int8 import quantise

    size, before = file.stat().st_size, [float32(piece) for piece in judged.pieces]
    layers = quantise(file, calibration)
    runner = onnx_runner(file)
    after = [runner(piece) for piece in judged.pieces]
    lines = [f"layer       {layer}" for layer in layers]
    lines.append(f"int8        {file.stat().st_size / 1024:,.0f} KiB, float32 {size / 1024:,.0f} KiB")
    lines.append(agreement(predictor, judged, after, before))
    if judged.split == "validation" and (found := score(predictor, judged, after, before, "float32")) is not None:
        lines.append(f"validation  {found[0]} {found[1]}")
    return lines, runner


def example(graph: Graph, piece: Piece) -> tuple[Tensor, ...]:
    """Return a batch of two for tracing a graph, since a batch of one would be traced as a fixed size."""
    return tuple(torch.from_numpy(piece[name]).repeat_interleave(2, dim=0) for name in graph.modalities)


def _pytorch(predictor: Predictor, signals: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the student's own output for a recording, as computed by `kdcore predict`."""
    return predictor.logits([signals]), predictor.probabilities([signals])


def _inputs(inputs: Sequence[dict]) -> Iterator[str]:
    for spec in inputs:
        length = f"{spec['samples']} samples" if spec["samples"] else "any number of samples"
        channels = f", channels {' '.join(spec['channels'])}" if spec["channels"] else ""
        rate = f"{spec['rate']:.6g}" if spec["rate"] else "?"
        yield f"{spec['name']}, {length} at {rate} Hz, {spec['units']}{channels}"


def _costs(graph: Graph, file: Path, run: Run, piece: Piece) -> Iterator[str]:
    size = sum(each.stat().st_size for each in file.parent.iterdir())
    yield f"size        {size / 1024:,.0f} KiB"
    yield f"parameters  {parameters(graph):,}"
    single = tuple(torch.from_numpy(piece[name]) for name in graph.modalities)
    samples = " and ".join(str(each.shape[1]) for each in single)
    yield f"operations  {operations(graph, single):,} multiply-adds for one recording of {samples} samples"
    yield f"latency     {1000 * latency(lambda: run(piece)):.2f} ms for this recording, on one core (median)"


def parameters(graph: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(each.numel() for each in graph.parameters())


@torch.no_grad()
def operations(graph: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Return the multiply-adds of convolutions and matrix products for `example`, including preprocessing."""
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FlopCounterMode(display=False) as counter, torch.backends.mkldnn.flags(enabled=False):  # its LSTM is not counted
            graph(*example)
    return counter.get_total_flops() // 2


def latency(call: Callable[[], object]) -> float:
    """Return the median duration of a call on one core, in seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        durations = []
        for _ in range(FIRST + RUNS):
            began = time.perf_counter()
            call()
            durations.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(durations[FIRST:])
