"""Folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcore import Builder, Recipe, UsageError, usable_samples


@dataclass(frozen=True)
class Division:
    """A division of subjects or samples into folds.

    Args:
        folds: Number of groups of subjects; 0 leaves one subject out at a time.
        repeats: Number of times that subjects are divided into folds, each time in another random order.
        stratified: Whether groups have similar class distributions.
        lists: Files with the test subjects or samples of each fold, instead of `folds`.
    """

    folds: int = 0
    repeats: int = 1
    stratified: bool = False
    lists: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Name for files and MLflow tags."""
        if self.lists:
            return f"{len(self.lists)}-lists"
        if not self.folds:
            return "subjects"
        repeats = f"-{self.repeats}-repeats" if self.repeats > 1 else ""
        return f"{self.folds}-{'stratified-' if self.stratified else ''}folds{repeats}"

    @property
    def said(self) -> str:
        """Description of the division, for the notes of a table."""
        if self.lists:
            return f"tested on the lists {', '.join(each.name for each in self.lists)}"
        if not self.folds:
            return "one subject left out at a time"
        stratified = ", stratified by class" if self.stratified else ""
        repeats = f", {self.repeats} repeats in random order" if self.repeats > 1 else ""
        return f"{self.folds} folds of subjects{stratified}{repeats}"

    @property
    def options(self) -> list[str]:
        """The division as command-line options."""
        found = [word for each in self.lists for word in ("--list", str(each))]
        found += ["--folds", str(self.folds)] if self.folds else []
        found += ["--repeats", str(self.repeats)] if self.repeats > 1 else []
        return [*found, "--stratified"] if self.stratified else found

    def check(self) -> None:
        """Check that the options are consistent.

        Raises:
            UsageError: If they are not.
        """
        if self.lists and (self.folds or self.repeats > 1 or self.stratified):
            raise UsageError("--list cannot be combined with --folds, --repeats or --stratified: each list is one fold")
        if self.repeats > 1 and not self.folds:
            raise UsageError("--repeats requires --folds: leaving one subject out has no random order to repeat")
        if self.stratified and not self.folds:
            raise UsageError("--stratified requires --folds: leaving one subject out leaves nothing to stratify")
        if self.folds == 1:
            raise UsageError("--folds must be at least 2")
        if len(self.lists) == 1:
            raise UsageError("cross-validation requires at least 2 lists; use protocol held-out-list for a single one")
        labels = [each.stem for each in self.lists]
        if twice := sorted({each for each in labels if labels.count(each) > 1}):
            raise UsageError(f"two lists are named {twice[0]!r}: the names of the files become those of the folds")


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation.

    Args:
        label: Name of the fold.
        protocol: The protocol component that makes its split.
    """

    label: str
    protocol: Mapping[str, Any]


def make_folds(recipe: Recipe, division: Division) -> list[Fold]:
    """Return the folds of a cross-validation with their protocols. Validation subjects are held out as in the recipe's
    protocol.

    Args:
        recipe: The recipe.
        division: Division of its subjects or samples.

    Raises:
        UsageError: If the options are inconsistent or do not match the recipe.
    """
    division.check()
    if division.lists:
        return [_listed(recipe, each) for each in division.lists]
    subjects = subjects_of(recipe)
    if not division.folds:
        return [
            Fold(f"subject {each}", {"name": "leave-one-subject-out", "test_subject": _number(each), **_validation(recipe)})
            for each in subjects
        ]
    if division.folds > len(subjects):
        raise UsageError(f"--folds {division.folds}: the recipe's data has {len(subjects)} subjects")
    return list(_groups(recipe, division))


def _listed(recipe: Recipe, path: Path) -> Fold:
    return Fold(f"list {path.stem}", {"name": "held-out-list", "test": str(path.absolute()), **_validation(recipe)})


def _groups(recipe: Recipe, division: Division) -> Iterator[Fold]:
    name = "stratified-subject-folds" if division.stratified else "subject-folds"
    for seed in range(division.repeats) if division.repeats > 1 else [None]:
        for fold in range(1, division.folds + 1):
            label = f"fold {fold} of {division.folds}" + ("" if seed is None else f", repeat {seed + 1}")
            options = {"folds": division.folds, "fold": fold, "shuffle_seed": seed, **_validation(recipe)}
            yield Fold(label, {"name": name, **options})


def subjects_of(recipe: Recipe) -> list[str]:
    """Return the subjects of the samples that a run of `recipe` uses, in natural order.

    Raises:
        DataError: If the recordings cannot be listed.
    """
    builder = Builder(recipe)
    with builder.locating_data_errors():
        subjects = {each.key.subject for each in usable_samples(recipe, builder.dataset())}
    if not subjects or "" in subjects:
        raise UsageError("cross-validation needs the subject of every sample, which this dataset does not provide")
    return sorted(subjects, key=lambda each: (not each.isdecimal(), int(each) if each.isdecimal() else 0, each))


def _number(subject: str) -> int | str:
    """Return a subject as written in a recipe, so that runs with a manually written protocol are reused."""
    return int(subject) if subject.isdecimal() and str(int(subject)) == subject else subject


def _validation(recipe: Recipe) -> dict[str, int]:
    held_out = recipe.data.protocol.options.get("validation_subjects", 0)
    if not isinstance(held_out, int):
        raise UsageError(
            "the recipe's protocol lists its validation subjects, which would be tested in some folds; "
            "give their number instead, e.g. data.protocol.validation_subjects=1"
        )
    return {"validation_subjects": held_out} if held_out else {}
