"""Commands about recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcore.cli.arguments import Overrides, RecipeArgument

if TYPE_CHECKING:
    from kdcore.contracts.drawing import Drawing
    from kdcore.data.check import DataReport

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Inspect recordings before training on them.")


@app.command("check")
def check_data(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Draw a training recording of every modality and class into this .html file."),
    ] = None,
) -> None:
    """Read every recording, count samples by class, subject and split, and look for leaks."""
    from kdcore.cli.pictures import draw, refuse_path
    from kdcore.data.check import check

    refuse_path("--pictures", pictures)
    found = check(recipe, overrides or [], examples=pictures is not None)
    _show(found)
    if pictures:
        print(draw(f"{found.dataset}: a training recording of every class", _drawings(found), pictures))
    if found.broken or found.leaks or found.windowless:
        raise typer.Exit(1)


def _drawings(report: DataReport) -> list[Drawing]:
    from kdcore.contracts.drawing import Drawing

    return [
        Drawing(modality, f"{name}: {key}, {len(signal)} samples, {signal.duration:.2f} s", report.modalities[modality], signal)
        for modality, examples in report.examples.items()
        for name, (key, signal) in sorted(examples.items())
    ]


def _show(report: DataReport) -> None:
    """Print counts, lengths, and everything that is wrong with a dataset."""
    from rich.table import Table

    from kdcore.cli.tables import output, show_table

    console = output()
    console.print(f"{report.dataset}: {sum(report.splits.values())} samples; {report.rule}", highlight=False)
    splits = list(report.splits)
    kind = {"classes": "class", "labels": "label", "values": "samples"}[report.target.kind]
    for title, counts in ((kind, report.classes), ("subject", report.subjects)):
        shown = Table(title, *splits)
        for name, count in counts.items():
            shown.add_row(name, *(str(count[split]) for split in splits))
        show_table(console, shown)
    ranges = {**report.values, **({"weight of a sample": report.weights} if report.weights else {})}
    if ranges:
        shown = Table("value" if report.values else "", *splits, title="Least to largest (mean)")
        for name, found in ranges.items():
            shown.add_row(name, *(_span(found.get(split)) for split in splits))
        show_table(console, shown)
    lengths = Table("modality", "shortest", "median", "longest", title="Length in samples (seconds)")
    for modality, spread in report.lengths.items():
        lengths.add_row(modality, *(f"{n:g} ({s:.2f})" for n, s in zip(spread, report.durations[modality], strict=True)))
    show_table(console, lengths)
    lists = {"missing": report.missing, "broken": report.broken, "leaks": report.leaks}
    if report.windows is not None:
        counted = ", ".join(f"{split} {report.windows[split]}" for split in splits)
        console.print(f"windows: {counted}", style="red" if report.windowless else "", highlight=False)
        lists["shorter than a window"] = report.short
    if report.left_out:
        lists["left out at random"] = report.left_out
    lists |= {"warnings": report.warnings, "unusual signals": report.odd, "dropped, by reason": report.dropped.lines()}
    lists["value ranges"] = [
        f"{modality}, subject {subject}: {low:.4g} to {high:.4g}, typically {typical:.4g}"
        for modality, subjects in report.ranges.items()
        for subject, (low, typical, high) in subjects.items()
    ]
    for title, lines in lists.items():
        console.print(f"{title}: {len(lines)}", style="red" if lines and title in ("broken", "leaks") else "", highlight=False)
        for line in lines[:20]:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _span(numbers: tuple[float, float, float] | None) -> str:
    """The least and largest number, and their mean."""
    return "" if numbers is None else f"{numbers[0]:.4g} to {numbers[2]:.4g} ({numbers[1]:.4g})"
