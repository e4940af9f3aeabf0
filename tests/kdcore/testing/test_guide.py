"""The guide lists the checks there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdcore.plugin.registry import KINDS
from kdcore.testing import checks_of

GUIDE = (Path(__file__).resolve().parents[3] / "docs/guides/test-a-plugin.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_is_explained(kind: str):
    for check in checks_of(kind):
        assert f"| `{check.name}` | {check.summary.replace('``', '`')} |" in GUIDE


def test_no_other_check_is():
    listed = {line.split("`")[1] for line in GUIDE.partition("## The checks")[2].splitlines() if line.startswith("| `")}
    assert listed == {check.name for kind in KINDS for check in checks_of(kind)}
