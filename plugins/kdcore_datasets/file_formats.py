"""Readers for MATLAB files, videos and pickles, and checks shared by all readers."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kdcore import DataError, refuse_bomb
from kdcore_datasets.folders import existing_file
from kdcore_datasets.matlab_arrays import COMPRESSED, plain_array

SMALL = 1 << 20
"""Size in bytes up to which a compressed file is harmless: zlib compresses at most 1,032 to 1."""

LARGEST = 1e30
"""Maximum absolute value. Sensors measure less, and up to it neither unit conversion nor float32 overflows."""


def measurable(values: np.ndarray) -> np.ndarray:
    """Return a mask of the `values` that are finite with an absolute value of at most `LARGEST`, in the same shape."""
    return np.abs(values) <= np.float64(LARGEST)


def require_shape(values: np.ndarray, shape: Sequence[int | None], path: Path, what: str) -> np.ndarray:
    """Return `values` if their shape matches. None matches any length greater than zero.

    Raises:
        DataError: If the shape does not match.
    """
    expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    fits = values.ndim == len(shape) and all(size in (None, actual) for size, actual in zip(shape, values.shape, strict=True))
    if not fits:
        raise DataError(f"{path}: {what} has shape {values.shape}, expected {expected}")
    if values.size == 0:
        raise DataError(f"{path}: {what} is empty (shape {values.shape})")
    return values


def require_finite(values: np.ndarray, path: Path, what: str) -> np.ndarray:
    """Return `values` if all are finite and at most `LARGEST` in absolute value.

    Raises:
        DataError: If a value is not. The message contains the index of the first one.
    """
    good = measurable(values)
    if not good.all():
        bad = np.argwhere(~good)
        place = ", ".join(map(str, bad[0].tolist()))
        kind = "not finite" if not np.isfinite(values[tuple(bad[0])]) else "too large"
        raise DataError(f"{path}: {what} has {len(bad)} value(s) that are {kind}, the first at index ({place})")
    return values


def read_variable(path: Path, name: str) -> np.ndarray:
    """Read the array `name` from a MATLAB file (up to version 7).

    Raises:
        DataError: If the file is unreadable, damaged, in another format, or does not contain the variable.
    """
    if (values := _plain(path, name)) is not None:
        return values
    from scipy.io import loadmat, whosmat

    try:
        _refuse_matlab_bomb(existing_file(path))
        content = loadmat(path, appendmat=False, variable_names=(name,))  # other types may contain anything
        variables = [] if name in content else [each for each, *_ in whosmat(path, appendmat=False)]
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(f"{path}: saved in MATLAB's version 7.3 format; save it with -v7 instead") from error
    except Exception as error:  # scipy raises many types of exceptions for damaged files
        raise DataError(f"{path}: not a readable MATLAB file ({_reason(error)})") from error
    if name not in content:
        raise DataError(f"{path}: has no variable {name!r} (it holds {', '.join(sorted(variables)) or 'nothing'})")
    values = np.asarray(content[name])
    if values.dtype.kind not in "fiu":
        raise DataError(f"{path}: variable {name!r} is not an array of numbers")
    return values


def _plain(path: Path, name: str) -> np.ndarray | None:
    """Read the array `name` from a small MATLAB file; return None if SciPy has to read it or report the error."""
    try:
        with open(path, "rb") as file:
            content = file.read(SMALL)
    except OSError:
        return None
    return plain_array(content, name) if len(content) < SMALL else None


def _refuse_matlab_bomb(path: Path) -> None:
    """Raise an error for a MATLAB file of version 5 to 7 that decompresses to far more than its size.

    A small file cannot decompress to much, so only files of more than `SMALL` bytes are decompressed, and only to count bytes.

    Raises:
        DataError: If it does.
    """
    if path.stat().st_size < SMALL:
        return
    with open(path, "rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:128], "")
        total = 0
        while order and len(tag := file.read(8)) == 8:
            kind, count = struct.unpack(f"{order}II", tag)
            if kind != COMPRESSED:
                file.seek(count, os.SEEK_CUR)
                continue
            for size in _unpacked_sizes(file, count):
                total += size
                refuse_bomb(path, total)


def _unpacked_sizes(file: BinaryIO, count: int) -> Iterator[int]:
    """Yield the decompressed sizes of the next `count` bytes of a file, chunk by chunk."""
    unpack = zlib.decompressobj()
    while count > 0 and (piece := file.read(min(count, 1 << 16))):
        count -= len(piece)
        while piece:
            yield len(unpack.decompress(piece, 1 << 20))
            piece = unpack.unconsumed_tail


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def read_video(path: Path) -> tuple[np.ndarray, float | None]:
    """Read all frames of a video, (T, H, W, 3) uint8 RGB, and its frame rate if the file contains it.

    Raises:
        DataError: If the file cannot be decoded or contains no frames.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: has no video stream")
            stream = container.streams.video[0]
            rate = float(stream.average_rate) if stream.average_rate else None
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be decoded as video ({error})") from error
    if not frames:
        raise DataError(f"{path}: holds no video frame")
    return np.stack(frames), rate


_PERMITTED = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PERMITTED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}; only plain containers and NumPy arrays are supported")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """Read a pickle of containers and arrays.

    Raises:
        DataError: If it is damaged or refers to anything else, which the message names.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file).load()
    except Exception as error:  # damaged pickles raise almost any exception
        raise DataError(f"{path}: cannot be read as a pickle of arrays ({error or type(error).__name__})") from error
