"""Announcing what a shipped plugin has imports nothing slow, and all of it is there."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from kdcore.plugin.manager import PluginManager

SHIPPED = [point for point in entry_points(group="kdcore") if point.dist and point.dist.name == "kdcore"]
SLOW = {"torch", "timm", "torchvision", "cv2", "numpy", "scipy", "av", "mlflow"}


def test_announcing_imports_nothing_slow():
    code = f"""
import sys
from importlib.metadata import entry_points
from kdcore.plugin.manager import PluginManager
for name in {[point.name for point in SHIPPED]}:
    assert not PluginManager(entry_points(group="kdcore", name=name)).broken, name
    slow = {SLOW} & set(sys.modules)
    assert not slow, (name, slow)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("point", SHIPPED, ids=lambda point: point.name)
def test_everything_announced_can_be_loaded(point):
    for entry in PluginManager([point]).registry.entries():
        assert entry.load().__doc__
