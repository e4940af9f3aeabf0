"""Tables and records of a comparison of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kdcore import Metric
from kdcore_compare.comparison import Comparison, compare
from kdcore_compare.comparison_report import (
    corrected_p,
    correction_note,
    interval,
    mean_and_sd,
    notes,
    p_value,
    samples_of,
)
from kdcore_compare.methods import Method
from kdcore_compare.selection import Entry
from kdcore_compare.step_clock import StageTime
from kdcore_compare.tables import Table


@dataclass(frozen=True)
class MethodResult:
    """The result of one method.

    Args:
        method: The method.
        weight: The weight that was chosen; None if no run came to an end.
        tried: Weight → metric on the validation split.
        entry: Results on the test split; None if there are none.
        times: Time of training, for each seed that was measured.
        reason: Reason why there are no results; empty if there are.
    """

    method: Method
    weight: float | None
    tried: Mapping[float, float]
    entry: Entry | None
    times: Sequence[StageTime]
    reason: str = ""


@dataclass(frozen=True)
class MethodsResult:
    """A comparison of methods.

    Args:
        name: Name of the recipe.
        metric: Name of the metric that is compared.
        baseline: The student without distillation.
        baseline_times: Time of its training.
        teachers: The teachers.
        methods: All methods, in the order of the recipe.
        command: Repeats the comparison.
        choosing_split: Rule of the split on whose validation samples weights were chosen.
        choosing_seeds: Seeds of the runs that chose them.
    """

    name: str
    metric: str
    baseline: Entry
    baseline_times: Sequence[StageTime]
    teachers: Sequence[Entry]
    methods: Sequence[MethodResult]
    command: str
    choosing_split: str
    choosing_seeds: Sequence[int]

    @cached_property
    def comparison(self) -> Comparison:
        """Return the methods with results, each compared with the baseline."""
        return compare([self.baseline, *(each.entry for each in self.methods if each.entry)], self.metric)

    @property
    def measured(self) -> Metric:
        """Metric that is compared."""
        return self.baseline.metric(self.metric)

    @property
    def ranked(self) -> list[MethodResult]:
        """Methods with results, best first."""
        gain = self.comparison.differences
        sign = -1 if self.measured.higher_is_better else 1
        done = [each for each in self.methods if each.entry]
        return sorted(done, key=lambda each: sign * gain[each.method.label].mean)

    @property
    def rule(self) -> str:
        """Return a sentence on the choice of the weights."""
        seeds = ", ".join(map(str, self.choosing_seeds))
        metric, best = self.measured.title, "highest" if self.measured.higher_is_better else "least"
        return (
            f"Weights: the one of those tried with the {best} {metric} on the validation split "
            f"({self.choosing_split}; seeds {seeds}). Test samples were not used."
        )

    def facts(self) -> dict[str, Any]:
        """Return facts common to all methods, as plain values."""
        reference = self.baseline
        return {
            "recipe": self.name,
            "command": self.command,
            "metric": self.metric,
            "samples": samples_of(reference),
            "split": list(reference.split_rules),
            "seeds": list(reference.seeds),
            "choosing": {"split": self.choosing_split, "seeds": list(self.choosing_seeds)},
            "baseline": {"values": reference.values(self.metric), **_step(self.baseline_times)},
            "teachers": {each.participant: each.values(self.metric) for each in self.teachers},
        }


def methods_tables(result: MethodsResult) -> list[Table]:
    """Return the table of methods against the baseline, and the table of weights tried."""
    return [_result_table(result), _weight_table(result)]


def _result_table(result: MethodsResult) -> Table:
    metric, found = result.measured, result.comparison.differences
    corrected = corrected_p(found)
    headings = ["", "weight", metric.heading, "gain", "95 % interval", "p (Holm)" if corrected else "p", "verdict"]
    headings += ["step, ms", "CPU, ms", "extra parameters"]
    rows = [["baseline", "", mean_and_sd(result.baseline, metric), "", "", "", "", *_milliseconds(result.baseline_times), "0"]]
    for each in result.ranked:
        assert each.entry is not None
        assert each.weight is not None
        one = found[each.method.label]
        p = corrected.get(each.method.label)
        row = [each.method.label, f"{each.weight:g}", mean_and_sd(each.entry, metric), metric.signed(one.mean)]
        row += [interval(one, metric), p_value(p if corrected else one.p), one.verdict(metric.higher_is_better, p)]
        rows.append([*row, *_milliseconds(each.times), f"{each.method.parameters:,}"])
    rows += [[each.label, "", mean_and_sd(each, metric), *[""] * 7] for each in result.teachers]
    title = f"Methods, {result.name}: {metric.heading}, {samples_of(result.baseline)}; gains over the baseline"
    return Table(title, headings, rows, _notes(result, corrected), strong=[0], droppable=(9, 7, 8, 6, 1))


def _notes(result: MethodsResult, corrected: Mapping[str, float]) -> list[str]:
    lines = [f"Command: {result.command}", result.rule, *notes(result.comparison), *correction_note(corrected)]
    lines.append(
        "step: wall time of a training step, which depends on the load of the machine; CPU: CPU time of all threads. "
        "Medians over seeds. Extra parameters: those of the loss, trained with the student and not part of it."
    )
    return lines + [f"{each.method.label}: not compared: {each.reason}" for each in result.methods if not each.entry]


def _weight_table(result: MethodsResult) -> Table:
    """Return the metric on the validation split for every weight that was tried."""
    most = max((len(each.tried) for each in result.methods), default=0)
    headings = ["", *(word for number in range(1, most + 1) for word in (f"weight {number}", f"validation {number}")), "chosen"]
    rows, edges = [], []
    for each in result.methods:
        if not each.tried:
            continue
        cells = [cell for weight, value in each.tried.items() for cell in (f"{weight:g}", result.measured.text(value))]
        chosen = "" if each.weight is None else f"{each.weight:g}"
        rows.append([each.method.label, *cells, *[""] * (2 * most - len(cells)), chosen])
        if len(each.tried) > 1 and each.weight in (min(each.tried), max(each.tried)):
            edges.append(each.method.label)
    what = result.measured.heading
    lines = [f"Chosen at the edge of what was tried, so a wider grid may do better: {', '.join(edges)}."] if edges else []
    return Table(f"Weights tried: {what}, validation split", headings, rows, lines)


def methods_records(result: MethodsResult) -> list[dict[str, object]]:
    """Return one record per method. Accuracies are fractions, times are in seconds."""
    found = result.comparison.differences
    corrected = corrected_p(found)
    records = []
    for each in result.methods:
        method, one = each.method, found.get(each.method.label)
        values = each.entry.values(result.metric) if each.entry else []
        record: dict[str, object] = {"method": method.label, "loss": method.term["name"], "weight": each.weight}
        record |= {"runs": len(values), "mean": float(np.mean(values)) if values else None}
        record |= {"sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}
        record |= {"gain": one and one.mean, "low": one and one.low, "high": one and one.high, "p": one and one.p}
        p = corrected.get(method.label)
        record |= {"p_holm": p, "verdict": one.verdict(result.measured.higher_is_better, p) if one else ""}
        record |= {**_step(each.times), "extra_parameters": method.parameters}
        record |= {"tried": " ".join(f"{weight:g}:{value:.6g}" for weight, value in each.tried.items())}
        records.append(record | {"not_compared": each.reason})
    return records


def _step(times: Sequence[StageTime]) -> dict[str, float | None]:
    """Return the duration of a step in seconds, as the median over seeds."""
    wall = [each.seconds / each.steps for each in times]
    cpu = [each.cpu_seconds / each.steps for each in times]
    return {
        "step_seconds": float(np.median(wall)) if wall else None,
        "step_cpu_seconds": float(np.median(cpu)) if cpu else None,
    }


def _milliseconds(times: Sequence[StageTime]) -> list[str]:
    return ["" if value is None else f"{1000 * value:.1f}" for value in _step(times).values()]
