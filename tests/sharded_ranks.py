"""The work of each process of a test in which weights are divided among processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdcore.contracts.encoder import Participant
from kdcore.contracts.training import MovingAverage, Training
from kdcore.training.distributed import gatherer
from kdcore.training.learner import Learner
from kdcore.training.participants import Distiller
from kdcore.training.sharding import FullWeights, ShardedWeights, shard, sum_of_shards


class Block(nn.Module):
    """A block whose inner activation a loss may read."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """A residual block."""
        return x + self.second(torch.tanh(self.first(x)))


class Network(nn.Module):
    """Blocks in a list, a scalar, a frozen layer, a weight in two places."""

    def __init__(self, width: int = 6):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(4))
        self.scale, self.tied = nn.Parameter(torch.tensor(1.5)), nn.ModuleList([nn.Linear(width, width) for _ in "ab"])
        self.tied[1].weight = self.tied[0].weight
        self.head = nn.Linear(width, 3)
        self.blocks[0].first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for block in self.blocks:
            x = block(x)
        return self.head(self.tied[1](self.tied[0](x)).tanh() * self.scale)


def distiller() -> Distiller:
    """A student with taps on a block and within one."""
    torch.manual_seed(0)
    member = Participant("student", Network(), {"inner": "blocks.1.first", "outer": "blocks.2"})
    return Distiller({}, {"student": member})


def inputs(step: int) -> Tensor:
    """A batch of 4 samples."""
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(step))


class FakeFabric:
    """The part of Fabric's interface that dividing uses."""

    def __init__(self) -> None:
        self.world_size, self.is_global_zero = dist.get_world_size(), dist.get_rank() == 0

    def setup_module(self, module: Distiller) -> None:
        """Divide even small blocks."""
        shard(module, 1)


OBJECTIVES: dict[str, Callable[[Any], Tensor]] = {
    "all": lambda out: out.logits.pow(2).mean() + out.features["inner"].pow(2).mean() + out.features["outer"].mean(),
    "inner": lambda out: out.features["inner"].pow(2).mean(),
    "outer": lambda out: out.features["outer"].pow(3).mean(),
    "logits": lambda out: out.logits.pow(2).mean(),
    "unread": lambda out: out.logits.new_zeros(()),
}
"""What a loss may read; of ``unread``, all weights are 0."""


def train(
    options: Mapping[str, Any], objective: str, sharded: bool, steps: int = 4, start: tuple[Any, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and the learner's state after some steps, from a checkpoint or from the beginning."""
    made = distiller()
    shards = ShardedWeights(FakeFabric(), made) if sharded else FullWeights()  # type: ignore[arg-type]
    training = Training(optimizer=dict(options), gradient_clip=0.5, epochs=1, ema=MovingAverage(0.9))
    learner = Learner.of("student", made.modules_of("student"), training, fused=not sharded)
    if start:
        shards.load(made, {name: each for name, each in start[0].items() if "|" not in name}, strict=True)
        shards.restore(learner, start[1], start[0])
    numbers = sum(sum_of_shards([torch.ones_like(each)], torch.zeros(())).item() for each in learner.parameters)
    assert numbers <= sum(each.numel() for each in learner.parameters) * (0.6 if sharded else 1)
    gather = gatherer(2) if sharded else lambda x: x
    assert gather is not None
    assert learner.optimizer
    assert learner.average
    share = slice(dist.get_rank() * 2, dist.get_rank() * 2 + 2) if sharded else slice(None)
    for step in range(learner.steps, learner.steps + steps):
        for each in learner.parameters:
            each.grad = None
        outputs = made.participant("student")(inputs(step)[share])
        outputs = type(outputs)(gather(outputs.logits), {name: gather(each) for name, each in outputs.features.items()})
        value = OBJECTIVES[objective](outputs)
        if objective == "unread":
            value = sum_of_shards((each for each in learner.parameters if each.requires_grad), value) * 0.0
        torch.autograd.grad(value, list(outputs.features.values()), retain_graph=True, allow_unused=True)
        value.backward()
        shards.average_rest([learner])
        nn.utils.clip_grad_norm_(learner.parameters, 0.5)
        learner.optimizer.step()
        learner.average.update(step)
        learner.end_step()
    with learner.average.applied(), torch.no_grad():
        logits = made.participant("student")(inputs(100)).logits
    weights = dict(made.state_dict()) | learner.tensors() | {"logits|": logits}
    return shards.whole((weights, learner.state()))


def divided(rank: int, world_size: int, folder: Path, cases: list[tuple[dict[str, Any], str]]) -> None:
    """Train each case, at a stretch and with a break halfway; the first process writes what comes of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    found = []
    for case in cases:
        whole = train(*case, True)
        half = [train(*case, True, 2)]
        dist.broadcast_object_list(half)
        found.append((whole, train(*case, True, 2, half[0])))
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.destroy_process_group()
