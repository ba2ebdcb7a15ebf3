"""CT, contours and dose in three planes through the isocentre, as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radplan.errors import InputError, UnknownNameError
from radplan.plan import Plan
from radplan.viz.canvas import figure_of, own_axes
from radplan.viz.scene import PLANES, Plane, Scene

ISODOSES = {20.0: "#3949ab", 50.0: "#00acc1", 80.0: "#43a047", 95.0: "#fdd835", 107.0: "#d81b60"}
_WASH_FROM = 10.0


def draw_slices(
    plan: Plan,
    quantity: str | None = None,
    plane: str | None = None,
    slice: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Three orthogonal planes through the isocentre: CT in grey, contours, colour wash and isodoses, beam directions.

    Isodoses are percentages of the prescription; of the maximum, and labelled so, where it is not in that quantity.

    Parameters
    ----------
    plan : Plan
        What to draw.
    quantity : str, optional
        What the colours show; the prescribed one otherwise.
    plane : {"axial", "coronal", "sagittal"}, optional
        One plane alone; axial where only a slice or axes are given.
    slice : float, optional
        Where that plane lies: world z, y or x [mm]; through the isocentre otherwise.
    ax : matplotlib.axes.Axes, optional
        Where to draw that plane; a figure of its own is made otherwise.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, that of `ax` where it was given.

    Raises
    ------
    UnknownNameError
        When no plane has that name.
    InputError
        When the slice lies outside the images.

    >>> draw_slices(plan, plane="coronal", slice=12.5).savefig("slice.png")  # doctest: +SKIP
    """
    if plane is not None or slice is not None or ax is not None:
        return _draw_plane(plan, quantity, plane or "axial", slice, ax)
    quantity = plan.prescribed if quantity is None else quantity
    cube = np.asarray(plan[quantity], dtype=np.float64)
    prescription = plan.patient.prescription if plan.is_prescribed(quantity) else None
    reference = prescription if prescription is not None else max(float(cube.max()), 1e-12)
    word = "prescription" if prescription is not None else "maximum"
    scene = Scene(plan)
    views = [scene.view(plane) for plane in PLANES]
    widths = [(right - left) / (top - bottom) for left, right, bottom, top in views]
    height = min(5.6, 15.0 / sum(widths))
    figure = Figure(figsize=(height * sum(widths) + 4.6, height + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.add_gridspec(1, 4, width_ratios=(*widths, 2.3 / height))
    norm = Normalize(0.0, max(1.10 * reference, float(cube.max())))
    for column, shown in enumerate(PLANES):
        axes = figure.add_subplot(parts[column])
        scene.draw_patient(axes, shown)
        wash = draw_dose(scene, axes, shown, cube, reference, norm)
        scene.decorate(axes, shown, views[column])
    side = figure.add_subplot(parts[3])
    side.axis("off")
    bar = figure.colorbar(wash, ax=side, location="left", fraction=0.12, pad=0.05, aspect=30)
    course = " of the course" if plan.is_additive(quantity) else ""
    bar.set_label(f"{plan.title(quantity)}{course} [{plan.unit(quantity)}]")
    keys = [*scene.keys(), gap(), *isodose_keys(word, reference, plan.unit(quantity)), gap(), *scene.mark_keys()]
    side.legend(handles=keys, loc="upper left", frameon=False, fontsize=9, borderaxespad=0.0)
    figure.suptitle(plan.caption(), fontsize=12)
    return figure


def _draw_plane(plan: Plan, quantity: str | None, name: str, position: float | None, ax: Axes | None) -> Figure:
    """Draw one plane with its colour bar and legend."""
    planes = {plane.name: plane for plane in PLANES}
    if name not in planes:
        raise UnknownNameError("plane", name, planes)
    plane = planes[name]
    center = np.array(plan.isocenter, dtype=np.float64)
    if position is not None:
        known = plan.patient.ct.grid.axes[plane.fixed]
        if not known.min() <= position <= known.max():
            letter = "xyz"[plane.fixed]
            raise InputError(
                f"the images run from {letter} = {known.min():g} to {known.max():g} mm, got slice={position:g}"
            )
        center[plane.fixed] = position
    quantity = plan.prescribed if quantity is None else quantity
    cube = np.asarray(plan[quantity], dtype=np.float64)
    prescription = plan.patient.prescription if plan.is_prescribed(quantity) else None
    reference = prescription if prescription is not None else max(float(cube.max()), 1e-12)
    scene = Scene(plan, center)
    axes = own_axes((9.4, 6.0)) if ax is None else ax
    scene.draw_patient(axes, plane)
    wash = draw_dose(scene, axes, plane, cube, reference, Normalize(0.0, max(1.10 * reference, float(cube.max()))))
    scene.decorate(axes, plane, scene.view(plane))
    figure = figure_of(axes)
    bar = figure.colorbar(wash, ax=axes, fraction=0.046, pad=0.03)
    course = " of the course" if plan.is_additive(quantity) else ""
    bar.set_label(f"{plan.title(quantity)}{course} [{plan.unit(quantity)}]")
    if ax is None:
        word = "prescription" if prescription is not None else "maximum"
        keys = [*scene.keys(), gap(), *isodose_keys(word, reference, plan.unit(quantity))]
        figure.legend(handles=keys, loc="outside right center", frameon=False, fontsize=8)
        axes.set_title(f"{plan.caption()}\n{axes.get_title()}", fontsize=9)
    return figure


def draw_dose(scene: Scene, axes: Axes, plane: Plane, cube: Any, reference: float, norm: Normalize) -> Any:
    """Draw the colour wash from 10 % of the reference on, and isodoses; returns the wash for a colour bar."""
    within = np.ma.masked_where(~scene.inside(plane), scene.cut(cube, scene.plan.model.grid, plane))
    visible = np.ma.masked_less(within, _WASH_FROM / 100.0 * reference)
    wash = scene.show(axes, plane, visible, cmap="turbo", norm=norm, alpha=0.5, zorder=1)
    for percent, color in ISODOSES.items():
        level = percent / 100.0 * reference
        if within.min() < level < within.max():
            axes.contour(*scene.lines(plane), within, [level], colors=[color], linewidths=1.1, zorder=2)
    return wash


def isodose_keys(word: str, reference: float, unit: str) -> list[Line2D]:
    """Keys for the isodoses, and for what 100 % is."""
    keys = [Line2D([], [], linestyle="none", label=f"100 % = {word} {reference:.1f} {unit}")]
    for percent, color in sorted(ISODOSES.items(), reverse=True):
        text = f"{percent:g} %  ({percent / 100 * reference:.1f} {unit})"
        keys.append(Line2D([], [], color=color, linewidth=1.6, label=text))
    return keys


def gap() -> Line2D:
    """Return an empty line for a legend."""
    return Line2D([], [], linestyle="none", label=" ")
