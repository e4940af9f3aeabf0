from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from kdcore.runs.metrics import evaluate
from kdcore_report.plots import confusion_difference_picture, confusion_picture, panels_picture


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def answered(predictions, classes=3):
    return evaluate(np.eye(classes)[predictions], np.arange(len(predictions)) % classes)


@pytest.mark.parametrize("classes", [2, 27])
def test_confusion_pictures_grow_with_the_classes(tmp_path, classes):
    one = answered(list(range(classes)) * 2, classes)
    names = [f"class number {number}" for number in range(classes)]
    confusion_picture(one, names, "Student", tmp_path / "new" / "confusion.png")
    confusion_difference_picture(one, one, names, "Difference", tmp_path / "difference.png")
    height, width = pixels(tmp_path / "new" / "confusion.png").shape[:2]
    assert min(height, width) >= max(400, 30 * classes)
    assert pixels(tmp_path / "difference.png").shape[1] >= 30 * classes


def test_what_went_wrong_is_seen(tmp_path):
    names = ["a", "b", "c"]
    confusion_picture(answered([0, 1, 2]), names, "", tmp_path / "right.png")
    confusion_picture(answered([1, 2, 0]), names, "", tmp_path / "wrong.png")
    assert (pixels(tmp_path / "right.png") != pixels(tmp_path / "wrong.png")).any()


def test_a_difference_is_blue_where_there_is_more_and_red_where_there_is_less(tmp_path):
    confusion_difference_picture(answered([0, 1, 2] * 9), answered([0, 1, 1] * 9), ["a", "b", "c"], "", tmp_path / "d.png")
    red, green, blue = np.moveaxis(pixels(tmp_path / "d.png")[..., :3], -1, 0)
    assert ((blue > 0.3) & (red < 0.1)).sum() > 100
    assert ((red > 0.3) & (blue < 0.2) & (green < 0.1)).sum() > 100


def test_curves_may_be_many_short_empty_or_broken(tmp_path):
    curves = {f"seed {n}": [(0, 1.0), (1, float("nan")), (2, 0.5)] for n in range(12)}
    panels_picture({"Losses": {**curves, "one point": [(1, 0.7)], "none": []}}, tmp_path / "curves.png")
    panels_picture({str(n): {"a": [(0, 1.0)]} for n in range(4)}, tmp_path / "many.png")
    assert pixels(tmp_path / "curves.png").min() < 0.5
    assert pixels(tmp_path / "many.png").shape[0] > 1.5 * pixels(tmp_path / "curves.png").shape[0]


def test_the_arms_of_a_seed_have_one_colour_and_different_lines(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("kdcore_report.plots.save_figure", lambda figure, path: drawn.extend(figure.axes[0].get_lines()))
    curves = {f"seed {seed}, {arm}": [(0, 1.0), (1, 0.5)] for arm in ("distilled", "baseline") for seed in range(10)}
    panels_picture({"student: total loss": curves}, tmp_path / "curves.png")
    looks = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in drawn}
    assert len(set(looks.values())) == 20
    for seed in range(10):
        distilled, baseline = looks[f"seed {seed}, distilled"], looks[f"seed {seed}, baseline"]
        assert distilled[0] == baseline[0]
        assert distilled[1] != baseline[1]


def test_pictures_are_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        panels_picture({"loss": {"seed 0": [(0, 1.0), (1, 0.5)]}}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pyplot_is_never_loaded(tmp_path):
    code = (
        "import sys, pathlib; from kdcore_report.plots import panels_picture; early = 'matplotlib' in sys.modules;"
        "panels_picture({'t': {'a': [(0, 1.0)]}}, pathlib.Path(sys.argv[1]));"
        "sys.exit(early or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.png")], check=False).returncode == 0
