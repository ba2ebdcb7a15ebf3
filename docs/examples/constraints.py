"""The figure of docs/constraints.md: DVHs with and without bounds on metrics, and a Pareto front of the C-shape.

Run it as ``python docs/examples/constraints.py [FILE]``; the figure goes to ``docs/figures/constraints.png`` when no
file is named. It takes a minute at most.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import radplan as rp

COLORS = {"OuterTarget": "#d62728", "Core": "#1f77b4"}
GOALS = [
    rp.Goal("OuterTarget", rp.SquaredDeviation(50.0), weight=1000.0),
    rp.Goal("Core", rp.SquaredOverdosing(15.0), weight=300.0),
    rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=100.0),
]
BOUNDS = [
    rp.Constraint("Core", "D10", upper=18.0),
    rp.Constraint("OuterTarget", "D95", lower=45.0),
]


def draw_plans(axes: Axes, free: rp.Plan, bounded: rp.Plan) -> None:
    for plan, style, said in ((free, (0, (4, 2)), "goals alone"), (bounded, "solid", "with bounds")):
        for name, curve in plan.dvh().items():
            if name in COLORS:
                label = f"{name}, {said}"
                axes.plot(curve.levels, curve.percent, color=COLORS[name], linestyle=style, label=label)
    axes.plot(18.0, 10.0, "v", color=COLORS["Core"], markersize=9, label="Core D10 at most 18 Gy")
    axes.plot(45.0, 95.0, "^", color=COLORS["OuterTarget"], markersize=9, label="OuterTarget D95 at least 45 Gy")
    axes.set_xlabel("Physical dose of the course [Gy]")
    axes.set_ylabel("Volume [%]")
    axes.set_xlim(0.0, 60.0)
    axes.set_ylim(0.0, 102.0)
    axes.grid(color="0.9")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)


def draw_front(figure: Figure, axes: Axes, values: np.ndarray) -> None:
    roots = np.sqrt(values)
    drawn = axes.scatter(roots[:, 1], roots[:, 0], c=roots[:, 2], cmap="viridis", s=40, zorder=2)
    axes.set_xlabel("Core: root mean square above 15 Gy [Gy]")
    axes.set_ylabel("OuterTarget: root mean square from 50 Gy [Gy]")
    axes.grid(color="0.9", zorder=0)
    figure.colorbar(drawn, ax=axes, label="BODY: root mean square above 30 Gy [Gy]")


def main(path: Path) -> None:
    patient, machine = rp.load_patient("tg119"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=range(0, 360, 72), bixel_width=7.5)
    dij = rp.dose_influence(patient, beams, machine, grid=6.0)
    free = rp.optimize(dij, GOALS, patient, fractions=30)
    bounded = rp.optimize(dij, GOALS, patient, fractions=30, constraints=BOUNDS)
    for plan in (free, bounded):
        rows = plan.metrics(names=["D10", "D95"])
        print(f"Core D10 {rows['Core']['D10']:.2f} Gy, OuterTarget D95 {rows['OuterTarget']['D95']:.2f} Gy")
    front = rp.pareto(dij, GOALS, patient, fractions=30, levels=5)
    figure = Figure(figsize=(11.0, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_plans(left, free, bounded)
    draw_front(figure, right, np.asarray(front.values))
    figure.savefig(path, dpi=100)
    print(len(front), "plans on the front")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "figures" / "constraints.png"
    )
