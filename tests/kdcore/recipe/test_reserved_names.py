"""Names that a submodule cannot have are refused in recipes, before torch refuses them with a KeyError."""

from __future__ import annotations

from torch import nn

from kdcore.recipe.reserved_names import is_module_attribute


def test_every_public_attribute_of_a_module_dict_is_reserved():
    names = [name for name in dir(nn.ModuleDict()) if not name.startswith("_")]
    assert len(names) > 40
    assert [name for name in names if not is_module_attribute(name)] == []


def test_usual_names_are_not():
    assert not any(map(is_module_attribute, ("student", "teacher", "halfway", "soft-target", "wrist", "trainer", "")))
