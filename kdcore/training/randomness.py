"""Random seeds and states. Every random draw of a run depends only on the run's seed and on the purpose of the draw."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
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
    torch.manual_seed(seed)


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
    """Context with its own PyTorch random state: draws within it do not advance the global generators.

    Args:
        name: Purpose of the draws. Streams with other names draw other numbers.
        seed: Seed of the stream, from which that of its first draw is derived; None for `torch.initial_seed` then.

    Attributes:
        state: State after the last draw; None to seed the stream when it is entered.
    """

    def __init__(self, name: str = "stream", seed: int | None = None) -> None:
        self.name, self.seed = name, seed
        self.state: list[Tensor] | None = None
        self._outside: list[Tensor] = []

    def __enter__(self) -> None:
        self._outside = _torch_state()
        self.resume()

    def __exit__(self, *_: object) -> None:
        self.pause()
        _set_torch_state(self._outside)

    def resume(self) -> None:
        """Give the global generators the state of this stream; see `preserved_torch_state`."""
        if self.state is None:
            torch.manual_seed(derive(torch.initial_seed() if self.seed is None else self.seed, self.name))
        else:
            _set_torch_state(self.state)

    def pause(self) -> None:
        """Keep the state after the last draw."""
        self.state = _torch_state()


def restart(streams: Iterable[RandomStream], states: Mapping[str, list[Tensor] | None], seed: int | None = None) -> None:
    """Restart `streams`, or continue those that have a state in `states`, by name.

    Args:
        streams: Streams.
        states: Name → state.
        seed: New seed of the streams; None to keep theirs.
    """
    for stream in streams:
        stream.state = states.get(stream.name)
        stream.seed = stream.seed if seed is None else seed


@contextmanager
def preserved_torch_state() -> Iterator[None]:
    """Context that restores PyTorch's global random states, for several streams in turn."""
    outside = _torch_state()
    try:
        yield
    finally:
        _set_torch_state(outside)


def _torch_state() -> list[Tensor]:
    return [torch.default_generator.get_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]


def _set_torch_state(state: list[Tensor]) -> None:
    torch.default_generator.set_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])
