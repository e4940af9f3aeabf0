"""The components that the plugin registers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import describe, options_model
from kdcore_skeleton.layout import Layout

ENTRIES = [entry for entry in plugin_manager().registry.entries() if entry.target.startswith("kdcore_skeleton.")]


def test_components_are_announced():
    assert {entry.name for entry in ENTRIES} >= {
        *("st-gcn", "agcn", "agcn-two-stream", "hcn"),
        *("missing-joints", "centre", "view-align", "skeleton-scale", "bones", "motion"),
        *("random-rotation", "random-scale", "drop-joints", "broadcast-to-joints"),
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_option_is_described(entry):
    described = describe(entry)
    assert described.summary
    assert all(option.description for option in described.options)
    assert not [option.name for option in described.options if option.required and "." not in option.name]


@pytest.mark.parametrize("name", ["st-gcn", "agcn", "agcn-two-stream"])
def test_a_recipe_may_name_a_layout_or_spell_it_out(name):
    model = options_model(plugin_manager().registry.get("encoder", name))
    layout = {"joints": ["a", "b"], "edges": [["a", "b"]], "centre": "a"}
    assert model(layout=layout).layout == Layout(("a", "b"), (("a", "b"),), "a")  # type: ignore[attr-defined]
    assert model(layout="ntu-25").layout == "ntu-25"  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match="ntu-25"):
        model(layout="ntu25")
    with pytest.raises(ValidationError, match="greater than or equal"):
        model(width=0)
