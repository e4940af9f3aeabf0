"""Turn a comparison into tables for people and records for CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kdcore_compare.comparison import Comparison, difference, metric_of
from kdcore_compare.selection import Entry
from kdcore_compare.significance import Difference
from kdcore_compare.tables import Table

METRIC_NAMES = {"accuracy": "accuracy, %", "macro_f1": "macro F1, %", "loss": "loss, nats"}
PERCENT = {"accuracy", "macro_f1"}


def report_tables(comparison: Comparison) -> list[Table]:
    """Results, recall of each class, and cost."""
    return [result_table(comparison), class_table(comparison), cost_table(comparison.entries)]


def result_table(comparison: Comparison) -> Table:
    """One row for each entry: mean ± standard deviation, and the difference from the reference."""
    metric, name = comparison.metric, METRIC_NAMES[comparison.metric]
    second = "macro_f1" if metric != "macro_f1" else "accuracy"
    headings = ["", "runs", name, METRIC_NAMES[second], "difference", "95 % interval", "p", "verdict"]
    rows = []
    for each in comparison.entries:
        row = [each.label, str(len(each.observations)), mean_and_sd(each, metric), mean_and_sd(each, second)]
        found = comparison.differences.get(each.label)
        rows.append(row + (_difference_cells(found, metric) if found else ["", "", "", ""]))
    what = METRIC_NAMES[metric].split(",")[0]
    title = (
        f"{what[0].upper()}{what[1:]} on the {_samples(comparison.reference)}; differences from {comparison.reference.label}"
    )
    return Table(title, headings, rows, notes(comparison), droppable=(3, 1, 6))


def _difference_cells(found: Difference, metric: str) -> list[str]:
    p = "" if found.p is None else "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return [signed(found.mean, metric), interval(found, metric), p, found.verdict(metric != "loss")]


def notes(comparison: Comparison) -> list[str]:
    """Notes below the table: split, data, selected epoch, seeds, statistical tests, ignored conflicts."""
    reference, facts = comparison.reference, comparison.reference.facts[0]
    seeds = "; ".join(dict.fromkeys(f"{', '.join(map(str, each.seeds))}" for each in comparison.entries))
    data = "; ".join(dict.fromkeys(each.fingerprint for each in reference.facts))
    lines = [
        f"Split: {'; '.join(reference.splits)}. Data: {data}. "
        f"Weights: {facts.selection.get(reference.participant, 'last')} epoch. Seeds: {seeds}. ±: standard deviation."
    ]
    tests = dict.fromkeys(each.test for each in comparison.differences.values() if each.low is not None)
    lines += [f"Intervals and p values: {test}." for test in tests]
    lines += [f"{label}: {each.test}." for label, each in comparison.differences.items() if each.low is None and each.n > 1]
    if any(each.n < 2 for each in comparison.differences.values()):
        lines.append("One seed allows no conclusion about other seeds.")
    if len(comparison.others) > 1 and tests:
        lines.append(
            "Intervals and p values are not corrected for multiple comparisons: "
            "the more differences there are, the more of them exclude zero by chance."
        )
    return lines + [f"Conflict ignored because of --anyway: {reason}." for reason in comparison.waived]


def class_table(comparison: Comparison) -> Table:
    """The recall of each class, with its difference from the reference."""
    headings = ["class", "samples", comparison.reference.label]
    headings += [text for each in comparison.others for text in (each.label, "difference", "95 % interval")]
    counts = next(iter(comparison.reference.observations.values())).evaluation.confusion.sum(axis=1)
    rows = []
    for index, name in enumerate(comparison.classes):
        row = [name, str(int(counts[index])), _recall(comparison.reference, index)]
        for other in comparison.others:
            change = comparison.class_difference(other, index)
            cells = ["–", "–"] if change is None else [signed(change.mean, "accuracy"), interval(change, "accuracy")]
            row += [_recall(other, index), *cells]
        rows.append(row)
    columns = range(3, len(headings), 3)
    droppable = (1, *(each + 2 for each in columns), *(each + 1 for each in columns))  # samples, intervals, differences
    return Table("Recall of each class, %", headings, rows, droppable=droppable)


def _recall(each: Entry, index: int) -> str:
    recalls = [one.evaluation.recall[index] for one in each.observations.values()]
    return "–" if np.isnan(recalls).any() else f"{100 * float(np.mean(recalls)):.1f}"


def cost_table(entries: Sequence[Entry]) -> Table:
    """Training time, parameters and memory; entries that were trained together share one row's time and memory."""
    rows, shared = [], []
    for each in entries:
        parameters = "" if each.parameters is None else f"{each.parameters:,}"
        seconds, memory = _training_cost(each, entries)
        most = f"{max(memory) / 2**20:.0f}" if memory else ""
        rows.append([each.label, f"{np.mean(seconds):.1f}" if seconds else "", parameters, most])
        if others := [other.label for other in _trained_together(each, entries) if seconds and other is not each]:
            shared.append(f"Time and memory of {each.label} include {', '.join(others)}, trained in the same run.")
    note = "Training time: per seed, all participants that learn together. Memory: peak of the accelerator, or of the process."
    return Table("Cost", ["", "training, s", "parameters", "memory, MiB"], rows, [note, *shared])


def _trained_together(one: Entry, entries: Sequence[Entry]) -> list[Entry]:
    """Entries trained together with `one`, itself included; the student first."""
    return sorted((each for each in entries if each.training == one.training), key=lambda each: bool(each.who))


def _training_cost(one: Entry, entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
    """Seconds and bytes of each observation; empty if another entry trained in the same run reports them."""
    if one is not _trained_together(one, entries)[0]:
        return [], []
    observations = one.observations.values()
    return [each.seconds for each in observations], [float(each.memory) for each in observations if each.memory]


def report_records(comparison: Comparison) -> Iterator[dict[str, object]]:
    """All numbers of the tables, one a record. Accuracies are fractions, times seconds, memory bytes."""
    for each in comparison.entries:
        is_other = each is not comparison.reference
        for metric in METRIC_NAMES:
            found = difference(each, comparison.reference, metric_of(metric)) if is_other else None
            yield _record(each, metric, "", each.values(metric), found)
        for index, name in enumerate(comparison.classes):
            values = [float(one.evaluation.recall[index]) for one in each.observations.values()]
            yield _record(each, "recall", name, values, comparison.class_difference(each, index) if is_other else None)
        for measure, values in zip(("seconds", "memory_bytes"), _training_cost(each, comparison.entries), strict=True):
            if values:
                yield _record(each, measure, "", values, None)
        if each.parameters is not None:
            yield _record(each, "parameters", "", [float(each.parameters)], None)


def _record(each: Entry, measure: str, class_name: str, values: Sequence[float], found: Difference | None) -> dict[str, object]:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    record: dict[str, object] = {"entry": each.label, "measure": measure, "class": class_name, "runs": len(values)}
    record |= {"mean": float(np.mean(values)), "sd": sd}
    fields = ("mean", "low", "high", "p", "test")
    return record | {"difference" if key == "mean" else key: getattr(found, key) if found else None for key in fields}


def mean_and_sd(each: Entry, metric: str) -> str:
    """Mean ± standard deviation over the observations."""
    values = np.asarray(each.values(metric)) * (100 if metric in PERCENT else 1)
    form = "{:.1f}" if metric in PERCENT else "{:.3f}"
    return form.format(values.mean()) + (f" ± {form.format(values.std(ddof=1))}" if len(values) > 1 else "")


def signed(value: float, metric: str) -> str:
    """A difference with its sign, in percentage points or in units of the metric."""
    return f"{100 * value:+.1f}" if metric in PERCENT else f"{value:+.3f}"


def interval(found: Difference, metric: str) -> str:
    """Both ends of the confidence interval."""
    if found.low is None or found.high is None:
        return "–"
    return f"{signed(found.low, metric)} to {signed(found.high, metric)}"


def _samples(each: Entry) -> str:
    facts = each.facts[0]
    count = next(iter(each.observations.values())).evaluation.n
    return f"{facts.part} part, {count} samples"
