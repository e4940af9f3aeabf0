"""Recipe files and the recipes that they give."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

import kdcore.recipe.shipped as shipped
from kdcore import Ramp
from kdcore.errors import RecipeError
from kdcore.recipe.load import find_recipe, list_recipes, load_recipe


def test_a_whole_recipe(load):
    recipe = load()
    assert recipe.data.dataset.name == "folder"
    assert recipe.data.dataset.options == {"root": "/nowhere"}
    assert list(recipe.participants) == ["acc", "gyro", "student"]
    assert recipe.teachers["gyro"].modality == "gyroscope"
    assert recipe.teachers["gyro"].encoder == recipe.teachers["acc"].encoder
    assert recipe.student_specs["student"].taps == {"layers.1": "layers.1"}
    assert [(term.id, term.weight) for term in recipe.losses] == [("cross-entropy", 1.0), ("soft-target", 0.5), ("late", 1.0)]
    assert recipe.tracking.experiment == "valid"
    assert recipe.data.memory_bytes == 4 * 1024**3
    assert {kind for kind, _ in recipe.components()} == {"dataset", "protocol", "transform", "encoder", "loss", "schedule"}


def test_terms_of_one_name_get_numbers_or_the_name_of_their_plugin(load, valid):
    terms = "losses: [cross-entropy, cross-entropy, {name: fake/cross-entropy}, {name: soft-target, id: cross-entropy-2}]"
    recipe = load(valid, terms.replace(": ", "=", 1))
    assert [term.id for term in recipe.losses] == ["cross-entropy", "cross-entropy-3", "fake-cross-entropy", "cross-entropy-2"]


def test_weights_are_numbers_or_ramps(load, valid):
    recipe = load(valid.replace("weight: 0.5", "weight: {start: 0, stop: 2, epochs: 4}"))
    assert recipe.losses[1].weight == Ramp(0.0, 2.0, 4)
    assert recipe.losses[1].flat()["weight"] == {"start": 0.0, "stop": 2.0, "epochs": 4, "shape": "linear", "after": 0}


def test_several_modalities(load, valid):
    text = valid.replace(
        "modality: skeleton", "modality: [skeleton, gyroscope]\n  transforms: {skeleton: [{name: cut, length: 3}], joined: []}"
    )
    student = load(text).student
    assert student.modalities == ("skeleton", "gyroscope")
    assert [each.flat() for each in student.transforms_of("skeleton")] == [{"name": "cut", "length": 3}]
    assert student.transforms_of("gyroscope") == student.transforms_of("joined") == []


def test_a_list_of_one_modality(load, valid, write, plugins):
    text = valid.replace("modality: skeleton", "modality: [skeleton]\n  transforms: [{name: cut, length: 3}]")
    student = load(text).student
    assert student.modalities == ("skeleton",)
    assert [each.flat() for each in student.transforms_of("skeleton")] == [{"name": "cut", "length": 3}]
    assert student.transforms_of("joined") == []
    mapped = text.replace("[{name: cut, length: 3}]", "{skeleton: [], joined: [{name: cut, length: 3}]}")
    assert [each.name for each in load(mapped).student.transforms_of("joined")] == ["cut"]


@pytest.mark.parametrize("transforms", ["", "\n  transforms: []"])
@pytest.mark.parametrize("modality", ["skeleton", "[skeleton]", "[skeleton, gyroscope]"])
def test_filled_again_it_is_the_same(load, valid, modality, transforms):
    recipe = load(valid.replace("modality: skeleton", f"modality: {modality}{transforms}"))
    assert load(recipe.to_yaml()).hash == recipe.hash


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-3", 0.001), ("-2.5E+2", -250.0), (".5", 0.5), ("3", 3), ("010", 10), ("0x1f", 31), ("0o17", 15), ("true", True),
        ("yes", "yes"), ("off", "off"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("~", None),
        ("'1'", "1"), ("!!str 5", "5"), ("!!float 5", 5.0), ("=", "="), ("<<", "<<"),
    ],
)  # fmt: skip
def test_scalars(load, valid, written, meant):
    loaded = load(valid.replace("{epochs: 3}", f"{{epochs: 3}}, whatever: {written}"))
    value = loaded.schedule.options["whatever"]
    assert (value, type(value)) == (meant, type(meant))
    again = yaml.safe_load(loaded.to_yaml())["schedule"]["whatever"]
    assert again == meant, "other readers of YAML understand what is written"


def test_anchors(load, valid):
    text = valid.replace("{name: net, width: 8}", "&net {name: net, width: 8}").replace("encoder: net", "encoder: *net")
    assert load(text).student.encoder.options == {"width": 8}


def test_locate(load, valid, tmp_path):
    recipe = load(valid, "engine.threads=2")
    file = tmp_path / "recipe.yaml"
    assert recipe.locate("losses[1].temperature") == (file, 20)
    assert recipe.locate("losses[1].squared") == (file, 20)
    assert recipe.locate("teachers.gyro.encoder.width") == (file, 11)
    assert recipe.locate("teachers.gyro.modality") == (file, 13)
    assert recipe.locate("engine.threads") is None


# Participants like others


def test_like_across_groups_and_chains(load, valid):
    recipe = load(
        valid.replace("seeds:", "baseline: false\nseeds:"),
        "teachers.third={like: gyro, encoder: {dropout: 0}}",
        "student.like=acc",
    )
    assert recipe.teachers["third"].modality == "gyroscope"
    assert recipe.teachers["third"].encoder.options == {"width": 8, "dropout": 0}
    assert recipe.student.modality == "skeleton"
    assert recipe.student.transforms == recipe.teachers["acc"].transforms
    assert set(recipe.student.taps) == {"layers.1"}


def test_keys_given_with_like_are_merged_as_the_documentation_says():
    text = Path(__file__).parents[3].joinpath("docs/recipes.md").read_text(encoding="utf-8")
    [example] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "like: wide" in block]
    rest = {
        "version": 1,
        "name": "copies",
        "data": {"dataset": {"name": "synthetic-motion"}, "protocol": "cross-subject"},
        "student": {"modality": "accelerometer", "encoder": "cnn1d"},
        "losses": ["cross-entropy"],
        "teacher_losses": ["cross-entropy"],
    }
    recipe = load_recipe({**rest, **yaml.safe_load(example)})
    wide, narrow, recurrent = recipe.teachers.values()
    assert narrow.encoder.options == {**wide.encoder.options, "width": 16} == {"width": 16, "dropout": 0.2}
    assert (dict(wide.taps), dict(narrow.taps), dict(recurrent.taps)) == ({"features": "pool"}, {"other": "pool"}, {})
    assert (recurrent.encoder.name, recurrent.encoder.options) == ("lstm", {})
    assert narrow.transforms == wide.transforms
    assert [each.name for each in recurrent.transforms] == ["resample", "joints-to-channels"]


def test_copies(load, valid):
    recipe = load(valid, "student.copies=3", "losses={mutual: {}}")
    assert recipe.student is None
    assert list(recipe.student_specs) == ["student-1", "student-2", "student-3"]
    assert len({spec.model_dump_json() for spec in recipe.students.values()}) == 1


@pytest.mark.parametrize("copies", ["0", "x", "1.5", "true", "101"])
def test_copies_are_counted(problems, valid, copies):
    assert [each.path for each in problems(valid, f"student.copies={copies}")] == ["student.copies"]


# Shipped recipes


@pytest.fixture
def folder(monkeypatch, tmp_path, valid):
    """A folder of shipped recipes."""
    for name in ("one.yaml", "set/two.yaml"):
        (tmp_path / "shipped" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shipped" / name).write_text(f"# About {name}\n{valid}")
    monkeypatch.setattr(shipped, "_folder", lambda: tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shipped"


def test_shipped_recipes(folder, plugins, write):
    assert list_recipes() == {"one": "About one.yaml", "set/two": "About set/two.yaml"}
    assert find_recipe("set/two") == folder / "set/two.yaml"
    assert load_recipe("one", (), plugins).locate("name") == (Path("shipped/one.yaml"), 3)
    assert load_recipe(write("extends: set/two\nname: mine\n"), (), plugins).name == "mine"


@pytest.mark.parametrize(("name", "hint"), [("set/tow", "set/two"), ("two", "set/two"), ("../shipped/one", None)])
def test_unknown_shipped_recipe(folder, plugins, name, hint):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, (), plugins)
    assert (f"did you mean {hint!r}?" if hint else "kdcore recipes list") in caught.value.problems[0].hint


def test_where_recipes_are_shipped():
    assert shipped._folder().is_dir()


# What is recorded


def test_filled(load):
    filled = load().filled()
    assert filled["data"]["dataset"] == {"name": "folder", "root": "/nowhere", "kind": "small", "fail": False}
    assert filled["teachers"]["gyro"]["encoder"] == {"name": "net", "width": 8, "dropout": 0.5}
    term = {"name": "soft-target", "id": "soft-target", "weight": 0.5, "temperature": 2.0, "teachers": None}
    assert filled["losses"][1] == term
    assert filled["schedule"]["training"]["learning_rate"]["period"] == 20
    assert filled["engine"]["precision"] == "32-true"


def test_hash(load, valid):
    same = load(valid).hash
    assert (
        same
        == hashlib.sha256(
            json.dumps(
                {k: v for k, v in load().filled().items() if k not in ("description", "tracking")}, sort_keys=True
            ).encode()
        ).hexdigest()
    )
    lines = valid.splitlines(keepends=True)
    assert load("".join(lines[-1:] + lines[:-1])).hash == same, "the order of keys"
    assert load(valid.replace("name: net, width: 8", "width: 8, name: net")).hash == same
    assert load(valid.replace("encoder: net", "encoder: {name: net, dropout: 0.5, width: 4}")).hash == same, (
        "defaults written out"
    )
    assert load(valid, "description=x", "tracking.tags.a=b", "tracking.uri=x").hash == same
    assert load(valid, "seeds=[1]").hash != same
    assert load(valid, "losses.late.weight=0.9").hash != same


def test_nothing_is_opened_or_written(load, tmp_path):
    load()
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


LAYOUT = "{joints: [hip, knee, foot], edges: [[hip, knee], [knee, foot]], centre: hip}"


def test_an_option_that_was_a_name_may_become_a_mapping(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(f"extends: pskd\nname: own\nteachers: {{skeleton: {{encoder: {{layout: {LAYOUT}}}}}}}\n")
    for recipe in (load_recipe(file), load_recipe("pskd", [f"teachers.skeleton.encoder.layout={LAYOUT}"])):
        assert recipe.teachers["skeleton"].encoder.options["layout"]["joints"] == ["hip", "knee", "foot"]
