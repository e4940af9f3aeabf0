"""Writes the records of a run: facts, journal, state, predictions and weights."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from kdcore.contracts.tracker import Tracker
from kdcore.plugin.files import is_file
from kdcore.recipe.plan import BASELINE, DISTILLED
from kdcore.runs.artifacts import save_participants
from kdcore.runs.callbacks import RunListener
from kdcore.runs.context import RunContext, run_facts, tags_of
from kdcore.runs.extension import Extension
from kdcore.runs.journal import Status, flattened
from kdcore.runs.outcome import Outcome, write_outcome
from kdcore.runs.records import FACTS, outcome_file, read_facts, record_phases, resumed_facts
from kdcore.runs.state import RunState
from kdcore.runs.summary import Summary
from kdcore.runs.tracked_metrics import means, metric_group
from kdcore.training.checkpoint import Checkpoints, write_file
from kdcore.training.participants import Distiller
from kdcore.training.phases import TRACKING, Phases


class RunRecorder:
    """Records a run in its folder and, through its journal, in a tracker. Only the first process of a run has a recorder.

    Records are final once the journal is committed. A resumed run discards records after the last commit and repeats that work.

    Args:
        run: The run, with its journal.
        state: Progress of the run; updated by this class.
        checkpoints: Checkpoints of the run.
        listener: Shows notes to the user.
        phases: Timer of the run.
    """

    def __init__(self, run: RunContext, state: RunState, checkpoints: Checkpoints, listener: RunListener, phases: Phases):
        assert run.journal is not None
        self.run, self.journal, self.plan, self.state = run, run.journal, run.assembly.plan, state
        self.checkpoints, self.listener, self.phases = checkpoints, listener, phases
        self._timed = False  # whether `phases` includes the time of earlier processes

    def begin(self, extended: Path | None) -> None:
        """Write the run's facts, begin its record in the tracker, and show notes.

        Args:
            extended: Folder of the finished run that this run extends; None if there is none.
        """
        folder, notes = self.run.folder, list(self.run.assembly.notes)
        if type(self.journal.tracker) is Tracker:
            notes.insert(0, f"nothing is tracked: the plugin 'mlflow' is not in use; metrics are in {self.journal.folder}")
        if self.plan.unread and not self.plan.recipe.fusion:
            notes.append(f"no student learns from {', '.join(self.plan.unread)}: no term of its objective reads it")
        own = read_facts(folder)
        phases = own.phases if own else {}
        self.phases.add(phases)
        self._timed = True
        before = own or (read_facts(extended) if extended else None)
        facts = replace(resumed_facts(run_facts(self.run), before), phases=phases, tracking=self.journal.tracker.describe())
        if self.state.extends:
            lines = Extension(**self.state.extends).lines()
            facts = replace(facts, extends=self.state.extends, notes=[*facts.notes, *lines])
            notes += lines
        write_file(folder / FACTS, facts.content())
        for note in (*notes, *facts.resumed):
            self.listener.say(note)
        tags = tags_of(self.run, self.state.extends.get("run", ""))
        self.journal.start("root", _title(self.run), None, tags, _params(self.plan.filled))

    def begin_seed(self, seed: int) -> None:
        """Begin the record of a seed, or continue it."""
        name = self.run.recipe.name
        params = {**_params(self.plan.filled), "seed": seed}  # all params, so that trackers can compare seeds across runs
        self.journal.start(f"seed-{seed}", f"{name} seed {seed}", "root", {"seed": seed}, params)

    def metrics(self, seed: int, arm: str, values: Mapping[str, float], step: int) -> None:
        """Record the metrics of a training step or epoch."""
        prefix = "" if arm == DISTILLED else f"{BASELINE}/"
        self.journal.metrics(f"seed-{seed}", {f"{prefix}{name}": value for name, value in values.items()}, step)

    def save_checkpoint(self, seed: int, arm: str, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Save a checkpoint with the position of the journal, then commit the journal up to that position."""
        position = self.journal.flush()
        self.checkpoints.save(weights, {**state, "seed": seed, "arm": arm, "journal": position})
        self.journal.commit()

    def save_arm(self, distiller: Distiller, seed: int, outcome: Outcome) -> None:
        """Save an arm's predictions and weights, and record its metrics."""
        child, run = f"seed-{seed}", self.run
        write_outcome(outcome_file(run.folder, seed, outcome.arm), outcome)
        for name, evaluation in outcome.evaluations().items():
            group = metric_group(run.split, outcome, name, self.plan.students, self.plan.distilled)
            self.journal.metrics(child, {f"{group}/{metric}": value for metric, value in evaluation.metrics().items()}, 0)
        if digests := save_participants(run, distiller, seed, outcome.arm, outcome.students):
            self.journal.tags(child, {f"teacher.{name}": digest for name, digest in digests.items()})
        run.hook.arm_finished(run=run, seed=seed, arm=outcome.arm, outcome=outcome)

    def finish(self, summary: Summary, report: Path | None) -> None:
        """Record the results of a run whose arms are all trained, and end its record."""
        self.journal.metrics("root", means(summary), 0)
        with self.phases.during(TRACKING):
            self.run.hook.run_finished(run=self.run, summary=summary, report=report)
        for seed in self.run.recipe.seeds:
            self.journal.finish(f"seed-{seed}")
        self.journal.finish("root")
        self.state.complete = True
        self.commit()

    def interrupt(self, status: Status, unfinished: Collection[int]) -> None:
        """End the record of a run that was interrupted, and discard what a resumed run will record again.

        Args:
            status: Status of the unfinished parts.
            unfinished: Seeds with arms left to train.
        """
        self.journal.rewind(self.journal.position)
        finished = {f"seed-{seed}" for seed in self.run.recipe.seeds if seed not in unfinished}
        for name in self.journal.under_way():
            self.journal.finish(name, "FINISHED" if name in finished else status)
        self.journal.commit()

    def commit(self) -> None:
        """Commit everything recorded so far: write the state, then commit the journal up to the same position."""
        self.record_phases()
        self.state.journal = self.journal.flush()
        self.state.write(self.run.folder)
        self.journal.commit()

    def record_phases(self) -> None:
        """Write the timings so far to the run's facts; not for a run that was complete before."""
        if self._timed:
            record_phases(self.run.folder, self.phases.listed())


def _title(run: RunContext) -> str:
    """The recipe's name and the overrides of the run's command, cut after 100 characters: trackers list runs by it."""
    words = run.command[2:]  # without ``kdcore run``
    overrides = [word for before, word in pairwise(words) if re.match(r"\w[^\s=]*=", word) and before != "--plugin"]
    return textwrap.shorten(" ".join([run.recipe.name, *overrides]), 100, placeholder=" …")


def _params(filled: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's keys; plugin files by the path of their copy in the run's folder, which a resumed run loads."""
    plugins = [f"plugins/{Path(name).name}" if is_file(name) else name for name in filled["plugins"]]
    return flattened({**filled, "plugins": plugins})
