"""The code of a component includes the local modules that it imports, and the files that its options name."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from uuid import uuid4

import pytest

import kdcore
from kdcore import Builder, load_recipe
from kdcore.plugin.code_files import code_hash, source_homes

FILES = {
    ".py": "import numpy as np, NAME_a\nfrom NAME_b.part import value\n\ndef late():\n    import NAME_c.deep as c\n",
    "_a.py": "from kdcore import Signal\nimport json\n",
    "_b/__init__.py": "",
    "_b/part.py": "import NAME_d\nvalue = 1\n",
    "_c/__init__.py": "from . import deep\n",
    "_c/deep.py": "",
    "_d.py": "import NAME\n",
    "_other.py": "",
}
"""End of a file's name → its content."""


@pytest.fixture
def name(tmp_path, monkeypatch):
    name = f"plugin_{uuid4().hex}"  # modules are looked up once per process
    for end, text in FILES.items():
        path = tmp_path / f"{name}{end}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("NAME", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return name


def test_local_modules_that_are_imported_belong_to_the_code(name, tmp_path):
    found = {path.relative_to(tmp_path).as_posix().removeprefix(name) for path in source_homes(name)}
    assert found == {".py", "_a.py", "_b", "_c", "_d.py"}


@pytest.mark.parametrize("end", FILES)
def test_an_edit_of_any_of_them_changes_the_hash(name, tmp_path, end):
    before, path = code_hash(name), tmp_path / f"{name}{end}"
    path.write_text(path.read_text() + "# edited\n")
    assert (code_hash(name) != before) == (end != "_other.py")


def test_kdcore_and_installed_packages_are_identified_by_version():
    home = Path(kdcore.__file__).parent
    assert source_homes("kdcore.functional") == [home]
    sources = b"".join(path.read_bytes() for path in sorted(home.rglob("*.py")))
    assert code_hash("kdcore") == hashlib.sha256(sources).hexdigest()


def test_a_module_without_a_file_has_no_hash(monkeypatch):
    monkeypatch.setitem(sys.modules, "cell_of_a_notebook", type(sys)("cell_of_a_notebook"))
    assert code_hash("cell_of_a_notebook") == ""


def test_a_file_that_a_transform_reads_counts_by_its_content(tmp_path):
    plugin, file = tmp_path / "calibrated.py", tmp_path / "factor.txt"
    plugin.write_text(
        "from pathlib import Path\n"
        "from kdcore import SampleTransform, hookimpl\n\n"
        "class Calibrated(SampleTransform):\n"
        "    '''Scale.'''\n\n"
        "    def __init__(self, *, file: Path):\n"
        "        self.factor = float(Path(file).read_text())\n\n"
        "    def __call__(self, signal):\n"
        "        return signal.with_values(signal.values * self.factor)\n\n"
        "@hookimpl\n"
        "def register_transforms(register):\n"
        "    register('calibrated', 'calibrated:Calibrated')\n"
    )
    found = []
    for text in ("1.0", "2.0", "1.0"):
        file.write_text(text)
        transforms = [{"name": "calibrated", "file": str(file)}]
        builder = Builder(
            load_recipe(
                {"extends": "quickstart", "plugins": [str(plugin)], "teachers": {"skeleton": {"transforms": transforms}}}
            )
        )
        spec = builder.recipe.participants["skeleton"]
        modality = builder.dataset().modalities["skeleton"]
        found.append(builder.transforms("teachers.skeleton.transforms", spec.transforms_of("skeleton"), modality)[2])
    assert found[0] != found[1]
    assert found[0] == found[2]
