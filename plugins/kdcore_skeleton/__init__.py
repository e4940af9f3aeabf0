"""Skeletons: layouts, graph and co-occurrence encoders, and transforms of joint positions."""

from kdcore import hookimpl


@hookimpl
def register_encoders(register):
    """Register the encoders."""
    register("st-gcn", "kdcore_skeleton.encoders.st_gcn:StGcn")
    register("agcn", "kdcore_skeleton.encoders.agcn:Agcn")
    register("agcn-two-stream", "kdcore_skeleton.encoders.two_stream:AgcnTwoStream")
    register("hcn", "kdcore_skeleton.encoders.hcn:Hcn")


@hookimpl
def register_transforms(register):
    """Register the transforms, the random ones and the join last."""
    register("missing-joints", "kdcore_skeleton.transforms.missing:MissingJoints")
    register("joints-to-channels", "kdcore_skeleton.transforms.time_series:JointsToChannels")
    register("centre", "kdcore_skeleton.transforms.placement:Centre")
    register("view-align", "kdcore_skeleton.transforms.placement:ViewAlign")
    register("skeleton-scale", "kdcore_skeleton.transforms.placement:SkeletonScale")
    register("bones", "kdcore_skeleton.transforms.differences:Bones")
    register("motion", "kdcore_skeleton.transforms.differences:Motion")
    register("random-rotation", "kdcore_skeleton.transforms.augmentations:RandomRotation")
    register("random-scale", "kdcore_skeleton.transforms.augmentations:RandomScale")
    register("drop-joints", "kdcore_skeleton.transforms.augmentations:DropJoints")
    register("broadcast-to-joints", "kdcore_skeleton.transforms.time_series:BroadcastToJoints")
