"""`kdcore.distil` against loops written by hand in plain PyTorch."""

from __future__ import annotations

import copy

import pytest
import torch
from distil_loops import SGD, by_hand, mlp, same, soft_target
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kdcore
from kdcore import DataError, DistillationLoss, Needs, RecipeError, RunListener, TrainingError, UsageError
from kdcore.training.randomness import derive, seed_everything


def test_weights_are_those_of_a_loop_by_hand(given):
    """The last batch has four samples of eight: nothing is dropped."""
    student, teacher, samples = given
    loader = DataLoader(samples, batch_size=8)
    other = copy.deepcopy(student)
    losses = [{"name": "soft-target", "temperature": 3.0, "weight": 2.0}, ("cross-entropy", 0.5)]
    found = kdcore.distil(student, {"big": teacher}, loader, losses, epochs=3, optimizer=SGD, device="cpu")

    def objective(z, t, y):
        return 2.0 * soft_target(z, t, 3.0) + 0.5 * F.cross_entropy(z, y)

    by_hand(other, teacher, loader, 3, 0.1, objective)
    assert found.student is student
    same(student, other, rtol=1e-5, atol=1e-6)
    assert len(found.history) == 3


def test_weights_are_bit_for_bit_those_of_a_loop_with_the_same_losses(given):
    student, teacher, samples = given
    loader = DataLoader(samples, batch_size=8)
    other = copy.deepcopy(student)
    dist = kdcore.loss("dist")
    options = {"optimizer": SGD, "device": "cpu"}
    kdcore.distil(student, teacher, loader, ["dist", ("cross-entropy", 0.5)], epochs=4, **options)
    by_hand(other, teacher, loader, 4, 0.1, lambda z, t, y: dist(z, t) * 1.0 + F.cross_entropy(z, y) * 0.5)
    same(student, other)


def test_shuffling_and_dropout_follow_the_seed(given):
    """A loader without a generator draws from torch's, which an epoch's seed determines; so does dropout."""
    _, teacher, samples = given
    torch.manual_seed(5)
    student = mlp(8, dropout=0.3)
    loader = DataLoader(samples, batch_size=8, shuffle=True)
    other = copy.deepcopy(student)
    kdcore.distil(student, teacher, loader, ["cross-entropy"], epochs=2, optimizer=SGD, device="cpu", seed=7)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(2):
        seed_everything(derive(derive(7, "student", epoch), 0))
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(other(x), y).backward()
            optimizer.step()
    same(student, other)


def test_a_loader_with_its_own_generator_gives_the_batches_that_it_would_have_given(given):
    student, teacher, samples = given

    def loader():
        return DataLoader(samples, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3))

    other = copy.deepcopy(student)
    kdcore.distil(student, teacher, loader(), ["cross-entropy"], epochs=2, optimizer=SGD, device="cpu")
    by_hand(other, teacher, loader(), 2, 0.1, lambda z, t, y: F.cross_entropy(z, y))
    same(student, other)


def test_random_numbers_settings_and_teachers_are_left_as_they_were(given):
    student, teacher, samples = given
    teacher[0].weight.requires_grad_(False)
    teacher.train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    taps = {"student": {"features": "1"}, "teacher": {"features": "1"}}
    kdcore.distil(student, teacher, DataLoader(samples, 8, shuffle=True), ["fitnet", "dist"], epochs=2, taps=taps, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)
    assert teacher.training
    assert [parameter.requires_grad for parameter in teacher.parameters()] == [False, True, True, True]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not student.training
    hooked = [module for network in (student, teacher) for module in network.modules() if module._forward_hooks]
    assert hooked == []


def test_two_calls_in_one_process_do_not_touch_each_other(given):
    student, teacher, samples = given
    loader = DataLoader(samples, 8, shuffle=True)
    first, second, third = (copy.deepcopy(student) for _ in range(3))
    kdcore.distil(first, teacher, loader, ["dist"], epochs=2, device="cpu")
    kdcore.distil(second, teacher, loader, ["soft-target", "cross-entropy"], epochs=1, seed=3, device="cpu")
    torch.manual_seed(99)
    kdcore.distil(third, teacher, loader, ["dist"], epochs=2, device="cpu")
    same(first, third)


def test_several_teachers_ramps_and_learning_rates(given):
    student, teacher, samples = given
    torch.manual_seed(2)
    second = mlp(5)
    loader = DataLoader(samples, batch_size=22)
    other = copy.deepcopy(student)
    kdcore.distil(
        student,
        {"one": teacher, "two": second},
        loader,
        [
            {
                "name": "soft-target",
                "temperature": 1.0,
                "teachers": ["two"],
                "weight": {"start": 0.0, "stop": 1.0, "epochs": 2},
            },
            "cross-entropy",
        ],
        epochs=3,
        optimizer=SGD,
        learning_rate={"name": "step", "milestones": [1], "gamma": 0.1},
        device="cpu",
    )
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    for epoch, (weight, lr) in enumerate([(0.0, 0.1), (0.5, 0.01), (1.0, 0.01)]):
        optimizer.param_groups[0]["lr"] = lr
        for x, y in loader:
            z, t = other(x), second(x).detach()
            optimizer.zero_grad()
            (weight * soft_target(z, t, 1.0) + F.cross_entropy(z, y)).backward()
            optimizer.step()
        assert epoch < 3
    same(student, other, rtol=1e-5, atol=1e-6)


def test_validation_accuracy_and_the_best_epoch(given):
    student, teacher, samples = given
    train, held = DataLoader(samples, batch_size=8), DataLoader(TensorDataset(*samples[:20]), batch_size=6)
    found = kdcore.distil(
        student, teacher, train, ["cross-entropy"], epochs=6, validation=held, select="best", optimizer=SGD, device="cpu"
    )
    with torch.no_grad():
        own = (student(samples[:20][0]).argmax(1) == samples[:20][1]).float().mean().item()
    assert own == pytest.approx(found.history["accuracy"].max())


def test_a_loss_that_learns_is_trained_with_the_student(given):
    student, teacher, samples = given
    weights = []

    class Regressor(DistillationLoss):
        needs = Needs(teachers=1, student_taps=("f",), teacher_taps=("f",))

        def setup(self, example):
            width = [example.student.features["f"].shape[1], example.teachers["teacher"].features["f"].shape[1]]
            self.map = nn.Linear(*width)

        def forward(self, ctx):
            weights.append(self.map.weight.detach().clone())
            return F.mse_loss(self.map(ctx.student.features["f"]), ctx.teachers["teacher"].features["f"])

    taps = {"student": {"f": "1"}, "teacher": {"f": "1"}}
    found = kdcore.distil(student, teacher, DataLoader(samples, 8), [Regressor(), "dist"], epochs=2, taps=taps, device="cpu")
    assert not torch.equal(weights[-1], weights[1])
    assert list(found.history.columns) == ["epoch", "total", "Regressor", "dist", "learning_rate"]


def test_callbacks_and_progress(given, capsys):
    student, teacher, samples = given
    seen = []

    class Listening(RunListener):
        def epoch_finished(self, stage, epoch, metrics):
            seen.append((stage.name, epoch, metrics["train/student/total"]))

    options = {"epochs": 2, "device": "cpu", "callbacks": [Listening()]}
    found = kdcore.distil(student, teacher, DataLoader(samples, 8), ["dist"], progress=True, **options)
    assert [each[:2] for each in seen] == [("student", 0), ("student", 1)]
    assert found.history["total"].tolist() == [each[2] for each in seen]
    shown = capsys.readouterr()
    assert "student, 2 epochs in" in shown.err
    assert "\x1b" not in shown.err + shown.out
    kdcore.distil(student, teacher, DataLoader(samples, 8), ["dist"], **options)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(UsageError, match="must be an instance of a subclass of"):
        kdcore.distil(student, teacher, DataLoader(samples, 8), ["dist"], device="cpu", callbacks=[Listening])


def test_the_result_in_a_notebook(given):
    student, teacher, samples = given
    found = kdcore.distil(student, teacher, DataLoader(samples, 8), ["dist"], epochs=12, device="cpu")
    html = found._repr_html_()
    assert html.count("<tr>") == 11
    assert "<th>dist</th>" in html
    assert "epoch 12" in repr(found)


LOADER = [(torch.zeros(4, 6), torch.zeros(4, dtype=torch.long))]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"losses": ["dits"]}, RecipeError, r"losses\[0\].name: there is no loss 'dits' .*did you mean"),
        ({"losses": ["dist", {"name": "dkd", "aplha": 1}]}, RecipeError, r"losses\[1\].aplha: .*did you mean 'alpha'"),
        ({"losses": ["fitnet"]}, RecipeError, r"needs the tap 'features' of 'student'"),
        ({"losses": ["dist"], "taps": {"big": ["9"]}}, RecipeError, r"teachers.big.taps.9: .*no module '9'"),
        ({"losses": ["dist"], "taps": {"bigg": ["0"]}}, UsageError, "did you mean 'big'"),
        ({"losses": [nn.CrossEntropyLoss()]}, UsageError, r"losses\[0\] must be .*not CrossEntropyLoss"),
        ({"losses": ["average"]}, RecipeError, "needs at least 2 teachers"),
        ({"losses": ["dist"], "optimizer": "sdg"}, RecipeError, "did you mean 'sgd'"),
        ({"losses": ["dist"], "select": "best"}, UsageError, "requires validation="),
        ({"losses": ["dist"], "device": "gpuu"}, UsageError, "is not a device"),
        ({"losses": ["dist"], "loader": []}, DataError, "yields no batches"),
        ({"losses": ["dist"], "loader": iter(LOADER)}, UsageError, "not an iterator"),
        ({"losses": ["dist"], "loader": LOADER[0]}, UsageError, r"loader is a single batch: .*\[\(x, labels\)\]"),
        ({"losses": ["dist"], "loader": [(1, 2, 3, 4)]}, DataError, "not 4 things"),
        ({"losses": ["dist"], "loader": [(torch.zeros(4, 6), torch.zeros(3))]}, DataError, "differ in length"),
        ({"losses": ["dist"], "loader": [{"x": torch.zeros(4, 6), "lables": 1}]}, DataError, "the key 'lables'"),
        ({"losses": ["dist"], "loader": [(torch.zeros(4, 7), torch.zeros(4))]}, RecipeError, r"an input of shape \(4, 7\)"),
        ({"losses": ["dist"], "teachers": {"student": mlp(4)}}, UsageError, "cannot be called 'student'"),
        ({"losses": ["dist"], "teachers": {"big": mlp}}, UsageError, "big must be a torch.nn.Module"),
        ({"losses": ["dist"], "loader": TensorDataset(torch.zeros(4, 6), torch.zeros(4))}, DataError, "pass a DataLoader"),
        ({"losses": ["cross-entropy"], "loader": [(torch.zeros(4, 6), torch.full((4,), 9))]}, DataError, "a label is 9, but"),
        ({"losses": "dist"}, UsageError, "losses must be a list, not str"),
        ({"losses": ["dist"], "optimizer": torch.optim.SGD}, UsageError, "optimizer must be a name, or a mapping .* not SGD"),
        ({"losses": ["dist"], "taps": {"big": ["x"]}}, RecipeError, r"encoder passed in Python has no module 'x' \(it has: 0"),
        ({"losses": ["dist"], "student": nn.Flatten(0)}, RecipeError, r"logits \(4, classes\) are expected"),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:40],
)  # fmt: skip
def test_mistakes_are_said_before_training(changes, error, message):
    options = {"student": mlp(4), "teachers": {"big": mlp(5)}, "loader": LOADER, "device": "cpu", **changes}
    with pytest.raises(error, match=message):
        kdcore.distil(**options)


def test_a_student_that_is_its_own_teacher_is_refused(given):
    student, _, samples = given
    with pytest.raises(UsageError, match="shares parameters with the student"):
        kdcore.distil(student, student, DataLoader(samples, 8), ["dist"], device="cpu")


def test_a_teacher_may_have_no_parameters(given):
    """Such as a module that asks another runtime."""

    class Ruled(nn.Module):
        def forward(self, x):
            return 5 * x[:, :3]

    student, _, samples = given
    found = kdcore.distil(student, Ruled(), DataLoader(samples, 8), ["soft-target"], epochs=30, device="cpu")
    assert found.history["soft-target"].iloc[-1] < found.history["soft-target"].iloc[0]


def test_a_term_without_a_gradient_is_refused(given):
    class Detached(DistillationLoss):
        needs = Needs(teachers=1)

        def forward(self, ctx):
            return F.mse_loss(ctx.student.logits.detach(), ctx.teachers["teacher"].logits)

    student, teacher, samples = given
    with pytest.raises(TrainingError, match="gives no gradient"):
        kdcore.distil(student, teacher, DataLoader(samples, 8), [Detached()], device="cpu")


@pytest.mark.parametrize("loss", ["soft-target", "logits", "consistency", "hard-teacher"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_different_numbers_of_classes_are_refused(given, loss, size):
    """One logit would be broadcast; two would pass as two of three classes."""
    student, _, samples = given
    with pytest.raises(DataError, match=rf"'{loss}' compares logits, but teacher has {size} logits and the student 3"):
        kdcore.distil(student, nn.Linear(6, size), DataLoader(samples, 8), [loss], device="cpu")


def test_a_teacher_of_other_classes_teaches_features(given):
    student, _, samples = given
    teacher, taps = (
        nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5)),
        {"student": {"features": "0"}, "teacher": {"features": "0"}},
    )
    kdcore.distil(student, teacher, DataLoader(samples, 8), ["cross-entropy", "fitnet"], taps=taps, epochs=1, device="cpu")


def test_a_loss_of_every_class_reads_a_teacher_of_other_classes(given):
    class Folded(DistillationLoss):
        needs = Needs(teachers=1, every_class=True)

        def forward(self, ctx):
            return F.mse_loss(ctx.student.logits, ctx.teachers["teacher"].logits[:, :3])

    student, _, samples = given
    kdcore.distil(student, nn.Linear(6, 5), DataLoader(samples, 8), [Folded()], epochs=1, device="cpu")


def test_options_of_training_are_those_of_recipes(given):
    student, teacher, samples = given
    other, average = copy.deepcopy(student), copy.deepcopy(student)
    loader = DataLoader(samples, batch_size=4)  # 11 batches: groups of 4, 4 and 3
    options = {"accumulate": 4, "ema": {"momentum": 0.5, "warmup": False}}
    groups = [{"modules": ["0"], "lr_factor": 0.5}]
    kdcore.distil(
        student, teacher, loader, ["cross-entropy"], epochs=2, optimizer=SGD, device="cpu", parameter_groups=groups, **options
    )
    told = [{"params": other[0].parameters(), "lr": 0.05}, {"params": other[3].parameters()}]
    optimizer = torch.optim.SGD(told, lr=0.1, momentum=0.9)
    x, y = samples.tensors
    for _ in range(2):
        for rows in (slice(0, 16), slice(16, 32), slice(32, 44)):
            optimizer.zero_grad()
            F.cross_entropy(other(x[rows]), y[rows]).backward()
            optimizer.step()
            for mean, live in zip(average.parameters(), other.parameters(), strict=True):
                mean.data.lerp_(live.data, 0.5)
    same(student, average, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"early_stopping": {}}, "early_stopping"),
        ({"learning_rate": "plateau"}, "'plateau'"),
        ({"select": "best"}, "select='best'"),
    ],
)
def test_what_reads_a_validation_loader_requires_one(given, options, key):
    student, teacher, samples = given
    with pytest.raises(UsageError, match=f"{key} requires validation=, a loader of labelled batches"):
        kdcore.distil(student, teacher, DataLoader(samples, batch_size=8), ["cross-entropy"], device="cpu", **options)


@pytest.mark.parametrize("which", ["big", "student"])
def test_probabilities_instead_of_logits_are_refused(given, which):
    student, teacher, samples = given
    networks = {"big": teacher, "student": student}
    networks[which] = nn.Sequential(networks[which], nn.Softmax(dim=1))
    with pytest.raises(TrainingError, match=f"{which}: its outputs look like probabilities.*remove the last softmax"):
        kdcore.distil(networks["student"], {"big": networks["big"]}, DataLoader(samples, 8), ["dist"], epochs=1, device="cpu")


def test_probabilities_of_labels_are_refused_of_a_teacher():
    x = torch.randn(32, 6)
    loader = DataLoader(TensorDataset(x, (x[:, :3] > 0).float()), batch_size=16)
    teacher = nn.Sequential(nn.Linear(6, 3), nn.Sigmoid())
    with pytest.raises(TrainingError, match=r"teacher: its outputs look like probabilities.*remove the last sigmoid"):
        kdcore.distil(nn.Linear(6, 3), teacher, loader, ["bce"], target="labels", epochs=1, device="cpu")


def test_an_input_that_is_not_finite_is_named(given):
    student, teacher, _ = given
    x = torch.full((16, next(student.parameters()).shape[1]), float("nan"))
    loader = DataLoader(TensorDataset(x, torch.zeros(16, dtype=torch.long)), batch_size=8)
    with pytest.raises(TrainingError, match="student: its logits are not finite on the first batch"):
        kdcore.distil(student, teacher, loader, ["cross-entropy", "dist"], epochs=1, device="cpu")
