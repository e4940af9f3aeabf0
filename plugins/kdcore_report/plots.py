"""Plots of results as PNG files. Matplotlib is imported on first use, and its global state is not changed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kdcore import Evaluation
from kdcore_report.calibration import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = "#1f2430", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe and Ito's palette, which is distinguishable for colour-blind readers."""


def confusion_picture(evaluation: Evaluation, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix: rows are true classes, shades the share of the row, and numbers the counts.

    Args:
        evaluation: Evaluation of one participant.
        classes: Class names in the order of the labels.
        title: Title of the plot.
        path: Output PNG file.
    """
    counts = evaluation.confusion
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _matrix(counts, share, classes, title, "Blues", (0, 1), "{:d}")
    save_figure(figure, path)


def confusion_difference_picture(one: Evaluation, other: Evaluation, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw the difference of two confusion matrices, `one` minus `other`; blue is more, red is fewer."""
    change = one.confusion - other.confusion
    widest = max(1, int(np.abs(change).max()))
    figure = _matrix(change, change, classes, title, "RdBu", (-widest, widest), "{:+d}")
    save_figure(figure, path)


def panels_picture(curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: Path, columns: int = 3) -> None:
    """Draw curves over epochs, with one panel per title.

    Args:
        curves: (epoch, value) pairs by panel title and curve name. A name looks the same in all panels. Curves whose names
            differ only after the comma, such as ``seed 0, distilled`` and ``seed 0, baseline``, have the same colour.
        path: Output PNG file.
        columns: Number of panels per row.
    """
    columns = min(columns, len(curves))
    rows = math.ceil(len(curves) / columns)
    width, height = 3.4 * columns + 0.6, 2.5 * rows + 0.5
    figure = new_figure(width, height, layout=None)
    looks = _looks(dict.fromkeys(name for lines in curves.values() for name in lines))
    places = figure.subplots(rows, columns, squeeze=False).flat
    for (title, lines), axes in zip(curves.items(), places, strict=False):  # leaves the unused axes in `places`
        for name, points in lines.items():
            steps, values = zip(*points, strict=True) if points else ((), ())
            colour, style = looks[name]
            marker = "o" if sum(map(math.isfinite, values)) == 1 else None
            axes.plot(steps, values, style, color=colour, label=name, linewidth=1.4, marker=marker)
        axes.set_title(title, y=1.0, pad=15, loc="left", fontsize=9, fontweight="bold")  # above a power of ten, if there is one
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=8)
        axes.grid(color="#d9dde5", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places:
        axes.set_axis_off()
    shown = dict(item for axes in figure.axes for item in zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    below = 0.0
    if len(shown) > 1:
        below = 0.1 + 0.18 * math.ceil(len(shown) / 4)
        figure.legend(shown.values(), shown.keys(), frameon=False, fontsize=8, loc="lower center", ncols=min(4, len(shown)))
    # Room for labels and titles in inches. A layout engine would measure each of them twice, which takes longer than to draw.
    left, right, bottom, top, across, down = 0.7, 0.15, 0.5 + below, 0.42, 0.75, 0.9
    panel = (width - left - right - across * (columns - 1)) / columns, (height - bottom - top - down * (rows - 1)) / rows
    figure.subplots_adjust(
        left / width, bottom / height, 1 - right / width, 1 - top / height, across / panel[0], down / panel[1]
    )
    save_figure(figure, path)


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the colour and line style of each curve: the colour of its seed, and the style of its arm."""
    split = {name: name.partition(", ")[::2] for name in names}
    seeds, arms = (list(dict.fromkeys(parts)) for parts in zip(*split.values(), strict=True))
    looks = {}
    for name, (seed, arm) in split.items():
        round_of_colours, number = divmod(seeds.index(seed), len(COLOURS))
        looks[name] = COLOURS[number], ("-", "--", ":", "-.")[(arms.index(arm) + 2 * round_of_colours) % 4]
    return looks


def reliability_picture(found: Mapping[str, Reliability], path: Path) -> None:
    """Draw reliability diagrams side by side: accuracy by confidence."""
    figure = new_figure(4.0 * len(found), 3.8)
    for axes, (title, each) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        _diagram(axes, title, each, "confidence", "accuracy")
    save_figure(figure, path)


def label_reliability_picture(found: Mapping[str, Mapping[str, Reliability]], path: Path) -> None:
    """Draw reliability diagrams of labels, with one row per label and one column per participant.

    Args:
        found: Reliability by label and participant.
        path: Output PNG file.
    """
    columns = max(map(len, found.values()))
    figure = new_figure(3.6 * columns, 3.2 * len(found))
    for places, (label, row) in zip(figure.subplots(len(found), columns, squeeze=False), found.items(), strict=True):
        for axes, (title, each) in zip(places, row.items(), strict=True):
            _diagram(axes, f"{label}, {title}", each, "probability", "share with the label")
    save_figure(figure, path)


def _diagram(axes: Axes, title: str, found: Reliability, across: str, up: str) -> None:
    """Draw a reliability diagram."""
    share = found.counts / max(1, found.counts.max())
    for left, right, height, weight in zip(found.edges[:-1], found.edges[1:], found.accuracy, share, strict=True):
        if weight:
            depth = 0.25 + 0.75 * weight
            axes.bar(left, height, right - left, align="edge", color=COLOURS[0], alpha=depth, edgecolor=PAPER)
    axes.plot((0, 1), (0, 1), "--", color=INK, linewidth=1)
    error = "–" if np.isnan(found.error) else f"{100 * found.error:.1f} %"
    axes.set_title(f"{title}\nECE {error}", loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)


def _matrix(
    numbers: np.ndarray,
    shades: np.ndarray,
    classes: Sequence[str],
    title: str,
    colours: str,
    limits: tuple[float, float],
    form: str,
) -> Figure:
    side = max(4.5, 0.34 * len(classes) + 1.5)
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    low, high = limits
    axes.imshow(shades, cmap=colours, vmin=low, vmax=high)
    _name_classes(axes, classes)
    for row, column in np.argwhere(numbers):
        # Dark ground far from the middle of a diverging map, or at the top of a plain one.
        dark = abs(shades[row, column]) > 0.6 * max(abs(low), high)
        colour = PAPER if dark else INK
        cell = axes.text(column, row, form.format(numbers[row, column]), ha="center", va="center", fontsize=7, color=colour)
        cell.set_in_layout(False)  # it is inside the axes
    axes.set_title(title, y=1.0, loc="left", fontweight="bold", fontsize=11)
    return figure


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    places = np.arange(len(classes))
    axes.set_xticks(places, classes, rotation=90, fontsize=8)
    axes.set_yticks(places, classes, fontsize=8)
    ends, between = (-0.5, len(classes) - 0.5), places[:-1] + 0.5
    axes.hlines(between, *ends, color="#e8ebf0", linewidth=0.5)  # a grid of minor ticks would take longer
    axes.vlines(between, *ends, color="#e8ebf0", linewidth=0.5)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return an empty figure, with sizes in inches, that is not registered with pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout=layout, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file.

    The canvas draws it once, while `Figure.savefig` draws twice with a layout engine. The compression takes half the time of
    the default level, and files grow by 3 %.
    """
    content = io.BytesIO()
    options = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 4}}
    figure.canvas.print_png(content, **options)  # type: ignore[attr-defined]  # `new_figure` gave it an Agg canvas
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
