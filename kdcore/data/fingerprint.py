"""Fingerprints of datasets: hashes of the content of all sources of samples."""

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
"""Dataset options with the location of recordings, which is not part of their content."""

_PLAIN = frozenset((type(None), bool, int, float, complex, bytes))
"""Types whose `repr` identifies the value; so does that of enumerations."""

_SETTLED = 2_000_000_000
"""Time after which another change of a file is certain to change its modification time, in nanoseconds."""


SMALL = 1 << 20
"""Size in bytes below which a file is read in one call."""


class UnidentifiedError(Exception):
    """Raised if kdcore cannot identify the content of a sample's source. The message names it."""


class Hashes:
    """Content hashes of files and folders, cached on disk between runs.

    A file is hashed again if its size, time stamps or inode have changed. A hash computed within two seconds of the last change
    of a file is not cached, because another change might keep the same time stamp.

    Args:
        memory: JSON file with the cached hashes; a damaged file counts as empty.
    """

    def __init__(self, memory: Path):
        self.memory = memory
        self._known: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            stored = json.loads(memory.read_text())
            self._known = stored if isinstance(stored, dict) else {}
        self._seen: dict[str, str] = {}
        self._new: dict[str, Any] = {}

    def of(self, path: Path, name: str = "") -> str:
        """Return the hash of a file or folder, or ``unreadable``; the error is reported when the recording is read.

        Args:
            path: The file or folder.
            name: Its absolute path, if it is known.
        """
        name = name or os.path.abspath(path)
        if name not in self._seen:
            self._seen[name] = self._hash(path, name)
        return self._seen[name]

    def save(self) -> None:
        """Write new hashes to disk for the next run."""
        if not self._new:
            return
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        part = self.memory.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({**self._known, **self._new}))
        part.replace(self.memory)

    def _hash(self, path: Path, name: str) -> str:
        try:
            status = os.stat(name)
            if stat.S_ISDIR(status.st_mode):
                return self._folder(path)
            if not stat.S_ISREG(status.st_mode):
                return "unreadable"  # opening a pipe or device may block forever
            stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            cached = self._known.get(name)
            if isinstance(cached, list) and cached[:1] == [stamp]:
                return str(cached[1])
            with open(path, "rb", buffering=0) as file:
                small = status.st_size < SMALL  # one read call is faster than a buffer
                hashed = hashlib.sha256(file.readall()) if small else hashlib.file_digest(file, "sha256")
                digest = hashed.hexdigest()[:32]
        except OSError:
            return "unreadable"
        if time.time_ns() - status.st_mtime_ns > _SETTLED:
            self._new[name] = [stamp, digest]
        return digest

    def _folder(self, folder: Path) -> str:
        digest = hashlib.sha256()
        for path in sorted(_files_below(folder, set())):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{self.of(path)}\0".encode())
        return digest.hexdigest()[:32]


def _files_below(folder: Path, above: set[str]) -> Iterator[Path]:
    """Yield files at any depth. Symbolic links are followed, except to a parent folder."""
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
    """Return a fingerprint of a dataset's content, which changes if any recording or the way it is read changes.

    Sources are hashed recursively through tuples, lists, mappings and dataclasses. Files and folders are identified by their
    content, and so is text that is a path, absolute or relative to the dataset's root. If a source names no file, everything
    at the dataset's `PLACES` is hashed.

    Args:
        dataset: Dataset, identified by type, version and classes.
        samples: Samples that are used.
        options: Options of the dataset. The location of the recordings is ignored.
        hashes: Content hashes of files.

    Returns:
        16 hexadecimal digits.

    Raises:
        UnidentifiedError: If a source contains an object of an unsupported type.
    """
    places = [Path(os.path.expanduser(str(options[name]))) for name in PLACES if options.get(name)]
    names, without_files = _files(samples, places)
    root = _common(names)
    texts: dict[str, str] = {}

    def content(source: object) -> str:
        if type(source) in _PLAIN:
            return repr(source)
        if not isinstance(source, Path):
            return _content(source, places, root, hashes)
        name = str(source)
        if name not in texts:  # modalities may share a file
            texts[name] = _content(source, places, root, hashes)
        return texts[name]

    digest = hashlib.sha256(json.dumps([type(dataset).__name__, dataset.version, list(dataset.classes)]).encode())
    content_options = {name: value for name, value in options.items() if name not in PLACES}
    digest.update(json.dumps(content_options, sort_keys=True, default=str).encode())
    for named in sorted({path for path in _paths(content_options, places) if path.is_file()}):
        digest.update(f"|option {hashes.of(named)}".encode())  # such as a calibration
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
    for place in places if without_files else ():
        digest.update(f"|{hashes.of(place)}".encode())
    hashes.save()
    return digest.hexdigest()[:16]


def _files(samples: Sequence[Sample], places: Sequence[Path]) -> tuple[set[str], bool]:
    """Return the files that the sources of `samples` name, and True if a source names none."""
    names, without_files = set[str](), False
    for sample in samples:
        for source in sample.sources.values():
            if isinstance(source, Path):  # as most sources are
                names.add(str(source))
            else:
                paths = [*_paths(source, places)]
                names.update(map(str, paths))
                without_files = without_files or not paths
    return names, without_files


def _common(paths: Iterable[str]) -> str:
    with suppress(ValueError):  # no paths, or paths on different drives
        return os.path.commonpath(set(map(os.path.abspath, set(map(os.path.dirname, paths)))))
    return ""


def _paths(source: object, places: Sequence[Path]) -> Iterator[Path]:
    """Yield all files and folders that a source names."""
    if type(source) in _PLAIN:
        return
    if isinstance(source, str | os.PathLike):
        named = _resolve_path(source, places)
        if named is not None:
            yield named
    else:
        for part in _parts(source) or ():
            yield from _paths(part, places)


def _resolve_path(source: str | os.PathLike[Any], places: Sequence[Path]) -> Path | None:
    """Return the file or folder that a path or text names, or None if text names nothing that exists."""
    if not isinstance(source, str):
        return source if isinstance(source, Path) else Path(os.fsdecode(source))
    if not source or "\0" in source or len(source) > 4096:
        return None
    source = os.path.expanduser(source)
    with suppress(OSError):
        for candidate in [*([Path(source)] if os.path.isabs(source) else []), *(place / source for place in places)]:
            if candidate.exists():
                return candidate
    return None


def _parts(source: object) -> list[object] | None:
    """Return the members of a container, or None for other objects."""
    if is_dataclass(source) and not isinstance(source, type):
        return [getattr(source, field.name) for field in fields(source)]
    if isinstance(source, Mapping):
        return [*source.keys(), *source.values()]
    return list(source) if isinstance(source, list | tuple | set | frozenset) else None


def _relative(root: str, absolute: str) -> str:
    relative = absolute[len(root) + 1 :] if absolute.startswith(root + os.sep) else os.path.relpath(absolute, root)
    return relative.replace(os.sep, "/")


def _content(source: object, places: Sequence[Path], root: str, hashes: Hashes) -> str:
    """Return text that identifies the content of a source."""

    def inner(value: object) -> str:
        return _content(value, places, root, hashes)

    if isinstance(source, str | os.PathLike):
        path = _resolve_path(source, places)
        if path is None:
            return repr(source)
        name = os.path.abspath(path)
        return f"{_relative(root, name) if root else path.name}={hashes.of(path, name)}"
    if type(source) in _PLAIN or isinstance(source, Enum):
        return repr(source)
    if isinstance(source, np.ndarray | np.generic) and source.dtype.kind != "O":
        array = np.ascontiguousarray(source)
        return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()[:32]}"
    if is_dataclass(source) and not isinstance(source, type):
        items = [f"{field.name}={inner(getattr(source, field.name))}" for field in fields(source)]
    elif isinstance(source, Mapping):
        items = sorted(f"{inner(key)}: {inner(value)}" for key, value in source.items())
    elif isinstance(source, set | frozenset):
        items = sorted(map(inner, source))
    elif isinstance(source, list | tuple):
        items = [inner(value) for value in source]
    else:
        raise UnidentifiedError(f"of the type {type(source).__name__}, whose content kdcore cannot identify")
    return f"{type(source).__name__}({', '.join(items)})"
