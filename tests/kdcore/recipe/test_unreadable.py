"""Files that are no recipe at all."""

from pathlib import Path

import pytest

from kdcore.errors import Problem, RecipeError
from kdcore.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("version: 1\n\tname: x\n", 2, "is not valid YAML"),
        ("version: [1\nname: x\n", 2, "is not valid YAML"),
        ("- a\n- b\n", 1, "must contain a mapping"),
        ("just text\n", 1, "must contain a mapping"),
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
    with pytest.raises(RecipeError, match=r"nope\.yaml: does not exist"):
        load_recipe(tmp_path / "nope.yaml", (), plugins)
    with pytest.raises(RecipeError, match="is a folder, not a recipe"):
        load_recipe(tmp_path, (), plugins)


def test_keys_are_text(valid, problems):
    [found] = problems(valid + "? [a, b]\n: 1\n")
    assert (found.line, found.message) == (24, "a key must be plain text")


LONG = "x" * 5000


@pytest.mark.parametrize("where", ["", "extends: "])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / f"{LONG}.yaml", "File name too long"),
        (lambda folder: _loop(folder / "loop.yaml"), "loop|Too many levels|does not exist|there is no file or shipped recipe"),
        (lambda folder: Path("/dev/null"), "is not a regular file|there is no file or shipped recipe|there is no recipe"),
        (lambda folder: folder, "is a folder|there is no recipe"),
        (lambda folder: folder / "nul\0.yaml", "there is no recipe|no file or shipped|null byte"),
    ],
)
def test_what_the_system_cannot_read_is_a_problem_of_the_recipe(load, write, plugins, tmp_path, make, said, where):
    source = make(tmp_path)
    if where:
        source = write(f"extends: {str(source)!r}\nname: mine\n", "child.yaml")
    for each in (source, str(source)):
        with pytest.raises(RecipeError, match=said) as caught:
            load_recipe(each, (), plugins)
        assert len(str(caught.value)) < 1500


def _loop(path):
    path.symlink_to(path)
    return path


def test_a_message_shows_little_of_long_values(problems, valid):
    found = problems(valid, f"data.batch_size={LONG}", f"student.{LONG}=1", f"data.protocol={LONG}", f"seeds=[{LONG}]")
    assert len(found) >= 3
    assert all(len(str(each)) < 500 for each in found), max(map(str, found), key=len)


def test_many_problems_are_counted(load, valid):
    many = "\n".join(f"wrong{number}: 1" for number in range(50))
    with pytest.raises(RecipeError) as caught:
        load(f"{valid}{many}\n")
    lines = str(caught.value).splitlines()
    assert (len(caught.value.problems), len(lines), lines[-1]) == (50, 21, "… and 30 more problems")


def test_an_apostrophe_opens_no_value():
    message = f"the dataset's {'very ' * 30}long sentence, and another's, with 'a value'"
    assert str(Problem("", message)) == message
    assert str(Problem("", f"not '{LONG}' but 'b'")) == f"not '{'x' * 49}…{'x' * 29}' but 'b'"


def test_a_hint_shows_no_internals(problems, valid):
    [found] = problems(valid, "schedule.training.learning_rate.zzzz=1")
    assert "known: " in found.hint
    assert "pydantic" not in found.hint
