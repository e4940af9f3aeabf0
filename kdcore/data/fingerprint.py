"""Fingerprints of datasets: hashes of all content that the sources of samples name."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample

PLACES = ("root", "file")
"""Options of datasets that say where recordings lie, which is not what they are."""

_PLAIN = frozenset((type(None), bool, int, float, complex, bytes))
"""Types whose `repr` is their content."""

_SETTLED = 2_000_000_000
"""Nanoseconds after which a file that changes again certainly gets another time of change."""


SMALL = 1 << 20
"""Bytes below which a file is read at once."""


class UnidentifiedError(Exception):
    """A sample's source whose content kdcore cannot identify; the message says which."""


class Hashes:
    """Hashes of files and folders by content, remembered from run to run.

    A file is hashed again when its size, times of change or inode differ from those remembered. A hash made within two seconds
    of the file's last change is not remembered: the next change might leave no trace in these.

    Args:
        memory: File that keeps them; a damaged one counts as empty.
    """

    def __init__(self, memory: Path):
        self.memory = memory
        self._known: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            known = json.loads(memory.read_text())
            self._known = known if isinstance(known, dict) else {}
        self._seen: dict[str, str] = {}
        self._new: dict[str, Any] = {}

    def of(self, path: Path) -> str:
        """The hash of a file, or of all that lies below a folder; ``unreadable`` where reading fails, which the reader says."""
        name = os.path.abspath(path)
        if name not in self._seen:
            self._seen[name] = self._hash(path, name)
        return self._seen[name]

    def save(self) -> None:
        """Keep what was hashed for the next run."""
        if not self._new:
            return
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        part = self.memory.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({**self._known, **self._new}))
        part.replace(self.memory)

    def _hash(self, path: Path, name: str) -> str:
        try:
            found = os.stat(name)
            if stat.S_ISDIR(found.st_mode):
                return self._folder(path)
            if not stat.S_ISREG(found.st_mode):
                return "unreadable"  # opening a pipe or a device may never return
            stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
            known = self._known.get(name)
            if isinstance(known, list) and known[:1] == [stamp]:
                return str(known[1])
            with open(path, "rb", buffering=0) as file:
                small = found.st_size < SMALL  # whose bytes need no buffer of their own
                hashed = hashlib.sha256(file.readall()) if small else hashlib.file_digest(file, "sha256")
                digest = hashed.hexdigest()[:32]
        except OSError:
            return "unreadable"
        if time.time_ns() - found.st_mtime_ns > _SETTLED:
            self._new[name] = [stamp, digest]
        return digest

    def _folder(self, folder: Path) -> str:
        digest = hashlib.sha256()
        for path in sorted(_files_below(folder, set())):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{self.of(path)}\0".encode())
        return digest.hexdigest()[:32]


def _files_below(folder: Path, above: set[str]) -> Iterator[Path]:
    """Files at any depth, through links, but not around in circles."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        inside = list(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if path.is_dir():
            yield from _files_below(path, above | {real})
        else:
            yield path


def fingerprint(dataset: Dataset, samples: Sequence[Sample], options: Mapping[str, Any], hashes: Hashes) -> str:
    """Identity of a dataset's content: hex digits that change when any recording used, or how it is read, does.

    Everything that a source is made of enters: files and folders by their content, wherever in tuples, lists, mappings and
    dataclasses they stand; text that names a file, as such or below the dataset's root, as the file does. Where a sample's
    sources name no file at all, all that lies at the dataset's `PLACES` enters.

    Args:
        dataset: It gives its name, version and classes.
        samples: Those used.
        options: The dataset's options; where the recordings lie does not count.
        hashes: Of files, with those of earlier runs.

    Raises:
        UnidentifiedError: If a source holds an object of a kind that has no known content.
    """
    places = [Path(os.path.expanduser(str(options[name]))) for name in PLACES if options.get(name)]
    names, nameless = set(), False
    for sample in samples:
        for source in sample.sources.values():
            found = [source] if isinstance(source, Path) else [*_paths(source, places)]
            names.update(map(os.fspath, found))
            nameless = nameless or not found
    root = _common(names)
    texts: dict[str, str] = {}

    def content(source: object) -> str:
        if type(source) in _PLAIN:
            return repr(source)
        if not isinstance(source, Path):
            return _content(source, places, root, hashes)
        name = os.fspath(source)
        if name not in texts:  # several modalities may share a file
            texts[name] = _content(source, places, root, hashes)
        return texts[name]

    digest = hashlib.sha256(json.dumps([type(dataset).__name__, dataset.version, list(dataset.classes)]).encode())
    told = {name: value for name, value in options.items() if name not in PLACES}
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    for sample in samples:
        digest.update(f"{sample.key}|{sample.label}".encode())
        if sample.target is not None or sample.weight != 1.0:
            digest.update(f"|target {sample.target}|weight {sample.weight}".encode())
        for modality, source in sorted(sample.sources.items()):
            try:
                text = content(source)
            except UnidentifiedError as error:
                raise UnidentifiedError(f"{sample.key}: its {modality} is {error}") from None
            digest.update(f"|{modality}|{text}".encode())
    for place in places if nameless else ():
        digest.update(f"|{hashes.of(place)}".encode())
    hashes.save()
    return digest.hexdigest()[:16]


def _common(paths: Iterable[str]) -> str:
    with suppress(ValueError):  # none, or on different drives
        return os.path.commonpath({os.path.dirname(os.path.abspath(path)) for path in paths})
    return ""


def _paths(source: object, places: Sequence[Path]) -> Iterator[Path]:
    """Every file or folder that a source names."""
    if type(source) in _PLAIN:
        return
    if isinstance(source, str | os.PathLike):
        named = _named(source, places)
        if named is not None:
            yield named
    else:
        for part in _parts(source) or ():
            yield from _paths(part, places)


def _named(source: str | os.PathLike[Any], places: Sequence[Path]) -> Path | None:
    """The file or folder that a path or text names; None for text that names nothing."""
    if not isinstance(source, str):
        return source if isinstance(source, Path) else Path(os.fsdecode(source))
    if not source or "\0" in source or len(source) > 4096:
        return None
    with suppress(OSError):
        for candidate in [*([Path(source)] if os.path.isabs(source) else []), *(place / source for place in places)]:
            if candidate.exists():
                return candidate
    return None


def _parts(source: object) -> list[object] | None:
    """The members of a container; None if it is not one."""
    if is_dataclass(source) and not isinstance(source, type):
        return [getattr(source, field.name) for field in fields(source)]
    if isinstance(source, Mapping):
        return [*source.keys(), *source.values()]
    return list(source) if isinstance(source, list | tuple | set | frozenset) else None


def _below(root: str, path: Path) -> str:
    """The way from `root` to `path`, with slashes."""
    whole = os.path.abspath(path)
    way = whole[len(root) + 1 :] if whole.startswith(root + os.sep) else os.path.relpath(whole, root)
    return way.replace(os.sep, "/")


def _content(source: object, places: Sequence[Path], root: str, hashes: Hashes) -> str:
    """Text that is different for different content."""

    def inner(value: object) -> str:
        return _content(value, places, root, hashes)

    if isinstance(source, str | os.PathLike):
        path = _named(source, places)
        if path is None:
            return repr(source)
        return f"{_below(root, path) if root else path.name}={hashes.of(path)}"
    if isinstance(source, Enum):
        return repr(source)
    if type(source) in _PLAIN:
        return repr(source)
    if isinstance(source, np.ndarray | np.generic) and source.dtype.kind != "O":
        array = np.ascontiguousarray(source)
        return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()[:32]}"
    if is_dataclass(source) and not isinstance(source, type):
        said = [f"{field.name}={inner(getattr(source, field.name))}" for field in fields(source)]
    elif isinstance(source, Mapping):
        said = sorted(f"{inner(key)}: {inner(value)}" for key, value in source.items())
    elif isinstance(source, set | frozenset):
        said = sorted(map(inner, source))
    elif isinstance(source, list | tuple):
        said = [inner(value) for value in source]
    else:
        raise UnidentifiedError(f"of the type {type(source).__name__}, whose content kdcore cannot identify")
    return f"{type(source).__name__}({', '.join(said)})"
