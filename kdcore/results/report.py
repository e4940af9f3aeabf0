"""What a run found, for people: a table for the terminal and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kdcore.results.evaluate import Difference, Evaluation, evaluate

if TYPE_CHECKING:
    from rich.table import Table

Role = Literal["teacher", "teachers together", "student without distillation", "student with distillation", "students together"]
LONG, MOST_SEEDS = ("reads", "parameters"), 3
WITH, WITHOUT = "student with distillation", "student without distillation"


@dataclass(frozen=True)
class Row:
    """One participant's results.

    Args:
        participant: Its name.
        role: What it is in this run.
        modality: What it reads, in words.
        evaluations: On the test samples, one per seed.
        parameters: How many numbers it learned; None where that makes no sense.
    """

    participant: str
    role: Role
    modality: str
    evaluations: Sequence[Evaluation]
    parameters: int | None = None

    def values(self, metric: str) -> list[float]:
        """One number per seed."""
        return [evaluation.metrics()[metric] for evaluation in self.evaluations]


@dataclass(frozen=True)
class Summary:
    """Everything a report tells.

    Args:
        name: Of the recipe.
        description: What was run, in words.
        rule: How the samples were split.
        selection: Which epoch's weights were evaluated, and how they were chosen.
        seeds: In the order of every row's evaluations.
        classes: Class names.
        rows: The participants, in the order to show them.
        difference: Student with minus student without; None where there is only one of them.
        curves: Title of a picture → name of a curve → (epoch, value) pairs.
        versions: Package → version.
        recipe: The recipe with every default filled in, as YAML.
        command: Repeats the run.
        folder: Where the run's files are.
        tracking: How to open what was tracked.
    """

    name: str
    description: str
    rule: str
    selection: str
    seeds: Sequence[int]
    classes: Sequence[str]
    rows: Sequence[Row]
    difference: Difference | None = None
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    command: str = ""
    folder: Path = Path()
    tracking: str = ""

    @property
    def answer(self) -> str:
        """Did distillation help? In a sentence."""
        if self.difference:
            return self.difference.sentence
        return "This run cannot say: the student was not also trained without distillation."

    def row(self, role: Role) -> Row | None:
        """The first participant in that role."""
        return next((row for row in self.rows if row.role == role), None)


def table(summary: Summary) -> Table:
    """The results as a `rich` table, for the end of a run."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = Table(
        title=Text(f"{summary.name}: test accuracy, %"),
        caption=Text(summary.answer),
        title_justify="left",
        caption_justify="left",
        caption_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    # A terminal is narrow: what the report has beyond these is left to it.
    crowded = len(summary.seeds) > MOST_SEEDS
    columns = [each for each in _headings(summary) if each not in LONG and not (crowded and each.startswith("seed "))]
    for heading in columns:
        left = heading in ("participant", "role")
        found.add_column(Text(heading), justify="left" if left else "right", no_wrap=not left)
    for row in summary.rows:
        cells = dict(zip(_headings(summary), _cells(row), strict=True))
        found.add_row(*(Text(cells[heading]) for heading in columns), style="bold" if row.role == WITH else None)
    return found


def write_report(path: Path, summary: Summary) -> None:
    """Write the report as one HTML page without outside resources.

    Args:
        path: The file.
        summary: What it tells.
    """
    body = "\n".join(
        (
            f"<header><h1>{escape(summary.name)}</h1><p>{escape(summary.description)}</p></header>",
            _section("Did distillation help?", f'<p class="answer">{escape(summary.answer)}</p>'),
            _section("Test results", _results(summary)),
            _section("How it was measured", _facts(summary)),
            *_curves(summary),
            *_confusions(summary),
            *_gains(summary),
            _section("To repeat it", _repeat(summary)),
        )
    )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(summary.name)}</title>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _headings(summary: Summary) -> list[str]:
    last = ["mean ± sd"] if len(summary.seeds) > 1 else ["95 % interval"]
    return ["participant", "role", "reads", *(f"seed {seed}" for seed in summary.seeds), *last, "macro F1", "parameters"]


def _cells(row: Row) -> list[str]:
    accuracies = row.values("accuracy")
    if len(accuracies) > 1:
        last = _spread(accuracies)
    else:
        last = " to ".join(_percent(end) for evaluation in row.evaluations for end in evaluation.accuracy_interval)
    return [
        row.participant,
        row.role,
        row.modality,
        *map(_percent, accuracies),
        last,
        _spread(row.values("macro_f1")),
        "" if row.parameters is None else f"{row.parameters:,}",
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(map(_percent, values))
    return f"{_percent(float(np.mean(values)))} ± {_percent(float(np.std(values, ddof=1)))}"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}\n</section>"


def _table(headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows of (class of the row, cells); the cells are HTML already."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = (f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for kind, cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>"


def _results(summary: Summary) -> str:
    rows = [("main" if row.role == WITH else "", [*map(escape, _cells(row))]) for row in summary.rows]
    note = "Accuracy and macro F1 in %."
    if len(summary.seeds) == 1:
        note += " The interval is Wilson's: how sure this many test samples can make us, for this one seed."
    else:
        note += " sd: standard deviation over seeds."
    samples = {evaluation.n for row in summary.rows for evaluation in row.evaluations}
    note += f" Test samples: {', '.join(map(str, sorted(samples)))}."
    return _table(_headings(summary), rows) + f'<p class="note">{escape(note)}</p>'


def _facts(summary: Summary) -> str:
    facts = {
        "Split": summary.rule,
        "Weights evaluated": summary.selection,
        "Seeds": ", ".join(map(str, summary.seeds)),
        "Classes": str(len(summary.classes)),
        "Interval of the difference": summary.difference.method if summary.difference else "",
        "Files": str(summary.folder),
        "Tracking": summary.tracking,
        "Versions": ", ".join(f"{name} {version}" for name, version in summary.versions.items()),
    }
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    return f"<dl>{''.join(lines)}</dl>"


def _curves(summary: Summary) -> list[str]:
    from kdcore.results.pictures import curves_picture

    pictures = [
        _picture(lambda path, curves=curves: curves_picture(curves, path), title, caption=title)
        for title, curves in summary.curves.items()
        if curves
    ]
    return [_section("Curves", "\n".join(pictures))] if pictures else []


def _confusions(summary: Summary) -> list[str]:
    from kdcore.results.pictures import confusion_difference_picture, confusion_picture

    pooled = {role: _pooled(row) for role in (WITHOUT, WITH) if (row := summary.row(role))}
    seeds = f"seed {summary.seeds[0]}" if len(summary.seeds) == 1 else f"{len(summary.seeds)} seeds together"
    pictures = [
        _picture(lambda path, found=found, role=role: confusion_picture(found, summary.classes, f"{role}, {seeds}", path), role)
        for role, found in pooled.items()
    ]
    if len(pooled) == 2:
        title = f"with minus without distillation, {seeds}"
        one, other = pooled[WITH], pooled[WITHOUT]
        pictures.append(_picture(lambda path: confusion_difference_picture(one, other, summary.classes, title, path), title))
    return [_section("Which classes are taken for which", "\n".join(pictures))] if pictures else []


def _pooled(row: Row) -> Evaluation:
    """All seeds' answers as one evaluation."""
    return evaluate(
        np.concatenate([evaluation.probabilities for evaluation in row.evaluations]),
        np.concatenate([evaluation.labels for evaluation in row.evaluations]),
    )


def _gains(summary: Summary) -> list[str]:
    one, other = summary.row(WITH), summary.row(WITHOUT)
    if one is None or other is None:
        return []
    with_kd, without = _pooled(one).recall.tolist(), _pooled(other).recall.tolist()
    gains = [
        (after - before, before, after, name)
        for before, after, name in zip(without, with_kd, summary.classes, strict=True)
        if np.isfinite(after)
    ]
    rows = [
        ("", [escape(name), _percent(before), _percent(after), f"{100 * gain:+.1f}", _bar(gain)])
        for gain, before, after, name in sorted(gains, key=lambda each: -each[0])
    ]
    note = '<p class="note">Share of each class answered right, in %, over all seeds; greatest gain first.</p>'
    return [_section("What each class gains", _table(["class", "without", "with", "gain", ""], rows) + note)]


def _bar(gain: float) -> str:
    side = "more" if gain >= 0 else "less"
    return f'<span class="bar"><i class="{side}" style="width:{50 * min(1.0, abs(gain)):.1f}%"></i></span>'


def _repeat(summary: Summary) -> str:
    recipe = f"<details><summary>The recipe, every default filled in</summary><pre>{escape(summary.recipe)}</pre></details>"
    return f"<pre>{escape(summary.command)}</pre>" + (recipe if summary.recipe else "")


def _picture(draw: Callable[[Path], None], alternative: str, caption: str = "") -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        draw(path)
        content = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(alternative)}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5d6675; --paper: #fff; --line: #dfe3ea; --tint: #f1f5fb;
  --good: #0072b2; --bad: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ee; --soft: #9aa3b2; --paper: #15181f; --line: #313744; --tint: #1e2430; --good: #56b4e9;
    --bad: #f0894a; }
}
body { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
header p, .note, dt, figcaption { color: var(--soft); }
.note, figcaption { font-size: .87rem; }
.answer { font-size: 1.2rem; padding: 1rem 1.25rem; margin: 0; background: var(--tint); border-left: 4px solid var(--good);
  border-radius: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
tr.main td { font-weight: 650; background: var(--tint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--tint); padding: .9rem 1.1rem; border-radius: 4px; overflow-x: auto; font-size: .86rem; }
figure { margin: 0 0 1.5rem; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.bar { display: block; position: relative; width: 10rem; height: .7rem; }
.bar i { position: absolute; top: 0; bottom: 0; }
.bar i.more { left: 50%; background: var(--good); }
.bar i.less { right: 50%; background: var(--bad); }
"""
