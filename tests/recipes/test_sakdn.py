"""The figure that sakdn.yaml gives for the weight of GSDM."""

from __future__ import annotations

import re

import pytest

import kdcore
from kdcore.recipe.shipped import find_recipe


@pytest.mark.slow
def test_the_recipe_gives_the_measured_ratio_of_the_gradients():
    [said] = re.findall(r"its gradient on the first batch is (\d+) times", find_recipe("sakdn").read_text())
    checks = kdcore.dry_run("sakdn")
    assert checks
    gradients = {check.term: check.gradient for check in checks.terms if check.learner == "student"}
    assert gradients["gsdm"] / gradients["cross-entropy"] == pytest.approx(int(said), rel=0.05)
