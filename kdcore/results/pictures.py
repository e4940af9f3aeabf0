"""Pictures of results, as PNG files; matplotlib is loaded when one is drawn, without touching its global state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdcore.results.evaluate import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = "#1f2430", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""


def confusion_picture(evaluation: Evaluation, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw which classes are taken for which: rows are true classes, shades the share of the row, numbers the counts.

    Args:
        evaluation: Of one participant.
        classes: Names, in the order of the labels.
        title: Above the picture.
        path: The PNG file to write.
    """
    counts = evaluation.confusion
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _matrix(counts, share, classes, title, "Blues", (0, 1), "{:d}")
    _save(figure, path)


def confusion_difference_picture(one: Evaluation, other: Evaluation, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw how many more samples `one` puts into each cell than `other`; blue is more, red fewer."""
    change = one.confusion - other.confusion
    widest = max(1, int(np.abs(change).max()))
    figure = _matrix(change, change, classes, title, "RdBu", (-widest, widest), "{:+d}")
    _save(figure, path)


def curves_picture(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path, title: str = "") -> None:
    """Draw numbers over steps, each curve under its name.

    Args:
        curves: Name → (step, value) pairs.
        path: The PNG file to write.
        title: Above the picture.
    """
    figure = _figure(8.0, 4.5)
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(curves.items()):
        steps, values = zip(*points, strict=True) if points else ((), ())
        style = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
        marker = "o" if sum(map(math.isfinite, values)) == 1 else None
        axes.plot(steps, values, style, color=COLOURS[number % len(COLOURS)], label=name, linewidth=1.6, marker=marker)
    axes.set_xlabel("epoch")
    axes.grid(color="#d9dde5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontweight="bold")
    if curves:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    _save(figure, path)


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
    figure = _figure(side + 1, side)
    axes = figure.add_subplot()
    low, high = limits
    axes.imshow(shades, cmap=colours, vmin=low, vmax=high)
    _name_classes(axes, classes)
    for row, column in np.argwhere(numbers):
        # Dark ground far from the middle of a diverging map, or at the top of a plain one.
        dark = abs(shades[row, column]) > 0.6 * max(abs(low), high)
        axes.text(
            column, row, form.format(numbers[row, column]), ha="center", va="center", fontsize=7, color=PAPER if dark else INK
        )
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
    return figure


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    places = np.arange(len(classes))
    axes.set_xticks(places, classes, rotation=90, fontsize=8)
    axes.set_yticks(places, classes, fontsize=8)
    axes.set_xticks(places[:-1] + 0.5, minor=True)
    axes.set_yticks(places[:-1] + 0.5, minor=True)
    axes.grid(which="minor", color="#e8ebf0", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
