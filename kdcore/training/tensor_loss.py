"""Registered losses as modules on plain tensors, for other training loops."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from kdcore.contracts.batch import AnonymousBatch, Batch, LossContext, Outputs
from kdcore.contracts.loss import DistillationLoss, Example
from kdcore.contracts.needs import Needs
from kdcore.contracts.progress import Progress
from kdcore.errors import RecipeError, TrainingError, UsageError
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import make, options_model, validated
from kdcore.recipe.problems import Places, found_by_schema
from kdcore.training.module_checks import not_a_scalar, reads_all_samples, set_up

Answers = Tensor | Outputs
"""Logits (B, classes), or logits with activations by tap."""

TEACHER = "teacher"
"""Name of a teacher that is given without a name."""


def loss(name: str, /, **options: Any) -> TensorLoss:
    """Construct a registered loss as a module on tensors; ``kdcore list losses`` lists all losses.

    Args:
        name: Name of the loss, such as ``dist`` or ``plugin/name``.
        options: Options of the loss, as in a recipe; ``kdcore describe NAME`` lists them.

    Raises:
        UnknownComponentError: If there is no such loss.
        RecipeError: If an option is wrong.

    Example:
        >>> import torch, kdcore
        >>> student, teacher = torch.randn(8, 5, requires_grad=True), torch.randn(8, 5)
        >>> labels = torch.randint(5, (8,))
        >>> term = kdcore.loss("dkd", temperature=2.0)
        >>> value = term(student, teacher, labels)
        >>> value.backward()
        >>> value.shape
        torch.Size([])
    """
    return TensorLoss(constructed(name, options), name)


def constructed(name: str, options: Mapping[str, Any]) -> DistillationLoss:
    """Validate options, and construct a registered loss.

    Raises:
        UnknownComponentError: If there is no such loss.
        RecipeError: If an option is wrong, or the constructor fails.
    """
    entry = plugin_manager().registry.get("loss", name)
    try:
        validated(entry, options)
    except ValidationError as error:
        of = f"loss {name!r}"
        raise RecipeError(found_by_schema(error, options, Places({}), options_model(entry), of=of)) from error
    return make(entry, options)


class TensorLoss(nn.Module):
    """A distillation loss that is called with tensors. Its parameters, if any, must be passed to the optimizer.

    Args:
        term: The loss.
        name: Name for error messages; the class name by default.

    Attributes:
        needs: Inputs that the loss requires.
    """

    def __init__(self, term: DistillationLoss, name: str = ""):
        super().__init__()
        self.term = term
        self.name = name or type(term).__name__
        self._is_set_up = False

    @property
    def needs(self) -> Needs:
        """Inputs that the loss requires."""
        return self.term.needs

    def setup(
        self,
        student: Answers,
        teacher: Answers | Mapping[str, Answers] | None = None,
        *,
        peers: Answers | Mapping[str, Answers] | None = None,
    ) -> TensorLoss:
        """Create the parameters whose shapes depend on the networks. Losses with such parameters require one call.

        Call it before creating the optimizer.

        Args:
            student: Outputs of the student for any batch.
            teacher: Outputs of the teacher, or name → outputs for several teachers.
            peers: Outputs of peers, for losses between students; as `teacher`.

        Raises:
            ValueError: If the shapes do not match.
        """
        outputs, teachers, others = _outputs(student), _named(teacher), _named(peers, "peer")
        with torch.no_grad():
            set_up(self.term, Example(outputs, teachers, outputs.logits.shape[1], peers=others))
        self.term.to(outputs.logits.device)
        self._is_set_up = True
        return self

    def forward(
        self,
        student: Answers,
        teacher: Answers | Mapping[str, Answers] | None = None,
        labels: Tensor | None = None,
        *,
        peers: Answers | Mapping[str, Answers] | None = None,
        class_embeddings: Tensor | None = None,
        index: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Compute the loss of a batch, a scalar. Outputs of teachers and peers are detached.

        Args:
            student: Logits (B, classes), or `kdcore.Outputs` with activations by tap.
            teacher: Outputs of the teacher, or name → outputs for several teachers.
            labels: (B,) int64.
            peers: Outputs of peers, for losses between students; as `teacher`.
            class_embeddings: (classes, D), for losses that read them.
            index: (B,) int64, index of each sample in the dataset, for losses with a memory of samples.
            progress: Current epoch and step, for options that change over epochs.

        Raises:
            UsageError: If an input that the loss requires is missing.
        """
        outputs, teachers, others = _outputs(student), _named(teacher), _named(peers, "peer")
        self._refuse_missing(outputs, teachers, others, labels, class_embeddings)
        if not self._is_set_up:
            self._set_up_at_once(outputs, teachers, others)
        size = len(outputs.logits)
        if labels is None and self.needs.labels:
            labels = torch.full((size,), -1, device=outputs.logits.device)
        batch = AnonymousBatch(size, {}, labels) if index is None else Batch(index, {}, labels)
        value = self.term(LossContext(outputs, teachers, batch, others, class_embeddings, progress or Progress()))
        if wrong := not_a_scalar(value):
            raise TrainingError(f"the loss {self.name!r}: {wrong}")
        return value

    def _set_up_at_once(self, student: Outputs, teachers: Mapping[str, Outputs], peers: Mapping[str, Outputs]) -> None:
        """Set up the loss at its first call; refuse it if that creates parameters, which an existing optimizer would miss."""
        trial = deepcopy(self.term)
        with torch.no_grad():
            set_up(trial, Example(student.detach(), teachers, student.logits.shape[1], peers=peers))
        before = dict(self.term.named_parameters())
        if made := [name for name, _ in trial.named_parameters() if name not in before]:
            raise UsageError(
                f"the loss {self.name!r} creates parameters whose shapes depend on the networks ({', '.join(made[:3])}): call "
                "setup(student, teacher) on it once, before the optimizer is made"
            )
        self.setup(student.detach(), dict(teachers), peers=dict(peers))

    def _refuse_missing(
        self,
        student: Outputs,
        teachers: Mapping[str, Outputs],
        peers: Mapping[str, Outputs],
        labels: Tensor | None,
        class_embeddings: Tensor | None,
    ) -> None:
        needs, missing = self.needs, []
        if needs.forward_passes:
            raise UsageError(f"the loss {self.name!r} runs networks: use it in kdcore.distil or a recipe")
        if reads_all_samples(self.term):
            raise UsageError(f"the loss {self.name!r} reads all training samples before an epoch: use it in a recipe")
        for argument, count, outputs in (("teacher", needs.teachers, teachers), ("peers", needs.peers, peers)):
            if len(outputs) < count:
                missing.append(f"{argument}=" if count == 1 else f"{argument}={{name: outputs}} of at least {count}")
        missing += ["labels="] if needs.labelled and labels is None else []
        missing += ["class_embeddings="] if needs.class_embeddings and class_embeddings is None else []
        missing += [f"the student's features {tap!r}" for tap in needs.student_taps if tap not in student.features]
        for taps, others in ((needs.teacher_taps, teachers), (needs.peer_taps, peers)):
            for name, each in others.items():
                missing += [f"the features {tap!r} of {name}" for tap in taps if tap not in each.features]
        if needs.classifiers and any(each.classifier is None for each in (student, *teachers.values(), *peers.values())):
            missing.append("classifiers, kdcore.Outputs(…, classifier=kdcore.Classifier(weight, bias))")
        if needs.ablated and any(each.ablated is None for each in (student, *teachers.values())):
            missing.append("outputs for an all-zero input, kdcore.Outputs(…, ablated=…)")
        if missing:
            what = " and ".join(missing)
            hint = "; features are given as kdcore.Outputs(logits, {tap: activation})" if "features" in what else ""
            raise UsageError(f"the loss {self.name!r} needs {what}{hint}")
        for what, tensor in {"labels": labels, **{name: each.logits for name, each in {**teachers, **peers}.items()}}.items():
            if tensor is not None and len(tensor) != len(student.logits):
                raise UsageError(f"{what}: {len(tensor)} samples, but the student has {len(student.logits)}")


def _outputs(value: Answers) -> Outputs:
    outputs = value if isinstance(value, Outputs) else Outputs(value)
    if not isinstance(outputs.logits, Tensor) or outputs.logits.ndim != 2:
        shape = tuple(outputs.logits.shape) if isinstance(outputs.logits, Tensor) else type(outputs.logits).__name__
        raise UsageError(f"logits are a tensor (B, classes), not {shape}")
    return outputs


def _named(values: Answers | Mapping[str, Answers] | None, name: str = TEACHER) -> dict[str, Outputs]:
    """Detached outputs by name; outputs without a name get `name`."""
    if values is None:
        return {}
    by_name = values if isinstance(values, Mapping) else {name: values}
    return {each: _outputs(outputs).detach() for each, outputs in by_name.items()}
