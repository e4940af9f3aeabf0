"""Checks of protocols."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.protocol import Splits
from kdcore.data.leakage import audit
from kdcore.errors import DataError
from kdcore.testing.case import ConformanceError, NotApplicable, require
from kdcore.testing.checks import Subject, check


def samples(subject: Subject) -> Sequence[Sample]:
    """Return the samples of the case, or of 8 subjects, 3 actions, 2 trials, 3 views, 2 scenes and 2 sessions."""
    if subject.case.inputs is not None:
        return subject.case.inputs
    counts = product(range(1, 9), range(1, 4), range(1, 3), range(1, 4), range(1, 3), range(1, 3))
    return [
        Sample(SampleKey(str(subject), str(action), str(trial), str(view), str(scene), str(session)), action - 1)
        for subject, action, trial, view, scene, session in counts
    ]


def _splits(subject: Subject) -> Splits:
    try:
        return subject.made().split(samples(subject))
    except NotApplicable:
        raise
    except Exception as error:
        raise NotApplicable("split() failed: see the check 'splits'") from error


@check("protocol")
def splits(subject: Subject) -> None:
    """It returns a train and a test split with samples in both, a validation split, and its rule as a sentence."""
    result = subject.made().split(samples(subject))
    require(isinstance(result, Splits), f"split returns a {type(result).__name__}, not Splits")
    missing = [split for split in ("train", "validation", "test") if split not in result.samples]
    require(not missing, f"there is no {', '.join(missing)} split (validation may be empty)")
    empty = [split for split, members in result.samples.items() if not members and split != "validation"]
    require(not empty, f"the {', '.join(empty)} split is empty")
    require(len(result.rule.split()) > 1, f"its rule is {result.rule!r}; it must be a sentence that describes the split")


@check("protocol")
def disjoint(subject: Subject) -> None:
    """No sample is in two splits, and no value of a field that it declares disjoint is on both sides."""
    leaks = audit(_splits(subject))
    require(not leaks, "the splits leak: " + "; ".join(leaks[:3]))


@check("protocol")
def covers(subject: Subject) -> None:
    """Splits hold every given sample once; if it leaves some out, its rule says ``left out``."""
    given, result = samples(subject), _splits(subject)
    by_key = {sample.key: sample for sample in given}
    used = [sample for members in result.samples.values() for sample in members]
    unexpected = [str(sample.key) for sample in used if by_key.get(sample.key) != sample]
    require(not unexpected, f"a split contains samples that are not in its input: {'; '.join(unexpected[:3])}")
    for split, members in result.samples.items():
        require(len({sample.key for sample in members}) == len(members), f"the {split} split contains a sample twice")
    missing = len(by_key) - len({sample.key for sample in used})
    declared = "left out" in result.rule
    require(
        not missing or declared, f"{missing} samples are in no split, but its rule {result.rule!r} does not contain 'left out'"
    )


@check("protocol")
def deterministic(subject: Subject) -> None:
    """Constructed again, and given the samples in another order, it returns the same splits in the same order."""
    given, first = samples(subject), _splits(subject)
    for again in (given, list(given)[::-1]):
        second = subject.made().split(again)
        different = [split for split in first.samples if tuple(first.samples[split]) != tuple(second.samples.get(split, ()))]
        require(
            not different, f"constructed again, or given the samples in another order, the {', '.join(different)} split differs"
        )
        require(first.rule == second.rule, "constructed again, or given the samples in another order, its rule differs")


@check("protocol")
def refusals_clear(subject: Subject) -> None:
    """It raises a DataError for samples that cannot be split, such as an empty list."""
    protocol = subject.made()
    try:
        protocol.split([])
    except DataError:
        return
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
        raise ConformanceError(f"given no samples, it raises {raised}; raise a DataError that explains the problem") from error
    raise ConformanceError("given no samples, it raises nothing; raise a DataError that explains the problem")
