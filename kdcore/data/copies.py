"""Search for copies among prepared recordings; its findings are stored with the prepared data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from kdcore.contracts.dataset import Sample
from kdcore.contracts.leakage_check import LeakageCheck
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits
from kdcore.data import leakage
from kdcore.data.data_cache import Column, unfinished
from kdcore.data.dropped import listed
from kdcore.errors import SplitError
from kdcore.plugin.code_files import package_home, source_hash

Read = Callable[[Sample, str], Signal]
Searched = Sequence[tuple[str, Column]]
"""Modalities with their columns, in the order in which they are searched."""

Findings = tuple[list[str], list[str]]
"""Messages on equal recordings that are no leak, and on possible leaks."""


def copy_warnings(splits: Splits, columns: Searched, checks: Sequence[LeakageCheck], read: Read) -> list[str]:
    """Return warnings about recordings that occur more than once, and about possible leaks.

    If the same splits of the same recordings were searched before, the findings are read from disk.

    Args:
        splits: The splits.
        columns: The prepared recordings.
        checks: Leakage checks.
        read: ``read(sample, modality)`` reads a recording.

    Raises:
        SplitError: If a test recording is certainly in another split.
    """
    file = _findings_file(splits, columns, checks)
    found = _stored(file) if file else None
    if found is None:
        found, complete = _search(splits, columns, checks, read)
        if file and complete:
            _store(file, found)
    copies, possible = found
    repeats = [listed(f"recordings that occur more than once: {len(copies)}", copies)] if copies else []
    return [*repeats, *possible]


def _search(splits: Splits, columns: Searched, checks: Sequence[LeakageCheck], read: Read) -> tuple[Findings, bool]:
    """Return the findings, and whether all recordings that the checks requested could be read."""
    failed = []

    def read_or_note(sample: Sample, modality: str) -> Signal:
        try:
            return read(sample, modality)
        except Exception as error:
            failed.append(error)
            raise

    audit = leakage.RecordingAudit(checks, read_or_note)
    for modality, column in columns:
        for number, sample in enumerate(column.samples):
            summaries = {name: texts[number] for name, texts in column.summaries.items()}
            audit.add_summarised(sample.key, modality, column.contents[number], summaries)
    leaks, copies = audit.leaks(splits)
    if leaks:
        raise SplitError(listed("the splits leak", leaks))
    return (copies, audit.possible_leaks(splits)), not failed


def _findings_file(splits: Splits, columns: Searched, checks: Sequence[LeakageCheck]) -> Path | None:
    """Return the file of the findings, in the folder of the first column; None if the recordings or a check are unidentified.

    Its name is a hash of the splits, the code of the search, and the columns' names, which contain the code of the checks.
    """
    folders = [(modality, column.folder) for modality, column in columns if column.folder]
    if len(folders) < len(columns) or not all(package_home(type(check).__module__) for check in checks):
        return None
    members = [(split, [str(sample.key) for sample in samples]) for split, samples in splits.samples.items()]
    kinds = [(check.name, check.certain, type(check).__qualname__) for check in checks]
    names = [(modality, folder.name) for modality, folder in folders]
    parts = [source_hash(Path(leakage.__file__)), members, kinds, names]
    identity = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
    return folders[0][1] / f"findings-{identity}.json"


def _stored(file: Path) -> Findings | None:
    """Return stored findings; None if they are missing or damaged."""
    with suppress(OSError, ValueError):
        digest, _, text = file.read_text().partition("\n")
        if digest == _digest(text):
            copies, possible = json.loads(text)
            return copies, possible
    return None


def _store(file: Path, found: Findings) -> None:
    text = json.dumps(found)
    part = unfinished(file.parent.with_name(file.name))  # outside of the column, which another process may remove
    with suppress(OSError):  # without the file, the next start searches again
        part.write_text(f"{_digest(text)}\n{text}")
        part.replace(file)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
