"""Checks of fusions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import Batch, Outputs
from kdcore.contracts.encoder import Encoder, Participant
from kdcore.contracts.fusion import TeacherFusion
from kdcore.testing.case import NotApplicable, require, skip_unless
from kdcore.testing.checks import Subject, check, seeded
from kdcore.testing.gradients import agree
from kdcore.training.module_checks import REGISTER, unregistered

SAMPLES, CLASSES = 6, 5
Teachers = dict[str, Participant]


class Staged(Encoder):
    """A small network with the stages ``stage1``, ``stage2`` and ``head``, for inputs (B, 3, time)."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, CLASSES))

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Return the three stages."""
        return dict(self.named_children())

    def forward(self, x: Tensor) -> Tensor:
        """Return class logits."""
        for stage in self.stages().values():
            x = stage(x)
        return x


@dataclass(frozen=True)
class Bench:
    """A fusion after its setup, with its teachers and a batch."""

    fusion: TeacherFusion
    teachers: Teachers
    batch: Batch

    def outputs(self, batch: Batch | None = None) -> dict[str, Outputs]:
        """Return the outputs of all teachers."""
        with seeded():
            return self.fusion(self.teachers, batch or self.batch)


def teachers_and_batch(samples: int) -> tuple[Teachers, Batch]:
    """Return two teachers of the same shape, and a batch for them."""
    draw = torch.Generator().manual_seed(4)
    teachers = {name: Participant(name, Staged(), {"map": "stage2", "pooled": "head.1"}) for name in ("first", "second")}
    signals = {name: torch.randn(samples, 3, 16, generator=draw) for name in teachers}
    return teachers, Batch(torch.arange(samples), signals, torch.arange(samples) % CLASSES)


def bench(subject: Subject, samples: int = SAMPLES, seed: int = 0) -> Bench:
    """Return a `Bench` in evaluation mode.

    Raises:
        NotApplicable: If the fusion fails, which the check `answers` reports.
    """
    subject.made()
    try:
        _bench(subject, samples, seed).outputs()
        return _bench(subject, samples, seed)  # a new one, which has not been called
    except Exception as error:
        raise NotApplicable("it could not be run: see the check 'answers'") from error


def _bench(subject: Subject, samples: int = SAMPLES, seed: int = 0) -> Bench:
    fusion: TeacherFusion = subject.made()
    make = subject.case.inputs or teachers_and_batch
    with seeded():
        teachers, batch = make(samples)
        for teacher in teachers.values():
            teacher.eval()
    with seeded(seed):
        fusion.eval().setup(teachers, batch)
    return Bench(fusion.eval(), teachers, batch)


@check("fusion")
def answers(subject: Subject) -> None:
    """It returns the outputs of every teacher: finite logits and all of its taps, with a row for every sample."""
    tested = _bench(subject)
    outputs = tested.outputs()
    require(
        set(outputs) == set(tested.teachers), f"it returns outputs for {', '.join(outputs)}, not {', '.join(tested.teachers)}"
    )
    for name, each in outputs.items():
        shape = tuple(each.logits.shape)
        require(shape[0] == SAMPLES and len(shape) == 2, f"logits of {name} have shape {shape}")
        require(each.logits.isfinite().all(), f"logits of {name} are not finite")
        missing = [tap for tap in tested.teachers[name].taps if tap not in each.features]
        require(not missing, f"taps {', '.join(missing)} of {name} are missing; return teacher.collect(logits)")


@check("fusion")
def batch_of_one(subject: Subject) -> None:
    """It returns finite logits for a batch of one sample."""
    for name, outputs in bench(subject, samples=1).outputs().items():
        require(outputs.logits.isfinite().all(), f"logits of {name} are not finite for a batch of one")


@check("fusion")
def batch_dependence_declared(subject: Subject) -> None:
    """Unless it declares `batch_dependent`, a sample's outputs do not depend on the other samples of its batch."""
    tested = bench(subject)
    skip_unless(not tested.fusion.batch_dependent, "it declares that outputs depend on the batch")
    together = tested.outputs()
    for row in range(SAMPLES):
        alone = tested.outputs(_row(tested.batch, row))
        for name in together:
            what = f"logits of {name} together and one by one (else declare `batch_dependent = True`)"
            agree(together[name].logits[row : row + 1], alone[name].logits, what, 1e-4, 1e-5)


def _row(batch: Batch, row: int) -> Batch:
    signals = {name: x[row : row + 1] for name, x in batch.signals.items()}
    return Batch(batch.rows[row : row + 1], signals, batch.labels)  # type: ignore[arg-type]


@check("fusion")
def all_parameters_learn(subject: Subject) -> None:
    """A gradient reaches all of its own parameters and all those of the teachers."""
    tested = bench(subject)
    modules = {"fusion": tested.fusion, **tested.teachers}
    before = len(list(tested.fusion.parameters()))
    for module in modules.values():
        module.train()
    torch.stack([each.logits.square().sum() for each in tested.outputs().values()]).sum().backward()
    require(len(list(tested.fusion.parameters())) == before, "it creates parameters during training; create them in setup")
    missing = [
        f"{owner}.{name}"
        for owner, module in modules.items()
        for name, p in module.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    require(not missing, f"no gradient reaches {', '.join(missing)}")


@check("fusion")
def state_registered(subject: Subject) -> None:
    """Its tensors and modules are registered, but the teachers are not among them: they are saved separately."""
    tested = bench(subject)
    hidden = unregistered(tested.fusion)
    require(not hidden, f"{', '.join(hidden)}: {REGISTER}")
    own = {id(module) for module in tested.fusion.modules()}
    kept = [name for name, teacher in tested.teachers.items() if any(id(module) in own for module in teacher.modules())]
    require(not kept, f"it stores {', '.join(kept)} as a submodule; teachers are passed to forward each time")


@check("fusion")
def state_saved(subject: Subject) -> None:
    """`state_dict` holds everything learned: an instance with another seed that loads it returns the same outputs."""
    tested, other = bench(subject), bench(subject, seed=1)
    other.fusion.load_state_dict({name: x.clone() for name, x in tested.fusion.state_dict().items()})
    _same(other, tested, "outputs of the first, and of one that loaded its state_dict")


@check("fusion")
def deterministic(subject: Subject) -> None:
    """Constructed again with the same seed, it returns the same outputs."""
    _same(bench(subject), bench(subject), "outputs with the same seed")


def _same(one: Bench, other: Bench, what: str) -> None:
    first, second = one.outputs(), other.outputs()
    for name in first:
        agree(first[name].logits, second[name].logits, f"{what}: {name}", 1e-6)


@check("fusion")
def inputs_unmodified(subject: Subject) -> None:
    """It does not modify the batch."""
    tested = bench(subject)
    before = {name: x.clone() for name, x in tested.batch.signals.items()}  # type: ignore[union-attr]
    tested.outputs()
    changed = [name for name, x in tested.batch.signals.items() if not torch.equal(x, before[name])]  # type: ignore[arg-type]
    require(not changed, f"it changes the input of {', '.join(changed)} in place")
