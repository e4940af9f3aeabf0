"""The shipped recipes of other papers' methods, against independent computations in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from runs import Home
from torch import Tensor
from torch.nn import functional as F

from kdcore import Participant, StagePlan
from kdcore.data.preparation import load_table
from kdcore.data.table import Table
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import BASELINE, DISTILLED, make_plan
from kdcore.training.assembly import Assembly
from kdcore.training.engine import Engine, Settings
from kdcore.training.participants import Distiller
from kdcore.training.step import StageStep

TINY = (
    "data.dataset={name: synthetic-motion, subjects: 3, trials: 3, actions: [wave, punch, 'sit down']}",
    "data.protocol={name: cross-subject, train_subjects: [1, 2], test_subjects: [3]}",
    "data.batch_size=4",
    "training.epochs=3",
)
LENGTH = 16
SIGNAL = f"[{{name: resample, length: {LENGTH}}}, normalise]"
SKELETON = f"[{{name: resample, length: {LENGTH}}}, {{name: centre, layout: utd-mhad-20}}, joints-to-channels, normalise]"
SEED = 5


def network(path: str, transforms: str = SIGNAL, width: int = 4) -> list[str]:
    """Overrides that make a participant small and leave nothing to chance in it."""
    return [f"{path}.transforms={transforms}", f"{path}.encoder={{name: cnn1d, width: {width}, depth: 2, dropout: 0}}"]


@dataclass
class Trial:
    """A recipe on its data, before training."""

    assembly: Assembly
    table: Table

    @property
    def batch_size(self) -> int:
        return self.assembly.recipe.data.batch_size

    def stages(self, arm: str = DISTILLED) -> tuple[StagePlan, ...]:
        return self.assembly.stages(arm)

    def distiller(self, arm: str = DISTILLED) -> Distiller:
        return self.assembly.distiller(self.table, SEED, arm, torch.device("cpu"))

    def fit(self, distiller: Distiller, stages: Sequence[StagePlan]) -> tuple[Engine, dict[str, dict[int, float]]]:
        recorded: dict[str, dict[int, float]] = {}

        def record(metrics: Mapping[str, float], step: int) -> None:
            for key, value in metrics.items():
                recorded.setdefault(key, {})[step] = value

        settings = Settings(SEED, self.batch_size, checkpoint_seconds=1e9, log_every=1)
        engine = Engine(Fabric(accelerator="cpu", devices=1), distiller, self.table, settings, record)
        engine.fit(stages)
        return engine, recorded

    def input(self, name: str, rows: Tensor) -> Tensor:
        """The inputs of a participant without augmentation."""
        return self.table.inputs[name][0][rows]


@pytest.fixture
def trial(tmp_path):
    def make(recipe: str, *overrides: str) -> Trial:
        plugins = plugin_manager()
        loaded = load_recipe(f"methods/{recipe}", [*TINY, *overrides], plugins)
        builder = Builder(loaded, plugins)
        dataset, data = builder.dataset(), loaded.filled_data
        assembly = Assembly(builder, dataset, make_plan(loaded))
        return Trial(assembly, load_table(dataset, builder.protocol(), data, assembly.pipelines, tmp_path, data.memory_bytes))

    return make


# The network, the losses and the training loop once more, by hand

Weights = dict[str, Tensor]


def weights_of(member: Participant) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in member.encoder.state_dict().items()}


def forward(weights: Weights, x: Tensor, learning: bool) -> Tensor:
    """Logits of a two-block `cnn1d` without dropout; updates its running statistics while it is learning."""
    for block in (0, 1):
        layer = f"blocks.{block}"
        x = F.conv1d(x, weights[f"{layer}.0.weight"], padding=2)
        mean, variance = weights[f"{layer}.1.running_mean"], weights[f"{layer}.1.running_var"]
        x = F.batch_norm(x, mean, variance, weights[f"{layer}.1.weight"], weights[f"{layer}.1.bias"], learning)
        x = F.relu(x)
        if block == 0:
            x = F.max_pool1d(x, 2, ceil_mode=True)
    return F.linear(x.mean(2), weights["fc.weight"], weights["fc.bias"])


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return (torch.logsumexp(logits, 1) - logits[torch.arange(len(labels)), labels]).mean()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student), softened, from its definition."""
    p = torch.exp(teacher / temperature) / torch.exp(teacher / temperature).sum(1, keepdim=True)
    q = torch.exp(student / temperature) / torch.exp(student / temperature).sum(1, keepdim=True)
    return (p * (p.log() - q.log())).sum(1).mean()


def soft_target(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return temperature**2 * divergence(student, teacher, temperature)


@dataclass
class ByHand:
    """AdamW with weight decay 0.01 and a rate that falls from 0.002 along a cosine, over 3 epochs."""

    weights: Weights
    epochs: int = 3

    def train(self, batches: Sequence[Tensor], x_of, labels_of, teacher_of=None, temperature: float = 4.0):
        """Returns the values of both terms at each step."""
        learnt = [tensor.requires_grad_() for name, tensor in self.weights.items() if name.endswith(("weight", "bias"))]
        optimizer = torch.optim.AdamW(learnt, lr=0.002, weight_decay=0.01)
        steps, values = len(batches) // self.epochs, []
        for number, rows in enumerate(batches):
            optimizer.param_groups[0]["lr"] = 0.002 * (1 + math.cos(math.pi * (number // steps) / self.epochs)) / 2
            logits = forward(self.weights, x_of(rows), learning=True)
            terms = [cross_entropy(logits, labels_of(rows))]
            if teacher_of:
                terms.append(soft_target(logits, teacher_of(rows), temperature))
            optimizer.zero_grad()
            sum(terms).backward()  # type: ignore[union-attr]
            optimizer.step()
            values.append([float(term.detach()) for term in terms])
        return values

    def assert_like(self, member: Participant) -> None:
        found = weights_of(member)
        for name, tensor in self.weights.items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(
                    found[name], tensor.detach(), rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
                )


def rows_of(distiller: Distiller, learner: str, term: str = "cross-entropy") -> list[Tensor]:
    """Fills with the rows of each batch that `term` of `learner` is given."""
    found: list[Tensor] = []
    distiller.losses(learner)[term].register_forward_pre_hook(lambda _, args: found.append(args[0].batch.rows.clone()))
    return found


# Teacher assistant


TAKD = [
    *network("teachers.teacher", SKELETON, 8),
    *network("teachers.assistant", width=6),
    *network("student"),
]


@pytest.mark.parametrize(("learner", "teacher"), [("assistant", "teacher"), ("student", "assistant")])
def test_takd_trains_each_network_from_the_one_before_it(trial, learner, teacher):
    """Loss values and weights are those of a loop in plain PyTorch on the same batches from the same initial weights."""
    made = trial("takd", *TAKD)
    distiller = made.distiller()
    hand, batches = ByHand(weights_of(distiller.participant(learner))), rows_of(distiller, learner)
    _, recorded = made.fit(distiller, made.stages())
    assert len(batches) == 3 * (len(made.table.rows["train"]) // 4)
    source = weights_of(distiller.participant(teacher))

    def teaches(rows):
        with torch.no_grad():
            return forward(source, made.input(teacher, rows), learning=False)

    values = hand.train(batches, lambda rows: made.input(learner, rows), lambda rows: made.table.labels[rows], teaches)
    for index, term in enumerate(("cross-entropy", "soft-target")):
        found = list(recorded[f"train/{learner}/{term} (step)"].values())
        assert found == pytest.approx(
            [each[index] for each in values], rel=1e-4, abs=1e-5
        )  # the divergence is multiplied by 16
    hand.assert_like(distiller.participant(learner))


def test_takd_hides_the_large_teacher_from_the_student(trial):
    made = trial("takd", *TAKD)
    *first, last = made.stages()
    assert last.learners == ("student",)
    assert last.sources == ("assistant",)

    def student(perturbed: str | None) -> Weights:
        distiller = made.distiller()
        made.fit(distiller, first)
        if perturbed:
            for parameter in distiller.participant(perturbed).parameters():
                parameter.data.add_(torch.randn_like(parameter))
        made.fit(distiller, [last])
        return weights_of(distiller.participant("student"))

    expected = student(None)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student("teacher").items())
    assert not torch.equal(student("assistant")["fc.weight"], expected["fc.weight"])


# Mean Teacher


NOISE = 0.2
MEAN_TEACHER = [
    *network("student", f"[{{name: resample, length: {LENGTH}}}, normalise, {{name: jitter, std: {NOISE}}}]"),
    "data.labels={share: 0.4}",
    "teachers.average.momentum=0.6",
    "losses.consistency.weight=3",
]


@dataclass
class MeanTeacher:
    """A training of the recipe, with everything that passed through its networks."""

    made: Trial
    distiller: Distiller
    engine: Engine
    recorded: dict[str, dict[int, float]]
    rows: list[Tensor]
    inputs: dict[str, list[Tensor]]
    logits: list[Tensor]
    states: list[Weights]


@pytest.fixture
def mean_teacher(trial):
    made = trial("mean-teacher", *MEAN_TEACHER)
    distiller = made.distiller()
    student, average = distiller.participant("student"), distiller.participant("average")
    inputs: dict[str, list[Tensor]] = {"student": [], "average": []}
    logits, states = [], []
    for name, member in (("student", student), ("average", average)):
        member.encoder.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0].detach().clone()))
    student.encoder.register_forward_hook(lambda _, args, output: logits.append(output.detach().clone()))
    rows = rows_of(distiller, "student", "consistency")
    distiller.losses("student")["consistency"].register_forward_pre_hook(lambda *_: states.append(weights_of(student)))
    engine, recorded = made.fit(distiller, made.stages())
    states.append(weights_of(student))
    return MeanTeacher(made, distiller, engine, recorded, rows, inputs, logits, states)


def test_mean_teachers_average_is_its_closed_form(mean_teacher):
    r"""After N steps it is :math:`\sum_n (1 - d_n) \prod_{m > n} d_m w_n` with :math:`d_n = \min(0.6, n / (n + 1))`."""
    after = mean_teacher.states[1:]
    decays = [min(0.6, n / (n + 1)) for n in range(len(after))]
    shares = [(1 - decay) * math.prod(decays[n + 1 :]) for n, decay in enumerate(decays)]
    assert sum(shares) == pytest.approx(1)
    found = weights_of(mean_teacher.distiller.participant("average"))
    for name in ("blocks.0.0.weight", "blocks.1.1.bias", "fc.weight", "fc.bias"):
        expected = sum(share * state[name].double() for share, state in zip(shares, after, strict=True))
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
    for name in ("blocks.0.1.running_mean", "blocks.1.1.running_var"):  # copied, as torch.optim.swa_utils does
        assert torch.equal(found[name], after[-1][name])


def test_mean_teachers_average_is_never_optimised(mean_teacher):
    average = list(mean_teacher.distiller.participant("average").parameters())
    assert set(mean_teacher.engine.learners) == {"student"}
    optimizer = mean_teacher.engine.learners["student"].optimizer
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert not held & {id(each) for each in average}
    assert all(each.grad is None for each in average)


def test_mean_teacher_compares_two_augmentations_of_the_same_samples(mean_teacher):
    pairs = list(zip(mean_teacher.rows, mean_teacher.inputs["student"], mean_teacher.inputs["average"], strict=True))
    mine, theirs = [], []
    for rows, student, average in pairs:
        plain = mean_teacher.made.input("student", rows)
        assert torch.equal(plain, mean_teacher.made.input("average", rows))
        mine.append((student - plain).flatten())
        theirs.append((average - plain).flatten())
    noises = torch.stack([torch.cat(mine), torch.cat(theirs)])
    assert noises.std(1).tolist() == pytest.approx([NOISE, NOISE], rel=0.1)
    assert abs(float(torch.corrcoef(noises)[0, 1])) < 5 / math.sqrt(noises.shape[1])


def test_mean_teachers_supervised_term_is_the_mean_over_labelled_rows(mean_teacher):
    taught, expected = mean_teacher.made.table.train_labels, []
    for rows, logits in zip(mean_teacher.rows, mean_teacher.logits, strict=True):
        known = taught[rows] >= 0
        expected.append(float(cross_entropy(logits[known], taught[rows][known])) if bool(known.any()) else 0.0)
    assert any(bool((taught[rows] < 0).any()) for rows in mean_teacher.rows)
    found = list(mean_teacher.recorded["train/student/cross-entropy (step)"].values())
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


# Born-Again Networks


BORN_AGAIN = network("students.generation-1")


@pytest.mark.slow
def test_born_again_generations_are_rows_and_learn_from_frozen_outputs(trial, tmp_path, database, monkeypatch):
    from kdcore import run
    from kdcore.deploy.bundle import WEIGHTS
    from kdcore.runs.artifacts import student_folder
    from kdcore.training.checkpoint import load_weights
    from kdcore_losses.soft_target import SoftTarget

    home = Home(tmp_path, database)
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    seen: list[tuple[str, Tensor, Tensor]] = []
    real = SoftTarget.forward

    def spied(self, ctx):
        seen.extend((name, ctx.batch.rows.clone(), each.logits.clone()) for name, each in ctx.teachers.items())
        return real(self, ctx)

    monkeypatch.setattr(SoftTarget, "forward", spied)
    tracking = f"tracking={{uri: 'sqlite:///{database}', experiment: born-again}}"
    result = run("methods/born-again", [*TINY, *BORN_AGAIN, f"seeds=[{SEED}]", tracking])
    roles = {(row.participant, row.role) for row in result.summary.rows}
    for generation in ("generation-1", "generation-2", "generation-3"):
        assert any(name == generation for name, _ in roles), roles
    made = trial("born-again", *BORN_AGAIN)
    steps = len(made.table.rows["train"]) // 4
    for teacher in ("generation-1", "generation-2"):
        saved = load_weights(student_folder(result.folder, SEED, teacher) / WEIGHTS)
        weights = {name.removeprefix("encoder."): tensor for name, tensor in saved.items() if name.startswith("encoder.")}
        given = [(rows, logits) for name, rows, logits in seen if name == teacher][-3 * steps :]  # after the preflight
        assert len(given) == 3 * steps
        for rows, logits in given:
            torch.testing.assert_close(logits, forward(weights, made.input(teacher, rows), False), rtol=1e-4, atol=1e-5)


def test_born_agains_baselines_are_the_first_generations_rule_with_seeds_of_their_own(trial):
    made = trial("born-again", *BORN_AGAIN)
    trained = {}
    for arm, name in ((DISTILLED, "generation-1"), (BASELINE, "generation-2"), (BASELINE, "generation-3")):
        distiller = made.distiller(arm)
        stages = [stage for stage in made.stages(arm) if stage.learners == (name,)]
        hand, batches = ByHand(weights_of(distiller.participant(name))), rows_of(distiller, name)
        start = hand.weights["fc.weight"].clone()
        made.fit(distiller, stages)
        hand.train(batches, lambda rows, name=name: made.input(name, rows), lambda rows: made.table.labels[rows])
        hand.assert_like(distiller.participant(name))
        trained[name] = (start, torch.cat(batches))
    for first, second in (("generation-1", "generation-2"), ("generation-2", "generation-3")):
        assert not torch.equal(trained[first][0], trained[second][0])
        assert not torch.equal(trained[first][1], trained[second][1])


# Deep Mutual Learning across modalities


MUTUAL = [*network("students.accelerometer"), *network("students.skeleton", SKELETON)]
STUDENTS = ("accelerometer", "gyroscope", "skeleton")


def step_of(made: Trial, distiller: Distiller, stage: StagePlan) -> tuple[StageStep, Tensor]:
    distiller.eval()
    for name in stage.learners:
        for module in distiller.owned(name):
            module.train()
    return StageStep(distiller, stage, made.table, labelled=True), made.table.rows["train"][:4]


def mutual_objectives(logits: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Every student's objective from all logits; what it hears from others is a constant to it."""
    found: dict[str, Any] = {}
    for name in STUDENTS:
        temperature, weight = (4, 0.2) if name == "skeleton" else (1, 1)
        peers = [divergence(logits[name], logits[other].detach(), temperature) for other in STUDENTS if other != name]
        found[name] = cross_entropy(logits[name], labels) + weight * sum(peers) / 2
    return found


def test_mutual_learning_gives_each_student_its_own_loss_and_nobody_a_gradient_of_another(trial):
    made = trial("mutual-modalities", *MUTUAL)
    distiller = made.distiller()
    [stage] = made.stages()
    step, rows = step_of(made, distiller, stage)
    by_hand = {name: weights_of(distiller.participant(name)) for name in STUDENTS}
    total, values = step(rows, rows)
    learnt = {
        name: {key: weights[key].requires_grad_() for key in weights if key.endswith(("weight", "bias"))}
        for name, weights in by_hand.items()
    }
    logits = {name: forward(weights, made.input(name, rows), True) for name, weights in by_hand.items()}
    objectives = mutual_objectives(logits, made.table.labels[rows])
    found = dict(zip(step.names, map(float, values), strict=True))
    for name in STUDENTS:
        weight = 0.2 if name == "skeleton" else 1.0
        assert found[f"{name}/cross-entropy"] + weight * found[f"{name}/mutual"] == pytest.approx(
            float(objectives[name]), rel=1e-5
        )
    total.backward()
    for name in STUDENTS:
        gradients = torch.autograd.grad(objectives[name], list(learnt[name].values()), retain_graph=True)
        parameters = dict(distiller.participant(name).encoder.named_parameters())
        for key, gradient in zip(learnt[name], gradients, strict=True):
            torch.testing.assert_close(parameters[key].grad, gradient, rtol=1e-4, atol=1e-6)


def test_mutual_learnings_terms_have_no_graph_to_other_students(trial):
    made = trial("mutual-modalities", *MUTUAL)
    distiller = made.distiller()
    [stage] = made.stages()
    step, rows = step_of(made, distiller, stage)
    for term, context in step.contexts(rows, rows):
        others = [
            each for name in STUDENTS if name != term.learner for each in distiller.participant(name).encoder.parameters()
        ]
        gradients = torch.autograd.grad(term.loss(context), others, allow_unused=True, retain_graph=True)
        assert all(each is None for each in gradients)


# Two teachers


def test_weighted_teachers_gradients_add_up_by_their_weights(trial):
    overrides = [*network("teachers.skeleton", SKELETON, 8), *network("teachers.gyroscope"), *network("student")]
    made = trial("weighted-teachers", *overrides)
    distiller = made.distiller()
    *_, stage = made.stages()
    step, rows = step_of(made, distiller, stage)
    weights = weights_of(distiller.participant("student"))
    teachers = {name: weights_of(distiller.participant(name)) for name in ("skeleton", "gyroscope")}
    step(rows, rows)[0].backward()

    names = [name for name in weights if name.endswith(("weight", "bias"))]
    learnt = [weights[name].requires_grad_() for name in names]
    logits = forward(weights, made.input("student", rows), True)
    taught = {name: forward(each, made.input(name, rows), False) for name, each in teachers.items()}
    terms = [
        cross_entropy(logits, made.table.labels[rows]),
        soft_target(logits, taught["skeleton"], 4),
        soft_target(logits, taught["gyroscope"], 2),
    ]
    g0, g1, g2 = (torch.autograd.grad(term, learnt, retain_graph=True) for term in terms)
    parameters = dict(distiller.participant("student").encoder.named_parameters())
    for name, *each in zip(names, g0, g1, g2, strict=True):
        expected = each[0] + 0.7 * each[1] + 0.3 * each[2]
        torch.testing.assert_close(parameters[name].grad, expected, rtol=1e-4, atol=1e-6)
        assert float(each[1].norm()) > 0


# Recipes of single losses: every term on one batch, from activations computed by hand


def shaped(path: str, transforms: str = SIGNAL, width: int = 4, depth: int = 2) -> list[str]:
    return [f"{path}.transforms={transforms}", f"{path}.encoder={{name: cnn1d, width: {width}, depth: {depth}, dropout: 0}}"]


def activations(weights: Weights, x: Tensor, learning: bool) -> Weights:
    """Everything that a `cnn1d` computes: each block, the last one before its rectifier, the pooled features, the logits."""
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    found: Weights = {}
    for block in range(depth):
        layer = f"blocks.{block}"
        x = F.conv1d(x, weights[f"{layer}.0.weight"], padding=2)
        mean, variance = weights[f"{layer}.1.running_mean"].clone(), weights[f"{layer}.1.running_var"].clone()
        x = F.batch_norm(x, mean, variance, weights[f"{layer}.1.weight"], weights[f"{layer}.1.bias"], learning)
        found[f"{layer}.1"] = x
        x = F.relu(x)
        if block < depth - 1:
            x = F.max_pool1d(x, 2, ceil_mode=True)
        found[layer] = x
    found["pool"] = x.mean(2)
    found["logits"] = F.linear(found["pool"], weights["fc.weight"], weights["fc.bias"])
    return found


@dataclass
class OneBatch:
    """The last stage of a recipe on one batch, and the same activations by hand."""

    made: Trial
    distiller: Distiller
    step: StageStep
    rows: Tensor
    by_hand: dict[str, Weights]
    terms: dict[str, float]
    total: Tensor

    @property
    def labels(self) -> Tensor:
        return self.made.table.labels[self.rows]

    def loss(self, learner: str, term: str) -> torch.nn.Module:
        return self.distiller.losses(learner)[term]


@pytest.fixture
def one_batch(trial):
    def make(recipe: str, *overrides: str, rows: int = 6) -> OneBatch:
        made = trial(recipe, *overrides)
        distiller = made.distiller()
        stage = made.stages()[-1]
        weights = {name: weights_of(distiller.participant(name)) for name in distiller.networks}
        step, _ = step_of(made, distiller, stage)
        chosen = made.table.rows["train"][:: len(made.table.rows["train"]) // rows][:rows]  # of several classes
        by_hand = {name: activations(each, made.input(name, chosen), name in stage.learners) for name, each in weights.items()}
        with torch.random.fork_rng():
            total, values = step(chosen, chosen)
        return OneBatch(
            made, distiller, step, chosen, by_hand, dict(zip(step.names, map(float, values), strict=True)), total.detach()
        )

    return make


def regressed(student: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("oc,bcp->bop", weight, student)


def test_dist_is_one_minus_pearsons_correlation_over_classes_and_over_samples(one_batch):
    found = one_batch("dist", *shaped("teachers.skeleton", SKELETON, 8), *shaped("student"))
    student, teacher = (torch.softmax(found.by_hand[name]["logits"] / 4, 1).double() for name in ("student", "skeleton"))

    def apart(a, b):
        return sum(1 - float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(a, b, strict=True)) / len(a)

    expected = 16 * (2 * apart(student, teacher) + 2 * apart(student.T, teacher.T))
    assert found.terms["student/dist"] == pytest.approx(expected, rel=1e-4)


def test_dkd_is_the_two_parts_of_the_divergence_and_its_weight_grows(one_batch, trial):
    overrides = [*shaped("teachers.skeleton", SKELETON, 8), *shaped("student")]
    found = one_batch("dkd", *overrides)
    p, q = (torch.softmax(found.by_hand[name]["logits"] / 4, 1).double() for name in ("skeleton", "student"))
    expected = 0.0
    for row, label in enumerate(found.labels.tolist()):
        others = [index for index in range(p.shape[1]) if index != label]
        pt, qt = p[row, label], q[row, label]
        expected += pt * (pt / qt).log() + (1 - pt) * ((1 - pt) / (1 - qt)).log()
        a, b = p[row, others] / (1 - pt), q[row, others] / (1 - qt)
        expected += 8 * (a * (a / b).log()).sum()
    assert found.terms["student/dkd"] == pytest.approx(float(16 * expected / len(p)), rel=1e-4)

    made = trial("dkd", *overrides)
    _, recorded = made.fit(made.distiller(), made.stages())
    for epoch, (total, supervised, distilled) in enumerate(
        zip(*(recorded[f"train/student/{name}"].values() for name in ("total", "cross-entropy", "dkd")), strict=True)
    ):
        assert total == pytest.approx(supervised + epoch / 5 * distilled, rel=1e-4)


def test_crd_tells_each_sample_from_those_of_other_classes(one_batch):
    found = one_batch("crd", *shaped("teachers.skeleton", SKELETON, 8), *shaped("student"))
    heads = found.loss("student", "crd").heads["skeleton_0"]
    own, theirs = (
        F.normalize(F.linear(found.by_hand[name]["pool"], head.weight, head.bias).double(), dim=1)
        for name, head in zip(("student", "skeleton"), heads, strict=True)
    )
    size, labels, expected = len(found.made.table.keys), found.labels.tolist(), 0.0
    for anchors, bank in ((own, theirs), (theirs, own)):  # the first batch is in the bank itself
        raised = (anchors @ bank.T / 0.07).exp()
        pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if i == j or labels[i] != labels[j]]
        z = size * sum(float(raised[i, j].detach()) for i, j in pairs) / len(pairs)
        for i, label in enumerate(labels):
            negatives = [j for j, other in enumerate(labels) if other != label]
            noise = len(negatives) / size

            def h(q, noise=noise):
                return q / (q + noise)

            expected -= float(h(raised[i, i] / z).log()) / len(labels)
            expected -= sum(float((1 - h(raised[i, j] / z)).log()) for j in negatives) / len(labels)
    assert found.terms["student/crd"] == pytest.approx(expected, rel=1e-4)
    assert float(found.total) == pytest.approx(
        found.terms["student/cross-entropy"] + 0.8 * found.terms["student/crd"], rel=1e-5
    )


def test_reviewkd_compares_three_blocks_and_the_pooled_features_from_input_to_output(one_batch):
    found = one_batch("reviewkd", *shaped("teachers.skeleton", SKELETON, 8, 3), *shaped("student", depth=3))
    loss = found.loss("student", "reviewkd")
    places = ("blocks.0", "blocks.1", "blocks.2", "pool")
    [(_, context)] = [each for each in found.step.contexts(found.rows, found.rows) if each[0].loss is loss]
    for (key, student, teacher), place in zip(
        loss.activations(context.student, context.teachers, len(found.rows)), places, strict=True
    ):
        torch.testing.assert_close(student, found.by_hand["student"][place], rtol=1e-4, atol=1e-5, msg=key)
        torch.testing.assert_close(teacher, found.by_hand["skeleton"][place], rtol=1e-4, atol=1e-5, msg=key)
    assert float(found.total) == pytest.approx(found.terms["student/cross-entropy"])  # its weight begins at 0
    levels = list(loss.fusions.values())
    assert [each.attention is not None for each in levels] == [True, True, True, False]  # the last has nothing deeper


def test_hallucination_compares_sigmoids_before_the_rectifier(one_batch):
    place = "{features: blocks.1.1}"
    overrides = [*shaped("teachers.skeleton", SKELETON), *shaped("students.plain")]
    taps = [f"teachers.skeleton.taps={place}", f"students.hallucinating.taps={place}"]
    found = one_batch("hallucination", *overrides, *taps)
    assert not list(found.loss("hallucinating", "hallucination").parameters())
    student, teacher = (found.by_hand[name]["blocks.1.1"] for name in ("hallucinating", "skeleton"))
    assert student.min() < 0
    expected = float((1 / (1 + torch.exp(-student)) - 1 / (1 + torch.exp(-teacher))).square().mean())
    assert found.terms["hallucinating/hallucination"] == pytest.approx(expected, rel=1e-4)


def test_the_network_beside_the_hallucinating_one_sees_no_skeleton(trial):
    made = trial("hallucination")
    by_learner = {stage.learners: stage for stage in made.stages()}
    assert by_learner["plain",].sources == ()
    assert by_learner["hallucinating",].sources == ("skeleton",)
    assert made.assembly.plan.compared == ("hallucinating",)


def test_graph_distillation_weights_teachers_by_learnt_edges(one_batch):
    overrides = [*shaped("teachers.skeleton", SKELETON), *shaped("teachers.gyroscope"), *shaped("student")]
    found = one_batch("graph-distillation", *overrides)
    loss = found.loss("student", "graph-distillation")
    of_logits, of_features = (each.weight for each in loss.embed)
    student = found.by_hand["student"]
    scores, distances = [], []
    for name in ("skeleton", "gyroscope"):
        teacher = found.by_hand[name]
        both = torch.cat([teacher["logits"] @ of_logits.T, teacher["pool"] @ of_features.T], dim=1)
        scores.append(both @ loss.edge.weight[0] / 8)
        cosines = [
            (student[key] * teacher[key]).sum(1) / student[key].norm(dim=1) / teacher[key].norm(dim=1)
            for key in ("logits", "pool")
        ]
        distances.append((1 - cosines[0]) + 0.05 * (1 - cosines[1]))
    raised = torch.stack(scores, 1).exp()
    edges = raised / raised.sum(1, keepdim=True)
    expected = ((edges + 0.5) * torch.stack(distances, 1)).sum(1).mean() + 10 * (edges.mean(0) - 0.5).square().sum()
    assert found.terms["student/graph-distillation"] == pytest.approx(float(expected), rel=1e-4)


def test_c2kd_selects_by_rank_and_teaches_in_both_directions(one_batch):
    kendalltau = pytest.importorskip("scipy.stats").kendalltau
    found = one_batch("c2kd", *shaped("students.skeleton", SKELETON, 8), *shaped("students.accelerometer"), rows=12)
    logits = {name: each["logits"].double() for name, each in found.by_hand.items()}
    chosen = [row for row in range(12) if kendalltau(*(logits[name][row].tolist() for name in logits)).statistic > 0]
    assert 0 < len(chosen) < 12
    for learner, peer in (("skeleton", "accelerometer"), ("accelerometer", "skeleton")):
        expected = 0.0
        for row in chosen:
            others = [index for index in range(3) if index != int(found.labels[row])]
            p, q = (torch.softmax(logits[name][row, others] / 4, 0) for name in (peer, learner))
            expected += 16 * float((p * (p / q).log()).sum()) / 12
        assert found.terms[f"{learner}/c2kd"] == pytest.approx(expected, rel=1e-4)
    for term, context in found.step.contexts(found.rows, found.rows):
        other = "skeleton" if term.learner == "accelerometer" else "accelerometer"
        parameters = list(found.distiller.participant(other).encoder.parameters())
        gradients = torch.autograd.grad(term.loss(context), parameters, allow_unused=True, retain_graph=True)
        assert all(each is None for each in gradients)


def test_unlabelled_pairs_teach_by_all_samples_and_labels_by_those_that_have_one(one_batch):
    overrides = [*shaped("teachers.skeleton", SKELETON, 8, 3), *shaped("student", depth=3), "data.labels={share: 0.4}"]
    found = one_batch("unlabelled-pairs", *overrides, rows=12)
    student, teacher = found.by_hand["student"], found.by_hand["skeleton"]
    known = found.made.table.train_labels[found.rows] >= 0
    assert 0 < int(known.sum()) < 12
    supervised = cross_entropy(student["logits"][known], found.labels[known])
    assert found.terms["student/cross-entropy"] == pytest.approx(float(supervised), rel=1e-4)
    translated = regressed(student["blocks.2"], found.loss("student", "fitnet").regressors["skeleton_0"].linear.weight)
    assert found.terms["student/fitnet"] == pytest.approx(float((translated - teacher["blocks.2"]).square().mean()), rel=1e-4)
    expected = soft_target(student["logits"], teacher["logits"], 4)
    assert found.terms["student/soft-target"] == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    first = found.made.stages()[0]  # the teacher has the same few labels
    assert first.learners == ("skeleton",)
    recorded = StageStep(found.distiller, first, found.made.table, labelled=True).contexts(found.rows, found.rows)
    assert [len(context.batch) for _, context in recorded] == [int(known.sum())]


def test_mars_compares_the_mean_features_of_frames_and_flow(trial):
    clip = "{name: clip, segments: 2, size: 16}"
    flow = "[{name: optical-flow, segments: 2, stack: 1, size: 16, bound: 10}, {name: pixels, mean: [0.5], std: [0.25]}]"
    network = "encoder={name: tsn, backbone: test_resnet, drop_rate: 0}"
    made = trial(
        "mars", f"teachers.flow.transforms={flow}", f"teachers.flow.{network}",
        f"student.transforms=[{clip}, pixels]", f"student.{network}",
    )  # fmt: skip
    distiller = made.distiller()
    step, rows = step_of(made, distiller, made.stages()[-1])
    frames: dict[str, Tensor] = {}
    for name in ("flow", "student"):
        distiller.participant(name).encoder.classifier.register_forward_pre_hook(
            lambda _, args, name=name: frames.update({name: args[0].detach().clone()})
        )
    total, values = step(rows, rows)
    found = dict(zip(step.names, map(float, values), strict=True))
    student, teacher = (each.reshape(len(rows), 2, -1).mean(1) for each in (frames["student"], frames["flow"]))
    expected = float((student - teacher).square().mean())
    assert expected > 0
    assert found["student/fitnet"] == pytest.approx(expected, rel=1e-4)
    assert float(total) == pytest.approx(found["student/cross-entropy"] + 50 * expected, rel=1e-4)
    assert not list(distiller.losses("student")["fitnet"].parameters())
