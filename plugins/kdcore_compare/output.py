"""Where tables go."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdcore import UsageError
from kdcore_compare.tables import Format, Table, rendered, show

ENDINGS: Mapping[str, Format] = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".html": "html"}


def format_for(form: Format, path: Path | None) -> Format:
    """`form`, or what a file's ending asks for where that is ``rich``, which is for the terminal alone.

    Raises:
        UsageError: If the ending says nothing.
    """
    if path is None or form != "rich":
        return form
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"--output {path}: its ending is none of {', '.join(ENDINGS)}; say --format")
    return ENDINGS[path.suffix.lower()]


def put(
    tables: Sequence[Table], records: Sequence[Mapping[str, object]], form: Format = "rich", path: Path | None = None
) -> None:
    """Print tables, or write them to a file, whose ending decides the format where `form` does not."""
    form = format_for(form, path)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered(tables, records, form), encoding="utf-8")
        print(path)
    elif form == "rich":
        show(tables)
    else:
        sys.stdout.write(rendered(tables, records, form))
