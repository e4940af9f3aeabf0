"""Saliency maps of participants, computed by plugins and losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kdcore import THRESHOLD, DistillationLoss, Distiller, KdcoreError, Outcome, Outputs, RunContext, restore_participants, warn
from kdcore_report.saliency_plots import Saliency

BASELINE, DISTILLED = "baseline", "distilled"

MOST = 2
"""Maximum number of labels or values of a sample that are explained."""


class Explainer:
    """Computes the saliency of the participants of a seed for samples of the evaluated split.

    The evaluated prediction is explained. Teachers combined by a fusion run together, with the same batch as in the evaluation
    if their outputs depend on it. For labels, the logits of the predicted ones are explained, or that of the most probable
    label; for values, the estimates.

    Args:
        run: The run whose folder contains the weights.
        seed: Seed of the participants.
        outcomes: Outcomes of the seed by arm.
    """

    def __init__(self, run: RunContext, seed: int, outcomes: Mapping[str, Outcome]):
        self.run, self.outcomes, self.hook = run, outcomes, run.hook
        self.rows = run.table.rows[run.split]
        self.seen = {name for name, pipeline in run.assembly.pipelines.items() if "joint" not in pipeline.axes}
        self.arms: dict[str, Distiller] = {}
        for arm in outcomes if self.seen and self.hook.explain.get_hookimpls() else ():
            try:
                self.arms[arm] = restore_participants(run, seed, arm)
            except KdcoreError as error:
                _warn(f"the {arm} arm", error)

    def explain(self, index: int) -> list[Saliency]:
        """Return the saliency of teachers, then of students without and with distillation, for sample `index`."""
        found = []
        for arm, name in self._participants():
            participant = name if arm == DISTILLED and name in self.arms[arm].teachers else f"{name}, {arm}"
            try:
                explained = [self._saliency(self.arms[arm], arm, name, index, each) for each in self._outputs(arm, name, index)]
            except Exception as error:  # a plugin may raise anything, and a missing image must not fail the run
                _warn(participant, error)
                continue
            found += [replace(saliency, participant=participant) for saliency in explained if saliency.maps]
        return found

    def _outputs(self, arm: str, name: str, index: int) -> list[int]:
        """Return the outputs of a participant to explain: the predicted class or labels, or the first values."""
        given = self.outcomes[arm].probabilities[name][index]
        kind = self.run.table.target.kind
        if kind == "values":
            return list(range(len(given)))[:MOST]
        order = np.argsort(-given, kind="stable").tolist()
        predicted = [each for each in order if given[each] >= THRESHOLD] if kind == "labels" else []
        return (predicted or order[:1])[:MOST]

    def _participants(self) -> Iterator[tuple[str, str]]:
        for role, arm in (("teachers", DISTILLED), ("students", BASELINE), ("students", DISTILLED)):
            if arm in self.arms:
                known = self.seen & self.outcomes[arm].probabilities.keys()
                yield from ((arm, name) for name in getattr(self.arms[arm], role) if name in known)

    def _saliency(self, distiller: Distiller, arm: str, name: str, index: int, output: int) -> Saliency:
        size = self.run.recipe.data.batch_size
        start = index // size * size
        around = _Place(distiller, self.run, name, self.rows[start : start + size], index - start)
        alone = _Place(distiller, self.run, name, self.rows[index : index + 1], 0)
        fused = name in distiller.teachers and distiller.fusion.batch_dependent
        place = around if fused else alone
        inputs = place.inputs()
        maps: dict[str, Tensor] = {}
        if inputs.dim() in (4, 5):
            maps = {title: map_[place.row] for title, map_ in place.from_plugins(self.hook, inputs, output).items()}
            if arm == DISTILLED and output == self._outputs(arm, name, index)[0]:
                maps |= {title: map_[around.row] for title, map_ in around.from_losses().items()}
        shown = {title: _scaled(map_, inputs.dim() == 5) for title, map_ in maps.items()}
        pixels = inputs[place.row].float().cpu().numpy()
        return Saliency(name, *self._prediction(arm, name, index, output), pixels, shown)

    def _prediction(self, arm: str, name: str, index: int, output: int) -> tuple[str, bool | None]:
        """Return a participant's prediction as text, and whether it is correct; None for values and unknown labels."""
        table, outcome = self.run.table, self.outcomes[arm]
        true = outcome.labels[index]
        if table.target.kind == "values":
            unit = table.target.units[output] if table.target.units else ""
            return f"{table.classes[output]} {outcome.probabilities[name][index][output]:.4g} {unit}".strip(), None
        if table.target.kind == "labels":
            given = float(outcome.probabilities[name][index][output])
            if given < THRESHOLD:  # the most probable label is explained, but none was predicted
                return f"{table.classes[output]} {100 * given:.0f} %, not predicted", None
            return table.classes[output], None if np.isnan(true[output]) else bool(true[output] == 1)
        return table.classes[output], output == int(true)


@dataclass(frozen=True)
class _Place:
    """A participant with a batch; one row is explained."""

    distiller: Distiller
    run: RunContext
    name: str
    rows: Tensor
    row: int

    @property
    def teaches(self) -> bool:
        return self.name in self.distiller.teachers

    @torch.no_grad()
    def inputs(self) -> Tensor:
        return self.distiller.participant(self.name).input(
            self.run.table.batch(self.rows, [self.name], False).signals[self.name]
        )

    def from_plugins(self, hook: Any, inputs: Tensor, output: int) -> dict[str, Tensor]:
        names = [*self.distiller.teachers] if self.teaches else [self.name]
        batch = self.run.table.batch(self.rows, names, labelled=False)

        def score(x: Tensor) -> Tensor:
            given = replace(batch, signals={**batch.signals, self.name: x})
            with self.distiller.ready([self.name]):
                outputs = (
                    self.distiller.run_teachers(names, given)[self.name] if self.teaches else self.distiller(self.name, given)
                )
            return outputs.logits[self.row, output]

        with torch.enable_grad():
            maps = hook.explain(participant=self.distiller.participant(self.name), inputs=inputs, score=score)
        return {title: map_ for each in reversed(maps) for title, map_ in each.items()}

    @torch.no_grad()
    def from_losses(self) -> dict[str, Tensor]:
        learner = next(iter(self.distiller.students)) if self.teaches else self.name
        role: Literal["teacher", "student"] = "teacher" if self.teaches else "student"
        found: dict[str, Tensor] = {}
        for loss in self.distiller.losses(learner).values():
            if type(loss).maps is not DistillationLoss.maps:
                found |= loss.maps(self._outputs(loss.needs.ablated), role, self.distiller.class_embeddings)
        return found

    def _outputs(self, ablated: str | None) -> Outputs:
        if not self.teaches:
            return self.distiller.forward(self.name, self.run.table.batch(self.rows, [self.name], labelled=False), ablated)
        names = [*self.distiller.teachers]
        batch = self.run.table.batch(self.rows, names, labelled=False)
        outputs = self.distiller.run_teachers(names, batch)[self.name]
        return replace(outputs, ablated=self.distiller.ablated_teachers(names, batch)[self.name] if ablated else None)


def _scaled(map_: Tensor, of_clip: bool) -> np.ndarray:
    """Scale maps to the range from 0 to 1 over all frames."""
    if map_.dim() not in ((2, 3) if of_clip else (2,)):
        raise ValueError(f"a map of shape {tuple(map_.shape)} does not fit {'a clip' if of_clip else 'an image'}")
    values = map_.detach().float().clamp(min=0).cpu()
    return (values / values.amax().clamp(min=torch.finfo(values.dtype).tiny)).numpy()


def _warn(participant: str, error: Exception) -> None:
    warn(f"no saliency map of {participant}: {type(error).__name__}: {error}")
