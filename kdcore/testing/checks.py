"""Registry of checks by kind, and the component under test."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdcore.plugin.option_schema import make
from kdcore.plugin.registry import KINDS, Entry
from kdcore.testing.case import Case, NotApplicable

ANY = "any"


@dataclass(frozen=True)
class Check:
    """A check for all components of a kind."""

    name: str
    kind: str
    run: Callable[[Subject], None]

    @property
    def summary(self) -> str:
        """Sentence that states the requirement."""
        return (self.run.__doc__ or "").strip()


_CHECKS: dict[str, dict[str, Check]] = {ANY: {}, **{kind: {} for kind in KINDS}}


def check(kind: str = ANY) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Decorator that registers a function as a check of components of `kind`. The check has the function's name."""

    def add(run: Callable[[Any], None]) -> Callable[[Any], None]:
        _CHECKS[kind][run.__name__] = Check(run.__name__, kind, run)
        return run

    return add


def checks_of(kind: str) -> tuple[Check, ...]:
    """Return all checks of a kind, starting with those for every kind."""
    import_module("kdcore.testing.general")
    for module in _MODULES.get(kind, (KINDS[kind],)):
        import_module(f"kdcore.testing.{module}")
    return (*_CHECKS[ANY].values(), *_CHECKS[kind].values())


_MODULES: Mapping[str, tuple[str, ...]] = {"loss": ("losses", "loss_modules")}
"""Modules with the checks of a kind, if there are others than the one named like the kind's plural."""


class Subject:
    """A component under test.

    Args:
        entry: The component.
        case: Options and inputs for the test.
    """

    def __init__(self, entry: Entry, case: Case | None = None):
        self.entry = entry
        self.case = case or Case()
        self._results: dict[str, Any] = {}
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options for the test."""
        return self.once("options", self._options)

    def _options(self) -> dict[str, Any]:
        options = self.case.options
        if not callable(options):
            return dict(options)
        empty = self.folder / "given"
        empty.mkdir()
        return dict(options(empty))

    @property
    def folder(self) -> Path:
        """Temporary folder of this component, deleted with it."""
        self._folder = self._folder or TemporaryDirectory(prefix="kdcore-")
        return Path(self._folder.name)

    def construct(self, changes: Mapping[str, Any] | None = None, given: Mapping[str, Any] | None = None) -> Any:
        """Construct the component with some options changed. Exceptions of its constructor are not caught."""
        return make(self.entry, {**self.options, **(changes or {})}, given)

    def made(self, changes: Mapping[str, Any] | None = None) -> Any:
        """Construct the component with some options changed.

        Raises:
            NotApplicable: If it cannot be constructed, which the check `constructed` reports.
        """
        try:
            return self.construct(changes)
        except NotApplicable:
            raise
        except Exception as error:
            raise NotApplicable("it could not be constructed: see the check 'constructed'") from error

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the result of `compute` or raise its exception. It is called once per `key`."""
        if key not in self._results:
            try:
                self._results[key] = compute()
            except Exception as error:
                self._results[key] = error
        result = self._results[key]
        if isinstance(result, Exception):
            raise result
        return result


@contextmanager
def seeded(seed: int = 0, elsewhere: int | None = None) -> Iterator[None]:
    """Context manager that seeds all global random generators and restores their state afterwards.

    Args:
        seed: Seed of torch, and of the others unless `elsewhere` is set.
        elsewhere: Seed of Python's and NumPy's generators.
    """
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed if elsewhere is None else elsewhere)
        np.random.seed(seed if elsewhere is None else elsewhere)
        if torch.cuda.is_available() or torch.backends.mps.is_available():
            torch.manual_seed(seed)
        else:  # torch.manual_seed formats the stack for each missing accelerator, which is slower than most losses
            torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
