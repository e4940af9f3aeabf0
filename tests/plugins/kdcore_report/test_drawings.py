"""Pages of recordings: those of `data check --pictures` and `predict --plot`."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from kdcore import Drawing, Estimated, Labelled, Modality, Signal, UsageError
from kdcore_report.drawings import draw_timeline, draw_values, write_drawings

WRIST = Modality("wrist", ("time", "channel"), ("channel", "time"), "m/s^2", 10.0, ("x", "y", "z"))
SIGNAL = Signal(np.random.default_rng(0).normal(size=(50, 3)), 10.0)


def test_a_page_has_every_recording_under_its_heading(tmp_path):
    said = [Labelled(0.0, 2.5, "walk", 0.9), Labelled(2.5, 4.9, "<sit>", 0.6)]
    drawings = [Drawing("a.csv", "wrist", WRIST, SIGNAL, said), Drawing("b.csv", "wrist", WRIST, SIGNAL)]
    text = write_drawings("Title & more", drawings, tmp_path / "page.html").read_text()
    assert text.count("<h2>a.csv</h2>") == text.count("<h2>b.csv</h2>") == 1
    assert text.count("<img") == 3
    assert "Title &amp; more" in text
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(UsageError, match="cannot be written"):
        write_drawings("", drawings, tmp_path / "none" / "page.html")


def test_only_plots_change_their_colours_in_dark_mode(tmp_path):
    film = Modality("film", ("time", "height", "width", "channel"), ("time", "channel", "height", "width"), "0..255", 10.0)
    frames = Signal(np.zeros((3, 8, 8, 3), np.uint8), 10.0)
    drawings = [Drawing("a.csv", "wrist", WRIST, SIGNAL), Drawing("b.mp4", "film", film, frames)]
    text = write_drawings("Page", drawings, tmp_path / "page.html").read_text()
    assert '<img class="plot" alt="a.csv' in text
    assert '<img class="photograph broad" alt="b.mp4' in text or '<img class="photograph" alt="b.mp4' in text


def test_bars_lie_where_the_windows_do(tmp_path):
    """The first class in the left half of the first row, the second in the right half of the second."""
    draw_timeline([Labelled(0.0, 2.45, "a", 1.0), Labelled(2.45, 4.9, "b", 1.0)], SIGNAL, tmp_path / "bars.png")
    colours = imread(tmp_path / "bars.png")[..., :3]
    places = {}
    for name, rgb in (("a", (0x00, 0x72, 0xB2)), ("b", (0xD5, 0x5E, 0x00))):
        rows, columns = np.nonzero(np.abs(colours - np.array(rgb) / 255).max(axis=-1) < 0.02)
        places[name] = (rows.mean(), columns.min(), columns.max())
    assert places["a"][0] < places["b"][0]
    assert abs(places["a"][2] - places["b"][1]) < 5
    widths = [last - first for _, first, last in places.values()]
    assert widths[0] == pytest.approx(widths[1], rel=0.02)


def test_lines_of_values_lie_where_the_windows_do(tmp_path):
    """The higher value in the right half of the picture is nearer to its top."""
    draw_values([Estimated(0.0, 2.45, {"a": 1.0}), Estimated(2.45, 4.9, {"a": 3.0})], SIGNAL, tmp_path / "lines.png")
    colours = imread(tmp_path / "lines.png")[..., :3]
    rows, columns = np.nonzero(np.abs(colours - np.array((0x00, 0x72, 0xB2)) / 255).max(axis=-1) < 0.02)
    middle = (columns.min() + columns.max()) / 2
    top, bottom = rows.min(), rows.max()
    right, left = columns[rows <= top + 3], columns[rows >= bottom - 3]
    assert right.min() >= middle - 5
    assert left.max() <= middle + 5
    assert len(set(right)) == pytest.approx(len(set(left)), rel=0.05)
