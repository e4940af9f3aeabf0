"""Networks, losses and training loops of recipes once more, in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from kdcore import Participant, StagePlan
from kdcore.data.table import Table
from kdcore.recipe.plan import DISTILLED
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


def network(path: str, transforms: str = SIGNAL, width: int = 4, depth: int = 2) -> list[str]:
    """Overrides that make a participant small and leave nothing to chance in it."""
    return [f"{path}.transforms={transforms}", f"{path}.encoder={{name: cnn1d, width: {width}, depth: {depth}, dropout: 0}}"]


@dataclass
class Trial:
    """A recipe on its data, before training."""

    assembly: Assembly
    table: Table

    @property
    def batch_size(self) -> int:
        return self.assembly.recipe.data.batch_size

    def stages(self, arm: str = DISTILLED) -> tuple[StagePlan, ...]:
        return self.assembly.plan.stages[arm]

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


def step_of(made: Trial, distiller: Distiller, stage: StagePlan) -> tuple[StageStep, Tensor]:
    distiller.eval()
    for name in stage.learners:
        for module in distiller.modules_of(name):
            module.train()
    return StageStep(distiller, stage, made.table, labelled=True), made.table.rows["train"][:4]


def activations(weights: Weights, x: Tensor, learning: bool) -> Weights:
    """Everything that a `cnn1d` computes: each block, also before its rectifier, projector, pooled features, logits."""
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
    for number in (0, 3, 6) if "projector.0.weight" in weights else ():
        kernel, norm = weights[f"projector.{number}.weight"], f"projector.{number + 1}"
        x = F.conv1d(x, kernel, padding=kernel.shape[2] // 2)
        mean, variance = weights[f"{norm}.running_mean"].clone(), weights[f"{norm}.running_var"].clone()
        x = F.relu(F.batch_norm(x, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"], learning))
        found["projector"] = x
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
