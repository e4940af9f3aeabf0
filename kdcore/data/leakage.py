"""The leakage audit: finds samples and subjects that occur both in a training split and in the test split."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import combinations

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.protocol import Splits

_FRACTION = re.compile(r"(?<![\w.])(-?\d+)\.0+(?![\w.])")
"""Whole numbers as tables write them: ``1.0``."""

_TOKEN = re.compile(r"(?<!\w)-\d+|\d+|[^\W\d_]+|[^\w\s-]")


def audit(splits: Splits) -> list[str]:
    """Describe the leaks between splits that keys show; empty if there are none.

    No recording may be in two splits. For the fields that the protocol declares disjoint, no value may be in both a training
    split and the test split, even if spelled differently, such as ``1`` and ``01``.
    """
    leaks = []
    keys = {split: {sample.key for sample in members} for split, members in splits.samples.items()}
    for first, second in combinations(keys, 2):
        leaks += [f"{key} is in both {first} and {second}" for key in sorted(keys[first] & keys[second])[:5]]
    for split, samples in splits.samples.items():
        for field in splits.disjoint if split != "test" else ():
            here = {getattr(sample.key, field) for sample in samples}
            tested = {getattr(sample.key, field) for sample in splits.samples.get("test", ())}
            leaks += [f"{field} {value} is in both {split} and test" for value in sorted(here & tested)]
            for one, *others in similar_names([*sorted(here - tested), *sorted(tested - here)]):
                alike = [other for other in others if (one in here) != (other in here)]
                leaks += [f"{field} {one!r} of {split} and {other!r} of test are nearly the same name" for other in alike[:1]]
    return leaks


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ only in case, spaces, ``-``, ``_``, zeros (``1``, ``01``, ``1.0``) or Unicode form.

    ``True`` is equal to 1, and ``False`` to 0.
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(_plain(name), []).append(name)
    return [tuple(group) for plain, group in groups.items() if plain and len(group) > 1]


def _plain(name: str) -> str:
    """The name without what people write differently from file to file."""
    name = unicodedata.normalize("NFKC", name).casefold()
    name = "".join(each for each in name if unicodedata.category(each) != "Cf")  # zero-width characters and their like
    name = {"true": "1", "false": "0"}.get(name.strip(), name)
    tokens = _TOKEN.findall(_FRACTION.sub(r"\1", name))
    return "".join(f"|{int(token)}|" if token.lstrip("-").isdecimal() else token for token in tokens)


def equal_contents(
    samples: Iterable[Sample], contents: Mapping[str, Mapping[SampleKey, str]]
) -> list[tuple[str, tuple[Sample, ...]]]:
    """(modality, samples) of each group of equal recordings.

    Samples with the same source count as one: the dataset shares the recording on purpose.

    Args:
        samples: Samples to compare.
        contents: Modality → sample → hash of the recorded values; without recordings that are too simple to compare.
    """
    found = []
    for modality, hashes in contents.items():
        groups: dict[str, list[Sample]] = {}
        for sample in samples:
            if content := hashes.get(sample.key):
                groups.setdefault(content, []).append(sample)
        for group in groups.values():
            distinct = [each for n, each in enumerate(group) if not _shares(each, group[:n], modality)]
            if len(distinct) > 1:
                found.append((modality, tuple(group)))
    return found


def _shares(sample: Sample, others: list[Sample], modality: str) -> bool:
    return any(_same_source(sample, other, modality) for other in others)


def _same_source(one: Sample, other: Sample, modality: str) -> bool:
    mine, theirs = one.sources[modality], other.sources[modality]
    if isinstance(mine, str | int | float) or type(mine) is not type(theirs):
        return False  # such a source may be the same for all samples
    try:
        return bool(mine == theirs)
    except ValueError:  # arrays compare element by element
        return False


def content_leaks(splits: Splits, contents: Mapping[str, Mapping[SampleKey, str]]) -> tuple[list[str], list[str]]:
    """Recordings with equal values in several splits: those that leak into the test split, and all other copies."""
    leaks, copies = [], []
    if not any(contents.values()):
        return leaks, copies
    split_of = splits.split_of
    for modality, group in equal_contents([sample for members in splits.samples.values() for sample in members], contents):
        said = " and ".join(f"{sample.key} ({split_of[sample.key]})" for sample in group[:3])
        line = f"the {modality} of {said}{f' and {len(group) - 3} more' if len(group) > 3 else ''} is the same, value by value"
        places = {split_of[sample.key] for sample in group}
        (leaks if "test" in places and len(places) > 1 else copies).append(line)
    return leaks, copies
