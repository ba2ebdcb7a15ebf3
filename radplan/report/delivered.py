"""What beams deliver as plain data for a page: fluence of bixels, spots by layer, leaves and jaws by control point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from radplan.beams.beam import Beam
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.plan import Plan

_MOST_POINTS = 90
"""Control points of a field that a page shows."""

_OUTSIDE = 15.0


def beam_data(plan: Plan) -> list[dict[str, Any]]:
    """Return the weights of every beam where bixels or spots are known: one layer for photons, one per energy for ions.

    Positions are those in the isocentre plane, beam-limiting device x and y [mm], as the source sees them.
    """
    if plan.beams is None or sum(beam.count for beam in plan.beams) != plan.x.size:
        return []
    drawn, first = [], 0
    for number, beam in enumerate(plan.beams, start=1):
        weights, first = plan.x[first : first + beam.count], first + beam.count
        drawn.append(_beam(number, beam, weights))
    return drawn


def field_data(delivery: DeliveryPlan) -> list[dict[str, Any]]:
    """Return leaves and jaws of every field in the isocentre plane [mm]; of long fields some of the points."""
    return [_field(field) for field in delivery]


def _beam(number: int, beam: Beam, weights: NDArray[np.float64]) -> dict[str, Any]:
    low, high = beam.bixels.min(axis=0) - _OUTSIDE, beam.bixels.max(axis=0) + _OUTSIDE
    told = {
        "title": f"beam {number}: gantry {beam.gantry:g}°, couch {beam.couch:g}°",
        "view": _rounded([low[0], high[0], low[1], high[1]]),
        "width": float(beam.bixel_width),
    }
    if beam.energies is None:
        layer = _layer(beam.bixels, weights, f"{np.count_nonzero(weights)} of {beam.count} bixels with fluence")
        return {**told, "kind": "bixels", "unit": "(fluence of one MU)", "layers": [layer]}
    energies = np.asarray(beam.energies)
    layers = []
    for energy in np.unique(energies)[::-1]:
        here = (energies == energy) & (weights > 0.0)
        if here.any():
            label = f"{energy:.1f} MeV/u: {np.count_nonzero(here)} of {np.count_nonzero(energies == energy)} spots"
            layers.append(_layer(beam.bixels[here], weights[here], label))
    return {**told, "kind": "spots", "unit": "10⁶ particles per fraction", "layers": layers or [_empty()]}


def _layer(positions: Any, weights: Any, label: str) -> dict[str, Any]:
    return {
        "label": label,
        "positions": [_rounded(p) for p in positions],
        "weights": [float(f"{w:.4g}") for w in weights],
    }


def _empty() -> dict[str, Any]:
    return {"label": "no spot is used", "positions": [], "weights": []}


def _field(field: TreatmentField) -> dict[str, Any]:
    step = max(1, -(-len(field.points) // _MOST_POINTS))
    chosen = list(range(0, len(field.points), step))
    points = [_point(field, k) for k in chosen]
    return {
        "title": f"{field.name}: {field.mu:.1f} MU, {len(field.points)} control points",
        "kind": "leaves",
        "axis": field.leaf_axis,
        "edges": [] if field.leaf_boundaries is None else _rounded(field.leaf_boundaries),
        "view": _view(field),
        "points": points,
    }


def _point(field: TreatmentField, k: int) -> dict[str, Any]:
    point = field.points[k]
    return {
        "label": f"control point {k + 1} of {len(field.points)}: gantry {point.gantry:.1f}°, "
        f"collimator {point.collimator:.0f}°, {point.meterset:.1f} MU given",
        "jaws_x": None if point.jaws_x is None else _rounded(point.jaws_x),
        "jaws_y": None if point.jaws_y is None else _rounded(point.jaws_y),
        "leaves": None if point.leaves is None else [_rounded(pair) for pair in point.leaves],
    }


def _view(field: TreatmentField) -> list[float]:
    """Return what is shown, the same at all control points: the widest opening of leaves and jaws, and 15 mm."""
    boxes = [_opening(field, point) for point in field.points]
    low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
    return _rounded([low[0] - _OUTSIDE, high[0] + _OUTSIDE, low[1] - _OUTSIDE, high[1] + _OUTSIDE])


def _opening(field: TreatmentField, point: ControlPoint) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower and upper corner (x, y) of jaws and open leaves [mm]."""
    low, high = np.full(2, -200.0), np.full(2, 200.0)
    for axis, jaws in enumerate((point.jaws_x, point.jaws_y)):
        if jaws is not None:
            low[axis], high[axis] = jaws
    if point.leaves is None or field.leaf_boundaries is None:
        return low, high
    along = 0 if field.leaf_axis == "x" else 1
    opened = np.flatnonzero(point.leaves[:, 1] - point.leaves[:, 0] > 0.5)
    if opened.size:
        across = 1 - along
        low[along] = max(low[along], float(point.leaves[opened, 0].min()))
        high[along] = min(high[along], float(point.leaves[opened, 1].max()))
        low[across] = max(low[across], float(field.leaf_boundaries[opened[0]]))
        high[across] = min(high[across], float(field.leaf_boundaries[opened[-1] + 1]))
    return low, high


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 2) for value in values]
