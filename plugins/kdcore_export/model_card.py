"""Model cards of exported students: training, data, results, and fields for their owner to fill in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdcore import AnyEvaluation, Ensemble, Evaluation, FinishedRun, KdcoreError, Metric, Predictor, read_run, with_units
from kdcore_export.graph import students_of

MARK = "<!-- Written by kdcore export for "
"""Start of the comment that names the file of a card."""

UNSTATED = "not stated; fill in before publishing"


def write_card(
    output: Path, predictor: Predictor, metadata: Mapping[str, Any], run: Path | None, measured: Sequence[str]
) -> Path:
    """Write the model card of an exported file next to it.

    It is named ``README.md``, or ``FILE.README.md`` if the folder has its own README or that of another export, which is never
    overwritten.

    Args:
        output: The exported file.
        predictor: The student or ensemble in the file.
        metadata: Metadata in the file.
        run: Folder of its run, if known.
        measured: Lines that the export printed about the file.

    Raises:
        KdcoreError: If it cannot be written.
    """
    mark = f"{MARK}{output.name} -->"
    path = output.with_name("README.md")
    try:
        if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace"):
            path = output.with_name(f"{output.name}.README.md")
        finished = _finished(run)
        lines = [*_header(metadata, mark), *_what(predictor, metadata, output), *_training(predictor, finished)]
        lines += [*_results(predictor, finished), *_file(measured), *_owner()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise KdcoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _finished(run: Path | None) -> FinishedRun | None:
    try:
        return read_run(run) if run else None
    except KdcoreError:  # an unfinished or damaged run has no results
        return None


def _header(metadata: Mapping[str, Any], mark: str) -> list[str]:
    name = metadata["recipe"].get("name") or metadata["students"][0]
    front = ["---", "library_name: kdcore", "license: other", "license_name: not-stated"]
    values = (metadata.get("target") or {}).get("kind") == "values"
    task = "time-series-regression" if values else "time-series-classification"
    return [*front, f"tags: [knowledge-distillation, {task}]", "---", mark, "", f"# {name}", ""]


def _what(predictor: Predictor, metadata: Mapping[str, Any], output: Path) -> Iterator[str]:
    target, reads, count = predictor.target, " and ".join(predictor.modalities), len(predictor.classes)
    does = {
        "classes": f"classifies {reads} recordings into {count} classes",
        "labels": f"says which of {count} labels {reads} recordings have",
        "values": f"estimates {count} value{'s' if count > 1 else ''} from {reads} recordings",
    }[target.kind]
    yield f"`{output.name}` {does}:"
    yield f"{', '.join(with_units(predictor.classes, target))}."
    if isinstance(predictor, Ensemble):
        of = "values" if target.kind == "values" else "probabilities"
        yield f"It is an ensemble ({predictor.rule} of {of}) of {', '.join(metadata['students'])}."
    yield from (
        "",
        "## Input and output",
        "",
        "| input | axes | channels | unit | rate | samples |",
        "|---|---|---|---|---|---|",
    )
    batch = metadata.get("batch", "batch")
    for spec in metadata["inputs"]:
        rate = f"{spec['rate']:g} Hz" if spec["rate"] else "any"
        channels, axes = (", ".join(spec[key]) or "–" for key in ("channels", "axes"))
        yield f"| `{spec['name']}` | {batch}, {axes} | {channels} | {spec['units']} | {rate} | {spec['samples'] or 'any'} |"
    yield ""
    window = metadata["window"]
    if window:
        yield f"It was trained on windows of {window[0]:g} s, every {window[1]:g} s; cut recordings into such windows first."
    answers = {
        "classes": "`logits` and `probabilities` (batch, classes)",
        "labels": "`logits` and independent `probabilities` (batch, labels)",
        "values": "`logits`, which are normalised values, and `values` (batch, values) in their units",
    }
    yield f"Outputs are {answers[target.kind]}. Preprocessing is part of the file"
    yield "(augmentations in these lists are for training only):"
    yield ""
    for name, chains in metadata["preprocessing"].items():
        yield f"- {name}: `{json.dumps(chains, ensure_ascii=False)}`"
    yield ""


def _training(predictor: Predictor, run: FinishedRun | None) -> Iterator[str]:
    description = predictor.description
    dataset = description.get("dataset", {})
    yield from ("## Data and training", "")
    yield f"- Data: {dataset.get('name', 'unknown')} (fingerprint `{dataset.get('fingerprint', '')}`)"
    if run is None:
        yield "- Split: unknown; the file was exported without its finished run"
    else:
        counts = ", ".join(f"{count} {split}" for split, count in run.facts.counts.items() if count)
        yield f"- Split: {run.facts.split_rule}; samples: {counts}"
        teachers = [name for name in run.facts.modalities if name not in run.outcomes["distilled"][run.facts.seeds[0]].students]
        reads = [f"{name} ({' + '.join(run.facts.modalities[name])})" for name in teachers]
        yield f"- Teachers: {', '.join(reads) or 'none'}"
        yield f"- Recipe: {run.facts.name} (hash `{run.facts.recipe_hash[:12]}`), run `{run.folder.name}`"
    for name, student in students_of(predictor).items():
        yield f"- Network of {name}: `{json.dumps(student.description.get('encoder', {}), ensure_ascii=False)}`"
    versions = run.facts.versions if run else {"kdcore": description.get("kdcore", "?")}
    yield f"- Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}"
    yield ""


def _results(predictor: Predictor, run: FinishedRun | None) -> Iterator[str]:
    yield from ("## Results", "")
    if run is None:
        yield from ("Unknown: the file was exported without its finished run.", "")
        return
    yield f"On the {run.facts.split} split, measured by the run:"
    yield from (
        "",
        _headings(run),
        "|---|---|---|---|---|---|---|",
    )
    for name in students_of(predictor):
        for arm, seeds in run.outcomes.items():
            for seed, outcome in seeds.items():
                if found := outcome.evaluations().get(name):
                    yield f"| {name} | {arm} | {seed} | {_numbers(found)} |"
    yield from ("", "The interval applies to the test samples of one seed, not to other subjects, devices or seeds.")
    yield from ("It accounts for the dependence between windows of one recording.", "")


def _headings(run: FinishedRun) -> str:
    """Return the headings of the table of results."""
    found = next(iter(run.outcomes["distilled"][run.facts.seeds[0]].evaluations().values()))
    how = "Wilson" if isinstance(found, Evaluation) else "bootstrap"
    return f"| student | arm | seed | {_titled(found.primary)} | 95 % interval ({how}) | {_titled(found.secondary)} | n |"


def _titled(metric: Metric) -> str:
    return metric.title if metric.unit == "%" else metric.heading


def _numbers(found: AnyEvaluation) -> str:
    one, other, (low, high) = found.primary, found.secondary, found.interval
    sign = " %" if one.unit == "%" else ""
    first, second = (f"{each.text(found.metrics()[each.name])}{'%' if each.unit == '%' else ''}" for each in (one, other))
    ends = " to ".join(f"{one.text(end)}{sign.strip()}" for end in (low, high))
    return f"{first} | {ends} | {second} | {found.n}"


def _file(measured: Sequence[str]) -> list[str]:
    return ["## This file", "", "```", *measured, "```", ""]


def _owner() -> list[str]:
    return [
        "## Intended use",
        "",
        f"- Intended use: {UNSTATED}",
        "- Out of scope: other sensors, placements, units, rates or classes than above; medical or safety decisions",
        f"- Known limits and biases: {UNSTATED}",
        "",
        "## Licence",
        "",
        f"- Licence of the weights: {UNSTATED}",
        f"- Licence and terms of the data: {UNSTATED}",
        f"- Contact: {UNSTATED}",
    ]
