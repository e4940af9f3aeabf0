"""Invariants of loading, over many recipes."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from yaml import safe_dump

from kdcore.recipe.load import load_recipe
from kdcore.recipe.reserved_names import is_module_attribute
from kdcore.recipe.yaml import Node, dotted, dump, parse, steps


def reserved(name: str) -> bool:
    return name in ("student", "joined", "fusion") or is_module_attribute(name)


relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(0, 1e6) | st.integers(0, 1000)
scalars = text | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.booleans() | st.none()
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=20
)
possible = st.recursive(
    text | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
words = st.from_regex(r"\A[a-z]{1,6}\Z")
simple = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=20
)
ramps = st.fixed_dictionaries(
    {"start": numbers, "stop": numbers, "epochs": st.integers(1, 99)}, optional={"shape": st.sampled_from(["linear", "cosine"])}
)
names = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_-]{0,8}\Z").filter(lambda name: not reserved(name))
nets = st.just("net") | st.fixed_dictionaries(
    {"name": st.just("net")}, optional={"width": st.integers(-(2**63) + 1, 2**63 - 1), "dropout": st.none() | numbers}
)
cuts = st.fixed_dictionaries(
    {"name": st.just("cut"), "length": st.integers(1, 999)}, optional={"at": st.sampled_from(["start", "end"])}
)
participants = st.fixed_dictionaries(
    {"modality": st.sampled_from(["accelerometer", "skeleton"]), "encoder": nets},
    optional={
        "transforms": st.lists(cuts, max_size=3),
        "taps": st.lists(text, max_size=3, unique=True) | st.dictionaries(text, text, max_size=3),
        "freeze": st.lists(text.filter(lambda path: path != "*"), max_size=2),  # a student frozen whole is refused
        "weights": st.just("~/w.safetensors"),  # not looked for
    },
)
optimizers = st.fixed_dictionaries(
    {"name": st.sampled_from(["sgd", "SGD"])}, optional={"lr": st.floats(0, 9, exclude_min=True), "momentum": st.floats(0, 0.9)}
)
terms = st.sampled_from(["cross-entropy", {"name": "cross-entropy"}]) | st.fixed_dictionaries(
    {"name": st.just("soft-target")},
    optional={"weight": st.floats(1e-3, 1e6) | ramps, "temperature": st.floats(0.1, 99) | ramps},
)
recipes = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "name": st.from_regex(r"\A[\w ][\w .-]{0,11}\Z"),
        "data": st.just({"dataset": {"name": "folder", "root": "~/x"}, "protocol": "halves"}),
        "teachers": st.dictionaries(names, participants, min_size=1, max_size=2),
        "student": participants,
        "losses": st.lists(terms, min_size=1, max_size=4),
        "schedule": st.fixed_dictionaries(
            {"name": st.just("one-stage")},
            optional={"training": st.fixed_dictionaries({}, optional={"optimizer": optimizers}), "whatever": possible},
        ),
    },
    optional={
        "description": text,
        "seeds": st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True),
        "tracking": st.fixed_dictionaries({}, optional={"tags": st.dictionaries(text, text, max_size=2), "uri": text}),
        "engine": st.fixed_dictionaries(
            {}, optional={"devices": st.sampled_from([2, "auto", "0,1"]), "threads": st.integers(1, 9)}
        ),
    },
)


@relaxed
@given(tree=recipes)
def test_filled_is_a_fixed_point(tree, write, plugins):
    first = load_recipe(write(dump(tree)), (), plugins, files=False)
    second = load_recipe(write(first.to_yaml(), "filled.yaml"), (), plugins, files=False)
    assert second.filled() == first.filled()
    assert second.hash == first.hash


@relaxed
@given(tree=trees)
def test_what_is_written_is_read(tree):
    problems = []
    assert parse(dump(tree), None, problems).plain() == tree
    assert problems == []


@relaxed
@given(tree=st.dictionaries(words, simple, min_size=1, max_size=5))
def test_lines_are_those_of_the_keys(tree, tmp_path):
    """Every key that the dumper writes in block style stands in the line that is remembered for it."""
    written = safe_dump(tree, default_flow_style=False, allow_unicode=False, width=10**6)
    lines = written.splitlines()
    node = parse(written, tmp_path / "x", [])
    for path, (_, line) in node.places():
        if path and isinstance(path[-1], str):
            assert f"{path[-1]}:" in lines[line - 1].replace("'", "")
        elif path:
            assert lines[line - 1].lstrip().startswith("- ")


@given(st.lists(st.from_regex(r"\A[a-z_-]{1,5}\Z") | st.integers(0, 99), max_size=5))
def test_paths_as_text(path):
    assert steps(dotted(tuple(path))) == tuple(path)


def test_nodes_of_no_mapping_have_no_keys():
    assert Node([]).get("x") is None
