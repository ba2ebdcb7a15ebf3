"""Dose, LET and RBE of a particle plan side by side on the CT."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radplan.plan import Plan
from radplan.quantities import Quantity
from radplan.viz.scene import AXIAL, CORONAL, SAGITTAL, Plane, Scene, View
from radplan.viz.slices import draw_dose, gap, isodose_keys

_SHOWN_FROM = 0.05
_AROUND = 40.0
_WHITE = {50.0: (0, (4, 2)), 95.0: "solid"}


def draw_maps(plan: Plan) -> Figure:
    """Dose, LET and RBE in columns, an axial plane and the more telling upright one through the isocentre in rows.

    LET and RBE are shown where dose is at least 5 % of the prescription (of the maximum, where there is none); white
    lines on them are isodoses.

    Parameters
    ----------
    plan : Plan
        What to draw, of a radiation with LET or a variable RBE.

    >>> draw_maps(plan).savefig("maps.png")  # doctest: +SKIP
    """
    names = [plan.prescribed, *ratio_maps(plan)]
    dose = np.asarray(plan[plan.prescribed], dtype=np.float64)
    reference = plan.patient.prescription or max(float(dose.max()), 1e-12)
    word = "prescription" if plan.patient.prescription else "maximum"
    scene = Scene(plan)
    planes = (AXIAL, _upright(plan))
    views = [_reached(scene, plane, dose >= _SHOWN_FROM * reference) for plane in planes]
    heights = [(top - bottom) / (right - left) for left, right, bottom, top in views]
    width = min(4.6, 9.0 / sum(heights))
    size = (width * len(names) + 3.0, width * sum(heights) + 1.9)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.add_gridspec(2, len(names) + 1, width_ratios=(*([width] * len(names)), 2.6), height_ratios=heights)
    for column, name in enumerate(names):
        panels = [figure.add_subplot(parts[row, column]) for row in range(2)]
        cube = np.asarray(plan[name], dtype=np.float64)
        norm = _norm(plan.quantity(name).quantity, cube, dose, reference)
        for axes, plane, view in zip(panels, planes, views, strict=True):
            scene.draw_patient(axes, plane)
            if name == plan.prescribed:
                wash = draw_dose(scene, axes, plane, cube, reference, norm)
            else:
                wash = _draw_ratio(scene, axes, plane, (cube, dose), reference, norm)
            scene.decorate(axes, plane, view, beams=name == plan.prescribed)
        course = " of the course" if plan.is_additive(name) else ""
        bar = figure.colorbar(wash, ax=panels, location="bottom", aspect=30, pad=0.02, extend=_ends(name, plan))
        bar.set_label(f"{plan.title(name)}{course} [{plan.unit(name)}]")
    side = figure.add_subplot(parts[:, -1])
    side.axis("off")
    keys = [*scene.keys(), gap(), *isodose_keys(word, reference, plan.unit(plan.prescribed)), gap(), *_white_keys()]
    side.legend(handles=[*keys, gap(), *scene.mark_keys()], loc="upper left", frameon=False, fontsize=8)
    figure.suptitle(plan.caption(), fontsize=11)
    return figure


def ratio_maps(plan: Plan) -> list[str]:
    """Return which ratios to dose a plan has to show: LET, and RBE where it differs between voxels."""
    images = plan.model.images
    return ["let"] * ("let_dose" in images) + ["rbe"] * ("alpha_dose" in images)


def _upright(plan: Plan) -> Plane:
    """Return the plane, coronal or sagittal, that lies nearer to the beams."""
    if plan.beams is None:
        return CORONAL
    across, along = np.sum([np.abs(beam.source - beam.isocenter)[:2] / beam.sad for beam in plan.beams], axis=0)
    return CORONAL if across >= along else SAGITTAL


def _reached(scene: Scene, plane: Plane, seen: Any) -> View:
    """Return the view of a plane, no farther than a little beyond where dose reaches."""
    ends = scene.view(plane)
    if not seen.any():
        return ends
    found = []
    for k, axis in enumerate((plane.across, plane.up)):
        places = scene.plan.model.grid.axes[axis][np.any(seen, axis=tuple(a for a in range(3) if a != 2 - axis))]
        found += [max(ends[2 * k], float(places[0]) - _AROUND), min(ends[2 * k + 1], float(places[-1]) + _AROUND)]
    return found[0], found[1], found[2], found[3]


def _norm(meant: Quantity, cube: Any, dose: Any, reference: float) -> Normalize:
    if not meant.ratio:
        return Normalize(0.0, max(1.10 * reference, float(cube.max())))
    seen = cube[dose >= _SHOWN_FROM * reference]
    high = float(np.quantile(seen, 0.985)) if seen.size else 1.0
    low = float(np.quantile(seen, 0.005)) if meant.unit == "1" and seen.size else 0.0
    return Normalize(low, max(high, low + 1e-6))


def _ends(name: str, plan: Plan) -> str:
    return "neither" if name == plan.prescribed else "max"


def _draw_ratio(
    scene: Scene, axes: Any, plane: Plane, cubes: tuple[Any, Any], reference: float, norm: Normalize
) -> Any:
    """Draw a ratio where there is dose, and isodoses in white; returns the image for a colour bar."""
    grid = scene.plan.model.grid
    values, dose = (scene.cut(cube, grid, plane) for cube in cubes)
    hidden = ~scene.inside(plane) | (dose < _SHOWN_FROM * reference)
    wash = scene.show(axes, plane, np.ma.masked_where(hidden, values), cmap="inferno", norm=norm, alpha=0.85, zorder=1)
    for percent, style in _WHITE.items():
        level = percent / 100.0 * reference
        if dose.min() < level < dose.max():
            axes.contour(
                *scene.lines(plane), dose, [level], colors="white", linewidths=0.9, linestyles=[style], zorder=2
            )
    return wash


def _white_keys() -> list[Line2D]:
    return [
        Line2D([], [], color="0.6", linewidth=1.0, linestyle=style, label=f"{percent:g} % isodose (white)")
        for percent, style in _WHITE.items()
    ]
