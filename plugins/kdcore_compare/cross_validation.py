"""Cross-validate a recipe over its subjects."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcore import Builder, Recipe, UsageError, load_recipe, make_plan, runs_folder
from kdcore_compare.cross_validation_report import CrossValidation, cross_validation_records, cross_validation_tables
from kdcore_compare.tables import Format, format_for, write_tables
from kdcore_compare.train_variants import group_name, named_overrides, save_tables, train_only, train_variants


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation.

    Args:
        label: Name of the fold.
        protocol: The protocol component that makes its split.
    """

    label: str
    protocol: Mapping[str, Any]


def cross_validate(
    source: str,
    overrides: Sequence[str],
    folds: int = 0,
    repeats: int = 1,
    jobs: int = 1,
    only: str = "",
    metric: str = "accuracy",
    form: Format = "rich",
    output: Path | None = None,
) -> None:
    """Train and test a recipe on every fold, and write the tables, also to the folder of runs.

    Args:
        source: Path or name of the recipe.
        overrides: ``key=value`` each.
        folds: Number of groups of subjects; 0 leaves one subject out at a time.
        repeats: Number of times that subjects are divided into folds, each time in another random order.
        jobs: Number of folds to train in parallel.
        only: Label of a single fold to train, without tables.
        metric: Metric of the table: ``accuracy``, ``macro_f1`` or ``loss``.
        form: Format of the tables.
        output: File for the tables; by default they are printed.

    Raises:
        KdcoreError: If the subjects cannot be divided so, or the training of a fold fails.
        UsageError: If the options contradict each other, or there is no fold `only`.
    """
    form = format_for(form, output)
    recipe = load_recipe(source, overrides)
    _refuse_other_splits(recipe)
    name = f"{group_name(recipe)}-" + (
        f"{folds}-folds" + (f"-{repeats}-repeats" if repeats > 1 else "") if folds else "subjects"
    )
    variants = {
        each.label: named_overrides(
            recipe, each.label, [f"data.protocol={json.dumps(each.protocol)}"], {"cross_validation": name, "fold": each.label}
        )
        for each in make_folds(recipe, folds, repeats)
    }
    if only:
        train_only(source, overrides, variants, only)
        return
    options = [*(["--folds", str(folds)] if folds else []), *(["--repeats", str(repeats)] if repeats > 1 else [])]
    words, folder = ["cross-validate", source, *overrides, *options], runs_folder() / "cross-validations"
    runs = train_variants(source, overrides, variants, jobs, [*words, "--only"], folder / "logs")
    result = CrossValidation(recipe.name, runs, recipe.seeds, folds, repeats, metric, shlex.join(["kdcore", *words]))
    records = list(cross_validation_records(result))
    save_tables(folder, name, cross_validation_tables(result), records)
    whole = folder / f"{name}.md" if form == "rich" else None
    write_tables(cross_validation_tables(result, whole), records, form, output)


def make_folds(recipe: Recipe, folds: int, repeats: int) -> list[Fold]:
    """The folds of a cross-validation, each with its protocol. Validation subjects are held out as the recipe's protocol does.

    Args:
        recipe: The recipe.
        folds: Number of groups of subjects; 0 for one subject each.
        repeats: Number of times that subjects are divided.

    Raises:
        UsageError: If the options contradict each other or the recipe.
    """
    if repeats > 1 and not folds:
        raise UsageError("--repeats requires --folds: leaving one subject out has no random order to repeat")
    if folds == 1:
        raise UsageError("--folds must be at least 2")
    subjects = subjects_of(recipe)
    if not folds:
        return [
            Fold(f"subject {each}", {"name": "leave-one-subject-out", "test_subject": _number(each), **_validation(recipe)})
            for each in subjects
        ]
    if folds > len(subjects):
        raise UsageError(f"--folds {folds}: the recipe's data has {len(subjects)} subjects")
    seeds = range(repeats) if repeats > 1 else [None]
    return [
        Fold(
            f"fold {fold} of {folds}" + ("" if seed is None else f", repeat {seed + 1}"),
            {"name": "subject-folds", "folds": folds, "fold": fold, "shuffle_seed": seed, **_validation(recipe)},
        )
        for seed in seeds
        for fold in range(1, folds + 1)
    ]


def subjects_of(recipe: Recipe) -> list[str]:
    """The subjects that have samples of every modality that the recipe uses, numbers in numerical order.

    Raises:
        DataError: If the recordings cannot be listed.
    """
    builder = Builder(recipe)
    modalities = {modality for each in recipe.participants.values() for modality in each.modalities}
    with builder.locating_data_errors():
        samples = builder.dataset().samples()
    subjects = {each.key.subject for each in samples if modalities <= set(each.sources)}
    if not subjects or "" in subjects:
        raise UsageError("cross-validation needs the subject of every sample, which this dataset does not state")
    return sorted(subjects, key=lambda each: (not each.isdecimal(), int(each) if each.isdecimal() else 0, each))


def _refuse_other_splits(recipe: Recipe) -> None:
    """Refuse a recipe with a stage that learns from a split which folds do not have.

    Raises:
        UsageError: If there is one; names the option of the schedule that asks for it.
    """
    plan = make_plan(recipe)
    for stage in plan.stages["distilled"]:
        if stage.split != "train":
            options = recipe.schedule.options if recipe.schedule else {}
            option = next((key for key, value in options.items() if value == stage.split), "")
            raise UsageError(
                f"stage {stage.name!r} learns from the split {stage.split!r}, and a fold has train and test only: "
                + (f"add schedule.{option}=train" if option else "choose a schedule that learns from 'train'")
            )


def _number(subject: str) -> int | str:
    """A subject as a recipe writes it, so that runs with a hand-written protocol are reused."""
    return int(subject) if subject.isdecimal() and str(int(subject)) == subject else subject


def _validation(recipe: Recipe) -> dict[str, int]:
    held_out = recipe.data.protocol.options.get("validation_subjects", 0)
    if not isinstance(held_out, int):
        raise UsageError(
            "the recipe's protocol lists its validation subjects, which would be tested in some folds; "
            "give their number instead, e.g. data.protocol.validation_subjects=1"
        )
    return {"validation_subjects": held_out} if held_out else {}
