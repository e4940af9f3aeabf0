"""HTML pages with plots of recordings and their predictions over time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

from kdcore import Drawing, Estimated, Labelled, Signal, UsageError
from kdcore_report.html_page import Pictures, page, section
from kdcore_report.plots import COLOURS, new_figure, save_figure
from kdcore_report.recordings import animation, draw_signal, has_frames


def write_drawings(title: str, drawings: Sequence[Drawing], path: Path) -> Path:
    """Write a page with a plot of each recording. Skeletons are also animated.

    Args:
        title: Title of the page.
        drawings: Recordings; those with the same heading are grouped.
        path: Output HTML file.

    Raises:
        UsageError: If the file cannot be written.
    """
    headings: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Pictures(Path(folder))
        for number, each in enumerate(drawings):
            headings.setdefault(each.heading, []).append(_drawn(pictures, str(number), each))
    body = f"<header><h1>{escape(title)}</h1></header>\n" + "\n".join(
        section(heading, "\n".join(content)) for heading, content in headings.items()
    )
    try:
        path.write_text(page(title, body), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _drawn(pictures: Pictures, name: str, each: Drawing) -> str:
    alternative = f"{each.heading}, {each.caption}"
    draw = partial(draw_signal, each.modality, each.signal)
    content = pictures.figure(name, draw, alternative, each.caption, has_frames(each.modality))
    if moving := animation(each.modality, each.signal):
        content += f'<figure class="example">{moving}</figure>'
    if each.predictions:
        description = f"{each.caption}: {each.kind} over time; darker means more probable"
        content += pictures.figure(
            f"{name}-classes", lambda path: draw_timeline(each.predictions, each.signal, path), description, description
        )
    elif each.kind == "labels":
        content += f"<p>{escape(each.caption)}: no label reaches the threshold at any time.</p>"
    if each.estimates:
        description = f"{each.caption}: values over time"
        content += pictures.figure(
            f"{name}-values", lambda path: draw_values(each.estimates, each.signal, path), description, description
        )
    return content


def draw_values(estimates: Sequence[Estimated], signal: Signal, path: Path) -> None:
    """Plot values over time: one panel per value, one line segment per window of the recording."""
    names = list(estimates[0].values)
    figure = new_figure(7.0, 0.5 + 1.4 * len(names))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for row, (name, axes) in enumerate(zip(names, panels, strict=True)):
        colour, values = COLOURS[row % len(COLOURS)], [each.values[name] for each in estimates]
        axes.hlines(values, [each.start for each in estimates], [each.end for each in estimates], colors=colour, linewidth=2)
        axes.plot([(each.start + each.end) / 2 for each in estimates], values, color=colour, linewidth=0.8, alpha=0.6)
        axes.set_ylabel(name, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlim(float(signal.clock[0]), float(signal.clock[-1]) or 1.0)
    panels[-1].set_xlabel("s")
    save_figure(figure, path)


def draw_timeline(predictions: Sequence[Labelled], signal: Signal, path: Path) -> None:
    """Plot classes or labels over time: one row each, one bar per window; darker means more probable."""
    classes = list(dict.fromkeys(each.label for each in predictions))
    figure = new_figure(7.0, 0.7 + 0.3 * len(classes))
    axes = figure.add_subplot()
    for row, name in enumerate(classes):
        for each in (each for each in predictions if each.label == name):
            colour, depth = COLOURS[row % len(COLOURS)], 0.25 + 0.75 * each.probability
            axes.barh(row, each.end - each.start, left=each.start, height=0.7, color=colour, alpha=depth)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(float(signal.clock[0]), float(signal.clock[-1]) or 1.0)
    axes.set_xlabel("s")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
