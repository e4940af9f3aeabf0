"""Properties of every registered loss: a new one is tested here from the moment it is registered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdcore import Batch, Classifier, DistillationLoss, Example, LossContext, Outputs, RecipeError, load_recipe
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import make, options_model
from kdcore.testing.loss_inputs import MadeUpNetworks
from kdcore_losses.conformance import cases

CLASSES = 5
MAP, SEQUENCE, VECTOR, CLIP = (6, 5, 4), (6, 7), (6,), (4, 3, 4, 2)

MINIMUM = {
    *("soft-target", "logits", "consistency", "dkd", "logit-std", "dist", "mlld", "js", "top-k", "bce", "ca-mkd", "average"),
    *("eb-kd", "ae-kd", "amtml-kd", "skd-direction"),
    *("c2kd", "graph-distillation", "hallucination", "attention-transfer", "rkd", "similarity-preserving"),
    *("correlation-congruence", "pkt", "cka", "nst", "affinity", "fsp", "ickd", "cat-kd"),
}
"""They are 0, with no gradient, for a student that answers like its teachers."""

NO_MINIMUM = {
    "cross-entropy": "has no teacher",
    "focal": "has no teacher",
    "binary-cross-entropy": "has no teacher",
    "regression": "has no teacher",
    "bounded-regression": "compares with values",
    "tf-kd": "has no teacher",
    "nkd": "always asks for more of the true class",
    "wsld": "a cross-entropy: not 0, though without a gradient",
    "ttm": "only the teacher is softened",
    "afd": "compares each level with every other",
    "fitnet": "compares after a regressor",
    "vid": "compares after a regressor",
    "ab": "asks for activations beyond a margin",
    "factor-transfer": "compares factors",
    "ofd": "compares after a connector",
    "pad": "divides by a predicted variance",
    "srd": "compares after a projector",
    "srrl": "compares after a connector",
    "sskd": "compares after two heads",
    "mgd": "compares what a generator makes",
    "reviewkd": "compares after fusions",
    "crd": "compares with other samples",
    "infonce": "compares with other samples",
}
"""All the others, and why they are not."""

PARTLY_DETACHED = {
    "wsld": "no gradient flows through its weights; its gradient is tested beside its value",
    "ae-kd": "no gradient flows through its weights; its gradient is tested beside its value",
}
RANDOM = {"mgd": "masks each sample at random"}
CLASSES_DIFFER = {"graph-distillation": "learns a weight for each class's logit"}
ON_SCALES = {
    *("similarity-preserving", "correlation-congruence", "attention-transfer", "rkd", "pkt", "cka", "nst", "affinity", "ickd"),
}
"""Losses on activations that a factor of either side's does not change."""


@dataclass(frozen=True)
class Subject:
    """A loss with options."""

    entry: Any
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def standardises(self) -> bool:
        return "standardise" in options_model(self.entry).model_fields

    def make(self, **more: Any) -> DistillationLoss:
        return make(self.entry, {**self.options, **more}, None)

    def built(self, ctx: LossContext, **more: Any) -> DistillationLoss:
        """Set up on a context, with parameters of its precision."""
        torch.default_generator.manual_seed(0)
        loss = self.make(**more)
        names, counts = tuple(f"class {number}" for number in range(CLASSES)), torch.arange(1, CLASSES + 1)
        loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), CLASSES, names, counts, int(counts.sum())))
        return loss.to(torch.float64 if ctx.student.logits.dtype == torch.float64 else torch.float32)


def subjects() -> list[Subject]:
    entries = [e for e in plugin_manager().registry.entries() if e.kind == "loss" and e.plugin == "losses"]
    found = []
    for entry in entries:
        case = cases.get(entry.name, [])
        listed = case if isinstance(case, list) else [case]
        found += [Subject(entry, each.options) for each in listed] or [Subject(entry, {})]
    return found


EVERY = subjects()
NAMES = {each.name for each in EVERY}


def each_loss(chosen: Callable[[Subject], bool]):
    """A test for every loss that `chosen` says yes to."""
    ids = [f"{each.name}-{number}" for number, each in enumerate(EVERY) if chosen(each)]
    return pytest.mark.parametrize("loss", [each for each in EVERY if chosen(each)], ids=ids)


every_loss = each_loss(lambda loss: True)


def context(loss: DistillationLoss, student=MAP, teacher=MAP, batch=4, seed=0, dtype=torch.float64, teachers=2) -> LossContext:
    """Outputs with the taps and labels that a loss declares, and no more; the student's wait for a gradient."""
    draw, needs = torch.Generator().manual_seed(seed), loss.needs

    def outputs(taps, shape, learns):
        logits = (2 * torch.randn(batch, CLASSES, generator=draw, dtype=torch.float64)).to(dtype).requires_grad_(learns)
        drawn = {tap: torch.randn(batch, *shape, generator=draw, dtype=torch.float64) for tap in taps}
        found = Outputs(logits, {tap: x.to(dtype).requires_grad_(learns) for tap, x in drawn.items()})
        return classified(found, draw, learns) if needs.classifiers else found

    names = [f"t{n}" for n in range(teachers if needs.teachers else 0)]
    labels = torch.arange(batch) * 2 % CLASSES
    if "classes" not in loss.targets:
        labels = ((labels[:, None] + torch.arange(CLASSES)) % 3 == 0).to(dtype)
    labels = labels if needs.labels else None
    own = outputs(needs.student_taps, student, True)
    theirs = {name: outputs(needs.teacher_taps, teacher, False) for name in names}
    inputs = ("student", *names) if needs.forward_passes else ()
    signals = {name: torch.randn(batch, 3, 8, generator=draw, dtype=torch.float64) for name in inputs}
    whole = Batch(torch.arange(batch), signals, labels, [None] * (batch + 3))  # type: ignore[list-item]
    return LossContext(own, theirs, whole, networks=MadeUpNetworks(own, theirs, False))


def classified(found: Outputs, draw: torch.Generator, learns: bool) -> Outputs:
    """Outputs whose logits are those of a linear layer for the mean of their activation, or of an untapped one."""
    (features,) = found.features.values() or (torch.randn(len(found.logits), 7, generator=draw).to(found.logits.dtype),)
    drawn = [torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((CLASSES, features.shape[1]), (CLASSES,))]
    weight, bias = (each.to(features.dtype) for each in drawn)
    logits = (features.detach().flatten(2).mean(2) if features.ndim > 2 else features.detach()) @ weight.T + bias
    return replace(found, logits=logits.requires_grad_(learns), classifier=Classifier(weight, bias))


def changed(ctx: LossContext, change: Callable[[str, Tensor], Tensor]) -> LossContext:
    """Every output and label changed; `change` is told whose and what, as in ``student logits``."""

    def outputs(whose, each):
        features = {tap: change(f"{whose} features", x) for tap, x in each.features.items()}
        layer = each.classifier
        classifier = layer and Classifier(change(f"{whose} layer", layer.weight), change(f"{whose} layer", layer.bias))
        return Outputs(change(f"{whose} logits", each.logits), features, classifier=classifier)

    labels = None if ctx.batch.labels is None else change("labels", ctx.batch.labels)
    signals = {name: change("signals", x) for name, x in ctx.batch.signals.items()}
    batch = replace(ctx.batch, labels=labels, rows=change("rows", ctx.batch.rows), signals=signals)
    own = changed_leaves(outputs("student", ctx.student.detach()))
    theirs = {name: outputs("teacher", each) for name, each in ctx.teachers.items()}
    return LossContext(own, theirs, batch, networks=MadeUpNetworks(own, theirs, False))


def changed_leaves(outputs: Outputs) -> Outputs:
    leaf = {tap: x.detach().clone().requires_grad_() for tap, x in outputs.features.items()}
    return replace(outputs, logits=outputs.logits.detach().clone().requires_grad_(), features=leaf)


def value(loss: DistillationLoss, ctx: LossContext) -> Tensor:
    """The loss of a copy, with the same random numbers each time, so that nothing is remembered."""
    torch.default_generator.manual_seed(1)
    return deepcopy(loss)(ctx)


def leaves(ctx: LossContext) -> list[Tensor]:
    return [ctx.student.logits, *ctx.student.features.values()]


def gradients(found: Tensor, ctx: LossContext) -> list[Tensor]:
    given = torch.autograd.grad(found, leaves(ctx), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves(ctx), given, strict=True)]


def require_finite(loss: DistillationLoss, ctx: LossContext) -> None:
    found = value(loss, ctx)
    assert found.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(found, ctx))


def test_it_is_said_of_every_loss_whether_it_has_a_minimum():
    assert MINIMUM | set(NO_MINIMUM) == NAMES
    assert not MINIMUM & set(NO_MINIMUM)


@each_loss(lambda loss: loss.name not in PARTLY_DETACHED)
def test_the_gradient_is_the_values(loss):
    ctx = context(loss.make())
    ready = loss.built(ctx)
    value_before = ready(ctx)  # a bank is filled by this, and does not depend on the student any more
    assert value_before.ndim == 0

    def of_student(logits, *features):
        found = replace(ctx.student, logits=logits, features=dict(zip(ctx.student.features, features, strict=True)))
        return value(ready, replace(ctx, student=found))

    assert torch.autograd.gradcheck(of_student, leaves(ctx), fast_mode=True)
    assert any(gradient.any() for gradient in gradients(value(ready, ctx), ctx))


@every_loss
@pytest.mark.parametrize("shape", [VECTOR, MAP])
def test_a_batch_of_one_is_finite(loss, shape):
    ctx = context(loss.make(), shape, shape, batch=1)
    ready, refusal = built_or_refused(loss, ctx)
    if ready is None:
        assert shape == VECTOR, refusal
    else:
        require_finite(ready, ctx)


@every_loss
@pytest.mark.parametrize("size", [0.0, 1e-12, 1e4])
def test_extreme_outputs_are_finite(loss, size):
    ctx = context(loss.make(), dtype=torch.float32)
    ready = loss.built(ctx)
    require_finite(ready, changed(ctx, lambda name, x: x.sign() * size if "logits" in name else x))
    require_finite(ready, changed(ctx, lambda name, x: x * size if "features" in name else x))
    require_finite(ready, changed(ctx, lambda name, x: -x.sign() * size if name == "teacher logits" else x))
    require_finite(ready, changed(ctx, lambda name, x: torch.full_like(x, size) if x.is_floating_point() else x))


@each_loss(lambda loss: loss.name in MINIMUM and loss.options.get("student") != "all")
def test_equal_student_and_teachers_are_the_minimum(loss):
    ctx = context(loss.make())
    ready = loss.built(ctx)
    apart = value(ready, ctx)
    equal = replace(ctx, teachers=dict.fromkeys(ctx.teachers, ctx.student.detach()))
    found = value(ready, equal)
    assert found.item() == pytest.approx(0, abs=1e-10)
    assert apart > found + 1e-4
    assert max(float(gradient.abs().max()) for gradient in gradients(found, equal)) < 1e-6


@each_loss(lambda loss: loss.name not in RANDOM)
def test_the_order_of_samples_does_not_matter(loss):
    ctx = context(loss.make())
    ready, order = loss.built(ctx), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        value(ready, changed(ctx, lambda name, x: x if "layer" in name else x[order])), value(ready, ctx)
    )


@each_loss(lambda loss: loss.make().needs.teachers == 1 and loss.name not in {*RANDOM, "ca-mkd"})
def test_several_teachers_are_averaged_each_with_what_was_learnt_for_it(loss):
    ctx = context(loss.make())
    ready = loss.built(ctx)
    alone = [value(ready, replace(ctx, teachers={name: each})) for name, each in ctx.teachers.items()]
    assert abs(alone[0] - alone[1]) > 1e-6
    torch.testing.assert_close(value(ready, ctx), torch.stack(alone).mean())


@each_loss(lambda loss: loss.name not in CLASSES_DIFFER and not {"class_weights", "positive_weights"} & set(loss.options))
def test_the_order_of_classes_does_not_matter(loss):
    ctx = context(loss.make())
    ready, order = loss.built(ctx), torch.tensor([3, 1, 4, 0, 2])

    def turn(name, x):
        if "layer" in name:
            return x[order]
        if x.ndim == 2 and ("logits" in name or name == "labels"):
            return x[:, order]
        return order.argsort()[x] if name == "labels" else x

    torch.testing.assert_close(value(ready, changed(ctx, turn)), value(ready, ctx))


@each_loss(lambda loss: loss.name in ON_SCALES)
def test_the_scale_of_activations_does_not_matter_where_so_claimed(loss):
    ctx = context(loss.make())
    ready = loss.built(ctx)
    larger = changed(ctx, lambda name, x: x * (3.0 if "student" in name else 0.2) if "features" in name else x)
    torch.testing.assert_close(value(ready, larger), value(ready, ctx))


@each_loss(lambda loss: loss.standardises or loss.name == "logit-std")
def test_standardised_logits_may_have_any_shift_and_scale(loss):
    weighs = {"features": 0.0} if loss.name == "ca-mkd" else {}
    more = {"standardise": True, **weighs} if loss.standardises else {}
    ctx = context(loss.make(**more), teachers=1 if loss.name == "ca-mkd" else 2)
    ready = loss.built(ctx, **more)
    other = changed(ctx, lambda name, x: (3 * x + 7 if "student" in name else x / 2 - 1) if "logits" in name else x)
    torch.testing.assert_close(value(ready, other), value(ready, ctx), rtol=1e-5, atol=1e-7)
    if loss.standardises:
        assert abs(value(loss.built(ctx, **weighs), other) - value(loss.built(ctx, **weighs), ctx)) > 1e-3


@every_loss
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_close_to_single(loss, half):
    ctx = context(loss.make(), dtype=torch.float32)
    ready = loss.built(ctx)
    rounded = changed(ctx, lambda name, x: x.to(half) if x.is_floating_point() else x)
    with torch.autocast("cpu", half):
        found = value(ready, rounded)
    wanted = value(ready, changed(rounded, lambda name, x: x.float() if x.is_floating_point() else x))
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.01)
    assert all(gradient.isfinite().all() for gradient in gradients(found, rounded))


@every_loss
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (VECTOR, (9,)),
        (SEQUENCE, (9, 3)),
        (MAP, (6, 3, 8)),
        (MAP, (9, 3, 8)),
        (CLIP, (4, 2, 5, 5)),
        (CLIP, VECTOR),
        (MAP, SEQUENCE),
        (VECTOR, MAP),
    ],
)
def test_unlike_activations_are_compared_or_refused_with_a_reason(loss, student, teacher):
    needs = loss.make().needs
    ctx = context(loss.make(), student, teacher)
    ready, refusal = built_or_refused(loss, ctx)
    if ready is None:
        assert needs.student_taps
        assert len(refusal.split()) > 6
        return
    found = value(ready, ctx)
    assert found.isfinite()
    if needs.student_taps and loss.name != "ca-mkd":
        assert all(gradient.any() for gradient in gradients(found, ctx)[1:])


def built_or_refused(loss: Subject, ctx: LossContext) -> tuple[DistillationLoss | None, str]:
    try:
        return loss.built(ctx), ""
    except ValueError as refusal:
        return None, str(refusal)


def test_every_loss_is_in_the_table_of_papers():
    table = (Path(__file__).parents[3] / "docs/loss-table.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    plugins = plugin_manager().plugins
    entries = [each for each in plugin_manager().registry.entries() if plugins[each.plugin].distribution == "kdcore"]
    assert named >= {entry.name for entry in entries if entry.kind == "loss"}
    known = {entry.name for entry in entries if entry.kind in ("loss", "fusion")}
    words = {name for name in named if "-" in name or name.endswith("kd")}
    assert words <= known


SIDES = ("student", "teacher")
TAPPED = [each for each in EVERY if each.make().needs.student_taps or each.make().needs.teacher_taps]


def recipe_with(loss: Subject, folder: Path, lacking: str = "") -> Path:
    """A recipe with a loss as its only distillation, in which one side may lack the taps that the loss reads."""
    needs = loss.make().needs
    network = {"modality": "accelerometer", "transforms": ["normalise"], "encoder": "cnn1d"}
    taps = {side: {} if side == lacking else dict.fromkeys(getattr(needs, f"{side}_taps"), "pool") for side in SIDES}
    tree = {
        "version": 1,
        "name": "taps",
        "data": {"dataset": "synthetic-motion", "protocol": "cross-subject"},
        "teachers": {name: {**network, "taps": taps["teacher"]} for name in ("first", "second")},
        "student": {**network, "taps": taps["student"]},
        "losses": ["cross-entropy", {"name": loss.name, **loss.options}],
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize("loss", TAPPED, ids=[f"{each.name}-{number}" for number, each in enumerate(TAPPED)])
def test_taps_that_a_participant_lacks_are_refused_at_validation(loss, tmp_path):
    needs = loss.make().needs
    load_recipe(recipe_with(loss, tmp_path))
    for side, names in (("student", ["student"]), ("teacher", ["first", "second"])):
        for tap in getattr(needs, f"{side}_taps"):
            with pytest.raises(RecipeError) as refused:
                load_recipe(recipe_with(loss, tmp_path, lacking=side))
            found = [each for each in refused.value.problems if f"needs the tap {tap!r}" in each.message]
            assert [each.path for each in found] == ["losses[1]"]
            assert all(repr(name) in found[0].message for name in names)


def test_losses_that_read_activations_declare_their_taps():
    assert len({each.name for each in TAPPED}) > 20
