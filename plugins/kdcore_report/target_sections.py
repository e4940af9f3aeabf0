"""Report sections for targets other than classes: labels or values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from kdcore import LabelEvaluation, Row, Summary, ValueEvaluation
from kdcore_report.calibration import Reliability, label_reliability
from kdcore_report.html_page import Pictures, note, percent, section, seeds_text, table
from kdcore_report.plots import COLOURS, INK, label_reliability_picture, new_figure, save_figure

DISTILLED, BASELINE, ALONE = "distilled", "baseline", "student"

EVERY, DRAWN = "all labels", 6
"""Name of the row for all labels together, and number of labels with their own reliability diagram."""


def target_sections(summary: Summary, pictures: Pictures) -> Iterator[str]:
    """Return the results of each label, or of each value with a scatter plot of estimates and true values."""
    rows = [row for row in map(summary.row, (BASELINE, DISTILLED, ALONE)) if row]
    if not rows:
        return
    if summary.target.kind == "labels":
        yield section("Results of each label", _labels(summary, rows))
        yield section("Calibration", _calibration(summary, rows, pictures))
        return
    yield section("Results of each value", _values(summary, rows))
    drawn = {row.role: _pooled_values(row) for row in rows}
    content = pictures.figure("estimates", lambda path: scatter_picture(drawn, path), "Estimates and true values")
    remark = note(f"A point is a sample, of {seeds_text(summary)}. Exact estimates lie on the line.")
    yield section("Estimates", content + remark)


def _labels(summary: Summary, rows: Sequence[Row]) -> str:
    by_role = {row.role: _pooled_labels(row) for row in rows}
    first = next(iter(by_role.values()))
    headings = ["label", "samples with it", *(f"{role}: {what}" for role in by_role for what in ("AP", "F1"))]
    both = {BASELINE, DISTILLED} <= set(by_role)
    lines = []
    for index, name in enumerate(summary.classes):
        count = int(first.is_known[:, index].sum())
        cells = [escape(name), f"{first.support[index]}{'' if count == first.n else f' of {count} known'}"]
        for each in by_role.values():
            cells += [percent(each.by_output[index]), percent(each.f1[index])]
        if both:
            gain = by_role[DISTILLED].by_output[index] - by_role[BASELINE].by_output[index]
            cells.append("–" if np.isnan(gain) else f"{100 * gain:+.1f}")
        lines.append(("", cells))
    seeds = seeds_text(summary)
    remark = f"Average precision (AP) and F1 at a probability of 0.5, in %, over {seeds}. Counts are samples."
    return table([*headings, *(["gain in AP"] if both else [])], lines) + note(remark)


def _calibration(summary: Summary, rows: Sequence[Row], pictures: Pictures) -> str:
    """Return the reliability of all labels and of the most frequent ones, and the calibration error of each."""
    by_role = {row.role: _pooled_labels(row) for row in rows}
    numbers: dict[str, dict[str, Reliability]] = {EVERY: {role: label_reliability(each) for role, each in by_role.items()}}
    for index, name in enumerate(summary.classes):
        numbers[name] = {role: label_reliability(each, index) for role, each in by_role.items()}
    frequent = np.argsort(-next(iter(by_role.values())).support, kind="stable")[:DRAWN].tolist()
    names = [EVERY, *(summary.classes[index] for index in sorted(frequent))]
    drawn = {name: numbers[name] for name in names}
    content = pictures.figure("reliability", lambda path: label_reliability_picture(drawn, path), "Reliability diagrams")
    lines = [("", [escape(name), *(percent(each.error) for each in row.values())]) for name, row in numbers.items()]
    less = f" Only the {DRAWN} most frequent labels are drawn." if len(summary.classes) > DRAWN else ""
    remark = note(
        f"Share of samples that have a label, by its probability, over {seeds_text(summary)}. A well calibrated model lies on "
        f"the diagonal. ECE: expected calibration error, in %. Paler bars contain fewer predictions.{less}"
    )
    return content + table(["label", *(f"{role}: ECE" for role in by_role)], lines) + remark


def _values(summary: Summary, rows: Sequence[Row]) -> str:
    by_role = {row.role: _pooled_values(row) for row in rows}
    first = next(iter(by_role.values()))
    partly = not first.is_known.all()
    headings = ["value", "unit", *(f"{role}: {what}" for role in by_role for what in ("MAE", "RMSE", "R²"))]
    headings += ["samples with a known value"] if partly else []
    units = summary.target.units or ("",) * len(summary.classes)
    lines = []
    for index, name in enumerate(summary.classes):
        cells = [escape(name), escape(units[index]) or "–"]
        for each in by_role.values():
            cells += [_number(each.mae[index], ".4g"), _number(each.rmse[index], ".4g"), _number(each.r2[index], ".3f")]
        cells += [f"{first.support[index]} of {first.n}"] if partly else []
        lines.append(("", cells))
    remark = "MAE and RMSE in the unit of the value; lower is better. R²: 1 is exact, 0 a constant value."
    return table(headings, lines) + note(f"{remark} Over {seeds_text(summary)}.")


def scatter_picture(by_role: dict[str, ValueEvaluation], path: Path) -> None:
    """Draw estimates against true values, with one row per value and one column per participant."""
    first = next(iter(by_role.values()))
    units = first.target.units or ("",) * len(first.names)
    figure = new_figure(3.6 * len(by_role), 3.4 * len(first.names))
    places = figure.subplots(len(first.names), len(by_role), squeeze=False)
    for index, (name, unit) in enumerate(zip(first.names, units, strict=True)):
        every = np.concatenate([part[:, index] for each in by_role.values() for part in (each.labels, each.outputs)])
        low, high = np.nanmin(every), np.nanmax(every)
        for axes, (role, each) in zip(places[index], by_role.items(), strict=True):
            axes.plot((low, high), (low, high), "--", color=INK, linewidth=1)
            axes.plot(each.labels[:, index], each.outputs[:, index], "o", color=COLOURS[0], markersize=3, alpha=0.5)
            axes.set_title(f"{name}, {role}", loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel(f"true, {unit}" if unit else "true")
            axes.set_ylabel(f"estimated, {unit}" if unit else "estimated")
            axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _pooled_labels(row: Row) -> LabelEvaluation:
    """Return the predictions of all seeds as one evaluation."""
    every = [each for each in row.evaluations if isinstance(each, LabelEvaluation)]
    return LabelEvaluation(
        np.concatenate([each.probabilities for each in every]), np.concatenate([each.labels for each in every])
    )


def _pooled_values(row: Row) -> ValueEvaluation:
    """Return the predictions of all seeds as one evaluation."""
    every = [each for each in row.evaluations if isinstance(each, ValueEvaluation)]
    outputs, labels = (np.concatenate(each) for each in zip(*((e.outputs, e.labels) for e in every), strict=True))
    return ValueEvaluation(outputs, labels, every[0].names, every[0].target)


def _number(value: float, form: str) -> str:
    return "–" if np.isnan(value) else format(value, form)
