"""The cosine between logits."""

from kdcore import hookimpl


@hookimpl
def register_losses(register):
    """Register the loss."""
    register("cosine", "kdcore_cosine.loss:CosineLoss")
