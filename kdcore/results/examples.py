"""Samples worth looking at, with what everybody said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from kdcore.contracts.modality import Modality, Signal
from kdcore.data.table import Table
from kdcore.errors import DataError
from kdcore.results.explaining import Explainer
from kdcore.results.looks import Look
from kdcore.runs.outcome import JOINT_TEACHERS, Outcome
from kdcore.training.assembly import BASELINE, DISTILLED, Assembly

MOST = 4


@dataclass(frozen=True)
class Example:
    """One sample.

    Args:
        key: Which it is.
        label: Its class.
        why: What is notable about it.
        answers: (who, class, confidence) of everybody.
        recordings: Modality → what was recorded.
        inputs: Participant → what its encoder reads (channel, height, width), where a picture is made of a signal.
        looks: Where everybody looked.
    """

    key: str
    label: str
    why: str
    answers: Sequence[tuple[str, str, float]]
    recordings: Mapping[str, tuple[Modality, Signal]] = field(default_factory=dict)
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    looks: Sequence[Look] = ()


def gather_examples(
    assembly: Assembly, table: Table, part: str, outcomes: Mapping[str, Outcome], explainer: Explainer | None = None
) -> list[Example]:
    """Some samples of a seed: first those that the student gets right only with distillation.

    Args:
        assembly: Of the run; its dataset is read.
        table: Of the run.
        part: Part of the split that was evaluated.
        outcomes: Arm → the seed's answers.
        explainer: Tells where that seed's participants looked.
    """
    samples = {sample.key: sample for sample in table.split.parts[part]}
    rows, found = table.parts[part], []
    for index, why in chosen(outcomes).items():
        key = table.keys[int(rows[index])]
        try:
            recordings = _recordings(assembly, samples[replace(key, window=0)])
        except DataError:
            continue
        label = table.classes[int(outcomes[DISTILLED].labels[index])]
        answers = _answers(outcomes, index, table.classes)
        inputs = _inputs(assembly, table, rows[index : index + 1])
        looks = explainer.looks(index) if explainer else ()
        found.append(Example(str(key), label, why, answers, recordings, inputs, looks))
    return found


def chosen(outcomes: Mapping[str, Outcome], most: int = MOST) -> dict[int, str]:
    """Row → why it is notable, for at most `most` rows; the most confident answers first."""
    after, student = outcomes[DISTILLED], outcomes[DISTILLED].students[0]
    known, now = after.labels >= 0, _correct(after, student)
    teachers = JOINT_TEACHERS if len(after.teachers) > 1 else "".join(after.teachers[:1])
    knew = _correct(after, teachers) if teachers else np.zeros_like(now)
    before = _correct(outcomes[BASELINE], student) if BASELINE in outcomes else now
    kinds = (
        ("The teachers knew it, and with distillation the student knows it, too", knew & ~before & now, 2),
        ("Right only with distillation", ~before & now, 1),
        ("Right only without distillation", before & ~now, 1),
        ("Wrong", ~now, 1),
        ("Right", now, 1),
    )
    sure = after.probabilities[student].max(axis=1)
    found: dict[int, str] = {}
    for why, which, number in kinds:
        rows = [row for row in np.argsort(-sure, kind="stable").tolist() if known[row] and which[row] and row not in found]
        found |= dict.fromkeys(rows[:number], why)
    return dict(list(found.items())[:most])


def _correct(outcome: Outcome, name: str) -> np.ndarray:
    if name == JOINT_TEACHERS:
        return np.mean([outcome.probabilities[each] for each in outcome.teachers], axis=0).argmax(1) == outcome.labels
    return outcome.probabilities[name].argmax(axis=1) == outcome.labels


def _answers(outcomes: Mapping[str, Outcome], index: int, classes: Sequence[str]) -> list[tuple[str, str, float]]:
    after = outcomes[DISTILLED]
    told = [(name, after.probabilities[name][index]) for name in after.teachers]
    if BASELINE in outcomes:
        told += [(f"{name}, without distillation", outcomes[BASELINE].probabilities[name][index]) for name in after.students]
    told += [(f"{name}, with distillation", after.probabilities[name][index]) for name in after.students]
    return [(who, classes[int(given.argmax())], float(given.max())) for who, given in told]


def _recordings(assembly: Assembly, sample) -> dict[str, tuple[Modality, Signal]]:
    names = dict.fromkeys(name for spec in assembly.specs.values() for name in spec.modalities)
    return {name: (assembly.dataset.modalities[name], assembly.dataset.read(sample, name)) for name in names}


@torch.no_grad()
def _inputs(assembly: Assembly, table: Table, row: torch.Tensor) -> dict[str, np.ndarray]:
    """Of participants to whom signals without height and width are shown as pictures, each kind of picture once."""
    found: dict[str, np.ndarray] = {}
    for name, pipeline in assembly.pipelines.items():
        if pipeline.axes & {"height", "joint"}:
            continue
        signal = table.batch(row, [name]).signals[name]
        values = pipeline.live.to(row.device).eval()(signal)[0].float().cpu().numpy()
        if values.ndim == 3:
            found[name] = values
    return found
