"""Encoders constructed by functions and classes of any module."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from python_recipes import tree

import kdcore
from kdcore import PluginError, RecipeError

MODULE = '''
from torch import nn


def build(num_classes: int, in_shape: tuple[int, ...], width: int = 4) -> nn.Module:
    """A network.

    Args:
        width: Channels.
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(in_shape[0] * in_shape[1], width), nn.ReLU(), nn.Linear(width, num_classes))


class Net(nn.Module):
    def __init__(self, num_classes, in_shape, **options):
        super().__init__()
        self.options = options
        self.inner = build(num_classes, in_shape)

    def forward(self, x):
        return self.inner(x)


def forwards(*args, **kwargs):
    assert set(kwargs) == {"num_classes"}
    return nn.Sequential(nn.Flatten(), nn.Linear(48, kwargs["num_classes"]))


class Published(Net):
    notes = ("the network starts from weights of somebody, licence MIT",)


def wrong_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 1000))


def no_module(num_classes):
    return lambda x: x


THREE = 3
'''
TRANSFORMS = [{"name": "resample", "length": 16}, "normalise"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with factories, of a name of its own, and a folder for runs."""
    name = f"factories_{abs(hash(str(tmp_path))) % 10**8}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield name
    sys.modules.pop(name, None)


def recipe(encoder: Any, **changes: Any) -> dict[str, Any]:
    small = {"name": "synthetic-motion", "subjects": 2, "trials": 2, "actions": ["wave", "punch"]}
    return tree(
        data={"dataset": small, "protocol": "cross-subject", "batch_size": 4},
        teachers={},
        student={"modality": "accelerometer", "transforms": TRANSFORMS, "encoder": encoder},
        losses=["cross-entropy"],
        training={"epochs": 1},
        engine={"accelerator": "cpu"},
        **changes,
    )


def test_a_run_with_a_factory_saves_a_student_that_is_loaded_only_if_trusted(module):
    result = kdcore.run(recipe({"name": f"{module}:build", "width": 6}))
    assert result is not None
    student = result.student()
    inner = student.model.encoder
    assert inner[1].out_features == 6  # the option arrived
    assert inner[3].out_features == 2  # num_classes was filled in
    folder = kdcore.find_student(result.folder)
    with pytest.raises(PluginError, match="trust_code=True"):
        kdcore.load_student(folder)
    with pytest.raises(PluginError, match="trust_code=True"):
        kdcore.load_predictor(folder)
    again = kdcore.load_student(folder, trust_code=True)
    clip = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(clip), student.predict(clip))
    assert f"{module}:build" in (result.folder / "run.json").read_text()  # its code is part of the provenance


def test_notes_of_an_encoder_are_recorded_with_the_run(module):
    result = kdcore.run(recipe(f"{module}:Published"))
    assert result is not None
    facts = kdcore.read_facts(result.folder)
    assert facts is not None
    assert facts.notes == ["student: the network starts from weights of somebody, licence MIT"]


def test_refusing_to_load_imports_nothing(module, tmp_path):
    """The folder may name any module; naming one must not run it."""
    result = kdcore.run(recipe(f"{module}:build"))
    assert result is not None
    folder = kdcore.find_student(result.folder)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    description = (folder / "student.json").read_text().replace(f"{module}:build", "evil:build")
    (folder / "student.json").write_text(description)
    with pytest.raises(PluginError, match="evil:build"):
        kdcore.load_student(folder)
    assert "evil" not in sys.modules


def test_trust_can_be_given_by_the_environment(module, monkeypatch):
    result = kdcore.run(recipe(f"{module}:Net"))
    assert result is not None
    monkeypatch.setenv("KDCORE_TRUST_CODE", "1")
    assert kdcore.load_student(kdcore.find_student(result.folder)).classes == ["wave", "punch"]


def test_a_function_or_class_stands_for_its_name(module):
    found = __import__(module)
    for factory in (found.build, found.Net, {"name": found.build, "width": 2}):
        spec = kdcore.load_recipe(recipe(factory)).student
        assert spec is not None
        assert spec.encoder is not None
        assert spec.encoder.name in (f"{module}:build", f"{module}:Net")


def test_keyword_arguments_that_are_passed_on_get_the_number_of_classes(module):
    found = kdcore.dry_run(recipe(f"{module}:forwards"))
    assert found is not None
    assert found.parameters["student"] == 3 * 16 * 2 + 2


@pytest.mark.parametrize(
    ("encoder", "path", "message"),
    [
        ("{}:bild", "student.encoder", "has no 'bild'; did you mean 'build'"),
        ("{}.models:build", "student.encoder", "could not import|no module named"),
        ("no_such_package.models:build", "student.encoder", "no module named 'no_such_package'"),
        ("{}:THREE", "student.encoder", "it is a int, not a function or class"),
        ({"name": "{}:build", "widht": 3}, "student.encoder.widht", r"has no option 'widht' \(did you mean 'width'"),
        ({"name": "{}:build", "width": "many"}, "student.encoder.width", "must be a valid integer"),
        ({"name": "{}:build", "num_classes": 3}, "student.encoder.num_classes", "has no option 'num_classes'"),
    ],
)
def test_a_wrong_factory_is_refused_before_anything_runs(module, encoder, path, message):
    encoder = encoder.format(module) if isinstance(encoder, str) else {**encoder, "name": encoder["name"].format(module)}
    with pytest.raises(RecipeError, match=message) as found:
        kdcore.load_recipe(recipe(encoder))
    assert found.value.problems[0].path == path


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_module", "must return a torch.nn.Module, not function"), ("wrong_size", r"\(4, 1000\).*\(4, 2\)")],
)
def test_what_a_factory_returns_is_checked_before_training(module, name, message):
    with pytest.raises(RecipeError, match=message):
        kdcore.dry_run(recipe(f"{module}:{name}"))


def test_known_options_are_checked_without_importing_the_module_or_torch(module, tmp_path):
    """The first check imports the module; the second, in a new process, finds the schema in the cache."""
    (tmp_path / "recipe.yaml").write_text(f"""
        version: 1
        name: cached
        data: {{dataset: synthetic-motion, protocol: cross-subject}}
        student: {{modality: accelerometer, encoder: {{name: "{module}:build", width: 3}}}}
        losses: [cross-entropy]
    """)
    code = (
        f"import sys, time; time.sleep(0.1); import kdcore; kdcore.load_recipe('recipe.yaml'); "
        f"print('{module}' in sys.modules, 'torch' in sys.modules)"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert outputs[0] == ["True", "True"]
    assert outputs[1] == ["False", "False"]


def test_the_command_line_finds_a_factory_in_the_current_folder(module, tmp_path):
    text = f"""
        extends: quickstart
        teachers: {{}}
        student: {{encoder: {{name: "{module}:build"}}}}
        losses: [cross-entropy]
        schedule: null
    """
    (tmp_path / "mine.yaml").write_text(text.replace("teachers: {}", "teachers: null"))
    code = "import sys; from kdcore.cli.main import main; sys.argv[1:] = ['validate', 'mine.yaml']; main()"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
