"""Cross-validate a recipe over its subjects."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from kdcore import Recipe, UsageError, load_recipe, make_plan, runs_folder
from kdcore_compare.cross_validation_report import CrossValidation, cross_validation_records, cross_validation_tables
from kdcore_compare.folds import Division, make_folds
from kdcore_compare.parallel import SERIAL, Parallel
from kdcore_compare.tables import TO_TERMINAL, Output
from kdcore_compare.train_variants import group_name, named_overrides, save_tables, train_only, train_variants


def cross_validate(
    source: str,
    overrides: Sequence[str],
    division: Division,
    parallel: Parallel = SERIAL,
    only: str = "",
    metric: str = "",
    output: Output = TO_TERMINAL,
) -> None:
    """Train and test a recipe on every fold, and write the tables, also to the folder of runs.

    Args:
        source: Path or name of the recipe.
        overrides: Overrides as ``key=value``.
        division: Division of subjects or samples into folds.
        parallel: Number of folds to train at a time, and where.
        only: Label of a single fold to train, without tables.
        metric: Name of the metric of the table. Default: the primary metric of the target.
        output: Where to write the tables.

    Raises:
        KdcoreError: If the subjects cannot be divided into folds, or the training of a fold fails.
        UsageError: If the options are inconsistent, or the fold `only` does not exist.
    """
    recipe = load_recipe(source, overrides)
    _refuse_other_splits(recipe)
    name = f"{group_name(recipe)}-{division.name}"
    variants = {
        each.label: named_overrides(
            recipe, each.label, [f"data.protocol={json.dumps(each.protocol)}"], {"cross_validation": name, "fold": each.label}
        )
        for each in make_folds(recipe, division)
    }
    if only:
        train_only(source, overrides, variants, only)
        return
    words, folder = ["cross-validate", source, *overrides, *division.options], runs_folder() / "cross-validations"
    runs = train_variants(source, overrides, variants, parallel, [*words, "--only"], folder / "logs")
    result = CrossValidation(recipe.name, runs, recipe.seeds, division, metric, shlex.join(["kdcore", *words]))
    records = list(cross_validation_records(result))
    save_tables(folder, name, cross_validation_tables(result), records)
    complete = folder / f"{name}.md" if output.form == "rich" else None
    output.write(cross_validation_tables(result, complete), records)


def _refuse_other_splits(recipe: Recipe) -> None:
    """Check that no stage learns from a split that folds do not have.

    Raises:
        UsageError: If one does. The message names the option of the schedule.
    """
    plan = make_plan(recipe)
    for stage in plan.stages["distilled"]:
        if stage.split != "train":
            options = recipe.schedule.options if recipe.schedule else {}
            option = next((key for key, value in options.items() if value == stage.split), "")
            raise UsageError(
                f"stage {stage.name!r} learns from the split {stage.split!r}, but a fold only has train and test: "
                + (f"add schedule.{option}=train" if option else "choose a schedule that learns from 'train'")
            )
