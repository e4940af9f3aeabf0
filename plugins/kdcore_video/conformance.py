"""Cases for `kdcore.testing`: small backbones, to be quick."""

from kdcore.testing import Case

cases = {
    "frames": Case({"backbone": "resnet10t"}),
    "tsn": Case({"backbone": "resnet10t"}),
    "trn": Case({"backbone": "resnet10t"}),
    "tsm": Case({"backbone": "resnet10t"}),
}
