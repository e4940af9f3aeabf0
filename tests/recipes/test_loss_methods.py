"""Recipes of single losses: every term on one batch, against activations computed by hand."""

from __future__ import annotations

import pytest
import torch
from by_hand import SKELETON, cross_entropy, network, soft_target, step_of
from torch import Tensor
from torch.nn import functional as F

from kdcore.training.step import StageStep


def regressed(student: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("oc,bcp->bop", weight, student)


def test_dist_is_one_minus_pearsons_correlation_over_classes_and_over_samples(one_batch):
    found = one_batch("dist", *network("teachers.skeleton", SKELETON, 8), *network("student"))
    student, teacher = (torch.softmax(found.by_hand[name]["logits"] / 4, 1).double() for name in ("student", "skeleton"))

    def apart(a, b):
        return sum(1 - float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(a, b, strict=True)) / len(a)

    expected = 16 * (2 * apart(student, teacher) + 2 * apart(student.T, teacher.T))
    assert found.terms["student/dist"] == pytest.approx(expected, rel=1e-4)


def test_dkd_is_the_two_parts_of_the_divergence_and_its_weight_grows(one_batch, trial):
    overrides = [*network("teachers.skeleton", SKELETON, 8), *network("student")]
    found = one_batch("dkd", *overrides)
    p, q = (torch.softmax(found.by_hand[name]["logits"] / 4, 1).double() for name in ("skeleton", "student"))
    expected = 0.0
    for row, label in enumerate(found.labels.tolist()):
        others = [index for index in range(p.shape[1]) if index != label]
        pt, qt = p[row, label], q[row, label]
        expected += pt * (pt / qt).log() + (1 - pt) * ((1 - pt) / (1 - qt)).log()
        a, b = p[row, others] / (1 - pt), q[row, others] / (1 - qt)
        expected += 8 * (a * (a / b).log()).sum()
    assert found.terms["student/dkd"] == pytest.approx(float(16 * expected / len(p)), rel=1e-4)

    made = trial("dkd", *overrides)
    _, recorded = made.fit(made.distiller(), made.stages())
    for epoch, (total, supervised, distilled) in enumerate(
        zip(*(recorded[f"train/student/{name}"].values() for name in ("total", "cross-entropy", "dkd")), strict=True)
    ):
        assert total == pytest.approx(supervised + epoch / 5 * distilled, rel=1e-4)


def test_crd_tells_each_sample_from_those_of_other_classes(one_batch):
    found = one_batch("crd", *network("teachers.skeleton", SKELETON, 8), *network("student"))
    heads = found.loss("student", "crd").heads["skeleton_0"]
    own, theirs = (
        F.normalize(F.linear(found.by_hand[name]["pool"], head.weight, head.bias).double(), dim=1)
        for name, head in zip(("student", "skeleton"), heads, strict=True)
    )
    size, labels, expected = len(found.made.table.keys), found.labels.tolist(), 0.0
    for anchors, bank in ((own, theirs), (theirs, own)):  # the first batch is in the bank itself
        raised = (anchors @ bank.T / 0.07).exp()
        pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if i == j or labels[i] != labels[j]]
        z = size * sum(float(raised[i, j].detach()) for i, j in pairs) / len(pairs)
        for i, label in enumerate(labels):
            negatives = [j for j, other in enumerate(labels) if other != label]
            noise = len(negatives) / size

            def h(q, noise=noise):
                return q / (q + noise)

            expected -= float(h(raised[i, i] / z).log()) / len(labels)
            expected -= sum(float((1 - h(raised[i, j] / z)).log()) for j in negatives) / len(labels)
    assert found.terms["student/crd"] == pytest.approx(expected, rel=1e-4)
    assert float(found.total) == pytest.approx(
        found.terms["student/cross-entropy"] + 0.8 * found.terms["student/crd"], rel=1e-5
    )


def test_reviewkd_compares_three_blocks_and_the_pooled_features_from_input_to_output(one_batch):
    found = one_batch("reviewkd", *network("teachers.skeleton", SKELETON, 8, 3), *network("student", depth=3))
    loss = found.loss("student", "reviewkd")
    places = ("blocks.0", "blocks.1", "blocks.2", "pool")
    [(_, context)] = [each for each in found.step.contexts(found.rows, found.rows) if each[0].loss is loss]
    for (key, student, teacher), place in zip(
        loss.activations(context.student, context.teachers, len(found.rows)), places, strict=True
    ):
        torch.testing.assert_close(student, found.by_hand["student"][place], rtol=1e-4, atol=1e-5, msg=key)
        torch.testing.assert_close(teacher, found.by_hand["skeleton"][place], rtol=1e-4, atol=1e-5, msg=key)
    assert float(found.total) == pytest.approx(found.terms["student/cross-entropy"])  # its weight begins at 0
    levels = list(loss.fusions.values())
    assert [each.attention is not None for each in levels] == [True, True, True, False]  # the last has nothing deeper


def test_hallucination_compares_sigmoids_before_the_rectifier(one_batch):
    place = "{features: blocks.1.1}"
    overrides = [*network("teachers.skeleton", SKELETON), *network("students.plain")]
    taps = [f"teachers.skeleton.taps={place}", f"students.hallucinating.taps={place}"]
    found = one_batch("hallucination", *overrides, *taps)
    assert not list(found.loss("hallucinating", "hallucination").parameters())
    student, teacher = (found.by_hand[name]["blocks.1.1"] for name in ("hallucinating", "skeleton"))
    assert student.min() < 0
    expected = float((1 / (1 + torch.exp(-student)) - 1 / (1 + torch.exp(-teacher))).square().mean())
    assert found.terms["hallucinating/hallucination"] == pytest.approx(expected, rel=1e-4)


def test_the_network_beside_the_hallucinating_one_sees_no_skeleton(trial):
    made = trial("hallucination")
    by_learner = {stage.learners: stage for stage in made.stages()}
    assert by_learner["plain",].sources == ()
    assert by_learner["hallucinating",].sources == ("skeleton",)
    assert made.assembly.plan.compared == ("hallucinating",)


def test_graph_distillation_weights_teachers_by_learnt_edges(one_batch):
    overrides = [*network("teachers.skeleton", SKELETON), *network("teachers.gyroscope"), *network("student")]
    found = one_batch("graph-distillation", *overrides)
    loss = found.loss("student", "graph-distillation")
    of_logits, of_features = (each.weight for each in loss.embed)
    student = found.by_hand["student"]
    scores, distances = [], []
    for name in ("skeleton", "gyroscope"):
        teacher = found.by_hand[name]
        both = torch.cat([teacher["logits"] @ of_logits.T, teacher["pool"] @ of_features.T], dim=1)
        scores.append(both @ loss.edge.weight[0] / 8)
        cosines = [
            (student[key] * teacher[key]).sum(1) / student[key].norm(dim=1) / teacher[key].norm(dim=1)
            for key in ("logits", "pool")
        ]
        distances.append((1 - cosines[0]) + 0.05 * (1 - cosines[1]))
    raised = torch.stack(scores, 1).exp()
    edges = raised / raised.sum(1, keepdim=True)
    expected = ((edges + 0.5) * torch.stack(distances, 1)).sum(1).mean() + 10 * (edges.mean(0) - 0.5).square().sum()
    assert found.terms["student/graph-distillation"] == pytest.approx(float(expected), rel=1e-4)


def test_c2kd_selects_by_rank_and_teaches_in_both_directions(one_batch):
    kendalltau = pytest.importorskip("scipy.stats").kendalltau
    found = one_batch("c2kd", *network("students.skeleton", SKELETON, 8), *network("students.accelerometer"), rows=12)
    logits = {name: each["logits"].double() for name, each in found.by_hand.items()}
    chosen = [row for row in range(12) if kendalltau(*(logits[name][row].tolist() for name in logits)).statistic > 0]
    assert 0 < len(chosen) < 12
    for learner, peer in (("skeleton", "accelerometer"), ("accelerometer", "skeleton")):
        expected = 0.0
        for row in chosen:
            others = [index for index in range(3) if index != int(found.labels[row])]
            p, q = (torch.softmax(logits[name][row, others] / 4, 0) for name in (peer, learner))
            expected += 16 * float((p * (p / q).log()).sum()) / 12
        assert found.terms[f"{learner}/c2kd"] == pytest.approx(expected, rel=1e-4)
    for term, context in found.step.contexts(found.rows, found.rows):
        other = "skeleton" if term.learner == "accelerometer" else "accelerometer"
        parameters = list(found.distiller.participant(other).encoder.parameters())
        gradients = torch.autograd.grad(term.loss(context), parameters, allow_unused=True, retain_graph=True)
        assert all(each is None for each in gradients)


def test_unlabelled_pairs_teach_by_all_samples_and_labels_by_those_that_have_one(one_batch):
    overrides = [*network("teachers.skeleton", SKELETON, 8, 3), *network("student", depth=3), "data.labels={share: 0.4}"]
    found = one_batch("unlabelled-pairs", *overrides, rows=12)
    student, teacher = found.by_hand["student"], found.by_hand["skeleton"]
    known = found.made.table.train_labels[found.rows] >= 0
    assert 0 < int(known.sum()) < 12
    supervised = cross_entropy(student["logits"][known], found.labels[known])
    assert found.terms["student/cross-entropy"] == pytest.approx(float(supervised), rel=1e-4)
    translated = regressed(student["blocks.2"], found.loss("student", "fitnet").regressors["skeleton_0"].linear.weight)
    assert found.terms["student/fitnet"] == pytest.approx(float((translated - teacher["blocks.2"]).square().mean()), rel=1e-4)
    expected = soft_target(student["logits"], teacher["logits"], 4)
    assert found.terms["student/soft-target"] == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    first = found.made.stages()[0]  # the teacher has the same few labels
    assert first.learners == ("skeleton",)
    recorded = StageStep(found.distiller, first, found.made.table, labelled=True).contexts(found.rows, found.rows)
    assert [len(context.batch) for _, context in recorded] == [int(known.sum())]


def test_mars_compares_the_mean_features_of_frames_and_flow(trial):
    clip = "{name: clip, segments: 2, size: 16}"
    flow = "[{name: optical-flow, segments: 2, stack: 1, size: 16, bound: 10}, {name: pixels, mean: [0.5], std: [0.25]}]"
    network = "encoder={name: tsn, backbone: test_resnet, drop_rate: 0}"
    made = trial(
        "mars", f"teachers.flow.transforms={flow}", f"teachers.flow.{network}",
        f"student.transforms=[{clip}, pixels]", f"student.{network}",
    )  # fmt: skip
    distiller = made.distiller()
    step, rows = step_of(made, distiller, made.stages()[-1])
    frames: dict[str, Tensor] = {}
    for name in ("flow", "student"):
        distiller.participant(name).encoder.classifier.register_forward_pre_hook(
            lambda _, args, name=name: frames.update({name: args[0].detach().clone()})
        )
    total, values = step(rows, rows)
    found = dict(zip(step.names, map(float, values), strict=True))
    student, teacher = (each.reshape(len(rows), 2, -1).mean(1) for each in (frames["student"], frames["flow"]))
    expected = float((student - teacher).square().mean())
    assert expected > 0
    assert found["student/fitnet"] == pytest.approx(expected, rel=1e-4)
    assert float(total) == pytest.approx(found["student/cross-entropy"] + 50 * expected, rel=1e-4)
    assert not list(distiller.losses("student")["fitnet"].parameters())


def test_simkd_compares_the_projectors_output_itself_and_freezes_the_classifier(one_batch):
    taps = "teachers.skeleton.taps={features: blocks.1}"
    overrides = [*network("teachers.skeleton", SKELETON, 8), *network("student"), "student.encoder.projector=16", taps]
    found = one_batch("simkd", *overrides)
    member = found.distiller.participant("student")
    expected = F.mse_loss(found.by_hand["student"]["projector"], found.by_hand["skeleton"]["blocks.1"])
    assert found.terms["student/fitnet"] == pytest.approx(float(expected), rel=1e-4)
    assert not list(found.loss("student", "fitnet").parameters())
    assert [name for name, each in member.encoder.named_parameters() if not each.requires_grad] == ["fc.weight", "fc.bias"]
    assert found.distiller.reused == {"student": "skeleton"}


def test_contrastive_pretraining_starts_the_second_phase_from_the_first(trial):
    overrides = [*network("teachers.skeleton", SKELETON, 8), *network("students.pretrained"), "teachers.skeleton.split=train"]
    made = trial("contrastive-pretraining", *overrides)
    distiller = made.distiller()
    assert distiller.origins == {"fine-tuned": "pretrained"}
    assert [stage.learners for stage in made.stages()] == [("skeleton",), ("pretrained",), ("fine-tuned",)]
    assert {name: list(specs) for name, specs in distiller.specs.items()} == {
        "skeleton": ["cross-entropy"], "pretrained": ["infonce"], "fine-tuned": ["cross-entropy"]
    }  # fmt: skip
