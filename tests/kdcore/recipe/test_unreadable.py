"""Files that are no recipe at all."""

import pytest

from kdcore.errors import RecipeError
from kdcore.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("version: 1\n\tname: x\n", 2, "is not valid YAML"),
        ("version: [1\nname: x\n", 2, "is not valid YAML"),
        ("- a\n- b\n", 1, "must hold a mapping"),
        ("just text\n", 1, "must hold a mapping"),
        ("", None, "is empty"),
        ("# nothing\n", None, "is empty"),
        ("a: 1\n---\nb: 2\n", 2, "is not valid YAML"),
        ("a: *b\n", 1, "is not valid YAML: found undefined alias"),
        ("a: \x07\n", None, "is not valid YAML"),
        ("a: &a [*a]\n", 1, "contains itself"),
        ("[" * 900 + "]" * 900, None, "nested too deeply"),
    ],
)
def test_not_a_recipe_at_all(problems, text, line, message):
    [found] = problems(text)
    assert (found.path, found.line) == ("", line)
    assert message in found.message


def test_tabs(problems):
    [found] = problems("data:\n\tbatch_size: 3\n")
    assert (found.line, found.hint) == (2, "indent with spaces, not tabs")


def test_alias_bomb(problems):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    [found] = problems("\n".join(levels))
    assert "more than 20000 values" in found.message


def test_too_large_a_file(problems):
    [found] = problems("# " + "x" * (1 << 20))
    assert "larger than 1 MiB" in found.message


def test_not_text(tmp_path, plugins):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"version: 1\nname: \xff\xfe\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml:2: is not UTF-8 text \(byte 17\)"):
        load_recipe(file, (), plugins)


def test_missing_file_and_folder(tmp_path, plugins):
    with pytest.raises(RecipeError, match=r"nope\.yaml: no such file"):
        load_recipe(tmp_path / "nope.yaml", (), plugins)
    with pytest.raises(RecipeError, match="is a folder, not a recipe"):
        load_recipe(tmp_path, (), plugins)


def test_keys_are_text(valid, problems):
    [found] = problems(valid + "? [a, b]\n: 1\n")
    assert (found.line, found.message) == (24, "a key must be plain text")
