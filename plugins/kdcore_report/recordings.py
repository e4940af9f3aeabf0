"""Plots of recordings as poses, frames or curves, depending on the axes of the modality."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcore import Modality, Signal
from kdcore_report.plots import COLOURS, new_figure, save_figure

FRAMES, POSES, MOVING = 6, 8, 32
LARGEST = 20_000
"""Maximum number of points per line; longer signals are subsampled."""


def draw_signal(modality: Modality, signal: Signal, path: Path) -> None:
    """Draw a recording: several moments if it has joints, or height and width; otherwise curves over time."""
    if "joint" in modality.axes:
        _draw_poses(modality, signal, path)
    elif has_frames(modality):
        _draw_frames(modality, signal, path)
    else:
        _draw_curves(modality, signal, path)


def has_frames(modality: Modality) -> bool:
    """Return whether recordings of a modality are videos."""
    return {"height", "width"} <= set(modality.axes)


def draw_input(values: NDArray, path: Path) -> None:
    """Draw each channel of an input (channel, height, width) side by side."""
    figure = new_figure(2.2 * len(values), 2.5)
    for axes, channel in zip(np.atleast_1d(figure.subplots(1, len(values))), values, strict=True):
        axes.imshow(channel, cmap="viridis", interpolation="nearest")
        axes.set_axis_off()
    save_figure(figure, path)


def animation(modality: Modality, signal: Signal) -> str:
    """Return a recording with joints as an animated SVG image; empty for others."""
    if "joint" not in modality.axes or len(signal) < 2:
        return ""
    points, links = _flat_joints(modality, signal)
    points = points[_moments(len(points), MOVING)]
    low, high = np.nanmin(points, axis=(0, 1, 2)), np.nanmax(points, axis=(0, 1, 2))
    scale = 220 / max(float((high - low).max()), 1e-9)
    points = (points - low) * scale + 10
    width, height = ((high - low) * scale + 20).tolist()
    lines = []
    for person, (one, other) in product(range(points.shape[1]), links):
        ends = {"x1": (one, 0), "y1": (one, 1), "x2": (other, 0), "y2": (other, 1)}
        tracks = "".join(_moving(name, points[:, person, joint, axis], signal.duration) for name, (joint, axis) in ends.items())
        colour = COLOURS[person % len(COLOURS)]
        lines.append(f'<line stroke="{colour}" stroke-width="3" stroke-linecap="round">{tracks}</line>')
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="{modality.name}, moving">{"".join(lines)}</svg>'


def _moving(attribute: str, values: NDArray, seconds: float) -> str:
    values_text = ";".join(f"{value:.0f}" for value in np.nan_to_num(values, nan=-99))
    return (
        f'<animate attributeName="{attribute}" values="{values_text}" dur="{seconds:.1f}s" repeatCount="indefinite"></animate>'
    )


def _draw_curves(modality: Modality, signal: Signal, path: Path) -> None:
    values = np.asarray(signal.values, dtype=np.float64).reshape(len(signal), -1)
    step = max(1, len(values) // LARGEST)
    figure = new_figure(7.0, 2.2)
    axes = figure.add_subplot()
    names = modality.channels if len(modality.channels) == values.shape[1] else [str(n) for n in range(values.shape[1])]
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(signal.clock[::step], values[::step, number], color=colour, label=name, linewidth=1.2)
    axes.set_xlabel("s")
    axes.set_ylabel(modality.units)
    axes.grid(color="#d9dde5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(names) <= len(COLOURS):
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    save_figure(figure, path)


def _draw_frames(modality: Modality, signal: Signal, path: Path) -> None:
    frames = _ordered(modality, signal, ("time", "height", "width", "channel"))
    which = _moments(len(frames), FRAMES)
    figure = new_figure(1.7 * len(which), 1.9)
    for axes, index in zip(np.atleast_1d(figure.subplots(1, len(which))), which, strict=True):
        frame = frames[index]
        if frame.shape[-1] == 3:
            axes.imshow(frame if frame.dtype == np.uint8 else _stretched(frame))
        else:
            axes.imshow(np.linalg.norm(frame.astype(np.float64), axis=-1), cmap="gray")
        axes.set_title(f"{signal.clock[index]:.1f} s", y=1.0, fontsize=8)  # explicit positions avoid measuring text
        axes.set_axis_off()
    save_figure(figure, path)


def _stretched(frame: NDArray) -> NDArray:
    low, high = float(frame.min()), float(frame.max())
    return (frame - low) / max(high - low, 1e-9)


def _draw_poses(modality: Modality, signal: Signal, path: Path) -> None:
    from matplotlib.collections import LineCollection

    points, links = _flat_joints(modality, signal)
    which = _moments(len(points), POSES)
    low, high = np.nanmin(points, axis=(0, 1, 2)), np.nanmax(points, axis=(0, 1, 2))
    figure, ends = new_figure(1.2 * len(which), 2.4), np.array(links)
    for axes, index in zip(np.atleast_1d(figure.subplots(1, len(which))), which, strict=True):
        for person, joints in enumerate(points[index]):  # draw all bones at once: separate lines take five times as long
            axes.add_collection(
                LineCollection(joints[ends], colors=COLOURS[person % len(COLOURS)], linewidths=1.6, capstyle="projecting")
            )
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(high[1], low[1])
        axes.set_aspect("equal")
        axes.set_title(f"{signal.clock[index]:.1f} s", y=1.0, fontsize=8)
        axes.set_axis_off()
    save_figure(figure, path)


def _flat_joints(modality: Modality, signal: Signal) -> tuple[NDArray, Sequence[tuple[int, int]]]:
    """Project joints to the front as (time, person, joint, 2), with y pointing down, and return the joints to link."""
    points = _ordered(modality, signal, ("time", "person", "joint", "channel")).astype(np.float64)
    present = np.abs(np.nan_to_num(points)).sum(axis=(0, 2, 3)) > 0  # joints of an absent person are all zero
    points = points[:, present] if present.any() else points[:, :1]
    links = modality.links or linked_joints(points[:, 0])
    if points.shape[-1] < 3:  # image coordinates, whose y already points down
        return points[..., :2], links
    spread = np.nanmean(np.nanstd(points[:, 0], axis=1), axis=0)
    up, across = np.argsort(-spread)[:2].tolist()  # people are taller than wide, and wider than deep
    return np.stack([points[..., across], -points[..., up]], axis=-1), links


def linked_joints(points: NDArray) -> list[tuple[int, int]]:
    """Return the bones of a skeleton with unknown layout: the spanning tree of the shortest links with constant length.

    Args:
        points: Joint positions, (time, joint, channel).
    """
    from scipy.sparse.csgraph import minimum_spanning_tree

    points = np.nan_to_num(points[_moments(len(points), 64)])
    lengths = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    cost = lengths.mean(axis=0) + 3 * lengths.std(axis=0) + 1e-9  # a cost of zero would mean no edge
    tree = minimum_spanning_tree(np.triu(cost, 1)).tocoo()
    return list(zip(tree.row.tolist(), tree.col.tolist(), strict=True))


def _ordered(modality: Modality, signal: Signal, axes: Sequence[str]) -> NDArray:
    """Return values with their axes in the order `axes`; a missing axis has length one."""
    own = [axis for axis in axes if axis in modality.axes]
    values = np.asarray(signal.values).transpose([modality.axes.index(axis) for axis in own])
    for index, axis in enumerate(axes):
        if axis not in own:
            values = np.expand_dims(values, index)
    return values


def _moments(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
