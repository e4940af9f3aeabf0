"""Wearable signals: transforms, augmentations, and small encoders."""

from kdcore import hookimpl


@hookimpl
def register_transforms(register):
    """Register the transforms, the random ones last."""
    register("resample", "kdcore_signals.lengths:Resample")
    register("crop", "kdcore_signals.lengths:Crop")
    register("pad", "kdcore_signals.lengths:Pad")
    register("normalise", "kdcore_signals.transforms:Normalise")
    register("scale", "kdcore_signals.transforms:Scale")
    register("magnitude", "kdcore_signals.transforms:Magnitude")
    register("jitter", "kdcore_signals.augmentations:Jitter")
    register("scaling", "kdcore_signals.augmentations:Scaling")
    register("channel-dropout", "kdcore_signals.augmentations:ChannelDropout")
    register("rotation-3d", "kdcore_signals.augmentations:Rotation3d")
    register("time-warp", "kdcore_signals.augmentations:TimeWarp")
    register("time-shift", "kdcore_signals.augmentations:TimeShift")
    register("time-crop", "kdcore_signals.augmentations:TimeCrop")
    register("time-mask", "kdcore_signals.augmentations:TimeMask")


@hookimpl
def register_encoders(register):
    """Register the encoders."""
    register("cnn1d", "kdcore_signals.encoders:Cnn1d")
    register("cnn1d-late-fusion", "kdcore_signals.encoders:LateFusionCnn1d")
    register("cnn2d", "kdcore_signals.encoders:Cnn2d")
    register("lstm", "kdcore_signals.encoders:Lstm")
