"""Draws motion.svg: one simulated movement as three sensors record it. Run: python docs/images/motion.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from kdcore.plugin.manager import plugin_manager

matplotlib.use("Agg")
matplotlib.rcParams.update({"svg.hashsalt": "kdcore", "font.family": "DejaVu Sans", "font.size": 10})

import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

INK, TEACHER, STUDENT = "#26323d", "#c8553d", "#2b6f8f"
BONES = [
    (3, 2), (2, 1), (1, 0), (1, 4), (4, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (10, 11),
    (3, 12), (12, 13), (13, 14), (14, 15), (3, 16), (16, 17), (17, 18), (18, 19),
]  # fmt: skip
MOMENTS = 5


def draw(target: Path) -> None:
    """Write the picture to `target`."""
    dataset = plugin_manager().registry.get("dataset", "synthetic-motion").load()(subjects=1, trials=1, video_size=96)
    sample = next(each for each in dataset.samples() if dataset.classes[each.label] == "wave")
    figure = plt.figure(figsize=(9.6, 3.4))
    skeleton = dataset.read(sample, "skeleton").values[..., 0]
    rgb = dataset.read(sample, "rgb").values
    _skeletons(figure.add_axes((0.01, 0.54, 0.43, 0.36)), skeleton)
    _frames(figure.add_axes((0.01, 0.02, 0.43, 0.40)), rgb)
    _trace(figure.add_axes((0.64, 0.30, 0.34, 0.42)), dataset.read(sample, "accelerometer"))
    _arrow(figure, "teach\nwhile training")
    figure.text(0.01, 0.93, "teacher: skeleton", color=TEACHER, weight="bold")
    figure.text(0.01, 0.44, "teacher: rgb", color=TEACHER, weight="bold")
    figure.text(0.61, 0.84, "student: accelerometer at the wrist", color=STUDENT, weight="bold")
    figure.text(0.61, 0.06, "works alone afterwards", color=INK)
    figure.savefig(target, metadata={"Date": None}, facecolor="white")


def _moments(length: int) -> np.ndarray:
    return np.linspace(0.1, 0.9, MOMENTS) * (length - 1)


def _skeletons(axes: plt.Axes, joints: np.ndarray) -> None:
    for place, moment in enumerate(_moments(len(joints))):
        pose = joints[int(moment)]
        x, y = pose[:, 0] - pose[3, 0] + place * 1.5, pose[:, 1]
        for a, b in BONES:
            axes.plot(x[[a, b]], y[[a, b]], color=TEACHER, linewidth=1.6, solid_capstyle="round")
        axes.scatter(x, y, s=5, color=INK, zorder=3)
    axes.set_aspect("equal")
    axes.axis("off")


def _frames(axes: plt.Axes, frames: np.ndarray) -> None:
    axes.imshow(np.concatenate([frames[int(moment)][16:, 14:-14] for moment in _moments(len(frames))], axis=1))
    axes.axis("off")


def _trace(axes: plt.Axes, signal) -> None:
    for channel, shade in zip(signal.values.T, ("#2b6f8f", "#6aa5bd", "#a9cbd8"), strict=True):
        axes.plot(signal.clock, channel, color=shade, linewidth=1.2)
    axes.set_xlabel("seconds")
    axes.set_title("m/s²", loc="left", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _arrow(figure: plt.Figure, text: str) -> None:
    figure.add_artist(
        matplotlib.patches.FancyArrowPatch(
            (0.46, 0.46),
            (0.57, 0.46),
            transform=figure.transFigure,
            arrowstyle="-|>",
            mutation_scale=18,
            linewidth=2,
            color=INK,
        )
    )
    figure.text(0.515, 0.52, text, ha="center", color=INK)


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".svg"))
