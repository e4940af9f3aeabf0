"""Draws a cross-validation that leaves out one subject at a time: each subject's accuracy, and the confusion of all folds.

    python docs/images/leave_one_out.py NAME RUN RUN …

writes ``NAME-subjects.svg`` and ``NAME-confusion.svg`` next to this file. RUN is a fold's run folder, with one seed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kdcore", "font.size": 9, "font.family": "sans-serif"})


def predictions(run: Path, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predicted classes of the student."""
    [file] = run.glob(f"results/seed-*-{arm}.npz")
    with np.load(file) as saved:
        return saved["labels"], saved["probabilities.student"].argmax(axis=1)


def accuracy(run: Path, arm: str) -> float:
    """Accuracy of the student in one fold, %."""
    labels, predicted = predictions(run, arm)
    return 100 * float(np.mean(labels == predicted))


def draw_subjects(runs: list[Path], path: Path) -> None:
    """Draw the baseline's and the distilled student's accuracy for each fold."""
    figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
    subjects = [json.loads((run / "run.json").read_text())["split_rule"].rpartition("test ")[2] for run in runs]
    for x, run in enumerate(runs):
        before, after = accuracy(run, "baseline"), accuracy(run, "distilled")
        axes.plot([x, x], [before, after], color="0.6", zorder=1)
        axes.scatter(x, before, color="0.5", label="baseline" if not x else None, zorder=2)
        axes.scatter(x, after, color="#3f51b5", label="distilled" if not x else None, zorder=3)
    axes.set_xticks(range(len(runs)), subjects)
    axes.set(xlabel="test subject", ylabel="accuracy, %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, ncols=2, loc="upper right")
    axes.margins(y=0.2)
    figure.savefig(path, dpi=200, metadata={"Date": None}, facecolor="white")


def draw_confusion(runs: list[Path], path: Path) -> None:
    """Draw the distilled student's confusion matrix over all folds, in % of each class."""
    classes = json.loads((runs[0] / "run.json").read_text())["classes"]
    counts = np.zeros((len(classes), len(classes)))
    for run in runs:
        np.add.at(counts, predictions(run, "distilled"), 1)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    mesh = axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=100, edgecolors="0.92", linewidth=0.3, rasterized=True)
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(classes)) + 0.5, [str(n + 1) for n in range(len(classes))], fontsize=6.5)
    axes.set_yticks(np.arange(len(classes)) + 0.5, [f"{name} {n}" for n, name in enumerate(classes, start=1)], fontsize=7.5)
    axes.set(xlabel="predicted class")
    figure.colorbar(mesh, label="% of the true class", shrink=0.6)
    figure.savefig(path, dpi=200, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    name, *folders = sys.argv[1:]
    runs = [Path(folder) for folder in folders]
    draw_subjects(runs, HERE / f"{name}-subjects.svg")
    draw_confusion(runs, HERE / f"{name}-confusion.svg")
