"""Train a recipe without each of its parts in turn, and tabulate what each part adds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from kdcore import FinishedRun, Metric, load_recipe, runs_folder
from kdcore_compare.ablation_variants import BASELINE, FULL, FULL_SLUG, Variant, variants_of
from kdcore_compare.comparison import Comparison, compare, difference, metric_of
from kdcore_compare.comparison_report import (
    class_tables,
    corrected_p,
    cost_table,
    interval,
    mean_and_sd,
    notes,
    p_value,
    report_records,
    samples_of,
)
from kdcore_compare.parallel import SERIAL, Parallel
from kdcore_compare.selection import Entry, make_entry, students_of
from kdcore_compare.tables import TO_TERMINAL, Output, Table
from kdcore_compare.train_variants import group_name, save_tables, train_only, train_variants

HOLM_NOTE = ("p (Holm): corrected for the number of comparisons in its column. Intervals are not corrected.",)


def ablate(
    source: str,
    overrides: Sequence[str],
    parallel: Parallel = SERIAL,
    only: str = "",
    metric: str = "",
    output: Output = TO_TERMINAL,
) -> None:
    """Train the missing seeds of all variants, and write the table, also to the folder of runs.

    Args:
        source: Path or name of the recipe.
        overrides: Overrides as ``key=value``.
        parallel: Number of variants to train at a time, and where.
        only: Label of a single variant to train, without a table.
        metric: Name of the metric to compare. Default: the primary metric of the target.
        output: Where to write the tables.

    Raises:
        KdcoreError: If the training of a variant fails.
        UsageError: If the variant `only` does not exist.
    """
    variants = variants_of(source, overrides)
    label_of: dict[tuple[str, ...], str] = {}  # variants with equal overrides share their runs
    for each in variants:
        if not each.impossible:
            label_of.setdefault(each.overrides, each.label)
    trained = {label: words for words, label in label_of.items()}
    if only:
        train_only(source, overrides, trained, only)
        return
    recipe, folder = load_recipe(source, overrides), runs_folder() / "ablations"
    runs = train_variants(source, overrides, trained, parallel, ["ablate", source, *overrides, "--only"], folder / "logs")
    entries = entries_of(variants, {words: runs[label] for words, label in label_of.items()}, recipe.seeds)
    command = shlex.join(["kdcore", "ablate", source, *overrides])
    tables, records = ablation_tables(variants, entries, metric, command), list(report_records(compare(entries, metric)))
    save_tables(folder, group_name(recipe), tables, records)
    output.write(tables, records)


def entries_of(
    variants: Sequence[Variant], runs: Mapping[tuple[str, ...], Sequence[FinishedRun]], seeds: Sequence[int]
) -> list[Entry]:
    """Return one entry for each variant that could be trained, with only the seeds of the recipe."""
    possible = [each for each in variants if not each.impossible]
    return [make_entry(runs[each.overrides], each.who, each.label).of_seeds(seeds) for each in possible]


def ablation_tables(variants: Sequence[Variant], entries: Sequence[Entry], metric: str, command: str) -> list[Table]:
    """Return the table of variants, the recall of each class, and the cost."""
    from_full = compare(entries, metric)
    measured = from_full.measured
    baseline = next((each for each in entries if each.label == BASELINE), None)
    references = [(FULL, entries[0]), *([(BASELINE, baseline)] if baseline else [])]
    headings = ["", "runs", measured.heading]
    rows = [[each.label, str(len(each.observations)), mean_and_sd(each, measured)] for each in entries]
    for name, reference in references:
        columns, cells = _difference_columns(name, reference, entries, measured)
        headings += columns
        rows = [row + more for row, more in zip(rows, cells, strict=True)]
    droppable = [1, *range(len(headings) - 1, 3, -1)]  # all but the difference from the full recipe, from the right
    lines = [f"Command: {command}", *notes(from_full), *_student_note(entries[0]), *HOLM_NOTE[: "p (Holm)" in headings]]
    lines += [f"{each.label}: not possible: {each.impossible}" for each in variants if each.impossible]
    title = f"Ablation of {_recipe_name(entries[0])}: {measured.heading}, {samples_of(entries[0])}"
    table = Table(title, headings, rows, lines, strong=[0], droppable=droppable)
    return [table, *class_tables(_students(from_full)), cost_table(entries)]


def _difference_columns(
    name: str, reference: Entry, entries: Sequence[Entry], metric: Metric
) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the differences from one reference, with p values corrected within the column."""
    measure = metric_of(metric.name)
    found = {each.label: difference(each, reference, measure) for each in entries if each is not reference}
    corrected = corrected_p(found)
    headings = [f"from {name}", "95 % interval", *(["p (Holm)"] if corrected else [])]
    cells = []
    for each in entries:
        one = found.get(each.label)
        row = [metric.signed(one.mean), interval(one, metric)] if one else ["", ""]
        cells.append(row + ([p_value(corrected.get(each.label))] if corrected else []))
    return headings, cells


def _student_note(full: Entry) -> list[str]:
    names = students_of(full.runs)
    return [f"Rows that name no participant show {names[0]}, the first of {len(names)} students."] if len(names) > 1 else []


def _students(found: Comparison) -> Comparison:
    """Return the comparison without the teachers, so that the table of classes is not too wide."""
    kept = [each for each in found.entries if not each.label.startswith("teacher")]
    return Comparison(kept, {each.label: found.reference for each in kept[1:]}, found.metric)


def _recipe_name(full: Entry) -> str:
    return full.facts[-1].name.removesuffix(f"-{FULL_SLUG}")
