"""How modulated a delivery is: the modulation complexity score and its parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.delivery.timing import positions

Floats = npt.NDArray[np.float64]

_OPEN = 0.05
"""Gap above which a pair counts as open [mm]."""


@dataclass(frozen=True)
class Complexity:
    r"""Scores of a field or a plan, weighted by monitor units; 1 is one open rectangle.

    Parameters
    ----------
    leaf_sequence : float
        LSV: how alike neighbouring leaf ends are, the product over banks of the mean of
        :math:`1 - |p_n - p_{n+1}| / (\max p - \min p)`.
    aperture_area : float
        AAV: open area over that of all shapes of the field together.
    modulation : float
        MCS: the mean of :math:`LSV \cdot AAV` over segments.

    Notes
    -----
    Source: McNiven, Sharpe, Purdie, Med. Phys. 37 (2010) 505; for arcs, with the mean of neighbouring control points,
    Masi et al., Med. Phys. 40 (2013) 071718.
    """

    leaf_sequence: float
    aperture_area: float
    modulation: float


def field_complexity(field: TreatmentField) -> Complexity:
    """Return the scores of a field; all 1 where it has no leaves.

    Pairs that jaws cover, or that are closed, do not count.

    >>> from radplan.beams.control_points import ControlPoint
    >>> ends = [[-10.0, 10.0], [-10.0, 10.0], [0.0, 0.0]]
    >>> points = [ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0], leaves=ends) for m in (0.0, 50.0)]
    >>> field_complexity(TreatmentField("AP", 1, tuple(points), 1000.0, [-10.0, -5.0, 0.0, 5.0])).modulation
    1.0
    """
    leaves = positions(field, "leaves")
    if leaves is None or field.leaf_boundaries is None:
        return Complexity(1.0, 1.0, 1.0)
    visible = _visible(field, leaves)
    widths = np.diff(field.leaf_boundaries)
    opened = np.where(visible, leaves[..., 1] - leaves[..., 0], 0.0)
    low = np.min(np.where(visible, leaves[..., 0], np.inf), axis=0)
    high = np.max(np.where(visible, leaves[..., 1], -np.inf), axis=0)
    whole = float(np.sum(np.where(visible.any(axis=0), high - low, 0.0) * widths, where=np.isfinite(high - low)))
    area = opened @ widths / whole if whole > 0 else np.ones(len(leaves))
    smooth = np.asarray([_bank(ends[:, 0], seen) * _bank(ends[:, 1], seen) for ends, seen in zip(leaves, visible)])
    mu = np.diff([point.meterset for point in field.points])
    share = mu / mu.sum() if mu.sum() > 0 else np.full(mu.size, 1.0 / mu.size)
    area_between = 0.5 * (area[:-1] + area[1:])
    smooth_between = 0.5 * (smooth[:-1] + smooth[1:])
    return Complexity(
        float(share @ smooth_between), float(share @ area_between), float(share @ (smooth_between * area_between))
    )


def plan_complexity(plan: DeliveryPlan) -> Complexity:
    """Return the scores of a plan: those of its fields, weighted by their monitor units."""
    share = np.asarray([field.mu for field in plan.fields])
    share = share / share.sum() if share.sum() > 0 else np.full(share.size, 1.0 / share.size)
    parts = [field_complexity(field) for field in plan.fields]
    return Complexity(
        float(share @ [part.leaf_sequence for part in parts]),
        float(share @ [part.aperture_area for part in parts]),
        float(share @ [part.modulation for part in parts]),
    )


def _visible(field: TreatmentField, leaves: Floats) -> npt.NDArray[np.bool_]:
    """Return which pairs are open and not covered by jaws, (control points, pairs)."""
    across, along = ("jaws_y", "jaws_x") if field.leaf_axis == "x" else ("jaws_x", "jaws_y")
    visible: npt.NDArray[np.bool_] = leaves[..., 1] - leaves[..., 0] > _OPEN
    edges = np.asarray(field.leaf_boundaries)
    for name in (across, along):
        jaws = positions(field, name)
        if jaws is None:
            continue
        low, high = jaws[:, :1], jaws[:, 1:]
        if name == across:
            visible &= (edges[1:] > low) & (edges[:-1] < high)
        else:
            visible &= (leaves[..., 1] > low) & (leaves[..., 0] < high)
    return visible


def _bank(ends: Floats, seen: npt.NDArray[np.bool_]) -> float:
    """Return how alike neighbouring leaf ends of one bank are, in [0, 1]."""
    pairs = np.flatnonzero(seen)
    neighbours = pairs[:-1][np.diff(pairs) == 1]
    if neighbours.size == 0:
        return 1.0
    spread = float(np.ptp(ends[pairs]))
    if spread == 0.0:
        return 1.0
    return float(np.mean(1.0 - np.abs(ends[neighbours + 1] - ends[neighbours]) / spread))
