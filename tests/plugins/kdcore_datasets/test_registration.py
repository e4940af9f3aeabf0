from __future__ import annotations

import inspect
import subprocess
import sys
from typing import get_type_hints

import pytest
from pydantic import TypeAdapter

import kdcore_datasets
from kdcore import Dataset, Modality, Protocol


def announced(hook: str) -> dict[str, str]:
    found: dict[str, str] = {}
    getattr(kdcore_datasets, hook)(register=found.__setitem__)
    return found


def load(target: str):
    module, _, name = target.partition(":")
    return getattr(pytest.importorskip(module), name)


@pytest.mark.parametrize(("name", "target"), announced("register_modalities").items())
def test_modalities_have_the_name_they_are_registered_under(name: str, target: str):
    modality = load(target)
    assert isinstance(modality, Modality)
    assert modality.name == name


@pytest.mark.parametrize(
    ("kind", "target"),
    [(Dataset, target) for name, target in announced("register_datasets").items() if name != "synthetic-motion"]
    + [(Protocol, target) for target in announced("register_protocols").values()],
)
def test_components_describe_their_options(kind: type, target: str):
    component = load(target)
    assert issubclass(component, kind)
    hints = get_type_hints(component.__init__, include_extras=True)
    options = list(inspect.signature(component).parameters)
    documented = inspect.getdoc(component) or ""
    for option in options:
        TypeAdapter(hints[option])
        assert f"{option}:" in documented


def test_importing_the_plugin_imports_nothing_heavy():
    code = "import sys, kdcore_datasets; print(sorted({'torch', 'numpy', 'scipy', 'av'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
