"""Exported students: an ONNX file of ``kdcore export`` as a predictor that requires ONNX Runtime, but not PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import CheckpointError, DataError, Modality, Predictor, Signal, UsageError, one_line, same_rate

PREFIX = "kdcore."
"""Prefix of the metadata keys written by ``kdcore export``."""


def open_session(file: Path) -> Any:
    """Open an ONNX file with ONNX Runtime, on one thread.

    Raises:
        Exception: Any exception of ONNX Runtime if it cannot read the file; they have no common base.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class OnnxStudent(Predictor):
    """A student or ensemble exported by ``kdcore export`` as ONNX.

    Recordings are assumed to be evenly sampled at their rate.

    Args:
        session: ONNX Runtime session of the file.
        description: Metadata of the file.
    """

    def __init__(self, session: Any, description: Mapping[str, Any]):
        self._session = session
        self._inputs = {each["name"]: each for each in description["inputs"]}
        window = description.get("window")
        self.description = {
            **description,
            "window": {"length": window[0], "hop": window[1]} if window else None,
            "recorded": {name: {"dtype": each["dtype"]} for name, each in self._inputs.items()},
        }
        self._reads = {name: _modality(each) for name, each in self._inputs.items()}

    @property
    def reads(self) -> dict[str, Modality]:
        """Modalities of the inputs by name, in order."""
        return self._reads

    def logits(self, pieces: Sequence[Mapping[str, Signal]]) -> np.ndarray:
        """Return logits (recordings, classes). Recordings of equal length are processed as one batch."""
        arrays = [{name: self._array(name, piece[name]) for name in self._reads} for piece in pieces]
        if len({tuple(array.shape for array in each.values()) for each in arrays}) == 1:
            return self._run({name: np.stack([each[name] for each in arrays]) for name in self._reads})
        return np.concatenate([self._run({name: array[None] for name, array in each.items()}) for each in arrays])

    def _run(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            return np.asarray(self._session.run(["logits"], dict(batch))[0])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise DataError(f"the exported student cannot read this recording: {one_line(error)}") from error

    def _array(self, name: str, signal: Signal) -> np.ndarray:
        values, wanted = signal.values, self._inputs[name]["samples"]
        rate = self._inputs[name]["rate"]
        if rate and not same_rate(signal.rate, rate):
            raise DataError(f"{name}: the exported student reads {rate:g} samples per second, not {signal.rate:g}")
        if not len(values):
            raise DataError(f"the {name} signal is empty")
        spare = 1 if self.window else 0  # by rounding, a window may have one more sample
        if wanted and not wanted <= len(values) <= wanted + spare:
            raise DataError(f"{name}: the exported student reads {wanted} samples, but the recording has {len(values)}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"the {name} signal has values that are not finite")
        return np.ascontiguousarray(values[:wanted] if wanted else values, dtype=self._inputs[name]["dtype"])


def _modality(told: Mapping[str, Any]) -> Modality:
    axes, layout, channels = (tuple(told[key]) for key in ("axes", "layout", "channels"))
    return Modality(told["name"], axes, layout, told["units"], told["rate"], channels, told.get("placement", ""))


def load_onnx(file: str | Path) -> OnnxStudent:
    """Load a student exported by ``kdcore export`` as ONNX.

    Args:
        file: The ``.onnx`` file.

    Raises:
        CheckpointError: If it is not such a file.
        UsageError: If ONNX Runtime is not installed.
    """
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        session = open_session(path)
    except ImportError as error:
        raise UsageError(f"{path}: an ONNX file needs ONNX Runtime: pip install 'kdcore[export]'") from error
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable ONNX file: {one_line(error)}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        description = {key.removeprefix(PREFIX): json.loads(value) for key, value in metadata.items() if key.startswith(PREFIX)}
        return OnnxStudent(session, description)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a file of kdcore export: its metadata lacks or damages {error}") from error
