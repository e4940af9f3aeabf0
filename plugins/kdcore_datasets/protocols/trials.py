"""Protocol that splits by trial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kdcore import Protocol, Sample, Splits
from kdcore_datasets.protocols.partition import (
    Value,
    both_sides,
    described,
    in_order,
    matching,
    refuse_empty,
    refuse_overlap,
    values_of,
)


class SubjectSpecific(Protocol):
    """Train and test on different trials of every subject.

    By default, the first half of the trials of each subject and action is used for training (the larger half for an odd number)
    and the rest for testing. For UTD-MHAD, this is the published split (trials 1-2 and 3-4).

    Args:
        train_trials: Training trials; if empty, all that `test_trials` does not list.
        test_trials: Test trials; if empty, all that `train_trials` does not list.
        validation_trials: Validation trials, or how many of the last training trials of each subject and action to hold out (at
            least one remains).
    """

    def __init__(
        self,
        *,
        train_trials: tuple[Value, ...] = (),
        test_trials: tuple[Value, ...] = (),
        validation_trials: int | tuple[Value, ...] = 0,
    ):
        self.train_trials = train_trials
        self.test_trials = test_trials
        self.validation_trials = validation_trials

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by trial within each subject and action."""
        splits: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
        existing = values_of(samples, "trial")
        for group in _groups(samples):
            split_of = self._splits_of_trials(values_of(group, "trial"), existing)
            for sample in group:
                if sample.key.trial in split_of:
                    splits[split_of[sample.key.trial]].append(sample)
        named = bool(self.train_trials or self.test_trials)
        trials = {split: values_of(members, "trial") if members else [] for split, members in splits.items()}
        rule = described("By trial within each subject and action", trials, existing)
        refuse_empty(splits, rule, may_be_empty=() if self.validation_trials else ("validation",))
        ordered = {split: tuple(in_order(members)) for split, members in splits.items()}
        return Splits(ordered, rule, disjoint=("trial",) if named else ())

    def _splits_of_trials(self, trials: list[str], existing: list[str]) -> dict[str, str]:
        """Return the split of each trial in a group with `trials`, out of all `existing` ones."""
        train, test = self._sides(trials, existing)
        refuse_overlap("trial", {"train": train, "test": test})
        held_out = self._held_out([trial for trial in train if trial in trials], existing)
        refuse_overlap("trial", {"validation": held_out, "test": test})
        return dict.fromkeys(test, "test") | dict.fromkeys(train, "train") | dict.fromkeys(held_out, "validation")

    def _sides(self, trials: list[str], existing: list[str]) -> tuple[list[str], list[str]]:
        if not self.train_trials and not self.test_trials:
            half = (len(trials) + 1) // 2
            return trials[:half], trials[half:]
        return both_sides(existing, self.train_trials, self.test_trials, "trial", [])

    def _held_out(self, train: list[str], existing: list[str]) -> list[str]:
        if isinstance(self.validation_trials, int):
            count = min(self.validation_trials, max(0, len(train) - 1))
            return train[len(train) - count :]
        return matching(self.validation_trials, existing, "trial")


def _groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.key.subject, sample.key.action].append(sample)
    return list(groups.values())
