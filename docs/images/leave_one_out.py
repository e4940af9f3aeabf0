"""Draws a cross-validation that leaves out one subject at a time.

    python docs/images/leave_one_out.py NAME RUN RUN …

writes ``NAME-subjects.svg`` (accuracy for each subject), ``NAME-confusion.svg`` (confusion matrix over all folds) and
``NAME-curves.svg`` (cross-entropy in training) next to this file. RUN is a fold's run folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from kdcore_report.curves import curves

HERE = Path(__file__).parent
ARMS = {"baseline": "0.5", "distilled": "#3f51b5"}  # colours
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kdcore", "font.size": 9, "font.family": "sans-serif"})


def predictions(run: Path, arm: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and predicted classes of the student, for each seed."""
    found = []
    for file in sorted(run.glob(f"results/seed-*-{arm}.npz")):
        with np.load(file) as saved:
            found.append((saved["labels"], saved["probabilities.student"].argmax(axis=1)))
    return found


def accuracies(run: Path, arm: str) -> list[float]:
    """Accuracy of the student in one fold for each seed, %."""
    return [100 * float(np.mean(labels == predicted)) for labels, predicted in predictions(run, arm)]


def save(figure: plt.Figure, path: Path) -> None:
    """Save a figure without the date, so that it is the same each time."""
    figure.savefig(path, dpi=200, metadata={"Date": None}, facecolor="white")


def draw_subjects(runs: list[Path], path: Path) -> None:
    """Draw the student's mean accuracy for each fold and arm, and its seeds as small dots if there are several."""
    figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
    subjects = [json.loads((run / "run.json").read_text())["split_rule"].rpartition("test ")[2] for run in runs]
    for x, run in enumerate(runs):
        seeds = {arm: accuracies(run, arm) for arm in ARMS}
        axes.plot([x, x], [np.mean(values) for values in seeds.values()], color="0.6", zorder=1)
        for side, (arm, values) in zip((-0.18, 0.18), seeds.items(), strict=True):
            axes.scatter(x, np.mean(values), color=ARMS[arm], label=None if x else arm, zorder=3)
            if len(values) > 1:
                axes.scatter([x + side] * len(values), values, color=ARMS[arm], s=8, alpha=0.5, linewidths=0, zorder=2)
    axes.set_xticks(range(len(runs)), subjects)
    axes.set(xlabel="test subject", ylabel="accuracy, %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, ncols=2, loc="upper right")
    axes.margins(y=0.2)
    save(figure, path)


def draw_confusion(runs: list[Path], path: Path) -> None:
    """Draw the distilled student's confusion matrix over all folds and seeds, in % of each class."""
    classes = json.loads((runs[0] / "run.json").read_text())["classes"]
    counts = np.zeros((len(classes), len(classes)))
    for run in runs:
        for pairs in predictions(run, "distilled"):
            np.add.at(counts, pairs, 1)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    mesh = axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=100, edgecolors="0.92", linewidth=0.3, rasterized=True)
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(classes)) + 0.5, [str(n + 1) for n in range(len(classes))], fontsize=6.5)
    axes.set_yticks(np.arange(len(classes)) + 0.5, [f"{name} {n}" for n, name in enumerate(classes, start=1)], fontsize=7.5)
    axes.set(xlabel="predicted class")
    figure.colorbar(mesh, label="% of the true class", shrink=0.6)
    save(figure, path)


def draw_curves(runs: list[Path], path: Path) -> None:
    """Draw the student's cross-entropy in training: the mean over folds and seeds, and the range."""
    figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
    lines: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for run in runs:
        seeds = json.loads((run / "run.json").read_text())["seeds"]
        for name, points in curves(run, seeds)["student: cross-entropy"].items():
            lines[name.rpartition(", ")[2]].append([value for _, value in points])
    for arm, colour in ARMS.items():
        values = np.array(lines[arm])
        epochs = np.arange(1, values.shape[1] + 1)
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(epochs, values.mean(axis=0), color=colour, label=arm)
    axes.set(xlabel="epoch", ylabel="cross-entropy, training", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=2, loc="upper right")
    save(figure, path)


if __name__ == "__main__":
    name, *folders = sys.argv[1:]
    runs = [Path(folder) for folder in folders]
    draw_subjects(runs, HERE / f"{name}-subjects.svg")
    draw_confusion(runs, HERE / f"{name}-confusion.svg")
    draw_curves(runs, HERE / f"{name}-curves.svg")
