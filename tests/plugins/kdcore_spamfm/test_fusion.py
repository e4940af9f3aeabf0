"""Teachers run in lockstep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdcore import Batch, Encoder, Participant
from kdcore_spamfm.fusion import SpamfmFusion
from kdcore_spamfm.spamfm import Spamfm


class Sensor(Encoder):
    def __init__(self, channels=6, inputs=3, extra=False):
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        if extra:
            self.middle = nn.AvgPool2d(2)
        self.block2 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.fc1 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
        self.classifier = nn.Sequential(nn.ReLU(), nn.Linear(5, 4))

    def stages(self):
        return dict(self.named_children())

    def forward(self, x):
        for stage in self.children():
            x = stage(x)
        return x


TAPS = {"map": "block1", "inner": "block1.1", "embedding": "fc1"}
AT = ("block1", "block2", "fc1")


def team(**encoders):
    torch.manual_seed(0)
    return {name: Participant(name, encoder, TAPS).eval() for name, encoder in encoders.items()}


def batch_for(teachers, size=4, side=8):
    generator = torch.Generator().manual_seed(1)
    signals = {
        name: torch.randn(size, next(each.parameters()).shape[1], side, side, generator=generator)
        for name, each in teachers.items()
    }
    return Batch(torch.arange(size), signals, None)


@pytest.fixture
def teachers():
    return team(acc=Sensor(), gyro=Sensor(inputs=2, extra=True))


def built(teachers, batch, **options):
    fusion = SpamfmFusion(at=AT, **options)
    fusion.setup(teachers, batch)
    return fusion.eval()


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_lockstep_is_stages_and_modules_in_turn(teachers, variant):
    batch = batch_for(teachers)
    fusion = built(teachers, batch, variant=variant)
    acc, gyro = teachers["acc"].encoder, teachers["gyro"].encoder
    one, two, three = fusion.layers
    a, g = one([acc.block1(batch.signals["acc"]), gyro.block1(batch.signals["gyro"])])
    maps = {"acc": a, "gyro": g}
    a, g = two([acc.block2(a), gyro.block2(gyro.middle(g))])
    a, g = three([acc.fc1(a), gyro.fc1(g)])
    outputs = fusion(teachers, batch)
    torch.testing.assert_close(outputs["acc"].logits, acc.classifier(a))
    torch.testing.assert_close(outputs["gyro"].logits, gyro.classifier(g))
    for name, embedding in {"acc": a, "gyro": g}.items():
        torch.testing.assert_close(outputs[name].features["map"], maps[name])
        torch.testing.assert_close(outputs[name].features["embedding"], embedding)


def test_gates_of_one_leave_teachers_as_they_are_alone(teachers, monkeypatch):
    batch = batch_for(teachers)
    fusion = built(teachers, batch)
    monkeypatch.setattr(Spamfm, "gates", lambda self, pooled: [torch.ones_like(each) for each in pooled])
    outputs = fusion(teachers, batch)
    for name, teacher in teachers.items():
        alone = teacher(batch.signals[name])
        torch.testing.assert_close(outputs[name].logits, alone.logits)
        assert outputs[name].features.keys() == alone.features.keys() == TAPS.keys()
        for tap, value in alone.features.items():
            torch.testing.assert_close(outputs[name].features[tap], value)


def test_inner_tap_is_not_recalibrated(teachers):
    batch = batch_for(teachers)
    outputs = built(teachers, batch)(teachers, batch)
    norm = teachers["acc"].encoder.get_submodule("block1.1")
    conv = teachers["acc"].encoder.get_submodule("block1.0")
    torch.testing.assert_close(outputs["acc"].features["inner"], norm(conv(batch.signals["acc"])))


def test_setup_leaves_teachers_untouched(teachers):
    batch = batch_for(teachers)
    before = {name: {k: v.clone() for k, v in each.state_dict().items()} for name, each in teachers.items()}
    built(teachers, batch)
    for name, each in teachers.items():
        assert each.collect(torch.zeros(1)).features == {}
        assert all(torch.equal(value, before[name][key]) for key, value in each.state_dict().items())


def test_a_sample_depends_on_its_batch(teachers):
    assert SpamfmFusion.batch_dependent
    batch = batch_for(teachers)
    fusion = built(teachers, batch, variant="official")
    alone = Batch(batch.rows[:1], {name: each[:1] for name, each in batch.signals.items()}, None)
    together, single = fusion(teachers, batch)["acc"].logits[:1], fusion(teachers, alone)["acc"].logits
    assert single.isfinite().all()
    assert not torch.allclose(together, single, atol=1e-6)


def test_every_teacher_and_module_learns(teachers):
    batch = batch_for(teachers)
    fusion = built(teachers, batch, variant="official").train()
    sum(each.logits.square().sum() for each in fusion(teachers, batch).values()).backward()
    for parameter in fusion.parameters():
        assert parameter.grad is not None
    first = teachers["gyro"].encoder.get_submodule("block1.0").weight
    assert first.grad.abs().sum() > 0


def test_one_teachers_signal_reaches_the_other(teachers):
    batch = batch_for(teachers)
    batch.signals["gyro"].requires_grad_()
    outputs = built(teachers, batch, variant="official")(teachers, batch)
    (gradient,) = torch.autograd.grad(outputs["acc"].logits.sum(), batch.signals["gyro"])
    assert gradient.abs().sum() > 0


def test_state_round_trips(teachers):
    batch = batch_for(teachers)
    first, second = built(teachers, batch), built(teachers, batch)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(teachers, batch)["acc"].logits, first(teachers, batch)["acc"].logits)


def test_unequal_channels_are_named_and_can_be_projected():
    teachers = team(acc=Sensor(6), gyro=Sensor(8))
    batch = batch_for(teachers)
    with pytest.raises(ValueError, match=r"block1.*'acc': 6, 'gyro': 8.*projection"):
        built(teachers, batch)
    outputs = built(teachers, batch, projection=True)(teachers, batch)
    assert outputs["gyro"].features["map"].shape == (4, 8, 8, 8)


@pytest.mark.parametrize(("at", "message"), [(("block9",), "no stage block9.*block1"), (("fc1", "block1"), "order")])
def test_wrong_stages_are_named(teachers, at, message):
    with pytest.raises(ValueError, match=message):
        SpamfmFusion(at=at).setup(teachers, batch_for(teachers))


def test_encoder_without_stages_is_named():
    teachers = {"acc": Participant("acc", nn.Flatten())}
    with pytest.raises(ValueError, match="'acc', Flatten"):
        SpamfmFusion(at=("block1",)).setup(teachers, Batch(torch.arange(1), {"acc": torch.zeros(1, 2)}, None))


def test_other_teachers_than_set_up_are_refused(teachers):
    batch = batch_for(teachers)
    with pytest.raises(ValueError, match="acc, gyro together, not acc"):
        built(teachers, batch)({"acc": teachers["acc"]}, batch)


def test_vgg16_teachers_fuse_at_the_seven_layers_of_the_paper():
    vgg = pytest.importorskip("kdcore_images.vgg")
    stages = ("block1", "block2", "block3", "block4", "block5", "fc1", "fc2")
    encoders = [vgg.Vgg16Bn(4, (3, 32, 32), width=0.05, hidden=10, pool=1) for _ in range(2)]
    teachers = {name: Participant(name, each, {s: s for s in stages}).eval() for name, each in zip("ab", encoders, strict=True)}
    batch = Batch(torch.arange(2), {name: torch.randn(2, 3, 32, 32) for name in teachers}, None)
    fusion = SpamfmFusion(at=stages)
    fusion.setup(teachers, batch)
    outputs = fusion(teachers, batch)
    assert len(fusion.layers) == 7
    assert set(outputs["a"].features) == set(stages)
    assert outputs["b"].logits.shape == (2, 4)
