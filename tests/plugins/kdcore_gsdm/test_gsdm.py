"""GSDM against golden numbers, a brute-force transcription, and what its definition implies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kdcore import Batch, Example, LossContext, Needs, Outputs, Participant
from kdcore_gsdm.loss import GraphGuidedSemanticMaps
from kdcore_gsdm.maps import affinity, importance, semantic_embedding, semantic_map

PAIRS = (("A0", "A0"), ("A1", "A1"))
NAMES = {"feat": "features", "emb": "embedding"}


def gsdm(**options):
    return GraphGuidedSemanticMaps(**{"pairs": PAIRS, "student_feature": "f", "teacher_feature": "f", **options})


@pytest.fixture
def values(golden):
    return {key: torch.tensor(value) for key, value in golden("f_gsdm").items()}


def outputs_of(values, who):
    ablated = Outputs(values[f"in.{who}.za"], {"f": values[f"in.{who}.fa"]})
    return Outputs(values[f"in.{who}.z"], {key: values[f"in.{who}.{key}"] for key in ("f", "A0", "A1")}, ablated)


def context(student, teachers, table):
    return LossContext(student, teachers, Batch(torch.arange(len(student.logits)), {}, None), class_embeddings=table)


def golden_context(values):
    teachers = {who: outputs_of(values, who) for who in ("T0", "T1")}
    return context(outputs_of(values, "S"), teachers, values["embedding_table"])


def random_outputs(seed, batch=4, classes=5, single=True, maps=((6, 5, 5), (8, 3, 3)), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    rows = 1 if single else batch
    ablated = Outputs(draw(rows, classes), {"f": draw(rows, 7)})
    features = {"f": draw(batch, 7), **{f"A{i}": draw(batch, *shape) for i, shape in enumerate(maps)}}
    return Outputs(draw(batch, classes), features, ablated)


def table_of(classes=5, width=12):
    return torch.randn(classes, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


def test_loss_and_all_gradients_are_golden(values):
    tag = "soft.sym.feat.adaptive.sample"
    student = [values[f"in.S.{key}"].requires_grad_() for key in ("A0", "A1", "z", "za", "f", "fa")]
    loss = gsdm()(golden_context(values))
    gradients = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss.detach(), values[f"loss.{tag}"], rtol=1e-9, atol=0)
    torch.testing.assert_close(gradients[0], values[f"grad.{tag}.S.A0"], rtol=1e-9, atol=1e-12)
    norms = torch.stack([each.norm() for each in gradients])
    torch.testing.assert_close(norms, values[f"gradnorm.{tag}"], rtol=1e-7, atol=0)


@pytest.mark.parametrize("who", ["T0", "T1", "S"])
@pytest.mark.parametrize("graph", ["feat", "emb"])
@pytest.mark.parametrize("normalisation", ["sym", "printed"])
def test_graph_and_slope_are_golden(values, who, graph, normalisation):
    outputs, table, tag = outputs_of(values, who), values["embedding_table"], f"mid.soft.{normalisation}.{graph}.{who}"
    F = semantic_embedding(outputs.logits, table, "soft")
    torch.testing.assert_close(F[:, :8], values[f"mid.soft.{who}.F"], rtol=1e-9, atol=1e-12)
    Q = affinity(outputs.features["f"] if graph == "feat" else F, normalisation)
    torch.testing.assert_close(Q, values[f"{tag}.Q"], rtol=1e-9, atol=1e-12)
    options = {"graph": NAMES[graph], "normalisation": normalisation}
    omega = gsdm(**options).slope(outputs, "f", table)
    torch.testing.assert_close(omega[:, :8], values[f"{tag}.omega_head8"], rtol=1e-7, atol=1e-9)
    mean = gsdm(omega="scalar", **options).slope(outputs, "f", table)
    torch.testing.assert_close(mean[:, 0], values[f"{tag}.omega_mean"], rtol=1e-7, atol=1e-9)


def brute_map(activation, omega):
    """One sample's map, channel by channel, in NumPy; the pooling bins as Grad-CAM style adaptive averaging has them."""
    channels, width = len(activation), len(omega)
    total = np.zeros(activation.shape[1:])
    for p in range(channels):
        start, stop = p * width // channels, -(-(p + 1) * width // channels)
        total += omega[start:stop].mean() * activation[p]
    return np.maximum(total, 0)


@pytest.mark.parametrize(("channels", "width"), [(6, 12), (12, 12), (8, 12), (30, 12), (5, 1)])
def test_map_is_that_of_loops(channels, width):
    rng = np.random.default_rng(0)
    activation, omega = rng.normal(size=(3, channels, 4, 5)), rng.normal(size=(3, width))
    found = semantic_map(torch.tensor(activation), torch.tensor(omega))
    expected = np.stack([brute_map(a, w) for a, w in zip(activation, omega, strict=True)])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("folded", [True, False])
def test_a_clips_map_is_the_mean_of_its_frames(folded):
    rng = np.random.default_rng(1)
    clips, omega = rng.normal(size=(2, 3, 6, 4, 4)), rng.normal(size=(2, 12))
    given = torch.tensor(clips.reshape(6, 6, 4, 4) if folded else clips)
    expected = [np.mean([brute_map(frame, w) for frame in clip], axis=0) for clip, w in zip(clips, omega, strict=True)]
    np.testing.assert_allclose(semantic_map(given, torch.tensor(omega)).numpy(), np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"normalisation": "printed"}, {"graph": "embedding"}, {"graph": "none"}])
def test_single_black_answer_equals_a_batch_of_them(options):
    student, teacher = random_outputs(1), random_outputs(2)

    def repeated(outputs):
        rows = Outputs(outputs.ablated.logits.repeat(4, 1), {"f": outputs.ablated.features["f"].repeat(4, 1)})
        return Outputs(outputs.logits, outputs.features, rows)

    one = gsdm(**options)(context(student, {"t": teacher}, table_of()))
    many = gsdm(**options)(context(repeated(student), {"t": repeated(teacher)}, table_of()))
    torch.testing.assert_close(one, many)


def test_without_input_graph_the_black_term_is_its_own_embedding():
    outputs = random_outputs(3)
    points, F_a = outputs.ablated.features["f"].expand(4, -1), semantic_embedding(outputs.ablated.logits, table_of(), "soft")
    torch.testing.assert_close(affinity(points, "sym") @ F_a.expand(4, -1), F_a.expand(4, -1))


def test_the_scale_of_class_embeddings_cancels():
    small, large = (gsdm().slope(random_outputs(0), "f", factor * table_of()) for factor in (1, 50))
    torch.testing.assert_close(small, large)


def test_scalar_slope_only_decides_by_sign():
    activation = torch.rand(4, 6, 5, 5, dtype=torch.float64)
    small, large = (torch.full((4, 1), size, dtype=torch.float64) for size in (0.01, 100.0))
    unit = [each / each.flatten(1).norm(dim=1)[:, None, None] for each in (semantic_map(activation, w) for w in (small, large))]
    torch.testing.assert_close(*unit)
    assert semantic_map(activation, -small).eq(0).all()


def test_equal_networks_have_no_distance():
    outputs = random_outputs(4)
    assert gsdm()(context(outputs, {"a": outputs, "b": outputs}, table_of())) == 0


def test_loss_stays_between_its_bounds():
    for seed in range(5):
        loss = gsdm()(context(random_outputs(seed), {"t": random_outputs(seed + 50)}, table_of()))
        assert 0 < loss <= 2


def test_maps_of_any_size_meet():
    student = random_outputs(5, maps=((6, 7, 9), (8, 1, 4)))
    teacher = random_outputs(6, maps=((4, 14, 5), (8, 11)))
    loss = gsdm()(context(student, {"t": teacher}, table_of()))
    assert loss.isfinite()


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("embedding", ["soft", "argmax"])
@pytest.mark.parametrize("omega", ["adaptive", "scalar"])
def test_gradient_agrees_with_finite_differences(variant, embedding, omega):
    student, teacher = (random_outputs(seed, batch=2, maps=((3, 3, 2), (2, 2, 3))) for seed in (7, 8))
    loss = gsdm(variant=variant, embedding=embedding, omega=omega)
    taps = [student.features["A0"].requires_grad_(), student.features["A1"].requires_grad_()]
    inputs = [*taps, student.logits.requires_grad_()]

    def value(first, second, logits):
        features = {**student.features, "A0": first, "A1": second}
        return loss(context(Outputs(logits, features, student.ablated), {"t": teacher}, table_of()))

    assert torch.autograd.gradcheck(value, inputs, atol=1e-4)


def test_zero_denominators_and_zero_maps_are_guarded():
    omega = importance(torch.zeros(2, 3), torch.tensor([[1.0, 0, -1]]).expand(2, -1))
    assert omega.isfinite().all()
    assert omega[0].tolist() == pytest.approx([-1e8, 0, 1e8])
    silent = random_outputs(9)
    silent.features["A0"].zero_().requires_grad_()
    loss = gsdm()(context(silent, {"t": random_outputs(10)}, table_of()))
    (gradient,) = torch.autograd.grad(loss, silent.features["A0"])
    assert loss.isfinite()
    assert gradient.isfinite().all()


class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(5, 6, 3), nn.ReLU())
        self.fc = nn.Linear(6, 7)
        self.classifier = nn.Linear(7, 5)

    def forward(self, clips):
        maps = self.late(self.early(clips.flatten(0, 1)))
        frames = self.fc(maps.mean(dim=(2, 3)))
        return self.classifier(frames).unflatten(0, clips.shape[:2]).mean(dim=1)


@pytest.mark.parametrize(("variant", "rows"), [("paper", 1), ("official", 4)])
def test_gradient_reaches_the_students_first_layer_and_no_teacher(variant, rows):
    torch.manual_seed(0)
    student = Participant("video", Video(), {"f": "fc", "A0": "late"})
    clips = torch.randn(4, 3, 3, 10, 10)
    outputs = student(clips)
    black = student(torch.zeros_like(clips[:rows]))
    apart = 5 * torch.eye(5)[:1] - 5 * torch.eye(5)[1:2]
    answer = Outputs(outputs.logits + apart, outputs.features, Outputs(black.logits - apart, black.features))
    teacher = random_outputs(11, maps=((6, 5, 5),), dtype=torch.float32)
    loss = gsdm(pairs=(("A0", "A0"),), variant=variant)(context(answer, {"acc": teacher}, table_of().float()))
    loss.backward()
    first = student.encoder.early[0].weight.grad
    assert first.isfinite().all()
    assert first.abs().sum() > 0
    head = student.encoder.classifier.weight.grad
    assert (head is None) == (variant == "official")
    assert not any(each.requires_grad for each in (teacher.logits, *teacher.features.values()))


def test_a_few_steps_bring_the_maps_together():
    student, teacher = random_outputs(12), random_outputs(13)
    leaves = [student.features["A0"].requires_grad_(), student.features["A1"].requires_grad_()]
    optimizer, loss = torch.optim.Adam(leaves, lr=0.05), gsdm()
    trace = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(context(student, {"t": teacher}, table_of()))
        value.backward()
        optimizer.step()
        trace.append(value.item())
    assert trace[-1] < 0.7 * trace[0]


def test_order_of_samples_does_not_matter():
    student, teacher, order = random_outputs(14), random_outputs(15), torch.tensor([2, 0, 3, 1])

    def shuffled(outputs):
        return Outputs(outputs.logits[order], {key: x[order] for key, x in outputs.features.items()}, outputs.ablated)

    one = gsdm()(context(student, {"t": teacher}, table_of()))
    other = gsdm()(context(shuffled(student), {"t": shuffled(teacher)}, table_of()))
    torch.testing.assert_close(one, other)


def test_half_precision_and_one_sample_are_finite():
    student, teacher = (random_outputs(seed, batch=1, dtype=torch.float32) for seed in (16, 17))
    student.features["A0"] = student.features["A0"].half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = gsdm()(context(student, {"t": teacher}, table_of().float()))
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_gradient_in_bfloat16_is_that_of_the_rounded_numbers():
    for seed in range(20):
        rounded = [halved(random_outputs(seed + k)) for k in (0, 100)]
        found, wanted = (gradient_of(rounded, dtype) for dtype in (torch.bfloat16, torch.float64))
        assert torch.cosine_similarity(found, wanted, dim=0) > 0.9999


def halved(outputs, dtype=torch.bfloat16):
    features = {key: x.to(dtype) for key, x in outputs.features.items()}
    return Outputs(outputs.logits.to(dtype), features, outputs.ablated and halved(outputs.ablated, dtype))


def gradient_of(both, dtype):
    student, teacher = (halved(each, dtype) for each in both)
    wanted = [student.logits, *student.features.values(), student.ablated.logits, student.ablated.features["f"]]
    for x in wanted:
        x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = gsdm()(context(student, {"t": teacher}, table_of().bfloat16().to(dtype)))
    return torch.cat([x.double().flatten() for x in torch.autograd.grad(loss, wanted)])


@pytest.mark.parametrize(
    ("dtype", "autocast", "warned"), [(torch.bfloat16, False, 1), (torch.float32, True, 1), (torch.float32, False, 0)]
)
def test_half_precision_is_warned_of_once(dtype, autocast, warned, caplog):
    loss = gsdm()
    ctx = context(halved(random_outputs(0), dtype), {"t": halved(random_outputs(1), dtype)}, table_of().to(dtype))
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss(ctx)
    assert [record.message.count("bfloat16") for record in caplog.records] == [1] * warned


def test_needs_follow_the_options():
    assert gsdm().needs == Needs(
        teachers=1,
        class_embeddings=True,
        ablated="single",
        student_taps=("A0", "A1", "f"),
        teacher_taps=("A0", "A1", "f"),
    )
    assert gsdm(variant="official").needs == Needs(
        teachers=1, class_embeddings=True, ablated="mixed", student_taps=("A0", "A1"), teacher_taps=("A0", "A1")
    )


def test_taps_without_positions_are_named():
    outputs = random_outputs(18)
    with pytest.raises(ValueError, match=r"tap 'f' of the student has no map.*\(4, 7\)"):
        gsdm(pairs=(("A0", "f"),)).setup(Example(outputs, {"t": outputs}))
    gsdm().setup(Example(outputs, {"t": outputs}))


def test_maps_to_draw_are_those_that_are_compared():
    table, shapes = table_of(), ((6, 8, 8), (8, 6, 7), (8, 3, 3))
    loss = gsdm(pairs=(("A0", "A0"), ("A1", "A1"), ("A2", "A2")))
    outputs = random_outputs(0, maps=shapes)
    ((title, drawn),) = loss.maps(outputs, "teacher", table).items()
    assert title == "gsdm, A1"  # the deepest that is not too coarse
    compared = loss._maps(outputs, ["A1"], "f", table)[0]
    torch.testing.assert_close(drawn, compared)


def test_maps_of_a_clip_are_drawn_frame_by_frame():
    outputs = random_outputs(0, batch=2, maps=((6, 8, 8),))
    frames = torch.randn(2 * 3, 6, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outputs = Outputs(outputs.logits, {**outputs.features, "A0": frames}, outputs.ablated)
    loss = gsdm(pairs=(("A0", "A0"),))
    drawn = loss.maps(outputs, "student", table_of())["gsdm, A0"]
    assert drawn.shape == (2, 3, 8, 8)
    torch.testing.assert_close(drawn.mean(1), loss._maps(outputs, ["A0"], "f", table_of())[0])
    assert not loss.maps(Outputs(outputs.logits, outputs.features), "student", table_of())
