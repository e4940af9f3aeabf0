"""Names of tracked runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kdcore.runs.recorder import _title

LONG = [f"data.dataset.option_{number}={number}" for number in range(10)]


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("kdcore run quickstart", "wrist"),
        ("kdcore run wrist.yaml seeds=[0] losses.dist.weight=0.5", "wrist seeds=[0] losses.dist.weight=0.5"),
        ("kdcore run a=b/wrist.yaml --plugin=my_loss.py --plugin x=1.py", "wrist"),
        ("kdcore resume 20260101-000000-wrist-abcdef training.epochs=60", "wrist training.epochs=60"),
        ("", "wrist"),
    ],
)
def test_a_run_has_the_name_of_its_recipe_and_the_overrides_of_its_command(command, title):
    assert _title(SimpleNamespace(recipe=SimpleNamespace(name="wrist"), command=command.split())) == title


def test_a_long_name_is_cut_after_a_whole_override():
    title = _title(SimpleNamespace(recipe=SimpleNamespace(name="wrist"), command=["kdcore", "run", "wrist", *LONG]))
    assert title == f"wrist {LONG[0]} {LONG[1]} {LONG[2]} …"
