"""The training loop: takes the learners of one arm through its stages, on Lightning Fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from kdcore.contracts.progress import Progress
from kdcore.data.table import Table, epoch_order
from kdcore.errors import StoppedError, TrainingError
from kdcore.recipe.graph import StagePlan
from kdcore.training.callback import Listener
from kdcore.training.distributed import gatherer, synchronise_batch_norm
from kdcore.training.divergence import Skipping, only_grew
from kdcore.training.evaluation import predict
from kdcore.training.gradient_watch import GradientWatch
from kdcore.training.learner import Learner
from kdcore.training.participants import FUSION, Distiller
from kdcore.training.randomness import derive, random_state, restore_random_state, seed_everything
from kdcore.training.stage_context import StageContext
from kdcore.training.step import StageStep
from kdcore.training.teacher_cache import CachedOutputs, cache_teachers, repeatable
from kdcore.training.trained_teachers import History, TrainedStages

Checkpoint = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Weights, and the state that goes with them."""


@dataclass(frozen=True)
class Settings:
    """The engine's options besides the stages.

    Args:
        seed: Of this run.
        batch_size: For evaluation and for the outputs of frozen teachers.
        labels_withheld: Students are shown no labels.
        compile: Compile learners' encoders.
        teacher_cache: Compute a frozen teacher's outputs once per sample where that changes nothing.
        cache_limit: Bytes that one teacher's outputs may take.
        checkpoint_seconds: Time between checkpoints within a stage.
        log_every: Steps that one logged value is the mean of.
        skipped_steps: Steps that are not finite and may be skipped; None to stop at the first.
    """

    seed: int
    batch_size: int
    labels_withheld: bool = False
    compile: bool = False
    teacher_cache: bool = True
    cache_limit: int = 4 << 30
    checkpoint_seconds: float = 30.0
    log_every: int = 10
    skipped_steps: int | None = None


class Engine:
    """Trains the learners of one arm.

    Args:
        fabric: Devices, precision, processes.
        distiller: The participants.
        table: What they learn from, on the fabric's device.
        settings: See there.
        record: Takes (metrics, step) for tracking.
        save: Takes (weights, state) for a checkpoint.
        listener: Told how it goes.
        trained: Where stages of teachers alone are kept, to be trained once; None to train them always.
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
    ):
        self.fabric, self.distiller, self.table, self.settings = fabric, distiller, table, settings
        self.trained = trained if fabric.world_size == 1 else None
        self.record, self.save, self.listener, self.scaler = record, save, listener or Listener(), scaler
        self.learners: dict[str, Learner] = {}
        self.watch = GradientWatch(taps=not settings.compile)
        self.stop_requested = False
        self.notes: list[str] = []
        self.history: list[list[float]] = []
        limit = settings.skipped_steps
        self.skipping = Skipping(limit, fabric.world_size == 1) if limit is not None else None
        self._saved_at = time.monotonic()

    def fit(self, stages: Sequence[StagePlan], checkpoint: Checkpoint | None = None) -> None:
        """Train through `stages`, from the start or from a checkpoint.

        Raises:
            TrainingError: If a term stops being finite.
            StoppedError: If asked to stop, after saving.
        """
        for context in self._stages(stages, checkpoint):
            for _ in self._epochs(context, checkpoint[1] if checkpoint else None):
                for rows, local in self._batches(context):
                    with self.fabric.autocast():
                        total, values = context.module(rows, local)
                    self._update(context, total, values)

    def _stages(self, stages: Sequence[StagePlan], checkpoint: Checkpoint | None) -> Iterator[StageContext]:
        """The stages that are left, each ready to be trained; what follows a stage is done when the next one is asked for."""
        self._set_scaler(checkpoint[1] if checkpoint else None)
        first = self._restore(stages, *checkpoint) if checkpoint else 0
        for ordinal, stage in enumerate(stages):
            if ordinal < first:
                continue
            resumed = checkpoint is not None and ordinal == first
            key = self.trained.key(stages, stage, self.distiller, self.table) if self.trained and not resumed else None
            if key is None or not self._reuse(key, stage):
                with self._remembered(key, stage):
                    self.history = list(checkpoint[1]["history"]) if checkpoint and resumed else []
                    yield (context := self._context(ordinal, stages))
                    self._keep_best(context)
                    self._note(*only_grew(self.history, context.step.names))
                self.listener.stage_finished(stage)
            self.history = []
            if ordinal + 1 < len(stages):
                self._checkpoint(ordinal + 1)

    def _reuse(self, key: str, stage: StagePlan) -> bool:
        """Take a stage that was trained before, if there is one."""
        kept = self.trained.load(key) if self.trained else None
        if kept is None:
            return False
        self._load(kept[0])
        for metrics, step in kept[1]:
            self.record(metrics, step)
        self.listener.stage_reused(stage)
        return True

    @contextmanager
    def _remembered(self, key: str | None, stage: StagePlan) -> Iterator[None]:
        """Keep a stage under `key` once it is trained, with everything that it records; None keeps nothing."""
        if key is None or self.trained is None:
            yield
            return
        record = self.record
        history: History = []

        def note(metrics: Mapping[str, float], step: int) -> None:
            history.append((dict(metrics), step))
            record(metrics, step)

        self.record = note
        try:
            yield
        finally:
            self.record = record
        self.trained.save(key, self._weights(stage.learners), history)

    def _context(self, ordinal: int, stages: Sequence[StagePlan]) -> StageContext:
        stage = stages[ordinal]
        before = sum(other.epochs for other in stages[:ordinal] if other.order == stage.order)
        rows = self.table.training_rows(stage.split)
        batch_size = min(stage.batch_size, len(rows))
        if batch_size % self.fabric.world_size:
            raise TrainingError(f"batch_size {batch_size} cannot be shared equally by {self.fabric.world_size} processes")
        learners = [self._learner(name, stage) for name in self.distiller.owners(stage.learners)]
        self._set_modes(stage)
        cached, gather = self._cached_teachers(stage), gatherer(self.fabric.world_size)
        step = StageStep(self.distiller, stage, self.table, not self._withheld(stage), cached, gather)
        step.watch = self.watch
        if self.settings.compile:
            for name in stage.learners:
                self.distiller.participant(name).encoder.compile()
        return StageContext(ordinal, stage, learners, step, self._distributed(step), rows, batch_size, before)

    def _learner(self, name: str, stage: StagePlan) -> Learner:
        if name not in self.learners:
            training = stage.training.get(name) or stage.training[self.distiller.fused[0]]
            self.learners[name] = Learner.of(name, self.distiller.owned(name), training)
        return self.learners[name]

    def _epochs(self, context: StageContext, state: Mapping[str, Any] | None) -> Iterator[int]:
        """The epochs of a stage that are left; what follows an epoch is done when the next one is asked for."""
        if state and state["stage"] != context.ordinal:
            state = None
        self.listener.stage_started(context.stage, context.steps)
        for epoch in range(state["epoch"] if state else 0, context.stage.epochs):
            self._begin_epoch(context, epoch, state if state and state["epoch"] == epoch and state["step"] else None)
            yield epoch
            for learner in context.learners:
                learner.epochs += 1
            self._report(context)
            if self._stop_agreed() or (epoch + 1 < context.stage.epochs and self._due()):
                self._checkpoint(context.ordinal, epoch + 1)

    def _begin_epoch(self, context: StageContext, epoch: int, resumed: Mapping[str, Any] | None) -> None:
        """Set modes, rates and random numbers for an epoch, from its start or from where a checkpoint was made within it."""
        self._set_modes(context.stage)
        context.epoch, context.index = epoch, resumed["step"] if resumed else 0
        context.values = torch.zeros(context.steps, len(context.step.names) + 1, device=context.rows.device)
        if context.step.teacher_randomness:
            context.step.teacher_randomness.state = resumed["teacher_random"] if resumed else None
        if resumed:
            restore_random_state(resumed["random"])
            context.values[: resumed["step"]] = resumed["values"].to(context.values.device)
        else:
            self.watch.begin_epoch()
            seed_everything(derive(self._epoch_seed(context), self.fabric.global_rank))
        for learner in context.learners:
            learner.set_rate(self._training(context.stage, learner.name))

    def _epoch_seed(self, context: StageContext) -> int:
        return derive(self.settings.seed, context.stage.order, context.before + context.epoch)

    def _batches(self, context: StageContext) -> Iterator[tuple[Tensor, Tensor]]:
        """(rows of the whole batch, this process's share) of the steps of an epoch that are left."""
        order = context.rows[epoch_order(len(context.rows), self._epoch_seed(context)).to(context.rows.device)]
        size, share = context.batch_size, context.batch_size // self.fabric.world_size
        told = time.monotonic()
        for index in range(context.index, context.steps):
            context.index = index
            batch = order[index * size : (index + 1) * size]
            local = batch
            if self.fabric.world_size > 1:
                local = batch[self.fabric.global_rank * share : (self.fabric.global_rank + 1) * share]
            for learner in context.learners:
                epochs = self._training(context.stage, learner.name).epochs
                context.step.progress[learner.name] = Progress(context.stage.name, learner.epochs, learner.steps, epochs)
            self.watch.begin_step(index, context.steps, context.step.names)
            if self.skipping:
                self.skipping.remember(context.step.learning)
            yield batch, local
            now = time.monotonic()
            if now - told > 0.2:
                told = now
                self.listener.stepped(context.stage, context.epoch, index + 1)
            within = self.fabric.world_size == 1 and index + 1 < context.steps
            if within and (self.stop_requested or self._due(now)):
                self._checkpoint(context.ordinal, context.epoch, index + 1, context)

    def _update(self, context: StageContext, total: Tensor, values: Tensor) -> None:
        """One step of every learner's optimizer."""
        for learner in context.learners:
            if learner.optimizer:
                learner.optimizer.zero_grad()
        self.fabric.backward(total)
        context.values[context.index, :-1] = values
        context.values[context.index, -1] = total.detach()
        if self.skipping and self.skipping.skips(total, context.learners):
            context.values[context.index] = torch.nan
            for learner in context.learners:
                learner.steps += 1
            return
        for learner in context.learners:
            if learner.optimizer:
                largest = self._training(context.stage, learner.name).gradient_clip
                if self.scaler and largest:
                    self.scaler.unscale_(learner.optimizer)
                if largest:  # each on its own, so that none depends on who learns beside it
                    torch.nn.utils.clip_grad_norm_(learner.parameters, largest)
                if self.scaler:
                    self.scaler.step(learner.optimizer)
                else:
                    learner.optimizer.step()
            if self.distiller.averages:
                self.distiller.update_averages(learner.name, learner.steps)
            learner.steps += 1
        if self.scaler:
            self.scaler.update()

    def _training(self, stage: StagePlan, learner: str):
        return stage.training[self.distiller.fused[0] if learner == FUSION else learner]

    def _report(self, context: StageContext) -> None:
        """Record an epoch's values, and validate."""
        stage, values = context.stage, context.values.cpu()
        names = [f"train/{name}" for name in context.step.names] + [f"train/{'+'.join(stage.learners)}/total"]
        finite = self._finite(context, values, names)
        learner_of = {learner.name: learner for learner in context.learners}
        owners = [*(learner_of[term.learner] for term in context.step.terms), context.first]
        every = self.settings.log_every
        for piece, chunk in enumerate(values.split(every)):
            chunk = chunk[finite[piece * every : (piece + 1) * every]]
            means = zip((f"{name} (step)" for name in names), owners, chunk.mean(0).tolist(), strict=True)
            self._record(means if len(chunk) else (), lambda learner, piece=piece: learner.steps - len(values) + piece * every)
        means = values[finite].mean(0).tolist()
        self.history.append(means[:-1])
        found = list(zip(names, owners, means, strict=True))
        found += [(f"learning_rate/{name}", learner, learner.rate) for name, learner in learner_of.items()]
        found += [(key, learner_of[name], value) for name, (key, value) in self._validate(context).items()]
        found += [(key, learner_of[name], value) for name, key, value in self._vanished(context)]
        self._record(found, lambda learner: learner.epochs)
        metrics = {name: value for name, _, value in found}
        self.listener.epoch_finished(stage, context.epoch, metrics)

    def _finite(self, context: StageContext, values: Tensor, names: Sequence[str]) -> Tensor:
        """True for every step of an epoch that was not skipped; those that were are counted and said."""
        finite = torch.isfinite(values).all(dim=1)
        if not self.skipping or bool(finite.all()) or not bool(finite.any()):
            context.refuse_infinite(values, names)
            return finite
        count = int((~finite).sum())
        self._note(
            f"{count} of {len(values)} steps were skipped in stage {context.stage.name}, epoch {context.epoch + 1}: "
            "their loss or gradients were not finite numbers"
        )
        return finite

    def _note(self, *notes: str) -> None:
        """Say what a reader of the results must know, and keep it for them."""
        self.notes += notes
        for note in notes:
            self.listener.say(note)

    def _record(self, values: Iterable[tuple[str, Learner, float]], at: Callable[[Learner], int]) -> None:
        """Record values, each where its learner is: learners of one stage may have had different numbers of epochs."""
        metrics: dict[int, dict[str, float]] = {}
        for name, learner, value in values:
            metrics.setdefault(at(learner), {})[name] = value
        for step, found in metrics.items():
            self.record(found, step)

    def _vanished(self, context: StageContext) -> list[tuple[str, str, float]]:
        """Say which terms had no gradient that matters in this epoch; (learner, metric, share of the largest gradient)."""
        shares = []
        for name, (gradient, largest, rival) in self.watch.vanished().items():
            learner, term = name.split("/", 1)
            beside = f" against {largest:.2g} of {rival.split('/', 1)[1]!r}" if rival != name else ""
            self.listener.say(
                f"{self.distiller.called(learner, term)} no longer matters in stage {context.stage.name}, epoch "
                f"{context.epoch + 1}: its gradient on the outputs of {learner} is {gradient:.2g} with its weight{beside}. "
                "Look for detach, saturation or a margin that every sample meets; if that is intended, ignore this line"
            )
            shares.append((learner, f"train/{name}/vanished", gradient / largest if largest else 0.0))
        return shares

    def _validate(self, context: StageContext) -> dict[str, tuple[str, float]]:
        """Accuracy of each learner on the validation split, with its name as a metric; remembers the best epoch."""
        stage, rows = context.stage, self.table.rows.get("validation")
        if rows is None or not len(rows) or self._withheld(stage):
            return {}
        labels = self.table.labels[rows].cpu().numpy()
        probabilities = predict(self.distiller, stage.learners, rows, self.table, self.settings.batch_size, self.fabric)
        accuracy = {name: float((each.argmax(1) == labels).mean()) for name, each in probabilities.items()}
        for names in self._chosen_together(stage):
            learner, score = self.learners[names[0]], sum(accuracy[name] for name in names) / len(names)
            if stage.training[names[0]].select == "best" and score > learner.best_score:
                learner.best_score, learner.best = score, self._weights(names)
        return {name: (f"validation/{name}/accuracy", value) for name, value in accuracy.items()}

    def _chosen_together(self, stage: StagePlan) -> list[tuple[str, ...]]:
        """Learners whose best epoch is one choice: those of one fusion; every other learner has its own."""
        fused = tuple(name for name in stage.learners if name in self.distiller.fused)
        return [*([fused] if fused else []), *((name,) for name in stage.learners if name not in fused)]

    def _keep_best(self, context: StageContext) -> None:
        for learner in context.learners:
            if learner.best and learner.epochs >= self._training(context.stage, learner.name).epochs:
                self._load(learner.best)

    def _withheld(self, stage: StagePlan) -> bool:
        """True if the learners of `stage` may not see labels."""
        return self.settings.labels_withheld and any(name in self.distiller.students for name in stage.learners)

    def _distributed(self, step: StageStep) -> Callable[..., tuple[Tensor, Tensor]]:
        if self.fabric.world_size == 1:
            return step
        synchronise_batch_norm(step)
        return self.fabric.setup_module(step)

    def _set_modes(self, stage: StagePlan) -> None:
        """Learners train; everybody else evaluates and is given no gradient."""
        self.distiller.eval()
        for name in self.distiller.owners(stage.learners):
            for module in self.distiller.owned(name):
                module.train()
        for name in stage.sources:
            if name not in self.distiller.stored:
                member = self.distiller.participant(name)
                member.batch_transforms.train(member.augment_frozen)

    def _cached_teachers(self, stage: StagePlan) -> dict[str, CachedOutputs]:
        """Outputs of those frozen participants that give the same for a sample every time."""
        if not self.settings.teacher_cache:
            return {}
        rows, limit = self.table.training_rows(stage.split), self.settings.cache_limit
        names = repeatable(self.distiller, stage.sources)
        return cache_teachers(self.distiller, names, rows, self.table, self.settings.batch_size, limit, self.fabric)

    def _stop_agreed(self) -> bool:
        """True if any process was asked to stop; all of them must stop after the same epoch."""
        if self.fabric.world_size > 1:
            asked = self.fabric.all_reduce(torch.tensor(float(self.stop_requested), device=self.fabric.device), reduce_op="max")
            self.stop_requested = bool(asked)
        return self.stop_requested

    def _due(self, now: float | None = None) -> bool:
        due = (now or time.monotonic()) - self._saved_at >= self.settings.checkpoint_seconds
        return due if self.fabric.world_size == 1 else self.fabric.broadcast(due)  # clocks differ, what is done must not

    def _weights(self, learners: Sequence[str]) -> dict[str, Tensor]:
        """Copies of all that `learners` train, by name."""
        owned = [module for name in self.distiller.owners(learners) for module in self.distiller.owned(name)]
        names = {id(tensor) for module in owned for tensor in module.state_dict(keep_vars=True).values()}
        kept = self.distiller.state_dict(keep_vars=True)
        return {name: tensor.detach().clone() for name, tensor in kept.items() if id(tensor) in names}

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        self.distiller.load_state_dict(weights, strict=False)

    def _checkpoint(self, ordinal: int, epoch: int = 0, step: int = 0, context: StageContext | None = None) -> None:
        """Save where training stands; if asked to stop, stop."""
        if context and not self.skipping:
            names = [f"train/{name}" for name in context.step.names] + [f"train/{'+'.join(context.stage.learners)}/total"]
            context.refuse_infinite(context.values[:step].cpu(), names)  # nothing resumes from weights that are not numbers
        weights = dict(self.distiller.state_dict())
        for name, learner in self.learners.items():
            weights |= {f"best|{name}|{key}": tensor for key, tensor in learner.best.items()}
        stream = context.step.teacher_randomness if context else None
        state = {
            "stage": ordinal,
            "epoch": epoch,
            "step": step,
            "values": context.values[:step].cpu().clone() if context else None,
            "learners": {name: learner.state() for name, learner in self.learners.items()},
            "random": random_state(),
            "teacher_random": stream.state if stream else None,
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "watch": self.watch.state(),
            "history": list(self.history),
            "notes": list(self.notes),
            "skipped": self.skipping.count if self.skipping else 0,
        }
        self.save(weights, state)
        self._saved_at = time.monotonic()
        if self.stop_requested:
            raise StoppedError("stopped on request; the state is saved")

    def _set_scaler(self, state: Mapping[str, Any] | None) -> None:
        """Start the gradient scaler, where the precision has one, from a checkpoint's state or afresh."""
        if self.scaler:
            fresh = {**self.scaler.state_dict(), "scale": 2.0**16, "_growth_tracker": 0}
            self.scaler.load_state_dict(dict(state["scaler"]) if state else fresh)

    def _restore(self, stages: Sequence[StagePlan], weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> int:
        """Load a checkpoint; returns the stage to continue with."""
        self.distiller.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("best|")})
        self.watch.restore(state["watch"])
        self.notes = list(state["notes"])
        if self.skipping:
            self.skipping.count = state["skipped"]
        first = int(state["stage"])
        for stage in stages[: first + 1]:
            for name in self.distiller.owners(stage.learners):
                if name in state["learners"] and name not in self.learners:
                    prefix = f"best|{name}|"
                    best = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
                    self._learner(name, stage).restore(state["learners"][name], best)
        return first
