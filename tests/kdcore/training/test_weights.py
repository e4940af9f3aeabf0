"""Weights from elsewhere: how tensors are found in a file, matched to a network by name and class, and accounted for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from kdcore import SampleKey
from kdcore.errors import CheckpointError
from kdcore.recipe.config_models import WeightsSpec
from kdcore.training.checkpoint import save_weights
from kdcore.training.weight_files import MOST_RECORDINGS, read_weight_file, recordings_as_json
from kdcore.training.weight_matching import head_axes, load_matching

CLASSES = ("run", "sit", "walk")


def network(classes: int = 3, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, width, 3), nn.BatchNorm1d(width), nn.Flatten(), nn.Linear(width, classes))


HEAD = ("3.weight", "3.bias")


@pytest.fixture
def theirs():
    torch.manual_seed(5)
    made = network()
    for each in made.state_dict().values():
        if each.is_floating_point():
            each.normal_()
    return made


def load(path: Path, encoder: nn.Module, names=(), classes=CLASSES, **options) -> list[str]:
    spec = WeightsSpec.model_validate({"file": str(path), "head": "keep"} | options)
    head = head_axes(network, len(classes))
    return load_matching(encoder, read_weight_file(path), spec, head, names, classes)


def same(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(each, theirs[name]) for name, each in first.state_dict().items())


def prefixed(state, prefix):
    return {f"{prefix}{name}": each for name, each in state.items()}


OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0)}}}
NESTINGS = {
    "flat": (lambda state: state, None),
    "lightning": (lambda state: {"epoch": 3, "state_dict": prefixed(state, "model.")}, "state_dict.model."),
    "ddp": (lambda state: {"model": prefixed(state, "module.")}, "model.module."),
    "model_state_dict": (lambda state: {"model_state_dict": dict(state), "optimizer": OPTIMIZER}, "model_state_dict."),
    "teacher": (lambda state: {"teacher": dict(state), "student": {"fc.weight": torch.zeros(9, 9)}}, "teacher."),
    "compiled": (lambda state: prefixed(state, "_orig_mod."), None),
    "compiled in ddp": (lambda state: prefixed(state, "module._orig_mod."), "module."),
}


@pytest.mark.parametrize("kind", NESTINGS)
def test_nested_and_prefixed_tensors_are_found_and_what_was_removed_is_said(tmp_path, theirs, kind):
    nested, prefix = NESTINGS[kind]
    torch.save(nested(theirs.state_dict()), tmp_path / "theirs.pt")
    notes = load(tmp_path / "theirs.pt", mine := network())
    assert same(theirs, mine)
    assert [note for note in notes if "removed the prefix" in note] == ([f"removed the prefix '{prefix}'"] if prefix else [])
    assert any("_orig_mod." in note for note in notes) == ("compiled" in kind)


@given(st.lists(st.sampled_from(["model", "module", "net", "a.b", "0"]), max_size=3), st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_prefix_is_found_beside_other_tensors(tmp_path_factory, steps, others):
    torch.manual_seed(0)
    made, mine = network(), network()
    prefix = "".join(f"{step}." for step in steps)
    tensors = {f"{prefix}{name}": each.clone() for name, each in made.state_dict().items()}
    if others and prefix:
        tensors["criterion.centres"] = torch.ones(2)
    path = tmp_path_factory.mktemp("weights") / "theirs.safetensors"
    save_file(tensors, path)
    notes = load(path, mine)
    assert same(made, mine)
    assert any("left out criterion.centres" in note for note in notes) == bool(others and prefix)


def test_folders_of_hugging_face_are_read_whole_or_in_shards(tmp_path, theirs):
    state = {f"backbone.{name}": each for name, each in theirs.state_dict().items()}
    (tmp_path / "whole").mkdir()
    save_file(state, tmp_path / "whole" / "model.safetensors", {"format": "pt"})
    (tmp_path / "shards").mkdir()
    names = list(state)
    halves = {"model-1.safetensors": names[:3], "model-2.safetensors": names[3:]}
    for file, held in halves.items():
        save_file({name: state[name] for name in held}, tmp_path / "shards" / file)
    where = {name: file for file, held in halves.items() for name in held}
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    for folder in ("whole", "shards"):
        load(tmp_path / folder, mine := network())
        assert same(theirs, mine)
    where = dict.fromkeys(names, "../whole/model.safetensors")
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(CheckpointError, match=r"refused: the shard '\.\./whole/model\.safetensors' is not a file next to it"):
        read_weight_file(tmp_path / "shards")
    with pytest.raises(CheckpointError, match=r"holds none of model\.safetensors\.index\.json"):
        read_weight_file(tmp_path)


def test_two_prefixes_that_fit_alike_are_refused_unless_one_is_chosen(tmp_path, theirs):
    other = network()
    torch.save({"teacher": theirs.state_dict(), "student": other.state_dict()}, tmp_path / "both.pt")
    with pytest.raises(CheckpointError, match=r"under several prefixes \('student\.', 'teacher\.'\); choose one with `prefix`"):
        load(tmp_path / "both.pt", network())
    load(tmp_path / "both.pt", mine := network(), prefix="teacher.")
    assert same(theirs, mine)
    with pytest.raises(CheckpointError, match=r"no tensor has the prefix 'tutor\.' \(they start with student\., teacher\.\)"):
        load(tmp_path / "both.pt", network(), prefix="tutor.")


def test_tensors_are_renamed_and_ignored_by_pattern(tmp_path, theirs):
    layer = {"0": "conv", "1": "bn", "3": "classifier"}
    state = {re.sub(r"^\d", lambda found: layer[found[0]], name): each for name, each in theirs.state_dict().items()}
    torch.save({**state, "projection.weight": torch.zeros(7)}, tmp_path / "theirs.pth")
    rename = {r"^conv\.": "0.", r"^bn": "1", r"^classifier\.(weight|bias)$": r"3.\1"}
    notes = load(tmp_path / "theirs.pth", mine := network(), rename=rename, ignore=["^projection"])
    assert same(theirs, mine)
    assert "left out projection.weight, as `ignore` says" in notes
    with pytest.raises(CheckpointError, match=r"no tensor matches '\^nothing' of `rename`"):
        load(tmp_path / "theirs.pth", network(), rename={"^nothing": ""})
    with pytest.raises(CheckpointError, match=r"`rename` gives 'conv\.weight' and 'bn\.weight' the same name 'x\.weight'"):
        load(tmp_path / "theirs.pth", network(), rename={r"^(conv|bn|classifier)\.": "x."})


def test_one_error_accounts_for_all_that_does_not_match(tmp_path, theirs):
    state = {**network(5, 6).state_dict(), "attention.weight": torch.zeros(2, 2)}
    del state["1.bias"]
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "theirs.pt", mine := network())
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0].endswith("does not fit the encoder: 1 of 9 tensors match"), "the counter of batches"
    assert lines[1] == "0.weight (4, 2, 3): (6, 2, 3) in the file"
    assert "and 3 more" in lines
    assert "attention.weight (2, 2): only in the file" in lines
    wider = network(5).state_dict()
    torch.save(wider, tmp_path / "wider.pt")
    with pytest.raises(CheckpointError, match=r"3\.bias \(3,\): \(5,\) in the file, a head of other classes: see `head`"):
        load(tmp_path / "wider.pt", mine)


def test_old_files_without_counters_of_batches_are_loaded(tmp_path, theirs):
    state = {name: each for name, each in theirs.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "theirs.pt")
    load(tmp_path / "theirs.pt", mine := network())
    assert all(torch.equal(mine.state_dict()[name], each) for name, each in state.items())


def test_weights_of_half_precision_are_converted_and_that_is_said(tmp_path, theirs):
    halved = {name: each.half() if each.is_floating_point() else each for name, each in theirs.state_dict().items()}
    save_file(halved, tmp_path / "theirs.safetensors")
    notes = load(tmp_path / "theirs.safetensors", mine := network())
    assert "converted 8 tensors from float16" in notes
    assert all(
        torch.equal(each.half() if each.is_floating_point() else each, halved[name]) for name, each in mine.state_dict().items()
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_blamed_on_their_file(tmp_path, theirs, value):
    state = theirs.state_dict()
    state["3.weight"][1, 2] = value
    torch.save({"model": state}, tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match=r"theirs\.pt: 1 values of 'model\.3\.weight' are NaN or infinite"):
        read_weight_file(tmp_path / "theirs.pt")


class Code:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": Code()}, r"holds more than data.*save its tensors alone: torch\.save\(model\.state_dict\(\)"),
        ([torch.zeros(2)], "holds list, not a mapping of names to tensors"),
        ({"epoch": 3}, "holds no tensors"),
    ],
)
def test_files_without_a_state_dict_are_refused(tmp_path, capsys, content, said):
    torch.save(content, tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match=said):
        read_weight_file(tmp_path / "theirs.pt")
    assert "executed" not in capsys.readouterr().out


def test_a_head_is_found_by_what_changes_with_the_number_of_classes():
    assert set(head_axes(network, 3)) == set(HEAD)

    def transposed(classes):
        made = nn.Module()
        made.table = nn.Parameter(torch.zeros(4, classes))
        return made

    assert head_axes(transposed, 3) == {"table": 1}
    assert head_axes(lambda classes: 1 / 0, 3) == {}


def test_a_dropped_head_starts_fresh(tmp_path, theirs):
    torch.save(
        network(9).state_dict() | {k: v for k, v in theirs.state_dict().items() if k not in HEAD}, tmp_path / "theirs.pt"
    )
    before = (mine := network()).state_dict()
    fresh = {name: before[name].clone() for name in HEAD}
    notes = load(tmp_path / "theirs.pt", mine, head="drop")
    for name, each in mine.state_dict().items():
        assert torch.equal(each, fresh[name] if name in HEAD else theirs.state_dict()[name])
    assert "left out the head (3.bias, 3.weight), which starts from fresh weights" in notes


@given(st.permutations(["run", "sit", "walk", "swim"]), st.permutations(["run", "sit", "walk", "jump"]), st.data())
@settings(max_examples=40, deadline=None)
def test_a_mapped_head_answers_each_class_as_the_file_does(tmp_path_factory, names, classes, data):
    names = names[: data.draw(st.integers(2, 4))]
    if not set(names) & set(classes):
        return
    made, mine = network(len(names)).eval(), network(len(classes)).eval()
    fresh = mine(torch.ones(1, 2, 3))
    head = {name: each.clone() for name, each in mine.state_dict().items() if name in HEAD}
    path = tmp_path_factory.mktemp("weights") / "theirs.pt"
    torch.save(made.state_dict(), path)
    notes = load(path, mine, names, tuple(classes), head="map")
    x = torch.randn(5, 2, 3)
    theirs, ours = made(x), mine(x)
    for index, name in enumerate(classes):
        if name in names:
            torch.testing.assert_close(ours[:, index], theirs[:, names.index(name)])
        else:
            assert all(torch.equal(mine.state_dict()[tensor][index], head[tensor][index]) for tensor in HEAD)
    unknown = [name for name in classes if name not in names]
    assert any(note.endswith(f"start from fresh weights: {', '.join(unknown)}") for note in notes) == bool(unknown)
    assert fresh.shape == ours[:1].shape


def test_a_head_is_not_mapped_without_names_or_with_too_few(tmp_path, theirs):
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match="needs the names of its classes"):
        load(tmp_path / "theirs.pt", network(), head="map")
    with pytest.raises(CheckpointError, match=r"3\.weight has shape \(3, 4\), which does not fit the 2 names in `classes`"):
        load(tmp_path / "theirs.pt", network(), ("run", "sit"), head="map")
    with pytest.raises(CheckpointError, match=r"it knows none of the run's classes \(it has a, b, c\)"):
        load(tmp_path / "theirs.pt", network(), ("a", "b", "c"), head="map")


def test_the_list_of_recordings_can_be_read_back_and_is_bounded(tmp_path):
    keys = {SampleKey("1", "walk", "2"), SampleKey("1", "walk", "", view="left"), SampleKey("s", "", "")}
    windows = [replace(key, window=number) for key in keys for number in (0, 3)]
    save_weights(tmp_path / "one.safetensors", {"w": torch.zeros(2)}, {"trained_on": recordings_as_json("d", windows)})
    file = read_weight_file(tmp_path / "one.safetensors")
    assert (file.dataset, file.trained_on) == ("d", keys)
    many = [SampleKey(str(number), "walk", "1") for number in range(MOST_RECORDINGS + 1)]
    assert recordings_as_json("d", many)["recordings"] == []
    assert len(recordings_as_json("d", many[1:])["recordings"]) == MOST_RECORDINGS


@pytest.mark.parametrize(
    "damage",
    ["[]", '{"dataset": "d"}', '{"dataset": "d", "recordings": 3}', '{"dataset": "d", "recordings": [["1"]]}'],
)
def test_a_damaged_list_of_recordings_names_the_file(tmp_path, damage):
    save_weights(tmp_path / "one.safetensors", {"w": torch.zeros(2)}, {"trained_on": json.loads(damage)})
    with pytest.raises(CheckpointError, match=r"one\.safetensors: its metadata is damaged: trained_on"):
        read_weight_file(tmp_path / "one.safetensors")
