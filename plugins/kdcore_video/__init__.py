"""Video: clips from recordings, optical flow, and encoders of frames (TSN, TRN, TSM)."""

from kdcore import hookimpl


@hookimpl
def register_transforms(register):
    """Register transforms of recordings, clips, optical flow and pixels."""
    register("clip", "kdcore_video.clip:Clip")
    register("motion-crop", "kdcore_video.motion_crop:MotionCrop")
    register("optical-flow", "kdcore_video.flow:OpticalFlow")
    register("random-segments", "kdcore_video.transforms:RandomSegments")
    register("multi-scale-crop", "kdcore_video.transforms:MultiScaleCrop")
    register("flip", "kdcore_video.transforms:Flip")
    register("rgb-difference", "kdcore_video.transforms:RgbDifference")
    register("pixels", "kdcore_video.transforms:Pixels")
    register("depth-range", "kdcore_video.transforms:DepthRange")


@hookimpl
def register_encoders(register):
    """Clip encoders, (S, C, H, W) to class logits."""
    register("frames", "kdcore_video.encoders:Frames")
    register("tsn", "kdcore_video.encoders:Tsn")
    register("trn", "kdcore_video.encoders:Trn")
    register("tsm", "kdcore_video.encoders:Tsm")


@hookimpl
def explain(participant, inputs, score):
    """Class activation of any encoder of images or clips."""
    from kdcore_video.cam import hires_cam

    found = hires_cam(participant.encoder, inputs, score)
    return None if found is None else {"class activation": found}
