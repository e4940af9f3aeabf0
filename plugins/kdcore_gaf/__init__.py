"""Wearable signals as images: Gramian angular fields, and image encoders that read them."""

from kdcore import hookimpl


@hookimpl
def register_transforms(register):
    """Gramian angular fields."""
    register("gaf", "kdcore_gaf.field:GramianAngularField")


@hookimpl
def register_encoders(register):
    """Image encoders, (C, H, W) to class logits."""
    register("timm", "kdcore_gaf.backbone:TimmEncoder")
    register("vgg16-bn", "kdcore_gaf.vgg:Vgg16Bn")
