"""Sentences that describe the setting of a run, for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdcore.contracts.progress import Ramp
from kdcore.contracts.target import read_target
from kdcore.recipe.data_models import SomeLabels
from kdcore.recipe.models import DataSpec, ParticipantSpec, Recipe
from kdcore.runs.records import Facts


def setting(recipe: Recipe, facts: Facts) -> str:
    """A description of the run's setting."""
    counts = in_words([f"{count} {split}" for split, count in facts.counts.items() if count])
    seeds = f"{len(facts.seeds)} seed{'s' if len(facts.seeds) > 1 else ''}"
    schedule = recipe.schedule.name if recipe.schedule else "order of the graph"
    return (
        f"{'; '.join(_objectives(recipe))}; schedule: {schedule}. "
        f"Data: {recipe.data.dataset.name}, {_called(facts)}; {counts} samples. {_labels(recipe.data)}{seeds}."
    )


def _objectives(recipe: Recipe) -> list[str]:
    """A clause for each group of students with the same sources and terms."""
    groups: dict[str, list[str]] = {}
    for name, spec in recipe.student_specs.items():
        sources = recipe.teachers if spec.learns_from is None else spec.learns_from
        source = in_words([_described(each, recipe.specs[each]) for each in sources])
        fused = f", joined by {recipe.fusion.name}" if recipe.fusion and source else ""
        terms = [term for term in recipe.terms_of(name)[1] if term.active]
        shown = in_words([f"{term.id}{'' if term.weight == 1 else f' × {_weight(term.weight)}'}" for term in terms])
        origin = f", starting from {spec.starts_from}" if spec.starts_from else ""
        groups.setdefault(f"{f' from {source}' if source else ''}{fused} with {shown}{origin}", []).append(
            _described(name, spec)
        )
    return [f"{in_words(students)} learned{how}" for how, students in groups.items()]


def _called(facts: Facts) -> str:
    kind = read_target(facts.target or None).kind
    count = len(facts.classes)
    return f"{count} {kind if count != 1 or kind == 'classes' else kind.removesuffix('s')}"


def _described(name: str, spec: ParticipantSpec) -> str:
    if spec.follows is not None:
        return f"{name} (moving average of {spec.follows})"
    return (
        f"{name} (stored outputs)" if spec.encoder is None else f"{name} ({' + '.join(spec.modalities)}, {spec.encoder.name})"
    )


def _labels(data: DataSpec) -> str:
    noisy = f"{100 * data.label_noise:g} % of the training labels are wrong. " if data.label_noise else ""
    noisy += f"Samples of a batch were mixed ({data.mix.name}). " if data.mix else ""
    noisy += "Batches were balanced by class. " if data.sampler == "balanced" else ""
    if isinstance(data.labels, SomeLabels):
        share = f"{100 * data.labels.share:g} %" if data.labels.share else "Some"
        return f"{noisy}{share} of the training {'recordings' if data.window else 'samples'} are labelled. "
    return f"{noisy}Students were trained without labels. " if data.labels == "withheld" else noisy


def in_words(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def _weight(weight: float | Ramp) -> str:
    return f"{weight:g}" if isinstance(weight, float | int) else f"{weight.start:g} to {weight.stop:g}"


def selection(rules: Mapping[str, str]) -> str:
    """A description of the epochs whose weights are evaluated."""
    texts = {
        "last": "weights of the last epoch",
        "best": "weights of the epoch best on the validation split",
        "best by loss": "weights of the epoch with the smallest loss on the validation split",
    }

    def described(rule: str) -> str:
        epoch, _, averaged = rule.partition(", ")
        return texts[epoch] + (", averaged over training (ema)" if averaged else "")

    if len(set(rules.values())) == 1:
        return described(next(iter(rules.values())))
    return "; ".join(f"{name}: {described(rule)}" for name, rule in rules.items())
