"""Samples worth looking at, with what everybody said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from kdcore import DataError, Modality, Outcome, RunContext, Signal
from kdcore_report.saliency import BASELINE, DISTILLED, Explainer
from kdcore_report.saliency_plots import Look

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


def gather_examples(run: RunContext, seed: int, outcomes: Mapping[str, Outcome]) -> list[Example]:
    """Some samples of a seed: first those that the student gets right only with distillation.

    Args:
        run: The run; its dataset is read.
        seed: Whose answers are shown.
        outcomes: Arm → the seed's answers.

    Returns:
        Examples; none if samples have no single class.
    """
    if not run.table.target.is_classes:
        return []
    table, explainer = run.table, Explainer(run, seed, outcomes)
    samples = {sample.key: sample for sample in table.splits.samples[run.split]}
    rows, found = table.rows[run.split], []
    for index, why in chosen(outcomes).items():
        key = table.keys[int(rows[index])]
        try:
            recordings = _recordings(run, samples[replace(key, window=0)])
        except DataError:
            continue
        label = table.classes[int(outcomes[DISTILLED].labels[index])]
        answers = _answers(outcomes, index, table.classes)
        inputs = _inputs(run, rows[index : index + 1])
        looks = explainer.looks(index)
        found.append(Example(str(key), label, why, answers, recordings, inputs, looks))
    return found


def chosen(outcomes: Mapping[str, Outcome], most: int = MOST) -> dict[int, str]:
    """Row → why it is notable, for at most `most` rows; the most confident answers first."""
    after = outcomes[DISTILLED]
    both = [name for name in after.students if BASELINE in outcomes and name in outcomes[BASELINE].students]
    student = (both or after.students)[0]
    known, now = after.labels >= 0, _correct(after, student)
    for name in after.teachers:
        known = known & ~np.isnan(after.probabilities[name]).any(1)  # all that is shown of a sample is there
    knew = _correct(after, *after.teachers) if after.teachers else np.zeros_like(now)
    before = _correct(outcomes[BASELINE], student) if both else now
    kinds = (
        ("The teachers and the distilled student are correct, the baseline is wrong", knew & ~before & now, 2),
        ("Only the distilled student is correct", ~before & now, 1),
        ("Only the baseline is correct", before & ~now, 1),
        ("The student is wrong", ~now, 1),
        ("The student is correct", now, 1),
    )
    sure = after.probabilities[student].max(axis=1)
    found: dict[int, str] = {}
    for why, which, number in kinds:
        rows = [row for row in np.argsort(-sure, kind="stable").tolist() if known[row] and which[row] and row not in found]
        found |= dict.fromkeys(rows[:number], why)
    return dict(list(found.items())[:most])


def _correct(outcome: Outcome, *names: str) -> np.ndarray:
    """A mask of the samples that all of these participants got right."""
    return np.mean([outcome.probabilities[name] for name in names], axis=0).argmax(1) == outcome.labels


def _answers(outcomes: Mapping[str, Outcome], index: int, classes: Sequence[str]) -> list[tuple[str, str, float]]:
    after = outcomes[DISTILLED]
    told = [(name, after.probabilities[name][index]) for name in after.teachers]
    arm = ", distilled" if BASELINE in outcomes else ""
    if BASELINE in outcomes:
        alone = outcomes[BASELINE]
        told += [(f"{name}, baseline", alone.probabilities[name][index]) for name in alone.students]
    told += [(f"{name}{arm}", after.probabilities[name][index]) for name in after.students]
    return [(who, classes[int(given.argmax())], float(given.max())) for who, given in told]


def _recordings(run: RunContext, sample) -> dict[str, tuple[Modality, Signal]]:
    names = dict.fromkeys(name for spec in run.assembly.specs.values() for name in spec.modalities)
    return {name: (run.assembly.dataset.modalities[name], run.assembly.dataset.read(sample, name)) for name in names}


@torch.no_grad()
def _inputs(run: RunContext, row: torch.Tensor) -> dict[str, np.ndarray]:
    """Of participants to whom signals without height and width are shown as pictures, each kind of picture once."""
    found: dict[str, np.ndarray] = {}
    for name, pipeline in run.assembly.pipelines.items():
        if pipeline.axes & {"height", "joint"}:
            continue
        signal = run.table.batch(row, [name]).signals[name]
        values = pipeline.batch_transforms.to(row.device).eval()(signal)[0].float().cpu().numpy()
        if values.ndim == 3:
            found[name] = values
    return found
