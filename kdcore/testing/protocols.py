"""Checks of protocols."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.protocol import Split
from kdcore.data.leakage import audit
from kdcore.errors import DataError
from kdcore.testing.case import ConformanceError, NotApplicable, require
from kdcore.testing.checks import Subject, check


def samples(subject: Subject) -> Sequence[Sample]:
    """Samples to split: the case's, or 8 subjects, 3 actions, 2 trials, 3 views, 2 scenes and 2 sessions."""
    if subject.case.inputs is not None:
        return subject.case.inputs
    counts = product(range(1, 9), range(1, 4), range(1, 3), range(1, 4), range(1, 3), range(1, 3))
    return [
        Sample(SampleKey(str(subject), str(action), str(trial), str(view), str(scene), str(session)), action - 1)
        for subject, action, trial, view, scene, session in counts
    ]


def _split(subject: Subject) -> Split:
    try:
        return subject.made().split(samples(subject))
    except NotApplicable:
        raise
    except Exception as error:
        raise NotApplicable("it gives no split: see the check 'splits'") from error


@check("protocol")
def splits(subject: Subject) -> None:
    """It gives the parts train and test, with samples in both, a validation part, and its rule in words."""
    found = subject.made().split(samples(subject))
    require(isinstance(found, Split), f"split returns a {type(found).__name__}, not a Split")
    missing = [part for part in ("train", "validation", "test") if part not in found.parts]
    require(not missing, f"there is no part {', '.join(missing)} (validation may be empty)")
    empty = [part for part, members in found.parts.items() if not members and part != "validation"]
    require(not empty, f"the part {', '.join(empty)} is empty")
    require(len(found.rule.split()) > 1, f"its rule is {found.rule!r}; say in a sentence who trains and who tests")


@check("protocol")
def disjoint(subject: Subject) -> None:
    """No sample is in two parts, and no value of a field that it calls disjoint is on both sides."""
    leaks = audit(_split(subject))
    require(not leaks, "the split leaks: " + "; ".join(leaks[:3]))


@check("protocol")
def covers(subject: Subject) -> None:
    """Parts hold the samples that it was given, each once; if it leaves some out, its rule says ``left out``."""
    given, found = samples(subject), _split(subject)
    known = {sample.key: sample for sample in given}
    used = [sample for members in found.parts.values() for sample in members]
    made_up = [str(sample.key) for sample in used if known.get(sample.key) != sample]
    require(not made_up, f"the split holds samples that it was not given: {'; '.join(made_up[:3])}")
    for part, members in found.parts.items():
        require(len({sample.key for sample in members}) == len(members), f"the part {part} holds a sample twice")
    missing = len(known) - len({sample.key for sample in used})
    told = "left out" in found.rule
    require(
        not missing or told, f"{missing} samples are in no part, of which its rule {found.rule!r} says nothing ('left out')"
    )


@check("protocol")
def deterministic(subject: Subject) -> None:
    """Constructed again, and given the samples in another order, it gives the same split in the same order."""
    given, first = samples(subject), _split(subject)
    for again in (given, list(given)[::-1]):
        second = subject.made().split(again)
        apart = [part for part in first.parts if tuple(first.parts[part]) != tuple(second.parts.get(part, ()))]
        require(not apart, f"made anew, or given samples in another order, the part {', '.join(apart)} differs")
        require(first.rule == second.rule, "made anew, or given samples in another order, its rule differs")


@check("protocol")
def refusals_clear(subject: Subject) -> None:
    """Samples that cannot be split, such as none at all, are refused with a DataError."""
    protocol = subject.made()
    try:
        protocol.split([])
    except DataError:
        return
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise ConformanceError(f"given no samples it raises {told}; raise a DataError that says what is wrong") from error
    raise ConformanceError("given no samples it splits them; raise a DataError that says what is wrong")
