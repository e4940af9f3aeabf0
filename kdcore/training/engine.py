"""The training loop: trains the learners of one arm stage by stage, on Lightning Fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdcore.contracts.progress import Progress
from kdcore.data.table import Table
from kdcore.errors import StoppedError, TrainingError
from kdcore.recipe.graph import StagePlan
from kdcore.training.callback import Listener
from kdcore.training.checkpoint import Checkpoint, Spacing
from kdcore.training.distributed import gatherer, synchronise_batch_norm
from kdcore.training.divergence import Skipping, growing_losses
from kdcore.training.epoch_report import EpochReport
from kdcore.training.epoch_start import begin_epoch
from kdcore.training.evaluation import predict
from kdcore.training.gradient_watch import GradientWatch
from kdcore.training.learner import Learner
from kdcore.training.participants import Distiller
from kdcore.training.phases import CHECKPOINTS, CHECKS, EVALUATION, TEACHERS, Phases
from kdcore.training.process_check import ProcessCheck
from kdcore.training.randomness import derive, random_state, restore_random_state, seed_everything
from kdcore.training.settings import Settings
from kdcore.training.sharding import FullWeights, ShardedWeights
from kdcore.training.sources import begin_stage, cached_sources, set_modes
from kdcore.training.stage_context import StageContext, optimizer_steps
from kdcore.training.step import StageStep
from kdcore.training.trained_teachers import TrainedStages, stage_lock
from kdcore.training.updates import Updates
from kdcore.training.validation import Scores, averages_applied, early_end, follow_plateaus, improved

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Engine:
    """Trains the learners of one arm.

    Args:
        fabric: Devices, precision, processes.
        distiller: All participants of the arm, with their losses.
        table: Prepared samples, indexed by row, on the fabric's device.
        settings: Options of the training loop.
        record: Called with (metrics, step) to track metrics.
        save: Called with (weights, state) to write a checkpoint.
        listener: Callbacks for stages, steps and epochs.
        trained: Store of finished teacher stages to reuse; None to train every stage. Ignored with several processes.
        scaler: Gradient scaler for float16; None for other precisions.
        finish: Called with (weights, state) after the last epoch of the last stage, before averaged or best weights are loaded.
        phases: Timer of the training phases; a new one by default.
        process_check: Warns if several processes are slower than one; a new one by default.
    """

    def __init__(
        self,
        fabric: Fabric,
        distiller: Distiller,
        table: Table,
        settings: Settings,
        record: Callable[[Mapping[str, float], int], None] = lambda metrics, step: None,
        save: Callable[[Mapping[str, Tensor], Mapping[str, Any]], None] = lambda weights, state: None,
        listener: Listener | None = None,
        trained: TrainedStages | None = None,
        scaler: torch.amp.GradScaler | None = None,
        finish: Callable[[Mapping[str, Tensor], Mapping[str, Any]], None] = lambda weights, state: None,
        phases: Phases | None = None,
        process_check: ProcessCheck | None = None,
    ):
        self.fabric, self.distiller, self.table, self.settings = fabric, distiller, table, settings
        self.trained = trained if fabric.world_size == 1 else None
        self.save, self.finish, self.listener, self.scaler = save, finish, listener or Listener(), scaler
        self.stop_requested, self.learners = False, dict[str, Learner]()
        limit, alone = settings.skipped_steps, fabric.world_size == 1
        self.skipping = Skipping(limit, alone, scaler is not None) if limit is not None else None
        self.watch, self.phases = GradientWatch(taps=not settings.compile), phases or Phases()
        if fabric.device.type == "cuda":
            self.phases.synchronise = torch.cuda.synchronize
        self.shards = ShardedWeights(fabric, distiller) if settings.sharded else FullWeights()
        self.updates = Updates(fabric, distiller, scaler, self.skipping, self.phases, self.shards)
        self.report = EpochReport(distiller, record, self.listener, self.watch, self.skipping, settings.log_every)
        self.spacing, self.process_check = Spacing(settings.checkpoint_seconds), process_check or ProcessCheck()

    @property
    def notes(self) -> list[str]:
        """Remarks on the training, shown with the results."""
        return self.report.notes

    def fit(self, stages: Sequence[StagePlan], checkpoint: Checkpoint | None = None) -> None:
        """Train through `stages`, from the start or from a checkpoint.

        Raises:
            TrainingError: If a loss becomes NaN or infinite.
            StoppedError: If a stop was requested, after a checkpoint was saved.
        """
        state = checkpoint.state if checkpoint else None
        self.updates.reset_scaler(state)
        first = self._restore(stages, *checkpoint) if checkpoint else 0
        for ordinal, stage in enumerate(stages[first:], first):
            resumed = state if ordinal == first else None
            key = self.trained.key(stages, stage, self.distiller, self.table) if self.trained and not resumed else None
            with stage_lock(self.trained, key, lambda: self.stop_requested):
                if not self._reuse(key, stage):
                    context = self._begin_stage(ordinal, stages, resumed, key)
                    while context.done < stage.epochs and not context.ended:
                        self._begin_epoch(context, resumed)
                        for index, rows in enumerate(self._batches(context), context.index):
                            local = self._begin_step(context, index, rows)
                            with self.fabric.autocast():
                                total, values = context.module(rows, local)
                            self.updates.update(context, total, values)
                            self._end_step(context)
                        self._end_epoch(context)
                    self._end_stage(context, stages, key)
            self.report.history = []
            if ordinal + 1 < len(stages):
                self._checkpoint(ordinal + 1)

    def _reuse(self, key: str | None, stage: StagePlan) -> bool:
        """Load the result of a stage that an earlier run trained; returns False if there is none."""
        stored = self.trained.load(key) if self.trained and key else None
        if stored is None:
            return False
        weights, history, notes = stored
        self.shards.load(self.distiller, weights)
        for metrics, step in history:
            self.report.record(metrics, step)
        self.listener.stage_reused(stage)
        self.report.note(*notes)
        return True

    def _begin_stage(
        self, ordinal: int, stages: Sequence[StagePlan], resumed: Mapping[str, Any] | None, key: str | None
    ) -> StageContext:
        """Construct the context of a stage, which continues from the state `resumed` of a checkpoint if there is one."""
        self.report.begin_stage(resumed["history"] if resumed else (), keep=key is not None)
        context = self._context(ordinal, stages)
        self.listener.stage_started(context.stage, context.steps)
        self.phases.begin_stage(context.stage.name, context.stage.epochs * context.steps)
        if resumed:
            context.ended, context.done = str(resumed["ended"]), int(resumed["epoch"])
            if context.ended and context.done < context.stage.epochs and not context.first.ended:
                self._note_early_end(context)
        return context

    def _end_stage(self, context: StageContext, stages: Sequence[StagePlan], key: str | None) -> None:
        """Load the selected weights, and store the stage under `key` for later runs, unless a callback ended it."""
        self.phases.end_stage()
        if context.ordinal + 1 == len(stages):
            self.finish(*self._state(context.ordinal, context.done, 0, context))
        self._load_selected(context)
        self.report.note(*growing_losses(self.report.history, context.step.names))
        if self.trained and key and not context.ended_by_callback:
            self.trained.save(key, self._weights(context.stage.learners), *self.report.stage_record())
        self.listener.stage_finished(context.stage)

    def _context(self, ordinal: int, stages: Sequence[StagePlan]) -> StageContext:
        stage = stages[ordinal]
        before = sum(other.epochs for other in stages[:ordinal] if other.order == stage.order)
        later = {name for other in stages[ordinal + 1 :] for name in self.distiller.with_fusion(other.learners)}
        rows, batch_size = self._rows(stage)
        if batch_size % self.fabric.world_size:
            raise TrainingError(f"batch_size {batch_size} cannot be shared equally by {self.fabric.world_size} processes")
        new = [name for name in stage.learners if self.learners.keys().isdisjoint(self.distiller.with_fusion([name]))]
        begin_stage(self.distiller, stage, new)  # before averages of weights begin
        learners = [self._learner(name, stage) for name in self.distiller.with_fusion(stage.learners)]
        limit, gather = (self.settings.cache_limit if self.settings.teacher_cache else None), gatherer(self.fabric.world_size)
        with self.phases.during(TEACHERS):
            cached = cached_sources(self.distiller, stage, self.table, self.settings.batch_size, limit, self.fabric)
        labelled = not self._withholds_labels(stage)
        step = StageStep(self.distiller, stage, self.table, labelled, cached, gather, self.watch, self.phases)
        for name in stage.learners if self.settings.compile else ():
            self.distiller.participant(name).encoder.compile()
        last = frozenset(learner.name for learner in learners) - later
        module = self._distributed(step, rows, batch_size)
        return StageContext(ordinal, stage, learners, step, module, rows, batch_size, before, last)

    def _rows(self, stage: StagePlan) -> tuple[Tensor, int]:
        """The training rows of a stage, and its batch size."""
        rows = self.table.training_rows(stage.split, stage.rows_of)
        return rows, min(stage.batch_size, len(rows))

    def _learner(self, name: str, stage: StagePlan) -> Learner:
        if name not in self.learners:
            training = stage.training.get(name) or stage.training[self.distiller.fused[0]]
            rows, batch_size = self._rows(stage)
            steps = optimizer_steps(len(rows) // batch_size, stage.accumulate)
            fused = self.scaler is None and not self.settings.sharded
            self.learners[name] = Learner.of(name, self.distiller.modules_of(name), training, steps, fused)
        return self.learners[name]

    def _begin_epoch(self, context: StageContext, resumed: Mapping[str, Any] | None) -> None:
        """Set train and eval modes, learning rates and random state, for a new epoch or one that a checkpoint interrupted."""
        if resumed and (resumed["epoch"] != context.done or not resumed["step"]):
            resumed = None
        set_modes(self.distiller, context.stage)
        context.epoch, context.index, context.accumulated = context.done, resumed["step"] if resumed else 0, 0
        context.set_values(resumed["values"].to(context.rows.device) if resumed else None)
        context.step.logged.restore(resumed["logged"] if resumed else {}, context.rows.device)
        context.step.restart_streams(self._epoch_seed(context), resumed["streams"] if resumed else {})
        if resumed:
            restore_random_state(resumed["random"])
        else:
            self.watch.begin_epoch()
            # Each epoch is seeded, so that it does not depend on stages loaded instead of trained, or missing in the baseline.
            seed_everything(derive(self._epoch_seed(context), self.fabric.global_rank))
        for learner in context.learners:
            learner.begin_epoch(context.training(learner.name))
        if not resumed:
            self._set_progress(context)
            with self.fabric.autocast():
                begin_epoch(context.step, context.rows, context.batch_size, self._epoch_seed(context))

    @staticmethod
    def _set_progress(context: StageContext) -> None:
        """Give the losses their progress."""
        for learner in context.learners:
            epochs = context.training(learner.name).epochs
            context.step.progress[learner.name] = Progress(context.stage.name, learner.epochs, learner.steps, epochs)

    def _epoch_seed(self, context: StageContext) -> int:
        return derive(self.settings.seed, context.stage.order, context.before + context.epoch)

    def _batches(self, context: StageContext) -> Iterator[Tensor]:
        """Yield the rows of each batch left in an epoch. Their order depends on the epoch's seed only, also when resumed."""
        order = self.table.epoch_order(context.rows, self._epoch_seed(context))
        batches = order.split(context.batch_size)[: context.steps]
        for index in range(context.index, len(batches)):
            self.table.read_ahead(batches[index + 1 : index + 2], context.step.inputs)
            yield batches[index]

    def _begin_step(self, context: StageContext, index: int, rows: Tensor) -> Tensor:
        """Prepare losses, gradient watch and step guard for a step; returns the rows that this process runs."""
        self.phases.begin_step()
        context.index = index
        self._set_progress(context)
        if context.step.mix:
            context.step.mix_seed = derive(self._epoch_seed(context), "mix", index)
        self.watch.begin_step(index, context.steps, context.step.names)
        if self.skipping:
            self.skipping.remember(context.step.learning)
        processes = self.fabric.world_size
        return rows if processes == 1 else rows.split(context.batch_size // processes)[self.fabric.global_rank]

    def _end_step(self, context: StageContext) -> None:
        """Report a step, and save a checkpoint within the epoch if one is due."""
        done, now = context.index + 1, time.monotonic()
        self.report.stepped(context, done, now)
        # A checkpoint holds no accumulated gradients, and no random state of other processes.
        within = self.fabric.world_size == 1 and done < context.steps and context.completes_step(context.index)
        if within and (self.stop_requested or self._due(now)):
            self._checkpoint(context.ordinal, context.epoch, done, context)

    def _end_epoch(self, context: StageContext) -> None:
        """Count and score an epoch, and save a checkpoint if one is due."""
        self.phases.end_steps()
        context.done = context.epoch + 1
        for learner in context.learners:
            learner.epochs += 1
        self._score_epoch(context)
        self.stop_requested = self._in_any_process(self.stop_requested)  # all processes must stop after the same epoch
        if self.stop_requested or (context.done < context.stage.epochs and self._due(time.monotonic())):
            self._checkpoint(context.ordinal, context.done, 0, context)

    def _score_epoch(self, context: StageContext) -> None:
        """Record the metrics of an epoch, validate, and decide whether the stage ends early."""
        stage = context.stage
        if self.fabric.world_size > 1:
            warning = self.process_check.warning(stage.name, self.phases, context.batch_size, self.fabric.world_size)
            self.report.note(*([warning] if warning else ()))
        values, means = self.report.values(context)
        self.updates.refuse_tiny_scale(context)
        with self.phases.during(EVALUATION):
            scores = self._validate(context)
        groups = self.distiller.independent_groups(stage.learners)  # fused learners share one best epoch
        follow_plateaus(context, groups, scores, means)
        values += [*self.report.scores(context, scores), *self.report.vanished(context)]
        self.report.track(values, lambda learner: learner.epochs)
        reason = self.listener.epoch_finished(stage, context.epoch, {name: value for name, _, value in values})
        if self._in_any_process(bool(reason)):
            context.ended = reason or "requested by a callback in another process"
            context.ended_by_callback = context.done < stage.epochs
        else:
            context.ended = early_end(context, groups)
        if context.ended and context.done < stage.epochs:
            self._note_early_end(context)

    def _note_early_end(self, context: StageContext) -> None:
        for learner in context.learners:
            learner.ended = context.ended
        stage = context.stage
        self.report.note(f"{stage.name} ended after {context.done} of {stage.epochs} epochs: {context.ended}")

    def _in_any_process(self, flag: bool) -> bool:
        if self.fabric.world_size == 1:
            return flag
        return bool(self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="max"))

    def _validate(self, context: StageContext) -> dict[str, Scores]:
        """Scores of each learner on the validation split; keeps the weights of the best epoch."""
        with averages_applied(context.learners):
            scores = self._scores(context.stage)
            for names in self.distiller.independent_groups(context.stage.learners) if scores else ():
                learner = self.learners[names[0]]
                if improved(learner, context.training(names[0]), Scores.mean([scores[name] for name in names])):
                    learner.best = self._weights(names)
        return scores

    def _scores(self, stage: StagePlan) -> dict[str, Scores]:
        """Scores of each learner on the validation split; empty if there is none."""
        rows = self.table.labelled_rows("validation")
        if not len(rows) or self._withholds_labels(stage):
            return {}
        predictions = predict(self.distiller, stage.learners, rows, self.table, self.settings.batch_size, self.fabric)
        labels = self.table.labels[rows].cpu().numpy()
        return {name: Scores.of(each, labels, self.table.target) for name, each in predictions.items()}

    def _load_selected(self, context: StageContext) -> None:
        """Load the averaged or best weights, as configured, into learners that no later stage trains."""
        for learner in (each for each in context.learners if each.name in context.last):
            if learner.average:
                learner.average.apply()
            if learner.best:
                self.shards.load(self.distiller, learner.best)

    def _withholds_labels(self, stage: StagePlan) -> bool:
        return self.settings.labels_withheld and any(name in self.distiller.students for name in stage.learners)

    def _distributed(self, step: StageStep, rows: Tensor, batch_size: int) -> Callable[..., tuple[Tensor, list[Tensor]]]:
        if self.fabric.world_size == 1:
            return step.forward
        if not self.settings.sharded:  # weights that one process may not be able to hold
            with self.phases.during(CHECKS):
                steps = step.stage.epochs * (len(rows) // batch_size)
                self.process_check.begin_stage(step, rows, batch_size, steps, self.fabric)
        synchronise_batch_norm(step)
        return step.forward if self.settings.sharded else self.fabric.setup_module(step)

    def _due(self, now: float) -> bool:
        return self.fabric.broadcast(self.spacing.due(now))  # clocks differ, and all processes must agree

    def _weights(self, learners: Sequence[str]) -> dict[str, Tensor]:
        """Copies of the parameters and buffers of `learners` and their losses, by their names in the distiller."""
        trained = {id(x) for each in self.distiller.trained_modules(learners) for x in each.state_dict(keep_vars=True).values()}
        state = self.distiller.state_dict(keep_vars=True)
        return {name: tensor.detach().clone() for name, tensor in state.items() if id(tensor) in trained}

    def _checkpoint(self, ordinal: int, epoch: int = 0, step: int = 0, context: StageContext | None = None) -> None:
        """Save a checkpoint, and raise `StoppedError` if a stop was requested."""
        if context and not self.skipping:
            context.refuse_infinite(context.values.cpu())  # do not save weights that NaN losses have spoiled
        with self.phases.during(CHECKPOINTS), self.spacing.saving():
            self.save(*self._state(ordinal, epoch, step, context))
        if self.stop_requested:
            raise StoppedError("stopped on request; the state is saved")

    def _state(
        self, ordinal: int, epoch: int, step: int, context: StageContext | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights and the rest of the training state, as a checkpoint stores them."""
        weights = dict(self.distiller.state_dict())
        for learner in self.learners.values():
            weights |= learner.tensors()
        state = {
            "stage": ordinal,
            "epoch": epoch,
            "step": step,
            "ended": context.ended if context else "",
            "values": context.values.cpu().clone() if context and step else None,
            "learners": {name: learner.state() for name, learner in self.learners.items()},
            "random": random_state(),
            "streams": {name: each.state for name, each in context.step.streams.items()} if context and step else {},
            "logged": context.step.logged.state() if context and step else {},
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "watch": self.watch.state(),
            "history": list(self.report.history),
            "notes": list(self.notes),
            "skipped": self.skipping.count if self.skipping else 0,
        }
        return self.shards.whole((weights, state))

    def _restore(self, stages: Sequence[StagePlan], weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> int:
        """Load a checkpoint; returns the index of the stage to continue with."""
        own = {name: tensor for name, tensor in weights.items() if "|" not in name}  # others are for `Learner.restore`
        self.shards.load(self.distiller, own, strict=True)
        self.watch.restore(state["watch"])
        self.report.notes = list(state["notes"])
        if self.skipping:
            self.skipping.count = state["skipped"]
        first = int(state["stage"])
        for stage in stages[: first + 1]:
            for name in self.distiller.with_fusion(stage.learners):
                if name in state["learners"] and name not in self.learners:
                    self.shards.restore(self._learner(name, stage), state["learners"][name], weights)
        return first
