"""Tables and records of a cross-validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcore import AnyEvaluation, Evaluation, FinishedRun, Metric, part_of, pool
from kdcore_compare.comparability import pooling_conflicts
from kdcore_compare.comparison import metric_of
from kdcore_compare.comparison_report import interval, metrics_of, p_value
from kdcore_compare.folds import Division
from kdcore_compare.selection import Entry, make_entry, students_of
from kdcore_compare.significance import Difference, paired
from kdcore_compare.tables import Table

MOST_CONFUSIONS = 10


@dataclass(frozen=True)
class CrossValidation:
    """The results of a cross-validation.

    Args:
        name: Name of the recipe.
        runs: Finished runs by label of the fold.
        seeds: Seeds of the recipe.
        division: Division of subjects or samples into folds.
        metric: Name of the metric. Default: the primary metric of the target.
        command: Command that repeats it.
    """

    name: str
    runs: Mapping[str, Sequence[FinishedRun]]
    seeds: Sequence[int]
    division: Division
    metric: str = ""
    command: str = ""

    @cached_property
    def every_run(self) -> list[FinishedRun]:
        """The runs of all folds."""
        return [run for runs in self.runs.values() for run in runs]

    @cached_property
    def pairs(self) -> list[tuple[Entry | None, Entry]]:
        """(baseline, distilled) of each student, and of the average of several students. The baseline may be missing."""
        students = students_of(self.every_run)
        names = [*students, "students"] if len(students) > 1 else students
        has_baseline = all("baseline" in run.outcomes for run in self.every_run)
        baselines = [self._entry(f"baseline/{each}", f"{each}, baseline") if has_baseline else None for each in names]
        return list(zip(baselines, [self._entry(each, f"{each}, distilled") for each in names], strict=True))

    @cached_property
    def teachers(self) -> list[Entry]:
        """The teachers, and their average if there are several."""
        outcome = next(iter(self.every_run[0].outcomes["distilled"].values()))
        entries = [self._entry(name, f"teacher {name}") for name in outcome.teachers]
        return [*entries, self._entry("teachers", "teachers (mean)")] if len(outcome.joint_teachers) > 1 else entries

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the labels."""
        return self.every_run[0].facts.classes

    @property
    def measured(self) -> Metric:
        """The metric of the table."""
        return self.pairs[0][1].metric(self.metric)

    @property
    def entries(self) -> list[Entry]:
        """All rows of the result table."""
        return [*self.teachers, *(each for pair in self.pairs for each in pair if each)]

    def _entry(self, who: str, label: str) -> Entry:
        return make_entry(self.every_run, who, label).of_seeds(self.seeds)

    def fold_values(self, entry: Entry, metric: str) -> dict[str, float]:
        """Return the metric of each fold by split rule, averaged over seeds."""
        measure = metric_of(metric)
        by_rule: dict[str, list[float]] = {}
        for (_, rule), each in entry.observations.items():
            by_rule.setdefault(rule, []).append(measure(each))
        return {rule: float(np.mean(values)) for rule, values in by_rule.items()}

    def difference(self, baseline: Entry, distilled: Entry, metric: str) -> Difference:
        """Return distilled minus baseline, paired by fold; corrected for overlapping training sets if folds are repeated."""
        before, after = (self.fold_values(each, metric) for each in (baseline, distilled))
        counts = [run.facts.counts for run in self.every_run]
        overlap = float(np.mean([each["test"] / each["train"] for each in counts])) if self.division.repeats > 1 else 0.0
        return paired([after[rule] - before[rule] for rule in before], "folds", overlap)


def pooled(entry: Entry) -> AnyEvaluation:
    """Return the evaluation of all predictions of an entry, over all folds, repeats and seeds."""
    return pool([each.evaluation for each in entry.observations.values()])


def pooled_confusion(entry: Entry) -> NDArray[np.int64]:
    """Return the confusion matrix of all predictions of an entry; for class targets only."""
    evaluation = pooled(entry)
    assert isinstance(evaluation, Evaluation)
    return evaluation.confusion


def subject_results(entry: Entry) -> dict[str, tuple[int, float]]:
    """Return (distinct samples, primary metric over all repeats and seeds) by subject."""
    evaluation = pooled(entry)
    keys = np.array([key for each in entry.observations.values() for key in each.keys], dtype=object)
    subjects = np.array([_subject(key) for key in keys], dtype=object)
    found = {}
    for subject in dict.fromkeys(subjects.tolist()):
        of = subjects == subject
        part = part_of(evaluation, of)
        found[subject] = len(set(keys[of].tolist())), part.metrics()[part.primary.name]
    return found


def _subject(key: str) -> str:
    """Return the subject in the text of a sample key: ``subject 3, action 1, trial 2``."""
    return key.removeprefix("subject ").partition(", action ")[0]


def cross_validation_tables(result: CrossValidation, whole: Path | None = None) -> list[Table]:
    """Return results, accuracy of each subject, and pooled confusion matrix; or the results of each label or value.

    Args:
        result: The results.
        whole: File with the complete confusion matrices; if given, only the most frequent confusions are shown.
    """
    students = [distilled for _, distilled in result.pairs]
    if not isinstance(students[0].example, Evaluation):
        return [_result_table(result), _subject_table(result), _output_table(result)]
    if whole is None:
        confusion = [_confusion_table(result, each) for each in students]
    else:
        confusion = [_confusions(result, students, whole)]
    return [_result_table(result), _subject_table(result), *confusion]


def _result_table(result: CrossValidation) -> Table:
    metric = result.measured
    headings = ["", "folds", metric.heading, "lowest", "highest", "pooled", "difference", "95 % interval", "p", "verdict"]
    before = {distilled.label: baseline for baseline, distilled in result.pairs if baseline}
    rows, tests = [], {}
    for each in result.entries:
        values = list(result.fold_values(each, metric.name).values())
        ends = [metric.text(min(values)), metric.text(max(values))]
        pooled_value = metric.text(pooled(each).metrics()[metric.name])
        row = [each.label, str(len(values)), metric.spread(values), *ends, pooled_value]
        if baseline := before.get(each.label):
            found = result.difference(baseline, each, metric.name)
            tests[found.test] = None
            cells = [metric.signed(found.mean), interval(found, metric), p_value(found.p)]
            row += [*cells, found.verdict(metric.higher_is_better)]
        rows.append(row + [""] * (len(headings) - len(row)))
    title = f"Cross-validation of {result.name}: {metric.heading}, {len(result.pairs[0][1].labels)} test samples"
    strong = [index for index, each in enumerate(result.entries) if each.label in {one.label for _, one in result.pairs}]
    return Table(title, headings, rows, _notes(result, list(tests)), strong=strong, droppable=(1, 8, 3, 4, 5))


def _notes(result: CrossValidation, tests: Sequence[str]) -> list[str]:
    seeds = ", ".join(map(str, result.seeds))
    lines = [
        f"Command: {result.command}",
        f"Folds: {result.division.said}. Seeds: {seeds}; each fold counts once, as the mean over seeds. "
        "±: standard deviation over folds. Pooled: the metric of all predictions of all folds together.",
        *(f"Difference: distilled minus baseline of the same student, paired by fold; {test}." for test in tests),
    ]
    if tests and result.division.repeats == 1:
        lines.append("The training sets of folds overlap, so intervals and p values are approximate.")
    if not tests:
        lines.append("No difference: the recipe trains no baseline.")
    conflicts = pooling_conflicts(result.every_run, result.pairs[0][1].participant)
    return lines + [f"Warning: {reason}." for reason in dict.fromkeys(conflicts)]


def _subject_table(result: CrossValidation) -> Table:
    columns = [each for pair in result.pairs for each in pair if each]
    found = {each.label: subject_results(each) for each in columns}
    headings = ["subject", "samples"]
    for baseline, distilled in result.pairs:
        headings += [*([baseline.label] if baseline else []), distilled.label, *(["difference"] if baseline else [])]
    metric, rows = columns[-1].example.primary, []
    for subject, (count, _) in sorted(found[columns[-1].label].items(), key=lambda item: _order(item[0])):
        row = [subject, str(count)]
        for baseline, distilled in result.pairs:
            after = found[distilled.label][subject][1]
            before = found[baseline.label][subject][1] if baseline else None
            row += [*([metric.text(before)] if before is not None else []), metric.text(after)]
            row += [metric.signed(after - before)] if before is not None else []
        rows.append(row)
    unit = f", {metric.unit}" if metric.unit else ""
    return Table(f"{metric.capitalised} of each subject{unit}", headings, rows, droppable=(1,))


def _output_table(result: CrossValidation) -> Table:
    """Return the metric of each label or value, pooled over folds."""
    columns = [each for pair in result.pairs for each in pair if each]
    found, metric = [pooled(each) for each in columns], columns[0].example.of_output
    rows = [
        [name, str(found[0].support[index]), *(metric.text(float(each.by_output[index])) for each in found)]
        for index, name in enumerate(result.classes)
    ]
    title = f"{metric.capitalised} of each, pooled over folds{f', {metric.unit}' if metric.unit else ''}"
    return Table(title, ["", "samples", *(each.label for each in columns)], rows, droppable=(1,))


def _order(subject: str) -> tuple[bool, int, str]:
    return (not subject.isdecimal(), int(subject) if subject.isdecimal() else 0, subject)


def _confusion_table(result: CrossValidation, entry: Entry) -> Table:
    classes, confusion = result.classes, pooled_confusion(entry)
    rows = [[name, *map(str, row)] for name, row in zip(classes, confusion.tolist(), strict=True)]
    notes = ["Rows: true classes. Columns: predicted classes. Predictions of all folds, repeats and seeds are counted."]
    return Table(f"Confusion matrix of {entry.label}, pooled over folds", ["true class", *classes], rows, notes)


def _confusions(result: CrossValidation, students: Sequence[Entry], whole: Path) -> Table:
    rows = []
    for each in students:
        rows += [[each.label, *row] for row in most_frequent_confusions(pooled_confusion(each), result.classes)]
    headings = ["", "true class", "predicted", "count", "of the class, %"]
    note = f"Predictions of all folds, repeats and seeds are counted. Complete matrices: {whole}"
    return Table("Most frequent confusions, pooled over folds", headings, rows, [note])


def most_frequent_confusions(confusion: NDArray[np.int64], classes: Sequence[str]) -> list[list[str]]:
    """Return the most frequent errors as (true class, predicted class, count, share of the true class in percent)."""
    errors = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-errors, axis=None, kind="stable")[:MOST_CONFUSIONS]
    places = [(int(index) // len(classes), int(index) % len(classes)) for index in order]
    rows = []
    for true, predicted in places:
        if count := errors[true, predicted]:
            rows.append([classes[true], classes[predicted], str(count), f"{100 * count / confusion[true].sum():.1f}"])
    return rows


def cross_validation_records(result: CrossValidation) -> Iterator[dict[str, object]]:
    """Return all values, one per record: over folds, of each fold and subject, pooled, and the confusion matrices."""
    before = {distilled.label: baseline for baseline, distilled in result.pairs if baseline}
    rules = {run.facts.split_rule: label for label, runs in result.runs.items() for run in runs}
    for each in result.entries:
        for metric in metrics_of(each):
            values = result.fold_values(each, metric)
            numbers = list(values.values())
            baseline = before.get(each.label)
            found = result.difference(baseline, each, metric) if baseline else None
            sd = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
            yield _record(each, metric, value=float(np.mean(numbers)), sd=sd, found=found)
            yield _record(each, f"pooled {metric}", value=pooled(each).metrics()[metric])
            for rule, value in values.items():
                yield _record(each, metric, fold=rules[rule], value=value)
        evaluation = pooled(each)
        for subject, (_, value) in subject_results(each).items():
            yield _record(each, evaluation.primary.name, subject=subject, value=value)
        if not isinstance(evaluation, Evaluation):
            for name, value in zip(result.classes, evaluation.by_output.tolist(), strict=True):
                yield _record(each, f"pooled {evaluation.of_output.name}", true=name, value=value)
            continue
        for true, row in zip(result.classes, evaluation.confusion.tolist(), strict=True):
            for predicted, count in zip(result.classes, row, strict=True):
                yield _record(each, "confusion", true=true, predicted=predicted, value=float(count))


def _record(
    each: Entry, measure: str, *, value: float, fold: str = "", subject: str = "", true: str = "", predicted: str = "",
    sd: float | None = None, found: Difference | None = None,
) -> dict[str, object]:  # fmt: skip
    record: dict[str, object] = {"entry": each.label, "measure": measure, "fold": fold, "subject": subject}
    record |= {"class": true, "predicted": predicted, "value": value, "sd": sd}
    names = {"difference": "mean", "low": "low", "high": "high", "p": "p", "test": "test"}
    return record | {key: getattr(found, name) if found else None for key, name in names.items()}
