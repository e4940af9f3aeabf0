"""Statements in the documentation that would drift without anybody's noticing."""

from __future__ import annotations

import re

import pytest
from pages import CHECKOUT

from kdcore.plugin.facts import component_facts
from kdcore.plugin.manager import found_plugins

PAIRS = {"pairs": [["a", "b"], ["c", "d"]]}
REQUIRED = {"fsp": PAIRS, "reviewkd": PAIRS}
"""Loss → the options that it requires."""


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md"])
def test_number_of_distillation_losses(page: str):
    entries = [entry for entry in found_plugins().registry.entries("loss") if entry.plugin == "losses"]
    reading = [entry for entry in entries if component_facts(entry, REQUIRED.get(entry.name, {})).needs.teachers]
    row = re.search(r"^\| distillation losses \| \[?more than (\d+)", (CHECKOUT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert row, "the row of distillation losses has gone"
    assert int(row[1]) < len(reading) <= int(row[1]) + 10
