"""Figures of a verified plan: DVHs of both doses, and both doses with their difference through the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radplan.viz.canvas import save_png
from radplan.viz.palette import structure_colors
from radplan.viz.scene import AXIAL, Scene
from radplan.workflows.verification import Verification

_AROUND = 20.0
"""What is shown around the dose [mm]."""


def draw_verified_dvh(verification: Verification) -> Figure:
    """Draw the DVHs of the plan (solid) over those of the Monte Carlo (dashed)."""
    figure = Figure(figsize=(10.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    curves, colors = verification.plan.dvh("physical_dose"), structure_colors(verification.plan.patient.structures)
    for row in verification.comparison.rows:
        ours, theirs = curves[row.structure], verification.comparison.curves[row.structure]
        label = f"{row.structure} ({row.ours['Dmean']:.2f}; {row.reference['Dmean']:.2f} Gy)"
        axes.plot(ours.levels, ours.percent, color=colors[row.structure], lw=1.8, label=label)
        axes.plot(theirs.levels, theirs.percent, color=colors[row.structure], lw=1.2, ls=(0, (4, 2)))
    axes.set_xlabel("Physical dose of the course [Gy]")
    axes.set_ylabel("Volume [%]")
    axes.set_ylim(0.0, 102.0)
    axes.set_xlim(left=0.0)
    axes.grid(color="0.9", linewidth=0.6)
    title = "radplan solid, Monte Carlo dashed (means)"
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, title=title, title_fontsize=8, frameon=False)
    return figure


def draw_verified_planes(verification: Verification) -> Figure:
    """Draw both doses and their difference over the CT on the axial plane with most dose in all, with the contours.

    Doses are those of the voxels in which they were compared, from 1 % of the maximum on; the difference reaches to
    10 % of it.
    """
    plan = verification.plan
    simulated = verification.simulated.dose * plan.fractions
    ours = np.maximum(np.asarray(plan["physical_dose"], dtype=np.float64), 0.0)
    number = int(np.argmax(ours.sum(axis=(1, 2))))
    grid, top = plan.model.grid, float(ours.max())
    x, y, (dx, dy, _) = grid.axes[0], grid.axes[1], grid.spacing
    extent = (x[0] - dx / 2, x[-1] + dx / 2, y[-1] + dy / 2, y[0] - dy / 2)
    dosed = ours[number] > 0.01 * top
    sides, heights = x[dosed.any(axis=0)], y[dosed.any(axis=1)]
    view = (
        max(x[0], sides[0] - _AROUND), min(x[-1], sides[-1] + _AROUND),
        max(y[0], heights[0] - _AROUND), min(y[-1], heights[-1] + _AROUND),
    )  # fmt: skip
    scene = Scene(plan, np.asarray([*plan.isocenter[:2], grid.axes[2][number]]))
    figure = Figure(figsize=(13.0, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    columns = figure.subplots(1, 3)
    planes = (ours[number], simulated[number], simulated[number] - ours[number])
    titles = ("radplan", verification.comparison.label, "Monte Carlo − radplan")
    drawn: list[Any] = []
    for axes, plane, title in zip(columns, planes, titles, strict=True):
        change = plane is planes[2]
        low, high = (-0.1 * top, 0.1 * top) if change else (0.0, top)
        scene.draw_patient(axes, AXIAL)
        masked = np.ma.masked_where(~(dosed | (simulated[number] > 0.01 * top)), plane)
        colors = "RdBu_r" if change else "turbo"
        drawn.append(axes.imshow(masked, extent=extent, vmin=low, vmax=high, cmap=colors, alpha=0.75, zorder=1))
        scene.decorate(axes, AXIAL, view, beams=False)
        axes.set_title(f"{title}\n{axes.get_title()}", fontsize=10)
    bars: dict[str, Any] = {"location": "bottom", "shrink": 0.6}
    figure.colorbar(drawn[0], ax=columns[:2], aspect=50, label="Physical dose of the course [Gy]", **bars)
    figure.colorbar(drawn[2], ax=columns[2], aspect=25, label="Difference [Gy]", **bars)
    figure.legend(handles=scene.keys(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def save_verification_figures(verification: Verification, folder: str | Path) -> tuple[Path, ...]:
    """Write ``dvh.png`` and ``planes.png`` into a folder."""
    paths = Path(folder, "dvh.png"), Path(folder, "planes.png")
    save_png(draw_verified_dvh(verification), paths[0])
    save_png(draw_verified_planes(verification), paths[1])
    return paths
