"""Protocols that split by recording condition: view, scene or session."""

from __future__ import annotations

from collections.abc import Sequence

from kdcore import Protocol, Sample, Splits
from kdcore_datasets.protocols.partition import (
    Value,
    both_sides,
    described,
    gather,
    held_out,
    listed,
    refuse_empty,
    refuse_overlap,
    values_of,
)


def _split_condition(
    samples: Sequence[Sample],
    field: str,
    train: tuple[Value, ...],
    test: tuple[Value, ...],
    validation: int | tuple[Value, ...],
) -> Splits:
    """Split by `field`, with a validation split of subjects from the training side."""
    stated = [sample for sample in samples if getattr(sample.key, field)]
    existing = values_of(stated or samples, field)
    chosen_train, chosen_test = both_sides(existing, train, test, field, existing[:-1])
    sides = {"train": chosen_train, "test": chosen_test}
    refuse_overlap(field, sides)
    split_of = {value: split for split, values in sides.items() for value in values}
    splits = gather(stated, split_of, field, ("train", "validation", "test"))
    rule = described(f"By {field}", sides, existing)
    if len(stated) < len(samples):
        rule += f"; left out {len(samples) - len(stated)} samples that state no {field}"
    refuse_empty(splits, rule)
    if validation:
        subjects = values_of(splits["train"], "subject")
        held = held_out(validation, subjects, subjects, "subject")
        split_of = {subject: "validation" if subject in held else "train" for subject in subjects}
        splits |= gather(splits["train"], split_of, "subject", ("train", "validation"))
        rule += f"; of train, subjects {listed(held)} for validation"
        refuse_empty(splits, rule, may_be_empty=())
    return Splits(splits, rule, disjoint=(field,))


class CrossView(Protocol):
    """Train on some camera views, test on others.

    Args:
        train_views: Training views; by default all but the test views.
        test_views: Test views; by default the last, or all that `train_views` does not list.
        validation_subjects: Validation subjects, or how many of the last subjects to hold out of the training views.
    """

    def __init__(
        self,
        *,
        train_views: tuple[Value, ...] = (),
        test_views: tuple[Value, ...] = (),
        validation_subjects: int | tuple[Value, ...] = 0,
    ):
        self.train_views = train_views
        self.test_views = test_views
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Divide by view."""
        return _split_condition(samples, "view", self.train_views, self.test_views, self.validation_subjects)


class CrossScene(Protocol):
    """Train in some scenes, test in others.

    Args:
        train_scenes: Training scenes; by default all but the test scenes.
        test_scenes: Test scenes; by default the last, or all that `train_scenes` does not list.
        validation_subjects: Validation subjects, or how many of the last subjects to hold out of the training scenes.
    """

    def __init__(
        self,
        *,
        train_scenes: tuple[Value, ...] = (),
        test_scenes: tuple[Value, ...] = (),
        validation_subjects: int | tuple[Value, ...] = 0,
    ):
        self.train_scenes = train_scenes
        self.test_scenes = test_scenes
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Divide by scene."""
        return _split_condition(samples, "scene", self.train_scenes, self.test_scenes, self.validation_subjects)


class CrossSession(Protocol):
    """Train on some sessions, test on others.

    Args:
        train_sessions: Training sessions; by default all but the test sessions.
        test_sessions: Test sessions; by default the last, or all that `train_sessions` does not list.
        validation_subjects: Validation subjects, or how many of the last subjects to hold out of the training sessions.
    """

    def __init__(
        self,
        *,
        train_sessions: tuple[Value, ...] = (),
        test_sessions: tuple[Value, ...] = (),
        validation_subjects: int | tuple[Value, ...] = 0,
    ):
        self.train_sessions = train_sessions
        self.test_sessions = test_sessions
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Divide by session."""
        return _split_condition(samples, "session", self.train_sessions, self.test_sessions, self.validation_subjects)
