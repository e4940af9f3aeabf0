"""Comparison of the first batch's logits in half precision with those in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdcore.data.table import Table
from kdcore.errors import TrainingError
from kdcore.training.participants import Distiller, evaluating

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from kdcore.training.fabric import OneCpu

TOLERANCE = 0.5
"""Largest accepted difference, as a share of the largest float32 logit. Rounding alone stays well below it."""


@torch.no_grad()
def check_precision(distiller: Distiller, table: Table, rows: Tensor, fabric: Fabric | OneCpu, precision: str) -> None:
    """Run every network on `rows` under the run's autocast and in float32, and compare the logits.

    The half-precision pass runs twice: results that differ point to the platform, equal ones to the network.

    Raises:
        TrainingError: If logits differ by more than `TOLERANCE`, or are not finite in half precision alone.
    """
    if precision == "32-true":
        return
    with evaluating(distiller):
        for name in distiller.networks:
            signal = table.batch(rows, [name]).signals[name]
            exact = distiller.participant(name)(signal).logits.float()
            with fabric.autocast():
                first, second = (distiller.participant(name)(signal).logits.float() for _ in range(2))
            _refuse_difference(name, precision, exact, first, second)


def _refuse_difference(name: str, precision: str, exact: Tensor, first: Tensor, second: Tensor) -> None:
    wrong = [_differs(exact, half) for half in (first, second)]
    if not any(wrong):
        return
    shown = first if wrong[0] else second
    numbers = (
        f"largest logit {float(exact.abs().max()):.3g} in float32, largest difference {float((shown - exact).abs().max()):.3g}"
    )
    if all(wrong) and torch.allclose(first, second, equal_nan=True):
        why = "Its values do not fit this precision. Set engine.precision=32-true, or normalise what it computes"
    else:
        why = (
            "The same pass repeated gave other values, so the fault lies in the processor's or the library's half-precision "
            "arithmetic. Set engine.precision=32-true, or on a CPU the environment variable ONEDNN_MAX_CPU_ISA=AVX2"
        )
    raise TrainingError(f"{name}: logits of the first batch in {precision} do not agree with float32 ({numbers}). {why}")


def _differs(exact: Tensor, half: Tensor) -> bool:
    """True if `half` differs from `exact` by more than rounding. Logits that are not finite in float32 are ignored."""
    known = exact.isfinite()
    if not known.any():
        return False
    difference = (half - exact).abs()[known]
    return not bool((difference <= TOLERANCE * exact[known].abs().max()).all())
