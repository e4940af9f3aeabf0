"""The result of a finished run, for Python and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from kdcore.deploy.saved_student import load_student
from kdcore.deploy.student import Student
from kdcore.errors import UsageError
from kdcore.recipe.plan import DISTILLED
from kdcore.runs.artifacts import student_folder
from kdcore.runs.find_student import saved_seeds
from kdcore.runs.gain import Difference
from kdcore.runs.summary import Summary
from kdcore.suggestions import did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass
class Result:
    """The result of a finished run; a notebook shows its table.

    Args:
        summary: Summary of the results.
        folder: Folder of the run.
        report: Report that a plugin wrote; None without such a plugin.
        tracking: How to open the tracked run; empty if nothing was tracked.
        run_ids: Local name of a run → its id in the tracker.
        phases: Phase → seconds.
        traces: Chrome traces of some training steps, with a profile.
    """

    summary: Summary
    folder: Path
    report: Path | None = None
    tracking: str = ""
    run_ids: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    traces: Sequence[Path] = ()

    @property
    def table(self) -> DataFrame:
        """A row for each participant, arm and seed.

        Columns: ``participant``, ``role``, ``modality``, ``arm`` (``distilled`` or ``baseline``), ``seed``, then the
        metrics as fractions (``accuracy``, ``macro_f1`` …) or in the units of values (``mae`` …), and ``parameters``.
        """
        from pandas import DataFrame

        return DataFrame(
            [
                {
                    "participant": row.participant,
                    "role": row.role,
                    "modality": row.modality,
                    "arm": row.arm,
                    "seed": seed,
                    **evaluation.metrics(),
                    "parameters": row.parameters,
                }
                for row in self.summary.rows
                for seed, evaluation in zip(self.summary.seeds, row.evaluations, strict=True)
            ]
        )

    @property
    def gain(self) -> Difference | None:
        """The first student's result with distillation minus that without: mean, 95 % interval, per seed.

        None if no student was trained both ways; `gains` has every student that was.
        """
        return self.summary.difference

    @property
    def gains(self) -> Mapping[str, Difference]:
        """Student → its result with distillation minus that without, for every student that was trained both ways."""
        return self.summary.differences

    def student(self, seed: int | None = None, name: str | None = None) -> Student:
        """Load a trained student: a `torch.nn.Module` in evaluation mode with ``predict`` and ``preprocess``.

        Args:
            seed: One of the run's; the first by default.
            name: Of the student, where there are several.

        Raises:
            UsageError: If the run has no such seed or student.
        """
        seeds = saved_seeds(self.folder)
        seed = next(iter(self.summary.seeds)) if seed is None else seed
        if seed not in seeds:
            raise UsageError(f"the run has no seed {seed} (it has: {', '.join(map(str, seeds))})")
        names = sorted(path.name for path in seeds[seed].iterdir())
        if name is None and len(names) > 1:
            raise UsageError(f"the run has several students: name one of {', '.join(names)}")
        name = name or names[0]
        if name not in names:
            raise UsageError(f"the run has no student {name!r} ({did_you_mean(name, names)})")
        return load_student(student_folder(self.folder, seed, name), trust_code=True)  # code of the recipe that was just run

    def __repr__(self) -> str:
        answer = f" {self.summary.answer}" if self.summary.answer else ""
        return f"Result({self.summary.name!r}:{answer} folder={str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """The table, and whether distillation helped, as a notebook shows them."""
        summary = self.summary
        head = "".join(f"<th>{escape(heading)}</th>" for heading in summary.headings())
        rows = ""
        for row in summary.rows:
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells())
            rows += f"<tr{_BOLD if row.role in (DISTILLED, 'student') else ''}>{cells}</tr>"
        notes = "".join(f"<li>{escape(note)}</li>" for note in summary.notes)
        places = [("run", self.folder), *([("report", self.report)] if self.report else [])]
        links = "<br>".join(f"{what}: <code>{escape(str(path))}</code>" for what, path in places)
        return (
            f"<div><b>{escape(summary.name)}</b>: {escape(summary.split)} {escape(summary.metric.heading)}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p><b>{escape(summary.answer)}</b></p>{f'<ul>{notes}</ul>' if notes else ''}<p>{links}</p></div>"
        )


_BOLD = ' style="font-weight: bold"'
