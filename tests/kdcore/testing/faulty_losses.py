"""Losses with one fault each. `Plain`, `Averaging` and `Regressing` have none."""

from __future__ import annotations

import random

import numpy as np
import torch
from faults import caught_by, sound
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LossContext, Needs


def differences(ctx: LossContext) -> Tensor:
    teachers = torch.stack([teacher.logits for teacher in ctx.teachers.values()]).mean(dim=0)
    return (ctx.student.logits - teachers).square().mean(dim=1)


@sound("loss")
class Plain(DistillationLoss):
    """The mean squared error of logits."""

    needs = Needs(teachers=1)

    def forward(self, ctx: LossContext) -> Tensor:
        return differences(ctx).mean()


@sound("loss")
class Averaging(Plain):
    """The error in units of its running average, which is a buffer."""

    average: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.ones(()))

    def forward(self, ctx: LossContext) -> Tensor:
        value = super().forward(ctx)
        self.average = (0.9 * self.average + 0.1 * value.detach()).clamp_min(1e-6)
        return value / self.average


@sound("loss")
class Regressing(DistillationLoss):
    """The error of features after a learnt map."""

    needs = Needs(teachers=1, student_taps=("features",), teacher_taps=("features",))

    def setup(self, example: Example) -> None:
        teacher = next(iter(example.teachers.values()))
        self.map = nn.Linear(example.student.features["features"].shape[1], teacher.features["features"].shape[1])

    def forward(self, ctx: LossContext) -> Tensor:
        theirs = torch.stack([teacher.features["features"] for teacher in ctx.teachers.values()]).mean(dim=0)
        return F.mse_loss(self.map(ctx.student.features["features"]), theirs)


@sound("loss")
class VarianceInvarianceCovariance(DistillationLoss):
    """Terms weighted 25, 25 and 1, of features after learnt maps: steep where the batch hardly varies."""

    needs = Needs(teachers=1, student_taps=("features",), teacher_taps=("features",))

    def setup(self, example: Example) -> None:
        theirs = {name: teacher.features["features"].shape[1] for name, teacher in example.teachers.items()}
        mine = example.student.features["features"].shape[1]
        self.projections = nn.ModuleDict({name: nn.Linear(mine, width) for name, width in theirs.items()})

    def forward(self, ctx: LossContext) -> Tensor:
        total = ctx.student.logits.new_zeros(())
        for name, teacher in ctx.teachers.items():
            mapped, wanted = self.projections[name](ctx.student.features["features"]), teacher.features["features"]
            centred = mapped - mapped.mean(dim=0)
            spread = (centred.square().mean(dim=0) + 1e-4).sqrt()
            covariance = centred.T @ centred / max(1, len(centred) - 1)
            apart = (covariance - covariance.diagonal().diag()).square().sum() / len(covariance)
            total = total + 25 * F.mse_loss(mapped, wanted) + 25 * F.relu(1 - spread).mean() + apart
        return total / len(ctx.teachers)


@sound("loss")
class Steep(VarianceInvarianceCovariance):
    """The same error, ten thousand times as large."""

    scale = 1e4

    def forward(self, ctx: LossContext) -> Tensor:
        return self.scale * super().forward(ctx)


@sound("loss")
class Flat(Steep):
    """The same error, ten thousand times as small."""

    scale = 1e-4


@caught_by("loss", "documented")
class Unexplained(Plain):
    """Has an option of which the docstring says nothing."""

    def __init__(self, *, strength: float = 1.0):
        super().__init__()


class Kernel:
    """Nothing that YAML could hold."""


@caught_by("loss", "options_round_trip")
class Unwritable(Plain):
    """Has an option that no recipe can write.

    Args:
        kernel: An object.
    """

    def __init__(self, *, kernel: Kernel = Kernel()):  # noqa: B008
        super().__init__()


@caught_by("loss", "constructed")
class Unmakeable(Plain):
    """Cannot be made."""

    def __init__(self):
        super().__init__()
        raise RuntimeError("not today")


@caught_by("loss", "constructed")
class Demanding(Plain):
    """Has an option without a default, which its case does not give.

    Args:
        tap: Where to look.
    """

    def __init__(self, *, tap: str):
        super().__init__()


@caught_by("loss", "answers")
class BySample(Plain):
    """Gives a number for every sample."""

    def forward(self, ctx: LossContext) -> Tensor:
        return differences(ctx)


@caught_by("loss", "answers")
class ReadsLabels(Plain):
    """Reads labels without saying so."""

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) + F.cross_entropy(ctx.student.logits, ctx.labels)


@caught_by("loss", "student_gets_gradient")
class Detached(Plain):
    """Loses the student's graph on the way."""

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx).detach()


@caught_by("loss", "student_gets_gradient")
class TapUnused(Plain):
    """Declares a tap that gets no gradient."""

    needs = Needs(teachers=1, student_taps=("features",))


@caught_by("loss", "teachers_get_none")
class TeachesTeachers(Plain):
    """Asks for a gradient of the teachers' logits."""

    def forward(self, ctx: LossContext) -> Tensor:
        for teacher in ctx.teachers.values():
            teacher.logits.requires_grad_()
        return super().forward(ctx)


@caught_by("loss", "inputs_unmodified")
class InPlace(Plain):
    """Rounds the teachers' logits where they are."""

    def forward(self, ctx: LossContext) -> Tensor:
        for teacher in ctx.teachers.values():
            teacher.logits.clamp_(-2, 2)
        return super().forward(ctx)


@caught_by("loss", "deterministic")
class Random(Plain):
    """Takes random numbers from elsewhere than torch."""

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) * (1 + 1e-5 * random.SystemRandom().random())


@caught_by("loss", "deterministic")
class RandomFromNumpy(Plain):
    """Takes random numbers from NumPy, whose seed may be anybody's."""

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) * (1 + 1e-5 * float(np.random.rand()))


@caught_by("loss", "inputs_unmodified")
class Greedy(Plain):
    """Puts something among the student's features for next time."""

    def forward(self, ctx: LossContext) -> Tensor:
        features: dict[str, Tensor] = ctx.student.features  # type: ignore[assignment]
        features.setdefault("kept", ctx.student.logits.detach())
        return super().forward(ctx)


@caught_by("loss", "permutation_invariant")
class Ordered(Plain):
    """Counts the first samples more."""

    def forward(self, ctx: LossContext) -> Tensor:
        each = differences(ctx)
        return (each / torch.arange(1, len(each) + 1, device=each.device)).mean()


@caught_by("loss", "weights_count_samples")
class Unweighed(Plain):
    """Says that it heeds the weights of samples, and divides by their number."""

    sample_weights = True

    def forward(self, ctx: LossContext) -> Tensor:
        weights = 1.0 if ctx.weights is None else ctx.weights
        return (weights * differences(ctx)).mean()


@caught_by("loss", "unknown_labels_ignored")
class Guessing(Plain):
    """Takes labels that are not known for 0, though it says that it leaves them out."""

    needs = Needs(labels=True)
    targets = ("labels",)
    partial_labels = True

    def forward(self, ctx: LossContext) -> Tensor:
        return ((ctx.student.logits - ctx.labels.nan_to_num()) ** 2).mean()


@sound("loss")
class WhereKnown(Plain):
    """Adds the cross-entropy of samples whose label is known."""

    needs = Needs(teachers=1, labels="optional")

    def forward(self, ctx: LossContext) -> Tensor:
        known = ctx.labels >= 0
        return super().forward(ctx) + F.cross_entropy(ctx.student.logits[known], ctx.labels[known], reduction="sum")


@caught_by("loss", "optional_labels_may_be_unknown")
class Dividing(WhereKnown):
    """Divides by the number of known labels, even if it is 0."""

    def forward(self, ctx: LossContext) -> Tensor:
        known = ctx.labels >= 0
        return Plain.forward(self, ctx) + F.cross_entropy(ctx.student.logits[known], ctx.labels[known])


@sound("loss")
class Remembering(Plain):
    """Keeps logits of all samples, in a bank that is sized in its setup."""

    bank: Tensor

    def setup(self, example: Example) -> None:
        self.register_buffer("bank", torch.zeros(example.num_samples, example.num_classes))

    def forward(self, ctx: LossContext) -> Tensor:
        logits = ctx.student.logits
        self.bank[ctx.batch.rows] = logits.detach().to(self.bank.dtype)
        return super().forward(ctx) + (logits - self.bank[ctx.batch.rows].clone() / 2).square().mean()


@caught_by("loss", "batch_of_one")
class Unbiased(Plain):
    """Divides by one less than the number of samples."""

    def forward(self, ctx: LossContext) -> Tensor:
        return differences(ctx).sum() / (len(ctx.batch) - 1)


@caught_by("loss", "temperature_scaling")
class Cooling(Plain):
    """Says that it makes up for the temperature, and does not.

    Args:
        temperature: What logits are divided by.
    """

    temperature_power = 2

    def __init__(self, *, temperature: float = 4.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) / self.temperature**2


@caught_by("loss", "temperature_scaling")
class Lukewarm(Plain):
    """Says that it makes up for a temperature that it does not have.

    Args:
        tau: What logits are divided by.
    """

    temperature_power = 2

    def __init__(self, *, tau: float = 4.0):
        super().__init__()
        self.tau = tau

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) / self.tau


@caught_by("loss", "precisions_agree")
class SilentInHalf(Plain):
    """Sends nothing to the student in half precision."""

    def forward(self, ctx: LossContext) -> Tensor:
        value = super().forward(ctx)
        return value if ctx.student.logits.dtype != torch.bfloat16 else value.detach() + 0 * value


@caught_by("loss", "precisions_agree")
class SinglePrecision(Plain):
    """Multiplies by a matrix that is always of single precision."""

    def forward(self, ctx: LossContext) -> Tensor:
        logits = ctx.student.logits
        return super().forward(ctx) + (logits @ torch.eye(logits.shape[1], device=logits.device)).square().mean()


@caught_by("loss", "devices_agree")
class OnCpu(Plain):
    """Multiplies by a vector that is always on the CPU."""

    def forward(self, ctx: LossContext) -> Tensor:
        logits = ctx.student.logits
        return (super().forward(ctx) * torch.ones(logits.shape[1], dtype=logits.dtype)).mean()


@caught_by("loss", "finite_on_equal_outputs")
class Standardising(Plain):
    """Divides by the spread of the teachers' logits."""

    def forward(self, ctx: LossContext) -> Tensor:
        spread = torch.stack([teacher.logits.std() for teacher in ctx.teachers.values()]).mean()
        return super().forward(ctx) / spread


@caught_by("loss", "finite_on_extreme_logits")
class Exponential(Plain):
    """Takes the logarithm of a sum of exponentials by hand."""

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) + ctx.student.logits.exp().sum(dim=1).log().square().mean()


@caught_by("loss", "finite_on_tiny_outputs")
class Normalising(DistillationLoss):
    """Brings features to unit length, which nothing has not."""

    needs = Needs(student_taps=("features",))

    def forward(self, ctx: LossContext) -> Tensor:
        features = ctx.student.features["features"].flatten(1)
        return (features / features.norm(dim=1, keepdim=True)).sum(dim=1).square().mean()
