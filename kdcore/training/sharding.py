"""Weights sharded across processes with FSDP2: each process keeps a shard of every network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import Tensor, nn

from kdcore.errors import KdcoreError
from kdcore.training.learner import Learner
from kdcore.training.participants import Distiller

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LEAST = 1 << 20
"""Fewest parameters of a block that is gathered on its own instead of with the rest of its network."""


class FullWeights:
    """Weights of which every process has a full copy."""

    def whole(self, state: Any) -> Any:
        """`state` with full tensors."""
        return state

    def load(self, distiller: Distiller, weights: Mapping[str, Tensor], strict: bool = False) -> None:
        """Load full weights, or this process's shards; if `strict`, all names must match."""
        distiller.load_state_dict(weights, strict=strict)

    def restore(self, learner: Learner, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Restore a learner from a checkpoint."""
        learner.restore(state, weights)

    def average_rest(self, learners: Iterable[Learner]) -> None:
        """Average over processes the gradients that neither DDP nor FSDP averages."""

    def joined(self, distiller: Distiller, build: Callable[[], Distiller]) -> Distiller:
        """`distiller`, or if its weights are sharded, one from `build` with the same full weights."""
        return distiller


class ShardedWeights(FullWeights):
    """Weights, gradients and optimizer states of all encoders, sharded by ``fully_shard`` (FSDP2).

    An encoder's weights are gathered before its forward and backward passes and resharded afterwards. Each process receives
    its shard of the gradients, averaged over processes. Large blocks are gathered one at a time. Losses, scalar parameters and
    encoders with ``fixed`` weights are not sharded.

    Args:
        fabric: A launched Fabric with the strategy that `make_fabric` chooses for ``fsdp``.
        distiller: All participants, with full weights, on their device. Sharded in place.
    """

    def __init__(self, fabric: Fabric, distiller: Distiller):
        self.fabric, self.distiller = fabric, distiller
        fabric.setup_module(distiller)

    def whole(self, state: Any) -> Any:
        """`state` with full tensors on the CPU, in the first process; other processes get empty tensors."""
        return _whole(state, self.fabric.is_global_zero)

    def load(self, distiller: Distiller, weights: Mapping[str, Tensor], strict: bool = False) -> None:
        """Load weights, given as full tensors or as this process's shards."""
        like = distiller.state_dict()
        distiller.load_state_dict({name: _shard_like(tensor, like[name]) for name, tensor in weights.items()}, strict=strict)

    def restore(self, learner: Learner, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Restore a learner from a checkpoint, whose tensors are full."""
        if learner.optimizer:
            parameters = [each for group in learner.optimizer.param_groups for each in group["params"]]
            kept = state["optimizer"]
            sharded_state = {index: _shard_state(each, parameters[index]) for index, each in kept["state"].items()}
            state = {**state, "optimizer": {**kept, "state": sharded_state}}
        best, average = f"best|{learner.name}|", f"average|{learner.name}|"
        like = {f"{best}{name}": tensor for name, tensor in self.distiller.state_dict().items()}
        if learner.average:
            like |= {f"{average}{index}": each for index, each in enumerate(learner.average.parameters)}
        own = {name: tensor for name, tensor in weights.items() if name.startswith((best, average))}
        learner.restore(state, {name: _shard_like(tensor, like[name]) for name, tensor in own.items()})

    def average_rest(self, learners: Iterable[Learner]) -> None:
        """Average over processes the gradients of parameters that are not sharded."""
        for learner in learners:
            for each in learner.parameters:
                if each.grad is not None and not is_sharded(each):
                    dist.all_reduce(each.grad)
                    each.grad /= self.fabric.world_size

    def joined(self, distiller: Distiller, build: Callable[[], Distiller]) -> Distiller:
        """A distiller from `build` with the full weights of `distiller`, in every process."""
        fresh = build()
        fresh.load_state_dict(_whole(distiller.state_dict(), True))
        return fresh


def undividable(optimizer: Mapping[str, Any]) -> str:
    """The optimizer option that PyTorch does not support with sharded weights; empty if there is none."""
    name = str(optimizer.get("name", "adamw")).lower()
    if name in ("adafactor", "rprop"):
        return f"the optimizer {name!r}; use adamw or sgd"
    return f"a fused {name!r}; leave out 'fused'" if optimizer.get("fused") and name not in ("adam", "adamw") else ""


def is_sharded(tensor: Tensor) -> bool:
    """True for a sharded tensor (``DTensor``)."""
    return hasattr(tensor, "full_tensor")


def full_tensor_of(tensor: Tensor) -> Tensor:
    """The full tensor. For a sharded one, this is a collective: all processes must call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sum_of_shards(parameters: Iterable[Tensor], start: Tensor) -> Tensor:
    """`start` plus the sum of this process's shards of `parameters`."""
    return sum((each.to_local().sum() if is_sharded(each) else each.sum() for each in parameters), start)  # type: ignore[attr-defined]


def shard(distiller: Distiller, least: int = LEAST) -> Distiller:
    """Shard the encoders of all participants across all processes, in place.

    Args:
        distiller: All participants of the arm.
        least: Fewest parameters of a block that is gathered on its own.

    Raises:
        KdcoreError: If torch is too old, or a network cannot be sharded.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise KdcoreError("engine.strategy: fsdp requires torch 2.6 or later") from error
    mesh = None
    for name in distiller.networks:
        member = distiller.participant(name)
        encoder, tapped = member.encoder, [*member.taps.values()]
        parameters = list(encoder.parameters())
        if getattr(encoder, "fixed", False) or not parameters:
            continue
        mesh = mesh or init_device_mesh(parameters[0].device.type, (dist.get_world_size(),))
        scalars = {each for each in parameters if each.ndim == 0}
        features: list[Any] = []
        for path in set(tapped):
            encoder.get_submodule(path).register_forward_hook(lambda _, __, output, kept=features: kept.append(output))
        # FSDP gathers the weights for backward when a gradient reaches the encoder's outputs. A loss may read only a tap, so
        # taps must be outputs, too; the last hook below removes them again.
        encoder.register_forward_hook(lambda _, __, logits, kept=features: (logits, *_emptied(kept)))
        try:
            for block in (*large_blocks(encoder, tapped, least), encoder):
                fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
        except (ValueError, NotImplementedError) as error:
            raise KdcoreError(f"engine.strategy: fsdp cannot divide the network of {name}: {error}") from error
        encoder.register_forward_hook(lambda _, __, outputs: outputs[0])
    return distiller


def _emptied(kept: list[Any]) -> list[Any]:
    values = list(kept)
    kept.clear()
    return values


def large_blocks(encoder: nn.Module, tapped: Sequence[str], least: int) -> Iterator[nn.Module]:
    """Elements of `nn.ModuleList` and `nn.Sequential` that are gathered on their own, inner ones first.

    Args:
        encoder: The network.
        tapped: Paths of modules whose outputs losses read. An element that contains one, or that shares a weight with the
            rest of the network, is gathered with the rest.
        least: Fewest parameters of an element, not counting those of its inner elements.
    """
    modules = dict(encoder.named_modules())
    places: dict[int, list[str]] = {}
    for path, parameter in encoder.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(path)
    shared = [each for each in places.values() if len(each) > 1]
    taken: set[int] = set()
    for path, module in reversed(modules.items()):
        parent, _, _ = path.rpartition(".")
        inside = f"{path}."
        listed = bool(path) and isinstance(modules[parent], nn.ModuleList | nn.Sequential)
        if not listed or isinstance(module, nn.ModuleList | nn.ModuleDict) or any(tap.startswith(inside) for tap in tapped):
            continue
        if any(len({each.startswith(inside) for each in group}) > 1 for group in shared):
            continue
        own = [each for each in module.parameters() if id(each) not in taken and each.ndim]
        if sum(each.numel() for each in own) >= least:
            taken |= {id(each) for each in own}
            yield module


def _whole(state: Any, keep: bool) -> Any:
    if isinstance(state, Tensor):
        if not is_sharded(state):
            return state
        full = full_tensor_of(state)
        return full.cpu() if keep else full.new_empty(0)
    if isinstance(state, Mapping):
        return {key: _whole(each, keep) for key, each in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_whole(each, keep) for each in state)
    return state


def _shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    if not is_sharded(like) or is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    full = tensor.to(like.device, like.dtype)
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]


def _shard_state(state: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """Shard the optimizer state of one parameter like the parameter itself; tensors of other shapes are kept."""
    return {
        key: _shard_like(each, parameter) if isinstance(each, Tensor) and each.shape == parameter.shape else each
        for key, each in state.items()
    }
