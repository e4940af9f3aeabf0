"""A teacher and students that learn within a moment, and the engine that teaches them."""

from __future__ import annotations

import torch
import toys
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, Needs, StagePlan, Training
from kdcore.data.pipeline import Pipeline
from kdcore.training.engine import Engine, Settings
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.randomness import seed_everything

SETTINGS = Settings(seed=3, batch_size=3, log_every=2, checkpoint_seconds=1e9)


class Labels(DistillationLoss):
    """Cross-entropy."""

    needs = Needs(labels=True)

    def forward(self, ctx):
        return F.cross_entropy(ctx.student.logits, ctx.labels)


class Imitate(DistillationLoss):
    """Squared distance to the teachers' features through a layer of its own."""

    needs = Needs(teachers=1)

    def setup(self, example: Example) -> None:
        self.regressor = nn.Linear(example.student.features["features"].shape[1], 4)

    def forward(self, ctx):
        mine = self.regressor(ctx.student.features["features"])
        return torch.stack([F.mse_loss(mine, each.features["features"]) for each in ctx.teachers.values()]).mean()


def table(folder):
    """Rows for everybody, with the transforms of batches in ``batch_transforms``: noise for students."""
    (folder / "recordings").mkdir()
    recordings = toys.write(folder / "recordings", trials=3)
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE)])}
    pipelines |= {name: Pipeline([toys.branch(on_batches=[toys.Noise()])]) for name in ("student", "other")}
    made = toys.table(toys.Files(recordings), pipelines, folder / "cache", label_noise=0.1)
    made.batch_transforms = {name: pipeline.batch_transforms for name, pipeline in pipelines.items()}
    return made


def distiller(table, terms=None, students=("student",), fusion=None, teacher=None):
    """A teacher that learns from labels, and students with `terms`: a list for all of them, or one for each by name."""
    members = {
        "teacher": toys.participant(
            "teacher", **{"channels": 3, "seed": 1, "batch_transforms": table.batch_transforms["teacher"]} | (teacher or {})
        ),
        **{
            name: toys.participant(name, 2, seed=number + 2, batch_transforms=table.batch_transforms[name])
            for number, name in enumerate(students)
        },
    }
    made = Distiller({"teacher": members.pop("teacher")}, members, fusion).eval()
    batch = table.batch(table.rows["train"], ("teacher", *students))
    with torch.no_grad():
        taught = made.run_teachers(["teacher"], batch)
        made.add_terms("teacher", [TermSpec("labels", 1.0, Labels)], lambda _: Example(taught["teacher"], {}, 2))
        for name in students:
            seed_everything(7)
            example = Example(made(name, batch), taught, 2)
            own = terms[name] if isinstance(terms, dict) else terms or default_terms()
            made.add_terms(name, own, lambda _, example=example: example)
    return made


def default_terms():
    return [TermSpec("labels", 1.0, Labels), TermSpec("imitate", 0.5, Imitate, teachers=("teacher",))]


def stage(name, learners, training, epochs=None, sources=(), split="train"):
    """A stage as a plan has it, in which all learners are trained alike."""
    trained, size = dict.fromkeys(learners, training), training.batch_size or 3
    return StagePlan(name, learners, sources, trained, epochs or training.epochs, split, size, "+".join(learners))


def teachers(epochs=2, **training):
    return stage("teachers", ("teacher",), Training(epochs=epochs, **training))


def students(epochs=2, learners=("student",), taught=("teacher",), **training):
    return stage("student", learners, Training(epochs=epochs, **training), sources=taught)


def one(training, learner, taught=()):
    return stage(learner, (learner,), training, 1, taught)


class Recorded:
    """The values that an engine tracked: key → {step: value}."""

    def __init__(self):
        self.values = {}

    def __call__(self, metrics, step):
        for key, value in metrics.items():
            assert step not in self.values.setdefault(key, {}), f"{key} is tracked twice for step {step}"
            self.values[key][step] = value


def engine(made, table, settings=SETTINGS, **parts):
    fabric = Fabric(accelerator="cpu", devices=1)
    return Engine(fabric, made, table, settings, **parts)


def fit(made, table, stages, settings=SETTINGS, **parts):
    recorded = Recorded()
    runner = engine(made, table, settings, record=recorded, **parts)
    runner.fit(stages)
    return runner, recorded.values


def state_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_state(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)
