"""Figures of a recalculated plan: its DVHs over the reference's, and the two doses with their difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.io.staging import staged
from radplan.plan import dvh_bands
from radplan.recalc.comparison import Comparison
from radplan.recalc.ions import IonRecalculation
from radplan.recalc.recalculate import Recalculation
from radplan.viz.apertures import draw_apertures
from radplan.viz.canvas import save_png
from radplan.viz.dvh import draw_dvh
from radplan.viz.maps import draw_maps
from radplan.viz.palette import structure_colors
from radplan.viz.scene import AXIAL, CORONAL, Plane
from radplan.viz.slices import draw_slices
from radplan.viz.spots import draw_spots

_DASHED = (0, (4, 2))
_GRAY = (-360.0, 440.0)
_DOSES = {
    "physical_dose": "Physical dose of the course [Gy]",
    "rbe_x_dose": "RBE-weighted dose of the course [Gy(RBE)]",
}


def draw_dvh_comparison(recalculation: Recalculation | IonRecalculation, title: str | None = None) -> Figure:
    """Draw the DVHs over those of the reference: as calculated and, where it was asked for, times the one factor.

    Where there are scenarios, bands show how far their DVHs reach.

    Raises
    ------
    InputError
        When there is no reference.
    """
    comparison = _comparison(recalculation)
    panels: list[tuple[float, str]] = [(1.0, "as calculated")]
    if comparison.factor is not None:
        text = f"times {comparison.factor:.3f}, so that the mean of {comparison.fitted_to} agrees"
        panels.append((comparison.factor, text))
    figure = Figure(figsize=(5.6 * len(panels) + 2.6, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    curves = recalculation.dvh()
    several = len(recalculation.plan.model.scenarios) > 1
    bands = dvh_bands(recalculation.plan, comparison.quantity) if several else {}
    colors = structure_colors(recalculation.plan.patient.structures)
    shown = [row for row in comparison.rows if row.role not in ("external", "ignored")]
    top = max([1.02 * float(row.reference["D2"]) for row in shown] + [1.02 * row.ours["D2"] for row in shown])
    unit, digits = recalculation.plan.unit(comparison.quantity), 1 if top > 10.0 else 2
    for place, (factor, text) in zip(axes, panels, strict=True):
        for row in shown:
            ours, theirs = curves[row.structure], comparison.curves[row.structure]
            width = 2.2 if row.role == "target" else 1.7
            ends = factor * row.ours["Dmean"], row.reference["Dmean"]
            label = f"{row.structure}  ({ends[0]:.{digits}f}; {ends[1]:.{digits}f} {unit})"
            color = colors[row.structure]
            if row.structure in bands:
                band = bands[row.structure]
                levels = factor * band.nominal.levels
                place.fill_between(levels, band.lower, band.upper, color=color, alpha=0.18, linewidth=0)
            place.plot(factor * ours.levels, ours.percent, color=color, linewidth=width, label=label)
            place.plot(theirs.levels, theirs.percent, color=color, linewidth=1.3, linestyle=_DASHED)
        place.set_title(text, fontsize=10)
        place.set_xlim(0.0, 1.04 * top)
        place.set_ylim(0.0, 102.0)
        place.set_xlabel(_DOSES[comparison.quantity])
        place.grid(color="0.88", linewidth=0.7)
        place.set_axisbelow(True)
    axes[0].set_ylabel("Volume [%]")
    means = "mean" if comparison.factor is None else f"mean times {comparison.factor:.3f}"
    axes[-1].plot([], [], color="black", label=f"radplan ({means}; reference's)")
    axes[-1].plot([], [], color="black", linewidth=1.3, linestyle=_DASHED, label=comparison.label)
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    figure.suptitle(title or recalculation.summary, fontsize=11)
    return figure


def draw_dose_comparison(recalculation: Recalculation | IonRecalculation, scaled: bool = True) -> Figure:
    """Draw calculated dose, reference dose and their difference on an axial and a coronal plane through the isocentre.

    Parameters
    ----------
    recalculation : Recalculation
        What to draw.
    scaled : bool
        Whether the calculated dose is multiplied by the comparison's factor, where there is one.

    Raises
    ------
    InputError
        When the reference is no dose.
    """
    comparison = _comparison(recalculation)
    if comparison.dose is None:
        raise InputError("the reference holds DVHs only; a figure of doses needs an RTDOSE or NRRD dose")
    factor = (comparison.factor or 1.0) if scaled else 1.0
    doses = factor * recalculation.dose, np.asarray(comparison.dose)
    inside = doses[1] > 0
    top = float(np.quantile(doses[1][inside], 0.999))
    words = "radplan" if factor == 1.0 else f"radplan x {factor:.3f}"
    figure = Figure(figsize=(12.6, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    wash: Any = None
    spread: Any = None
    for row, plane in enumerate((AXIAL, CORONAL)):
        for column, (values, text) in enumerate(((doses[0], words), (doses[1], comparison.label))):
            wash = _draw(axes[row, column], recalculation, plane, values, 0.05 * top, (0.0, 1.05 * top), "turbo")
            axes[row, column].set_title(f"{text}, {_named(recalculation, plane)}", fontsize=10)
        gap = np.where(inside, 100.0 * (doses[0] - doses[1]) / top, 0.0)
        spread = _draw(axes[row, 2], recalculation, plane, gap, -np.inf, (-6.0, 6.0), "RdBu_r")
        axes[row, 2].set_title(f"difference, {_named(recalculation, plane)}", fontsize=10)
    figure.colorbar(wash, ax=axes[:, :2], location="bottom", shrink=0.5, aspect=40, label=_DOSES[comparison.quantity])
    figure.colorbar(
        spread, ax=axes[:, 2], location="bottom", aspect=25, label=f"radplan less reference [% of {top:.1f} Gy]"
    )
    targets = [s.name for s in recalculation.plan.patient.structures.values() if s.role == "target"]
    outline = [withStroke(linewidth=2.2, foreground="black")]
    key = Line2D([], [], color="white", linewidth=1.4, path_effects=outline, label=", ".join(targets) or "no target")
    corner: dict[str, Any] = {"fontsize": 8, "facecolor": "0.25", "edgecolor": "none", "labelcolor": "white"}
    axes[1, 0].legend(handles=[key], loc="upper left", **corner)
    gamma = comparison.gamma
    said = "" if gamma is None else f" · gamma {gamma.criteria}: {gamma.passing:.2f} % as calculated"
    figure.suptitle(recalculation.summary + said, fontsize=11)
    return figure


def _named(recalculation: Recalculation | IonRecalculation, plane: Plane) -> str:
    """Return what a plane through the isocentre is called, and where it lies."""
    place = round(float(recalculation.plan.isocenter[plane.fixed]), 1) + 0.0  # no -0.0
    return f"{plane.name}, {'xyz'[plane.fixed]} = {place:.1f} mm"


def save_recalculation_figures(recalculation: Recalculation | IonRecalculation, folder: str | Path) -> tuple[Path, ...]:
    """Draw a recalculation into a folder: ``slices.png``, ``apertures.png``, ``dvh.png`` and, by the reference, more.

    With a reference ``dvh.png`` holds both systems' curves; with a reference dose ``difference.png`` holds both doses
    and their difference.
    """
    comparison = recalculation.comparison
    compared = comparison is not None and any(row.role not in ("external", "ignored") for row in comparison.rows)
    drawn: dict[str, Callable[[], Figure]] = {
        "slices.png": lambda: draw_slices(recalculation.plan),
        **_own_figures(recalculation),
        "dvh.png": lambda: draw_dvh_comparison(recalculation) if compared else draw_dvh(recalculation.plan),
    }
    if comparison is not None and comparison.dose is not None:
        drawn["difference.png"] = lambda: draw_dose_comparison(recalculation)
    with staged(folder, whole=False) as partial:
        for name, draw in drawn.items():
            save_png(draw(), partial / name, 110)
    return tuple(Path(folder, name) for name in drawn)


def _own_figures(recalculation: Recalculation | IonRecalculation) -> dict[str, Callable[[], Figure]]:
    """Return the figures that plans of leaves, or plans of spots, have for themselves."""
    if not isinstance(recalculation, IonRecalculation):
        return {"apertures.png": lambda: draw_apertures(recalculation.delivery)}
    if recalculation.plan.beams is None:
        return {}
    return {
        "maps.png": lambda: draw_maps(recalculation.plan),
        "spots.png": lambda: draw_spots(recalculation.plan),
    }


def _draw(
    axes: Axes, recalculation: Recalculation | IonRecalculation, plane: Plane, values: NDArray[Any], least: float,
    limits: tuple[float, float], colors: str,
) -> Any:  # fmt: skip
    """Draw values in colour over the CT on a plane through the isocentre, with contours of the targets."""
    patient, center = recalculation.plan.patient, recalculation.plan.isocenter
    ct, body = patient.ct, patient.external.mask()
    across, up = ct.grid.axes[plane.across], ct.grid.axes[plane.up]

    def cut(volume: NDArray[Any], grid: Grid) -> NDArray[np.float64]:
        x, y = np.meshgrid(across, up)
        points = np.empty((x.size, 3))
        points[:, plane.across], points[:, plane.up], points[:, plane.fixed] = x.ravel(), y.ravel(), center[plane.fixed]
        index = np.asarray(grid.index(points)).T
        found = map_coordinates(np.asarray(volume, dtype=np.float32), index, order=1, mode="nearest")
        return np.asarray(found, dtype=np.float64).reshape(x.shape)

    half = 0.5 * (across[1] - across[0]), 0.5 * (up[1] - up[0])
    bottom, top = (up[-1] + half[1], up[0] - half[1]) if plane.flip else (up[0] - half[1], up[-1] + half[1])
    extent = (float(across[0] - half[0]), float(across[-1] + half[0]), float(bottom), float(top))
    origin: Literal["upper", "lower"] = "upper" if plane.flip else "lower"
    axes.set_facecolor("black")
    axes.imshow(cut(ct.hu, ct.grid), cmap="gray", vmin=_GRAY[0], vmax=_GRAY[1], extent=extent, origin=origin)
    inside = cut(body, ct.grid) > 0.5
    shown = cut(values, recalculation.grid)
    masked = np.ma.masked_where(~inside | (shown < least), shown)
    drawn = axes.imshow(masked, cmap=colors, vmin=limits[0], vmax=limits[1], alpha=0.75, extent=extent, origin=origin)
    for structure in patient.structures.values():
        mask = cut(structure.mask(), ct.grid)
        if structure.role == "target" and mask.min() < 0.5 < mask.max():
            lines = axes.contour(across, up, mask, [0.5], colors=["white"], linewidths=1.4)
            lines.set_path_effects([withStroke(linewidth=2.2, foreground="black")])
    held = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    axes.set_xlim(across[held[0][0]] - 12, across[held[0][-1]] + 12)
    low, high = up[held[1][0]] - 12, up[held[1][-1]] + 12
    axes.set_ylim((high, low) if plane.flip else (low, high))
    axes.set_aspect("equal")
    axes.set_xlabel(f"{'xyz'[plane.across]} [mm]", fontsize=8)
    axes.set_ylabel(f"{'xyz'[plane.up]} [mm]", fontsize=8)
    axes.tick_params(labelsize=8)
    return drawn


def _comparison(recalculation: Recalculation | IonRecalculation) -> Comparison:
    if recalculation.comparison is None:
        raise InputError("the recalculation has no reference to draw beside it")
    return recalculation.comparison
