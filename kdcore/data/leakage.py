"""The leakage audit: finds subjects and recordings that occur both in a training split and in the test split."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.leakage_check import LeakageCheck
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits
from kdcore.errors import PluginError
from kdcore.plugin.manager import plugin_manager

SHORTEST = 8
"""Minimum number of time steps of recordings that are compared by value."""

NOT_SEARCHED = "recordings were not searched for near copies: no installed plugin has a leakage check; 'inspect' has two"

_FRACTION = re.compile(r"(?<![\w.])(-?\d+)\.0+(?![\w.])")
"""Whole numbers with a decimal point, as tables write them: ``1.0``."""

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
            trained = {getattr(sample.key, field) for sample in samples}
            tested = {getattr(sample.key, field) for sample in splits.samples.get("test", ())}
            leaks += [f"{field} {value} is in both {split} and test" for value in sorted(trained & tested)]
            for one, *others in similar_names([*sorted(trained - tested), *sorted(tested - trained)]):
                alike = [other for other in others if (one in trained) != (other in trained)]
                leaks += [f"{field} {one!r} of {split} and {other!r} of test are nearly the same name" for other in alike[:1]]
    return leaks


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that differ only in case, spaces, ``-``, ``_``, zeros (``1``, ``01``, ``1.0``) or Unicode form.

    ``True`` is equal to 1, and ``False`` to 0.
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(_plain(name), []).append(name)
    return [tuple(group) for plain, group in groups.items() if plain and len(group) > 1]


def _plain(name: str) -> str:
    """Normalise a name: case, spaces, ``-``, ``_``, zeros and Unicode form."""
    name = unicodedata.normalize("NFKC", name).casefold()
    name = "".join(each for each in name if unicodedata.category(each) != "Cf")  # zero-width characters
    name = {"true": "1", "false": "0"}.get(name.strip(), name)
    tokens = _TOKEN.findall(_FRACTION.sub(r"\1", name))
    return "".join(f"|{int(token)}|" if token.lstrip("-").isdecimal() else token for token in tokens)


def leakage_checks() -> list[LeakageCheck]:
    """Return the leakage checks of all plugins.

    Raises:
        PluginError: If two checks have the same name.
    """
    checks = [check for of_plugin in plugin_manager().hook.leakage_checks() for check in of_plugin]
    for one, other in combinations(checks, 2):
        if one.name == other.name:
            first, second = (type(each).__module__ for each in (one, other))
            raise PluginError(f"two leakage checks have the name {one.name!r}: those of {first} and {second}")
    return checks


def content_hash(signal: Signal) -> str:
    """Return a hash of a recording's values; empty if it is constant or shorter than `SHORTEST`."""
    values = np.ascontiguousarray(signal.values)
    if len(values) < SHORTEST or (values == values[:1]).all():
        return ""
    digest = hashlib.sha256(f"{values.dtype}{values.shape}".encode())
    digest.update(values.data if values.dtype.kind in "biufc" else values.tobytes())
    return digest.hexdigest()[:32]


class RecordingAudit:
    """Search for recordings that are in several splits under different keys.

    Args:
        checks: Checks of plugins, which find copies whose values differ.
        read: ``read(sample, modality)`` reads a recording.
    """

    def __init__(self, checks: Sequence[LeakageCheck], read: Callable[[Sample, str], Signal]):
        self._checks, self._read = checks, read
        self._contents: dict[str, dict[SampleKey, str]] = {}
        self._summaries: dict[str, dict[str, dict[SampleKey, str]]] = {check.name: {} for check in checks}

    def add(self, key: SampleKey, modality: str, signal: Signal) -> None:
        """Add a recording to the search."""
        content, summaries = summarise(signal, self._checks)
        self.add_summarised(key, modality, content, summaries)

    def add_summarised(self, key: SampleKey, modality: str, content: str, summaries: Mapping[str, str]) -> None:
        """Add a recording, given its hash and summaries from `summarise`."""
        if content:
            self._contents.setdefault(modality, {})[key] = content
        for name, text in summaries.items():
            if text:
                self._summaries[name].setdefault(modality, {})[key] = text

    def leaks(self, splits: Splits) -> tuple[list[str], list[str]]:
        """Return messages on test recordings that are certainly in another split, and on all other equal recordings."""
        leaks, copies = content_leaks(splits, self._contents)
        return leaks + self._findings(splits, certain=True), copies

    def possible_leaks(self, splits: Splits) -> list[str]:
        """Return messages on test recordings that are probably in another split; without checks, `NOT_SEARCHED`."""
        return self._findings(splits, certain=False) if self._checks else [NOT_SEARCHED]

    def _findings(self, splits: Splits, certain: bool) -> list[str]:
        return [
            line
            for check in self._checks
            if check.certain == certain
            for line in check.findings(splits, self._summaries[check.name], self._contents, self._read)
        ]


def summarise(signal: Signal, checks: Sequence[LeakageCheck]) -> tuple[str, dict[str, str]]:
    """Return the hash of a recording's values and the summary of each check; empty for constant or very short recordings."""
    content = content_hash(signal)
    return content, {check.name: check.summary(signal) for check in checks} if content else {}


def content_leaks(splits: Splits, contents: Mapping[str, Mapping[SampleKey, str]]) -> tuple[list[str], list[str]]:
    """Return messages on test recordings whose values equal those of another split, and on all other equal recordings.

    Samples with the same source count as one: the dataset shares the recording on purpose.

    Args:
        splits: Samples of each split.
        contents: Modality → sample key → hash of the values, without constant and very short recordings.
    """
    leaks, copies = [], []
    split_of = splits.split_of
    for modality, group in _equal_recordings(splits, contents):
        samples = " and ".join(f"{sample.key} ({split_of[sample.key]})" for sample in group[:3])
        more = f" and {len(group) - 3} more" if len(group) > 3 else ""
        line = f"the {modality} of {samples}{more} is the same, value by value"
        places = {split_of[sample.key] for sample in group}
        (leaks if "test" in places and len(places) > 1 else copies).append(line)
    return leaks, copies


def _equal_recordings(
    splits: Splits, contents: Mapping[str, Mapping[SampleKey, str]]
) -> Iterator[tuple[str, Sequence[Sample]]]:
    """Yield (modality, samples) for each group of equal recordings with at least two sources."""
    samples = [sample for members in splits.samples.values() for sample in members]
    for modality, hashes in contents.items():
        if len(set(hashes.values())) == len(hashes):
            continue
        groups: dict[str, list[Sample]] = {}
        for sample in samples:
            if content := hashes.get(sample.key):
                groups.setdefault(content, []).append(sample)
        for group in groups.values():
            if any(not _same_source(group[0], sample, modality) for sample in group[1:]):
                yield modality, group


def _same_source(one: Sample, other: Sample, modality: str) -> bool:
    source, other_source = one.sources[modality], other.sources[modality]
    if isinstance(source, str | int | float) or type(source) is not type(other_source):
        return False  # such a source may be the same for all samples
    try:
        return bool(source == other_source)
    except ValueError:  # arrays compare element by element
        return False
