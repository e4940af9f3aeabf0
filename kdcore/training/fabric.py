"""Lightning Fabric, configured from a recipe."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from kdcore.errors import KdcoreError
from kdcore.recipe.models import EngineSpec

if TYPE_CHECKING:
    from lightning_fabric import Fabric


Value = TypeVar("Value")

_NO_AUTOCAST = nullcontext()


@dataclass(frozen=True)
class OneCpu:
    """A replacement for Fabric for a single process on the CPU in float32.

    It saves time: importing Lightning Fabric takes as long as importing torch, because it imports torch's compiler, and its
    wrappers take as long as a training step of a small network.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    world_size: int = 1
    global_rank: int = 0
    is_global_zero: bool = True

    def launch(self) -> None:
        """Start no further process."""

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in float32."""
        return _NO_AUTOCAST

    def backward(self, total: Tensor) -> None:
        """Differentiate."""
        total.backward()

    def broadcast(self, value: Value) -> Value:
        """The value of the first process."""
        return value

    def barrier(self) -> None:
        """Wait for no other process."""


def one_cpu(engine: EngineSpec) -> OneCpu | None:
    """`OneCpu` if it satisfies the recipe's ``engine`` section on this machine, else None."""
    on_cpu = engine.accelerator == "cpu" or (
        engine.accelerator == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    )
    started = "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("SLURM_NTASKS", "1") != "1"
    alone = engine.devices == 1 and engine.strategy == "auto" and not started
    return OneCpu() if on_cpu and alone and engine.precision == "32-true" else None


def gradient_scaler(engine: EngineSpec) -> torch.amp.GradScaler | None:
    """The gradient scaler for float16; None for other precisions."""
    return torch.amp.GradScaler(_device_type(engine)) if engine.precision == "16-mixed" else None


def _device_type(engine: EngineSpec) -> str:
    return "cuda" if torch.cuda.is_available() and engine.accelerator != "mps" else "mps"


def make_fabric(engine: EngineSpec, scaler: torch.amp.GradScaler | None = None) -> Fabric:
    """Create Fabric from the recipe and the environment that ``torchrun`` sets; `OneCpu` where that suffices.

    Args:
        engine: The recipe's ``engine`` section.
        scaler: Scales the loss before the backward pass. The engine unscales, because it steps several optimizers.

    Raises:
        KdcoreError: If accelerator, devices or precision are not available.
    """
    if alone := one_cpu(engine):
        return cast("Fabric", alone)
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    _refuse_absent(engine.accelerator)
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if engine.precision == "16-mixed" and (engine.accelerator == "cpu" or not gpu):
        raise KdcoreError("engine.precision: 16-mixed is for GPUs; on a CPU write bf16-mixed or 32-true")
    devices: int | str = engine.devices
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    else:
        _refuse_too_many(engine.accelerator, devices)
    strategy: Any = "auto"
    if engine.strategy == "fsdp":
        strategy = _fsdp(engine, nodes > 1 or devices != 1)
    elif engine.strategy == "ddp" or nodes > 1 or (isinstance(devices, int) and devices > 1):
        strategy = "ddp_find_unused_parameters_true"
    precision: dict[str, Any] = {"precision": engine.precision}
    if scaler is not None:
        precision = {"plugins": MixedPrecision("16-mixed", _device_type(engine), scaler)}
    try:
        return Fabric(accelerator=engine.accelerator, devices=devices, num_nodes=nodes, strategy=strategy, **precision)  # type: ignore[arg-type]
    except (ValueError, RuntimeError, TypeError) as error:
        raise KdcoreError(f"engine: {error}") from error


def _fsdp(engine: EngineSpec, several: bool) -> Any:
    """The strategy that shards weights across processes (FSDP2). Fabric's own ``fsdp`` is FSDP1, which requires GPUs."""
    from lightning_fabric.strategies import ModelParallelStrategy

    from kdcore.training.sharding import shard

    if not several:
        raise KdcoreError("engine.strategy: fsdp divides weights among processes; set engine.devices, or start with torchrun")
    if engine.precision == "16-mixed":
        raise KdcoreError("engine.strategy: fsdp is for the precisions 32-true and bf16-mixed, not 16-mixed")
    if engine.compile:
        raise KdcoreError("engine.strategy: fsdp does not go with engine.compile")
    return ModelParallelStrategy(lambda distiller, mesh: shard(distiller))


def launch(fabric: Fabric | OneCpu) -> None:
    """Start or join the processes of a run, without Lightning's messages. Each process leaves the group before it exits."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        fabric.launch()
    finally:
        logger.setLevel(level)
    if fabric.world_size > 1:
        atexit.register(_leave_group)


def _leave_group() -> None:
    """Stop the group's threads: with Gloo, which Lightning leaves open, exiting while they run sometimes aborts the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _refuse_absent(accelerator: str) -> None:
    from lightning_fabric.accelerators import ACCELERATOR_REGISTRY

    names = sorted(ACCELERATOR_REGISTRY.available_accelerators())
    present = [name for name in names if ACCELERATOR_REGISTRY[name]["accelerator"].is_available()]
    if accelerator not in ("auto", *present) and not (accelerator == "gpu" and {"cuda", "mps"} & {*present}):
        raise KdcoreError(f"engine.accelerator: accelerator {accelerator!r} is not available (available: {', '.join(present)})")


def _refuse_too_many(accelerator: str, devices: int | str) -> None:
    """Refuse more devices than the machine has, before a process is started for each."""
    if not isinstance(devices, int):
        return
    on_gpu = accelerator in ("cuda", "gpu") or (accelerator == "auto" and torch.cuda.is_available())
    count = torch.cuda.device_count() if on_gpu and torch.cuda.is_available() else os.cpu_count() or 1
    if devices > count:
        what = f"{'GPU' if on_gpu else 'processor core'}{'s' if count > 1 else ''}"
        raise KdcoreError(f"engine.devices: {devices} requested, but this machine has only {count} {what}")


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `peak_memory` reports, on an accelerator."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes: of an accelerator since the last reset, or of this process on a CPU; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
