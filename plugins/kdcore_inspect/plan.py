"""A plan as text, as a Mermaid diagram and as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdcore import LearnerTerm, ParticipantPlan, Plan, Ramp, StagePlan, Training


def tree(made: Plan) -> Iterator[str]:
    """Lines of a plan as a tree."""
    seeds = f"seed{'s' if len(made.recipe.seeds) > 1 else ''} {', '.join(map(str, made.recipe.seeds))}"
    yield f"{made.recipe.name}  ({seeds}; hash {made.hash[:12]})"
    for arm in made.arms:
        yield f"{arm}:"
        for number, stage in enumerate(made.stages[arm], 1):
            yield from _stage(made, arm, number, stage)
    for each in made.participants.values():
        if each.spec.follows:
            decay = f"momentum {each.spec.momentum:g}{', with warmup' if each.spec.warmup else ''}"
            yield f"{each.name}: moving average of {each.spec.follows} ({decay}), updated at each of its steps"
        elif each.spec.outputs:
            yield f"{each.name}: stored outputs, {each.spec.outputs}"
    if made.no_baseline:
        yield f"no baseline: {made.no_baseline}"
    if made.unread:
        yield f"no participant learns from {', '.join(made.unread)}"


def _stage(made: Plan, arm: str, number: int, stage: StagePlan) -> Iterator[str]:
    yield f"  {number}. {stage.name}: {_epochs(stage.epochs)} on {stage.split}, batches of {stage.batch_size}"
    for name in stage.learners:
        each, training = made.participants[name], stage.training[name]
        rate = training.optimizer.get("lr", 1e-3)
        how = f"{training.optimizer.get('name', 'adamw')} lr {rate:g}, {training.learning_rate.name}, {training.select} epoch"
        yield f"     {_described(each)}: {', '.join([how, *_options(training)])}"
        if arm == "distilled" and each.spec.classifier_from:
            yield f"       uses the classifier of {each.spec.classifier_from} (frozen)"
        if each.spec.starts_from in made.members(arm):
            yield f"       starts from the weights of {each.spec.starts_from}"
        for term in each.terms_in(arm):
            yield f"       {_term(made, arm, stage, term)}"


def _options(training: Training) -> Iterator[str]:
    """Options of a training that most do without."""
    if training.gradients != "sum":
        yield training.gradients + (f", shares of at most {training.largest_share:g}" if training.largest_share < 1 else "")
    if training.accumulate > 1:
        yield f"{training.accumulate} batches a step"
    if stopping := training.early_stopping:
        yield f"early stopping by {stopping.metric} after {_epochs(stopping.patience)}"
    if training.ema:
        yield f"averaged weights (momentum {training.ema.momentum:g})"
    for group in training.parameter_groups:
        frozen = f", frozen for {_epochs(group.frozen_epochs)}" if group.frozen_epochs else ""
        yield f"{'+'.join(group.modules)} at {group.lr_factor:g} of the rate{frozen}"


def _described(each: ParticipantPlan) -> str:
    encoder = each.spec.encoder.name if each.spec.encoder else ""
    return f"{each.name} ({' + '.join(each.spec.modalities)} → {encoder})"


def _term(made: Plan, arm: str, stage: StagePlan, term: LearnerTerm) -> str:
    sources = [f"{name} ({_kind(made, stage, name)})" for name in term.sources] if arm == "distilled" else []
    reads = f" ← {', '.join(sources)}" if sources else ""
    return f"{_weight(term.term.weight)} × {term.term.id}{reads}"


def _weight(weight: float | Ramp) -> str:
    """The weight of a term; of a ramp also its length, and the epochs before it."""
    if not isinstance(weight, Ramp):
        return f"{weight:g}"
    length = [f"over {_epochs(weight.epochs)}"] if weight.epochs else []
    before = [f"after {_epochs(weight.after)}"] if weight.after or not weight.epochs else []
    return f"{weight.start:g} to {weight.stop:g} ({', '.join(length + before)})"


def _epochs(count: int) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{count} epoch{'s' if count != 1 else ''}"


def _kind(made: Plan, stage: StagePlan, name: str) -> str:
    """The way a source's outputs are obtained in a stage."""
    each = made.participants[name]
    if name in stage.learners:
        return "peer" if any(name in made.participants[other].peers for other in stage.learners) else "trained together"
    if each.spec.outputs:
        return "stored"
    if each.spec.follows:
        return "moving average"
    return "frozen, cached" if made.caches(name) else "frozen"


def mermaid(made: Plan) -> Iterator[str]:
    """Lines of a plan as a Mermaid diagram: an arrow for each source that a learner reads or starts from."""
    yield "graph LR"
    for each in made.participants.values():
        kind = f"average of {each.spec.follows}" if each.spec.follows else "stored outputs" if each.spec.outputs else ""
        label = kind or f"{' + '.join(each.spec.modalities)}, {each.spec.encoder.name if each.spec.encoder else ''}"
        left, right = ("([", "])") if each.role == "student" else ("[", "]")
        yield f'  {_node(each.name)}{left}"{each.name}<br/>{label}"{right}'
    for each in made.participants.values():
        if each.spec.follows:
            yield f"  {_node(each.spec.follows)} -. follows .-> {_node(each.name)}"
        if each.spec.starts_from:
            yield f"  {_node(each.spec.starts_from)} -. weights .-> {_node(each.name)}"
        for source in dict.fromkeys(name for term in each.terms_in("distilled") for name in term.sources):
            terms = ", ".join(str(term.term.id) for term in each.terms_in("distilled") if source in term.sources)
            yield f'  {_node(source)} -- "{terms}" --> {_node(each.name)}'


def _node(name: str) -> str:
    return name.replace("-", "_")


def record(made: Plan) -> dict[str, Any]:
    """A plan as plain values."""
    return {
        "name": made.recipe.name,
        "hash": made.hash,
        "seeds": list(made.recipe.seeds),
        "no_baseline": made.no_baseline,
        "participants": {
            name: {
                "role": each.role,
                "modalities": list(each.spec.modalities),
                "encoder": each.spec.encoder.name if each.spec.encoder else None,
                "follows": each.spec.follows,
                "outputs": str(each.spec.outputs) if each.spec.outputs else None,
                "classifier_from": each.spec.classifier_from,
                "starts_from": each.spec.starts_from,
                "teachers": list(each.teachers),
                "peers": list(each.peers),
            }
            for name, each in made.participants.items()
        },
        "arms": {
            arm: [
                {
                    "stage": stage.name,
                    "epochs": stage.epochs,
                    "split": stage.split,
                    "batch_size": stage.batch_size,
                    "sources": {name: _kind(made, stage, name) for name in stage.sources},
                    "learners": {
                        name: [
                            {
                                "term": term.term.id,
                                "loss": term.term.name,
                                "weight": term.term.model_dump(mode="json")["weight"],
                                "reads": list(term.sources) if arm == "distilled" else [],
                            }
                            for term in made.participants[name].terms_in(arm)
                        ]
                        for name in stage.learners
                    },
                }
                for stage in made.stages[arm]
            ]
            for arm in made.arms
        },
    }
