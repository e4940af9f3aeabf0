"""Transforms of joint positions."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdcore import KdcoreError, Signal
from kdcore_skeleton.layout import Layout
from kdcore_skeleton.layouts import LAYOUTS
from kdcore_skeleton.transforms.augmentations import DropJoints, RandomRotation, RandomScale
from kdcore_skeleton.transforms.differences import Bones, Motion
from kdcore_skeleton.transforms.missing import MissingJoints
from kdcore_skeleton.transforms.placement import Centre, SkeletonScale, ViewAlign, _latest
from kdcore_skeleton.transforms.time_series import BroadcastToJoints

UTD = LAYOUTS["utd-mhad-20"]
SEEDS = st.integers(0, 2**16)


def skeletons(seed: int = 0, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 6, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def distances(x: Tensor) -> Tensor:
    """Between all joints of all persons in each frame."""
    points = x[:, :3].permute(0, 2, 3, 4, 1).flatten(2, 3)
    return torch.cdist(points, points)


def random_rotation(seed: int) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    q = q * r.diagonal().sign()
    return q * q.det()


def recorded(recordings, number: int = 3) -> Tensor:
    files = sorted((recordings / "utd-mhad" / "Skeleton").glob("*_skeleton.mat"))[::200]
    values = scipy.io.loadmat(files[number])["d_skel"]
    return torch.from_numpy(values.transpose(1, 2, 0))[None, ..., None]


class TestCentre:
    def test_every_frame(self):
        x = skeletons()
        out = Centre(layout=UTD, joint="hip-centre")(x)
        assert out[:, :, :, UTD.index("hip-centre"), 0].abs().max() == 0
        torch.testing.assert_close(distances(out), distances(x))

    def test_first_frame_keeps_the_way_walked(self):
        x = skeletons()
        out = Centre(layout=UTD, frame="first")(x)
        assert out[:, :, 0, UTD.index("shoulder-centre"), 0].abs().max() == 0
        torch.testing.assert_close(out.diff(dim=2), x.diff(dim=2))

    def test_unseen_joints_and_absent_persons_stay_zero(self):
        x = skeletons()
        x[:, :, :, 7] = 0
        x[..., 1] = 0
        out = Centre(layout=UTD)(x)
        assert out[:, :, :, 7].abs().max() == out[..., 1].abs().max() == 0
        assert out[:, :, :, 6, 0].abs().min() > 0

    def test_origin_is_the_last_one_seen(self):
        x = skeletons()
        joint = UTD.index("shoulder-centre")
        x[:, :, [0, 3], joint] = 0
        out = Centre(layout=UTD)(x)
        for frame, source in enumerate([1, 1, 2, 2, 4, 5]):
            torch.testing.assert_close(out[:, :, frame, 0], x[:, :, frame, 0] - x[:, :, source, joint, :1])

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
    @pytest.mark.parametrize("frames", [1, 2, 33])
    def test_origin_equals_a_running_maximum(self, frames, share):
        seen = torch.rand(16, frames, generator=torch.Generator().manual_seed(0)) < share
        known = torch.where(seen, torch.arange(frames), seen.int().argmax(dim=1, keepdim=True))
        assert torch.equal(_latest(seen), known.cummax(dim=1).values)

    def test_further_channels_are_left_alone(self):
        x = skeletons(channels=6)
        assert Centre(layout=UTD)(x)[:, 3:].equal(x[:, 3:])


class TestViewAlign:
    @settings(max_examples=20, deadline=None)
    @given(SEEDS)
    def test_does_not_depend_on_the_camera(self, seed):
        x = skeletons(seed)
        seen_from_elsewhere = torch.einsum("ij,bjtvm->bitvm", random_rotation(seed), x)
        torch.testing.assert_close(ViewAlign(layout=UTD)(seen_from_elsewhere), ViewAlign(layout=UTD)(x))

    @settings(max_examples=20, deadline=None)
    @given(SEEDS)
    def test_is_upright_and_rigid(self, seed):
        x = skeletons(seed)
        out = ViewAlign(layout=UTD)(x)
        torch.testing.assert_close(distances(out), distances(x))
        left_shoulder, right_shoulder, left_hip, right_hip = (
            out[:, :, 0, UTD.index(joint), 0] for joint in ("left-shoulder", "right-shoulder", "left-hip", "right-hip")
        )
        up = left_shoulder + right_shoulder - left_hip - right_hip
        across = right_shoulder + right_hip - left_shoulder - left_hip
        assert up[:, [0, 2]].abs().max() < 1e-9
        assert up[:, 1].min() > 0
        assert across[:, 2].abs().max() < 1e-9
        assert across[:, 0].min() > 0

    def test_handedness_is_kept(self):
        x = skeletons()
        mirrored = x * x.new_tensor([-1, 1, 1]).view(1, 3, 1, 1, 1)
        assert not torch.allclose(ViewAlign(layout=UTD)(mirrored), ViewAlign(layout=UTD)(x))
        volumes = [each[:, :, 0, :3, 0].det().sign() for each in (x, ViewAlign(layout=UTD)(x))]
        assert volumes[0].equal(volumes[1])

    def test_hardly_turns_who_faces_the_camera(self, recordings):
        x = recorded(recordings)
        origin = x[:, :, :1, 3:4]
        moved = (ViewAlign(layout=UTD)(x - origin) - (x - origin)).norm(dim=1)
        assert moved.max() < 0.25, "metres, a person within arm's reach of the hips"

    @pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "utd-mhad-20"])
    def test_any_layout(self, layout):
        x = torch.randn(1, 3, 2, len(LAYOUTS[layout]), 1, dtype=torch.float64)
        torch.testing.assert_close(ViewAlign(layout=layout)(x).norm(dim=1), x.norm(dim=1))

    def test_nothing_turns_without_a_torso(self):
        x = skeletons()
        x[0, :, :, UTD.index("left-hip")] = 0
        out = ViewAlign(layout=UTD)(x)
        assert out[0].equal(x[0])
        assert not torch.allclose(out[1], x[1])

    def test_first_frame_that_has_all_counts(self):
        x = skeletons()
        x[:, :, 0, UTD.index("left-hip"), 0] = 0
        torch.testing.assert_close(ViewAlign(layout=UTD)(x)[:, :, 1:], ViewAlign(layout=UTD)(x[:, :, 1:]))


class TestSkeletonScale:
    @settings(max_examples=20, deadline=None)
    @given(SEEDS, st.floats(0.1, 10))
    def test_does_not_depend_on_size(self, seed, size):
        x = skeletons(seed)
        torch.testing.assert_close(SkeletonScale(layout=UTD)(x * size), SkeletonScale(layout=UTD)(x))

    def test_torso_of_a_recorded_person_becomes_one(self, recordings):
        x = SkeletonScale(layout=UTD)(recorded(recordings))[0, :, :, :, 0]
        torso = (x[:, :, [4, 8]].mean(dim=2) - x[:, :, [12, 16]].mean(dim=2)).norm(dim=0)
        assert torso.mean().item() == pytest.approx(1)

    def test_absent_person_is_left_alone(self):
        assert SkeletonScale(layout=UTD)(torch.zeros(1, 3, 4, 20, 1)).equal(torch.zeros(1, 3, 4, 20, 1))


class TestDifferences:
    def test_bones_equal_published(self, golden):
        numbers = golden("c_adjacency")
        out = Bones(layout="ntu-25")(torch.from_numpy(numbers["bone.ntu25.example_joint"]))
        np.testing.assert_allclose(out.numpy(), numbers["bone.ntu25.example_bone"], rtol=1e-12)

    def test_motion_equals_published(self, golden):
        numbers = golden("c_adjacency")
        out = Motion()(torch.from_numpy(numbers["bone.ntu25.example_joint"]))
        np.testing.assert_allclose(out.numpy(), numbers["motion.example"], rtol=1e-12)

    @pytest.mark.parametrize("transform", [partial(Bones, layout=UTD), Motion])
    def test_further_channels(self, transform):
        x = skeletons(channels=5)
        out, appended = transform()(x), transform(append=True)(x)
        assert out[:, 3:].equal(x[:, 3:])
        assert appended[:, :5].equal(x)
        assert appended[:, 5:].equal(out[:, :3])

    def test_bones_do_not_depend_on_place(self):
        x = skeletons()
        torch.testing.assert_close(Bones(layout=UTD)(x + 5), Bones(layout=UTD)(x))


class TestAugmentations:
    @settings(max_examples=20, deadline=None)
    @given(SEEDS)
    def test_rotation_is_rigid_and_within_bounds(self, seed):
        torch.manual_seed(seed)
        x = skeletons(seed)
        out = RandomRotation(degrees=(0, 20, 0))(x)
        torch.testing.assert_close(distances(out), distances(x))
        torch.testing.assert_close(out[:, 1], x[:, 1])
        before, after = (torch.atan2(each[:, 0], each[:, 2]) for each in (x, out))
        turned = torch.rad2deg((after - before + math.pi) % (2 * math.pi) - math.pi)
        assert turned.abs().max() <= 20
        assert (turned - turned[:, :1, :1, :1]).abs().max() < 1e-6, "one angle for a whole sample"
        assert turned[0, 0, 0, 0] != pytest.approx(turned[1, 0, 0, 0].item()), "another for the next"

    def test_rotation_keeps_handedness_about_all_axes(self):
        x = torch.eye(3, dtype=torch.float64).expand(8, 3, 3)[:, :, None, :, None]
        turned = RandomRotation(degrees=(180, 180, 180))(x)[:, :, 0, :, 0]
        torch.testing.assert_close(torch.linalg.det(turned), torch.ones(8, dtype=torch.float64))

    @pytest.mark.parametrize("per_axis", [False, True])
    def test_scale(self, per_axis):
        x = skeletons(channels=4)
        out = RandomScale(spread=0.2, per_axis=per_axis)(x)
        factor = (out / x).flatten(2)
        assert out[:, 3:].equal(x[:, 3:])
        assert ((factor - 1).abs() <= 0.2 + 1e-9).all()
        torch.testing.assert_close(factor.amax(dim=2), factor.amin(dim=2))
        assert torch.allclose(factor[:, 0], factor[:, 1]) != per_axis

    def test_dropped_joints_are_gone_in_all_frames(self):
        torch.manual_seed(0)
        x = torch.ones(64, 4, 3, 20, 2)
        out = DropJoints(share=0.25)(x)
        assert out[:, 3:].equal(x[:, 3:])
        kept = out[:, :3].flatten(1, 2)
        assert kept.amax(dim=1).equal(kept.amin(dim=1))
        assert kept.mean().item() == pytest.approx(0.75, abs=0.03)

    def test_they_are_for_training_only(self):
        assert RandomRotation.augmentation
        assert RandomScale.augmentation
        assert DropJoints.augmentation


class TestMissingJoints:
    def signal(self) -> Signal:
        """One joint of two, one of two persons; x runs with time, y against it; times are not evenly spaced."""
        times = np.array([0.0, 1.0, 3.0, 4.0, 6.0])
        values = np.zeros((5, 2, 3, 2))
        values[:, :, 0, 0] = 1 + times[:, None]
        values[:, :, 1, 0] = 9 - times[:, None]
        return Signal(values, 1.0, times=times)

    @pytest.mark.parametrize("mark", [0.0, np.nan])
    def test_interpolates_in_time(self, mark):
        signal = self.signal()
        whole = signal.values.copy()
        signal.values[[1, 2], 0, :, 0] = mark
        np.testing.assert_allclose(MissingJoints()(signal).values, whole, rtol=1e-12)

    def test_ends_repeat_the_nearest(self):
        signal = self.signal()
        whole = signal.values.copy()
        signal.values[[0, 3, 4], 1, :, 0] = np.nan
        out = MissingJoints()(signal).values
        np.testing.assert_array_equal(out[[0, 3, 4], 1, :, 0], whole[[1, 2, 2], 1, :, 0])
        np.testing.assert_array_equal(out[:, 0], whole[:, 0])

    def test_holds_the_last_seen(self):
        signal = self.signal()
        whole = signal.values.copy()
        signal.values[[0, 2, 3], 0, :, 0] = 0
        out = MissingJoints(fill="hold")(signal).values
        np.testing.assert_array_equal(out[:, 0, :, 0], whole[[1, 1, 1, 1, 4], 0, :, 0])

    @pytest.mark.parametrize("fill", ["interpolate", "hold", "zero"])
    def test_nothing_is_made_up_for_who_was_never_seen(self, fill):
        signal = self.signal()
        signal.values[:, 1, :, 0] = np.nan
        signal.values[2, 0, 1, 0] = np.inf
        before = signal.values.copy()
        out = MissingJoints(fill=fill)(signal).values
        assert np.isfinite(out).all()
        assert not out[:, 1].any()
        assert not out[..., 1].any()
        assert out[2, 0].any() == (fill != "zero")
        np.testing.assert_array_equal(signal.values, before)

    def test_refuses_other_signals(self):
        with pytest.raises(ValueError, match="joint"):
            MissingJoints()(Signal(np.zeros((5, 3)), 50.0))


class TestBroadcastToJoints:
    def test_every_joint_has_the_sensors(self):
        skeleton, acc, gyro = skeletons(), torch.randn(2, 3, 6).double(), torch.randn(2, 3, 6).double()
        out = BroadcastToJoints()((acc, skeleton, gyro))
        assert out.shape == (2, 9, 6, 20, 2)
        assert out[:, :3].equal(skeleton)
        for joint in (0, 7, 19):
            for person in (0, 1):
                assert out[:, 3:6, :, joint, person].equal(acc)
                assert out[:, 6:, :, joint, person].equal(gyro)

    @pytest.mark.parametrize("samples", [2, 5, 30])
    def test_other_lengths_are_interpolated(self, samples):
        line = torch.linspace(0, 1, samples, dtype=torch.float64).expand(2, 3, samples)
        out = BroadcastToJoints()((skeletons(), line))
        torch.testing.assert_close(out[:, 3, :, 0, 0], torch.linspace(0, 1, 6, dtype=torch.float64).expand(2, 6))

    @pytest.mark.parametrize("parts", [(skeletons(), skeletons()), (torch.zeros(2, 3, 6),), (skeletons(), torch.zeros(2, 6))])
    def test_refuses_anything_else(self, parts):
        with pytest.raises(ValueError, match="one skeleton"):
            BroadcastToJoints()(parts)


class TestSkeletonsOfAnotherKind:
    @pytest.mark.parametrize(
        ("transform", "layout"),
        [(Centre, "coco-17"), (ViewAlign, "ntu-25"), (SkeletonScale, "coco-17"), (Bones, "ntu-25"), (Bones, "coco-17")],
    )
    def test_a_wrong_layout_is_named(self, transform, layout):
        said = rf"^[a-z-]+: the input has 20 joints, but its layout has {layout[-2:]} \({layout}\); set `layout`"
        with pytest.raises(ValueError, match=said) as caught:
            transform(layout=layout)(skeletons())
        assert isinstance(caught.value, KdcoreError), "told as a plugin's failure otherwise"

    def test_a_layout_spelt_out_is_checked_too(self):
        arm = Layout(("chest", "left-hand"), (("left-hand", "chest"),), centre="chest")
        with pytest.raises(ValueError, match="20 joints, but its layout has 2; set"):
            Centre(layout=arm)(skeletons())

    @pytest.mark.parametrize("transform", [ViewAlign(layout=UTD), RandomRotation()])
    def test_keypoints_of_a_picture_do_not_turn_in_space(self, transform):
        with pytest.raises(ValueError, match="needs 3 coordinates, these joints have 2") as caught:
            transform(skeletons(channels=2))
        assert isinstance(caught.value, KdcoreError)

    @pytest.mark.parametrize(
        "transform", [Centre(layout=UTD), SkeletonScale(layout=UTD), Bones(layout=UTD), RandomScale(), DropJoints()]
    )
    def test_keypoints_of_a_picture_are_read_otherwise(self, transform):
        assert transform(skeletons(channels=2)).shape == (2, 2, 6, 20, 2)

    def test_checks_are_no_hindrance_to_an_export(self):
        graph = torch.nn.Sequential(Centre(layout=UTD), ViewAlign(layout=UTD), SkeletonScale(layout=UTD), Bones(layout=UTD))
        x = skeletons()
        exported = torch.export.export(graph, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        torch.testing.assert_close(exported(x[:1].expand(3, -1, -1, -1, -1)), graph(x[:1].expand(3, -1, -1, -1, -1)))
