"""How `kdcore.testing` tests these transforms."""

from kdcore.testing import Case

cases = {
    "crop": Case({"length": 8}),
    "pad": Case({"length": 64}),
    "resample": Case({"length": 32, "anti_aliasing": True}),
}
