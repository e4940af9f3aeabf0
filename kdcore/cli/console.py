"""Terminal output of a run: progress and results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from kdcore.cli.arguments import plugin_options
from kdcore.cli.tables import SafeConsole, new_table, output_console, show_table
from kdcore.recipe.graph import StagePlan
from kdcore.recipe.plan import DISTILLED
from kdcore.runs.progress import StageProgress
from kdcore.runs.result import Result
from kdcore.runs.summary import Summary
from kdcore.training.preflight import Preflight

MORE_SEEDS = "seeds=[0,1,2,3,4]"

LONG, MOST_SEEDS = ("modality", "parameters"), 3
"""Columns shown only in the report, and the largest number of seeds for which each seed has its own column."""


class ConsoleListener(StageProgress):
    """Shows progress bars in a terminal, or one line per stage if the output is not a terminal.

    Args:
        console: Console to print to.
    """

    def __init__(self, console: Console):
        super().__init__()
        self.console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> ConsoleListener:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def reading(self, done: int, total: int, what: str) -> None:
        if self._task is None:
            self._task = self._progress.add_task(f"reading {what}", total=total, note="")
        self._progress.update(self._task, completed=done, total=total, description=f"reading {what}")
        if done == total:
            self._drop_task()

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        super().stage_started(stage, steps)
        self._drop_task()
        self._task = self._progress.add_task(self.name_of(stage), total=stage.epochs * steps, note="")

    def stepped(self, stage: StagePlan, epoch: int, step: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=epoch * self.steps + step)

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> None:
        super().epoch_finished(stage, epoch, metrics)
        if self._task is not None:
            self._progress.update(self._task, completed=(epoch + 1) * self.steps, note=self.note)

    def stage_finished(self, stage: StagePlan) -> None:
        self._drop_task()
        self._dimmed(self.finished_line(stage))

    def stage_reused(self, stage: StagePlan) -> None:
        self._dimmed(self.reused_line(stage))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _dimmed(self, text: str) -> None:
        """Print a line without wrapping: in a log file, rich would break it after 80 characters."""
        self.console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    def _drop_task(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def stderr() -> Console:
    """Return a console on standard error for progress, so that standard output can be piped."""
    return SafeConsole(stderr=True)


def show_result(result: Result) -> None:
    """Print the table of results, whether distillation helped, where the report is, and what to do next."""
    console, summary = output_console(), result.summary
    for note in summary.notes:
        _line(console, "note", note)
    show_table(console, result_table(summary))
    if summary.answer:
        console.print(summary.answer, style="bold", markup=False, highlight=False)
    console.print()
    if result.report:
        _line(console, "report", str(result.report))
    if result.tracking:
        _line(console, "tracking", result.tracking)
    _line(console, "next", next_step(summary))


def result_table(summary: Summary) -> Table:
    """Return the table of results printed at the end of a run."""
    title = Text(f"{summary.name}: {summary.split} {summary.metric.heading}")
    table = new_table(title=title, title_justify="left")
    # Terminals are narrow: the other columns are only in the report.
    crowded = len(summary.seeds) > MOST_SEEDS
    columns = [each for each in summary.headings() if each not in LONG and not (crowded and each.startswith("seed "))]
    for heading in columns:
        is_text = heading in ("participant", "role")
        table.add_column(Text(heading), justify="left" if is_text else "right", no_wrap=not is_text)
    for row in summary.rows:
        cells = dict(zip(summary.headings(), row.cells(), strict=True))
        table.add_row(
            *(Text(cells[heading]) for heading in columns), style="bold" if row.role in (DISTILLED, "student") else None
        )
    return table


def next_step(summary: Summary) -> str:
    """Return a one-line suggestion of what to do next.

    Suggests more seeds after a single seed, another method if distillation did not help, and using the student otherwise.
    """
    difference = summary.difference
    if difference is not None and len(summary.seeds) == 1:
        return f"repeat with more seeds: {_with_more_seeds(summary)}"
    if difference is not None and not (difference.conclusive and difference.helped):
        return "try another method or another weight: kdcore recipes list"
    student = summary.row("distilled", "student")
    if student is None:
        command = ["kdcore", "evaluate", summary.folder.name, *plugin_options()]
        return f"evaluate the saved students again: {shlex.join(command)}"
    folder = summary.folder / "students" / f"seed-{summary.seeds[0]}" / student.participant
    command = ["kdcore", "predict", str(folder), "FILE", *plugin_options()]
    return f"use the student on a recording: {shlex.join(command)}"


def _with_more_seeds(summary: Summary) -> str:
    arguments = [word for word in shlex.split(summary.command) if not word.startswith("seeds=")]
    if arguments[:2] == ["kdcore", "resume"]:  # an extended run keeps its original seeds
        arguments = ["kdcore", "run", str(summary.folder / "recipe.yaml"), *plugin_options()]
    if not arguments:
        return f"set {MORE_SEEDS} in the recipe"
    return shlex.join([*arguments, MORE_SEEDS])


def show_profile(result: Result) -> None:
    """Print the time spent in each phase of a run, and the paths of the step traces."""
    console, total = output_console(), sum(result.phases.values())
    times = Table("phase", Column("seconds", justify="right"), Column("share", justify="right"), title="Time by phase")
    for phase, seconds in result.phases.items():
        times.add_row(phase, f"{seconds:.2f}", f"{100 * seconds / total:.1f} %")
    times.add_row("total", f"{total:.2f}", "", end_section=True)
    show_table(console, times)
    for trace in result.traces:
        _line(console, "trace", str(trace))
    console.print()


def _line(console: Console, label: str, text: str) -> None:
    """Print a labelled line without wrapping, so that paths and commands can be copied."""
    console.print(f"{label:<10}{text}", highlight=False, soft_wrap=True, markup=False)


def show_preflight(result: Preflight) -> None:
    """Print the result of a dry run."""
    console = output_console()
    members = Table("participant", "input", "parameters", "taps", title="Participants")
    for name, shape in result.inputs.items():
        taps = ", ".join(f"{tap} {features}" for tap, features in result.features[name].items())
        members.add_row(name, str(shape), _parameters(result.parameters[name], result.trained[name]), taps or "–")
    show_table(console, members)
    terms = Table("stage", "learner", "term", "weight", "value", "gradient norm", title="Loss terms on the first batch")
    for check in result.terms:
        terms.add_row(
            check.stage, check.learner, check.term, f"{check.weight:g}", f"{check.value:.4f}", f"{check.gradient:.4g}"
        )
    show_table(console, terms)


def _parameters(count: int, trained: int) -> str:
    return f"{count:,}" if trained == count else f"{count:,} ({trained:,} trained)"
