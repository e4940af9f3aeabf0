"""The training loop: takes a distiller through the stages of a schedule, on Lightning Fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from kdcore.contracts.batch import Progress
from kdcore.contracts.fusion import TeacherFusion
from kdcore.contracts.schedule import Stage
from kdcore.errors import StoppedError, TrainingError
from kdcore.training.answers import cache_teachers, predict, sees_random_input
from kdcore.training.data import Table, epoch_order
from kdcore.training.distiller import CachedOutputs, Distiller, StageStep
from kdcore.training.distributed import gatherer, synchronise_batch_norm
from kdcore.training.optimizers import build_optimizer
from kdcore.training.randomness import derive, random_state, restore_random_state, seed_everything
from kdcore.training.reuse import History, TrainedStages


class Listener:
    """Told how training goes; does nothing by itself."""

    def stage_started(self, stage: Stage, steps: int) -> None:
        """`stage` begins; an epoch has `steps` steps."""

    def stepped(self, stage: Stage, epoch: int, step: int) -> None:
        """Some steps of an epoch have been done; called a few times a second."""

    def epoch_finished(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch has ended."""

    def stage_finished(self, stage: Stage) -> None:
        """`stage` has ended."""

    def stage_reused(self, stage: Stage) -> None:
        """`stage` has been trained before and is taken from there."""


@dataclass
class Group:
    """Learners that train together, and what they carry from stage to stage."""

    optimizer: torch.optim.Optimizer
    rates: list[float]
    epochs: int = 0
    steps: int = 0
    best_score: float = -1.0
    best_epoch: int = -1
    best: dict[str, Tensor] = field(default_factory=dict)


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
                    self._checkpoint(ordinal + 1, epoch=0, step=0, values=None)

    def _fit_or_reuse(self, stages: Sequence[Stage], ordinal: int, stage: Stage) -> None:
        key = self.trained.key(stages, stage, self.distiller, self.table) if self.trained else None
        if self.trained is None or key is None:
            self._fit_stage(ordinal, stage, None)
        elif kept := self.trained.load(key):
            self._load_learners(stage, kept[0])
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
        rows = self.table.parts[stage.part]
        batch_size = min(stage.training.batch_size or self.settings.batch_size, len(rows))
        group = self._group(stage)
        step = self._step(stage, batch_size)
        module = self._distributed(step)
        count = len(rows) // batch_size
        self.listener.stage_started(stage, count)
        for epoch in range(state["epoch"] if state else 0, stage.epochs):
            self._mode(stage)
            resumed = state if state and state["epoch"] == epoch and state["step"] else None
            self._epoch(ordinal, stage, epoch, group, step, module, rows, batch_size, resumed)
            last = epoch + 1 == stage.epochs
            if not last and self._due():
                self._checkpoint(ordinal, epoch + 1, 0, None)
        if group.best and group.epochs >= stage.training.epochs:
            self._load_learners(stage, group.best)
        self.listener.stage_finished(stage)

    def _epoch(
        self,
        ordinal: int,
        stage: Stage,
        epoch: int,
        group: Group,
        step: StageStep,
        module: Callable[..., tuple[Tensor, Tensor]],
        rows: Tensor,
        batch_size: int,
        resumed: Mapping[str, Any] | None,
    ) -> None:
        fabric, clip = self.fabric, stage.training.gradient_clip
        optimizer = self.stepper(group)
        seed = derive(self.settings.seed, "+".join(stage.learners), group.epochs)
        order = rows[epoch_order(len(rows), seed).to(rows.device)]
        count, share = len(rows) // batch_size, batch_size // fabric.world_size
        values = torch.zeros(count, len(step.names) + 1, device=rows.device)
        if resumed:
            restore_random_state(resumed["random"])
            values[: resumed["step"]] = resumed["values"].to(values.device)
        else:
            seed_everything(derive(seed, fabric.global_rank))
        self._set_rate(stage, group)
        told = time.monotonic()
        for index in range(resumed["step"] if resumed else 0, count):
            batch = order[index * batch_size : (index + 1) * batch_size]
            local = batch[fabric.global_rank * share : (fabric.global_rank + 1) * share] if fabric.world_size > 1 else batch
            step.progress = Progress(stage.name, group.epochs, group.steps, stage.training.epochs)
            with fabric.autocast():
                total, terms = module(batch, local)
            optimizer.zero_grad()
            fabric.backward(total)
            if clip:
                self._clip(stage, group, clip)
            optimizer.step()
            group.steps += 1
            values[index, :-1] = terms
            values[index, -1] = total.detach()
            now = time.monotonic()
            if now - told > 0.2:
                told = now
                self.listener.stepped(stage, epoch, index + 1)
            if fabric.world_size == 1 and (self.stop_asked or self._due(now)) and index + 1 < count:
                self._checkpoint(ordinal, epoch, index + 1, values[: index + 1])
        group.epochs += 1
        self._report(stage, epoch, group, step, values)
        if self._stop_agreed():
            self._checkpoint(ordinal, epoch + 1, 0, None)

    def stepper(self, group: Group) -> torch.optim.Optimizer:
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

    def _report(self, stage: Stage, epoch: int, group: Group, step: StageStep, values: Tensor) -> None:
        values = values.cpu()
        names = [f"train/{name}" for name in step.names] + [f"train/{'+'.join(stage.learners)}/total"]
        if not bool(torch.isfinite(values).all()):
            at, which = (~torch.isfinite(values)).nonzero()[0].tolist()
            raise TrainingError(
                f"{names[which]} is {float(values[at, which])} in stage {stage.name}, epoch {epoch + 1}, step {at + 1}"
            )
        start, every = group.steps - len(values), self.settings.log_every
        for piece, chunk in enumerate(values.split(every)):
            self.record(
                {f"{name} (step)": value for name, value in zip(names, chunk.mean(0).tolist(), strict=True)},
                start + piece * every,
            )
        metrics = dict(zip(names, values.mean(0).tolist(), strict=True))
        metrics[f"learning_rate/{'+'.join(stage.learners)}"] = group.optimizer.param_groups[0]["lr"]
        metrics |= self._validate(stage, group)
        self.record(metrics, group.epochs)
        self.listener.epoch_finished(stage, epoch, metrics)

    def _validate(self, stage: Stage, group: Group) -> dict[str, float]:
        rows = self.table.parts.get("validation")
        if (
            rows is None
            or not len(rows)
            or (self.settings.labels_withheld and any(n in self.distiller.students for n in stage.learners))
        ):
            return {}
        labels = self.table.labels[rows].cpu().numpy()
        probabilities = predict(self.distiller, stage.learners, rows, self.table, self.settings.batch_size, self.fabric)
        accuracy = {name: float((each.argmax(1) == labels).mean()) for name, each in probabilities.items()}
        score = sum(accuracy.values()) / len(accuracy)
        if stage.training.select == "best" and score > group.best_score:
            group.best_score, group.best_epoch, group.best = score, group.epochs, self._learner_weights(stage)
        return {f"validation/{name}/accuracy": value for name, value in accuracy.items()}

    def _group(self, stage: Stage) -> Group:
        name = "+".join(stage.learners)
        if name not in self.groups:
            parameters = [p for module in self.distiller.learning(stage) for p in module.parameters() if p.requires_grad]
            optimizer = build_optimizer(stage.training.optimizer, dict.fromkeys(parameters))
            self.groups[name] = Group(optimizer, [entry["lr"] for entry in optimizer.param_groups])
        return self.groups[name]

    def _set_rate(self, stage: Stage, group: Group) -> None:
        factor = stage.training.learning_rate.factor(group.epochs, stage.training.epochs)
        for entry, rate in zip(group.optimizer.param_groups, group.rates, strict=True):
            entry["lr"] = rate * factor

    def _step(self, stage: Stage, batch_size: int) -> StageStep:
        if batch_size % self.fabric.world_size:
            raise TrainingError(f"batch_size {batch_size} cannot be shared equally by {self.fabric.world_size} processes")
        labelled = not (self.settings.labels_withheld and any(name in self.distiller.students for name in stage.learners))
        self._mode(stage)
        cached = self._cached_teachers(stage)
        step = StageStep(self.distiller, stage, self.table, labelled, cached, gatherer(self.fabric.world_size))
        if self.settings.compile:
            for name in stage.learners:
                self.distiller.participant(name).encoder.compile()
        return step

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
        rows, limit = self.table.parts[stage.part], self.settings.cache_limit
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

    def _load_learners(self, stage: Stage, weights: Mapping[str, Tensor]) -> None:
        self.distiller.load_state_dict(weights, strict=False)

    def _checkpoint(self, ordinal: int, epoch: int, step: int, values: Tensor | None) -> None:
        """Save where training stands; if asked to stop, stop."""
        weights = dict(self.distiller.state_dict())
        groups = {}
        for name, group in self.groups.items():
            weights |= {f"best|{name}|{key}": tensor for key, tensor in group.best.items()}
            groups[name] = {
                "optimizer": group.optimizer.state_dict(), "rates": group.rates, "epochs": group.epochs, "steps": group.steps,
                "best_score": group.best_score, "best_epoch": group.best_epoch,
            }  # fmt: skip
        state = {
            "stage": ordinal, "epoch": epoch, "step": step, "groups": groups,
            "random": random_state(),
            "scaler": self.fabric._precision.state_dict(), "values": None if values is None else values.cpu().clone(),
        }  # fmt: skip
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
            name = "+".join(stage.learners)
            if name in state["groups"]:
                saved, group = state["groups"][name], self._group(stage)
                group.optimizer.load_state_dict(saved["optimizer"])
                group.rates, group.epochs, group.steps = saved["rates"], saved["epochs"], saved["steps"]
                group.best_score, group.best_epoch = saved["best_score"], saved["best_epoch"]
                prefix = f"best|{name}|"
                group.best = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
        return first
