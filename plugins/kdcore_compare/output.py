"""Where tables go."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdcore_compare.tables import Format, Table, rendered, show

ENDINGS: Mapping[str, Format] = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".html": "html"}


def put(
    tables: Sequence[Table], records: Sequence[Mapping[str, object]], form: Format = "rich", path: Path | None = None
) -> None:
    """Print tables, or write them to a file, whose ending decides the format where `form` does not."""
    if path:
        form = ENDINGS.get(path.suffix, "markdown") if form == "rich" else form
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered(tables, records, form), encoding="utf-8")
        print(path)
    elif form == "rich":
        show(tables)
    else:
        sys.stdout.write(rendered(tables, records, form))
