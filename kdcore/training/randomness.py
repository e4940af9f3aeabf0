"""Random seeds and states. Every random draw of a run depends only on the run's seed and on the purpose of the draw."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, *what: object) -> int:
    """Derive a seed for one purpose, statistically independent of seeds for other purposes."""
    digest = hashlib.sha256("|".join(map(str, (seed, *what))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:  # `torch.manual_seed` formats stack traces for missing devices, which takes as long as a training step
        torch.default_generator.manual_seed(seed)


def make_deterministic(compiler: bool = False) -> None:
    """Make PyTorch use deterministic algorithms where it has them, and warn where it has none.

    Args:
        compiler: Also configure torch.compile. This imports it, which takes as long as importing torch.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    if compiler:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        torch.set_deterministic_debug_mode("warn")


@contextmanager
def preserved_torch() -> Iterator[None]:
    """Context that restores random states and PyTorch's global settings afterwards."""
    random_numbers, threads = random_state(), torch.get_num_threads()
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    deterministic = torch.get_deterministic_debug_mode()
    try:
        yield
    finally:
        restore_random_state(random_numbers)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        if "torch._inductor" in sys.modules:  # the compiler's own setting follows this one
            torch.use_deterministic_algorithms(deterministic > 0, warn_only=deterministic == 1)
        torch.set_deterministic_debug_mode(deterministic)
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def random_state() -> dict[str, Any]:
    """The states of all global random number generators, as plain data for a checkpoint."""
    version, keys, gauss = random.getstate()
    name, words, position, has_gauss, cached = cast(tuple, np.random.get_state(legacy=True))
    return {
        "python": [version, list(keys), gauss],
        "numpy": [name, torch.from_numpy(words.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the states that `random_state` returned."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, words, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class RandomStream:
    """Context with a separate random stream: draws within it do not advance PyTorch's global generators.

    Args:
        name: Purpose of the draws. Streams with different names draw different numbers.
        device: Device of the draws, besides the CPU.
        seed: Seed of the stream, from which that of its first draw is derived; None for `torch.initial_seed` then.

    Attributes:
        state: States of the generators after the last draw; None to seed them before the next one.
    """

    def __init__(self, name: str, device: torch.device, seed: int | None = None) -> None:
        self.name, self.seed = name, seed
        self.state: list[Tensor] | None = None
        self._generators = GlobalGenerators(device)
        self._outside: list[Tensor] = []

    def __enter__(self) -> None:
        self._outside = self._generators.state()
        self.resume()

    def __exit__(self, *_: object) -> None:
        self.pause()
        self._generators.set_state(self._outside)

    def resume(self) -> None:
        """Continue the stream in the global generators, whose state the caller preserves."""
        if self.state is None:
            self._generators.seed(derive(torch.initial_seed() if self.seed is None else self.seed, self.name))
        else:
            self._generators.set_state(self.state)

    def pause(self) -> None:
        """Keep the state after the last draw."""
        self.state = self._generators.state()


class GlobalGenerators:
    """PyTorch's global generators for draws on the CPU and on a device.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device):
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])

    def seed(self, seed: int) -> None:
        """Seed the generators."""
        for generator in self._generators:
            generator.manual_seed(seed)

    def state(self) -> list[Tensor]:
        """Copies of their states."""
        return [generator.get_state() for generator in self._generators]

    def set_state(self, states: Iterable[Tensor]) -> None:
        """Set the states that `state` returned."""
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Context that restores the states, for several streams in turn."""
        states = self.state()
        try:
            yield
        finally:
            self.set_state(states)
