"""Changes of a recipe to its base."""

from __future__ import annotations

from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.runs.recipe_changes import recipe_changes


def changes(source, *overrides):
    filled = make_plan(load_recipe(source, list(overrides))).filled
    return recipe_changes(["kdcore", "run", str(source), *overrides], filled)


def test_overrides_are_changes_to_the_recipe():
    found = changes("quickstart", "losses.soft-target.weight=0.5", "seeds=[7]", "description=mine")
    assert found.base == "quickstart"
    assert found.values["losses.soft-target.weight"][1] == 0.5
    assert found.values["seeds"][1] == [7]
    assert set(found.values) == {"losses.soft-target.weight", "seeds"}


def test_a_recipe_that_extends_another_is_compared_with_that(tmp_path):
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text("extends: quickstart\nname: base\n")
    mine.write_text("extends: base.yaml\nname: mine\nlosses: {soft-target: null}\n")
    found = changes(mine)
    assert found.base == str(base)
    assert found.values["losses.soft-target.temperature"] == (4.0, None)
    assert all(key.startswith("losses.soft-target.") for key in found.values)
    mine.write_text("extends: methods/takd\nname: mine\n")
    assert (changes(mine).base, changes(mine).values) == ("methods/takd", {})


def test_without_a_recipe_that_can_be_read_there_is_no_base(tmp_path):
    filled = make_plan(load_recipe("quickstart")).filled
    for command in ([], ["python", "mine.py"], ["kdcore", "run", str(tmp_path / "gone.yaml")]):
        assert recipe_changes(command, filled).base == ""
