"""Recipe files and the recipes that they give."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

import kdcore.recipe.shipped as shipped
from kdcore import Ramp
from kdcore.errors import RecipeError
from kdcore.recipe.load import find_recipe, list_recipes, load_recipe

BASE = "extends: recipe.yaml\n"


@pytest.fixture
def extend(write, valid, plugins):
    """Loads a recipe that extends the valid one."""

    def extend(text, *overrides):
        write(valid)
        return load_recipe(write(BASE + text, "child.yaml"), overrides, plugins)

    return extend


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


def test_terms_of_one_name_get_numbers(load, valid):
    terms = "losses: [cross-entropy, cross-entropy, {name: fake/cross-entropy}, {name: soft-target, id: cross-entropy-2}]"
    recipe = load(valid, terms.replace(": ", "=", 1))
    assert [term.id for term in recipe.losses] == ["cross-entropy", "cross-entropy-3", "cross-entropy-4", "cross-entropy-2"]


def test_weights_are_numbers_or_ramps(load, valid):
    recipe = load(valid.replace("weight: 0.5", "weight: {start: 0, stop: 2, epochs: 4}"))
    assert recipe.losses[1].weight == Ramp(0.0, 2.0, 4)
    assert recipe.losses[1].flat()["weight"] == {"start": 0.0, "stop": 2.0, "epochs": 4, "shape": "linear"}


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


# Extending


def test_mappings_merge_and_lists_are_replaced(extend):
    recipe = extend("name: child\nteachers: {acc: {encoder: {dropout: 0.1}}}\nseeds: [7]\nstudent: {taps: [a, layers.1]}\n")
    assert (recipe.name, recipe.seeds, recipe.tracking.experiment) == ("child", [7], "child")
    assert recipe.teachers["acc"].encoder.options == {"width": 8, "dropout": 0.1}
    assert recipe.teachers["gyro"].encoder.options == {"width": 8, "dropout": 0.1}
    assert recipe.student.taps == {"a": "a", "layers.1": "layers.1"}


def test_a_bare_name_below_takes_options(extend):
    assert extend("student: {encoder: {width: 2}}\n").student.encoder.flat() == {"name": "net", "width": 2}


def test_another_component_drops_the_options_below(extend):
    recipe = extend("teachers: {acc: {encoder: {name: fake/net, dropout: 0.1}}}\n")
    assert recipe.teachers["acc"].encoder.options == {"dropout": 0.1}


def test_null_takes_away_what_was_inherited(extend, load, valid):
    recipe = extend(
        "teachers: {gyro: null, acc: {taps: null, encoder: {dropout: null}}}\nlosses: [cross-entropy]\nseeds: null\n"
    )
    assert list(recipe.teachers) == ["acc"]
    assert recipe.teachers["acc"].taps == {}
    assert recipe.teachers["acc"].encoder.options == {"width": 8, "dropout": None}
    assert recipe.seeds == [0]
    assert load(valid, "teachers.gyro=null").teachers.keys() == {"acc"}


def test_losses_by_name(extend):
    recipe = extend(
        "losses: {soft-target: {weight: 0}, late: null, cross-entropy: {}, extra: {name: soft-target, weight: 2}}\n"
    )
    assert [(term.id, term.weight) for term in recipe.losses] == [("cross-entropy", 1.0), ("soft-target", 0.0), ("extra", 2.0)]
    assert not recipe.losses[1].active
    assert recipe.losses[1].options == {"temperature": 2}


def test_bases_in_order_and_a_diamond(write, valid, plugins):
    write(valid)
    write(BASE + "name: b\ndescription: b\n", "b.yaml")
    write(BASE + "name: c\n", "c.yaml")
    recipe = load_recipe(write("extends: [b.yaml, c.yaml]\n", "d.yaml"), (), plugins)
    assert (recipe.name, recipe.description) == ("c", "b")


def test_lines_of_the_file_that_said_it(extend, tmp_path):
    recipe = extend("losses:\n  soft-target:\n    weight: 0.25\n")
    assert recipe.locate("losses[1].weight") == (tmp_path / "child.yaml", 4)
    assert recipe.locate("losses[1].temperature") == (tmp_path / "recipe.yaml", 20)
    assert recipe.locate("seeds") == (tmp_path / "recipe.yaml", 23)


def test_problems_name_the_file_that_said_it(extend, write, valid, plugins, tmp_path):
    with pytest.raises(RecipeError) as caught:
        extend("losses: {soft-target: {temprature: 3}}\n")
    [found] = caught.value.problems
    assert (found.file, found.line, found.path) == (tmp_path / "child.yaml", 2, "losses[1].temprature")


def test_extending_what_is_not_there(write, valid, plugins, tmp_path):
    write(valid, "base.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("name: x\nextends: bse.yaml\n"), (), plugins)
    [found] = caught.value.problems
    assert (found.file, found.line, found.path) == (tmp_path / "recipe.yaml", 2, "extends")
    assert found.hint == "did you mean 'base.yaml'?"


def test_extending_in_a_circle(write, plugins):
    write("extends: b.yaml\n", "a.yaml")
    write("name: b\nextends: sub/c.yaml\n", "b.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("extends: ../a.yaml\n", "sub/c.yaml"), (), plugins)
    [found] = caught.value.problems
    assert found.message == "circular `extends:` reference: c.yaml → a.yaml → b.yaml → c.yaml"
    assert (found.file.name, found.line) == ("b.yaml", 2)


def test_extends_is_a_name_or_names(write, plugins):
    with pytest.raises(RecipeError, match=r"recipe\.yaml:1: extends: must be a file"):
        load_recipe(write("extends: {a: b}\n"), (), plugins)


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


def test_copies(load, valid):
    recipe = load(valid, "student.copies=3", "losses={mutual: {}}")
    assert recipe.student is None
    assert list(recipe.student_specs) == ["student-1", "student-2", "student-3"]
    assert len({spec.model_dump_json() for spec in recipe.students.values()}) == 1


@pytest.mark.parametrize("copies", ["0", "x", "1.5", "true", "101"])
def test_copies_are_counted(problems, valid, copies):
    assert [each.path for each in problems(valid, f"student.copies={copies}")] == ["student.copies"]


# Overrides


def test_overrides(load, valid):
    recipe = load(
        valid,
        "losses.late.weight=0.1",
        "losses[1].weight={start: 0, stop: 1, epochs: 2}",
        "losses.soft-target.temperature=1e1",
        "teachers.acc.transforms[0].length=32",
        "teachers.acc.transforms.cut.at=end",
        "data.protocol=fake/halves",
        "engine.threads=1",
        "description=a = b",
        "tracking.tags.who=me",
    )
    assert recipe.losses[2].weight == 0.1
    assert recipe.losses[1].weight == Ramp(0, 1, 2)
    assert recipe.losses[1].options == {"temperature": 10.0}
    assert recipe.teachers["gyro"].transforms[0].options == {"length": 32, "at": "end"}
    assert recipe.data.protocol.name == "fake/halves"
    assert recipe.description == "a = b"
    assert recipe.tracking.tags == {"who": "me"}


@pytest.mark.parametrize("turn", [1, -1])
def test_another_name_drops_options_whatever_the_order(load, valid, turn):
    text = valid.replace("root: /nowhere", "root: /nowhere, kind: large")
    recipe = load(text, *["data.dataset.name=fake/folder", "data.dataset.root=~/x"][::turn])
    assert recipe.data.dataset.options == {"root": "~/x"}
    assert recipe.filled()["data"]["dataset"]["root"] == str(Path.home() / "x")


def test_the_same_name_keeps_options(load, valid):
    assert load(valid, "data.dataset.name=folder").data.dataset.options == {"root": "/nowhere"}


def test_qualified_names_in_overrides(load, valid, problems):
    text = valid.replace("- {name: soft-target,", "- {name: fake/soft-target,")
    assert load(text, "losses.fake/soft-target.temperature=9").losses[1].options == {"temperature": 9}
    assert load(text, "losses.soft-target.temperature=9").losses[1].options == {"temperature": 9}
    assert [term.name for term in load(text, "losses.fake/soft-target=null").losses] == ["cross-entropy", "feature"]
    assert load(text, "losses={fake/soft-target: {weight: 3}}").losses[1].weight == 3
    assert load(text, "student.encoder=fake/net").student.encoder.name == "fake/net"
    [found] = problems(valid, "losses.other/soft-target.weight=3")
    assert (found.path, found.hint) == ("losses.other/soft-target", "did you mean 'soft-target'?")


def test_a_qualified_name_that_two_terms_have_is_refused(valid, problems):
    twice = valid.replace("  - cross-entropy\n", "  - {name: fake/soft-target, id: a}\n  - {name: fake/soft-target, id: b}\n")
    [found] = problems(twice, "losses.fake/soft-target.weight=3")
    assert (found.path, found.hint) == ("losses.fake/soft-target", "did you mean 'soft-target'?")


def test_losses_as_one_override(load, valid):
    assert len(load(valid, "losses=[cross-entropy]").losses) == 1
    assert len(load(valid, "losses={late: null}").losses) == 2
    assert len(load(valid, "losses.late=null").losses) == 2


@pytest.mark.parametrize(
    ("override", "path", "hint"),
    [
        ("data.batch_siz=3", "data.batch_siz", "did you mean 'batch_size'?"),
        ("dta.batch_size=3", "dta", "did you mean 'data'?"),
        ("losses.lat.weight=3", "losses.lat", "did you mean 'late'?"),
        ("losses[7].weight=3", "losses[7]", "entries: cross-entropy, soft-target, late"),
        ("losses[1].temprature=3", "losses[1].temprature", "did you mean 'temperature'?"),
        ("seeds[0].x=3", "seeds[0].x", ""),
        ("teachers.gyro.transforms[0].length=3", "teachers.gyro.transforms[0]", ""),
        ("data.batch_size=many", "data.batch_size", ""),
        ("name={a: 1, a: 2}", "name", ""),
        ("name=[", "name", ""),
        ("name=!!python/name:os.system", "name", ""),
        ("seeds[3]=1", "seeds[3]", "it has 2 entries, counted from 0"),
        ("seeds.x=1", "seeds.x", "it has 2 entries, counted from 0"),
        ("extends=quickstart", "extends", "write a file that extends it"),
        ("losses[-1].weight=3", "", "entries are counted from 0; negative indices are not supported"),
        ("name", "", "write path=value, e.g. data.batch_size=32"),
        ("=3", "", "write path=value, e.g. data.batch_size=32"),
        ("a..b=3", "", "write path=value, e.g. data.batch_size=32"),
    ],
)
def test_overrides_that_lead_nowhere(problems, valid, override, path, hint):
    found = problems(valid, override)
    assert [(each.path, each.file, each.line, each.hint) for each in found] == [(path, None, None, hint)]
    assert "command line" in found[0].message or not path


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
    assert (f"did you mean {hint!r}?" if hint else "one") in caught.value.problems[0].hint


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
