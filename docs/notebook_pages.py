"""Writes a page for every notebook, from its cells, so that the site needs no notebook tools; outputs are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for path in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page(path)))
    return files


def page(path: Path) -> str:
    """The cells of a notebook as Markdown, with a link to the notebook after its first cell."""
    first, *others = json.loads(path.read_text(encoding="utf-8"))["cells"]
    link = f"[Download the notebook]({path.name}) and run it in Jupyter."
    return "\n\n".join([_text(first), link, *map(_text, others)]) + "\n"


def _text(cell: dict[str, Any]) -> str:
    source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
    return f"```python\n{source}\n```" if cell["cell_type"] == "code" else source
