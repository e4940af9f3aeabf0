"""Cache of prepared data: one modality of every sample as one tensor, read once and kept on disk."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.data.near_copies import sketch
from kdcore.data.outlines import outline
from kdcore.data.pipeline import Branch
from kdcore.data.signal_checks import measured_rate
from kdcore.data.windows import Cutting, WindowError, cut, timed
from kdcore.errors import DataError
from kdcore.recipe.data_models import as_bytes

FORMAT = 9

LIMIT = "KDCORE_CACHE_LIMIT"
"""Environment variable with the most that prepared data may take on disk, such as ``20GiB``; unlimited by default."""

FORGOTTEN = 24 * 3600
"""Seconds after which an unfinished column of another machine counts as abandoned."""

SAID = ("bad", "contents", "sketches", "outlines", "rates")
"""Facts about samples that a column keeps."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Column:
    """One modality of every readable sample.

    Args:
        samples: Those asked for.
        recorded: (N,) position among `samples` of the one that a row was cut from, in ascending order.
        windows: (N,) number of the row's window within its sample, 0 for a whole recording.
        values: (N, …) in the modality's layout.
        bad: Position of a sample → what is wrong with its recording.
        contents: Hash of each sample's recorded values, by which copies are found; empty for constant and very short ones.
        sketches: What near copies of each sample's recording have in common, see `near_copies.sketch`; empty as in `contents`.
        outlines: Each recording's slow movement, see `outlines.outline`; empty as in `contents`.
        rates: Samples per second of each sample's recording, by its clock; 0 for a bad one.
    """

    samples: Sequence[Sample]
    recorded: NDArray[np.int64]
    windows: NDArray[np.int64]
    values: Tensor
    bad: Mapping[int, str]
    contents: Sequence[str]
    sketches: Sequence[str]
    outlines: Sequence[str]
    rates: Sequence[float]

    @property
    def keys(self) -> tuple[SampleKey, ...]:
        """The key of each row, with the number of its window."""
        return window_keys(self.samples, self.recorded, self.windows)


def window_keys(samples: Sequence[Sample], recorded: NDArray[np.int64], windows: NDArray[np.int64]) -> tuple[SampleKey, ...]:
    """The key of each window, given the position of its sample and its number."""
    keys = [samples[number].key for number in recorded.tolist()]
    return tuple(replace(key, window=window) if window else key for key, window in zip(keys, windows.tolist(), strict=True))


class ColumnCache:
    """A folder of columns, each under the identity of all that made it.

    Args:
        folder: Where they are kept.
        memory_limit: Bytes above which a column is memory-mapped instead of loaded.
    """

    def __init__(self, folder: Path, memory_limit: int):
        self.folder = folder
        self.memory_limit = memory_limit
        remove_abandoned(folder)

    def column(
        self,
        dataset: Dataset,
        samples: Sequence[Sample],
        branch: Branch,
        fingerprint: str | None,
        cutting: Cutting | None,
        progress: Progress,
    ) -> Column:
        """The column that `branch` makes of `samples`, from disk if it has been made before.

        Args:
            dataset: Reads the recordings.
            samples: Those wanted.
            branch: Their modality and its transforms.
            fingerprint: Identity of the recordings; None where it is unknown, so that nothing may be kept.
            cutting: Windows, if recordings are cut.
            progress: Told (done, total, what) while recordings are read.

        Raises:
            DataError: If the samples differ in shape or the disk is full.
        """
        if fingerprint is None:
            return self._uncached(dataset, samples, branch, cutting, progress)
        entry = self.folder / identity(fingerprint, dataset, branch, cutting, samples)
        head = _head(entry)
        if head is None:
            if entry.exists():
                warnings.warn(f"prepared data in {entry} are damaged; rebuilding them", stacklevel=2)
            _remove(entry)
            self._make(entry, dataset, samples, branch, cutting, progress)
            self._make_room(entry)
            head = _head(entry)
        os.utime(entry)  # when it was last used
        return self._open(entry, head, samples)

    def _make_room(self, newest: Path) -> None:
        """Remove the columns that were used least recently, but for the newest, until the folder keeps its limit."""
        if not os.environ.get(LIMIT):
            return
        try:
            limit = as_bytes(os.environ[LIMIT])
        except ValueError as error:
            raise DataError(f"{LIMIT}: {error}") from error
        columns = sorted(columns_in(self.folder), key=lambda path: path.stat().st_mtime)
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in columns}
        for path in columns:
            if sum(sizes.values()) > limit and path != newest:
                _remove(path)
                del sizes[path]

    def _uncached(
        self, dataset: Dataset, samples: Sequence[Sample], branch: Branch, cutting: Cutting | None, progress: Progress
    ) -> Column:
        """A column made anew; its files are deleted at once, and what is mapped of them lives as long as the tensor."""
        entry = self.folder / f"{branch.modality.name}-{uuid4().hex}.{_writer()}.part"
        try:
            self._make(entry, dataset, samples, branch, cutting, progress)
            return self._open(entry, _head(entry), samples)
        finally:
            _remove(entry)

    def _make(
        self,
        entry: Path,
        dataset: Dataset,
        samples: Sequence[Sample],
        branch: Branch,
        cutting: Cutting | None,
        progress: Progress,
    ) -> None:
        building = entry.with_name(f"{entry.name}.{_writer()}.part")
        building.mkdir(parents=True, exist_ok=True)
        try:
            with open(building / "values.bin", "wb") as file:
                head = _write_values(file, dataset, samples, branch, cutting, progress)
                file.flush()
                os.fsync(file.fileno())
            head["sha256"] = _digest(building / "values.bin")
            (building / "column.json").write_text(json.dumps(head))
            building.replace(entry)
        except OSError as error:
            if _head(entry) is None:  # another process may have finished the same column first
                raise DataError(f"could not write prepared data to {entry.parent}: {error.strerror or error}") from error
        finally:
            _remove(building)
        progress(len(samples), len(samples), branch.modality.name)

    def _open(self, entry: Path, head: Mapping[str, Any] | None, samples: Sequence[Sample]) -> Column:
        if head is None:
            raise DataError(f"prepared data in {entry} were removed or damaged while they were read")
        recorded = np.array(head["recorded"], np.int64)
        shape, dtype = tuple(head["shape"]), np.dtype(head["dtype"]) if len(recorded) else np.dtype("float32")
        size = int(np.prod(shape)) * dtype.itemsize
        path = entry / "values.bin"
        if not len(recorded):
            array = np.zeros(shape, dtype)
        elif size > self.memory_limit:
            array = np.memmap(path, dtype, "c", shape=shape)  # copy-on-write: torch asks for a writable array
        else:
            array = np.fromfile(path, dtype).reshape(shape)
        bad = {int(number): text for number, text in head["bad"]}
        windows = np.array(head["windows"], np.int64)
        said = (head[name] for name in SAID[1:])
        return Column(samples, recorded, windows, torch.from_numpy(array), bad, *said)


def _write_values(
    file: BinaryIO,
    dataset: Dataset,
    samples: Sequence[Sample],
    branch: Branch,
    cutting: Cutting | None,
    progress: Progress,
) -> dict[str, Any]:
    """Append every readable sample's values to `file`; returns what is to be known to read them again."""
    recorded, windows = list[int](), list[int]()
    bad: list[tuple[int, str]] = []
    said: dict[str, list[Any]] = {name: [""] * len(samples) for name in ("contents", "sketches", "outlines")}
    said["rates"] = [0.0] * len(samples)
    shape, dtype = None, None
    for done, sample in enumerate(samples):
        progress(done, len(samples), branch.modality.name)
        try:
            signal = dataset.read(sample, branch.modality.name)
            pieces = list(_pieces(dataset, sample, signal, branch, cutting))
        except WindowError:
            raise
        except (DataError, ValueError) as error:
            bad.append((done, str(error)))
            continue
        said["rates"][done] = measured_rate(signal)
        if content := content_hash(signal):
            said["contents"][done] = content
            said["sketches"][done], said["outlines"][done] = sketch(signal), outline(signal)
        for window, array in enumerate(pieces):
            shape, dtype = shape or array.shape, dtype or array.dtype
            if array.shape != shape:
                raise DataError(_unequal(branch, shape, array.shape, replace(sample.key, window=window)))
            file.write(np.ascontiguousarray(array, dtype=dtype).tobytes())
            recorded.append(done)
            windows.append(window)
    return {
        "shape": [len(recorded), *(shape or ())],
        "dtype": str(dtype),
        "recorded": recorded,
        "windows": windows,
        "bad": bad,
        **said,
    }


def content_hash(signal: Signal, shortest: int = 8) -> str:
    """Hash of a recording's values; empty for one that is constant or so short that equal ones may be chance."""
    values = np.ascontiguousarray(signal.values)
    if len(values) < shortest or (values == values[:1]).all():
        return ""
    return hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes()).hexdigest()[:32]


def _pieces(dataset: Dataset, sample: Sample, signal: Signal, branch: Branch, cutting: Cutting | None) -> Iterator[np.ndarray]:
    """The sample's windows in turn, or the whole of it."""
    if cutting is None:
        yield as_array(signal, branch)
        return
    signal = timed(signal)
    for span in cutting.spans(dataset, sample, {branch.modality.name: signal}):
        yield as_array(cut(signal, span), branch)


def as_array(signal: Signal, branch: Branch) -> np.ndarray:
    """A recorded signal through its per-sample transforms, in the modality's layout.

    Raises:
        ValueError: If the signal is empty, not finite, or unfit for a transform.
    """
    if not len(signal):
        raise ValueError(f"the {branch.modality.name} signal is empty")
    recorded = signal.values
    for transform in branch.on_samples:
        signal = transform(signal)
    values = signal.values
    spec = branch.prepared
    if values.ndim != len(spec.axes):
        raise ValueError(f"a {spec.name} has axes {spec.axes}, this one has shape {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"the {branch.modality.name} signal has values that are not finite{_first_of_them(recorded)}")
    values = values.transpose([spec.axes.index(axis) for axis in spec.layout])
    return _in_single_precision(values, branch.modality.name) if values.dtype == np.float64 else values


def _in_single_precision(values: np.ndarray, modality: str) -> np.ndarray:
    """`values` in float32.

    Raises:
        ValueError: If they vary so little about a large offset that rounding takes more than a tenth of their deviation.
    """
    single = values.astype(np.float32)
    deviation, peak = float(np.ptp(values)), float(np.abs(values).max())
    if np.spacing(np.float32(peak)) > 0.01 * deviation > 1e-12 * peak and (single - values).std() > 0.1 * values.std():
        raise ValueError(
            f"the {modality} signal varies by {deviation:.3g} about {values.mean():.6g}, less than float32 can tell apart; "
            "subtract that offset from the recordings"
        )
    return single


def _first_of_them(recorded: np.ndarray) -> str:
    """The place of the first value that is not finite, if the recording has it and no transform made it."""
    bad = ~np.isfinite(recorded).reshape(len(recorded), -1).all(axis=1)
    return f", the first at sample {int(bad.argmax())}" if bad.any() else ""


def _unequal(branch: Branch, shape: tuple[int, ...], other: tuple[int, ...], key: SampleKey) -> str:
    return (
        f"{branch.modality.name}: samples differ in shape ({shape} and, for {key}, {other}); end its transforms "
        "with one that gives every sample the same length, such as resample, or cut windows (data.window)"
    )


def _head(entry: Path) -> dict[str, Any] | None:
    """All that is to be known to read a column; None if it is not whole, as after a power cut."""
    try:
        head = json.loads((entry / "column.json").read_text())
        rows = len(head["recorded"])
        expected = int(np.prod(head["shape"])) * np.dtype(head["dtype"]).itemsize if rows else 0
        whole = head["shape"][0] == rows == len(head["windows"]) and head.keys() >= {*SAID, "sha256"}
        return head if whole and (entry / "values.bin").stat().st_size == expected else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def columns_in(folder: Path) -> list[Path]:
    """The finished columns of a cache folder, whole or damaged."""
    found = folder.glob("*/column.json") if folder.is_dir() else ()
    return sorted(path.parent for path in found if path.parent.suffix != ".part")


def damaged_columns(folder: Path) -> list[Path]:
    """The columns of a cache folder whose values are not those that were written, read to the last byte."""
    return [
        path for path in columns_in(folder) if (head := _head(path)) is None or head["sha256"] != _digest(path / "values.bin")
    ]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _writer() -> str:
    """This process, as the names of what it has not finished have it."""
    return f"{socket.gethostname()}~{os.getpid()}"


def remove_abandoned(folder: Path) -> list[Path]:
    """Remove what processes that were killed left unfinished in a cache folder; returns what was removed."""
    gone = [path for path in folder.glob("*.part") if _is_abandoned(path)] if folder.is_dir() else []
    for path in gone:
        with suppress(OSError):  # another process may remove it, too
            _remove(path) if path.is_dir() else path.unlink()
    return gone


def _is_abandoned(path: Path) -> bool:
    host, _, pid = path.name.removesuffix(".part").rpartition("~")
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


def _remove(folder: Path) -> None:
    for file in folder.glob("*") if folder.exists() else ():
        file.unlink()
    if folder.exists():
        folder.rmdir()


def identity(fingerprint: str, dataset: Dataset, branch: Branch, cutting: Cutting | None, samples: Sequence[Sample]) -> str:
    """Name of a column's folder: it changes with the data, what is said of them, the transforms' options, and the code."""
    sources = [_source(type(each)) for each in (dataset, *branch.on_samples)]
    which = hashlib.sha256("|".join(str(sample.key) for sample in samples).encode()).hexdigest()
    said = json.dumps(asdict(branch.modality), sort_keys=True, default=str)
    parts = [FORMAT, fingerprint, said, branch.identity, sources, str(cutting), which]
    return f"{branch.modality.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]}"


def _source(cls: type) -> str:
    """Hash of the module a class is written in, so that an edited transform is not served from before."""
    try:
        return hashlib.sha256(inspect.getsource(sys.modules[cls.__module__]).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return cls.__qualname__
