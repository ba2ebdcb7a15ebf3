"""The patient in three planes through the isocentre, as every figure of slices shows it: CT, contours, beams.

Every plane is drawn in world millimetres the way it is read in the clinic: axial seen from the feet (the patient's
right on the viewer's left), coronal seen from the front, sagittal seen from the patient's left (anterior on the left).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from radplan.plan import Plan
from radplan.viz.palette import structure_colors

Floats = NDArray[np.float64]
View = tuple[float, float, float, float]

_WINDOW = (-360.0, 440.0)
_MARGIN = 26.0
_ARROW = (8.0, 32.0)
_LONGEST = 260.0


@dataclass(frozen=True)
class Plane:
    """A plane of the patient: which world axis is fixed, which run across and up, and what their ends are called.

    `across` and `up` are 0 for x, 1 for y, 2 for z; `flip` says that the second grows downwards on the page.

    >>> AXIAL.ends
    ('R', 'L', 'A', 'P')
    """

    name: str
    fixed: int
    across: int
    up: int
    flip: bool
    ends: tuple[str, str, str, str]


AXIAL = Plane("axial", 2, 0, 1, True, ("R", "L", "A", "P"))
CORONAL = Plane("coronal", 1, 0, 2, False, ("R", "L", "S", "I"))
SAGITTAL = Plane("sagittal", 0, 1, 2, False, ("A", "P", "S", "I"))
PLANES = (AXIAL, CORONAL, SAGITTAL)


class Scene:
    """What planes of one plan share: CT, contours, isocentre, view limits, colours.

    Parameters
    ----------
    plan : Plan
        What is drawn.
    center : array of shape (3,), optional
        World position that the planes pass through [mm]; the isocentre otherwise.
    """

    def __init__(self, plan: Plan, center: Floats | None = None) -> None:
        self.plan = plan
        self.center = plan.isocenter if center is None else center
        self.ct = plan.patient.ct
        self.axes = self.ct.grid.axes
        self.colors = structure_colors(plan.patient.structures)
        self.shown = [s for s in plan.patient.structures.values() if s.role != "ignored"]
        body = plan.patient.dosed_mask()
        self.body = body
        self.low, self.high = _extent(body, self.axes)

    def view(self, plane: Plane) -> View:
        """Return what a plane shows: left, right, bottom, top [mm]; the body, along z no farther than 260 mm."""
        # Why: beams are drawn outside the body, in the axial plane only.
        margin = _MARGIN + (36.0 if plane is AXIAL else 0.0)
        low, high = self.low - margin, self.high + margin
        low[2], high[2] = max(low[2], self.center[2] - _LONGEST), min(high[2], self.center[2] + _LONGEST)
        return low[plane.across], high[plane.across], low[plane.up], high[plane.up]

    def draw_patient(self, axes: Axes, plane: Plane) -> None:
        """Draw the CT in grey and the structures' contours."""
        axes.set_facecolor("black")
        gray = self.cut(self.ct.hu, self.ct.grid, plane)
        self.show(axes, plane, gray, cmap="gray", vmin=_WINDOW[0], vmax=_WINDOW[1], zorder=0)
        across, up = self.lines(plane)
        for structure in self.shown:
            mask = self.cut(structure.mask(), self.ct.grid, plane)
            if mask.min() < 0.5 < mask.max():
                color = [self.colors[structure.name]]
                lines = axes.contour(across, up, mask, [0.5], colors=color, linewidths=1.8, zorder=3)
                lines.set_path_effects([withStroke(linewidth=2.6, foreground="black")])

    def show(self, axes: Axes, plane: Plane, values: Any, **style: Any) -> Any:
        """Draw values on the CT's voxels of a plane as an image; returns it."""
        across, up = self.lines(plane)
        bottom, top = _edges(up)[:: -1 if plane.flip else 1]
        origin: Literal["upper", "lower"] = "upper" if plane.flip else "lower"
        return axes.imshow(values, extent=(*_edges(across), bottom, top), origin=origin, **style)

    def lines(self, plane: Plane) -> tuple[Floats, Floats]:
        """Return the world coordinates of columns and rows of a plane [mm]."""
        return self.axes[plane.across], self.axes[plane.up]

    def inside(self, plane: Plane) -> NDArray[np.bool_]:
        """Return where the plane lies in the body."""
        return self.cut(self.body, self.ct.grid, plane) > 0.5

    def cut(self, volume: Any, grid: Any, plane: Plane) -> Floats:
        """Values on the plane, trilinear, rows along `up`, columns along `across`."""
        across, up = np.meshgrid(self.axes[plane.across], self.axes[plane.up])
        points = np.empty((across.size, 3))
        points[:, plane.across], points[:, plane.up] = across.ravel(), up.ravel()
        points[:, plane.fixed] = self.center[plane.fixed]
        index = np.asarray(grid.index(points)).T
        values = map_coordinates(np.asarray(volume, dtype=np.float32), index, order=1, mode="nearest")
        return np.asarray(values, dtype=np.float64).reshape(across.shape)

    def decorate(self, axes: Axes, plane: Plane, view: View, beams: bool = True) -> None:
        """Limits, ticks in mm, letters for the patient's sides, scale bar, isocentre, beams."""
        left, right, bottom, top = view
        place = round(float(self.center[plane.fixed]), 1) + 0.0  # no -0.0
        axes.set_xlim(left, right)
        axes.set_ylim((top, bottom) if plane.flip else (bottom, top))
        axes.set_aspect("equal")
        names = "xyz"
        axes.set_xlabel(f"{names[plane.across]} [mm]", fontsize=8)
        axes.set_ylabel(f"{names[plane.up]} [mm]", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.set_title(f"{plane.name}, {names[plane.fixed]} = {place:.1f} mm", fontsize=10)
        stroke = [withStroke(linewidth=2.0, foreground="black")]
        style = {
            "path_effects": stroke,
            "color": "white",
            "fontsize": 11,
            "fontweight": "bold",
            "ha": "center",
            "va": "center",
        }
        spots = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.965), (0.5, 0.035))
        for letter, spot in zip(plane.ends, spots, strict=True):
            axes.text(*spot, letter, transform=axes.transAxes, **style)  # type: ignore[arg-type]
        x0, y0 = left + 10.0, top - 10.0 if plane.flip else bottom + 10.0
        axes.plot([x0, x0 + 50.0], [y0, y0], color="white", linewidth=2.5, solid_capstyle="butt")
        label: dict[str, Any] = {
            "xytext": (0, 3),
            "textcoords": "offset points",
            "color": "white",
            "fontsize": 8,
            "ha": "center",
        }
        axes.annotate("50 mm", (x0 + 25.0, y0), **label)
        axes.plot(self.center[plane.across], self.center[plane.up], "+", color="white", markersize=11, mew=1.4)
        if beams and plane is AXIAL:
            self._draw_beams(axes)

    def _draw_beams(self, axes: Axes) -> None:
        """Draw an arrow where each beam's axis enters the body, pointing at the isocentre, with its gantry angle."""
        beams = [] if self.plan.beams is None else list(self.plan.beams.beams)
        for beam in beams:
            toward = np.asarray(beam.source, dtype=np.float64) - np.asarray(beam.isocenter, dtype=np.float64)
            flat = toward[:2] / np.linalg.norm(toward)
            tilt = float(np.linalg.norm(flat))
            if tilt < 0.05:
                continue
            flat = flat / tilt
            skin = self._exit(flat)
            head, tail = (self.center[:2] + (skin + length) * flat for length in _ARROW)
            arrow = {"arrowstyle": "-|>", "color": "#ffe082", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=tuple(head), xytext=tuple(tail), arrowprops=arrow)
            axes.plot(*zip(self.center[:2], head, strict=True), color="#ffe082", linewidth=0.6, alpha=0.55)
            if len(beams) <= 24:
                label = f"{beam.gantry:g}°" + (f"/{beam.couch:g}°" if beam.couch else "")
                spot = self.center[:2] + (skin + _ARROW[1] + 9.0) * flat
                axes.text(spot[0], spot[1], label, color="#ffe082", fontsize=8, ha="center", va="center")

    def _exit(self, direction: Floats) -> float:
        """Distance from the isocentre along an axial direction to the last body voxel [mm]."""
        steps = np.arange(0.0, 1500.0, 1.0)
        points = np.column_stack([self.center[0] + steps * direction[0], self.center[1] + steps * direction[1]])
        points = np.column_stack([points, np.full(steps.size, self.center[2])])
        index = np.asarray(self.ct.grid.index(points)).T
        inside = map_coordinates(self.body.astype(np.float32), index, order=0, mode="constant", cval=0.0) > 0.5
        return float(steps[inside].max()) if inside.any() else 0.0

    def keys(self) -> list[Line2D]:
        """Keys for the structures."""
        return [Line2D([], [], color=self.colors[s.name], linewidth=2.5, label=s.name) for s in self.shown]

    def mark_keys(self) -> list[Line2D]:
        """Keys for the isocentre, or the middle of the targets where no beam is known, and for beams."""
        center = "isocentre" if self.plan.beams is not None else "middle of the targets"
        keys = [Line2D([], [], marker="+", color="0.3", linestyle="none", label=center)]
        if self.plan.beams is not None:
            keys.append(
                Line2D([], [], marker=">", color="#e0a800", linewidth=1.2, label="beam axis, gantry (/ couch) angle")
            )
        return keys


def _edges(centers: Floats) -> tuple[float, float]:
    """Outer edges of the first and the last voxel [mm]."""
    half = (centers[1] - centers[0]) / 2 if centers.size > 1 else 0.5
    return float(centers[0] - half), float(centers[-1] + half)


def _extent(mask: Any, axes: tuple[Floats, Floats, Floats]) -> tuple[Floats, Floats]:
    """World corners (x, y, z) of the voxels in a mask [mm]."""
    low, high = np.empty(3), np.empty(3)
    for k, centers in enumerate(axes):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != 2 - k)))
        low[k], high[k] = centers[hit[0]], centers[hit[-1]]
    return low, high
