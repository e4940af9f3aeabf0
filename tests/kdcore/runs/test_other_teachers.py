"""Runs whose teachers come from files: other orders and sets of classes, preprocessing statistics, and what is said of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from quick import QUICK
from runs import Home, encoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kdcore import RecipeError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.runs.callbacks import RunListener
from kdcore.runs.run import run
from kdcore.runs.session import RunSession
from kdcore.runs.state import RunState
from kdcore.training.fabric import OneCpu
from kdcore.training.step import StageStep

ACTIONS = ["wave", "punch", "sit down"]
FEW = {**QUICK, "seeds": [0], "baseline": False}
LIKE = "teachers.skeleton"


class Heard(RunListener):
    def __init__(self):
        self.lines: list[str] = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that trained a teacher, and the file of its weights."""
    folder = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        home = Home(folder / "home", folder / "mlflow.db").write(**FEW)
        for name, value in home.environment.items():
            patch.setenv(name, value)
        patch.chdir(home.folder)
        result = run(home.recipe, ["teachers.skeleton.encoder.width=6"])
    return result.folder, result.folder / "teachers" / "seed-0" / "skeleton.safetensors"


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home(tmp_path / "home", tmp_path / "mlflow.db").write(**FEW)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(made.folder)
    return made


def rerun(home, file, *overrides, heard=None):
    given = [f"{LIKE}.encoder.width=6", f"{LIKE}.weights={file}", f"{LIKE}.freeze=['*']", *overrides]
    return run(home.recipe, given, callbacks=[heard] if heard else [])


def action(order):
    return f"data.dataset.actions={json.dumps(order)}"


def test_a_teachers_file_has_class_names_statistics_transforms_and_versions(trained):
    with safe_open(trained[1], framework="pt") as file:
        about = json.loads(file.metadata()["kdcore"])
        names = list(file.keys())
    assert about["classes"] == ACTIONS
    assert about["kdcore"]
    assert [each["name"] for each in about["transforms"]["skeleton"]] == [
        "resample",
        "centre",
        "joints-to-channels",
        "normalise",
    ]
    assert {name for name in names if name.startswith("batch_transforms.")} >= {
        "batch_transforms.branches.0.2.mean",
        "batch_transforms.branches.0.2.std",
    }


def session_of(home, file, *overrides):
    given = [f"{LIKE}.encoder.width=6", f"{LIKE}.weights={file}", f"{LIKE}.freeze=['*']", *overrides]
    return prepared(home, *given)


def prepared(home, *overrides):
    session = RunSession(make_plan(load_recipe(home.recipe, overrides)), plugin_manager(), RunListener(), RunState())
    session.fabric = OneCpu()
    return session.prepare()


def test_a_loaded_teacher_in_another_order_of_classes_gives_the_same_probabilities_by_name(trained, home):
    first = session_of(home, trained[1])
    turned = session_of(home, trained[1], action(ACTIONS[::-1]))
    assert list(turned.assembly.dataset.classes) == ACTIONS[::-1]
    rows = first.table.rows["test"]
    signals = first.table.batch(rows, ["skeleton"]).signals["skeleton"]
    one, other = (each.distiller.participant("skeleton").eval()(signals).logits for each in (first, turned))
    assert torch.equal(one, other.flip(1))
    assert any("put in the order of the run's classes by name" in note for note in turned.assembly.notes)
    assert not any("order" in note for note in first.assembly.notes)


@pytest.mark.parametrize("modality", ["accelerometer", "gyroscope"])
def test_weights_of_another_modality_are_said_and_their_statistics_not_used(trained, home, modality):
    """A saved student says what it read; here, an accelerometer's."""
    student = trained[0] / "students" / "seed-0" / "student"
    saved = load_file(student / "weights.safetensors")
    steps = [{"name": "resample", "length": 12}, "normalise"]
    member = {"modality": modality, "transforms": steps, "encoder": encoder(), "weights": str(student)}
    home.write(**FEW, teachers={"other": member})
    found = prepared(home)
    normalise = next(each for each in found.assembly.pipelines["other"].whole().modules() if hasattr(each, "std"))
    same = modality == "accelerometer"
    [mean] = [each for name, each in saved.items() if name.startswith("batch_transforms.") and name.endswith(".mean")]
    assert torch.equal(normalise.mean.cpu(), mean) == same
    said = [note for note in found.assembly.notes if "trained on accelerometer in" in note and "read gyroscope in" in note]
    assert len(said) == (0 if same else 1)


def test_statistics_of_the_file_are_used_and_not_refitted(trained, home):
    saved = load_file(trained[1])
    other = session_of(home, trained[1], "data.protocol.train_subjects=[2,3]", "data.protocol.test_subjects=[1]")
    normalise = next(each for each in other.assembly.pipelines["skeleton"].whole().modules() if hasattr(each, "std"))
    assert torch.equal(normalise.mean.cpu(), saved["batch_transforms.branches.0.2.mean"])
    assert torch.equal(normalise.std.cpu(), saved["batch_transforms.branches.0.2.std"])
    own = next(each for each in other.assembly.pipelines["student"].whole().modules() if hasattr(each, "std"))
    assert own.mean.numel(), "the student's are fitted"
    assert any("statistics are used, and not fitted" in note for note in other.assembly.notes)
    x = other.table.inputs["skeleton"][0]
    fitted = session_of(home, trained[1], "data.protocol.train_subjects=[2,3]", "data.protocol.test_subjects=[1]",
                        f"{LIKE}.transforms=[{{name: resample, length: 12}}, joints-to-channels, normalise]")  # fmt: skip
    assert any("trained with other transforms" in note for note in fitted.assembly.notes)
    assert not torch.equal(x, fitted.table.inputs["skeleton"][0])


def test_a_teacher_that_knows_fewer_classes_teaches_among_those(trained, home):
    heard = Heard()
    wider = [*ACTIONS, "push"]
    result = rerun(home, trained[1], action(wider), heard=heard)
    assert any("computed among the 3 classes it knows, without push" in line for line in heard.lines)
    facts = json.loads((result.folder / "run.json").read_text())
    assert any("without push" in note for note in facts["notes"])
    assert result.summary is not None


def test_the_term_of_a_teacher_that_lacks_a_class_is_the_hand_computed_one(trained, home):
    """KL among the known classes on every row, cross-entropy among all on every row; gradients by autograd of the formula."""
    wider = ["push", *ACTIONS]
    prepared = session_of(home, trained[1], action(wider), "losses=[cross-entropy, {name: soft-target, temperature: 2}]")
    distiller, table = prepared.distiller, prepared.table
    [stage] = prepared.assembly.plan.stages["distilled"]
    step = StageStep(distiller, stage, table, True)
    rows = table.rows["train"]
    distiller.eval()
    [_, (term, context)] = step.contexts(rows, rows)
    assert context.student.logits.shape[1] == 3
    student = distiller.forward("student", table.batch(rows, ["student"])).logits
    teacher = distiller.participant("skeleton").encoder(table.batch(rows, ["skeleton"]).signals["skeleton"]).detach()
    known = [wider.index(name) for name in ACTIONS]
    p, log_q = (teacher / 2).softmax(1), (student[:, known] / 2).log_softmax(1)
    expected = 4 * (p * (p.log() - log_q)).sum(1).mean()
    torch.testing.assert_close(term.loss(context), expected)
    mine = torch.autograd.grad(
        term.loss(context), list(distiller.participant("student").encoder.parameters()), allow_unused=True
    )
    hand = torch.autograd.grad(expected, list(distiller.participant("student").encoder.parameters()), allow_unused=True)
    for each, other in zip(mine, hand, strict=True):
        torch.testing.assert_close(each, other)


UNION = """
import torch
from kdcore import DistillationLoss, Needs, hookimpl

class Union(DistillationLoss):
    needs = Needs(teachers=2, labels="optional", every_class=True)

    def setup(self, example):
        assert (example.num_classes, example.class_names) == (4, ("push", "wave", "punch", "sit down"))

    def forward(self, ctx):
        mean = torch.stack([each.logits.softmax(1) for each in ctx.teachers.values()]).mean(0)
        assert ctx.labels.min() >= 0
        return -(mean * ctx.student.logits.log_softmax(1)).sum(1).mean()

@hookimpl
def register_losses(register):
    register("union", "union_loss:Union")
"""


def test_a_loss_that_reads_every_class_combines_teachers_of_different_classes(trained, home):
    """Two teachers that know one class in common, and four together; the value is computed from the networks' own outputs."""
    (home.folder / "union_loss.py").write_text(UNION)
    few = {key.removeprefix("encoder."): each for key, each in load_file(trained[1]).items() if key.startswith("encoder.")}
    few = {key: each[:2] * -1.5 if key.startswith("fc.") else each for key, each in few.items()}
    torch.save(few, home.folder / "few.pt")
    other = "teachers.other={like: skeleton, weights: few.pt, classes: [push, wave]}"
    words = ["plugins=[union_loss.py]", other, action(["push", *ACTIONS]), "losses=[union]"]
    with pytest.raises(RecipeError, match="have only one class of the run in common; a term requires two"):
        session_of(home, trained[1], *words, "losses=[soft-target]")
    prepared = session_of(home, trained[1], *words)
    distiller, table, [stage] = prepared.distiller, prepared.table, prepared.assembly.plan.stages["distilled"]
    rows = table.rows["train"]
    distiller.eval()
    [(term, context)] = StageStep(distiller, stage, table, True).contexts(rows, rows)
    signals = table.batch(rows, ["skeleton", "other", "student"]).signals
    three, two = (
        distiller.participant(name).encoder(signals[name]).detach().double().numpy() for name in ("skeleton", "other")
    )
    student = distiller.participant("student").encoder(signals["student"]).detach().double().numpy()
    total = 0.0
    for z, a, b in zip(student, three, two, strict=True):
        mean = np.zeros(4)
        mean[1:] += np.exp(a) / np.exp(a).sum() / 2
        mean[:2] += np.exp(b) / np.exp(b).sum() / 2
        total -= (mean * (z - np.log(np.exp(z).sum()))).sum()
    assert float(term.loss(context).detach()) == pytest.approx(total / len(student), rel=1e-5)


def test_a_student_that_starts_from_other_classes_has_its_head_mapped(trained, home):
    student = trained[0] / "students" / "seed-0" / "student"
    heard = Heard()
    run(home.recipe, [f"student.weights={student}", action(ACTIONS[::-1])], callbacks=[heard])
    assert any(
        line.startswith("student: student: the head's 3 classes were mapped to the run's 3 by name") for line in heard.lines
    )
    with pytest.raises(
        RecipeError, match=r"student\.weights: .*its classes are not the run's in the run's order.*use head: map"
    ):
        run(home.recipe, [f"student.weights={{file: {student}, head: keep}}", action(ACTIONS[::-1])])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([f"{LIKE}.classes=[a, b, c]"], r"names its classes itself \(wave, punch, sit down\), but `classes` differs"),
        (
            [action(["push", "kick"])],
            r"knows none of the run's classes \(it has wave, punch, sit down; the run has push, kick\)",
        ),
        ([action(["wave", "kick"])], r"have only one class of the run in common; a term requires two"),
        ([f"{LIKE}.encoder.width=8"], r"skeleton\.safetensors does not fit the encoder: \d of \d+ tensors match"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(trained, home, changes, said):
    with pytest.raises(RecipeError, match=said):
        rerun(home, trained[1], *changes)
    assert [folder for folder in home.runs if (folder / "recipe.yaml").exists()] == []


def test_nan_in_a_teacher_is_blamed_on_its_file(trained, home, tmp_path):
    tensors = load_file(trained[1])
    name = next(each for each in tensors if each.startswith("encoder.") and tensors[each].ndim > 1)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(RecipeError, match=rf"teachers\.skeleton\.weights: .*broken\.safetensors: 1 values of '{name}' are NaN"):
        rerun(home, tmp_path / "broken.safetensors")


def test_relative_paths_count_from_the_recipe_and_on_the_command_line_from_the_current_folder(
    trained, home, tmp_path, monkeypatch
):
    save_file(load_file(trained[1]), home.folder / "teacher.safetensors")
    text = home.recipe.read_text()
    below = home.folder / "recipes"
    below.mkdir()
    (below / "own.yaml").write_text("extends: ../recipe.yaml\nteachers: {skeleton: {weights: ../teacher.safetensors}}\n")
    monkeypatch.chdir(tmp_path)
    found = load_recipe(below / "own.yaml", files=True)
    assert found.teachers["skeleton"].weights.file == home.folder / "teacher.safetensors"
    found = load_recipe(home.recipe, [f"{LIKE}.weights=home/teacher.safetensors"], files=True)
    assert found.teachers["skeleton"].weights.file == home.folder / "teacher.safetensors"
    with pytest.raises(RecipeError, match=r"teachers\.skeleton\.weights: there is no file '.*/teacher\.safetensors'"):
        load_recipe(home.recipe, [f"{LIKE}.weights=teacher.safetensors"], files=True)
    assert text == home.recipe.read_text()
