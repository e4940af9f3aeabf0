"""kdcore: cross-modal knowledge distillation from declarative recipes.

All that a plugin imports is here. Names are looked up when used, so that ``import kdcore`` loads neither torch nor anything
else that is slow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker

if TYPE_CHECKING:
    from kdcore.contracts.batch import Batch, LossContext, Outputs, Progress, Ramp
    from kdcore.contracts.dataset import Dataset, Sample, SampleKey
    from kdcore.contracts.embeddings import ClassEmbeddings
    from kdcore.contracts.encoder import Encoder, Participant
    from kdcore.contracts.fusion import TeacherFusion
    from kdcore.contracts.loss import DistillationLoss, Example, Needs
    from kdcore.contracts.modality import Modality, Signal
    from kdcore.contracts.protocol import Protocol, Split
    from kdcore.contracts.schedule import LearningRate, Schedule, Stage, Team, Training
    from kdcore.contracts.transform import Join, SampleTransform, Transform
    from kdcore.errors import DataError, KdcoreError
    from kdcore.inference import find_student, read_recording
    from kdcore.reevaluation import Recordings
    from kdcore.training.predictor import Ensemble, Predictor, Student
    from kdcore.training.student import load_predictor, load_student

__version__ = "0.1.0"

hookimpl = HookimplMarker("kdcore")
"""Marks a plugin's function as the implementation of a hook."""

_HOME = {
    "kdcore.inference": ("find_student", "read_recording"),
    "kdcore.reevaluation": ("Recordings",),
    "kdcore.training.predictor": ("Ensemble", "Predictor", "Student"),
    "kdcore.training.student": ("load_predictor", "load_student"),
    "kdcore.contracts.batch": ("Batch", "LossContext", "Outputs", "Progress", "Ramp"),
    "kdcore.contracts.dataset": ("Dataset", "Sample", "SampleKey"),
    "kdcore.contracts.embeddings": ("ClassEmbeddings",),
    "kdcore.contracts.encoder": ("Encoder", "Participant"),
    "kdcore.contracts.fusion": ("TeacherFusion",),
    "kdcore.contracts.loss": ("DistillationLoss", "Example", "Needs"),
    "kdcore.contracts.modality": ("Modality", "Signal"),
    "kdcore.contracts.protocol": ("Protocol", "Split"),
    "kdcore.contracts.schedule": ("LearningRate", "Schedule", "Stage", "Team", "Training"),
    "kdcore.contracts.transform": ("Join", "SampleTransform", "Transform"),
    "kdcore.errors": ("DataError", "KdcoreError"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", "hookimpl", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kdcore' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
