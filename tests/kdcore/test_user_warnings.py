"""Warnings point at the user's line and are given once."""

import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import kdcore
from kdcore.user_warnings import counted, warn, warnings_about

HERE = {"__name__": "kdcore_made_up.module"}


def line_of(text):
    """Number of this file's line that ends with `text`, indented, and is not a part of another."""
    lines = Path(__file__).read_text().splitlines(keepends=True)
    [number] = [number for number, line in enumerate(lines, start=1) if line.strip() == text.strip()]
    return number


def of_kdcore(source):
    """A function of a module of kdcore's."""
    space = {**HERE, "warn": warn, "contextmanager": contextmanager, "torch": torch}
    exec(source, space)
    return space["called"]


@pytest.mark.parametrize(
    "source",
    [
        "def called(): warn('careful')",
        "def called(): (lambda: warn('careful'))()",
        "@contextmanager\ndef inner():\n    warn('careful')\n    yield\ndef called():\n    with inner(): pass",
        "class M(torch.nn.Module):\n    def forward(self): warn('careful')\ndef called(): M()()",
    ],
)
def test_the_line_is_that_of_the_caller(source):
    called = of_kdcore(source)
    with pytest.warns(UserWarning, match="careful") as found:
        called()
    assert [(each.filename, each.lineno) for each in found] == [(__file__, line_of("called()\n"))]


def test_without_a_user_it_is_the_outermost_frame():
    code = "from kdcore.user_warnings import warn\n__name__ = 'kdcore.made_up'\nwarn('careful')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert "UserWarning: careful" in said


def test_kinds_are_counted():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with counted("files"):
            for size in (1.0, 1.1, 1.2):
                warn(f"{size} long", kind="long")
            warn("other", kdcore.KdcoreDeprecationWarning)
        warn("other")
    said = [("1.0 long (3 files)", UserWarning), ("other", kdcore.KdcoreDeprecationWarning), ("other", UserWarning)]
    assert [(str(each.message), each.category) for each in found] == said


def test_warnings_name_what_they_are_about():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with counted("files"):
            for name in ("a.csv", "b.csv", "b.csv", "c.csv", "d.csv", "e.csv"):
                with warnings_about(name):
                    warn("long")
            with warnings_about("a.csv"), counted("windows"):
                warn("short")
                warn("short")
        with warnings_about("f.csv"):
            warn("odd")
    said = ["a.csv, b.csv, c.csv and 2 more: long", "a.csv: short (2 windows)", "f.csv: odd"]
    assert [str(each.message) for each in found] == said


def test_they_are_given_though_the_work_fails():
    def work():
        with counted("files"):
            warn("long")
            warn("long")
            raise ValueError("broken")

    with pytest.warns(UserWarning, match=r"long \(2 files\)"), pytest.raises(ValueError, match="broken"):
        work()


def test_a_batch_of_recordings_in_g_is_warned_of_once_at_the_line_of_predict():
    student = kdcore.load_student(_shipped())
    random = np.random.default_rng(0)
    clips = [random.normal((0, 0, size), 0.1, (120, 3)).astype(np.float32) for size in (0.9, 1.0, 1.1, 1.2)]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        student.predict(clips)
    assert [(each.filename, each.lineno) for each in found] == [(__file__, line_of("student.predict(clips)\n"))]
    assert "as if in g" in str(found[0].message)
    assert str(found[0].message).endswith("(4 recordings)")


def _shipped():
    from kdcore.deploy.shipped_models import find_model

    return find_model("utd-mhad/accelerometer")
