"""Encoders against the numbers of the published implementations, weights filled alike."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcore_skeleton.encoders.agcn import Agcn
from kdcore_skeleton.encoders.hcn import Hcn
from kdcore_skeleton.encoders.st_gcn import StGcn

Tensors = Mapping[str, Tensor]


def hash_u(n: int, k: int) -> np.ndarray:
    """`n` numbers in [-1, 1) that depend on `k`, the same on every machine."""
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + np.uint64((k + 1) * 40503)) & mask
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & mask
    h = ((h ^ (h >> np.uint64(13))) * np.uint64(3266489917)) & mask
    return (h ^ (h >> np.uint64(16))).astype(np.float64) / 2.0**31 - 1.0


def filling(key: str, shape: tuple[int, ...], k: int, gain: float, att: float) -> np.ndarray:
    u, leaf = hash_u(math.prod(shape), k).reshape(shape), key.split(".")[-1]
    if leaf in ("running_mean", "running_var"):
        return np.full(shape, float(leaf == "running_var"))
    if leaf == "PA" or "edge_importance" in key:
        return 0.02 * u if leaf == "PA" else 1 + 0.1 * u
    if len(shape) >= 2:
        return u * math.sqrt(gain * (att if re.search(r"\.conv_[ab]\.", key) else 1) / math.prod(shape[1:]))
    return 0.05 * u if leaf == "bias" else 1 + 0.1 * u


def st_gcn_entry(ours: Tensors, key: str) -> Tensor:
    """The part of our tensors that the published code calls `key`, in the published shape."""
    key = key.replace("data_bn", "norm.bn").replace("st_gcn_networks", "blocks").replace("fcn", "fc")
    key = re.sub(r"edge_importance\.(\d+)", r"blocks.\1.edge_importance", key)
    if key.endswith("gcn.conv.weight"):
        return ours[key.replace("conv.", "")].transpose(1, 2)
    return ours[key.replace("gcn.conv.", "gcn.")]


def agcn_entry(ours: Tensors, key: str) -> Tensor:
    """The part of our tensors that the published code calls `key`, in the published shape but for axes of 1."""
    key = re.sub(r"^l(\d+)", lambda block: f"blocks.{int(block[1]) - 1}", key).replace("data_bn", "norm.bn")
    key = key.replace("gcn1", "gcn").replace("tcn1", "tcn").replace("down", "shortcut").replace("PA", "learnt")
    key = re.sub(r"(tcn|residual)\.conv", r"\1.0", key)
    key = re.sub(r"(tcn|residual)\.bn", r"\1.1", key).replace("gcn.bn", "gcn.norm")
    if found := re.fullmatch(r"(.*)\.conv_([abd])\.(\d)\.(weight|bias)", key):
        prefix, letter, subset, leaf = found[1], found[2], int(found[3]), found[4]
        if letter == "d":
            return ours[f"{prefix}.{leaf}"][subset].movedim(0, -1)
        embed = ours[f"{prefix}.embed.{leaf}"]
        return embed.unflatten(0, (2, 3, -1))["ab".index(letter), subset]
    return ours[key]


def hcn_entry(ours: Tensors, key: str) -> Tensor:
    """The part of our tensors that the published code calls `key`."""
    places = {"conv1": "position.0", "conv2": "position.2", "conv3": "position.4.0", "conv4": "position.5.0"}
    places |= {f"{conv}m": place.replace("position", "motion") for conv, place in places.items()}
    places |= {"conv5": "conv5.0", "conv6": "conv6.0", "fc7": "fc0", "fc8": "fc"}
    layer, leaf = key.split(".")[0], key.split(".")[-1]
    return ours[f"{places[layer]}.{leaf}"]


def fill(encoder: nn.Module, numbers: Mapping[str, np.ndarray], entry: Callable[[Tensors, str], Tensor]) -> None:
    state = encoder.state_dict()
    gain, att = float(numbers["weight_gain"]), float(numbers["att_gain"])
    offset = len(numbers["state_sums"]) - len(numbers["state_keys"])
    for k, (key, written) in enumerate(zip(numbers["state_keys"], numbers["state_shapes"], strict=True)):
        value = filling(key, tuple(map(int, written.split("x"))), k, gain, att)
        np.testing.assert_allclose(value.sum(), numbers["state_sums"][k + offset], rtol=1e-9, atol=1e-9, err_msg=key)
        place = entry(state, key)
        place.copy_(torch.from_numpy(value).reshape(place.shape))


CASES = {
    "c_stgcn_utd20_M1_T32": (lambda: StGcn(27, (3, 32, 20, 1), layout="utd-mhad-20", dropout=0.0), st_gcn_entry),
    "c_agcn_utd20_M1_T32": (lambda: Agcn(27, (3, 32, 20, 1), layout="utd-mhad-20"), agcn_entry),
    "c_hcn_utd20_M2_W16_oc16": (lambda: Hcn(27, (3, 16, 20, 2), width=16), hcn_entry),
}


@pytest.fixture(params=CASES, scope="module")
def case(request, golden):
    """(encoder in float64, filled; golden numbers; where the published names are)."""
    numbers = golden(request.param)
    make, entry = CASES[request.param]
    encoder = make().double()
    fill(encoder, numbers, entry)
    return encoder.eval(), numbers, entry


def assert_near(found: Tensor, expected: np.ndarray, rtol: float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=rtol * np.abs(expected).max())


def test_logits_in_float64(case):
    encoder, numbers, _ = case
    key = "logits_eval_f64" if "logits_eval_f64" in numbers else "logits_eval_f32"
    assert_near(encoder(torch.from_numpy(numbers["x"])), numbers[key], 1e-6 if key.endswith("64") else 1e-4)


def test_logits_in_float32(case):
    encoder, numbers, _ = case
    found = deepcopy(encoder).float()(torch.from_numpy(numbers["x"]).float())
    assert_near(found, numbers["logits_eval_f32"], 1e-4)


def test_loss_and_every_gradient(case):
    encoder, numbers, entry = case
    encoder.zero_grad()
    loss = nn.functional.cross_entropy(encoder(torch.from_numpy(numbers["x"])), torch.from_numpy(numbers["labels"]))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    norms = [float(entry(gradients, key).norm()) for key in numbers["param_keys"]]
    assert loss.item() == pytest.approx(float(numbers["ce_eval"]), rel=1e-6)
    np.testing.assert_allclose(norms, numbers["grad_l2_eval"], rtol=1e-4, atol=1e-7 * numbers["grad_l2_eval"].max())


def test_number_of_parameters(case):
    encoder, numbers, _ = case
    assert sum(each.numel() for each in encoder.parameters()) == numbers["n_params"][0]


@pytest.mark.parametrize("case", list(CASES)[:2], indirect=True)
def test_logits_while_training(case):
    encoder, numbers, _ = case
    found = deepcopy(encoder).train()(torch.from_numpy(numbers["x"]))
    assert_near(found, numbers["logits_train_f64"], 1e-6)


@pytest.mark.parametrize("case", list(CASES)[:2], indirect=True)
def test_activations_of_every_block(case):
    encoder, numbers, _ = case
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda module, args, output: outputs.append(output)) for block in encoder.blocks]
    encoder(torch.from_numpy(numbers["x"]))
    for hook in hooks:
        hook.remove()
    assert ["x".join(map(str, output.shape)) for output in outputs] == list(numbers["block_shape"])
    for output, mean_std, head in zip(outputs, numbers["block_mean_std"], numbers["block_head"], strict=True):
        assert_near(output.flatten()[:8], head, 1e-6)
        spread = [float(output.mean().detach()), float(output.std(correction=1).detach())]
        np.testing.assert_allclose(spread, mean_std, rtol=1e-6)


@pytest.mark.parametrize("case", list(CASES)[2:], indirect=True)
def test_stored_weights_of_hcn_are_the_filled_ones(case):
    encoder, numbers, entry = case
    for key in numbers["state_keys"]:
        np.testing.assert_allclose(entry(encoder.state_dict(), key).numpy(), numbers[f"state.{key}"], rtol=1e-12)


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("stgcn_ntu60", lambda: StGcn(60, (3, 300, 25, 2), layout="ntu-25")),
        ("stgcn_kinetics400", lambda: StGcn(400, (3, 300, 18, 2), layout="openpose-18")),
        ("agcn_ntu60", lambda: Agcn(60, (3, 300, 25, 2), layout="ntu-25")),
        ("agcn_kinetics400", lambda: Agcn(400, (3, 300, 18, 2), layout="openpose-18")),
        ("hcn_ntu60_default_W64", lambda: Hcn(60, (3, 64, 25, 2))),
        ("hcn_ntu60_W32", lambda: Hcn(60, (3, 32, 25, 2))),
    ],
)
def test_published_sizes(golden, key, make):
    assert sum(each.numel() for each in make().parameters()) == int(golden("c_param_counts")[key])
