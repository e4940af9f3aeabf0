"""Runs the learners of a stage and their sources on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdcore.contracts.batch import Batch, Outputs
from kdcore.data.table import Table
from kdcore.recipe.graph import StagePlan
from kdcore.training.distributed import gather_outputs
from kdcore.training.participants import Distiller
from kdcore.training.phases import FORWARD, TEACHERS, TEACHERS_FORWARD, Phases
from kdcore.training.randomness import RandomStream
from kdcore.training.teacher_cache import CachedOutputs, is_random

FEWEST = 2
"""Minimum number of rows to train a network: batch normalisation cannot train on one sample."""


@dataclass
class BatchOutputs:
    """Outputs of a stage's participants for a batch.

    Args:
        outputs: Participant → its outputs for the rows that it has. Outputs of learners have gradients.
        positions: Participant → (B,) int64, index of each row of the batch in its outputs, -1 for rows that it lacks.
            Participants that have all rows are left out.
    """

    outputs: dict[str, Outputs] = field(default_factory=dict)
    positions: dict[str, Tensor] = field(default_factory=dict)

    def common_rows(self, names: Sequence[str], wanted: Tensor | None = None) -> Tensor | None:
        """Return indices of the rows that all of `names` have; None if these are all rows of the batch.

        Args:
            names: Participants.
            wanted: (B,) bool mask of the rows to consider; None for all.
        """
        if not self.positions and wanted is None:
            return None
        masks = [self.positions[name] >= 0 for name in names if name in self.positions]
        if wanted is not None:
            masks.append(wanted)
        if not masks or bool((mask := torch.stack(masks).all(0)).all()):
            return None
        return mask.nonzero().flatten()

    def select(self, names: Iterable[str], index: Tensor | None) -> dict[str, Outputs]:
        """Return the outputs of `names` for the rows `index` (None: all rows), without sources that did not run."""
        outputs = {name: self.outputs[name] for name in names if name in self.outputs}
        if index is None:
            return outputs
        positions = self.positions
        return {n: each.select(positions[n][index] if n in positions else index) for n, each in outputs.items()}


class StageNetworks:
    """Runs the learners of a stage and their sources on batches.

    Learners run with gradients, sources without. Outputs of the sources in `cached` are looked up. With missing modalities,
    each network runs on the rows that it has, and fused teachers on the rows that all of them have.

    Args:
        distiller: All participants of the arm, with their losses.
        stage: The learners of the stage and their sources.
        table: Prepared samples, indexed by row.
        cached: Source → its cached outputs; others run in every step.
        gather: Gathers a tensor from all ranks along its batch axis, differentiably; None in a single process.
        phases: Timer of the training phases.

    Attributes:
        fused: The learners that the fusion runs.
        teachers: The learners that are teachers.
        students: The learners that are students.
        live: The sources that run in every step.
        present: Participant → (N,) bool, whether a row has its signals or stored outputs. Participants that have all rows are
            left out.
        stream: Random stream of teachers that run in students' steps, so that students draw the same numbers in both arms; None
            if not needed.
    """

    def __init__(
        self,
        distiller: Distiller,
        stage: StagePlan,
        table: Table,
        cached: Mapping[str, CachedOutputs],
        gather: Callable[[Tensor], Tensor] | None,
        phases: Phases,
    ):
        self.distiller, self.stage, self.table, self.gather, self.phases = distiller, stage, table, gather, phases
        self.cached = {name: each for name, each in {**distiller.stored, **cached}.items() if name in stage.sources}
        self.fused = [name for name in stage.learners if name in distiller.fused]
        self.teachers = [name for name in stage.learners if name in distiller.teachers]
        self.students = [name for name in stage.learners if name in distiller.students]
        self.live = [name for name in stage.sources if name not in self.cached]
        self.present = self._present_rows()
        random = any(is_random(distiller.participant(name)) for name in self.live)
        self.stream = RandomStream("stream", table.labels.device) if self.students and (self.teachers or random) else None
        self._live_groups = distiller.independent_groups(self.live)
        self._teacher_groups = distiller.independent_groups(self.teachers)
        self._ablation = {name: distiller.ablation(name) for name in stage.learners}
        self._reads_ablated = any(self._ablation.values())
        self._ablated_sources: dict[str, Outputs] | None = None

    def run(self, rows: Tensor, batch: Batch) -> BatchOutputs:
        """Compute the outputs for a batch.

        Args:
            rows: (B,) int64, rows of the global batch.
            batch: This process's share of it, with the inputs.
        """
        results, mark = BatchOutputs(), self.phases.mark
        mark(TEACHERS)
        for name, cached in self.cached.items():
            index = self._present_index([name], rows, results)
            results.outputs[name] = cached.at(rows if index is None else rows[index])
        if self.live:
            with torch.no_grad(), self.stream or nullcontext():
                for group in self._live_groups:
                    self._run(self.distiller.run_teachers, group, rows, batch, results)
        if results.outputs and self._reads_ablated:
            self._add_ablated(rows, results)
        if self.teachers:
            mark(TEACHERS_FORWARD)
            with self.stream or nullcontext():
                for group in self._teacher_groups:
                    run = self.distiller.run_teachers if group == self.fused else self._forward
                    self._run(run, group, rows, batch, results, FEWEST)
        if self.students:
            mark(FORWARD)
            for name in self.students:
                self._run(self._forward, [name], rows, batch, results, FEWEST)
        return results

    def _run(
        self,
        run: Callable[[Sequence[str], Batch], Mapping[str, Outputs]],
        group: Sequence[str],
        rows: Tensor,
        batch: Batch,
        results: BatchOutputs,
        fewest: int = 1,
    ) -> None:
        """Run a group on the rows that all its members have; with fewer than `fewest` rows, learners get empty outputs."""
        index = self._present_index(group, rows, results) if self.present else None
        if index is not None and len(index) < fewest:
            results.positions |= dict.fromkeys(group, torch.full_like(rows, -1))
            results.outputs |= {name: self._empty_outputs(name) for name in group if name in self.stage.learners}
            return
        if index is not None:
            batch = replace(batch, signals={name: batch.signals[name] for name in group}).select(index)
        outputs = run(group, batch)
        if gather := self.gather:
            outputs = {n: gather_outputs(each, gather, self._ablation.get(n) == "mixed") for n, each in outputs.items()}
        results.outputs |= outputs

    def _forward(self, names: Sequence[str], batch: Batch) -> dict[str, Outputs]:
        return {name: self.distiller.forward(name, batch, self._ablation[name]) for name in names}

    def _present_rows(self) -> dict[str, Tensor]:
        names, table = (*self.stage.learners, *self.stage.sources), self.table
        present = {name: table.present[name] for name in names if name in table.present}
        for name in names:
            if name in self.distiller.stored:
                covers, rows = self.distiller.stored[name].covers, table.training_rows(self.stage.split)
                if not bool(covers(rows).all()):
                    present[name] = covers(torch.arange(len(table.keys), device=rows.device))
        return present

    def _present_index(self, group: Sequence[str], rows: Tensor, results: BatchOutputs) -> Tensor | None:
        """Return indices of the rows that all of `group` have, and store positions in `results`; None if they have all rows."""
        masks = [self.present[name][rows] for name in group if name in self.present]
        if not masks or bool((mask := torch.stack(masks).all(0)).all()):
            return None
        index = mask.nonzero().flatten()
        position = torch.full_like(rows, -1)
        position[index] = torch.arange(len(index), device=rows.device)
        results.positions |= dict.fromkeys(group, position)
        return index

    def _empty_outputs(self, name: str) -> Outputs:
        """Empty outputs of a learner, connected to its parameters: backward then gives them zero gradients instead of None."""
        zero = torch.zeros((), device=self.table.labels.device)
        for parameter in self.distiller.participant(name).parameters():
            zero = zero + parameter.sum() if parameter.requires_grad else zero
        return Outputs((zero * 0.0).expand(0, len(self.table.classes)))

    def _add_ablated(self, rows: Tensor, results: BatchOutputs) -> None:
        """Add the outputs for an all-zero input to those of the sources. They change only with moving averages."""
        networks = [name for name in self.stage.sources if name not in self.distiller.stored]
        if self._ablated_sources is None or set(networks) & set(self.distiller.averages):
            sample = self.table.batch(rows[:1], networks, stand_ins=True)
            self._ablated_sources = self.distiller.ablated_teachers(networks, sample)
        for name, outputs in results.outputs.items():
            results.outputs[name] = replace(outputs, ablated=self._ablated_sources.get(name))
