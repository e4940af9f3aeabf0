"""Training throughput of the graph encoders, beside two other ways to compute the same numbers.

Run by hand: ``python tests/benchmarks/gcn_throughput.py``. All three have the same weights and, as is checked, give the same
logits; only the graph convolutions differ:

- ours: channels last, graph before weights, all subsets in one product;
- plain: channels first, 1×1 convolutions and products with the adjacency in the order in which papers write them;
- message passing: `torch_geometric.nn.MessagePassing` over the batch's edges.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import dense_to_sparse

from kdcore_skeleton.encoders.agcn import AdaptiveConv, Agcn
from kdcore_skeleton.encoders.st_gcn import SpatialConv, StGcn

Mixer = Callable[[Tensor, Tensor], Tensor]
"""x (N, K, C, T, V) and adjacency (K, V, W) or (N, K, V, W) → (N, C, T, W), summed over subsets."""


def mix_dense(x: Tensor, adjacency: Tensor) -> Tensor:
    return torch.einsum("nkctv,kvw->nctw" if adjacency.dim() == 3 else "nkctv,nkvw->nctw", x, adjacency)


class MixMessages(MessagePassing):
    """The same over edges; a node is a joint of a sample, its features are all frames."""

    def __init__(self):
        super().__init__(aggr="add")

    def __call__(self, x: Tensor, adjacency: Tensor) -> Tensor:
        subsets = adjacency.expand(len(x), -1, -1, -1).unbind(1)
        return sum(self.mix(each, subset) for each, subset in zip(x.unbind(1), subsets, strict=True))  # type: ignore[return-value]

    def mix(self, x: Tensor, adjacency: Tensor) -> Tensor:
        batch, channels, frames, joints = x.shape
        edges, _ = dense_to_sparse(adjacency.detach().contiguous())
        nodes = x.permute(0, 3, 1, 2).reshape(batch * joints, -1)
        out = self.propagate(edges, x=nodes, weights=adjacency[adjacency != 0])
        return out.view(batch, joints, channels, frames).permute(0, 2, 3, 1).contiguous()

    def message(self, x_j: Tensor, weights: Tensor) -> Tensor:
        return weights[:, None] * x_j


class PlainSpatialConv(nn.Module):
    def __init__(self, ours: SpatialConv, mix: Mixer):
        super().__init__()
        self.weight, self.bias, self.mix = ours.weight, ours.bias, mix

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        kernel = self.weight.transpose(1, 2).flatten(0, 1)[..., None, None]
        projected = F.conv2d(x.contiguous(), kernel, self.bias.flatten())
        return self.mix(projected.unflatten(1, (len(adjacency), -1)), adjacency)


class PlainAdaptiveConv(nn.Module):
    def __init__(self, ours: AdaptiveConv, mix: Mixer):
        super().__init__()
        self.ours, self.mix = ours, mix

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        batch, _, frames, joints = x.shape
        ours, out = self.ours, 0
        theta, phi = ours.embed.weight.unflatten(0, (2, 3, -1))[..., None, None]
        theta_bias, phi_bias = ours.embed.bias.unflatten(0, (2, 3, -1))
        for k in range(3):
            a = F.conv2d(x, theta[k], theta_bias[k]).permute(0, 3, 1, 2).reshape(batch, joints, -1)
            b = F.conv2d(x, phi[k], phi_bias[k]).reshape(batch, -1, joints)
            similar = torch.softmax(a @ b / (ours.width * frames), dim=-2)
            graph = similar + ours.adjacency[k] + ours.learnt[k]
            out = out + F.conv2d(self.mix(x[:, None], graph[:, None]), ours.weight[k].T[..., None, None], ours.bias[k])
        return (ours.norm(out) + ours.shortcut(x)).relu()


def variants(encoder: StGcn | Agcn) -> dict[str, nn.Module]:
    """The encoder computed in three ways."""
    found: dict[str, nn.Module] = {"ours": encoder}
    for name, mix in {"plain": mix_dense, "message passing": MixMessages()}.items():
        other = deepcopy(encoder)
        for block in other.blocks:
            plain = PlainSpatialConv if isinstance(block.gcn, SpatialConv) else PlainAdaptiveConv
            block.gcn = plain(block.gcn, mix)
        found[name] = other
    return found


def step(encoder: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Seconds that one training step takes."""
    start = time.perf_counter()
    encoder.zero_grad()
    F.cross_entropy(encoder(x), labels).backward()
    return time.perf_counter() - start


def peak_shares(make: type[StGcn | Agcn], batch: int, runs: int) -> Iterator[float]:
    """Floating-point operations per second of a training step ÷ those of a large matrix product, neighbours in time.

    Seconds are CPU seconds, so that other work on the machine does little harm.
    """
    torch.manual_seed(0)
    shape = (3, 64, 20, 1)
    encoder = make(27, shape, width=64, depth=10, layout="utd-mhad-20")
    x, labels = torch.randn(batch, *shape), torch.randint(27, (batch,))
    with FlopCounterMode(display=False) as counter:
        step(encoder, x, labels)
    one, other = torch.randn(2, 2048, 2048).unbind()
    product = one @ other  # warms up, and gets the memory
    for _ in range(runs):
        start = time.process_time()
        torch.mm(one, other, out=product)
        middle = time.process_time()
        step(encoder, x, labels)
        speed = counter.get_total_flops() / (time.process_time() - middle)
        yield speed / (2 * 2048**3 / (middle - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in {"batch": 16, "frames": 64, "width": 64, "depth": 10, "steps": 3, "threads": 2}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    shape = (3, given.frames, 20, 1)
    x, labels = torch.randn(given.batch, *shape), torch.randint(27, (given.batch,))
    print(f"batch {given.batch}, input {shape}, width {given.width}, depth {given.depth}, {given.threads} threads")
    print(f"{'encoder':<8} {'graph convolution':<18} {'samples/s':>9} {'ms/step':>9} {'vs plain':>9}")
    for make in (StGcn, Agcn):
        ways = variants(make(27, shape, width=given.width, depth=given.depth, layout="utd-mhad-20"))
        with torch.no_grad():
            answers = [way.eval()(x) for way in ways.values()]
        for answer in answers[1:]:
            torch.testing.assert_close(answer, answers[0], rtol=1e-3, atol=1e-4)
        rounds = [{name: step(way.train(), x, labels) for name, way in ways.items()} for _ in range(given.steps + 1)]
        taken = {name: min(each[name] for each in rounds[1:]) for name in ways}
        for name, each in taken.items():
            ratio = taken["plain"] / each
            print(f"{make.__name__:<8} {name:<18} {given.batch / each:>9.1f} {1e3 * each:>9.1f} {ratio:>8.2f}x")


if __name__ == "__main__":
    main()
