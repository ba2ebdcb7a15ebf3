"""An arc by networks for a pelvis that none of them has seen: fluence, apertures, and dose of the exported file.

Run it as ``python docs/examples/network_arc.py [FOLDER]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radplan.ai.airt_planner import deliver_proposal, load_airt_planner
from radplan.ai.arc_reference import aperture_fluence, sequencing_loss
from radplan.autoplan.cohort.generate import GENERATORS, draw
from radplan.io.plan_file.reading import plan_spec
from radplan.machines.limits import machine_limits

SHOWN = (0, 3, 6, 9, 12, 15, 18, 21)


def main(folder: Path) -> None:
    patient, _ = draw(GENERATORS.get("pelvis")(spacing=4.0), seed=99, index=0)
    planner = load_airt_planner("pelvis-airt")
    proposal = planner.propose(patient)
    spec = plan_spec({"engine": {"grid": 4}, "delivery": {"technique": "vmat", "grid": 4}})
    delivered = deliver_proposal(proposal, spec, planner.machine, machine_limits("TrueBeam"))
    print(delivered.report)
    for name, values in delivered.plan.metrics(names=["Dmean", "D98", "D2"]).items():
        print(f"{name:14s} " + "  ".join(f"{key} {value:6.2f} Gy" for key, value in values.items()))
    case = proposal.case
    for label, fluence in (("first", proposal.first), ("last", proposal.last)):
        print(f"{label} fluence: apertures lose {100 * sequencing_loss(case, fluence):.1f} %")
    folder.mkdir(parents=True, exist_ok=True)
    drawn(proposal, delivered).savefig(folder / "networks_arc.png", dpi=90)


def drawn(proposal, delivered) -> Figure:
    case = proposal.case
    figure = Figure(figsize=(12.6, 9.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=[1.15, 1.0])
    rows = (
        ("first", proposal.first),
        ("corrected", proposal.last),
        ("one opening a row", aperture_fluence(case, proposal.last)),
    )
    axes = above.subplots(len(rows), len(SHOWN), sharex=True, sharey=True)
    half = case.arc.pixels * case.arc.pitch / 2
    for line, (label, maps) in zip(axes, rows, strict=True):
        for axis, number in zip(line, SHOWN, strict=True):
            shown = axis.imshow(
                maps[number], origin="lower", extent=(-half, half, -half, half), vmin=0, vmax=2, cmap="viridis"
            )
            axis.contour(case.maps[1][number] > 0, extent=(-half, half, -half, half), levels=[0.5], colors="white")
            axis.contour(case.maps[3][number] > 0, extent=(-half, half, -half, half), levels=[0.5], colors="orange")
        line[0].set_ylabel(f"{label}\nv [mm]")
    for axis, number in zip(axes[0], SHOWN, strict=True):
        axis.set_title(f"{case.gantry[number]:.0f}°")
    above.colorbar(shown, ax=axes, label="Fluence [even fluence = 1]")
    left, right = below.subplots(1, 2)
    plan = delivered.plan
    for axis, label, dose, grid in (
        (left, "proposed", proposal.proposed, case.anatomy.grid),
        (right, "of the exported file", plan["physical_dose"], plan.model.grid),
    ):
        x, y, z = grid.axes
        k = int(np.argmin(np.abs(z - case.isocentre[2])))
        shown = axis.pcolormesh(x, y, dose[k], cmap="turbo", vmin=0, vmax=65, shading="nearest")
        for name, colour in (("PTV", "white"), ("Rectum", "orange"), ("Bladder", "yellow")):
            structure = case.patient.structures[name]
            sx, sy, sz = structure.grid.axes
            outline = structure.mask()[int(np.argmin(np.abs(sz - case.isocentre[2])))]
            axis.contour(sx, sy, outline, levels=[0.5], colors=colour)
        axis.set(aspect="equal", ylim=(y[-1], y[0]), title=f"Dose {label}", xlabel="x [mm]", ylabel="y [mm]")
    below.colorbar(shown, ax=[left, right], label="Physical dose [Gy]")
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "figures")
