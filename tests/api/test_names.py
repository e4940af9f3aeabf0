"""The public names: quick to import, complete, and listed on the API page."""

from __future__ import annotations

import re
import subprocess
import sys

from pages import CHECKOUT

import kdcore

ABILITIES = {
    "run", "resume", "distil", "loss", "load_recipe", "Recipe", "ArrayDataset", "load_student", "find_student", "read_run",
    "load_predictor", "finished_runs", "RunListener",
}  # fmt: skip


def test_importing_imports_nothing_slow():
    code = (
        "import sys, kdcore; print([name for name in ('torch', 'pandas', 'rich', 'pydantic', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dir_has_every_name_and_every_name_is_there():
    assert set(kdcore.__all__) == set(dir(kdcore))
    assert set(kdcore.__all__) >= ABILITIES
    assert all(getattr(kdcore, name) is not None for name in kdcore.__all__)


def test_every_name_is_on_the_api_page():
    text = (CHECKOUT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(kdcore.__all__) - {"__version__"})
