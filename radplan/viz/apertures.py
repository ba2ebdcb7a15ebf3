"""Leaves and jaws at control points, seen from the source, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.errors import InputError

_LEAF, _EDGE, _JAW, _OPEN = "#8fa8c9", "#5b7291", "#e0a800", "#fff3d6"
_OUTSIDE = 25.0
"""What is shown beyond the jaws or the opening [mm]."""


def draw_apertures(plan: DeliveryPlan | Sequence[TreatmentField], panels: int = 8, columns: int = 4) -> Figure:
    """Draw leaves and jaws at some control points of a plan, in the collimator's x and y at the isocentre plane.

    Fields share the panels evenly; each shows control points evenly spaced in its monitor units.

    Parameters
    ----------
    plan : DeliveryPlan or sequence of TreatmentField
        What to draw.
    panels : int
        Number of panels, at least one per field.
    columns : int
        Panels in a row.

    Raises
    ------
    InputError
        When there is no field.

    >>> draw_apertures(plan).savefig("apertures.png")  # doctest: +SKIP
    """
    fields = tuple(plan)
    if not fields:
        raise InputError("there is no field to draw")
    chosen = [(field, k) for field in fields for k in _chosen(field, max(panels // len(fields), 1))]
    columns = min(columns, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 3.5 * rows + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (field, k) in zip(axes, chosen, strict=False):
        _draw(place, field, k)
    for place in axes[len(chosen) :]:
        place.axis("off")
    keys = [
        Patch(facecolor=_LEAF, edgecolor=_EDGE, label="leaves"),
        Patch(facecolor=to_rgba(_JAW, 0.3), edgecolor=_JAW, linewidth=2.0, label="jaws"),
        Patch(facecolor=_OPEN, edgecolor="0.7", label="open"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    name = plan.name if isinstance(plan, DeliveryPlan) else f"{len(fields)} fields"
    figure.suptitle(f"{name}: leaves and jaws in the isocentre plane, collimator x and y [mm]", fontsize=11)
    return figure


def _chosen(field: TreatmentField, count: int) -> list[int]:
    """Return control points evenly spaced in monitor units, the first of those that stand alike once."""
    given = np.asarray([point.meterset for point in field.points])
    wanted = (np.arange(count) + 0.5) / count * field.mu
    found = sorted({int(np.argmin(np.abs(given - mu))) for mu in wanted})
    kept: list[int] = []
    for k in found:
        if not kept or not _alike(field.points[kept[-1]], field.points[k]):
            kept.append(k)
    return kept


def _alike(one: ControlPoint, other: ControlPoint) -> bool:
    pairs = ((one.leaves, other.leaves), (one.jaws_x, other.jaws_x), (one.jaws_y, other.jaws_y))
    same = all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)  # type: ignore[arg-type]
    return same and one.gantry == other.gantry


def _draw(axes: Axes, field: TreatmentField, index: int) -> None:
    point = field.points[index]
    x1, x2, y1, y2 = _view(field)
    axes.set_facecolor(_OPEN)
    if point.leaves is not None and field.leaf_boundaries is not None:
        _draw_leaves(axes, field, point, (x1, x2) if field.leaf_axis == "x" else (y1, y2))
    for jaws, line in ((point.jaws_x, axes.axvline), (point.jaws_y, axes.axhline)):
        for position in () if jaws is None else jaws:
            line(float(position), color=_JAW, linewidth=2.0)
    for jaws, span, (low, high) in (
        (point.jaws_x, axes.axvspan, (x1, x2)),
        (point.jaws_y, axes.axhspan, (y1, y2)),
    ):
        if jaws is not None:
            for begin, end in ((low, jaws[0]), (jaws[1], high)):
                span(float(begin), float(end), color=_JAW, alpha=0.3, linewidth=0)
    axes.plot(0.0, 0.0, "+", color="0.25", markersize=8)
    axes.set_xlim(x1, x2)
    axes.set_ylim(y1, y2)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7)
    axes.set_title(
        f"{field.name}, control point {index + 1} of {len(field.points)}\n"
        f"gantry {point.gantry:.0f}°, collimator {point.collimator:.0f}°, {point.meterset:.1f} of {field.mu:.1f} MU",
        fontsize=8,
    )


def _draw_leaves(axes: Axes, field: TreatmentField, point: ControlPoint, reach: tuple[float, float]) -> None:
    boxes = []
    edges, leaves = field.leaf_boundaries, point.leaves
    for low, high, (first, second) in zip(edges[:-1], edges[1:], leaves, strict=True):  # type: ignore[index, arg-type]
        for begin, end in ((min(reach[0], first), first), (second, max(reach[1], second))):
            if field.leaf_axis == "x":
                boxes.append(Rectangle((begin, low), end - begin, high - low))
            else:
                boxes.append(Rectangle((low, begin), high - low, end - begin))
    axes.add_collection(PatchCollection(boxes, facecolor=_LEAF, edgecolor=_EDGE, linewidth=0.3))


def _view(field: TreatmentField) -> tuple[float, float, float, float]:
    """Return what is shown of a field, the same at all its control points: the widest jaws, else the widest opening."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    along = 0 if field.leaf_axis == "x" else 1
    for point in field.points:
        for axis, jaws in enumerate((point.jaws_x, point.jaws_y)):
            if jaws is not None:
                low[axis], high[axis] = min(low[axis], jaws[0]), max(high[axis], jaws[1])
        if point.leaves is None or field.leaf_boundaries is None:
            continue
        opened = np.flatnonzero(point.leaves[:, 1] - point.leaves[:, 0] > 0.5)
        jaws = point.jaws_y if along == 0 else point.jaws_x
        if jaws is not None and opened.size:
            inside = (field.leaf_boundaries[opened + 1] > jaws[0]) & (field.leaf_boundaries[opened] < jaws[1])
            opened = opened[inside]
        if opened.size and (point.jaws_x if along == 0 else point.jaws_y) is None:
            low[along] = min(low[along], point.leaves[opened, 0].min())
            high[along] = max(high[along], point.leaves[opened, 1].max())
        if opened.size and jaws is None:
            low[1 - along] = min(low[1 - along], field.leaf_boundaries[opened[0]])
            high[1 - along] = max(high[1 - along], field.leaf_boundaries[opened[-1] + 1])
    low, high = np.where(np.isfinite(low), low, -200.0), np.where(np.isfinite(high), high, 200.0)
    return (
        float(low[0] - _OUTSIDE), float(high[0] + _OUTSIDE), float(low[1] - _OUTSIDE), float(high[1] + _OUTSIDE)
    )  # fmt: skip
