"""Leaves, jaws and monitor units by a network, beside those of a reference arc: apertures, and dose of both files.

Run it as ``python docs/examples/network_apertures.py [FOLDER]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from radplan.ai.airt_planner import sequenced_arc
from radplan.ai.aperture_planner import load_aperture_planner
from radplan.ai.arc_delivery import deliver_arc
from radplan.ai.arc_reference import reference_fluence
from radplan.autoplan.cohort.generate import GENERATORS, draw
from radplan.io.plan_file.reading import plan_spec

SHOWN = (181.0, 226.0, 271.0, 316.0, 1.0, 46.0, 91.0, 136.0)
ON_DARK = {"PTV": "white", "Rectum": "orange", "Bladder": "yellow"}
ON_LIGHT = {"PTV": "black", "Rectum": "saddlebrown", "Bladder": "goldenrod"}


def main(folder: Path) -> None:
    patient, _ = draw(GENERATORS.get("pelvis")(spacing=4.0), seed=99, index=0)
    planner = load_aperture_planner("pelvis-apertures")
    proposal = planner.propose(patient)
    case = proposal.case
    reference = sequenced_arc(case, reference_fluence(case), planner.machine, planner.limits)
    spec = plan_spec(
        {"engine": {"grid": 4}, "delivery": {"technique": "vmat", "limits": planner.spec.limits, "grid": 4}}
    )
    arcs = {"network": proposal.arc, "reference": reference}
    delivered = {label: deliver_arc(arc, case, spec, planner.machine) for label, arc in arcs.items()}
    print("processor seconds: " + ", ".join(f"{part} {spent:.2f}" for part, spent in proposal.seconds.items()))
    for label, result in delivered.items():
        print(f"{label}\n{result.report}")
        for name, values in result.plan.metrics(names=["Dmean", "D98", "D2"]).items():
            print(f"{name:14s} " + "  ".join(f"{key} {value:6.2f} Gy" for key, value in values.items()))
    folder.mkdir(parents=True, exist_ok=True)
    drawn(case, delivered).savefig(folder / "networks_apertures.png", dpi=90)


def drawn(case, delivered) -> Figure:
    """Return apertures in some directions above the doses and what lies between them."""
    figure = Figure(figsize=(12.6, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=[1.25, 1.0])
    axes = above.subplots(2, len(SHOWN), sharex=True, sharey=True)
    for line, (label, result) in zip(axes, delivered.items(), strict=True):
        for axis, angle in zip(line, SHOWN, strict=True):
            opened(axis, case, result.delivery.fields[0], angle)
        line[0].set_ylabel(f"{label}\nv [mm]")
    for axis in axes[1]:
        axis.set_xlabel("u [mm]")
    left, middle, right = below.subplots(1, 3)
    doses = {label: result.plan["physical_dose"] for label, result in delivered.items()}
    grid = delivered["network"].plan.model.grid
    shown = [
        sliced(axis, case, grid, dose, f"Dose of the {label}'s file", "turbo", (0, 65), ON_DARK)
        for axis, (label, dose) in zip((left, middle), doses.items(), strict=True)
    ]
    below.colorbar(shown[0], ax=[left, middle], label="Physical dose [Gy]", shrink=0.7)
    away = doses["network"] - doses["reference"]
    shown = sliced(right, case, grid, away, "Network less reference", "RdBu_r", (-20, 20), ON_LIGHT)
    below.colorbar(shown, ax=right, label="Difference [Gy]", shrink=0.7)
    return figure


def opened(axis, case, field, angle: float) -> None:
    """Draw what leaves and jaws open at a control point, on the outlines of target and rectum."""
    gantry = np.asarray([point.gantry for point in field.points])
    number = int(np.argmin(np.abs((gantry - angle + 180.0) % 360.0 - 180.0)))
    point, half = field.points[number], case.arc.pixels * case.arc.pitch / 2
    seen = int(np.rint(point.gantry / (360.0 / case.arc.control_points))) % case.arc.control_points
    outlines = {"extent": (-half, half, -half, half), "levels": [0.5], "linewidths": 1.2}
    axis.contour(case.maps[1][seen] > 0, colors="black", **outlines)
    axis.contour(case.maps[3][seen] > 0, colors="saddlebrown", **outlines)
    (x1, x2), (y1, y2) = point.jaws_x, point.jaws_y
    left, right = np.maximum(point.leaves[:, 0], x1), np.minimum(point.leaves[:, 1], x2)
    bottom, top = np.maximum(field.leaf_boundaries[:-1], y1), np.minimum(field.leaf_boundaries[1:], y2)
    free = (right > left) & (top > bottom)
    size = (right - left)[free], (top - bottom)[free]
    axis.barh(bottom[free], size[0], size[1], left[free], align="edge", color="tab:blue", alpha=0.6)
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="grey"))
    near = slice(max(number - 1, 0), number + 2)
    turned = float(np.ptp(np.unwrap(gantry[near], period=360.0)))
    given = float(np.ptp([each.meterset for each in field.points[near]]))
    axis.set(aspect="equal", xlim=(-half, half), ylim=(-half, half))
    axis.set_title(f"{point.gantry:.0f}°, {given / turned:.1f} MU/°", fontsize=9)


def sliced(axis, case, grid, dose, title: str, cmap: str, span: tuple[float, float], colours):
    """Draw a dose in the transverse plane through the isocentre, with the outlines of some structures."""
    x, y, z = grid.axes
    k = int(np.argmin(np.abs(z - case.isocentre[2])))
    shown = axis.pcolormesh(x, y, dose[k], cmap=cmap, vmin=span[0], vmax=span[1], shading="nearest")
    for name, colour in colours.items():
        structure = case.patient.structures[name]
        sx, sy, sz = structure.grid.axes
        outline = structure.mask()[int(np.argmin(np.abs(sz - case.isocentre[2])))]
        axis.contour(sx, sy, outline, levels=[0.5], colors=colour)
    axis.set(aspect="equal", ylim=(y[-1], y[0]), title=title, xlabel="x [mm]", ylabel="y [mm]")
    return shown


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "figures")
