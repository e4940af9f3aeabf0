"""Self-supervised distillation, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kdcore
from kdcore import Batch, Example, LossContext, Outputs, RecipeError, load_recipe
from kdcore_losses.sskd import SelfSupervised, best_ranked, transformed_copies

B, K, OWN, THEIRS, LENGTH = 4, 3, 5, 6, 7


class Network(nn.Module):
    """Features (B, C) and logits of a signal (B, 2, 7), neither odd nor even in it."""

    def __init__(self, width, seed):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.first = torch.randn(2 * LENGTH, width, generator=draw, dtype=torch.float64)
        self.last = torch.randn(width, K, generator=draw, dtype=torch.float64)

    def forward(self, x):
        features = (x.flatten(1) @ self.first).exp().log1p()
        return Outputs(features @ self.last, {"features": features})


class Networks:
    """What a run gives a loss, from plain modules."""

    def __init__(self, networks, axes):
        self.networks, self.named = networks, axes

    def input(self, name, batch):
        return batch.signals[name or "student"]

    def axes(self, name):
        return self.named[name or "student"]

    def forward(self, name, x, parameters=None):
        return self.networks[name or "student"](x)


def context(axes=("channel", "time"), of_teacher=("channel", "time")):
    networks = {"student": Network(OWN, 0), "teacher": Network(THEIRS, 1)}
    draw = torch.Generator().manual_seed(2)
    signals = {name: torch.randn(B, 2, LENGTH, generator=draw, dtype=torch.float64) for name in networks}
    outputs = {name: network(signals[name]) for name, network in networks.items()}
    batch, runs = Batch(torch.arange(B), signals, None), Networks(networks, {"student": axes, "teacher": of_teacher})
    return LossContext(outputs["student"], {"teacher": outputs["teacher"]}, batch, networks=runs), networks, signals


def built(ctx, **options):
    torch.manual_seed(0)
    loss = SelfSupervised(**options)
    loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), K))
    return loss.double()


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def divergence(p, q):
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_by_loops(kept):
    ctx, networks, signals = context()
    loss = built(ctx, kept=kept)
    T, tau = 4.0, 0.5
    turned = {name: [x.flip(2), -x, -x.flip(2)] for name, x in signals.items()}

    def embed(name, x):
        head = loss.heads["teacher"][0 if name == "student" else 1]
        layer, _, last = head
        hidden = np.maximum(x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0)
        z = hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()
        return z / np.linalg.norm(z)

    probabilities, similar, of_head, ranks, closeness = [], [], [], [], []
    for k in range(3):
        for i in range(B):
            copies = {name: networks[name](turned[name][k][i : i + 1]) for name in networks}
            p, q = (softmax(copies[name].logits[0].numpy() / T) for name in ("teacher", "student"))
            probabilities.append(divergence(p, q))
            cosines = {}
            for name in networks:
                own = embed(name, copies[name].features["features"][0])
                others = [embed(name, networks[name](signals[name][j : j + 1]).features["features"][0]) for j in range(B)]
                cosines[name] = np.array([own @ other for other in others])
            b = softmax(cosines["teacher"] / tau)
            similar.append(divergence(b, softmax(cosines["student"] / tau)))
            of_head.append(-np.log(b[i]))
            ranks.append(int((cosines["teacher"] > cosines["teacher"][i]).sum()))
            closeness.append(cosines["teacher"][i])
    order = sorted(range(3 * B), key=lambda n: (ranks[n], -closeness[n]))
    right = ranks.count(0)
    assert 0 < right < 3 * B, "the fixture should have copies of both kinds"
    used = order[: right + int((3 * B - right) * kept)]
    expected = 2.7 * T**2 * np.mean(probabilities) + 10 * tau**2 * np.mean([similar[n] for n in used]) + np.mean(of_head)
    assert loss(ctx).item() == pytest.approx(expected, rel=1e-9)


def test_the_teachers_head_learns_from_its_own_task_only():
    ctx, _, _ = context()
    loss = built(ctx)
    head = list(loss.heads["teacher"][1].parameters())
    whole = torch.autograd.grad(loss(ctx), head)
    other = built(ctx, similarity=1.0, transformed=0.0)
    other.load_state_dict(loss.state_dict())
    alone = torch.autograd.grad(other(ctx), list(other.heads["teacher"][1].parameters()))
    for one, two in zip(whole, alone, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        (("channel", "time"), (2, 3, 4), lambda x: [x.flip(2), -x, -x.flip(2)]),
        (("time", "channel"), (2, 3, 4), lambda x: [x.flip(1), -x, -x.flip(1)]),
        (("time", "channel", "height", "width"), (2, 3, 1, 4, 5), lambda x: [x.flip(1), x.flip(4), x.flip(4).flip(1)]),
        (("channel", "height", "width"), (2, 3, 4, 5), lambda x: [x.flip(2), x.flip(3), x.flip(2).flip(3)]),
    ],
    ids=["sequence", "time first", "clip", "image"],
)
def test_copies_of_each_kind_of_input(axes, shape, expected):
    x = torch.randn(shape)
    assert torch.equal(transformed_copies(x, axes), torch.cat(expected(x)))


def test_square_images_are_turned_in_quarters():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    found = transformed_copies(x, ("channel", "height", "width")).flatten(1).tolist()
    assert found == [[2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]


def test_inputs_without_time_and_without_a_plane_are_refused():
    with pytest.raises(ValueError, match=r"not inputs with the axes \(channel\)"):
        transformed_copies(torch.zeros(2, 3), ("channel",))
    with pytest.raises(ValueError, match=r"\(unknown\)"):
        transformed_copies(torch.zeros(2, 3), ())


def test_an_image_and_a_sequence_have_no_transforms_in_common():
    ctx, _, _ = context(of_teacher=("channel", "height", "width"))
    with pytest.raises(ValueError, match="only some have a time axis"):
        built(ctx)(ctx)


def test_a_share_of_the_wrong_rows_is_used_the_nearest_first():
    rows = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.1, 0.2, 0.3], [0.6, 0.5, 0.2]])
    positives = torch.tensor([0, 1, 0, 1])  # right; second, at 0.4; third; second, at 0.5
    chosen = {kept: best_ranked(rows, positives, kept).tolist() for kept in (0.0, 0.34, 0.67, 1.0)}
    assert chosen == {
        0.0: [True, False, False, False],
        0.34: [True, False, False, True],
        0.67: [True, True, False, True],
        1.0: [True, True, True, True],
    }
    assert best_ranked(rows[2:3], positives[2:3], 0.0).tolist() == [True]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.mix=mixup", "the loss 'sskd' runs networks on inputs of its own, which data.mix does not mix"),
        (
            "teachers.skeleton={outputs: a.npz, modality: null, encoder: null, taps: null, transforms: null}",
            "the loss 'sskd' runs networks on inputs of its own, but 'skeleton' is a file of stored outputs",
        ),
    ],
)
def test_recipes_in_which_it_cannot_run_networks_are_refused(override, said):
    with pytest.raises(RecipeError) as error:
        load_recipe("methods/sskd", [override])
    assert said in str(error.value)


def test_a_data_loader_has_no_axis_names_so_the_option_gives_them():
    torch.manual_seed(0)
    x, labels = torch.randn(12, 2, LENGTH), torch.arange(12) % K

    def network():
        return nn.Sequential(nn.Flatten(), nn.Linear(2 * LENGTH, 6), nn.ReLU(), nn.Linear(6, K))

    def distil(loss):
        loader = DataLoader(TensorDataset(x, labels), batch_size=6)
        taps = {"student": {"features": "1"}, "big": {"features": "1"}}
        return kdcore.distil(network(), {"big": network()}, loader, losses=["cross-entropy", loss], epochs=2, taps=taps)

    with pytest.raises(ValueError, match=r"axes \(unknown\); name them with the option 'axes'"):
        distil("sskd")
    found = distil({"name": "sskd", "axes": ["channel", "time"]})
    assert all(np.isfinite(row["sskd"]) for row in found.history.to_dict("records"))
