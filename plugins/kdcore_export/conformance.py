"""Conformance test cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdcore.testing import Case, NotApplicable


def _file(folder: Path) -> dict[str, Any]:
    raise NotApplicable("a fixed network in a file, which cannot be trained")


cases = {name: Case(_file) for name in ("onnx", "torchscript", "exported")}
