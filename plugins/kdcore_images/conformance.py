"""Cases for `kdcore.testing`: small encoders, to be quick."""

from kdcore.testing import Case

cases = {
    "timm": Case({"model": "resnet10t", "embedding": 6}),
    "vgg16-bn": Case({"width": 0.05, "hidden": 8, "pool": 1}),
}
