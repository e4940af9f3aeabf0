"""kdcore: cross-modal knowledge distillation from declarative recipes.

All that a plugin imports is here. Names are looked up when used, so that ``import kdcore`` loads neither torch nor anything
else that is slow.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker

if TYPE_CHECKING:
    from kdcore.archives import refuse_bomb, refuse_parquet_bomb
    from kdcore.cli.arguments import Overrides, RecipeArgument
    from kdcore.cli.console import ConsoleListener
    from kdcore.cli.pictures import refuse_page_path, write_drawings
    from kdcore.cli.tables import output_console, show_table
    from kdcore.contracts.batch import Batch, Classifier, LossContext, Outputs
    from kdcore.contracts.dataset import Dataset, Sample, SampleKey, Unusable
    from kdcore.contracts.drawing import Drawing, Estimated, Labelled
    from kdcore.contracts.embeddings import ClassEmbeddings
    from kdcore.contracts.encoder import Encoder, Participant
    from kdcore.contracts.executor import Executor, Job, StartedJob
    from kdcore.contracts.fusion import TeacherFusion
    from kdcore.contracts.leakage_check import LeakageCheck
    from kdcore.contracts.loss import DistillationLoss, Example
    from kdcore.contracts.modality import Modality, Signal
    from kdcore.contracts.needs import Needs
    from kdcore.contracts.options import IfSet
    from kdcore.contracts.plain_recording import PlainRecording, RecordingForm
    from kdcore.contracts.progress import Progress, Ramp
    from kdcore.contracts.protocol import Protocol, Splits
    from kdcore.contracts.sample_transform import SampleTransform
    from kdcore.contracts.schedule import Graph, Node, Schedule, Stage
    from kdcore.contracts.target import EVERY_TARGET, METRICS, THRESHOLD, Metric, Target, TargetKind, known, with_units
    from kdcore.contracts.tracker import Tracker
    from kdcore.contracts.training import EarlyStopping, LearningRate, MovingAverage, ParameterGroup, Training
    from kdcore.contracts.transform import Join, Transform
    from kdcore.contracts.units import UNITS, conversion, same_rate
    from kdcore.data.arrays import ArrayDataset
    from kdcore.data.dropped import Dropped, DropReport
    from kdcore.data.leakage import RecordingAudit, leakage_checks
    from kdcore.data.signal_checks import INTERRUPTED, interrupted, largest_gap, likely_unit, measured_rate, odd_rates
    from kdcore.data.splits import SplitSamples, class_warnings, recipe_splits, usable_samples
    from kdcore.data.targets import lacking_numbers
    from kdcore.data.windows import windows
    from kdcore.deploy.predictor import Predictor
    from kdcore.deploy.recordings import read_recording
    from kdcore.deploy.saved_student import load_predictor, load_student
    from kdcore.deploy.student import Ensemble, Student
    from kdcore.errors import (
        CheckpointError,
        DataError,
        KdcoreDeprecationWarning,
        KdcoreError,
        PluginError,
        RecipeError,
        StoppedError,
        TrainingError,
        UnknownRunError,
        UsageError,
        one_line,
    )
    from kdcore.plugin.constructors import TERM_KEYS
    from kdcore.plugin.hookspecs import API_VERSION
    from kdcore.plugin.manager import PluginManager, plugin_manager
    from kdcore.plugin.option_schema import describe, options_model
    from kdcore.plugin.pretrained import PretrainedWeights, pretrained_backbone
    from kdcore.plugin.registry import KINDS, Entry
    from kdcore.recipe.build import Builder
    from kdcore.recipe.graph import LearnerTerm, StagePlan
    from kdcore.recipe.load import load_recipe
    from kdcore.recipe.merge import TERM_LISTS
    from kdcore.recipe.models import Recipe
    from kdcore.recipe.plan import ParticipantPlan, Plan, make_plan
    from kdcore.runs.artifacts import first_recording, restore_participants, student_folder
    from kdcore.runs.callbacks import RunListener
    from kdcore.runs.context import RunContext, reopen
    from kdcore.runs.distil import distil
    from kdcore.runs.distilled import Distilled
    from kdcore.runs.evaluation import Recordings
    from kdcore.runs.executors import make_executor
    from kdcore.runs.find_student import find_student
    from kdcore.runs.gain import Difference
    from kdcore.runs.journal import Journal, RunJournal
    from kdcore.runs.metrics import Evaluation, evaluate
    from kdcore.runs.outcome import Outcome
    from kdcore.runs.paths import find_run, runs_folder
    from kdcore.runs.provenance import Provenance, provenance_of
    from kdcore.runs.recipe_changes import RecipeChanges, recipe_changes
    from kdcore.runs.records import Facts, FinishedRun, finished_runs, read_facts, read_run
    from kdcore.runs.result import Result
    from kdcore.runs.run import dry_run, resume, run
    from kdcore.runs.state import RunState
    from kdcore.runs.summary import Row, Summary, summarise
    from kdcore.runs.target_metrics import AnyEvaluation, LabelEvaluation, ValueEvaluation, evaluate_target, part_of, pool
    from kdcore.suggestions import did_you_mean
    from kdcore.training.participants import Distiller
    from kdcore.training.tensor_loss import TensorLoss, loss
    from kdcore.trust import trusts_code
    from kdcore.user_warnings import warn

__version__ = "0.1.0"

IMPORTED_AT = time.time()
"""The time at which this process imported kdcore. Source files changed later may differ from the code that is loaded."""

hookimpl = HookimplMarker("kdcore")
"""Marks a plugin's function as the implementation of a hook."""

_HOME = {
    "kdcore.archives": ("refuse_bomb", "refuse_parquet_bomb"),
    "kdcore.cli.arguments": ("Overrides", "RecipeArgument"),
    "kdcore.cli.console": ("ConsoleListener",),
    "kdcore.cli.pictures": ("refuse_page_path", "write_drawings"),
    "kdcore.cli.tables": ("output_console", "show_table"),
    "kdcore.contracts.batch": ("Batch", "Classifier", "LossContext", "Outputs"),
    "kdcore.contracts.dataset": ("Dataset", "Sample", "SampleKey", "Unusable"),
    "kdcore.contracts.drawing": ("Drawing", "Estimated", "Labelled"),
    "kdcore.contracts.embeddings": ("ClassEmbeddings",),
    "kdcore.contracts.encoder": ("Encoder", "Participant"),
    "kdcore.contracts.executor": ("Executor", "Job", "StartedJob"),
    "kdcore.contracts.fusion": ("TeacherFusion",),
    "kdcore.contracts.leakage_check": ("LeakageCheck",),
    "kdcore.contracts.loss": ("DistillationLoss", "Example"),
    "kdcore.contracts.needs": ("Needs",),
    "kdcore.contracts.options": ("IfSet",),
    "kdcore.contracts.plain_recording": ("PlainRecording", "RecordingForm"),
    "kdcore.contracts.progress": ("Progress", "Ramp"),
    "kdcore.contracts.modality": ("Modality", "Signal"),
    "kdcore.contracts.protocol": ("Protocol", "Splits"),
    "kdcore.contracts.target": (
        "EVERY_TARGET",
        "METRICS",
        "THRESHOLD",
        "Metric",
        "Target",
        "TargetKind",
        "known",
        "with_units",
    ),
    "kdcore.contracts.schedule": ("Graph", "Node", "Schedule", "Stage"),
    "kdcore.contracts.training": ("EarlyStopping", "LearningRate", "MovingAverage", "ParameterGroup", "Training"),
    "kdcore.contracts.sample_transform": ("SampleTransform",),
    "kdcore.contracts.transform": ("Join", "Transform"),
    "kdcore.contracts.units": ("UNITS", "conversion", "same_rate"),
    "kdcore.errors": (
        "CheckpointError",
        "DataError",
        "KdcoreDeprecationWarning",
        "KdcoreError",
        "PluginError",
        "RecipeError",
        "StoppedError",
        "TrainingError",
        "UnknownRunError",
        "UsageError",
        "one_line",
    ),
    "kdcore.deploy.recordings": ("read_recording",),
    "kdcore.runs.callbacks": ("RunListener",),
    "kdcore.recipe.build": ("Builder",),
    "kdcore.recipe.graph": ("LearnerTerm", "StagePlan"),
    "kdcore.recipe.load": ("load_recipe",),
    "kdcore.recipe.plan": ("ParticipantPlan", "Plan", "make_plan"),
    "kdcore.recipe.models": ("Recipe",),
    "kdcore.runs.evaluation": ("Recordings",),
    "kdcore.runs.executors": ("make_executor",),
    "kdcore.runs.gain": ("Difference",),
    "kdcore.runs.metrics": ("Evaluation", "evaluate"),
    "kdcore.runs.target_metrics": ("AnyEvaluation", "LabelEvaluation", "ValueEvaluation", "evaluate_target", "part_of", "pool"),
    "kdcore.runs.recipe_changes": ("RecipeChanges", "recipe_changes"),
    "kdcore.runs.records": ("Facts", "FinishedRun", "finished_runs", "read_facts", "read_run"),
    "kdcore.runs.find_student": ("find_student",),
    "kdcore.runs.outcome": ("Outcome",),
    "kdcore.contracts.tracker": ("Tracker",),
    "kdcore.plugin.hookspecs": ("API_VERSION",),
    "kdcore.plugin.manager": ("PluginManager", "plugin_manager"),
    "kdcore.plugin.constructors": ("TERM_KEYS",),
    "kdcore.plugin.option_schema": ("describe", "options_model"),
    "kdcore.plugin.pretrained": ("PretrainedWeights", "pretrained_backbone"),
    "kdcore.plugin.registry": ("Entry", "KINDS"),
    "kdcore.recipe.merge": ("TERM_LISTS",),
    "kdcore.suggestions": ("did_you_mean",),
    "kdcore.runs.artifacts": ("first_recording", "restore_participants", "student_folder"),
    "kdcore.runs.context": ("RunContext", "reopen"),
    "kdcore.runs.journal": ("Journal", "RunJournal"),
    "kdcore.runs.state": ("RunState",),
    "kdcore.runs.summary": ("Row", "Summary", "summarise"),
    "kdcore.training.participants": ("Distiller",),
    "kdcore.runs.result": ("Result",),
    "kdcore.runs.run": ("dry_run", "resume", "run"),
    "kdcore.data.arrays": ("ArrayDataset",),
    "kdcore.data.dropped": ("Dropped", "DropReport"),
    "kdcore.data.leakage": ("RecordingAudit", "leakage_checks"),
    "kdcore.data.signal_checks": ("INTERRUPTED", "interrupted", "largest_gap", "likely_unit", "measured_rate", "odd_rates"),
    "kdcore.data.splits": ("SplitSamples", "class_warnings", "recipe_splits", "usable_samples"),
    "kdcore.data.targets": ("lacking_numbers",),
    "kdcore.data.windows": ("windows",),
    "kdcore.runs.distil": ("distil",),
    "kdcore.runs.distilled": ("Distilled",),
    "kdcore.training.tensor_loss": ("TensorLoss", "loss"),
    "kdcore.deploy.predictor": ("Predictor",),
    "kdcore.deploy.student": ("Ensemble", "Student"),
    "kdcore.deploy.saved_student": ("load_predictor", "load_student"),
    "kdcore.runs.provenance": ("Provenance", "provenance_of"),
    "kdcore.runs.paths": ("find_run", "runs_folder"),
    "kdcore.trust": ("trusts_code",),
    "kdcore.user_warnings": ("warn",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

_RENAMED: dict[str, tuple[str, str]] = {}
"""Deprecated name → (the name to use, the release that deprecated it)."""

__all__ = ["__version__", "hookimpl", *_MODULE_OF]


def module_of(name: str) -> str:
    """Return the module that has what ``from kdcore import name`` imports."""
    return _MODULE_OF.get(name, f"kdcore.{name}")


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from kdcore.plugin.deprecation import Deprecation

        new, since = _RENAMED[name]
        Deprecation(f"kdcore.{name}", since, f"kdcore.{new}").used()
        name = new
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kdcore' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
