"""Broken recipes, each with the line, the path and the advice that a user gets."""

import pytest

from kdcore.errors import DataError, KdcoreError, RecipeError
from kdcore.plugin.manager import Plugin
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe


def line_of(text: str, part: str) -> int:
    assert text.count(part) == 1
    return text[: text.index(part)].count("\n") + 1


# what to replace in the valid recipe, by what, the path, part of the message, part of the hint
CASES = {
    "unknown key": ("seeds: [0, 1]", "seed: [0, 1]", "seed", "unknown key 'seed'", "did you mean 'seeds'?"),
    "unknown nested key": ("taps: [layers.1]", "tap: []", "student.tap", "unknown key 'tap'", "did you mean 'taps'?"),
    "misspelt component": (
        "name: soft-target",
        "name: soft-tarjet",
        "losses[1].name",
        "no loss 'soft-tarjet'",
        "did you mean 'soft-target'",
    ),
    "misspelt option": (
        "temperature:",
        "temprature:",
        "losses[1].temprature",
        "no option 'temprature'",
        "did you mean 'temperature'?",
    ),
    "misspelt weight": ("weight:", "wieght:", "losses[1].wieght", "no option 'wieght'", "did you mean 'weight'?"),
    "unlike any option": ("temperature:", "x:", "losses[1].x", "no option 'x'", "known: id, teachers, temperature, weight"),
    "missing option": ("{name: cut, length: 64}", "cut", "teachers.acc.transforms[0].length", "needs an option 'length'", ""),
    "text for a number": ("width: 8", "width: '8'", "teachers.acc.encoder.width", "valid integer, not '8'", ""),
    "truth for a number": ("width: 8", "width: true", "teachers.acc.encoder.width", "valid integer, not true", ""),
    "bounds": ("length: 64", "length: 0", "teachers.acc.transforms[0].length", "greater than or equal to 1, not 0", ""),
    "no such choice": ("root: /nowhere", "root: /x, kind: big", "data.dataset.kind", "'small' or 'large', not 'big'", ""),
    "neither number nor ramp": ("temperature: 2", "temperature: hot", "losses[1].temperature", "valid number", ""),
    "ramp of zeros": (
        "weight: 0.5",
        "weight: {start: 0, stop: 0, epochs: 3}",
        "losses[1].weight",
        "is 0 in every epoch",
        "",
    ),
    "misspelt within a ramp": (
        "weight: 0.5",
        "weight: {start: 0, stop: 1, epochs: 3, shap: linear}",
        "losses[1].weight.shap",
        "unknown key",
        "did you mean 'shape'?",
    ),
    "misspelt within an option": (
        "epochs: 3",
        "epoch: 3",
        "schedule.training.epoch",
        "unknown key 'epoch'",
        "did you mean 'epochs'?",
    ),
    "modality lacking": (
        "modality: skeleton",
        "modality: skeletom",
        "student.modality",
        "'folder' has no modality",
        "did you mean 'skeleton'?",
    ),
    "same seed twice": ("seeds: [0, 1]", "seeds: [1, 1]", "seeds[1]", "given twice", ""),
    "seed is no number": ("seeds: [0, 1]", "seeds: [0, x]", "seeds[1]", "valid integer, not 'x'", ""),
    "seeds is no list": ("seeds: [0, 1]", "seeds: 3", "seeds", "must be a list, not 3", ""),
    "losses is no list": (
        "losses:\n  - cross-entropy\n  - {name: soft-target, weight: 0.5, temperature: 2}\n"
        "  - {name: feature, id: late, teacher: block, student: layers.1}",
        "losses: cross-entropy",
        "losses",
        "must be a list, not 'cross-entropy'",
        "",
    ),
    "text for epochs": ("epochs: 3", "epochs: three", "schedule.training.epochs", "must be a valid integer, not 'three'", ""),
    "name as a key": (
        "  - cross-entropy",
        "  - cross-entropy: {label_smoothing: 0.1}",
        "losses[0].name",
        "the key 'name' is missing",
        "write {name: cross-entropy, …} if 'cross-entropy' is its name, or {name: …, cross-entropy: {…}} if it is an option",
    ),
    "merge key": ("version: 1", "<<: {seeds: [0]}\nversion: 1", "<<", "unknown key '<<'", "merge keys are not supported"),
    "no seeds": ("seeds: [0, 1]", "seeds: []", "seeds", "must not be empty", ""),
    "negative weight": ("weight: 0.5", "weight: -1", "losses[1].weight", "between 0 and 1e+09, not -1", ""),
    "infinite weight": ("weight: 0.5", "weight: .inf", "losses[1].weight", "must be a finite number, not inf", ""),
    "negative ramp": ("weight: 0.5", "weight: {start: 1, stop: -1, epochs: 2}", "losses[1].weight", "between 0 and", ""),
    "same id twice": ("- cross-entropy", "- {name: cross-entropy, id: late}", "losses[2].id", "id 'late' already", ""),
    "student's tap": (
        "student: layers.1}",
        "student: layers.7}",
        "losses[2]",
        "needs the tap 'layers.7' of 'student'",
        "did you mean 'layers.1'?",
    ),
    "teacher's tap": (
        "teacher: block",
        "teacher: blok",
        "losses[2]",
        "needs the tap 'blok' of 'acc' and 'gyro'",
        "did you mean 'block'?",
    ),
    "refusing constructor": (
        "teacher: block",
        "teacher: ''",
        "losses[2]",
        "could not construct loss 'feature' of plugin 'fake': name a tap",
        "",
    ),
    "failing dataset": ("root: /nowhere", "root: /x, fail: true", "data.dataset", "OSError: no disk", ""),
    "withheld labels": (
        "  protocol: halves",
        "  protocol: halves\n  labels: withheld",
        "losses[0]",
        "reads labels",
        "data.labels",
    ),
    "no peers": (
        "  - cross-entropy",
        "  - mutual",
        "losses[0]",
        "at least 1 peer, but 'student' learns from none",
        "list several students",
    ),
    "no class embeddings": ("  - cross-entropy", "  - meaning", "losses[0]", "needs class embeddings", "class_embeddings"),
    "broken component": ("  - cross-entropy", "  - lost", "losses[0]", "plugin 'fake': loss 'lost'", ""),
    "unknown like": ("like: acc", "like: ack", "teachers.gyro.like", "no participant 'ack'", "did you mean 'acc'?"),
    "like itself": ("like: acc", "like: gyro", "teachers.gyro.like", "gyro → gyro", ""),
    "teacher called student": ("gyro: {like", "student: {like", "student", "'student' is also the name of a teacher", ""),
    "attribute of a module": ("gyro: {like", "half: {like", "teachers.half", "an attribute of torch.nn.ModuleDict", ""),
    "no name for a participant": ("gyro: {like", "1st: {like", "teachers.1st", "is not a valid name for a participant", ""),
    "duplicate key": (
        "  protocol: halves",
        "  protocol: halves\n  dataset: folder",
        "data.dataset",
        "given twice, first in line 4",
        "",
    ),
    "python tag": (
        "root: /nowhere",
        "root: !!python/object/apply:os.system [ls]",
        "data.dataset.root",
        "python/object/apply:os.system",
        "",
    ),
    "other tag": ("root: /nowhere", "root: !secret x", "data.dataset.root", "'!secret' is not supported", ""),
    "a number that is none": ("root: /nowhere", "root: !!int x", "data.dataset.root", "'x' is not a valid int", ""),
    "kind of another": ("encoder: net", "encoder: cut", "student.encoder.name", "no encoder 'cut', but a transform", ""),
    "name of another folder": ("name: valid", "name: ../valid", "name", "'../valid' is not a valid name for a run", ""),
    "name of two lines": ("name: valid", 'name: "a\\nb"', "name", "is not a valid name for a run", ""),
    "hidden name": ("name: valid", "name: .valid", "name", "is not a valid name for a run", ""),
    "no such accelerator": (
        "version: 1",
        "engine: {accelerator: abacus}\nversion: 1",
        "engine.accelerator",
        "'mps' or 'tpu', not 'abacus'",
        "",
    ),
    "unknown plugin": ("version: 1", "plugins: [fak]\nversion: 1", "plugins[0]", "no plugin 'fak'", "did you mean 'fake'?"),
    "broken plugin": ("version: 1", "plugins: [torn]\nversion: 1", "plugins[0]", "not in use: ImportError", ""),
    "fusion of nothing": ("seeds: [0, 1]", "fusion: x", "fusion.name", "no fusion 'x'", "known: none"),
    "size of memory": (
        "  protocol: halves",
        "  protocol: halves\n  memory_limit: lots",
        "data.memory_limit",
        "such as '4GiB'",
        "",
    ),
    "transforms of one modality": (
        "transforms:\n      - ",
        "transforms:\n      acc: ",
        "teachers.acc.transforms.acc",
        "must be a list",
        "",
    ),
    "wrong version": ("version: 1", "version: 2", "version", "must be 1, not 2", ""),
}
# where the line is another one than the first that was changed
AT = {
    "withheld labels": "  - cross-entropy",
    "duplicate key": "  dataset: folder",
    "same id twice": "  - {name: feature",
    "teacher called student": "\nstudent:",
    "no such choice": "dataset:",
    "size of memory": "  memory_limit",
    "unknown plugin": "plugins:",
    "broken plugin": "plugins:",
    "transforms of one modality": "acc: {name: cut",
}
WITH_CONSEQUENCES = ("unknown nested key", "transforms of one modality")


@pytest.mark.parametrize("case", CASES)
def test_one_mistake(case, valid, problems, tmp_path):
    before, after, path, message, hint = CASES[case]
    assert before in valid
    valid = valid.replace(before, after, 1)
    everything = problems(valid)
    assert len(everything) == 1 or case in WITH_CONSEQUENCES
    found = [each for each in everything if each.path == path]
    assert len(found) == 1
    assert message in found[0].message
    assert hint in found[0].hint
    where = AT.get(case, after)
    assert (found[0].file, found[0].line) == (tmp_path / "recipe.yaml", line_of(valid, where) + where.startswith("\n"))


def test_all_at_once(valid, problems):
    text = (
        valid.replace("seeds:", "sedes:")
        .replace("temperature:", "temprature:")
        .replace("width: 8", "width: wide")
        .replace("name: net", "name: nett")
        .replace("weight: 0.5", "weight: -0.5")
        .replace("modality: skeleton", "modality: skeletom")
        .replace("student: layers.1}", "student: layers.9}")
    )
    found = {each.path: each for each in problems(text, "engine.thread=2")}
    assert set(found) == {
        "engine.thread",
        "teachers.acc.encoder.name",
        "student.modality",
        "losses[1].weight",
        "losses[1].temprature",
        "losses[2]",
        "sedes",
    }
    assert found["engine.thread"].file is None
    assert {path: each.line for path, each in found.items() if each.file} == {
        "teachers.acc.encoder.name": 11,
        "student.modality": 15,
        "losses[1].weight": 20,
        "losses[1].temprature": 20,
        "losses[2]": 21,
        "sedes": 23,
    }
    assert [each.line or 0 for each in problems(text)] == sorted(each.line or 0 for each in problems(text))


def test_text_of_a_problem(valid, load, tmp_path):
    with pytest.raises(RecipeError) as caught:
        load(valid.replace("temperature:", "temprature:"))
    assert str(caught.value) == (
        f"{tmp_path / 'recipe.yaml'}:20: losses[1].temprature: the loss 'soft-target' has no option 'temprature' "
        "(did you mean 'temperature'?)"
    )


def test_unknown_component_names_broken_plugins(valid, problems):
    [found] = problems(valid.replace("  - cross-entropy", "  - tears"))
    assert "the plugin 'torn' is not in use and may have it: ImportError: no module 'tears'" in found.message


def test_unknown_component_does_not_name_a_broken_plugin_file_of_another_recipe(valid, problems, tmp_path):
    (tmp_path / "elsewhere.py").write_text("import tears")
    [other] = problems(f"plugins: [{tmp_path / 'elsewhere.py'}]\n{valid}")
    assert "No module named 'tears'" in other.message
    [found] = problems(valid.replace("  - cross-entropy", "  - tears"))
    assert "elsewhere" not in found.message


def test_unknown_component_names_several_broken_plugins_without_their_reasons(valid, load, plugins, monkeypatch):
    rent = Plugin("rent", "rent-dist", "1", "rent", failure="SyntaxError")
    monkeypatch.setitem(plugins.plugins, "rent", rent)
    with pytest.raises(RecipeError) as caught:
        load(valid.replace("  - cross-entropy", "  - tears"))
    said = str(caught.value)
    assert "; the plugins 'torn', 'rent' are not in use, and one may have it (kdcore plugins says why)" in said
    assert "SyntaxError" not in said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{name: adamm}", "no optimizer 'adamm'; did you mean 'adam'?"),
        ("{name: sgd, lr: 0.1, momentun: 0.9}", "optimizer 'sgd' has no option 'momentun'; did you mean 'momentum'?"),
        ("{name: lbfgs}", "optimizer 'lbfgs' cannot be used: it needs a closure"),
        ("{lr: 1e-3x}", "optimizer 'adamw': option 'lr' must be a number, not '1e-3x'"),
        ("{lr: -1}", "optimizer 'adamw': option 'lr' must be a number above 0 and up to 1e+30, not -1"),
    ],
)
def test_optimizers_that_torch_does_not_have(valid, problems, written, said):
    [found] = problems(valid.replace("epochs: 3", f"epochs: 3, optimizer: {written}"))
    assert (found.path, found.line) == ("schedule.training.optimizer", 22)
    assert found.message.startswith(said)


def test_a_dataset_that_could_not_be_constructed_hides_no_other_mistake(valid, problems):
    text = valid.replace("{name: folder, root: /nowhere}", "{name: declared, actions: [clap]}")
    found = {each.path: each for each in problems(text)}
    said = found["data.dataset"].message
    assert said == "could not construct dataset 'declared' of plugin 'fake': no action 'clap' (known: wave)"
    assert set(found) == {"data.dataset", "teachers.acc.modality", "teachers.gyro.modality"}
    assert set(found) - {"data.dataset"} < {each.path for each in problems(text.replace("actions:", "actoins:"))}


@pytest.mark.parametrize(("error", "said"), [(OSError, "OSError: no disk"), (ValueError, "no disk"), (DataError, "no disk")])
def test_a_constructors_own_words(load, plugins, monkeypatch, error, said):
    def refusing(**options):
        raise error("no disk")

    recipe = load()
    entry = plugins.registry.get("protocol", "halves")
    monkeypatch.setattr(type(entry), "load", lambda self: refusing)
    with pytest.raises(KdcoreError, match=f"('fake': |^){said}$"):
        Builder(recipe, plugins).protocol()


def test_a_misspelt_extends(valid, problems):
    [found] = problems(valid + "extends2: x\n")
    assert (found.path, found.hint) == ("extends2", "did you mean 'extends'?")


@pytest.mark.parametrize(
    ("teachers", "at"),
    [
        ("{1st: {like: acc}, joined: {like: acc}, a.b: {like: acc}, '': {like: acc}}", 4),
        ("{acc: null, gyro: null, a.b: {modality: skeleton, encoder: net}}", 1),
    ],
)
def test_teachers_of_bad_names_are_there_all_the_same(valid, write, plugins, teachers, at):
    write(valid)
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(f"extends: recipe.yaml\nlosses: [soft-target]\nteachers: {teachers}\n", "child.yaml"), (), plugins)
    assert ["is not a valid name for a participant" in each.message for each in caught.value.problems] == [True] * at


@pytest.mark.parametrize("override", ["teachers=3", "fusion={name: x}", "class_embeddings=3"])
def test_what_is_written_wrongly_is_not_missed_besides(valid, problems, override):
    text = valid.replace("  - cross-entropy", "  - meaning") if "class" in override else valid
    assert [each.path.removesuffix(".name") for each in problems(text, override)] == [override.partition("=")[0]]


def test_a_circle_of_likes_is_told_once(valid, problems):
    [found] = problems(valid + "students:\n  a: {like: b}\n  b: {like: a}\n", "student=null")
    assert (found.line, found.message) == (26, "circular `like:` reference: a → b → a")
    [found] = problems(valid.replace("encoder: net\n", "like: gyro\n").replace("like: acc", "like: student"))
    assert found.message == "circular `like:` reference: gyro → student → gyro"


def test_the_name_said_later_is_the_one_that_is_taken(valid, write, plugins):
    base = write(valid)
    child = write("extends: recipe.yaml\nteachers:\n  student: {modality: skeleton, encoder: net}\n", "child.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(child, ["seeds=[1]"], plugins)
    assert [(each.path, each.file, each.line) for each in caught.value.problems] == [("teachers.student", child, 3)]
    with pytest.raises(RecipeError) as caught:
        load_recipe(base, ["teachers.student={like: acc}"], plugins)
    assert [(each.path, each.file) for each in caught.value.problems] == [("teachers.student", None)]


def test_what_was_taken_away_is_missed_where_that_was_said(valid, problems, write, plugins):
    [found] = problems(valid, "student.encoder=")
    assert str(found) == "command line: student.encoder: the key 'encoder' is missing"
    child = write("extends: recipe.yaml\nstudent:\n  encoder: null\n", "child.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(child, (), plugins)
    assert [(each.file, each.line) for each in caught.value.problems] == [(child, 3)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("losses[1].temperature=-4", "must be greater than 0 or a mapping, not -4"),
        ("losses[1].temperature=hot", "must be a valid number or a mapping, not 'hot'"),
        ("student.modality=3", "must be a valid string or a list, not 3"),
        ("engine.devices=x", r"must be a valid integer or match pattern '^(auto|\d+(,\d+)*,?)$', not 'x'"),
    ],
)
def test_alternatives_are_told_in_one_sentence(valid, problems, override, message):
    [found] = problems(valid, override)
    assert (found.message, found.source) == (message, "command line")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("schedule.training.learning_rate.name=cosin", "did you mean 'cosine'?"),
        ("schedule.training.select=bestt", "did you mean 'best'?"),
        ("engine.accelerator=gpuu", "did you mean 'gpu'?"),
        ("data.dataset.kind=smal", "did you mean 'small'?"),
        ("engine.accelerator=zzz", ""),
        ("engine.accelerator=3", ""),
    ],
)
def test_the_choice_that_was_meant(valid, problems, override, hint):
    [found] = problems(valid, override)
    assert found.hint == hint
