"""Checkpoints: written atomically, so that a crash never leaves a partial one, and loaded without executing code."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kdcore.archives import refuse_bomb
from kdcore.errors import CheckpointError, DataError, TrainingError

SAVED_BY_TORCH = (b"PK\x03\x04", b"\x80")
"""Magic bytes of files that `torch.save` writes: a zip archive, or a pickle in the format before torch 1.6."""

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"

LARGEST_SHARE = 0.05
"""Largest share of the training time spent on writing checkpoints, unless the interval is 0."""

ABOUT = ("kdcore", "student")
"""Metadata keys under which a weights file holds classes and versions as JSON: in teachers' files, in saved students."""


class Checkpoint(NamedTuple):
    """The weights of an arm and the rest of its training state."""

    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]


class Spacing:
    """Decides when the next checkpoint is due: after an interval that grows if saving is slow.

    Args:
        seconds: Shortest interval in seconds; 0 to save after every optimizer step.
    """

    def __init__(self, seconds: float):
        self.seconds, self._saved_at, self._took = seconds, time.monotonic(), 0.0

    def due(self, now: float) -> bool:
        """True if a checkpoint is due at `now`, a reading of `time.monotonic`."""
        return now - self._saved_at >= (max(self.seconds, self._took / LARGEST_SHARE) if self.seconds else 0.0)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Context in which a checkpoint is written; measures how long that takes."""
        began = time.monotonic()
        yield
        self._saved_at = time.monotonic()
        self._took = self._saved_at - began


def write_file(path: Path, content: bytes) -> None:
    """Write `path` atomically: through a temporary file, synced and renamed.

    Raises:
        TrainingError: If the disk is full or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(part, content)
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make the folder's entries survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> TrainingError:
    why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return TrainingError(f"cannot write {path}: {why}; earlier checkpoints are intact")


class Checkpoints:
    """The checkpoints of one run, in a folder; the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder
        self.keep = keep

    def save(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Save a checkpoint: written to a temporary folder, synced, then renamed.

        Args:
            weights: Name → tensor.
            state: Numbers, strings, lists, dicts and tensors only, which ``weights_only=True`` can load.

        Raises:
            TrainingError: If it cannot be written.
        """
        number = max((int(path.name) for path in self._all()), default=0) + 1
        final, part = self.folder / f"{number:08d}", self.folder / f".{number:08d}.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            content = {WEIGHTS: _tensor_bytes(weights), STATE: _state_bytes(state)}
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
            for name, data in (content | {MANIFEST: json.dumps(digests).encode()}).items():
                _write(part / name, data)
            sync_folder(part)
            part.rename(final)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise _cannot_write(final, error) from error
        for old in self._all()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def load(self) -> Checkpoint | None:
        """The newest checkpoint; None if there is none.

        Raises:
            CheckpointError: If it is damaged or holds anything but data.
        """
        folders = self._all()
        return read_checkpoint(folders[-1]) if folders else None

    def clear(self) -> None:
        """Delete all checkpoints. The folder is renamed first, so that a crash leaves no partly deleted checkpoint."""
        gone = self.folder.with_name(f".{self.folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]*") if path.is_dir()) if self.folder.exists() else []


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`.

    Raises:
        CheckpointError: If a file is missing, damaged, or holds anything but data.
    """
    try:
        digests = dict(json.loads((folder / MANIFEST).read_text()))
        content = {name: (folder / name).read_bytes() for name in (WEIGHTS, STATE)}
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: incomplete checkpoint: {error}") from error
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != digests.get(name):
            raise CheckpointError(f"{folder / name}: damaged: its content is not what was written")
    return Checkpoint(load_weights(folder / WEIGHTS), load_state(folder / STATE))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors from a safetensors file.

    Raises:
        CheckpointError: If the file cannot be read or is not a safetensors file.
    """
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error


def load_state(path: Path) -> dict[str, Any]:
    """Load plain data from a file that `torch.save` wrote, with ``weights_only=True``.

    Raises:
        CheckpointError: If it holds anything but data, is damaged, or has another format.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        refuse_bomb(path)
        if not start.startswith(SAVED_BY_TORCH):
            raise CheckpointError(f"{path}: neither a .safetensors file nor a file that torch.save wrote")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused: it holds more than data, and loading it could run code") from error
    except CheckpointError:
        raise
    except DataError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # unpickling damaged data can raise any exception
        raise CheckpointError(f"{path}: damaged: {error}") from error


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> str:
    """Write tensors, with `about` as JSON metadata, to a safetensors file atomically; returns the SHA-256 of the file."""
    content = _tensor_bytes(weights, {ABOUT[0]: json.dumps(about, sort_keys=True)} if about else None)
    write_file(path, content)
    return hashlib.sha256(content).hexdigest()


def _tensor_bytes(weights: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    return save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, metadata)


def _state_bytes(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
