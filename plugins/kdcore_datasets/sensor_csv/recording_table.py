"""A table with one row per recording, such as an exported spreadsheet of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kdcore import DataError, SampleKey
from kdcore_datasets.delimited import Column, TextLayout
from kdcore_datasets.sensor_csv.tables import read_texts

TableField = Literal["subject", "action", "trial", "view", "scene", "session"]
_SHOWN = 3


@dataclass(frozen=True)
class RecordingTable:
    """A table with one row per recording.

    Args:
        file: Text or Parquet file, relative to the dataset's root.
        path: Column with the name of a file of the recording: its path relative to the root, its name, or its name without
            suffix.
        columns: Columns of the parts of the key, such as ``{subject: person, action: activity}``. They replace placeholders of
            the same name.
        delimiter: Column separator of a text file.
        encoding: Encoding of a text file.
    """

    file: str
    path: Column
    columns: dict[TableField, Column]
    delimiter: str = ","
    encoding: str = "utf-8"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError(f"table {self.file!r}: name at least one column in columns")
        try:
            TextLayout(self.delimiter, encoding=self.encoding)
        except ValueError as error:
            raise ValueError(f"table {self.file!r}: {error}") from error

    def rows(self, root: Path) -> dict[str, dict[str, str]]:
        """Return the parts of the key by file name as written in the table.

        Raises:
            DataError: If the table cannot be read, or has two different rows for a file.
        """
        file = root / self.file
        texts = read_texts(file, [self.path, *self.columns.values()], TextLayout(self.delimiter, encoding=self.encoding))
        rows: dict[str, dict[str, str]] = {}
        for name, *cells in texts.tolist():
            name = name.strip().replace("\\", "/")
            own: dict[str, str] = dict(zip(self.columns, map(str.strip, cells), strict=True))
            if rows.setdefault(name, own) != own:
                raise DataError(f"{file}: two different rows for {name!r}")
        return rows


def file_names(path: Path, root: Path) -> tuple[str, ...]:
    """Return the names by which a table can refer to a file."""
    relative = path.relative_to(root)
    return relative.as_posix(), relative.with_suffix("").as_posix(), path.name, path.stem


def key_from_row(
    key: SampleKey, files: Iterable[Path], root: Path, rows: Mapping[str, dict[str, str]]
) -> tuple[SampleKey, str]:
    """Return a recording's key with the parts from its row, and the name in that row.

    Raises:
        DataError: If no row names a file of the recording.
    """
    names = [name for path in files for name in file_names(path, root)]
    name = next((name for name in names if name in rows), "")
    if not name:
        raise DataError(f"no row for {names[0]}")
    parts = {field: value for field, value in rows[name].items() if field == "action" or value}
    return replace(key, **parts), name


def unused_note(table: RecordingTable, rows: Iterable[str]) -> list[str]:
    """Return a message on rows without a recording."""
    names = list(rows)
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    return [f"{table.file}: rows without a recording ({len(names)}): {shown}"]
