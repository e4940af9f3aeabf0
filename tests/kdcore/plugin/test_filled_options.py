"""Options that were added to a component later leave the hashes of older recipes alone."""

from __future__ import annotations

import pytest

from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import filled_options

ADDED = {"target": "values", "value_units": {"speed": "m/s"}, "weight": "weight"}


@pytest.fixture
def entry():
    return plugin_manager().registry.get("dataset", "sensor-csv")


def test_options_that_count_only_if_set_are_left_out_until_they_are(entry, tmp_path):
    given = {"root": str(tmp_path), "devices": {}, "classes": ["speed"]}
    assert ADDED.keys().isdisjoint(filled_options(entry, given))
    for name, value in ADDED.items():
        assert filled_options(entry, {**given, name: value}).keys() & ADDED.keys() == {name}
