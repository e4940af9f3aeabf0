"""Notes that MLflow shows of a run."""

from __future__ import annotations

from summaries import summary

from kdcore import RecipeChanges
from kdcore_mlflow.notes import run_note, seed_note


def test_the_note_has_results_gain_and_changes():
    found = summary()
    changes = RecipeChanges("sakdn", {"student.encoder.width": (32, 24), "engine.threads": (None, 1), "a": ("x|y", "")})
    note = run_note(found, changes, "Logged model: the student of seed 0.")
    lines = note.splitlines()
    assert f"**{found.answer}**" in lines
    assert "| participant | role | modality | mean ± sd | macro F1 | seed 0 | seed 1 | seed 2 | parameters |" in lines
    assert any(line.startswith("| rgb | distilled | rgb | 80.0 ± 5.0 | 80.0 ± 5.0 | 75.0 | 80.0 | 85.0 |") for line in lines)
    assert "| `student.encoder.width` | 32 | 24 |" in lines
    assert "| `engine.threads` | – | 1 |" in lines
    assert "| `a` | x\\|y |  |" in lines
    assert f"Reproduce: `{found.command}`" in lines


def test_a_recipe_that_was_not_changed_and_one_without_base():
    assert "Recipe: `sakdn`, unchanged." in run_note(summary(), RecipeChanges("sakdn"))
    assert "ecipe" not in run_note(summary(command=""), RecipeChanges())


def test_many_changes_are_counted():
    changes = RecipeChanges("sakdn", {f"key{number}": (0, number) for number in range(1, 36)})
    assert "5 more changes are in the run's parameters." in run_note(summary(), changes)


def test_a_seed_has_its_own_results():
    assert "| rgb | distilled | 80.0 |" in seed_note(summary(), 1)
    assert "| rgb | baseline | 62.5 |" in seed_note(summary(), 1)
