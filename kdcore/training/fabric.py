"""Lightning Fabric as a recipe asks for it."""

from __future__ import annotations

import os

from lightning_fabric import Fabric

from kdcore.errors import KdcoreError
from kdcore.recipe.schema import EngineSpec


def make_fabric(engine: EngineSpec) -> Fabric:
    """Fabric as the recipe wants it, or as ``torchrun`` has started this process."""
    devices: int | str = engine.devices
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    strategy = (
        "ddp_find_unused_parameters_true"
        if engine.strategy == "ddp" or nodes > 1 or (isinstance(devices, int) and devices > 1)
        else "auto"
    )
    try:
        return Fabric(
            accelerator=engine.accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=engine.precision
        )  # type: ignore[arg-type]
    except (ValueError, RuntimeError, TypeError) as error:
        raise KdcoreError(f"engine: {error}") from error
