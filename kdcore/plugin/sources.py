"""Static analysis of the source files and packages that a module depends on, without importing anything."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kdcore

_ENVIRONMENT = re.compile(rb"\b(environ|getenv)\b")
_IMPORTERS = ("import_module", "__import__")
_DYNAMIC = "?"
_LIGHT = {"annotated_types", "numpy", "pluggy", "pydantic", "pydantic_core", "typing_extensions", "yaml"}
"""Packages that import quickly."""


def evidence(module: str, *others: str) -> Any:
    """Fingerprint modules and everything that they import, so that `holds` detects changes.

    Code is identified by its content, and installed packages other than the module's own by their version. kdcore itself is
    excluded.

    Returns:
        A JSON value, or None if the behaviour may change while the fingerprint does not: if the code reads environment
        variables, computes names of modules to import, has no file, or has changed since this process loaded it.
    """
    own = _top(module)
    contents: dict[str, str] = {}
    packages: dict[str, list[str | None]] = {}
    if file_of(module) is None:
        return None
    waiting = [module, *others]
    while waiting:
        name = waiting.pop()
        top = _top(name)
        if name in contents or top in packages or top == "kdcore" or top in sys.stdlib_module_names:
            continue
        if name == _DYNAMIC:
            return None
        if top != own and is_installed(top):
            packages[top] = _installed(top)
        elif file := file_of(name):
            if not _is_as_loaded(file) or _ENVIRONMENT.search(file.read_bytes()):
                return None
            contents[name] = _digest(name)
            waiting += [each.name for each in _imports(name)]
    return {"contents": dict(sorted(contents.items())), "packages": dict(sorted(packages.items()))}


def holds(stored: Any) -> bool:
    """Return whether a fingerprint from `evidence` still matches."""
    try:
        contents, packages = stored["contents"].items(), stored["packages"].items()
        return all(_digest(module) == digest for module, digest in contents) and all(
            (_version(distribution) == number) if distribution else file_of(top) is None
            for top, (distribution, number) in packages
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return False


@cache
def is_light(module: str) -> bool:
    """Return whether importing `module` only imports modules that are quick to import, judging by its source."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        top = _top(name)
        if name in seen or top in sys.stdlib_module_names or top in _LIGHT:
            continue
        seen.add(name)
        if is_installed(top) and top != _top(module) and top != "kdcore":
            return False
        if file_of(name) is not None:
            waiting += [each.name for each in _imports(name) if each.at_once]
        elif name == module:
            return False
    return True


@dataclass(frozen=True)
class _Import:
    name: str
    at_once: bool
    """True if the import is executed when the module is imported."""


@cache
def _imports(module: str) -> tuple[_Import, ...]:
    file = file_of(module)
    if file is None or file.suffix != ".py":
        return ()
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    imports = [_Import(each, True) for each in _parents(module)]
    for node, at_once in _walk(ast.parse(file.read_bytes()), True):
        for name in _named(node, package):
            imports += [_Import(each, at_once) for each in (*_parents(name), name)]
    return tuple(imports)


def _walk(node: ast.AST, at_once: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield child, at_once
        yield from _walk(child, at_once and not later and not checking)


def _named(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the modules that an import statement may import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        if base != "kdcore":
            yield base
        for alias in node.names:
            yield kdcore.module_of(alias.name) if base == "kdcore" else f"{base}.{alias.name}"
    elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in _IMPORTERS:
        wanted = node.args[0] if node.args else None
        yield wanted.value if isinstance(wanted, ast.Constant) and isinstance(wanted.value, str) else _DYNAMIC


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts)))


def _top(module: str) -> str:
    return module.partition(".")[0]


@cache
def file_of(module: str) -> Path | None:
    """Return the file of a module without importing its parents; None if the module does not exist or has no file."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded:
        return Path(loaded)
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    for name in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{name}", list(spec.submodule_search_locations))
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


@cache
def _digest(module: str) -> str:
    file = file_of(module)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""


def _is_as_loaded(file: Path) -> bool:
    status = file.stat()
    return max(status.st_mtime, status.st_ctime) < kdcore.IMPORTED_AT


@cache
def is_installed(top: str) -> bool:
    """Return whether a top-level module is installed rather than a checkout, so that its version identifies its content."""
    file = file_of(top)
    return file is None or bool({"site-packages", "dist-packages"} & set(file.parts))


def _installed(top: str) -> list[str | None]:
    name = _namesake(top) or next(iter(_distributions().get(top, ())), None)
    return [name, _version(name) if name else None]


@cache
def _namesake(top: str) -> str | None:
    """Return the distribution with the name of a top-level module, if it contains it. This avoids reading all distributions."""
    try:
        namesake = distribution(top)
    except (PackageNotFoundError, ValueError):
        return None
    return namesake.metadata["Name"] if f"\n{top}/__init__.py," in f"\n{namesake.read_text('RECORD')}" else None


@cache
def _distributions() -> Any:
    return packages_distributions()


@cache
def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
