"""Each recipe of a method has a page with the whole recipe, the published setting and a command for real recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes/methods").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_method_has_a_complete_page(recipe):
    page = (ROOT / f"docs/methods/{recipe.stem}.md").read_text(encoding="utf-8")
    assert f'--8<-- "recipes/methods/{recipe.name}"' in page
    assert "| published | here |" in page
    assert f"kdcore run methods/{recipe.stem} data.dataset.name=utd-mhad" in page
