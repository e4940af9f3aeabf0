"""Shared building blocks against loops in NumPy, golden numbers and finite differences."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kdcore import functional
from kdcore.functional import (
    adaptive_mean,
    angle_cosines,
    confidence_weights,
    cosine_similarities,
    distances,
    full_precision,
    gram_similarities,
    in_full_precision,
    known_mean,
    label_losses,
    mean_over_frames,
    mean_over_positions,
    per_sample,
    same_positions,
    softened_kl,
    unit_rows,
    weighted_mean,
)

HALF = (torch.float16, torch.bfloat16)
LABELS = torch.tensor([0, 2, 1, 2])
FEATURES = (4, 3, 2)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BLOCKS = {
    "softened_kl": (lambda a, b: softened_kl(a, b, 3.0), (4, 5), (4, 5)),
    "softened_kl reversed": (lambda a, b: softened_kl(a, b, 3.0, reverse=True), (4, 5), (4, 5)),
    "label_losses": (lambda x: label_losses(x, LABELS), (2, 4, 5)),
    "confidence_weights": (confidence_weights, (3, 4)),
    "unit_rows": (unit_rows, FEATURES),
    "cosine_similarities": (cosine_similarities, FEATURES),
    "gram_similarities": (gram_similarities, FEATURES),
    "distances": (distances, FEATURES),
    "angle_cosines": (angle_cosines, FEATURES),
    "per_sample": (lambda x: per_sample(x, 2), (4, 3, 2)),
    "mean_over_frames": (lambda x: mean_over_frames(x, 2), (4, 3)),
    "mean_over_positions": (mean_over_positions, (4, 3, 2, 5)),
    "adaptive_mean": (lambda x: adaptive_mean(x, 1, 4), (4, 6, 2)),
    "same_positions": (lambda a, b: torch.cat([x.flatten() for x in same_positions(a, b)]), (2, 3, 6), (2, 4, 4, 5)),
    "weighted_mean": (lambda x, w: weighted_mean(x, w.exp()), (4, 3), (4,)),
    "known_mean": (lambda x, w: known_mean(lambda y: (y - 1) ** 2, x, w.abs()), (4, 3), (4,)),
    "weighted_mean without weights": (lambda x: weighted_mean(x, None), (4, 3)),
}
every_block = pytest.mark.parametrize("name", BLOCKS)


def case(name):
    block, *shapes = BLOCKS[name]
    return block, [draw(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def test_every_public_block_is_tested():
    assert {name.partition(" ")[0] for name in BLOCKS} | {"full_precision", "in_full_precision"} == set(functional.__all__)


@every_block
def test_gradient_agrees_with_finite_differences(name):
    block, inputs = case(name)
    assert torch.autograd.gradcheck(block, [x.requires_grad_() for x in inputs])


@every_block
def test_float64_stays_float64(name):
    block, inputs = case(name)
    assert block(*inputs).dtype == torch.float64


@every_block
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_inputs_give_what_the_same_numbers_give_in_float64(name, dtype):
    block, inputs = case(name)
    rounded = [x.to(dtype) for x in inputs]
    found = block(*rounded)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), block(*(x.double() for x in rounded)), rtol=1e-4, atol=1e-5)


@every_block
def test_autocast_changes_nothing(name):
    block, inputs = case(name)
    single = [x.float() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        found = block(*single)
    assert found.equal(block(*single))


@pytest.mark.parametrize("block", [unit_rows, cosine_similarities, gram_similarities, distances, angle_cosines])
def test_large_activations_do_not_overflow(block):
    found = block(torch.full((2, 8, 32, 32), 60.0, dtype=torch.float16) * torch.tensor([1.0, -1.0]).half().view(2, 1, 1, 1))
    assert found.isfinite().all()


def test_importing_the_blocks_imports_nothing_else_of_kdcore():
    code = "import sys, kdcore.functional; print(sorted(name for name in sys.modules if name.startswith('kdcore')))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['kdcore', 'kdcore.functional']"


class TestFullPrecision:
    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_half_becomes_float32(self, dtype):
        assert full_precision(torch.ones(2, dtype=dtype)).dtype == torch.float32

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_others_are_the_same_tensor(self, dtype):
        x = torch.ones(2, dtype=dtype)
        assert full_precision(x) is x

    def test_decorated_functions_get_converted_tensors_whether_by_position_or_name(self):
        seen = {}

        @in_full_precision
        def block(x, labels, *, y):
            seen.update(x=x.dtype, labels=labels.dtype, y=y.dtype, autocast=torch.is_autocast_enabled("cpu"))
            return x @ y

        with torch.autocast("cpu", torch.bfloat16):
            product = block(torch.ones(2, 2), torch.tensor([1]), y=torch.ones(2, 2, dtype=torch.bfloat16))
        assert seen == {"x": torch.float32, "labels": torch.int64, "y": torch.float32, "autocast": False}
        assert product.dtype == torch.float32


def softmax(row):
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


class TestSoftenedKl:
    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_by_loops(self, temperature, reverse):
        student, teacher = draw(3, 5, seed=1), draw(3, 5, seed=2)
        found = softened_kl(student, teacher, temperature, reverse=reverse)
        for b in range(3):
            p_student, p_teacher = (softmax([z / temperature for z in x[b].tolist()]) for x in (student, teacher))
            p, q = (p_student, p_teacher) if reverse else (p_teacher, p_student)
            assert found[b].item() == pytest.approx(
                sum(p_c * math.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True)), rel=1e-9
            )

    @pytest.mark.parametrize("reverse", [False, True])
    def test_several_teachers_are_as_one_by_one(self, reverse):
        student, teachers = draw(3, 5, seed=1), draw(2, 3, 5, seed=2)
        found = softened_kl(student, teachers, 2.0, reverse=reverse)
        torch.testing.assert_close(found, torch.stack([softened_kl(student, each, 2.0, reverse=reverse) for each in teachers]))

    @pytest.mark.parametrize("T", [1, 2, 10])
    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_both_directions_are_golden(self, golden, T, size):
        numbers = golden("b_losses")
        student, teacher = (torch.from_numpy(numbers[f"in.logits_b{size}c27.{name}"]) for name in ("student", "teacher"))
        for direction in ("printed", "hinton"):
            found = softened_kl(student, teacher, float(T), reverse=direction == "printed").mean().item()
            wanted = numbers[f"out.thoker_kl_{direction}_T{T}.logits_b{size}c27.loss"]
            np.testing.assert_allclose(found, wanted, rtol=1e-9)

    @given(st.integers(0, 999), st.floats(0.1, 20), st.booleans())
    def test_never_negative_and_zero_between_equals(self, seed, temperature, reverse):
        student, teacher = draw(2, 6, seed=seed), draw(2, 6, seed=seed + 1)
        assert (softened_kl(student, teacher, temperature, reverse=reverse) >= -1e-12).all()
        assert softened_kl(student, student + 7, temperature, reverse=reverse).abs().max() < 1e-12


class TestTeacherWeights:
    def test_golden(self, golden):
        numbers = golden("g_pskd_acs")
        teachers, labels = (torch.from_numpy(numbers[f"in.{name}"]) for name in ("teacher_logits", "labels"))
        losses = label_losses(teachers, labels)
        np.testing.assert_allclose(losses.numpy(), numbers["mid.ce_t"], rtol=1e-9)
        np.testing.assert_allclose(confidence_weights(losses).numpy(), numbers["mid.weights.camkd.none"], rtol=1e-9)

    def test_by_loops(self):
        losses = draw(3, 4).abs()
        found = confidence_weights(losses)
        for b in range(4):
            shares = softmax(losses[:, b].tolist())
            assert found[:, b].tolist() == pytest.approx([(1 - share) / 2 for share in shares])

    @given(st.integers(2, 5), st.integers(0, 99))
    def test_they_sum_to_one_and_the_better_teacher_weighs_more(self, teachers, seed):
        losses = draw(teachers, 3, seed=seed).abs()
        weights = confidence_weights(losses)
        torch.testing.assert_close(weights.sum(dim=0), torch.ones(3, dtype=torch.float64))
        assert weights.argsort(dim=0).equal(losses.argsort(dim=0).flip(0))

    def test_one_teacher_weighs_one(self):
        assert confidence_weights(draw(1, 3)).eq(1).all()


class TestRelations:
    def rows(self, x):
        return [row.flatten().numpy() for row in x]

    def test_unit_rows_and_cosines_by_loops(self):
        x = draw(4, 3, 2)
        rows = self.rows(x)
        unit = [row / math.sqrt(sum(value**2 for value in row)) for row in rows]
        np.testing.assert_allclose(unit_rows(x), np.stack(unit), rtol=1e-12)
        wanted = [[float(a @ b) for b in unit] for a in unit]
        np.testing.assert_allclose(cosine_similarities(x), wanted, rtol=1e-10, atol=1e-12)

    def test_a_row_of_zeros_stays_zero(self):
        x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        for found in (unit_rows(x), cosine_similarities(x), gram_similarities(x)):
            assert found.eq(0).all()
            (gradient,) = torch.autograd.grad(found.sum(), x)
            assert gradient.isfinite().all()

    def test_gram_similarities_by_loops(self):
        x = draw(4, 3, 2)
        gram = [[float(a @ b) for b in self.rows(x)] for a in self.rows(x)]
        wanted = [[value / math.sqrt(sum(each**2 for each in row)) for value in row] for row in gram]
        np.testing.assert_allclose(gram_similarities(x), wanted, rtol=1e-10)

    def test_gram_similarities_are_golden(self, golden):
        numbers = golden("e_spamfm")
        for name in ("in0", "in1"):
            x = torch.from_numpy(numbers[f"paper_2mod_4d_b4c8.{name}"]).double()
            wanted = numbers[f"paper_2mod_4d_b4c8.G{name[-1]}"]
            np.testing.assert_allclose(gram_similarities(x), wanted, rtol=1e-9)

    @pytest.mark.parametrize("offset", [0.0, 100.0])
    def test_distances_and_angles_by_loops(self, offset):
        x = draw(5, 3, 2) + offset
        rows = self.rows(x)
        lengths, cosines = distances(x), angle_cosines(x)
        for i, j in product(range(5), repeat=2):
            assert lengths[i, j].item() == pytest.approx(math.dist(rows[i], rows[j]), rel=1e-8, abs=0)
        for v, i, j in product(range(5), repeat=3):
            one, other = rows[i] - rows[v], rows[j] - rows[v]
            sides = math.hypot(*one) * math.hypot(*other)
            assert cosines[v, i, j].item() == pytest.approx(one @ other / sides if sides else 0.0, abs=1e-8)

    def test_they_agree_with_torch_in_float32(self):
        x = draw(16, 40).float()
        torch.testing.assert_close(distances(x), torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"))

    def test_identical_samples_are_finite_with_their_gradient(self):
        x = draw(1, 6).repeat(3, 1).requires_grad_()
        for found in (distances(x), angle_cosines(x)):
            (gradient,) = torch.autograd.grad(found.sum(), x)
            assert found.abs().max() < 1e-5
            assert gradient.eq(0).all()


class TestShapes:
    @settings(deadline=None)
    @given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
    def test_adaptive_mean_is_torchs_adaptive_average_pooling(self, height, width, new_height, new_width):
        x = torch.arange(2 * 3 * height * width, dtype=torch.float64).sin().view(2, 3, height, width)
        found = adaptive_mean(adaptive_mean(x, 2, new_height), 3, new_width)
        torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, (new_height, new_width)))

    @pytest.mark.parametrize(
        ("one", "other", "wanted"),
        [
            ((2, 4), (2, 6, 9), ()),
            ((2, 4, 8), (2, 6, 20), (8,)),
            ((2, 4, 8), (2, 6, 5, 20), (5,)),
            ((2, 4, 9, 3), (2, 6, 4, 7), (4, 3)),
            ((2, 4, 2, 9, 3), (2, 6, 4), (2,)),
        ],
    )
    def test_both_sides_get_the_coarser_positions(self, one, other, wanted):
        ours, theirs = same_positions(torch.ones(one), torch.ones(other))
        assert ours.shape == (2, 4, *wanted)
        assert theirs.shape == (2, 6, *wanted)
        torch.testing.assert_close(ours, torch.ones_like(ours))

    def test_time_is_what_a_graph_keeps(self):
        graph = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 2, 5, 7)
        _, kept = same_positions(torch.zeros(1, 3, 5), graph)
        torch.testing.assert_close(kept[0, 0], torch.arange(5.0))

    def test_folded_persons_are_averaged_sample_by_sample(self):
        x = torch.tensor([[0.0], [2.0], [10.0], [20.0]])
        torch.testing.assert_close(per_sample(x, 2), torch.tensor([[1.0], [15.0]]))

    @pytest.mark.parametrize("shape", [(5, 3), (4,)])
    def test_what_is_no_batch_is_refused(self, shape):
        with pytest.raises(ValueError, match="cannot be divided into 2 samples"):
            per_sample(torch.zeros(shape), 2)

    @pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (8, 3)])
    def test_frames_are_averaged(self, shape):
        x = draw(*shape)
        torch.testing.assert_close(mean_over_frames(x, 2), x.reshape(2, -1, 3).mean(dim=1))

    @pytest.mark.parametrize("shape", [(2,), (2, 3, 4, 5), (3, 4), (4, 3, 2, 2)])
    def test_what_holds_no_vectors_is_refused(self, shape):
        with pytest.raises(ValueError, match="does not hold feature vectors of 2 samples"):
            mean_over_frames(torch.zeros(shape), 2)

    @pytest.mark.parametrize("positions", [(), (4,), (4, 5), (2, 4, 5)])
    def test_mean_over_positions(self, positions):
        x = draw(2, 3, *positions)
        torch.testing.assert_close(mean_over_positions(x), x.mean(dim=tuple(range(2, x.dim()))) if positions else x)


def test_a_weighted_mean_is_that_of_each_samples_mean():
    x, weights = draw(4, 3, 2), torch.tensor([1.0, 2.0, 0.5, 4.0])
    expected = sum(w * np.mean(row) for w, row in zip(weights.tolist(), x.numpy(), strict=True)) / 7.5
    torch.testing.assert_close(weighted_mean(x, weights), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(weighted_mean(x[:, 0, 0], weights), (weights * x[:, 0, 0]).sum() / 7.5)
