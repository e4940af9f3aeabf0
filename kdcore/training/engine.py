"""The training loop: takes a distiller through the stages of a schedule, on Lightning Fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from kdcore.contracts.batch import Progress
from kdcore.contracts.fusion import TeacherFusion
from kdcore.contracts.optimizers import build_optimizer
from kdcore.contracts.schedule import Stage
from kdcore.data.table import Table, epoch_order
from kdcore.errors import StoppedError, TrainingError
from kdcore.training.callback import Listener
from kdcore.training.distiller import CachedOutputs, Distiller, StageStep
from kdcore.training.distributed import gatherer, synchronise_batch_norm
from kdcore.training.group import Group, group_name
from kdcore.training.randomness import derive, random_state, restore_random_state, seed_everything
from kdcore.training.teacher_cache import cache_teachers, predict, sees_random_input
from kdcore.training.trained_teachers import History, TrainedStages


@dataclass(frozen=True)
class Settings:
    """What the engine is told beside the stages.

    Args:
        seed: Of this run.
        batch_size: Unless a stage says otherwise.
        labels_withheld: Students are shown no labels.
        compile: Compile learners' encoders.
        teacher_cache: Ask frozen teachers once per sample where that changes nothing.
        cache_limit: Bytes that one teacher's answers may take.
        checkpoint_seconds: Time between checkpoints within a stage.
        log_every: Steps that one logged value is the mean of.
    """

    seed: int
    batch_size: int
    labels_withheld: bool = False
    compile: bool = False
    teacher_cache: bool = True
    cache_limit: int = 4 << 30
    checkpoint_seconds: float = 30.0
    log_every: int = 10


@dataclass(frozen=True)
class _Course:
    """A stage under way.

    Args:
        ordinal: Which of the stages it is.
        stage: Who learns what.
        group: Its learners.
        step: Its objective.
        module: `step`, or what puts it through several processes.
        rows: What is learnt from.
        batch_size: Rows per step, all processes together.
    """

    ordinal: int
    stage: Stage
    group: Group
    step: StageStep
    module: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    rows: Tensor
    batch_size: int

    @property
    def steps(self) -> int:
        """Of an epoch; rows that fill no batch are left to the next one."""
        return len(self.rows) // self.batch_size


class Engine:
    """Trains one distiller.

    Args:
        fabric: Devices, precision, processes.
        distiller: Who learns and teaches.
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
    ):
        self.fabric, self.distiller, self.table, self.settings = fabric, distiller, table, settings
        self.trained = trained if fabric.world_size == 1 else None
        self.record, self.save, self.listener = record, save, listener or Listener()
        self.groups: dict[str, Group] = {}
        self.stop_asked = False
        self._saved_at = time.monotonic()

    def fit(
        self, stages: Sequence[Stage], weights: Mapping[str, Tensor] | None = None, state: Mapping[str, Any] | None = None
    ) -> None:
        """Train through `stages`, from the start or from where a checkpoint's `weights` and `state` were.

        Raises:
            TrainingError: If a term stops being finite.
            StoppedError: If asked to stop, after saving.
        """
        first = 0
        self._set_scaler(state)
        if state is not None and weights is not None:
            first = self._restore(stages, weights, state)
        for ordinal, stage in enumerate(stages):
            if ordinal >= first:
                if ordinal == first and state is not None:
                    self._fit_stage(ordinal, stage, state)
                else:
                    self._fit_or_reuse(stages, ordinal, stage)
                if ordinal + 1 < len(stages):
                    self._checkpoint(ordinal + 1)

    def _fit_or_reuse(self, stages: Sequence[Stage], ordinal: int, stage: Stage) -> None:
        key = self.trained.key(stages, stage, self.distiller, self.table) if self.trained else None
        if self.trained is None or key is None:
            self._fit_stage(ordinal, stage, None)
        elif kept := self.trained.load(key):
            self._load_learners(kept[0])
            for metrics, step in kept[1]:
                self.record(metrics, step)
            self.listener.stage_reused(stage)
        else:
            history: History = []
            record = self.record

            def remember(metrics: Mapping[str, float], step: int) -> None:
                history.append((dict(metrics), step))
                record(metrics, step)

            self.record = remember
            self._fit_stage(ordinal, stage, None)
            self.record = record
            self.trained.save(key, self._learner_weights(stage), history)

    def _fit_stage(self, ordinal: int, stage: Stage, state: Mapping[str, Any] | None) -> None:
        course = self._course(ordinal, stage)
        self.listener.stage_started(stage, course.steps)
        for epoch in range(state["epoch"] if state else 0, stage.epochs):
            self._mode(stage)
            self._epoch(course, epoch, state if state and state["epoch"] == epoch and state["step"] else None)
            if epoch + 1 < stage.epochs and self._due():
                self._checkpoint(ordinal, epoch + 1)
        group = course.group
        if group.best and group.epochs >= stage.training.epochs:
            self._load_learners(group.best)
        self.listener.stage_finished(stage)

    def _course(self, ordinal: int, stage: Stage) -> _Course:
        rows = self.table.training_rows(stage.part)
        batch_size = min(stage.training.batch_size or self.settings.batch_size, len(rows))
        group = self._group(stage)
        step = self._step(stage, batch_size)
        return _Course(ordinal, stage, group, step, self._distributed(step), rows, batch_size)

    def _epoch(self, course: _Course, epoch: int, resumed: Mapping[str, Any] | None) -> None:
        """One epoch, from its start or from where within it a checkpoint was made."""
        group, size = course.group, course.batch_size
        seed = derive(self.settings.seed, group_name(course.stage), group.epochs)
        order = course.rows[epoch_order(len(course.rows), seed).to(course.rows.device)]
        values = torch.zeros(course.steps, len(course.step.names) + 1, device=order.device)
        if resumed:
            restore_random_state(resumed["random"])
            values[: resumed["step"]] = resumed["values"].to(values.device)
        else:
            seed_everything(derive(seed, self.fabric.global_rank))
        group.set_rate(course.stage.training)
        optimizer = self._stepper(group)
        told = time.monotonic()
        for index in range(resumed["step"] if resumed else 0, course.steps):
            self._learn(course, optimizer, order[index * size : (index + 1) * size], values[index])
            now = time.monotonic()
            if now - told > 0.2:
                told = now
                self.listener.stepped(course.stage, epoch, index + 1)
            within = self.fabric.world_size == 1 and index + 1 < course.steps
            if within and (self.stop_asked or self._due(now)):
                self._checkpoint(course.ordinal, epoch, index + 1, values[: index + 1])
        group.epochs += 1
        self._report(course, epoch, values)
        if self._stop_agreed():
            self._checkpoint(course.ordinal, epoch + 1)

    def _learn(self, course: _Course, optimizer: torch.optim.Optimizer, batch: Tensor, values: Tensor) -> None:
        """One step on the rows `batch`; `values` takes what each term was, and last their weighted sum."""
        fabric, group, training = self.fabric, course.group, course.stage.training
        share = len(batch) // fabric.world_size
        local = batch[fabric.global_rank * share : (fabric.global_rank + 1) * share] if fabric.world_size > 1 else batch
        course.step.progress = Progress(course.stage.name, group.epochs, group.steps, training.epochs)
        with fabric.autocast():
            total, terms = course.module(batch, local)
        optimizer.zero_grad()
        fabric.backward(total)
        if training.gradient_clip:
            self._clip(course.stage, group, training.gradient_clip)
        optimizer.step()
        group.steps += 1
        values[:-1] = terms
        values[-1] = total.detach()

    def _stepper(self, group: Group) -> torch.optim.Optimizer:
        """The group's optimizer, behind a gradient scaler where the precision wants one."""
        return (
            self.fabric.setup_optimizers(group.optimizer) if self.fabric._precision.precision == "16-mixed" else group.optimizer
        )  # type: ignore[return-value]

    def _clip(self, stage: Stage, group: Group, largest: float) -> None:
        """Limit each learner's gradient on its own, so that none depends on who learns beside it."""
        if scaler := getattr(self.fabric._precision, "scaler", None):
            scaler.unscale_(group.optimizer)
        for parameters in self.distiller.parameters_by_learner(stage):
            torch.nn.utils.clip_grad_norm_(parameters, largest)

    def _stop_agreed(self) -> bool:
        """Whether any process was asked to stop; all of them must stop after the same epoch."""
        if self.fabric.world_size > 1:
            asked = self.fabric.all_reduce(torch.tensor(float(self.stop_asked), device=self.fabric.device), reduce_op="max")
            self.stop_asked = bool(asked)
        return self.stop_asked

    def _report(self, course: _Course, epoch: int, values: Tensor) -> None:
        stage, group, values = course.stage, course.group, values.cpu()
        names = [f"train/{name}" for name in course.step.names] + [f"train/{group_name(stage)}/total"]
        if not bool(torch.isfinite(values).all()):
            at, which = (~torch.isfinite(values)).nonzero()[0].tolist()
            where = f"in stage {stage.name}, epoch {epoch + 1}, step {at + 1}"
            whose = course.step.called(which)
            advice = "try a smaller learning rate, a smaller weight, or gradient_clip"
            raise TrainingError(f"{names[which]} is {float(values[at, which])} {where}{whose}; {advice}")
        start, every = group.steps - len(values), self.settings.log_every
        for piece, chunk in enumerate(values.split(every)):
            self.record(
                {f"{name} (step)": value for name, value in zip(names, chunk.mean(0).tolist(), strict=True)},
                start + piece * every,
            )
        metrics = dict(zip(names, values.mean(0).tolist(), strict=True))
        metrics[f"learning_rate/{group_name(stage)}"] = group.optimizer.param_groups[0]["lr"]
        metrics |= self._validate(stage, group)
        self.record(metrics, group.epochs)
        self.listener.epoch_finished(stage, epoch, metrics)

    def _validate(self, stage: Stage, group: Group) -> dict[str, float]:
        rows = self.table.parts.get("validation")
        if rows is None or not len(rows) or self._withheld(stage):
            return {}
        labels = self.table.labels[rows].cpu().numpy()
        probabilities = predict(self.distiller, stage.learners, rows, self.table, self.settings.batch_size, self.fabric)
        accuracy = {name: float((each.argmax(1) == labels).mean()) for name, each in probabilities.items()}
        score = sum(accuracy.values()) / len(accuracy)
        if stage.training.select == "best" and score > group.best_score:
            group.best_score, group.best = score, self._learner_weights(stage)
        return {f"validation/{name}/accuracy": value for name, value in accuracy.items()}

    def _group(self, stage: Stage) -> Group:
        name = group_name(stage)
        if name not in self.groups:
            parameters = [p for module in self.distiller.learning(stage) for p in module.parameters() if p.requires_grad]
            optimizer = build_optimizer(stage.training.optimizer, dict.fromkeys(parameters))
            self.groups[name] = Group(optimizer, [entry["lr"] for entry in optimizer.param_groups])
        return self.groups[name]

    def _step(self, stage: Stage, batch_size: int) -> StageStep:
        if batch_size % self.fabric.world_size:
            raise TrainingError(f"batch_size {batch_size} cannot be shared equally by {self.fabric.world_size} processes")
        self._mode(stage)
        cached, gather = self._cached_teachers(stage), gatherer(self.fabric.world_size)
        step = StageStep(self.distiller, stage, self.table, not self._withheld(stage), cached, gather)
        if self.settings.compile:
            for name in stage.learners:
                self.distiller.participant(name).encoder.compile()
        return step

    def _withheld(self, stage: Stage) -> bool:
        """Whether those who learn in `stage` may not see labels."""
        return self.settings.labels_withheld and any(name in self.distiller.students for name in stage.learners)

    def _distributed(self, step: StageStep) -> Callable[..., tuple[Tensor, Tensor]]:
        if self.fabric.world_size == 1:
            return step
        synchronise_batch_norm(step)
        return self.fabric.setup_module(step)

    def _mode(self, stage: Stage) -> None:
        """Learners train; everybody else evaluates and is given no gradient."""
        self.distiller.eval()
        for module in self.distiller.learning(stage):
            module.train()
        for name in stage.teachers:
            self.distiller.participant(name).live.train(self.distiller.participant(name).augment_frozen)

    def _cached_teachers(self, stage: Stage) -> dict[str, CachedOutputs]:
        """Answers of those frozen teachers whom asking once per sample is as good as asking every time."""
        fusion = self.distiller.fusion
        random = [name for name in stage.teachers if sees_random_input(self.distiller.participant(name))]
        if not self.settings.teacher_cache or fusion.batch_dependent or (random and type(fusion) is not TeacherFusion):
            return {}
        names = [name for name in stage.teachers if name not in random]
        rows, limit = self.table.training_rows(stage.part), self.settings.cache_limit
        return cache_teachers(self.distiller, names, rows, self.table, self.settings.batch_size, limit, self.fabric)

    def _due(self, now: float | None = None) -> bool:
        due = (now or time.monotonic()) - self._saved_at >= self.settings.checkpoint_seconds
        return due if self.fabric.world_size == 1 else self.fabric.broadcast(due)  # clocks differ, what is done must not

    def _learner_weights(self, stage: Stage) -> dict[str, Tensor]:
        names = {
            id(tensor) for module in self.distiller.learning(stage) for tensor in module.state_dict(keep_vars=True).values()
        }
        kept = self.distiller.state_dict(keep_vars=True)
        return {name: tensor.detach().clone() for name, tensor in kept.items() if id(tensor) in names}

    def _load_learners(self, weights: Mapping[str, Tensor]) -> None:
        self.distiller.load_state_dict(weights, strict=False)

    def _checkpoint(self, ordinal: int, epoch: int = 0, step: int = 0, values: Tensor | None = None) -> None:
        """Save where training stands; if asked to stop, stop."""
        weights = dict(self.distiller.state_dict())
        for name, group in self.groups.items():
            weights |= {f"best|{name}|{key}": tensor for key, tensor in group.best.items()}
        state = {
            "stage": ordinal,
            "epoch": epoch,
            "step": step,
            "values": None if values is None else values.cpu().clone(),
            "groups": {name: group.state() for name, group in self.groups.items()},
            "random": random_state(),
            "scaler": self.fabric._precision.state_dict(),
        }
        self.save(weights, state)
        self._saved_at = time.monotonic()
        if self.stop_asked:
            raise StoppedError("stopped on request; the state is saved")

    def _set_scaler(self, state: Mapping[str, Any] | None) -> None:
        """Where the precision scales gradients, start as a checkpoint has it, or as any training does."""
        precision = self.fabric._precision
        if now := precision.state_dict():
            precision.load_state_dict(state["scaler"] if state else {**now, "scale": 2.0**16, "_growth_tracker": 0})

    def _restore(self, stages: Sequence[Stage], weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> int:
        own = {name: tensor for name, tensor in weights.items() if not name.startswith("best|")}
        self.distiller.load_state_dict(own)
        first = int(state["stage"])
        for stage in stages[: first + 1]:
            name = group_name(stage)
            if name in state["groups"]:
                prefix = f"best|{name}|"
                best = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
                self._group(stage).restore(state["groups"][name], best)
        return first
