"""Protocol with test samples that are listed in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcore import DataError, Protocol, Sample, Splits, did_you_mean
from kdcore_datasets.protocols.partition import in_order, listed, match, refuse_empty

SHOWN = 5
"""Maximum number of unknown names listed in an error."""


class HeldOutList(Protocol):
    """Test on the subjects or samples listed in a file, and train on all others.

    The file contains one subject or sample key per line. Keys are written as kdcore prints them:
    ``subject 3, action walk, trial 1``. Empty lines and lines that start with ``#`` are ignored.

    Args:
        test: File with the test subjects or samples.
        validation: File with the validation subjects or samples.
        validation_subjects: Number of the last training subjects to hold out, instead of `validation`.

    Raises:
        ValueError: If both `validation` and `validation_subjects` are given.
    """

    def __init__(self, *, test: Path, validation: Path | None = None, validation_subjects: int = 0):
        if validation and validation_subjects:
            raise ValueError("give validation or validation_subjects, not both")
        self.test = test
        self.validation = validation
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by the lists."""
        if not samples:
            raise DataError("there are no samples to split")
        known, rest = _by_name(samples), in_order(samples)
        test = _read(self.test, known)
        validation = _read(self.validation, known) if self.validation else _Listed("", frozenset(), True)
        if both := sorted(str(each.key) for each in rest if each.key in test.keys and each.key in validation.keys):
            raise DataError(f"{self.validation}: listed for validation and, in {self.test}, for test: {listed(both[:SHOWN])}")
        splits = {
            "train": tuple(each for each in rest if each.key not in test.keys | validation.keys),
            "validation": tuple(each for each in rest if each.key in validation.keys),
            "test": tuple(each for each in rest if each.key in test.keys),
        }
        rule = f"By list: test {test.said}"
        if self.validation:
            rule += f"; validation {validation.said}"
        refuse_empty(splits, rule)
        if self.validation_subjects:
            held = _last_subjects(splits["train"], self.validation_subjects)
            rule += f"; of train, subjects {listed(held)} for validation"
            splits["validation"] = tuple(each for each in splits["train"] if each.key.subject in held)
            splits["train"] = tuple(each for each in splits["train"] if each.key.subject not in held)
        by_subject = test.subjects and validation.subjects
        return Splits(splits, rule, disjoint=("subject",) if by_subject else ())


@dataclass(frozen=True)
class _Listed:
    """The subjects or samples listed in a file.

    Args:
        said: Description of the list with the file name, for the rule.
        keys: Keys of all listed samples.
        subjects: Whether the file lists only subjects.
    """

    said: str
    keys: frozenset
    subjects: bool


def _by_name(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return samples by the name used in a list: all samples of a subject, or a single one."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found[str(sample.key)] = [sample]
    for sample in samples:
        if sample.key.subject:
            found.setdefault(sample.key.subject, []).append(sample)
    return found


def _read(path: Path, known: Mapping[str, Sequence[Sample]]) -> _Listed:
    """Read a list.

    Raises:
        DataError: If the file cannot be read, is empty, or contains an unknown name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot read the list: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot read the list: it is not text") from error
    names = sorted({each.key.subject for members in known.values() for each in members} - {""})
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1)}
    lines = {number: match(line, names) or line for number, line in lines.items() if line and not line.startswith("#")}
    if not lines:
        raise DataError(f"{path}: lists neither subjects nor samples")
    unknown = [
        f"line {number}: no subject or sample {line!r}; " + did_you_mean(line, known if "," in line else names)
        for number, line in lines.items()
        if line not in known
    ]
    if unknown:
        more = f"\n  and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise DataError(f"{path}:\n  " + "\n  ".join(unknown[:SHOWN]) + more)
    keys = frozenset(each.key for line in lines.values() for each in known[line])
    subjects = [line for line in dict.fromkeys(lines.values()) if line in names]
    single = len(set(lines.values())) - len(subjects)
    parts = [f"subjects {listed(subjects)}"] if subjects else []
    parts += [f"{single} sample{'s' * (single > 1)}"] if single else []
    return _Listed(f"{' and '.join(parts)} ({path.name})", keys, not single)


def _last_subjects(train: Sequence[Sample], count: int) -> list[str]:
    subjects = list(dict.fromkeys(each.key.subject for each in train))
    if not 0 < count < len(subjects) or "" in subjects:
        raise DataError(f"cannot hold out {count} of {len(subjects)} training subjects ({listed(subjects)}) for validation")
    return subjects[-count:]
