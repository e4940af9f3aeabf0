"""One step of distillation: participants, fusion and named terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import Batch, LossContext, Outputs
from kdcore.contracts.encoder import Participant
from kdcore.contracts.fusion import TeacherFusion
from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.contracts.progress import Progress, Ramp
from kdcore.contracts.schedule import Stage
from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.training.module_checks import not_a_scalar, set_up


@dataclass(frozen=True)
class TermSpec:
    """One weighted term for every learner of a role.

    Args:
        id: Its name in logs.
        weight: A number, or one that changes over epochs.
        build: Makes the loss; called once per learner, since a loss may have parameters.
        path: Where the recipe has it.
        loss: What it is, for people: ``loss 'cosine' of plugin 'my-loss'``.
    """

    id: str
    weight: float | Ramp
    build: Callable[[], DistillationLoss]
    path: str = ""
    loss: str = ""


SetUp = Callable[[TermSpec, DistillationLoss, Example], None]


def _set_up(spec: TermSpec, loss: DistillationLoss, example: Example) -> None:
    set_up(loss, example)


class Distiller(nn.Module):
    """All that learns in a run, and what it is taught by.

    Args:
        teachers: By name.
        students: By name.
        fusion: How the teachers run together.
        terms: Learner → its terms; filled by `add_terms`.
        class_embeddings: (classes, D), or None.
    """

    class_embeddings: Tensor | None

    def __init__(
        self,
        teachers: Mapping[str, Participant],
        students: Mapping[str, Participant],
        fusion: TeacherFusion | None = None,
        class_embeddings: Tensor | None = None,
    ):
        super().__init__()
        self.teachers = nn.ModuleDict(teachers)
        self.students = nn.ModuleDict(students)
        self.fusion = fusion or TeacherFusion()
        self.terms = nn.ModuleDict()
        self.weights: dict[str, dict[str, float | Ramp]] = {}
        self.origins: dict[str, dict[str, str]] = {}
        self.register_buffer("class_embeddings", class_embeddings, persistent=False)

    def participant(self, name: str) -> Participant:
        """The teacher or student called `name`."""
        return self.teachers[name] if name in self.teachers else self.students[name]  # type: ignore[return-value]

    def add_terms(self, learner: str, specs: Sequence[TermSpec], example: Example, how: SetUp = _set_up) -> None:
        """Give `learner` its terms, with parameters shaped by `example`; `how` each is set up."""
        losses = {spec.id: spec.build() for spec in specs}
        for spec in specs:
            how(spec, losses[spec.id], example)
        self.terms[learner] = nn.ModuleDict(losses)
        self.weights[learner] = {spec.id: spec.weight for spec in specs}
        self.origins[learner] = {spec.id: spec.loss for spec in specs}

    def called(self, learner: str, term: str) -> str:
        """A term and its loss, for people."""
        origin = self.origins[learner][term]
        return f"term {term!r} of {learner}" + (f" ({origin})" if origin else "")

    def losses(self, learner: str) -> dict[str, DistillationLoss]:
        """The learner's losses by term."""
        return dict(self.terms[learner].items()) if learner in self.terms else {}  # type: ignore[union-attr,arg-type]

    def learning(self, stage: Stage) -> list[nn.Module]:
        """The modules that learn in `stage`: learners, their losses, and the fusion if teachers learn."""
        modules: list[nn.Module] = [self.participant(name) for name in stage.learners]
        modules += [self.terms[name] for name in stage.learners if name in self.terms]
        return modules + ([self.fusion] if any(name in self.teachers for name in stage.learners) else [])

    def parameters_by_learner(self, stage: Stage) -> list[list[nn.Parameter]]:
        """What learns in `stage`, one list per learner, its losses' parameters among them, and one for the fusion."""
        fused = [self.fusion] if any(name in self.teachers for name in stage.learners) else []
        owned = [[self.participant(name), *([self.terms[name]] if name in self.terms else [])] for name in stage.learners]
        return [[parameter for module in modules for parameter in module.parameters()] for modules in (*owned, fused)]

    def teach(self, names: Sequence[str], batch: Batch) -> dict[str, Outputs]:
        """Outputs of the teachers `names`, run together."""
        return self.fusion({name: self.teachers[name] for name in names}, batch) if names else {}

    def answer(self, name: str, batch: Batch, ablated: str | None = None) -> Outputs:
        """A student's outputs, with those for an all-zero input where a loss needs them."""
        student = self.participant(name)
        x = student.input(batch.signals[name])
        if ablated == "mixed":
            both = student.collect(student.encoder(torch.cat([x, torch.zeros_like(x)])))
            return replace(_half(both, 0), ablated=_half(both, 1))
        outputs = student.collect(student.encoder(x))
        if ablated == "single":
            with evaluating(student.encoder):
                outputs = replace(outputs, ablated=student.collect(student.encoder(_nothing(x))))
        return outputs

    @torch.no_grad()
    def ablated_teachers(self, names: Sequence[str], batch: Batch) -> dict[str, Outputs]:
        """The teachers' outputs for one all-zero input each; the same whenever they are frozen."""
        zero = {name: _nothing(self.participant(name).input(batch.signals[name])) for name in names}
        with self.ready(names):
            return self.teach(names, Batch(batch.rows[:1], zero, None, batch.table))

    @contextmanager
    def ready(self, names: Sequence[str]) -> Iterator[None]:
        """For a while, batches hold what the encoders of `names` read, with nothing left to do."""
        lives = {name: self.participant(name).live for name in names}
        try:
            for name in names:
                self.participant(name).live = nn.Identity()
            yield
        finally:
            for name, live in lives.items():
                self.participant(name).live = live


class StageStep(nn.Module):
    """The objective of one stage as a function of rows: what is compiled, distributed and differentiated.

    Args:
        distiller: Everybody.
        stage: Who learns and who answers.
        table: Where rows are looked up.
        labelled: Whether learners may see labels.
        cached: Frozen teachers' outputs by name, indexed by row; those not in it are asked live.
        gather: Makes one rank's outputs those of the whole batch; identity in a single process.
    """

    def __init__(
        self,
        distiller: Distiller,
        stage: Stage,
        table: Table,
        labelled: bool,
        cached: Mapping[str, CachedOutputs] | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.learners = nn.ModuleList(distiller.learning(stage))
        self._distiller = [distiller]  # in a list, so that only what learns counts as this module's own
        self.stage, self.table, self.labelled = stage, table, labelled
        self.cached = dict(cached or {})
        self.gather = gather
        self.teaching = [name for name in stage.learners if name in distiller.teachers]
        self.studying = [name for name in stage.learners if name in distiller.students]
        self.asked = [name for name in stage.teachers if name not in self.cached]
        self.inputs = [*self.teaching, *self.studying, *self.asked]
        self.ablation = {name: _ablation(distiller.losses(name)) for name in stage.learners}
        self.terms = [(name, term, loss) for name in stage.learners for term, loss in distiller.losses(name).items()]
        self.names = [f"{name}/{term}" for name, term, _ in self.terms]
        self.progress = Progress()  # no argument of `forward`, since wrappers for other precisions take tensors only
        self._blank: dict[str, Outputs] | None = None

    @property
    def distiller(self) -> Distiller:
        """Everybody."""
        return self._distiller[0]

    def called(self, index: int) -> str:
        """``, which is …`` of the term at this place of `names`; empty where that is the sum of all."""
        return f": {self.distiller.called(*self.terms[index][:2])}" if index < len(self.terms) else ""

    def forward(self, rows: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum of all terms, and each term's value, detached, in the order of `names`.

        Args:
            rows: (B,) rows of the whole batch.
            local: (b,) those of them that this process puts through networks.
        """
        total, values = self.objective(rows, local, self.progress)
        return total, torch.stack(values).detach()

    def objective(self, rows: Tensor, local: Tensor, progress: Progress) -> tuple[Tensor, list[Tensor]]:
        """The weighted sum of all terms, and each term's unweighted value with its graph."""
        distiller = self.distiller
        batch = self.table.batch(local, self.inputs, self.labelled)
        whole = replace(batch, rows=rows, labels=self.table.taught[rows] if self.labelled else None) if self.gather else batch
        frozen = self._frozen(rows, batch)
        taught = self._gathered(distiller.teach(self.teaching, batch))
        answers = self._gathered({name: distiller.answer(name, batch, self.ablation[name]) for name in self.studying})
        detached = {name: outputs.detach() for name, outputs in taught.items()}
        apart = {name: outputs.detach() for name, outputs in answers.items()} if len(answers) > 1 else {}
        values, total = [], None
        for name, term, loss in self.terms:
            if name in taught:
                context = LossContext(taught[name], {}, whole, {}, distiller.class_embeddings, progress)
            else:
                peers = {other: outputs for other, outputs in apart.items() if other != name}
                context = LossContext(answers[name], {**detached, **frozen}, whole, peers, distiller.class_embeddings, progress)
            value = loss(context)
            if wrong := not_a_scalar(value):
                raise TrainingError(f"{distiller.called(name, term)}: {wrong}")
            weight = progress.at(distiller.weights[name][term])
            values.append(value)
            if weight:
                total = value * weight if total is None else total + value * weight
        if total is None:
            total = sum(values[1:], values[0]) * 0.0
        return total, values

    def _frozen(self, rows: Tensor, batch: Batch) -> dict[str, Outputs]:
        frozen = {name: outputs.at(rows) for name, outputs in self.cached.items()}
        if self.asked:
            with torch.no_grad():
                frozen |= self._gathered(self.distiller.teach(self.asked, batch))
        if any(self.ablation.values()) and frozen:
            if self._blank is None:
                names = list(self.stage.teachers)
                self._blank = self.distiller.ablated_teachers(names, self.table.batch(rows[:1], names))
            frozen = {name: replace(outputs, ablated=self._blank[name]) for name, outputs in frozen.items()}
        return {name: frozen[name] for name in self.stage.teachers}

    def _gathered(self, outputs: dict[str, Outputs]) -> dict[str, Outputs]:
        gather = self.gather
        if gather is None:
            return outputs
        return {name: _gather(each, gather, self.ablation.get(name) == "mixed") for name, each in outputs.items()}


def _gather(outputs: Outputs, gather: Callable[[Tensor], Tensor], mixed: bool) -> Outputs:
    """One rank's outputs made the whole batch's; a single ablated answer is every rank's already."""
    ablated = _gather(outputs.ablated, gather, False) if outputs.ablated is not None and mixed else outputs.ablated
    return Outputs(gather(outputs.logits), {tap: gather(x) for tap, x in outputs.features.items()}, ablated)


class CachedOutputs:
    """A frozen teacher's answers to every row of a part, given once.

    Args:
        rows: (n,) the rows that were asked.
        outputs: Batches of its outputs, in that order.
        sizes: How many samples each batch had.
        count: Rows of the whole table.
    """

    def __init__(self, rows: Tensor, outputs: Sequence[Outputs], sizes: Sequence[int], count: int):
        self.position = torch.full((count,), -1, dtype=torch.long, device=rows.device)
        self.position[rows] = torch.arange(len(rows), device=rows.device)
        self.logits = torch.cat([each.logits for each in outputs])
        self.features = {
            tap: torch.cat([_per_sample(each.features[tap], n) for each, n in zip(outputs, sizes, strict=True)])
            for tap in outputs[0].features
        }
        self.folded = {tap: len(value) != size for tap, value in outputs[0].features.items() for size in sizes[:1]}

    def at(self, rows: Tensor) -> Outputs:
        """What the teacher answered for `rows`."""
        where = self.position[rows]
        features = {
            tap: value[where].flatten(0, 1) if self.folded[tap] else value[where] for tap, value in self.features.items()
        }
        return Outputs(self.logits[where], features)


def _per_sample(value: Tensor, count: int) -> Tensor:
    """(B·S, …) as (B, S, …): several rows of an activation may belong to one sample, such as a clip's frames."""
    return value if len(value) == count else value.unflatten(0, (count, -1))


def _half(outputs: Outputs, which: int) -> Outputs:
    return Outputs(outputs.logits.chunk(2)[which], {tap: value.chunk(2)[which] for tap, value in outputs.features.items()})


def _nothing(x: Tensor) -> Tensor:
    """One sample of zeros like those of `x`, all of them one number in memory: an encoder may see that its frames are equal."""
    return x.new_zeros(()).expand_as(x[:1])


def _ablation(losses: Mapping[str, DistillationLoss]) -> str | None:
    asked = {loss.needs.ablated for loss in losses.values()} - {None}
    return "mixed" if "mixed" in asked else "single" if asked else None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode for a while; each submodule returns to the mode it was in."""
    training = [each for each in module.modules() if each.training]
    for each in training:
        each.training = False
    try:
        yield
    finally:
        for each in training:
            each.training = True
