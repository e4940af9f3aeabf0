"""A student or ensemble as one module on raw recordings: preprocessing, network and softmax."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcore import Ensemble, KdcoreError, Modality, Predictor, SampleTransform, Signal, Student, __version__


class Graph(nn.Module):
    """Maps recordings (B, T, …) of all modalities, with axes as recorded, to logits and probabilities, each (B, classes).

    The logits of an ensemble are the logarithms of its probabilities. For a student of labels, probabilities are those of each
    label; for a student of values, they are the values in their units.

    Args:
        predictor: A student, or several.
        samples: Number of samples of a recording; None for any number, if possible.
        fixed: Whether the number of samples must be fixed.

    Raises:
        KdcoreError: If a transform cannot be exported, or the number of samples must be fixed and is unknown.
    """

    def __init__(self, predictor: Predictor, samples: int | None = None, fixed: bool = False):
        super().__init__()
        self.modalities = predictor.modalities
        self.combine = predictor.combine if isinstance(predictor, Ensemble) else None
        self.target = predictor.target
        self.answer = "values" if predictor.target.kind == "values" else "probabilities"
        self.members = nn.ModuleList(Member(student, samples, fixed) for student in students_of(predictor).values())
        self.eval()

    @property
    def samples(self) -> dict[str, int | None]:
        """Return the number of samples of a recording by modality; None for any number."""
        found: dict[str, int | None] = dict.fromkeys(self.modalities)
        for member in self.members:
            for name, part in zip(member.modalities, member.recordings, strict=True):  # type: ignore[arg-type]
                found[name] = part.samples or found[name]
        return found

    def forward(self, *signals: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities."""
        given = dict(zip(self.modalities, signals, strict=True))
        logits = [member(*(given[name] for name in member.modalities)) for member in self.members]  # type: ignore[union-attr]
        one = self.combine(logits) if self.combine else logits.pop()
        if self.target.kind == "values":
            return one, self.target.in_units(one)
        return one, one.softmax(-1) if self.target.is_classes else one.sigmoid()


class Member(nn.Module):
    """A student on raw recordings, which returns logits (B, classes).

    Args:
        student: A trained student.
        samples: Number of samples of a recording; None for any number.
        fixed: Whether the number of samples must be fixed.
    """

    def __init__(self, student: Student, samples: int | None, fixed: bool = False):
        super().__init__()
        self.modalities = student.modalities
        length = student.window[0] if student.window else None
        self.recordings = nn.ModuleList(
            recording(branch.modality, branch.on_samples, student.recorded(branch.modality.name), samples, length, fixed)
            for branch in student.branches
        )
        self.batch_transforms = student.model.batch_transforms
        self.encoder = student.model.encoder

    def forward(self, *signals: Tensor) -> Tensor:
        """Return logits."""
        parts = [recording(signal) for recording, signal in zip(self.recordings, signals, strict=True)]
        return self.encoder(self.batch_transforms(tuple(parts) if len(parts) > 1 else parts[0]))


def students_of(predictor: Predictor) -> dict[str, Student]:
    """Return the students of a predictor, by name."""
    if isinstance(predictor, Ensemble):
        return predictor.members
    assert isinstance(predictor, Student)
    return {str(predictor.description.get("name", "student")): predictor}


def facts(predictor: Predictor, samples: Mapping[str, int | None]) -> dict[str, Any]:
    """Return the metadata of an exported file: classes, inputs, preprocessing and versions.

    Args:
        predictor: The student or ensemble.
        samples: Number of samples of a recording by modality; None for any number.
    """
    students = students_of(predictor)
    recorded = {name: described for each in students.values() for name, described in _recorded(each).items()}
    inputs = [
        {
            **asdict(modality),
            "rate": recorded.get(name, {}).get("rate") or modality.rate,
            "dtype": dtype(recorded.get(name, {})),
            "samples": samples[name],
        }
        for name, modality in predictor.reads.items()
    ]
    return {
        "format": 1,
        "kdcore": __version__,
        "plugins": predictor.description.get("plugins", {}),
        "students": list(students),
        "ensemble": predictor.rule if isinstance(predictor, Ensemble) else None,
        "recipe": predictor.description.get("recipe", {}),
        "classes": predictor.classes,
        **({} if predictor.target.is_classes else {"target": asdict(predictor.target)}),
        "inputs": inputs,
        "preprocessing": {name: each.description.get("transforms", {}) for name, each in students.items()},
        "window": predictor.window,
    }


def dtype(recorded: dict[str, Any]) -> str:
    """Return the type of input values: uint8 stays uint8, everything else is float32."""
    return "uint8" if recorded.get("dtype") == "uint8" else "float32"


def _recorded(student: Student) -> dict[str, Any]:
    return {name: student.recorded(name) for name in student.modalities}


def as_text(values: dict[str, Any]) -> dict[str, str]:
    """Return all values as JSON, for formats that store text."""
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


class Recording(nn.Module):
    """Applies transforms of recordings and the layout of the modality: (B, T, …) as recorded → (B, …) for encoders.

    Args:
        steps: Modules on (B, T, …).
        modality: Modality whose axes are reordered.
        samples: Number of samples of a recording; None for any number.
    """

    def __init__(self, steps: Sequence[nn.Module], modality: Modality, samples: int | None):
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.order = [0, *(1 + modality.axes.index(axis) for axis in modality.layout)]
        self.samples = samples

    def forward(self, x: Tensor) -> Tensor:
        """Return the input for transforms of batches."""
        for step in self.steps:
            x = step(x)
        return x.permute(self.order)


class Weighted(nn.Module):
    """Resampling as a fixed weighted sum of recorded samples: (B, T, …) → (B, T', …).

    Args:
        weights: Weights, (T', T).
    """

    weights: Tensor

    def __init__(self, weights: Tensor):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new samples, in the type of the old ones."""
        mixed = torch.matmul(self.weights, x.unsqueeze(-1).flatten(2).float()).reshape(x.shape[0], -1, *x.shape[2:])
        return mixed if x.is_floating_point() else mixed.round().to(x.dtype)


def recording(
    modality: Modality,
    transforms: Sequence[SampleTransform],
    recorded: Mapping[str, Any],
    samples: int | None,
    window: float | None = None,
    fixed: bool = False,
) -> Recording:
    """Return a student's transforms of recordings as a module.

    Args:
        modality: Modality of the recording.
        transforms: Transforms, in order.
        recorded: ``shape``, ``dtype`` and ``rate`` of a recording.
        samples: Number of samples of a recording; None for any number, if possible.
        window: Duration of all recordings in seconds, if known.
        fixed: Whether the number of samples must be fixed.

    Raises:
        KdcoreError: If the transforms cannot be exported, or only with a fixed number of samples.
    """
    rate = float(recorded.get("rate") or modality.rate or 1.0)
    if fixed:
        samples = samples or (round(window * rate) if window else None)
        if samples is None:
            known = f"; those of training had {recorded['shape'][0]}" if recorded.get("shape") else ""
            raise KdcoreError(f"{modality.name}: in this format recordings have one length; set it with --samples N{known}")
    modules = [transform.as_module() for transform in transforms]
    stuck = [type(transform).__name__ for transform, module in zip(transforms, modules, strict=True) if module is None]
    if not stuck:
        found = Recording([module for module in modules if module is not None], modality, samples)
        found.samples = samples or _only_length(found, recorded, round(window * rate) if window else None)
        return found
    samples = samples or (round(window * rate) if window else None)
    usual, *rest = recorded.get("shape", (0, max(1, len(modality.channels))))
    weights = _by_trial(transforms, samples or usual, tuple(rest), rate) if samples or usual else None
    if weights is None and (samples or usual):
        raise KdcoreError(
            f"{modality.name}: {', '.join(stuck)} cannot be exported: neither linear in time nor available as a PyTorch module"
        )
    if weights is None or samples is None:
        raise KdcoreError(
            f"{modality.name}: {', '.join(stuck)} depends on the length of the recording; set a length with --samples N"
        )
    return Recording([Weighted(weights)], modality, samples)


def _only_length(steps: Recording, recorded: Mapping[str, Any], window: int | None) -> int | None:
    """Return the only number of samples that a student accepts if its transforms keep it; None if they change it."""
    length, *rest = recorded.get("shape") or (0,)
    length = window or length  # recordings are longer than the windows that are read
    if not length or not recorded.get("shape"):
        return None
    kind = torch.uint8 if recorded.get("dtype") == "uint8" else torch.float32
    one, other = (steps(torch.zeros(1, count, *rest, dtype=kind)).shape for count in (length, length + 1))
    return None if one == other else length


def _by_trial(transforms: Sequence[SampleTransform], samples: int, rest: tuple[int, ...], rate: float) -> Tensor | None:
    """Return the weights (T', T) by which `transforms` compute new samples, or None if they are not linear."""

    def changed(values: np.ndarray) -> np.ndarray:
        signal = Signal(values, rate)
        for transform in transforms:
            signal = transform(signal)
        return signal.values

    noise = np.random.default_rng(0).normal(size=(samples, *rest))
    try:
        expected = changed(noise)
    except (KdcoreError, ValueError):  # it does not read noise, such as a crop around a person
        return None
    if expected.shape[1:] != rest:
        return None
    impulses = np.eye(samples)
    width = int(np.prod(rest)) or 1
    columns = [changed(np.repeat(impulse, width).reshape(samples, *rest)).reshape(-1, width)[:, 0] for impulse in impulses]
    weights = np.stack(columns, axis=1)
    if weights.shape[0] != len(expected) or not np.allclose(np.tensordot(weights, noise, 1), expected, atol=1e-6):
        return None
    return torch.from_numpy(weights).float()
