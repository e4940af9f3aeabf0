"""The notebooks, executed as Jupyter would."""

from __future__ import annotations

import os
import re

import pytest
from pages import CHECKOUT

NOTEBOOKS = sorted((CHECKOUT / "docs" / "notebooks").glob("*.ipynb"))


def cells(path):
    import nbformat

    return nbformat.read(path, as_version=4).cells


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed_and_links_lead_somewhere(path):
    for cell in cells(path):
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        for link in re.findall(r"\]\((\.\./[^)#]+)", cell.source):
            assert (path.parent / link).exists(), link
    assert f"notebooks/{path.stem}.md" in (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.guides
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_works_as_it_is_written(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert "KDCORE_CACHE" in os.environ  # set for all tests
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=540, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert all(output.output_type != "error" for output in outputs)
    shown = "".join(str(output.get("data", "")) + output.get("text", "") for output in outputs)
    assert "<td>distilled</td>" in shown  # the table of the result
    assert "epochs in" in shown  # the progress
    assert "did you mean 'temperature'" in shown
    assert "\x1b" not in shown
    assert [path.name for path in tmp_path.glob("runs/*/report.html")] == ["report.html"]
