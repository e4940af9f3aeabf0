"""Conformance test cases."""

from kdcore.testing import Case

MAPS = {"low": (6, 8, 8), "high": (8, 4, 4)}

cases = {
    "cross-entropy": [Case(), Case({"class_weights": "balanced"})],
    "binary-cross-entropy": [Case(), Case({"positive_weights": "balanced"}), Case({"positive_weights": {"class 1": 3.0}})],
    "regression": [Case({"error": error}) for error in ("squared", "absolute", "huber")],
    "focal": [Case(), Case({"gamma": 0.5, "class_weights": {"class 1": 3.0}})],
    "top-k": [Case({"k": 3}), Case({"k": 3, "student": "all"})],
    "ttm": [Case(), Case({"weighted": True})],
    "nst": [Case({"kernel": kernel}) for kernel in ("linear", "polynomial", "gaussian")],
    "fitnet": [Case(), Case({"regressor": "never"})],
    "fsp": Case({"pairs": [["low", "low"], ["high", "high"]]}, MAPS),
    "reviewkd": Case({"pairs": [["low", "low"], ["high", "high"]], "width": 6}, MAPS),
    "cat-kd": [Case({}, {"student/features": (6, 6, 6), "teacher/features": (8, 5, 5)}), Case({"normalise": True, "size": 3})],
    "afd": Case({"teacher_taps": ["low", "high"], "student_taps": ["low", "high"], "size": 5}, MAPS),
    "srrl": [Case(), Case({"relu": False}, {"student/features": (6, 3)})],
    "ae-kd": [Case(), Case({"largest_share": 1.0})],
    "crd": [Case({"size": 6}), Case({"size": 6, "by": "sample"})],
    "infonce": Case({"size": 6}),
    "graph-distillation": [Case({"size": 4}), Case({"size": 4, "features": 0.0})],
    "factor-transfer": Case({}, {"features": (8, 6)}),
    "mgd": Case(random_per_sample=True),
}
