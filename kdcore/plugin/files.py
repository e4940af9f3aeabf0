"""Plugins that are a single file, for trying something out before it becomes a package."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Iterable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from kdcore.errors import PluginError

VARIABLE = "KDCORE_PLUGINS"
"""Environment variable that lists such files, separated as in ``PATH``."""


def is_file(name: object) -> bool:
    """Return whether an entry of a recipe's ``plugins`` is a file."""
    return isinstance(name, str) and name.endswith(".py")


def files_asked_for() -> list[Path]:
    """Return the absolute paths of the files that the environment lists."""
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [Path(os.path.abspath(os.path.expanduser(name))) for name in named if name]


def plugin_name(path: Path) -> str:
    """``my_loss.py`` → ``my-loss``."""
    return path.stem.replace("_", "-")


def fingerprint(path: Path) -> str:
    """Return the first digits of a file's SHA-256, which stand for its version.

    Raises:
        PluginError: If it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise PluginError(f"could not read it: {error.strerror}") from error


def with_fingerprints(plugins: Iterable[str]) -> list[Any]:
    """A recipe's plugins as its hash knows them: a file by what it holds, wherever it is."""
    return [[plugin_name(Path(each)), fingerprint(Path(each))] if is_file(each) else each for each in plugins]


def import_file(path: Path) -> ModuleType:
    """Import a file under its own name, so that a class in ``my_loss.py`` can be registered as ``my_loss:MyLoss``.

    Raises:
        PluginError: If the name is not valid or taken.
        Exception: Whatever the file raises.
    """
    name, version = path.stem, fingerprint(path)
    if not name.isidentifier():
        raise PluginError(f"{path.name!r} is not a valid module name; rename the file, e.g. to my_loss.py")
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__fingerprint__", "") == version:
        return known
    if known is not None or not _is_free(name, path):
        raise PluginError(f"a module {name!r} already exists; rename the file")
    spec = spec_from_file_location(name, path)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    module.__dict__["__fingerprint__"] = version
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_free(name: str, path: Path) -> bool:
    try:
        found = find_spec(name)
    except (ImportError, ValueError):
        return False
    return found is None or (found.origin is not None and Path(found.origin).resolve() == path.resolve())


def what_happened(error: BaseException, path: Path) -> str:
    """Return the text of an error that a file raised while it was imported, with the line."""
    if isinstance(error, PluginError):
        return str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    said = error.msg if isinstance(error, SyntaxError) else error
    return (f"line {line}: " if line else "") + f"{type(error).__name__}: {said}"
