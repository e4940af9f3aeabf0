"""Checks by kind, and the component that they are made on."""

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
    """One thing that is checked of every component of a kind."""

    name: str
    kind: str
    run: Callable[[Subject], None]

    @property
    def summary(self) -> str:
        """A sentence that says what is checked."""
        return (self.run.__doc__ or "").strip()


_CHECKS: dict[str, dict[str, Check]] = {ANY: {}, **{kind: {} for kind in KINDS}}


def check(kind: str = ANY) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make the decorated function a check of components of `kind`, called as the function is."""

    def add(run: Callable[[Any], None]) -> Callable[[Any], None]:
        _CHECKS[kind][run.__name__] = Check(run.__name__, kind, run)
        return run

    return add


def checks_of(kind: str) -> tuple[Check, ...]:
    """All checks of a kind, those of every kind first."""
    import_module("kdcore.testing.general")
    for module in _MODULES.get(kind, (KINDS[kind],)):
        import_module(f"kdcore.testing.{module}")
    return (*_CHECKS[ANY].values(), *_CHECKS[kind].values())


_MODULES: Mapping[str, tuple[str, ...]] = {"loss": ("losses", "finite_losses", "learning_losses")}
"""The modules with the checks of a kind, for kinds that have more than the one module named like their plural."""


class Subject:
    """A component under test.

    Args:
        entry: Which one.
        case: How it is tested.
    """

    def __init__(self, entry: Entry, case: Case | None = None):
        self.entry = entry
        self.case = case or Case()
        self.remembered: dict[str, Any] = {}
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options to test with."""
        return self.once("options", self._options)

    def _options(self) -> dict[str, Any]:
        given = self.case.options
        return dict(given(self._empty_folder()) if callable(given) else given)

    def _empty_folder(self) -> Path:
        empty = self.folder / "given"
        empty.mkdir()
        return empty

    @property
    def folder(self) -> Path:
        """A folder of this component's own, gone with it."""
        self._folder = self._folder or TemporaryDirectory(prefix="kdcore-")
        return Path(self._folder.name)

    def construct(self, changes: Mapping[str, Any] | None = None, given: Mapping[str, Any] | None = None) -> Any:
        """The component, with some options changed; raises whatever its constructor raises."""
        return make(self.entry, {**self.options, **(changes or {})}, given)

    def made(self, changes: Mapping[str, Any] | None = None) -> Any:
        """The component, with some options changed.

        Raises:
            NotApplicable: If it cannot be made, which is another check's to say.
        """
        try:
            return self.construct(changes)
        except NotApplicable:
            raise
        except Exception as error:
            raise NotApplicable("it could not be constructed: see the check 'constructed'") from error

    def once(self, what: str, find: Callable[[], Any]) -> Any:
        """The result of `find`, or the exception it raises, found once."""
        if what not in self.remembered:
            try:
                self.remembered[what] = find()
            except Exception as error:
                self.remembered[what] = error
        found = self.remembered[what]
        if isinstance(found, Exception):
            raise found
        return found


@contextmanager
def seeded(seed: int = 0, elsewhere: int | None = None) -> Iterator[None]:
    """All global random generators seeded for a while; afterwards they stand where they stood.

    Args:
        seed: Of torch's, and of the others unless they have their own.
        elsewhere: Seed of Python's and NumPy's.
    """
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed if elsewhere is None else elsewhere)
        np.random.seed(seed if elsewhere is None else elsewhere)
        if torch.cuda.is_available() or torch.backends.mps.is_available():
            torch.manual_seed(seed)
        else:  # it would format the stack for every absent kind of accelerator, which takes longer than most losses
            torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
