"""A perceptron over patches of a signal."""

from kdcore import hookimpl


@hookimpl
def register_encoders(register):
    """Register the encoder."""
    register("patches", "kdcore_patches.encoder:PatchPerceptron")
