"""The work of each process of a distributed test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from kdcore import DistillationLoss, Example, LossContext, Needs
from kdcore.errors import TrainingError
from kdcore.training.distributed import gatherer, synchronise_batch_norm


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv1d(3, 5, 3, padding=1),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40, 4),
        nn.BatchNorm1d(4, affine=False),
    ]
    return nn.Sequential(*layers).double()


def batch() -> Tensor:
    return torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def outputs_of(model: nn.Module, x: Tensor, gather: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Outputs of the last two layers, gathered one by one and added, so that both get the same tensor as their gradient."""
    assert isinstance(model, nn.Sequential)
    hidden = model[:-1](x)
    return (gather(hidden) + gather(model[-1](hidden))) @ torch.eye(4).to(x)  # whose gradient is contiguous


def objective(outputs: Tensor) -> Tensor:
    """Depends on every pair of the batch, and on which sample is which."""
    distances = torch.pdist(outputs)
    return (distances / distances.mean()).pow(3).mean() + (outputs * torch.arange(1.0, 25).view(6, 4)).mean()


def gradients(rank: int, world_size: int, folder: Path) -> None:
    """Train two steps as one of `world_size` processes; write gradients and buffers as they were after each."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    model, gather = network(), gatherer(world_size)
    assert gather
    synchronise_batch_norm(model)
    share = len(batch()) // world_size
    found = []
    for step in range(2):
        local = batch()[rank * share : (rank + 1) * share] * (step + 1)
        objective(outputs_of(model, local, gather)).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(world_size)
        found.append(
            {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()} | dict(model.named_buffers())
        )
        model.zero_grad()
    torch.save((found, model.eval()(batch())), folder / f"{rank}.pt")
    dist.destroy_process_group()


def second_derivatives(rank: int, world_size: int, folder: Path) -> None:
    """Ask for the gradient of a gradient, through batch normalisation and through gathered outputs; write the errors."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    errors = []
    for layer in (nn.BatchNorm1d(3), gatherer(world_size)):
        assert layer
        if isinstance(layer, nn.Module):
            synchronise_batch_norm(layer)
        x = batch().float().requires_grad_()
        try:
            torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
            errors.append("")
        except TrainingError as error:
            errors.append(str(error))
    torch.save(errors, folder / f"{rank}.pt")
    dist.destroy_process_group()


def launched(rank: int, world_size: int, folder: Path) -> Fabric:
    """Fabric in one of `world_size` processes, which gets a folder of its own."""
    os.environ.update(MASTER_ADDR="127.0.0.1", WORLD_SIZE=str(world_size), RANK=str(rank), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    fabric = Fabric(accelerator="cpu", devices=world_size, strategy="ddp_find_unused_parameters_true")
    fabric.launch()
    (folder / str(rank)).mkdir()
    return fabric


def compared_with_one_process(rank: int, world_size: int, folder: Path) -> None:
    """Train a stage twice, where one process takes no time and where it takes an hour; write the engines' notes."""
    import learning

    from kdcore.training.engine import Engine, Settings
    from kdcore.training.phases import Phases
    from kdcore.training.process_check import ProcessCheck

    fabric = launched(rank, world_size, folder)
    table, found = learning.table(folder / str(rank)), []
    for seconds in (1e-9, 3600.0):
        check = ProcessCheck(shortest=1)
        check._seconds = lambda step, batches, fabric, seconds=seconds: seconds  # type: ignore[method-assign]
        engine = Engine(fabric, learning.distiller(table), table, Settings(3, 2), phases=Phases(True), process_check=check)
        engine.fit([learning.students(epochs=6, batch_size=2)])
        found.append(engine.notes)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


class Centred(DistillationLoss):
    """Squared distance to the student's mean logits at the start of the epoch, of which each value is dropped at random."""

    needs = Needs(teachers=1)

    def setup(self, example: Example) -> None:
        self.register_buffer("centre", torch.zeros(example.num_classes))
        self.centres: list[Tensor] = []  # not in a buffer, which the first process would send to the others

    def begin_epoch(self, samples: Iterator[LossContext]) -> None:
        logits = torch.cat([ctx.student.logits for ctx in samples])
        self.centre = (logits * torch.rand_like(logits).round()).mean(0)
        self.centres.append(self.centre.clone())

    def forward(self, ctx: LossContext) -> Tensor:
        return (ctx.student.logits - self.centre).square().mean()


def centres_of_epochs(folder: Path, fabric: Fabric) -> dict[str, Tensor]:
    """Train a loss that reads all samples before each of three epochs; return what it read, and the student's weights."""
    import learning

    from kdcore.training.engine import Engine, Settings
    from kdcore.training.participants import TermSpec

    table = learning.table(folder)
    table.batch_transforms["student"] = ()  # noise, which each process draws for itself
    terms = [TermSpec("labels", 1.0, learning.Labels), TermSpec("centred", 1.0, Centred, teachers=("teacher",))]
    made = learning.distiller(table, terms)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # as the noise
    stage = learning.students(epochs=3, batch_size=2, optimizer={"name": "sgd", "lr": 0.1})
    Engine(fabric, made, table, Settings(3, 2)).fit([stage])
    centred = made.losses("student")["centred"]
    assert isinstance(centred, Centred)
    return {"centres": torch.stack(centred.centres[-3:]), **learning.state_of(made.participant("student"))}


def epoch_starts(rank: int, world_size: int, folder: Path) -> None:
    """Write the result of `centres_of_epochs` as one of `world_size` processes."""
    fabric = launched(rank, world_size, folder)
    torch.save(centres_of_epochs(folder / str(rank), fabric), folder / f"{rank}.pt")
    dist.destroy_process_group()


def due_at_different_times(rank: int, world_size: int, folder: Path) -> None:
    """An engine whose clock says on one rank only that a checkpoint is due."""
    os.environ.update(MASTER_ADDR="127.0.0.1", WORLD_SIZE=str(world_size), RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    from kdcore.training.checkpoint import Spacing
    from kdcore.training.engine import Engine

    class OneClock:
        def __init__(self) -> None:
            self.world_size = world_size

        def broadcast(self, value: object) -> object:
            values = [value]
            dist.broadcast_object_list(values)
            return values[0]

    engine = Engine.__new__(Engine)
    engine.fabric = OneClock()  # type: ignore[assignment]
    engine.spacing = Spacing(5.0)
    engine.spacing._saved_at = time.monotonic() - (10 if rank == 0 else 0)
    torch.save(engine._due(time.monotonic()), folder / f"{rank}.pt")
    dist.destroy_process_group()
