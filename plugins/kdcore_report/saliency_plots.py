"""Plots of saliency maps over the inputs that they explain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from kdcore_report.plots import INK, new_figure, save_figure

COLUMNS = 6
INCHES, HEADING = 1.6, 0.2
"""Width of a panel, and the height of its title as a share of the width."""
SIDE = 128
"""Minimum size of an image in pixels, so that a coarse map is drawn smoothly."""
STRENGTH = 0.8
"""Opacity of the map where it is 1."""


@dataclass(frozen=True)
class Saliency:
    """Saliency of one participant for one sample.

    Args:
        participant: Name of the participant.
        prediction: Predicted class or label, or estimated value.
        correct: Whether the prediction is correct; None for a value.
        inputs: Encoder input, (channel, height, width) or (time, channel, height, width).
        maps: Maps by title, (h, w) or (time, h, w), from 0 to 1.
    """

    participant: str
    prediction: str
    correct: bool | None
    inputs: NDArray
    maps: Mapping[str, NDArray]

    @property
    def title(self) -> str:
        """Return the title of the plot."""
        return f"{self.participant}: {self.prediction}{'' if self.correct is None else ' ✓' if self.correct else ' ✗'}"


Panel = tuple[str, NDArray]


def draw_saliency(saliencies: Sequence[Saliency], path: Path) -> None:
    """Draw the maps of all participants in one figure: images side by side, and the frames of a clip in a row."""
    lines = [*_packed([_image_panels(saliency) for saliency in saliencies if saliency.inputs.ndim == 3])]
    lines += [line for saliency in saliencies if saliency.inputs.ndim == 4 for line in _clip_lines(saliency)]
    columns, height = max(map(len, lines)), 1.0 + HEADING
    figure = new_figure(INCHES * columns, INCHES * height * len(lines))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))  # one layout for all: a layout engine would take seconds
    for row, line in enumerate(lines):
        for column, (title, pixels) in enumerate(line):
            top = row * height + HEADING
            down, across = (0.96 * side / max(pixels.shape[:2]) for side in pixels.shape[:2])
            axes.imshow(pixels, extent=(column, column + across, top + down, top), interpolation="nearest")
            axes.text(column, top - 0.03, title, fontsize=7.5, va="bottom", color=INK)
    axes.set_xlim(0, columns)
    axes.set_ylim(height * len(lines), 0)
    axes.set_axis_off()
    save_figure(figure, path)


def lit(ground: NDArray, places: NDArray) -> NDArray[np.float64]:
    """Overlay a map on an image in yellow to red, with opacity proportional to the map.

    Args:
        ground: Image, (height, width), from 0 to 1.
        places: Map, (h, w), from 0 to 1; resized bilinearly.

    Returns:
        Image, (height, width, 3), from 0 to 1.
    """
    from matplotlib import colormaps

    small = torch.from_numpy(np.ascontiguousarray(places, dtype=np.float64))[None, None]
    share = F.interpolate(small, ground.shape, mode="bilinear", align_corners=False)[0, 0].numpy().clip(0, 1)
    weight = STRENGTH * share[..., None]
    return (1 - weight) * ground[..., None] + weight * colormaps["YlOrRd"](share)[..., :3]


def _image_panels(saliency: Saliency) -> list[Panel]:
    ground = _ground(saliency.inputs[None])[0]
    panels = [(title, lit(ground, places)) for title, places in saliency.maps.items()]
    return [(saliency.title, lit(ground, np.zeros((1, 1)))), *panels]


def _packed(groups: Sequence[list[Panel]]) -> Iterator[list[Panel]]:
    """Arrange groups in rows of at most `COLUMNS` panels; only groups longer than a row are split."""
    line: list[Panel] = []
    for group in groups:
        if line and len(line) + len(group) > COLUMNS:
            yield line
            line = []
        line = line + group
    for start in range(0, len(line), COLUMNS):
        yield line[start : start + COLUMNS]


def _clip_lines(saliency: Saliency) -> Iterator[list[Panel]]:
    frames = _ground(saliency.inputs)
    which = np.unique(np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int))
    for title, places in saliency.maps.items():
        of_frame = places if places.ndim == 3 else places[None]
        moments = which * len(of_frame) // len(frames)
        panels = [lit(frames[frame], of_frame[moment]) for frame, moment in zip(which, moments, strict=True)]
        titles = [f"{saliency.title}\n{title}", *(f"frame {frame + 1} of {len(frames)}" for frame in which[1:])]
        yield list(zip(titles, panels, strict=True))


def _ground(frames: NDArray) -> NDArray[np.float64]:
    """Convert (time, channel, height, width) to light grey images, (time, height, width)."""
    grey = frames.astype(np.float64).mean(axis=1)
    low, high = np.nanpercentile(grey, (0.5, 99.5))
    factor = -(-SIDE // min(grey.shape[1:]))
    large = grey.repeat(factor, axis=1).repeat(factor, axis=2)
    return 0.1 + 0.85 * np.nan_to_num((large - low) / max(float(high - low), 1e-9)).clip(0, 1)
