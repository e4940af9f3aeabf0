"""Commands that manage the cache folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from kdcore.cache import SCHEMAS, cache_folder
from kdcore.errors import UsageError

KINDS: Mapping[str, str] = {
    "data": "prepared recordings",
    "teachers": "trained teachers",
    SCHEMAS: "component schemas",
}

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="List, check or clear the cache.")


@app.command("list")
def list_cache() -> None:
    """List the contents of the cache and their sizes."""
    from kdcore.cli.tables import new_table, output_console, show_table, size_text

    table = new_table("kind", "content", "entries", "size")
    by_kind = _entries()
    for kind, entries in by_kind.items():
        table.add_row(kind, KINDS[kind], str(len(entries)), size_text(_size(entries)))
    print(cache_folder())
    show_table(output_console(), table)
    print(f"{size_text(sum(map(_size, by_kind.values())))} in total; to delete it, run: kdcore cache clear [KIND]…")


@app.command("clear")
def clear_cache(
    kinds: Annotated[list[str] | None, typer.Argument(help="Kinds to delete: data, teachers or schemas. Default: all.")] = None,
) -> None:
    """Delete cached data. Later runs rebuild what they need."""
    from kdcore.cli.tables import size_text

    for kind in kinds or ():
        if kind not in KINDS:
            raise UsageError(f"unknown kind of cached data {kind!r} (known: {', '.join(KINDS)})")
    for kind, entries in _entries().items():
        if not kinds or kind in kinds:
            size = _size(entries)
            for entry in entries:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink(missing_ok=True)
            print(f"removed {kind}: {len(entries)} entries, {size_text(size)}")


@app.command("check")
def check_cache(
    remove: Annotated[bool, typer.Option("--remove", help="Delete damaged entries; later runs rebuild them.")] = False,
) -> None:
    """Check cached recordings for corruption. Exits with status 1 if any are damaged."""
    from kdcore.data.data_cache import columns_in, damaged_columns, remove_abandoned

    folder = cache_folder()
    unfinished = remove_abandoned(folder)
    damaged = damaged_columns(folder)
    print(f"{folder}: {len(columns_in(folder))} entries of prepared recordings, {len(damaged)} damaged")
    if unfinished:
        print(f"removed {len(unfinished)} unfinished entries of killed processes")
    for path in damaged:
        print(f"  {path.name}{': removed' if remove else ''}")
        if remove:
            shutil.rmtree(path)
    if damaged and not remove:
        raise typer.Exit(1)


def _entries() -> dict[str, list[Path]]:
    """Return the files and folders in the cache, by kind."""
    by_kind: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    folder = cache_folder()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name in KINDS and path.is_dir():
            by_kind[path.name] += sorted(path.iterdir())
        else:
            by_kind["data"].append(path)
    return by_kind


def _size(paths: Sequence[Path]) -> int:
    return sum(size_of(path) for path in paths)


def size_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    if path.is_dir() and not path.is_symlink():
        return sum(map(size_of, path.iterdir()))
    return path.lstat().st_size
