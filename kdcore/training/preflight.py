"""Checks before the first training step, on a few batches; weights and random state are left unchanged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdcore.contracts.batch import LossContext
from kdcore.contracts.progress import Progress, Ramp
from kdcore.contracts.target import known
from kdcore.data.table import Table
from kdcore.errors import DataError, TrainingError
from kdcore.recipe.graph import StagePlan
from kdcore.training.epoch_start import begin_epoch
from kdcore.training.forward_passes import passes_of
from kdcore.training.gradient_watch import NEGLIGIBLE
from kdcore.training.module_checks import (
    MADE_LATE,
    REGISTER,
    changed_values,
    equal_values,
    never_trained,
    reads_all_samples,
    unsaved_values,
)
from kdcore.training.output_checks import not_finite, refuse_probabilities
from kdcore.training.participants import Distiller
from kdcore.training.side_effects import gradient_versions, side_effects_refused
from kdcore.training.step import StageStep, StepTerm

TRIES = 4
"""Batches tried until every term has a gradient: a hinge, for example, is flat where every sample meets its margin."""

SHOWN = 8
"""Samples that every network is shown, to note its shapes and to recognise probabilities."""

FAINT = 1e-12
"""Gradient norm below which no optimizer makes progress: Adam adds 1e-8 to its denominator."""
FIRST = "on the first batch"


FIRST = "on the first batch"


@dataclass(frozen=True)
class TermCheck:
    """The result of checking one term on one batch.

    Args:
        stage: Name of the stage.
        learner: Name of the learner.
        term: Name of the term.
        weight: Weight of the term; the largest one of a ramp.
        value: Unweighted loss.
        gradient: Norm of the unweighted loss's gradient with respect to the learner's parameters.
        parameters: Number of trainable parameters of the loss.
        samples: Number of samples in the batch that the term reads.
        reached: Names of the learner's parameters that get a gradient.
        reads_logits: Whether the term depends on the learner's logits.
        idle: Names of the loss's trainable parameters that get no gradient.
        unsaved: Names of the loss's attributes that change from call to call, and that checkpoints do not save.
        attached: Whether the loss depends on the learner's parameters, even if its gradient is 0.
        when: What `value` and `gradient` are of: the first batch, or the first try with a gradient, such as the last epoch.
        first: Value and gradient on the first batch.
    """

    stage: str
    learner: str
    term: str
    weight: float
    value: float
    gradient: float
    parameters: int = 0
    samples: int = 0
    reached: frozenset[str] = frozenset()
    reads_logits: bool = False
    idle: tuple[str, ...] = ()
    unsaved: tuple[str, ...] = ()
    attached: bool = False
    when: str = FIRST
    first: tuple[float, float] = (0.0, 0.0)

    @property
    def satisfied(self) -> bool:
        """True if the loss is at its minimum of 0, like a hinge or a mask without samples: later batches may differ."""
        return self.value == 0 and self.gradient == 0 and self.attached


@dataclass
class Preflight:
    """The result of the checks before training.

    Args:
        terms: Checks of all terms.
        inputs: Participant → shape of its encoder's input, without the batch axis.
        features: Participant → tap → shape of the activation, without the batch axis.
        parameters: Participant → number of its encoder's parameters.
        trained: Participant → number of those that are trained.
        answerless: Participants whose predictions mean nothing, since no term reads or trains what they come from: a network
            that is pretrained by its features alone, for example.
    """

    terms: list[TermCheck] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    features: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict)
    answerless: tuple[str, ...] = ()


def preflight(distiller: Distiller, stages: Sequence[StagePlan], table: Table, batch_size: int, withheld: bool) -> Preflight:
    """Compute the losses and gradients of every stage on a few batches.

    Args:
        distiller: All participants of the arm, with their losses.
        stages: The stages of the arm.
        table: Prepared samples, indexed by row.
        batch_size: Samples per batch.
        withheld: Whether labels are withheld from students.

    Raises:
        TrainingError: If all of a stage's learners are frozen; if a term gives its learner no gradient, gives a teacher one,
            or is not finite; or if a parameter would not be trained or saved.
    """
    _refuse_unregistered(distiller)
    _refuse_late(distiller, [name for name, parameter in distiller.named_parameters() if is_lazy(parameter)])
    result = Preflight()
    seen: set[tuple[str, ...]] = set()
    before = {name: tensor.clone() for name, tensor in distiller.state_dict().items()}
    with torch.random.fork_rng():  # a run with checks must draw the same random numbers as one without
        torch.manual_seed(0)
        for stage in stages:
            if stage.learners not in seen:
                seen.add(stage.learners)
                _check_stage(distiller, stage, table, batch_size, withheld, result)
        _note_shapes(distiller, table, result)
        result.answerless = tuple(_answerless(distiller, table, result.terms))
    _refuse_late(distiller, [name for name in distiller.state_dict() if name not in before])
    _refuse_unregistered(distiller)
    _refuse_resized(distiller, before)
    distiller.load_state_dict(before)  # the passes in training mode have updated running statistics
    return result


def _check_stage(
    distiller: Distiller, stage: StagePlan, table: Table, batch_size: int, withheld: bool, result: Preflight
) -> None:
    labelled = not (withheld and any(name in distiller.students for name in stage.learners))
    distiller.eval()
    learning = distiller.trained_modules(stage.learners)
    if not any(parameter.requires_grad for module in learning for parameter in module.parameters()):
        raise TrainingError(f"stage {stage.name!r} has nothing to learn: all of {' and '.join(stage.learners)} is frozen")
    for module in learning:
        module.train()
    step = StageStep(distiller, stage, table, labelled)
    step.progress = {name: Progress(stage.name, 0, 0, stage.training[name].epochs) for name in stage.learners}
    rows = table.training_rows(stage.split, stage.rows_of)
    poor = (~known(table.train_labels[rows])).long()
    for mask in step.networks.present.values():
        poor = poor + (~mask[rows]).long()
    rows = rows[poor.argsort(stable=True)]  # rows with a label and all signals first, to check as many terms as possible
    before = {n: unsaved_values(term.loss) for n, term in enumerate(step.terms) if reads_all_samples(term.loss)}
    begin_epoch(step, rows, batch_size, 0)
    unsaved = {n: changed_values(values, step.terms[n].loss) for n, values in before.items()}
    checks: dict[int, TermCheck] = {}
    for start in range(TRIES + 1):
        if start == TRIES:  # an option of a loss may be a ramp from 0, such as the strength of an adversary
            last = {name: training.epochs for name, training in stage.training.items() if name in stage.learners}
            step.progress = {name: Progress(stage.name, max(0, epochs - 1), 0, epochs) for name, epochs in last.items()}
        batch = rows.roll(-start * batch_size)[: min(batch_size, len(rows))]
        for index, (term, context) in enumerate(step.contexts(batch, batch)):
            if index in checks and checks[index].gradient > 0:
                continue
            check = _check_term(distiller, stage, step, term, context)
            when = FIRST if start == 0 else "in the last epoch" if start == TRIES else f"on batch {start + 1}"
            checks[index] = replace(check, when=when, first=checks[index].first if start else (check.value, check.gradient))
        if all(check.gradient > 0 for check in checks.values()):
            break
    unknown = table.labelled_count(rows) is None  # a data loader: later batches may have labels
    for check in checks.values():
        if check.samples == 0 and unknown:
            continue
        _refuse_useless(distiller, check, [other for other in checks.values() if other.learner == check.learner])
    for index, check in checks.items():
        names = dict.fromkeys((*unsaved.get(index, ()), *check.unsaved))
        result.terms.append(replace(check, unsaved=tuple(names)))


def _check_term(distiller: Distiller, stage: StagePlan, step: StageStep, term: StepTerm, context: LossContext) -> TermCheck:
    weight = _largest(term.spec.weight, stage.training[term.learner].epochs)
    parameters = sum(each.numel() for each in term.loss.parameters() if each.requires_grad)
    if not len(context.batch):  # no labelled sample in this batch
        return TermCheck(stage.name, term.learner, term.spec.id, weight, 0.0, 0.0, parameters)
    description = distiller.describe_term(term.learner, term.spec.id)
    if wrong := not_finite({term.learner: context.student, **context.teachers, **context.peers}):
        raise TrainingError(f"{wrong}: its logits are not finite on the first batch: look for NaN in its inputs and weights")
    state = {name: each.clone() for name, each in term.loss.named_buffers()}
    versions = gradient_versions(distiller)
    with side_effects_refused(description, context):
        try:
            value = step.value(term, context)
        except DataError as error:  # the loss reads sample indices, which this batch lacks
            raise DataError(f"{description}: {error}") from error
    if left := [name for name, each in gradient_versions(distiller).items() if each != versions.get(name)]:
        whose, name = _owner(distiller, left[0])
        owner = "the loss" if whose == description else whose
        raise TrainingError(
            f"{description} calls backward, which leaves a gradient in {name!r} of {owner}; "
            "a run discards it, or adds it to its own: return the sum of all that is minimised, or use torch.autograd.grad"
        )
    if step.mix and term.loss.needs.labels and _changed(state, dict(term.loss.named_buffers())):
        raise TrainingError(
            f"{description} updates its state at each call, and a mixed batch calls a loss that reads labels once for each of "
            "the two label sets; leave out data.mix, or this loss"
        )
    trainable = _trainable(distiller, term.learner)
    try:
        gradients = _gradients(value, trainable)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        why = "it changes a tensor in place after its result was computed from it"
        raise TrainingError(f"{description}: {why}; compute with a copy, such as self.queue.clone()") from error
    own = {name: each for name, each in term.loss.named_parameters() if each.requires_grad}
    idle = tuple(name for name, norm in _gradients(value, own).items() if norm == 0)
    _refuse_teacher_gradients(value, distiller, term.learner, term.spec.id)
    reached = frozenset(name for name, each in gradients.items() if each > 0)
    reads = any(_depends_on(value, each.logits) for each in passes_of(context))
    numbers = weight, float(value.detach()), _norm(gradients), parameters, len(context.batch)
    attached = bool(reached) or any(_depends_on(value, each) for each in trainable.values())
    before = unsaved_values(term.loss)  # a further call, since what the first one computes once is computed again on resume
    step.value(term, context)  # with gradients, which a loss may use, for example to find an adversarial input
    unsaved = changed_values(before, term.loss)
    return TermCheck(stage.name, term.learner, term.spec.id, *numbers, reached, reads, idle, unsaved, attached)


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """True if a buffer has other values; buffers that are new are refused with a message of their own."""
    return any(not equal_values(value, before[name]) for name, value in after.items() if name in before)


def _largest(weight: float | Ramp, epochs: int) -> float:
    """The largest weight in any of a learner's epochs; a ramp may be longer than its training."""
    return max(weight.at(0), weight.at(epochs - 1)) if isinstance(weight, Ramp) else weight


def _refuse_resized(distiller: Distiller, before: Mapping[str, Tensor]) -> None:
    """Refuse buffers of losses that a checkpoint could not restore, since their shape changed in the first batches."""
    now = distiller.state_dict()
    resized = [name for name, value in before.items() if name in now and now[name].shape != value.shape]
    try:
        distiller.load_state_dict({**before, **{name: value for name, value in now.items() if name not in before}})
    except RuntimeError as error:
        if not resized:
            raise
        name = resized[0]
        shapes = f"{tuple(before[name].shape)} before the first batch and {tuple(now[name].shape)} after it"
        raise TrainingError(
            f"the buffer {name!r} had the shape {shapes}, so checkpoints cannot restore it: create it in setup with its final "
            "shape; Example.num_samples is the number of samples"
        ) from error


def _refuse_useless(distiller: Distiller, check: TermCheck, terms: Sequence[TermCheck]) -> None:
    """Refuse a term that is not finite, or whose gradient is negligible compared with the largest of its learner."""
    description = distiller.describe_term(check.learner, check.term)
    numbers = f"its value is {check.value} and its gradient {check.gradient} {check.when}"
    if not torch.isfinite(torch.tensor([check.value, check.gradient])).all():
        raise TrainingError(f"{description}: {numbers}; look for a logarithm or root of 0, or a division by 0")
    if not _trainable(distiller, check.learner) or check.satisfied:
        return
    if check.gradient == 0:
        why = f"is its result detached, or does it not depend on {check.learner}?"
        raise TrainingError(f"{description} gives no gradient: {why} Look for detach, item, no_grad or argmax in its forward")
    if check.weight == 0:
        raise TrainingError(f"{description} has the weight 0 in every epoch: let its ramp begin earlier, or leave it out")
    largest = max(terms, key=lambda each: each.weight * each.gradient)
    strongest = largest.weight * largest.gradient
    if strongest and strongest < FAINT:
        raise TrainingError(
            f"the gradients of {check.learner} are too small to learn from: the largest is {strongest:.2g} with its weight, "
            f"of {largest.term!r}; raise the weights"
        )
    if (own := check.weight * check.gradient) < NEGLIGIBLE * strongest:
        what = f"{own:.2g} with its weight, against {strongest:.2g} of {largest.term!r}"
        raise TrainingError(f"{description} gives a negligible gradient: {what}; raise its weight, or leave it out")


def _trainable(distiller: Distiller, name: str) -> dict[str, nn.Parameter]:
    return {key: parameter for key, parameter in distiller.participant(name).named_parameters() if parameter.requires_grad}


def _gradients(value: Tensor, parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """Norm of the gradient with respect to each parameter."""
    if not value.requires_grad or not parameters:
        return {}
    gradients = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: 0.0 if each is None else float(each.norm()) for name, each in zip(parameters, gradients, strict=True)}


def _norm(gradients: Mapping[str, float]) -> float:
    return math.hypot(*gradients.values())


def _depends_on(value: Tensor, other: Tensor) -> bool:
    both = value.requires_grad and other.requires_grad
    return both and torch.autograd.grad(value, other, retain_graph=True, allow_unused=True)[0] is not None


def _answerless(distiller: Distiller, table: Table, checks: Sequence[TermCheck]) -> Iterator[str]:
    """Learners whose logits no term reads, and depend on parameters that no term trains, here or where their weights come from.

    The first condition alone would name students that use a frozen classifier; the second alone, networks in which a parameter
    such as a bias before batch normalisation never gets a gradient.
    """
    reached: dict[str, set[str]] = {}
    for name in {check.learner for check in checks}:
        own = [check for check in checks if check.learner == name]
        if all(check.samples for check in own) and not any(check.reads_logits for check in own):
            reached[name] = set().union(*(check.reached for check in own))
    for name in distiller.networks:
        source: str | None = name
        known: set[str] = set()
        while source is not None and source in reached:
            known |= reached[source]
            source = distiller.origins.get(source)
        if source is None and name not in distiller.fused and _read_by_logits(distiller, table, name) - known:
            yield from (name, *distiller.followers(name))


def _read_by_logits(distiller: Distiller, table: Table, name: str) -> set[str]:
    """Names of the trained parameters that a participant's logits depend on."""
    member = distiller.participant(name)
    member.eval()
    rows = table.training_rows("train", [name])[:2]
    with torch.enable_grad():
        logits = member(table.batch(rows, [name]).signals[name]).logits
        weights = torch.linspace(1, 2, logits.numel(), device=logits.device).reshape(logits.shape)  # equal ones may cancel
        return {key for key, each in _gradients((logits * weights).sum(), _trainable(distiller, name)).items() if each > 0}


def _refuse_teacher_gradients(value: Tensor, distiller: Distiller, learner: str, term: str) -> None:
    for name in distiller.networks:
        together = learner in distiller.fused and name in distiller.fused  # the fusion may send gradients to either
        if name != learner and not together and _norm(_gradients(value, _trainable(distiller, name))) > 0:
            raise TrainingError(
                f"{distiller.describe_term(learner, term)} sends a gradient to {name}, which must not learn from it"
            )


def _refuse_unregistered(distiller: Distiller) -> None:
    if hidden := never_trained(distiller):
        whose, name = _owner(distiller, hidden[0])
        raise TrainingError(f"{whose}: what it holds in {name!r} would be neither trained nor saved; {REGISTER}")


def _refuse_late(distiller: Distiller, names: Sequence[str]) -> None:
    """Refuse lazy parameters, and parameters and buffers created during the first pass: the optimizer misses them."""
    if names:
        owners = [_owner(distiller, name) for name in names]
        first = owners[0][0]
        raise TrainingError(f"{first}: {', '.join(name for whose, name in owners if whose == first)}: {MADE_LATE}")


def _owner(distiller: Distiller, path: str) -> tuple[str, str]:
    """The participant, term or fusion that a parameter of `distiller` belongs to, and the parameter's name there."""
    kind, _, rest = path.partition(".")
    name, _, within = rest.partition(".")
    if kind == "terms":
        term, _, within = within.partition(".")
        return distiller.describe_term(name, term), within
    return ("the fusion", rest) if kind == "fusion" else (f"the encoder of {name}", within.removeprefix("encoder."))


@torch.no_grad()
def _note_shapes(distiller: Distiller, table: Table, result: Preflight) -> None:
    distiller.eval()
    for name in distiller.networks:
        member = distiller.participant(name)
        signal = table.batch(table.training_rows("train", [name])[:SHOWN], [name]).signals[name]
        x = member.input(signal)
        if isinstance(x, Tensor):  # a loader's may be a tuple
            result.inputs[name] = tuple(x.shape[1:])
        outputs = member(signal)
        result.features[name] = {tap: tuple(value.shape[1:]) for tap, value in outputs.features.items()}
        parameters = list(member.encoder.parameters())
        refuse_probabilities(name, outputs.logits, table.target.kind, any(each.requires_grad for each in parameters))
        result.parameters[name] = sum(each.numel() for each in parameters)
        result.trained[name] = sum(each.numel() for each in parameters if each.requires_grad)
