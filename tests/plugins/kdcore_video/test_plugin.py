"""What the plugin announces."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kdcore_video
from kdcore.plugin.registry import Entry

REGISTERED: list[tuple[str, str, str]] = []
kdcore_video.register_transforms(lambda name, target: REGISTERED.append(("transform", name, target)))
kdcore_video.register_encoders(lambda name, target: REGISTERED.append(("encoder", name, target)))


@pytest.mark.parametrize(("kind", "name", "target"), REGISTERED)
def test_components_load(kind, name, target):
    assert Entry(kind, name, "video", target).load().__doc__


def test_announcing_imports_nothing_slow():
    code = "import sys, kdcore_video, kdcore_gaf; sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'cv2', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
