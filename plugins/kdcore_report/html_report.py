"""HTML report of a run, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from kdcore import Evaluation, Row, Summary, evaluate, with_units
from kdcore_report.calibration import reliability
from kdcore_report.curves import Curves
from kdcore_report.examples import Example
from kdcore_report.html_page import Pictures, figure, note, page, percent, section, seeds_text, table

PARTS = 8
"""Number of colours in the bar of times."""

DISTILLED, BASELINE, ALONE = "distilled", "baseline", "student"

_REMARKS = {
    "classes": "Accuracy and macro F1 in %.",
    "labels": "Mean average precision (mAP) and macro F1 at a probability of 0.5, in %.",
    "values": "Errors in the unit of the values; lower is better. R²: 1 is exact, 0 a constant value.",
}
"""Notes on the table of results by kind of target."""

_EXPLAINED = {"classes": "predicted class", "labels": "label", "values": "estimate"}
_NUMBERS = {"classes": "confidence, %", "labels": "probabilities, %", "values": "error"}
"""Explained output in saliency maps, and numbers next to predictions, by kind of target."""


def write_page(path: Path, summary: Summary, curves: Curves | None = None, examples: Sequence[Example] = ()) -> None:
    """Write the report as one HTML page without external resources, and its images to ``pictures`` next to it.

    Args:
        path: Output HTML file.
        summary: Results of the run.
        curves: Learning curves of the run.
        examples: Samples to show.
    """
    pictures = Pictures(path.with_name("pictures"))
    introduction = "".join(f"<p>{escape(text)}</p>" for text in (summary.description, summary.setting) if text)
    body = "\n".join(
        (
            f"<header><h1>{escape(summary.name)}</h1>{introduction}</header>",
            *_answer(summary),
            section(f"{summary.split.capitalize()} results", _results(summary)),
            section("Evaluation", _facts(summary)),
            *_curves(curves or {}, pictures),
            *_by_target(summary, pictures),
            *_examples(summary, examples, pictures),
            *_times(summary),
            section("Reproduce this run", _repeat(summary)),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(summary.name, body), encoding="utf-8")


def _by_target(summary: Summary, pictures: Pictures) -> Iterator[str]:
    """Return the sections that depend on the kind of target."""
    if not summary.target.is_classes:
        from kdcore_report.target_sections import target_sections

        yield from target_sections(summary, pictures)
        return
    yield from _confusions(summary, pictures)
    yield from _gains(summary)
    yield from _agreement(summary)
    yield from _reliability(summary, pictures)


def _answer(summary: Summary) -> Iterator[str]:
    if not summary.answer:
        return
    content = f'<p class="answer">{escape(summary.answer)}</p>'
    several = len(summary.by_subject) > 1
    people = " ".join(f"{name}: {each.sentence}" if several else each.sentence for name, each in summary.by_subject.items())
    if people:
        covers = "seeds" if len(summary.seeds) > 1 else "test samples"
        content += note(f"{people} The interval above reflects the variation between {covers}, this one between subjects.")
    yield section("Did distillation help?", content)


def _results(summary: Summary) -> str:
    rows = [("main" if row.role in (DISTILLED, ALONE) else "", [*map(escape, row.cells())]) for row in summary.rows]
    remark = _REMARKS[summary.target.kind]
    if len(summary.seeds) == 1:
        how = "Wilson's score interval" if summary.target.is_classes else "a percentile bootstrap"
        remark += f" The interval is {how} over the samples of the only seed."
        if any(evaluation.recordings is not None for row in summary.rows for evaluation in row.evaluations):
            remark += " It allows for the dependence between windows of one recording."
    else:
        remark += " sd: standard deviation over seeds."
    samples = {evaluation.n for row in summary.rows for evaluation in row.evaluations}
    remark += f" {summary.split.capitalize()} samples: {', '.join(map(str, sorted(samples)))}."
    return table(summary.headings(), rows) + note(remark)


def _facts(summary: Summary) -> str:
    facts = {
        "Split": summary.rule,
        "Data notes": "; ".join(summary.notes) or "no recording was dropped",
        "Weights evaluated": summary.selection,
        "Seeds": ", ".join(map(str, summary.seeds)),
        summary.target.kind.capitalize(): _classes(summary),
        "Interval of the difference": summary.difference.method if summary.difference else "",
        "Files": str(summary.folder),
        "Tracking": summary.tracking,
        "Versions": ", ".join(f"{name} {version}" for name, version in summary.versions.items()),
    }
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    return f"<dl>{''.join(lines)}</dl>"


def _classes(summary: Summary) -> str:
    """Return the number of classes, or the names of labels or values."""
    return str(len(summary.classes)) if summary.target.is_classes else ", ".join(with_units(summary.classes, summary.target))


def _curves(curves: Curves, pictures: Pictures) -> Iterator[str]:
    from kdcore_report.plots import panels_picture

    panels = {title: lines for title, lines in curves.items() if lines}
    if panels:
        content = pictures.figure("curves", lambda path: panels_picture(panels, path), "Learning curves of every term")
        yield section("Learning curves", content)


def _confusions(summary: Summary, pictures: Pictures) -> Iterator[str]:
    from kdcore_report.plots import confusion_difference_picture, confusion_picture

    pooled = {role: _pooled(row) for role in (BASELINE, DISTILLED, ALONE) if (row := summary.row(role))}
    seeds, classes = seeds_text(summary), summary.classes
    names = {DISTILLED: "confusion-distilled", BASELINE: "confusion-baseline", ALONE: "confusion"}
    figures = []
    for role, evaluation in pooled.items():
        draw = partial(confusion_picture, evaluation, classes, f"{role}, {seeds}")
        figures.append(pictures.figure(names[role], draw, role))
    if len(pooled) == 2:
        title = f"distilled minus baseline, {seeds}"
        draw = partial(confusion_difference_picture, pooled[DISTILLED], pooled[BASELINE], classes, title)
        figures.append(pictures.figure("confusion-difference", draw, title))
    if figures:
        yield section("Confusion matrix", "\n".join(figures))


def _gains(summary: Summary) -> Iterator[str]:
    distilled, baseline = summary.row(DISTILLED), summary.row(BASELINE)
    if distilled is None or baseline is None:
        return
    recalls = zip(_pooled(baseline).by_output.tolist(), _pooled(distilled).by_output.tolist(), summary.classes, strict=True)
    gains = [(after - before, before, after, name) for before, after, name in recalls if np.isfinite(after)]
    rows = [
        ("", [escape(name), percent(before), percent(after), f"{100 * gain:+.1f}", _bar(gain)])
        for gain, before, after, name in sorted(gains, key=lambda each: -each[0])
    ]
    remark = note("Recall of each class in %, over all seeds; largest gain first.")
    yield section("Per-class gain", table(["class", "baseline", "distilled", "gain", ""], rows) + remark)


def _bar(gain: float) -> str:
    side = "more" if gain >= 0 else "less"
    return f'<span class="bar"><i class="{side}" style="width:{50 * min(1.0, abs(gain)):.1f}%"></i></span>'


def _agreement(summary: Summary) -> Iterator[str]:
    """Count the samples that the distilled student classifies correctly, by whether the teachers and the baseline do."""
    teacher, distilled, baseline = summary.row("teacher ensemble", "teacher"), summary.row(DISTILLED), summary.row(BASELINE)
    if teacher is None or distilled is None or baseline is None:
        return
    by_teacher, by_distilled, by_baseline = (_correct(row, teacher) for row in (teacher, distilled, baseline))
    rows = []
    for teacher_correct, baseline_correct in ((True, False), (True, True), (False, False), (False, True)):
        group = (by_teacher == teacher_correct) & (by_baseline == baseline_correct)
        samples, correct = int(group.sum()), int((group & by_distilled).sum())
        share = f"{100 * correct / samples:.0f}" if samples else "–"
        style = "main" if teacher_correct and not baseline_correct else ""
        rows.append((style, [_verdict(teacher_correct), _verdict(baseline_correct), str(samples), str(correct), share]))
    only_teacher, both = by_teacher & ~by_baseline, by_teacher & by_baseline
    text = (
        f"The {escape(teacher.role)} classifies {only_teacher.sum()} samples correctly that the baseline misclassifies. The "
        f"distilled student classifies {(only_teacher & by_distilled).sum()} of them correctly, and misclassifies "
        f"{(both & ~by_distilled).sum()} that both classified correctly."
    )
    titles = [teacher.participant, "baseline", "samples", "distilled correct", "%"]
    remark = note(f"Counted over {seeds_text(summary)}.")
    yield section("Agreement with the teachers", f"<p>{text}</p>" + table(titles, rows) + remark)


def _correct(row: Row, teacher: Row) -> np.ndarray:
    """Return whether each prediction of all seeds is correct, for the samples that the teacher has."""
    correct = []
    for evaluation, of_teacher in zip(_of_classes(row), teacher.evaluations, strict=True):
        covers_all = row is teacher or of_teacher.rows is None
        correct.append(evaluation.correct if covers_all else evaluation.correct[of_teacher.rows])
    return np.concatenate(correct)


def _verdict(correct: bool) -> str:
    return '<span class="right">correct</span>' if correct else '<span class="wrong">wrong</span>'


def _reliability(summary: Summary, pictures: Pictures) -> Iterator[str]:
    from kdcore_report.plots import reliability_picture

    rows = [row for row in map(summary.row, (BASELINE, DISTILLED, ALONE)) if row]
    if rows:
        by_role = {row.role: reliability(_pooled(row)) for row in rows}
        content = pictures.figure("reliability", lambda path: reliability_picture(by_role, path), "Reliability diagram")
        remark = note(
            f"Accuracy by confidence, over {seeds_text(summary)}. A well calibrated model lies on the diagonal. ECE: expected "
            "calibration error. Paler bars contain fewer predictions."
        )
        yield section("Calibration", content + remark)


def _examples(summary: Summary, examples: Sequence[Example], pictures: Pictures) -> Iterator[str]:
    from kdcore_report.recordings import animation, draw_input, draw_signal, has_frames
    from kdcore_report.saliency_plots import draw_saliency

    shown = []
    for number, example in enumerate(examples, 1):
        figures = []
        for name, (modality, signal) in example.recordings.items():
            if moving := animation(modality, signal):
                figures.append(figure(moving))
            title, draw = f"{name}, {signal.duration:.1f} s", partial(draw_signal, modality, signal)
            figures.append(pictures.figure(f"example-{number}-{name}", draw, title, title, has_frames(modality)))
        for name, values in example.inputs.items():
            title = f"input of {name}"
            figures.append(
                pictures.figure(f"example-{number}-input-{name}", partial(draw_input, values), title, title, photograph=True)
            )
        if example.saliency:
            title = f"saliency: deeper red contributes more to the {_EXPLAINED[summary.target.kind]} above it"
            draw = partial(draw_saliency, example.saliency)
            figures.append(pictures.figure(f"example-{number}-saliency", draw, title, title, photograph=True))
        predictions = [
            ("", [escape(each.participant), f"{_mark(each.correct)} {escape(each.text)}".strip(), escape(each.number)])
            for each in example.predictions
        ]
        heading = f"<h3>{escape(example.label)}</h3>" + note(f"{example.why}. Sample: {example.key}.")
        body = "\n".join((heading, table(["participant", "prediction", _NUMBERS[summary.target.kind]], predictions), *figures))
        shown.append(f'<div class="example">{body}</div>')
    if shown:
        of_seed = note(f"Predictions of seed {summary.seeds[0]}.") if len(summary.seeds) > 1 else ""
        yield section("Examples", of_seed + "\n".join(shown))


def _times(summary: Summary) -> Iterator[str]:
    """Return the duration of each phase of the run, as a bar and a table."""
    total = sum(summary.phases.values())
    if not total:
        return
    bar, rows = "", []
    for number, (phase, seconds) in enumerate(summary.phases.items()):
        share, colour = 100 * seconds / total, f"--part:{number % PARTS}"
        bar += f'<i style="width:{share:.2f}%;{colour}" title="{escape(phase)}, {share:.1f} %"></i>'
        cells = [f'<i class="part" style="{colour}"></i> {escape(phase)}', f"{seconds:.1f}", f"{share:.1f}"]
        rows.append(("", cells))
    remark = (
        "Wall time until this report was written. Phases of training are estimated from some steps; with --profile, from all."
    )
    yield section("Time", f'<div class="parts">{bar}</div>' + table(["phase", "seconds", "%"], rows) + note(remark))


def _mark(right: bool | None) -> str:
    if right is None:
        return ""
    return '<span class="right">✓</span>' if right else '<span class="wrong">✗</span>'


def _repeat(summary: Summary) -> str:
    recipe = f"<details><summary>Recipe with all defaults filled in</summary><pre>{escape(summary.recipe)}</pre></details>"
    return f"<pre>{escape(summary.command)}</pre>" + (recipe if summary.recipe else "")


def _of_classes(row: Row) -> list[Evaluation]:
    """Return the evaluations of a row; only used for class targets."""
    return [each for each in row.evaluations if isinstance(each, Evaluation)]


def _pooled(row: Row) -> Evaluation:
    """Return the predictions of all seeds as one evaluation."""
    return evaluate(
        np.concatenate([evaluation.probabilities for evaluation in _of_classes(row)]),
        np.concatenate([evaluation.labels for evaluation in _of_classes(row)]),
    )
