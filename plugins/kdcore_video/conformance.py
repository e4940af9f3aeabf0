"""Cases for `kdcore.testing`: small backbones and clips, to be quick."""

from kdcore.testing import Case

# The kit's own guess is a clip one pixel wide, on which convolutions in bfloat16 on some CPUs return uninitialised memory.
CASE = Case({"backbone": "resnet10t"}, inputs=(4, 3, 32, 32))

cases = {"frames": CASE, "tsn": CASE, "trn": CASE, "tsm": CASE}
