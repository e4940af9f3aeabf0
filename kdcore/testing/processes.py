"""Two processes that share batches, like a run on two devices. They are started once for all losses."""

from __future__ import annotations

import atexit
import io
import multiprocessing as mp
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdcore.contracts.batch import LossContext
from kdcore.contracts.loss import DistillationLoss
from kdcore.plugin.manager import PluginWarning, plugin_manager
from kdcore.testing.case import ConformanceError
from kdcore.testing.gradients import descend
from kdcore.testing.loss_inputs import mapped, tensors
from kdcore.training.distributed import gatherer

SECONDS = 120


class _Step(nn.Module):
    """A loss with a minimal student, one factor per tensor. Each process computes its share of the batch."""

    def __init__(self, share: Share, gather: Callable[[Tensor], Tensor] | None):
        super().__init__()
        self.loss = share.loss
        self.names = [name for name in tensors(share.ctx) if name.startswith("student.")]
        self.factors = nn.Parameter(torch.ones(len(self.names)))
        self.gather = gather

    def forward(self, ctx: LossContext) -> Tensor:
        return self.loss(mapped(ctx, self._scaled))

    def _scaled(self, name: str, x: Tensor) -> Tensor:
        if name not in self.names:
            return x
        factor = self.factors[self.names.index(name)]
        if self.gather is None or len(x) % 2:
            return x.detach() * factor
        half = len(x) // 2
        rank = dist.get_rank()
        return self.gather(x.detach()[rank * half : (rank + 1) * half] * factor)


@dataclass
class Share:
    """A loss and a batch for one process or two."""

    loss: DistillationLoss
    ctx: LossContext

    def steps(self, world_size: int, wrap: Callable[[nn.Module], nn.Module]) -> dict[str, Tensor]:
        """Take two steps of gradient descent and return the last value and all gradients."""
        step = _Step(self, gatherer(world_size))
        module = wrap(step)
        value = torch.zeros(())
        for _ in range(2):
            step.zero_grad()
            torch.manual_seed(0)
            value = module(self.ctx)
            value.backward()
            descend(step.parameters())
        gradients = {f"the gradient of {name}": p.grad for name, p in step.named_parameters() if p.grad is not None}
        return {"its value": value.detach(), **gradients}


def in_two_processes(share: Share) -> list[dict[str, Tensor]]:
    """Train `share` in two processes under DDP and return their results.

    Raises:
        ConformanceError: If a process fails.
    """
    buffer = io.BytesIO()
    torch.save(share, buffer)
    responses = _pair().request(pickle.dumps((sys.path, buffer.getvalue())))
    for response in responses:
        if isinstance(response, str):
            raise ConformanceError(f"in one of two processes, it raises {response}")
    return responses


class _Pair:
    """Two processes of one process group, which wait for requests."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="kdcore-")
        context = mp.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(2):
            pipe, other_end = context.Pipe()
            process = context.Process(target=_serve, args=(rank, Path(self.folder.name), other_end), daemon=True)
            process.start()
            other_end.close()
            self.pipes.append(pipe)
            self.processes.append(process)

    def request(self, request: bytes) -> list[Any]:
        """Send a request to both processes and return their responses."""
        for pipe in self.pipes:
            pipe.send_bytes(request)
        return [self._response(pipe) for pipe in self.pipes]

    def _response(self, pipe: Connection) -> Any:
        if not pipe.poll(SECONDS):
            self.stop()
            raise ConformanceError(f"two processes have waited for each other for more than {SECONDS} s")
        try:
            return torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
        except EOFError as error:
            self.stop()
            raise ConformanceError("one of two processes died") from error

    def stop(self) -> None:
        """Stop both processes. The next request starts new ones."""
        global _running
        _running = None
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
        self.folder.cleanup()


_running: _Pair | None = None


def _pair() -> _Pair:
    global _running
    if _running is None:
        _running = _Pair()
        atexit.register(_running.stop)
    return _running


def _serve(rank: int, folder: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the main process has warned
        plugin_manager()  # imports plugin files
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:  # the main process has exited
            return
        try:
            sys.path[:], share = pickle.loads(request)
            response: Any = torch.load(io.BytesIO(share), weights_only=False).steps(2, DistributedDataParallel)
        except Exception as error:  # sent to the main process
            response = f"{type(error).__name__}: {error}"
        buffer = io.BytesIO()
        torch.save(response, buffer)
        pipe.send_bytes(buffer.getvalue())
