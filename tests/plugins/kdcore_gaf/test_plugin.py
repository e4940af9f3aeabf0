"""What the plugin announces."""

from __future__ import annotations

import pytest

import kdcore_gaf
from kdcore.plugin.registry import Entry

REGISTERED: list[tuple[str, str, str]] = []
kdcore_gaf.register_transforms(lambda name, target: REGISTERED.append(("transform", name, target)))
kdcore_gaf.register_encoders(lambda name, target: REGISTERED.append(("encoder", name, target)))


@pytest.mark.parametrize(("kind", "name", "target"), REGISTERED)
def test_components_load(kind, name, target):
    assert Entry(kind, name, "gaf", target).load().__doc__
