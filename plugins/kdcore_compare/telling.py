"""A comparison as tables and records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kdcore_compare.comparison import Comparison, difference, metric_of
from kdcore_compare.contenders import Contender
from kdcore_compare.significance import Difference
from kdcore_compare.tables import Table

NAMES = {"accuracy": "accuracy, %", "macro_f1": "macro F1, %", "loss": "loss, nats"}
PERCENT = {"accuracy", "macro_f1"}


def tables(found: Comparison) -> list[Table]:
    """Results, what each class gains, and what it costs."""
    return [result_table(found), class_table(found), cost_table(found.contenders)]


def result_table(found: Comparison) -> Table:
    """A row for each contender: mean ± sd, and its difference from the reference."""
    metric, name = found.metric, NAMES[found.metric]
    second = "macro_f1" if metric != "macro_f1" else "accuracy"
    headings = ["", "runs", name, NAMES[second], "difference", "95 % interval", "p", "verdict"]
    rows = []
    for each in found.contenders:
        row = [each.label, str(len(each.observations)), spread(each, metric), spread(each, second)]
        row += _standing(found.differences[each.label], metric) if each.label in found.differences else ["", "", "", ""]
        rows.append(row)
    what = NAMES[metric].split(",")[0]
    title = f"{what[0].upper()}{what[1:]} on the {_of(found.reference)}; differences from {found.reference.label}"
    return Table(title, headings, rows, notes(found), spare=(3, 1, 6))


def _standing(found: Difference, metric: str) -> list[str]:
    p = "" if found.p is None else "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return [signed(found.mean, metric), interval(found, metric), p, found.verdict(metric != "loss")]


def notes(found: Comparison) -> list[str]:
    """What a reader must know: samples, split, selection, seeds, tests, and what was waived."""
    reference, facts = found.reference, found.reference.facts[0]
    seeds = "; ".join(dict.fromkeys(f"{', '.join(map(str, each.seeds))}" for each in found.contenders))
    data = "; ".join(dict.fromkeys(each.fingerprint for each in reference.facts))
    told = [
        f"Split: {'; '.join(reference.splits)}. Data: {data}. "
        f"Weights: {facts.selection.get(reference.participant, 'last')} epoch. Seeds: {seeds}. ±: standard deviation."
    ]
    tests = dict.fromkeys(each.test for each in found.differences.values() if each.low is not None)
    told += [f"Intervals and p: {test}." for test in tests]
    told += [f"{label}: {each.test}." for label, each in found.differences.items() if each.low is None and each.n > 1]
    if any(each.n < 2 for each in found.differences.values()):
        told.append("One seed says nothing about other seeds: nothing can be concluded.")
    if len(found.others) > 1 and tests:
        told.append(
            "Each interval and p is of one difference by itself, not corrected for there being several: "
            "of many, some leave out zero by chance."
        )
    told += [f"Compared in spite of this: {reason}." for reason in found.in_spite_of]
    return told


def class_table(found: Comparison) -> Table:
    """For each class, the share answered right, and how much that differs from the reference, with interval."""
    headings = ["class", "samples", found.reference.label]
    headings += [text for each in found.others for text in (each.label, "difference", "95 % interval")]
    counts = next(iter(found.reference.observations.values())).evaluation.confusion.sum(axis=1)
    rows = []
    for index, name in enumerate(found.classes):
        row = [name, str(int(counts[index])), _share(found.reference, index)]
        for other in found.others:
            change = found.of_class(other, index)
            cells = ["–", "–"] if change is None else [signed(change.mean, "accuracy"), interval(change, "accuracy")]
            row += [_share(other, index), *cells]
        rows.append(row)
    columns = range(3, len(headings), 3)
    spare = (1, *(each + 2 for each in columns), *(each + 1 for each in columns))  # samples, intervals, then differences
    return Table("Share of each class answered right, %", headings, rows, spare=spare)


def _share(each: Contender, index: int) -> str:
    recalls = [one.evaluation.recall[index] for one in each.observations.values()]
    return "–" if np.isnan(recalls).any() else f"{100 * float(np.mean(recalls)):.1f}"


def cost_table(found: Sequence[Contender]) -> Table:
    """What each contender takes; time and memory of those trained together stand in one row."""
    rows, told = [], []
    for each in found:
        parameters = "" if each.parameters is None else f"{each.parameters:,}"
        seconds, memory = _training(each, found)
        most = f"{max(memory) / 2**20:.0f}" if memory else ""
        rows.append([each.label, f"{np.mean(seconds):.1f}" if seconds else "", parameters, most])
        if with_it := [other.label for other in _together(each, found) if seconds and other is not each]:
            told.append(f"Time and memory of {each.label} are of {', '.join(with_it)} too: trained together.")
    note = "Training time of all who learn together, a seed; memory: on the accelerator, or of the whole process on a CPU."
    return Table("Cost", ["", "training, s", "parameters", "memory, MiB"], rows, [note, *told])


def _together(one: Contender, found: Sequence[Contender]) -> list[Contender]:
    """Who was trained with `one`, itself included; the first is the student if it is among them."""
    return sorted((each for each in found if each.training == one.training), key=lambda each: bool(each.who))


def _training(one: Contender, found: Sequence[Contender]) -> tuple[list[float], list[float]]:
    """Seconds and bytes of each observation; none if they count for another contender trained with it."""
    if one is not _together(one, found)[0]:
        return [], []
    observations = one.observations.values()
    return [each.seconds for each in observations], [float(each.memory) for each in observations if each.memory]


def records(found: Comparison) -> Iterator[dict[str, object]]:
    """All of it, one number a line, in units of the metric (fractions, not percent); time and memory as in `cost_table`."""
    for each in found.contenders:
        for metric in NAMES:
            other = difference(each, found.reference, metric_of(metric)) if each in found.others else None
            yield _record(each, metric, "", each.values(metric), other)
        for index, name in enumerate(found.classes):
            values = [float(one.evaluation.recall[index]) for one in each.observations.values()]
            yield _record(each, "recall", name, values, found.of_class(each, index) if each in found.others else None)
        for measure, values in zip(("seconds", "memory_bytes"), _training(each, found.contenders), strict=True):
            if values:
                yield _record(each, measure, "", values, None)
        if each.parameters is not None:
            yield _record(each, "parameters", "", [float(each.parameters)], None)


def _record(each: Contender, measure: str, name: str, values: Sequence[float], other: Difference | None) -> dict[str, object]:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    found: dict[str, object] = {"contender": each.label, "measure": measure, "class": name, "runs": len(values)}
    found |= {"mean": float(np.mean(values)), "sd": sd}
    told = ("mean", "low", "high", "p", "test")
    return found | {"difference" if key == "mean" else key: getattr(other, key) if other else None for key in told}


def spread(each: Contender, metric: str) -> str:
    """Mean ± standard deviation."""
    values = np.asarray(each.values(metric)) * (100 if metric in PERCENT else 1)
    form = "{:.1f}" if metric in PERCENT else "{:.3f}"
    return form.format(values.mean()) + (f" ± {form.format(values.std(ddof=1))}" if len(values) > 1 else "")


def signed(value: float, metric: str) -> str:
    """A difference."""
    return f"{100 * value:+.1f}" if metric in PERCENT else f"{value:+.3f}"


def interval(found: Difference, metric: str) -> str:
    """The ends of its interval."""
    if found.low is None or found.high is None:
        return "–"
    return f"{signed(found.low, metric)} to {signed(found.high, metric)}"


def _of(each: Contender) -> str:
    facts = each.facts[0]
    count = next(iter(each.observations.values())).evaluation.n
    return f"{facts.part} part, {count} samples"
