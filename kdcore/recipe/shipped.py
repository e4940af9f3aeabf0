"""The recipes that come with kdcore, and where a recipe's name leads."""

from __future__ import annotations

import os
import re
from pathlib import Path

import kdcore
from kdcore.errors import Problem, RecipeError
from kdcore.suggestions import nearest


def _folder() -> Path:
    package = Path(kdcore.__file__).resolve().parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def list_recipes() -> dict[str, str]:
    """The shipped recipes' names, e.g. ``sakdn`` or ``utd-mhad/pskd``, with the first line of each."""
    folder = _folder()
    recipes = {file.relative_to(folder).with_suffix("").as_posix(): _first_line(file) for file in folder.rglob("*.yaml")}
    return dict(sorted(recipes.items()))


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().strip("# \n")


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe.

    Raises:
        RecipeError: If there is none of that name; the nearest one is named.
    """
    known = list_recipes()
    bare = name.removesuffix(".yaml")
    if bare in known:
        return _folder() / f"{bare}.yaml"
    raise RecipeError([Problem("", f"there is no file or shipped recipe {name!r}", hint=_nearest(bare, list(known)))])


def for_copying(file: Path) -> str:
    """The text of a shipped recipe with the names of those it extends in place of their files, which are not beside a copy."""

    def named(match: re.Match[str]) -> str:
        base = (file.parent / match[2]).resolve()
        return match[1] + base.relative_to(_folder().resolve()).with_suffix("").as_posix()

    return re.sub(r"^(extends: )(\S+\.yaml)", named, file.read_text(encoding="utf-8"), flags=re.MULTILINE)


def find_source(source: str | Path) -> Path:
    """The file that `source` means: a path, or the name of a shipped recipe where there is no such file.

    Raises:
        RecipeError: If it is neither.
    """
    file = Path(os.path.expanduser(source))
    if file.is_file() or isinstance(source, Path):
        return file
    if file.exists() and str(source) not in list_recipes():
        return file
    return find_recipe(str(source))


def _nearest(name: str, known: list[str]) -> str:
    same_ending = [each for each in known if each.rpartition("/")[2] == name]
    near = same_ending[0] if same_ending else nearest(name, known)
    return f"did you mean {near!r}?" if near else "kdcore recipes list shows the shipped recipes"
