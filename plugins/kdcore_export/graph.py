"""A student, or several taken together, as one module on raw recordings."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from kdcore import Ensemble, Predictor, Student, __version__
from kdcore_export.recording import recording


class Graph(nn.Module):
    """Recordings (B, T, …) of every modality, axes as recorded → logits and probabilities, each (B, classes).

    An ensemble's logits are the logarithms of its probabilities.

    Args:
        predictor: A student, or several.
        samples: How many samples a recording has; None for any number, if that is possible.

    Raises:
        KdcoreError: If a transform cannot be put into a graph.
    """

    def __init__(self, predictor: Predictor, samples: int | None = None):
        super().__init__()
        self.predictor = predictor
        self.modalities = predictor.modalities
        self.members = nn.ModuleList(Member(student, samples) for student in students_of(predictor).values())
        self.eval()

    @property
    def samples(self) -> dict[str, int | None]:
        """How many samples a recording of each modality must have; None for any number."""
        found: dict[str, int | None] = dict.fromkeys(self.modalities)
        for member in self.members:
            for name, part in zip(member.modalities, member.recordings, strict=True):  # type: ignore[arg-type]
                found[name] = part.samples or found[name]
        return found

    def forward(self, *signals: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities."""
        given = dict(zip(self.modalities, signals, strict=True))
        logits = [member(*(given[name] for name in member.modalities)) for member in self.members]  # type: ignore[union-attr]
        one = self.predictor.taken_together(logits) if isinstance(self.predictor, Ensemble) else logits.pop()
        return one, one.softmax(-1)


class Member(nn.Module):
    """One student on raw recordings: logits (B, classes).

    Args:
        student: A trained one.
        samples: How many samples a recording has; None for any number.
    """

    def __init__(self, student: Student, samples: int | None):
        super().__init__()
        self.modalities = student.modalities
        told = student.description.get("recorded", {})
        length = student.window[0] if student.window else None
        self.recordings = nn.ModuleList(
            recording(branch.modality, branch.on_samples, told.get(branch.modality.name, {}), samples, length)
            for branch in student.branches
        )
        self.live = student.model.live
        self.encoder = student.model.encoder

    def forward(self, *signals: Tensor) -> Tensor:
        """Logits."""
        parts = [recording(signal) for recording, signal in zip(self.recordings, signals, strict=True)]
        return self.encoder(self.live(tuple(parts) if len(parts) > 1 else parts[0]))


def students_of(predictor: Predictor) -> dict[str, Student]:
    """The students in it, by name."""
    if isinstance(predictor, Ensemble):
        return predictor.members
    assert isinstance(predictor, Student)
    return {str(predictor.description.get("name", "student")): predictor}


def facts(graph: Graph) -> dict[str, Any]:
    """What whoever runs the file must know about its inputs and outputs."""
    predictor = graph.predictor
    told = {name: described for each in students_of(predictor).values() for name, described in _recorded(each).items()}
    samples = graph.samples
    inputs = [
        {
            **asdict(modality),
            "rate": told.get(name, {}).get("rate") or modality.rate,
            "dtype": dtype(told.get(name, {})),
            "samples": samples[name],
        }
        for name, modality in predictor.reads.items()
    ]
    return {
        "format": 1,
        "kdcore": __version__,
        "students": list(students_of(predictor)),
        "ensemble": predictor.rule if isinstance(predictor, Ensemble) else None,
        "recipe": predictor.description.get("recipe", {}),
        "classes": predictor.classes,
        "inputs": inputs,
        "window": predictor.window,
    }


def dtype(recorded: dict[str, Any]) -> str:
    """Type of a recording's values as the graph takes them: bytes stay bytes, all else is float32."""
    return "uint8" if recorded.get("dtype") == "uint8" else "float32"


def _recorded(student: Student) -> dict[str, Any]:
    return {name: student.description.get("recorded", {}).get(name, {}) for name in student.modalities}


def as_text(values: dict[str, Any]) -> dict[str, str]:
    """Every value as JSON, for formats that keep text."""
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
