"""Plugins in a single file, which need not be installed as a package."""

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
"""Environment variable that lists plugin files, separated as in ``PATH``."""


def is_file(name: object) -> bool:
    """Return whether an entry of ``plugins`` in a recipe is a file."""
    return isinstance(name, str) and name.endswith(".py")


def files_asked_for() -> list[Path]:
    """Return the absolute paths of the plugin files listed in ``KDCORE_PLUGINS``."""
    names = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [Path(os.path.abspath(os.path.expanduser(name))) for name in names if name]


def plugin_name(path: Path) -> str:
    """Return the plugin name of a file, e.g. ``my-loss`` for ``my_loss.py``."""
    return path.stem.replace("_", "-")


def fingerprint(path: Path) -> str:
    """Return the first 12 hexadecimal digits of a file's SHA-256, used as its version.

    Raises:
        PluginError: If the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise PluginError(f"could not read it: {error.strerror}") from error


def with_fingerprints(plugins: Iterable[str]) -> list[Any]:
    """Return a recipe's plugins for its hash: a file is represented by its content, not by its path."""
    return [[plugin_name(Path(each)), fingerprint(Path(each))] if is_file(each) else each for each in plugins]


def import_file(path: Path) -> ModuleType:
    """Import a file as a module of the same name, so that it can register a class as ``my_loss:MyLoss``.

    Raises:
        PluginError: If the module name is invalid or already in use.
        Exception: Any exception raised by the file.
    """
    name, version = path.stem, fingerprint(path)
    if not name.isidentifier():
        raise PluginError(f"{path.name!r} is not a valid module name; rename the file, e.g. to my_loss.py")
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__fingerprint__", "") == version:
        return loaded
    if loaded is not None or not _is_free(name, path):
        raise PluginError(f"a module {name!r} already exists; rename the file")
    spec = spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py
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
    """True if no other module has the name; a copy of the file, such as that in the folder of a run, is the same module."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return True
    other = Path(spec.origin or "")
    return other.is_file() and (other.resolve() == path.resolve() or fingerprint(other) == fingerprint(path))


def what_happened(error: BaseException, path: Path) -> str:
    """Describe an error raised while a file was imported, with its line number."""
    if isinstance(error, PluginError):
        return str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    message = error.msg if isinstance(error, SyntaxError) else error
    return (f"line {line}: " if line else "") + f"{type(error).__name__}: {message}"
