"""Cache of prepared data: one tensor per modality and chain of transforms, stored on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.leakage_check import LeakageCheck
from kdcore.data.branch import Branch
from kdcore.data.mapped import opened
from kdcore.data.reading import Reader, Recording
from kdcore.data.reading_processes import prepared
from kdcore.data.windows import Cutting
from kdcore.errors import DataError
from kdcore.plugin.code_files import code_hash, source_hash
from kdcore.recipe.data_models import as_bytes
from kdcore.user_warnings import warn

FORMAT = 10
"""Version of the files and of the code that prepares data; increment it to have all data prepared again."""

UNFINISHED = ".part"
"""Suffix of a column that is not finished, or that must not be kept."""

LIMIT = "KDCORE_CACHE_LIMIT"
"""Environment variable with the largest size of prepared data on disk, such as ``20GiB``; unlimited by default."""

FORGOTTEN = 24 * 3600
"""Seconds after which an unfinished column of another machine counts as abandoned."""

KEYS = {"recorded", "windows", "bad", "contents", "summaries", "rates", "gaps", "shape", "dtype", "sha256"}
"""Keys of a column's ``column.json``."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Column:
    """The prepared signals of one modality, for all readable samples.

    Args:
        samples: The requested samples.
        recorded: (N,) index into `samples` of each row, in ascending order.
        windows: (N,) index of each row's window in its recording; 0 for whole recordings.
        values: (N, …) in the modality's layout.
        bad: Index of a sample → what is wrong with its recording.
        contents: Hash of each recording, to find copies; empty for constant and very short ones.
        summaries: Leakage check → summary of each recording; empty where `contents` are.
        rates: Sampling rate of each recording in Hz, derived from its clock; 0 for a bad one.
        gaps: Longest time between two samples of each recording divided by the median time.
        folder: Its folder on disk; None if it is not kept.
    """

    samples: Sequence[Sample]
    recorded: NDArray[np.int64]
    windows: NDArray[np.int64]
    values: Tensor
    bad: Mapping[int, str]
    contents: Sequence[str]
    summaries: Mapping[str, Sequence[str]]
    rates: Sequence[float]
    gaps: Sequence[float]
    folder: Path | None = None


class ColumnCache:
    """A folder of columns, each stored under a hash of everything that determines its content.

    Args:
        folder: The cache folder.
        memory_limit: Size in bytes above which a column is memory-mapped instead of loaded.
        checks: Leakage checks for which recordings are summarised.
    """

    def __init__(self, folder: Path, memory_limit: int, checks: Sequence[LeakageCheck] = ()):
        self.folder, self.memory_limit, self.checks = folder, memory_limit, checks
        remove_abandoned(folder)

    def columns(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        branches: Iterable[Branch],
        fingerprint: str | None,
        cutting: Cutting | None,
        progress: Progress,
    ) -> dict[tuple[str, str], Column]:
        """Load columns from disk, and prepare missing ones in one pass over the recordings.

        Args:
            dataset: The dataset.
            samples: All samples. A column has those with its modality.
            branches: Branches to load; those with the same key share a column.
            fingerprint: Hash of the recordings; None if unknown: then nothing is cached.
            cutting: Windows to cut; None for whole recordings.
            progress: Progress callback, called with (done, total, what).

        Returns:
            Columns by the keys of the branches.

        Raises:
            DataError: If the samples of a branch differ in shape or the disk is full.
        """
        distinct = {branch.key: branch for branch in branches}
        members = {key: [each for each in samples if branch.modality.name in each.sources] for key, branch in distinct.items()}
        code_of = cache(_code)  # once per class, for as long as this call lasts: code may be edited between two
        entries = {
            key: self._entry(fingerprint, dataset, branch, cutting, members[key], code_of) for key, branch in distinct.items()
        }
        try:
            missing = {entry: distinct[key] for key, entry in entries.items() if _head(entry) is None}
            for entry in missing:
                if entry.exists():
                    warn(f"prepared data in {entry} are damaged; rebuilding them")
                    shutil.rmtree(entry)
            if missing:
                self._make(missing, dataset, samples, cutting, progress)
                self._make_room([*entries.values()])
            columns = {key: self._open(entry, members[key]) for key, entry in entries.items()}
            for entry in entries.values():
                os.utime(entry)  # when it was last used
            return columns
        finally:
            for entry in (each for each in entries.values() if each.suffix == UNFINISHED and each.exists()):
                shutil.rmtree(entry)  # a mapped file exists until its tensor is deleted

    def _entry(
        self,
        fingerprint: str | None,
        dataset: Dataset,
        branch: Branch,
        cutting: Cutting | None,
        samples: Sequence[Sample],
        code_of: Callable[[type], str],
    ) -> Path:
        """Return the folder of a column; for one that must not be kept, a new folder that counts as unfinished."""
        unknown = [type(each).__name__ for each in (dataset, *branch.on_samples) if not code_of(type(each))]
        if fingerprint is not None and unknown:
            warn(f"prepared data are not cached: the source file of the class {unknown[0]!r} is unknown")
        if fingerprint is None or unknown:
            return self.folder / f"{branch.modality.name}-{uuid4().hex}.{_writer()}{UNFINISHED}"
        code = [code_of(type(each)) for each in (dataset, *branch.on_samples, *self.checks)]
        return self.folder / identity(fingerprint, branch, cutting, samples, code)

    def _make_room(self, used: Sequence[Path]) -> None:
        """Remove the least recently used columns until the folder keeps its limit, except those in use."""
        if not os.environ.get(LIMIT):
            return
        try:
            limit = as_bytes(os.environ[LIMIT])
        except ValueError as error:
            raise DataError(f"{LIMIT}: {error}") from error
        columns = sorted(columns_in(self.folder), key=lambda path: path.stat().st_mtime)
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in columns}
        for path in columns:
            if sum(sizes.values()) > limit and path not in used:
                shutil.rmtree(path)
                del sizes[path]

    def _make(
        self,
        missing: Mapping[Path, Branch],
        dataset: Dataset,
        samples: Sequence[Sample],
        cutting: Cutting | None,
        progress: Progress,
    ) -> None:
        """Read every sample once, for all columns that have it."""
        branches = [*missing.values()]
        reader = Reader(dataset, branches, cutting, self.checks)
        wanted = ([n for n, branch in enumerate(branches) if branch.modality.name in each.sources] for each in samples)
        tasks = [(sample, indices) for sample, indices in zip(samples, wanted, strict=True) if indices]
        what = ", ".join(dict.fromkeys(branch.modality.name for branch in branches))
        with ExitStack() as stack:
            try:
                building = [stack.enter_context(closing(_Building(*each, self.checks))) for each in missing.items()]
                with closing(prepared(reader, tasks)) as recordings:
                    for done, ((sample, indices), each) in enumerate(zip(tasks, recordings, strict=True)):
                        progress(done, len(tasks), what)
                        for index, recording in zip(indices, each, strict=True):
                            building[index].add(sample, recording)
                for each in building:
                    each.finish()
            except OSError as error:
                raise DataError(f"could not write prepared data to {self.folder}: {error.strerror or error}") from error
        progress(len(tasks), len(tasks), what)

    def _open(self, entry: Path, samples: Sequence[Sample]) -> Column:
        head = _head(entry)
        if head is None:
            raise DataError(f"prepared data in {entry} were removed or damaged while they were read")
        recorded = np.array(head["recorded"], np.int64)
        shape, dtype = tuple(head["shape"]), np.dtype(head["dtype"]) if len(recorded) else np.dtype("float32")
        path = entry / "values.bin"
        if len(recorded) and int(np.prod(shape)) * dtype.itemsize > self.memory_limit:
            values = opened(path, shape, dtype)
        else:
            values = torch.from_numpy(np.fromfile(path, dtype).reshape(shape))
        bad = {int(number): text for number, text in head["bad"]}
        windows = np.array(head["windows"], np.int64)
        facts = (head[name] for name in ("contents", "summaries", "rates", "gaps"))
        folder = None if entry.suffix == UNFINISHED else entry
        return Column(samples, recorded, windows, values, bad, *facts, folder=folder)


class _Building:
    """A column that is being written, in a temporary folder.

    Args:
        entry: Folder of the finished column.
        branch: Modality and transforms.
        checks: Leakage checks for which recordings are summarised.
    """

    def __init__(self, entry: Path, branch: Branch, checks: Sequence[LeakageCheck]):
        self.entry, self.branch = entry, branch
        self.folder = unfinished(entry)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = open(self.folder / "values.bin", "wb")  # noqa: SIM115  # closed by `close`
        self.shape: tuple[int, ...] | None = None
        self.dtype: np.dtype | None = None
        self.rows = self.samples = 0
        self.head: dict[str, Any] = {name: [] for name in ("recorded", "windows", "bad", "contents", "rates", "gaps")}
        self.head["summaries"] = {check.name: [] for check in checks}

    def add(self, sample: Sample, recording: Recording) -> None:
        """Append the pieces of the next sample.

        Raises:
            DataError: If their shape differs from that of earlier pieces.
        """
        if recording.bad:
            self.head["bad"].append((self.samples, recording.bad))
        self.head["contents"].append(recording.content)
        for name, texts in self.head["summaries"].items():
            texts.append(recording.summaries.get(name, ""))
        self.head["rates"].append(recording.rate)
        self.head["gaps"].append(recording.gap)
        for window, array in enumerate(recording.pieces):
            self.shape, self.dtype = self.shape or array.shape, self.dtype or array.dtype
            if array.shape != self.shape:
                raise DataError(_unequal(self.branch, self.shape, array.shape, replace(sample.key, window=window)))
            self.file.write(np.ascontiguousarray(array, dtype=self.dtype).tobytes())
            self.head["recorded"].append(self.samples)
            self.head["windows"].append(window)
            self.rows += 1
        self.samples += 1

    def finish(self) -> None:
        """Move the column to its final folder, durably; another process may have finished the same column first."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.head |= {"shape": [self.rows, *(self.shape or ())], "dtype": str(self.dtype)}
        self.head["sha256"] = _digest(self.folder / "values.bin")
        (self.folder / "column.json").write_text(json.dumps(self.head))
        try:
            self.folder.replace(self.entry)
        except OSError:
            if _head(self.entry) is None:
                raise

    def close(self) -> None:
        """Remove the temporary folder, if the column is unfinished."""
        self.file.close()
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _unequal(branch: Branch, shape: tuple[int, ...], other: tuple[int, ...], key: SampleKey) -> str:
    return (
        f"{branch.modality.name}: samples differ in shape ({shape} and, for {key}, {other}); end its transforms "
        "with one that gives every sample the same length, such as resample, or cut windows (data.window)"
    )


def _head(entry: Path) -> dict[str, Any] | None:
    """Read the description of a column; None if it is missing or incomplete, for example after a power failure."""
    try:
        head = json.loads((entry / "column.json").read_text())
        rows = len(head["recorded"])
        expected = int(np.prod(head["shape"])) * np.dtype(head["dtype"]).itemsize if rows else 0
        complete = head["shape"][0] == rows == len(head["windows"]) and head.keys() >= KEYS
        return head if complete and (entry / "values.bin").stat().st_size == expected else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def columns_in(folder: Path) -> list[Path]:
    """Return the folders of finished columns in a cache folder, intact or damaged."""
    return sorted(path.parent for path in folder.glob("*/column.json") if path.parent.suffix != UNFINISHED)


def damaged_columns(folder: Path) -> list[Path]:
    """Return the folders of columns whose values, read completely, differ from those that were written."""
    return [
        path for path in columns_in(folder) if (head := _head(path)) is None or head["sha256"] != _digest(path / "values.bin")
    ]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _writer() -> str:
    """Return a name of this process, for its temporary folders."""
    return f"{socket.gethostname()}~{os.getpid()}"


def unfinished(path: Path) -> Path:
    """Return the temporary path of a file or folder that this process writes."""
    return path.with_name(f"{path.name}.{_writer()}{UNFINISHED}")


def remove_abandoned(folder: Path) -> list[Path]:
    """Remove temporary files and folders of killed processes from a cache folder, and return them."""
    abandoned = [path for path in folder.glob(f"*{UNFINISHED}") if _is_abandoned(path)]
    for path in abandoned:
        with suppress(OSError):  # another process may remove it, too
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return abandoned


def _is_abandoned(path: Path) -> bool:
    host, _, pid = path.name.removesuffix(UNFINISHED).rpartition("~")
    with suppress(OSError):
        if pid.isdecimal() and host.endswith(f".{socket.gethostname()}"):
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                return True
            except (OSError, OverflowError):
                return False
            return False
        return time.time() - path.stat().st_mtime > FORGOTTEN
    return False


def identity(fingerprint: str, branch: Branch, cutting: Cutting | None, samples: Sequence[Sample], code: Sequence[str]) -> str:
    """Return the name of a column's folder, which depends on the data, their description, options, and the code.

    Args:
        fingerprint: Hash of the recordings.
        branch: Modality and transforms.
        cutting: Windows to cut; None for whole recordings.
        samples: The samples of the column.
        code: Hashes of the code of the dataset, the transforms and the leakage checks.
    """
    keys = hashlib.sha256("|".join(str(sample.key) for sample in samples).encode()).hexdigest()
    modality = json.dumps(asdict(branch.modality), sort_keys=True, default=str)
    parts = [FORMAT, fingerprint, modality, branch.identity, list(code), str(cutting), keys]
    return f"{branch.modality.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]}"


def _code(cls: type) -> str:
    """Return a hash of the code that a class depends on, which changes when the code is edited; empty if it is unknown."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if cls.__module__.startswith("kdcore.") and file:
        return source_hash(Path(file))  # the rest of kdcore is covered by FORMAT
    return code_hash(cls.__module__)
