"""Dose, LET and RBE along the axes of the beams: Bragg peaks where they end."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.ndimage import map_coordinates

from radplan.beams.beam import Beam
from radplan.errors import InputError
from radplan.geometry.rays import radiological_depth
from radplan.patient.sampling import sample
from radplan.plan import Plan

_STEP = 1.0
_LONGEST = 800.0
_SHOWN_FROM = 0.02
_COLORS = {"all": "black", "physical": "0.55", "beam": "#1f5fd0", "let": "#d62728", "rbe": "#1b9e4b"}


def draw_profiles(plan: Plan) -> Figure:
    """Draw a column for each beam: dose, and LET and RBE below, against water-equivalent depth on its axis.

    LET is that of the beam alone and of the plan, RBE that of the plan; both where their dose is at least 2 % of the
    largest on the axis. Targets are shaded.

    Parameters
    ----------
    plan : Plan
        What to draw; its model must know which weight belongs to which beam.

    Raises
    ------
    InputError
        When the beams are not known.

    >>> draw_profiles(plan).savefig("profiles.png")  # doctest: +SKIP
    """
    if plan.beams is None:
        raise InputError("profiles need the beams of the plan, which are not known")
    beams = list(plan.beams)
    figure = Figure(figsize=(max(4.6 * len(beams), 7.0), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.add_gridspec(2, len(beams), height_ratios=(1.25, 1.0))
    alone = plan.per_beam("physical_dose")
    lets = plan.per_beam("let_dose") if "let_dose" in plan.model.images else ()
    for column, beam in enumerate(beams):
        above = figure.add_subplot(parts[0, column])
        below = figure.add_subplot(parts[1, column], sharex=above)
        line = _Line(plan, beam)
        _draw_doses(above, plan, line, alone[column])
        ratios = _draw_ratios(below, plan, line, alone[column], lets[column] if lets else None)
        for axes in (above, below):
            line.shade(axes)
            axes.grid(color="0.9", linewidth=0.7)
            axes.tick_params(labelsize=8)
        if column == 0:
            handles = [*above.get_legend_handles_labels()[0], *ratios, Patch(color="#fbe9e9", label="target")]
            figure.legend(handles=handles, loc="outside lower center", ncol=len(handles), fontsize=8, frameon=False)
        angle = f"gantry {beam.gantry:g}°" + (f", couch {beam.couch:g}°" if beam.couch else "")
        above.set_title(f"axis of the beam at {angle}", fontsize=10)
        below.set_xlabel("water-equivalent depth on the axis [mm]", fontsize=9)
    figure.suptitle(plan.caption(), fontsize=11)
    return figure


class _Line:
    """Points on a beam's axis through the body, their water-equivalent depth, and where targets lie on them."""

    def __init__(self, plan: Plan, beam: Beam) -> None:
        ct, density = plan.patient.ct, plan.patient.density()
        along = (beam.isocenter - beam.source) / np.linalg.norm(beam.isocenter - beam.source)
        places = beam.isocenter + np.arange(-_LONGEST, _LONGEST, _STEP)[:, None] * along
        body = self._at(plan.patient.external.mask().astype(np.float32), ct.grid, places) > 0.5
        first, last = np.flatnonzero(body)[[0, -1]] if body.any() else (0, places.shape[0] - 1)
        self.points = places[first : last + 1]
        self.depth = np.asarray(radiological_depth(density, ct.grid, beam.source, self.points))
        names = plan.patient.target_names
        masks = [plan.patient.structures[name].mask() for name in names]
        target = np.any(masks, axis=0) if masks else np.zeros(ct.grid.shape, dtype=bool)
        self.device = self._at(target.astype(np.float32), ct.grid, self.points) > 0.5
        self.index = np.asarray(plan.model.grid.index(self.points))
        self.known = np.asarray(plan["physical_dose"]) > 0.0

    def read(self, cube: Any) -> Any:
        """Values of a cube on the dose grid at the points, trilinear among voxels with dose."""
        return sample(np.asarray(cube, dtype=np.float64), self.index, self.known)

    def shade(self, axes: Axes) -> None:
        """Shade the targets."""
        ends = np.flatnonzero(np.diff(np.concatenate([[0], self.device.astype(int), [0]])))
        for start, stop in zip(ends[::2], ends[1::2], strict=True):
            axes.axvspan(self.depth[start], self.depth[stop - 1], color="#d62728", alpha=0.10, linewidth=0)

    @staticmethod
    def _at(values: Any, grid: Any, points: Any) -> Any:
        return map_coordinates(values, np.asarray(grid.index(points)).T, order=1, mode="constant", cval=0.0)


def _draw_doses(axes: Axes, plan: Plan, line: _Line, alone: Any) -> None:
    unit = plan.unit(plan.prescribed)
    axes.plot(line.depth, line.read(plan[plan.prescribed]), color=_COLORS["all"], label=f"plan [{unit}]")
    if plan.prescribed != "physical_dose":
        axes.plot(line.depth, line.read(plan["physical_dose"]), color=_COLORS["physical"], label="plan, physical [Gy]")
    axes.plot(line.depth, line.read(alone), color=_COLORS["beam"], label="this beam, physical [Gy]")
    if plan.patient.prescription:
        axes.axhline(plan.patient.prescription, color="black", linestyle=":", linewidth=1.0)
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel(f"dose of the course [Gy, {unit}]", fontsize=9)


def _draw_ratios(axes: Axes, plan: Plan, line: _Line, alone: Any, let: Any) -> list[Any]:
    """Draw LET and RBE; returns the curves for a legend."""
    doses = line.read(alone)
    total = line.read(plan["physical_dose"])
    handles = []
    if let is not None:
        values = _ratio(line.read(let), doses)
        handles += axes.plot(line.depth, values, color=_COLORS["let"], label="LET, this beam")
        values = _ratio(line.read(plan["let_dose"]), total)
        handles += axes.plot(line.depth, values, color=_COLORS["let"], linestyle=":", label="LET, plan")
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel("dose-averaged LET [keV/µm]", fontsize=9, color=_COLORS["let"])
    if "alpha_dose" in plan.model.images:
        other = axes.twinx()
        values = _ratio(line.read(plan["rbe_x_dose"]), total)
        handles += other.plot(line.depth, values, color=_COLORS["rbe"], label="RBE, plan")
        other.axhline(1.1, color=_COLORS["rbe"], linestyle=(0, (1, 3)), linewidth=1.0)
        other.set_ylabel("RBE (dotted: 1.1)", fontsize=9, color=_COLORS["rbe"])
        other.tick_params(labelsize=8)
    return handles


def _ratio(values: Any, dose: Any) -> Any:
    """Return values over dose, NaN where there is little of it."""
    seen = dose >= _SHOWN_FROM * max(float(dose.max()), 1e-12)
    return np.where(seen, values / np.maximum(dose, 1e-12), np.nan)
