"""What most recipes use: the two-stage schedule, transforms and augmentations of signals."""

from kdcore import hookimpl


@hookimpl
def register_schedules(register):
    """Announce the schedules."""
    register("two-stage", "kdcore_standard.two_stage:TwoStage")


@hookimpl
def register_transforms(register):
    """Announce the transforms, the random ones last."""
    register("resample", "kdcore_standard.transforms.resample:Resample")
    register("crop", "kdcore_standard.transforms.length:Crop")
    register("pad", "kdcore_standard.transforms.length:Pad")
    register("normalise", "kdcore_standard.transforms.normalise:Normalise")
    register("scale", "kdcore_standard.transforms.scale:Scale")
    register("magnitude", "kdcore_standard.transforms.magnitude:Magnitude")
    register("jitter", "kdcore_standard.augmentations.noise:Jitter")
    register("scaling", "kdcore_standard.augmentations.noise:Scaling")
    register("channel-dropout", "kdcore_standard.augmentations.noise:ChannelDropout")
    register("rotation-3d", "kdcore_standard.augmentations.rotation:Rotation3d")
    register("time-warp", "kdcore_standard.augmentations.time:TimeWarp")
    register("time-shift", "kdcore_standard.augmentations.time:TimeShift")
    register("time-crop", "kdcore_standard.augmentations.time:TimeCrop")
    register("time-mask", "kdcore_standard.augmentations.time:TimeMask")
