"""Saves the participants of a run to files, and restores them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcore import __version__
from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.data.fingerprint import PLACES
from kdcore.data.table import Table
from kdcore.deploy.saved_student import WEIGHTS, save_student
from kdcore.deploy.student import Model
from kdcore.errors import CheckpointError
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.plan import DISTILLED
from kdcore.runs.context import RunContext
from kdcore.training.assembly import Assembly
from kdcore.training.checkpoint import load_weights, save_weights
from kdcore.training.participants import Distiller
from kdcore.training.randomness import random_state, restore_random_state
from kdcore.training.stored_outputs import load_outputs
from kdcore.training.weight_files import recordings_as_json


def teacher_file(folder: Path, seed: int, name: str) -> Path:
    """File of a teacher's weights in a run's folder."""
    return folder / "teachers" / f"seed-{seed}" / f"{name}.safetensors"


def student_folder(folder: Path, seed: int, name: str) -> Path:
    """Folder of a saved student."""
    return folder / "students" / f"seed-{seed}" / name


def baseline_file(folder: Path, seed: int, name: str) -> Path:
    """File of a baseline's weights; only the first seed's are saved."""
    return folder / "baseline" / f"seed-{seed}" / f"{name}.safetensors"


def fusion_file(folder: Path, seed: int) -> Path:
    """File of the weights of the fusion of teachers, if it has any."""
    return folder / "fusion" / f"seed-{seed}.safetensors"


def save_participants(run: RunContext, distiller: Distiller, seed: int, arm: str, students: Sequence[str]) -> dict[str, str]:
    """Save the participants of an arm; of the baseline, only the first seed's students.

    Args:
        run: The run.
        distiller: The participants of the arm.
        seed: Seed of the arm.
        arm: ``distilled`` or ``baseline``.
        students: Students that are ready for use. Of others, only the weights are saved, as those of teachers are.

    Returns:
        Teacher → hash of its weights.
    """
    digests = {}
    if arm == DISTILLED:
        for name in (*distiller.teachers, *(each for each in distiller.students if each not in students)):
            digests[name] = _save_weights(run, distiller, name, teacher_file(run.folder, seed, name))
        if weights := distiller.fusion.state_dict():
            save_weights(fusion_file(run.folder, seed), weights)
        for name in students:
            folder = student_folder(run.folder, seed, name)
            encoder = distiller.participant(name).encoder
            save_student(folder, run.assembly.pipelines[name], encoder, _description(run, name))
    elif seed == run.recipe.seeds[0]:
        for name in distiller.students:
            _save_weights(run, distiller, name, baseline_file(run.folder, seed, name))
    return digests


def _save_weights(run: RunContext, distiller: Distiller, name: str, path: Path) -> str:
    """Save a participant's weights with its preprocessing statistics, class names, transforms and versions; returns a hash."""
    whole = Model(run.assembly.pipelines[name].whole(), distiller.participant(name).encoder)
    source = run.recipe.participants[name].follows or name
    about = {
        "kdcore": __version__,
        "plugins": dict(run.versions),
        "classes": list(run.assembly.loaded.classes(source)),
        "transforms": _chains_of(run, source),
        **_target_of(run),
        **_trained_on(run, source),
    }
    return save_weights(path, whole.state_dict(), about)


def _target_of(run: RunContext) -> dict[str, Any]:
    """The form of the outputs, with the statistics of values; nothing for classes."""
    return {} if run.table.target.is_classes else {"target": asdict(run.table.target)}


def _trained_on(run: RunContext, name: str) -> dict[str, Any]:
    """The recordings that a participant was trained on; nothing for arrays, whose keys mean nothing in another run."""
    dataset = run.recipe.data.dataset.name
    if dataset == FROM_PYTHON:
        return {}
    return {"trained_on": recordings_as_json(dataset, learned_from(run.assembly, run.table, name))}


def _chains_of(run: RunContext, name: str) -> dict[str, Any]:
    """Transforms of each modality and of the joined ones, with every default filled in."""
    spec, member = run.assembly.specs[name], run.assembly.plan.filled_spec(name)
    chains = member["transforms"] if isinstance(member["transforms"], dict) else {spec.modalities[0]: member["transforms"]}
    return {key: chains.get(key, []) for key in (*spec.modalities, "joined")}


def _description(run: RunContext, name: str) -> dict[str, Any]:
    """Everything that loading the student needs, with every default filled in."""
    recipe, assembly, table = run.recipe, run.assembly, run.table
    spec = assembly.specs[name]
    filled = assembly.plan.filled
    signal = table.batch(table.training_rows("train", [name])[:1], [name]).signals[name]
    with torch.no_grad():
        in_shape = assembly.pipelines[name].batch_transforms.eval()(signal).shape[1:]
    options = {key: value for key, value in filled["data"]["dataset"].items() if key not in ("name", *PLACES)}
    continued = [other for other, each in recipe.student_specs.items() if each.starts_from == name]
    return {
        "name": name,
        "recipe": {"name": recipe.name, "hash": assembly.plan.hash},
        "kdcore": __version__,
        "plugins": run.versions,
        "dataset": {"name": recipe.data.dataset.name, "fingerprint": table.fingerprint, "options": options},
        "classes": list(table.classes),
        **_target_of(run),
        "in_shape": list(in_shape),
        "recorded": {modality: _recorded(run, modality) for modality in spec.modalities},
        "encoder": assembly.plan.filled_spec(name)["encoder"],
        "transforms": _chains_of(run, name),
        "window": filled["data"]["window"],
        **({"continued_by": continued} if continued else {}),
        **_trained_on(run, name),
    }


def _recorded(run: RunContext, modality: str) -> dict[str, Any]:
    """Shape, type and rate of a recording of this modality."""
    signal = first_recording(run, modality)
    return {"shape": list(signal.values.shape), "dtype": str(signal.values.dtype), "rate": signal.rate}


def first_recording(run: RunContext, modality: str) -> Signal:
    """Read this modality of the first training sample that could be read."""
    return run.assembly.dataset.read(_first_sample(run.table, modality), modality)


def _first_sample(table: Table, modality: str) -> Sample:
    samples = {sample.key: sample for sample in table.splits.samples["train"]}
    trained_on = (samples[replace(table.keys[row], window=0)] for row in table.rows["train"].tolist())
    return next(sample for sample in trained_on if modality in sample.sources)


def learned_from(assembly: Assembly, table: Table, participant: str) -> Iterator[SampleKey]:
    """Samples that a participant, or a network that it learned or started from, was trained on.

    Of networks with pretrained weights, these are the recordings that the weights file names, as keys without windows.
    """
    plan, dataset = assembly.plan, assembly.recipe.data.dataset.name
    names, found = {""}, {participant}
    while found - names:
        names |= found
        plans = [plan.participants[name] for name in found if name in plan.participants]
        for each in plans:
            yield from load_outputs(each.spec.outputs).trained_on if each.spec.outputs else ()
        for name in found & assembly.loaded.files.keys():
            yield from assembly.loaded.files[name].trained_on if assembly.loaded.files[name].dataset == dataset else ()
        found = {
            source or ""
            for each in plans
            for source in (*each.teachers, *each.peers, each.spec.follows, each.spec.starts_from, each.spec.classifier_from)
        }
    for stage in plan.stages[DISTILLED]:
        if learners := names & set(stage.learners):
            yield from (table.keys[row] for row in table.training_rows(stage.split, sorted(learners)).tolist())


def restore_participants(run: RunContext, seed: int, arm: str) -> Distiller:
    """Return all trained participants of an arm, in evaluation mode. Random states are not changed.

    They are constructed and loaded from the run's folder, unless `run` still has them in memory.

    Raises:
        CheckpointError: If weights are missing or do not match.
    """
    if trained := run.trained.get((seed, arm)):
        return trained.to(run.table.labels.device)
    before = random_state()
    try:
        distiller = run.assembly.distiller(run.table, seed, arm, run.table.labels.device)
    finally:
        restore_random_state(before)
    files = {name: teacher_file(run.folder, seed, name) for name in distiller.teachers}
    for name in distiller.students:
        whole, weights = student_folder(run.folder, seed, name) / WEIGHTS, teacher_file(run.folder, seed, name)
        whole = weights if weights.is_file() else whole
        files[name] = whole if arm == DISTILLED else baseline_file(run.folder, seed, name)
    try:
        for name, path in files.items():
            distiller.participant(name).encoder.load_state_dict(_encoder(load_weights(path)))
        if distiller.fusion.state_dict():
            distiller.fusion.load_state_dict(load_weights(fusion_file(run.folder, seed)))
    except RuntimeError as error:
        raise CheckpointError(f"{run.folder}: {error}") from error
    return distiller.eval()


def _encoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "encoder."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
