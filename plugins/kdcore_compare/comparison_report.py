"""Tables and CSV records of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kdcore import LabelEvaluation, Metric
from kdcore_compare.comparison import Comparison, metric_of, recall
from kdcore_compare.selection import Entry
from kdcore_compare.significance import CONFIDENCE, Difference, holm
from kdcore_compare.tables import Table


def report_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of results, recall of each class, and cost."""
    return [result_table(comparison), *class_tables(comparison), cost_table(comparison.entries)]


def result_table(comparison: Comparison) -> Table:
    """Return one row per entry: mean ± standard deviation, and the difference from its reference."""
    metric, single = comparison.metric, comparison.single_reference
    example, first = comparison.reference.example, comparison.measured
    other_metric = example.secondary if example.secondary.name != metric else example.primary
    second = [] if other_metric.name == metric else [other_metric]
    corrected = corrected_p(comparison.differences)
    headings = ["", "runs", first.heading, *(each.heading for each in second), *([] if single else ["compared with"])]
    headings += ["difference", "95 % interval", "p", *(["p (Holm)"] if corrected else []), "verdict"]
    rows = []
    for each in comparison.entries:
        row = [each.label, str(len(each.observations)), *(mean_and_sd(each, one) for one in (first, *second))]
        if each.label in comparison.differences:
            row += [] if single else [comparison.references[each.label].label]
            row += _difference_cells(comparison.differences[each.label], first, corrected.get(each.label), bool(corrected))
        rows.append(row + [""] * (len(headings) - len(row)))
    reference = comparison.reference
    title = f"{first.capitalised} on the {samples_of(reference)}"
    title += f"; differences from {reference.label}" if single else "; each participant compared with its own baseline"
    droppable = (*([3] if second else []), 1, headings.index("p"), *([] if single else [3 + len(second)]))
    return Table(title, headings, rows, [*notes(comparison), *correction_note(corrected)], droppable=droppable)


def _difference_cells(found: Difference, metric: Metric, corrected: float | None, with_corrected: bool) -> list[str]:
    cells = [metric.signed(found.mean), interval(found, metric), p_value(found.p)]
    return [*cells, *([p_value(corrected)] if with_corrected else []), found.verdict(metric.higher_is_better, corrected)]


def corrected_p(differences: Mapping[str, Difference]) -> dict[str, float]:
    """Return p values after Holm's correction by label; empty if fewer than two differences have a p value."""
    tested = {label: each.p for label, each in differences.items() if each.p is not None}
    return dict(zip(tested, holm(list(tested.values())), strict=True)) if len(tested) > 1 else {}


def correction_note(corrected: Mapping[str, float]) -> list[str]:
    """Return a note on the column ``p (Holm)``; none without corrected p values."""
    verdict = f"The verdict is 'better' or 'worse' if it is below {1 - CONFIDENCE:.2f}."
    note = f"p (Holm): corrected for {len(corrected)} comparisons. {verdict} Intervals are not corrected."
    return [note] if corrected else []


def notes(comparison: Comparison) -> list[str]:
    """Return notes below the table: split rules, data, selected epoch, seeds, tests, versions, ignored conflicts."""
    reference, facts = comparison.reference, comparison.reference.facts[0]
    seeds = "; ".join(dict.fromkeys(f"{', '.join(map(str, each.seeds))}" for each in comparison.entries))
    data = "; ".join(dict.fromkeys(each.fingerprint for each in reference.facts))
    lines = [
        f"Split rule: {'; '.join(reference.split_rules)}. Data: {data}. "
        f"Weights: {facts.selection.get(reference.participant, 'last')} epoch. Seeds: {seeds}. ±: standard deviation."
    ]
    tests = dict.fromkeys(each.test for each in comparison.differences.values() if each.low is not None)
    lines += [f"Intervals and p values: {test}." for test in tests]
    lines += [f"{label}: {each.test}." for label, each in comparison.differences.items() if each.low is None and each.n > 1]
    lines += _unpaired_runs(comparison)
    if any(each.n < 2 for each in comparison.differences.values()):
        lines.append("One seed allows no conclusion about other seeds.")
    lines += _different_versions(comparison.entries)
    return lines + [f"Conflict ignored because of --anyway: {reason}." for reason in comparison.waived]


def _unpaired_runs(comparison: Comparison) -> list[str]:
    """Return a note for each entry whose difference is over fewer runs than its mean, because only those are paired."""
    lines = []
    for each in comparison.others:
        reference = comparison.references[each.label]
        common = each.observations.keys() & reference.observations.keys()
        if common and any(entry.observations.keys() != common for entry in (each, reference)):
            seeds = ", ".join(map(str, sorted({seed for seed, _ in common})))
            paired_runs = f"the {len(common)} runs that both have (seeds {seeds})"
            lines.append(f"{each.label}: the difference is over {paired_runs}, and the means over all.")
    return lines


def _different_versions(entries: Sequence[Entry]) -> list[str]:
    """Return a note for each package with different versions in the runs."""
    versions: dict[str, dict[str, None]] = {}
    for facts in (facts for each in entries for facts in each.facts):
        for name, version in facts.versions.items():
            versions.setdefault(name, {})[version] = None
    different = {name: each for name, each in versions.items() if len(each) > 1}
    return [f"Runs were made with different versions of {name}: {', '.join(each)}." for name, each in different.items()]


def class_tables(comparison: Comparison) -> list[Table]:
    """Return one table per reference: recall of each class, average precision of each label, or error of each value."""
    tables = []
    for reference in (each for each in comparison.entries if each.label not in comparison.references):
        others = [other for other in comparison.others if comparison.references[other.label] is reference]
        tables.append(_class_table(comparison, reference, others))
    return tables


def _class_table(comparison: Comparison, reference: Entry, others: Sequence[Entry]) -> Table:
    kind, metric = _KINDS[comparison.reference.facts[0].target.get("kind", "classes")], reference.example.of_output
    headings = [kind, "samples", reference.label]
    headings += [text for each in others for text in (each.label, "difference", "95 % interval")]
    rows, support = [], _support(reference)
    for index, name in enumerate(comparison.classes):
        row = [name, str(support[index]), _recall(reference, index)]
        for other in others:
            change = comparison.class_difference(other, index)
            cells = ["–", "–"] if change is None else [metric.signed(change.mean), interval(change, metric)]
            row += [_recall(other, index), *cells]
        rows.append(row)
    columns = range(3, len(headings), 3)
    droppable = (1, *(each + 2 for each in columns), *(each + 1 for each in columns))  # samples, intervals, differences
    title = f"{metric.capitalised} of each {kind}{f', {metric.unit}' if metric.unit else ''}"
    return Table(title, headings, rows, _class_notes(comparison, reference), droppable=droppable)


_KINDS = {"classes": "class", "labels": "label", "values": "value"}


def _support(entry: Entry) -> list[int]:
    """Return the number of distinct samples of each class, with each label or with a known value."""
    labels = np.array(list(entry.labels.values()))
    if labels.ndim == 1:
        return np.bincount(labels, minlength=len(entry.facts[0].classes)).tolist()
    counted = labels == 1 if isinstance(entry.example, LabelEvaluation) else ~np.isnan(labels)
    return counted.sum(axis=0).tolist()


def _class_notes(comparison: Comparison, reference: Entry) -> list[str]:
    if len(reference.split_rules) < 2:
        return []
    lines = [f"Samples are counted over all {len(reference.split_rules)} folds; recall is the mean over folds."]
    for index, name in enumerate(comparison.classes):
        rules = {rule for (_, rule), each in reference.observations.items() if recall(each, index) is not None}
        if len(rules) < len(reference.split_rules):
            lines.append(f"{name}: {len(rules)} of {len(reference.split_rules)} folds have samples of this class.")
    return lines


def _recall(each: Entry, index: int) -> str:
    recalls = [value for one in each.observations.values() if (value := recall(one, index)) is not None]
    return each.example.of_output.text(float(np.mean(recalls))) if recalls else "–"


def cost_table(entries: Sequence[Entry]) -> Table:
    """Return the table of training time, parameters and memory. Entries trained together share time and memory."""
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
    """Return the entries trained together with `one`, including itself; the student first."""
    return sorted((each for each in entries if each.training == one.training), key=lambda each: bool(each.who))


def _training_cost(one: Entry, entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
    """Return seconds and bytes of each observation; empty if another entry of the same run reports them."""
    if one is not _trained_together(one, entries)[0]:
        return [], []
    observations = one.observations.values()
    return [each.seconds for each in observations], [float(each.memory) for each in observations if each.memory]


def report_records(comparison: Comparison) -> Iterator[dict[str, object]]:
    """Return all values of the tables, one per record. Accuracies are fractions, times in seconds, memory in bytes."""
    for each in comparison.entries:
        is_other = each.label in comparison.references
        reference = comparison.references[each.label].label if is_other else ""
        for metric in metrics_of(each):
            found = comparison.difference(each, metric_of(metric)) if is_other else None
            yield _record(each, metric, "", each.values(metric), found, reference)
        for index, name in enumerate(comparison.classes):
            values = [value for one in each.observations.values() if (value := recall(one, index)) is not None]
            found = comparison.class_difference(each, index) if is_other else None
            yield _record(each, each.example.of_output.name, name, values, found, reference)
        yield _record(each, "samples", "", [float(len(each.labels))], None)
        for measure, values in zip(("seconds", "memory_bytes"), _training_cost(each, comparison.entries), strict=True):
            if values:
                yield _record(each, measure, "", values, None)
        if each.parameters is not None:
            yield _record(each, "parameters", "", [float(each.parameters)], None)


def _record(
    each: Entry, measure: str, class_name: str, values: Sequence[float], found: Difference | None, reference: str = ""
) -> dict[str, object]:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    record: dict[str, object] = {"entry": each.label, "measure": measure, "class": class_name, "runs": len(values)}
    record |= {"mean": float(np.mean(values)) if values else None, "sd": sd, "reference": reference if found else ""}
    fields = ("mean", "low", "high", "p", "test")
    return record | {"difference" if key == "mean" else key: getattr(found, key) if found else None for key in fields}


def metrics_of(entry: Entry) -> list[str]:
    """Return the names of all metrics of an entry, except those of single values, which have their own table."""
    return [name for name in entry.example.metrics() if "/" not in name]


def mean_and_sd(each: Entry, metric: Metric) -> str:
    """Format mean ± standard deviation over the observations."""
    return metric.spread(each.values(metric.name))


def interval(found: Difference, metric: Metric) -> str:
    """Format the confidence interval."""
    if found.low is None or found.high is None:
        return "–"
    return f"{metric.signed(found.low)} to {metric.signed(found.high)}"


def p_value(p: float | None) -> str:
    """Format a p value with three digits."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def samples_of(each: Entry) -> str:
    """Format the split and the number of distinct samples over all folds."""
    folds = f" in {len(each.split_rules)} folds" if len(each.split_rules) > 1 else ""
    return f"{each.facts[0].split} split, {len(each.labels)} samples{folds}"
