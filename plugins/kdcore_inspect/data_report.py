"""Output of ``kdcore data check``."""

from __future__ import annotations

from rich.table import Table

from kdcore import Drawing, output_console, show_table
from kdcore_inspect.data_check import DataReport, Range


def drawings(report: DataReport) -> list[Drawing]:
    """Return the examples of a report as drawings."""
    return [
        Drawing(modality, f"{name}: {key}, {len(signal)} samples, {signal.duration:.2f} s", report.modalities[modality], signal)
        for modality, examples in report.examples.items()
        for name, (key, signal) in sorted(examples.items())
    ]


def show(report: DataReport) -> None:
    """Print the counts, lengths and problems of a dataset."""
    console = output_console()
    console.print(f"{report.dataset}: {sum(report.splits.values())} samples; {report.rule}", highlight=False)
    for table in _tables(report):
        show_table(console, table)
    if report.windows is not None:
        counts = ", ".join(f"{split} {report.windows[split]}" for split in report.splits)
        console.print(f"windows: {counts}", style="red" if report.windowless else "", highlight=False)
    for title, lines in _lists(report).items():
        console.print(f"{title}: {len(lines)}", style="red" if lines and title in ("broken", "leaks") else "", highlight=False)
        for line in lines[:20]:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _tables(report: DataReport) -> list[Table]:
    splits = list(report.splits)
    tables = []
    kind = {"classes": "class", "labels": "label", "values": "samples"}[report.target.kind]
    for title, counts in ((kind, report.classes), ("subject", report.subjects)):
        table = Table(title, *splits)
        for name, count in counts.items():
            table.add_row(name, *(str(count[split]) for split in splits))
        tables.append(table)
    ranges = {**report.values, **({"sample weight": report.weights} if report.weights else {})}
    if ranges:
        table = Table("value" if report.values else "", *splits, title="Minimum to maximum (mean)")
        for name, by_split in ranges.items():
            table.add_row(name, *(_range(by_split.get(split)) for split in splits))
        tables.append(table)
    lengths = Table("modality", "shortest", "median", "longest", title="Length in samples (seconds)")
    for modality, counts in report.lengths.items():
        lengths.add_row(modality, *(f"{n:g} ({s:.2f})" for n, s in zip(counts, report.durations[modality], strict=True)))
    return [*tables, lengths]


def _range(numbers: Range | None) -> str:
    """Format a minimum, mean and maximum as ``min to max (mean)``."""
    return "" if numbers is None else f"{numbers[0]:.4g} to {numbers[2]:.4g} ({numbers[1]:.4g})"


def _lists(report: DataReport) -> dict[str, list[str]]:
    lists = {"missing": report.missing, "broken": report.broken, "leaks": report.leaks}
    if report.windows is not None:
        lists["shorter than a window"] = report.short
    if report.left_out:
        lists["left out at random"] = report.left_out
    lists |= {"warnings": report.warnings, "unusual signals": report.odd, "dropped, by reason": report.dropped.lines()}
    lists["value ranges"] = [
        f"{modality}, subject {subject}: {low:.4g} to {high:.4g}, median magnitude {typical:.4g}"
        for modality, subjects in report.ranges.items()
        for subject, (low, typical, high) in subjects.items()
    ]
    return lists
