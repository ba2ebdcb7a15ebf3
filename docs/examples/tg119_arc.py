"""Two arcs around the C-shape of TG-119: leaf ends and monitor units optimised together.

One arc opens to the left of the core, the other to its right; jaws stay where they were placed. Run it as
``python docs/examples/tg119_arc.py [FOLDER]``; the figures go to the folder, ``docs/figures`` when none is given.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import radplan as rp
from radplan.beams import place_arc
from radplan.delivery.apertures import delivery_plan
from radplan.delivery.timing import plan_times
from radplan.engines import ApertureModel, ApertureOptions, aperture_model
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.machines import library_limits, library_mlc

SPACING, GRID, FRACTIONS, ITERATIONS = 18.0, 6.0, 30, 60
QUICK = ApertureOptions(lateral_cutoff=50.0, head_scatter=False, back_scatter=False, tongue_and_groove=False)
COLORS = {"OuterTarget": "#c62828", "Core": "#2e7d32", "BODY": "#4c72b0"}


def main(folder: Path) -> None:
    began = time.process_time()
    patient = rp.load_patient("tg119")
    machine, mlc = rp.load_machine("generic_photon_6mv"), library_mlc("Millennium 120")
    arcs = [
        place_arc(patient, machine, mlc, *ends, SPACING, turn, margin=3.0, avoid="Core", side=side, name=turn, number=k)
        for k, (ends, turn, side) in enumerate((((181.0, 179.0), "CW", "low"), ((179.0, 181.0), "CC", "high")), start=1)
    ]
    fields = [field for arc in arcs for field in arc]
    model = held_jaws(aperture_model(patient, fields, machine, mlc, grid=GRID, options=QUICK))

    start = np.array(model.variables.start)
    before = rp.evaluate(model, start, patient, FRACTIONS)
    for layout in model.layouts:
        start[layout.mu_slice] *= 50.0 / before.metrics(names=["Dmean"])["OuterTarget"]["Dmean"]
    before = rp.evaluate(model, start, patient, FRACTIONS)

    goals = [
        rp.Goal("OuterTarget", rp.SquaredDeviation(50.0), weight=1000.0),
        rp.Goal("Core", rp.SquaredOverdosing(15.0), weight=300.0),
        rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=100.0),
    ]
    solver = rp.SOLVERS.get("lbfgs")(max_iterations=ITERATIONS)
    plan = rp.optimize(model, goals, patient, FRACTIONS, solver=solver, start=start)

    report(before, plan, model, mlc)
    print(f"CPU time {time.process_time() - began:.0f} s")
    whole = aperture_model(patient, delivery_plan(model, plan.x), machine, mlc, grid=GRID)
    again = rp.evaluate(whole, whole.variables.start, patient, FRACTIONS)
    values = {
        name: again.metrics(structures=[name], names=["Dmean"])[name]["Dmean"] for name in ("OuterTarget", "Core")
    }
    print("with head scatter, grooves and the full kernel:", values)
    print(f"CPU time {time.process_time() - began:.0f} s")
    folder.mkdir(parents=True, exist_ok=True)
    draw_dvh(before, plan).savefig(folder / "tg119_arc_dvh.png", dpi=110)
    draw_apertures(plan, patient, machine).savefig(folder / "tg119_arc_apertures.png", dpi=80)
    draw_slice(before, plan, patient).savefig(folder / "tg119_arc_slice.png", dpi=90)


def held_jaws(model: ApertureModel) -> ApertureModel:
    """The same model with jaws that stay where they are."""
    variables = model.variables
    lower, upper = np.array(variables.lower), np.array(variables.upper)
    for layout in model.layouts:
        lower[layout.jaw_slice] = upper[layout.jaw_slice] = np.asarray(variables.start)[layout.jaw_slice]
    return replace(model, variables=replace(variables, lower=lower, upper=upper))


def report(before: rp.Plan, plan: rp.Plan, model, mlc) -> None:
    solution = plan.solution
    print(f"cost {solution.start_value:.0f} -> {solution.value:.0f} in {solution.iterations} iterations")
    for name, wanted in (("OuterTarget", ["D95", "Dmean", "D2", "HI"]), ("Core", ["Dmean", "D10", "D2"])):
        for label, one in (("fitted", before), ("optimised", plan)):
            values = one.metrics(structures=[name], names=wanted)[name]
            print(f"{name:<12}{label:<10}", ", ".join(f"{key} {value:.2f}" for key, value in values.items()))
    for label, one in (("fitted", before), ("optimised", plan)):
        delivered = delivery_plan(model, one.x)
        turn = abs(delivered.fields[0].segments[0].gantry_travel)
        times = plan_times(delivered, library_limits("TrueBeam"))
        travel = np.concatenate([one.leaves for one in times])
        seconds = sum(one.total for one in times)
        allowed = library_limits("TrueBeam").leaf_speed * turn / 6.0
        print(
            f"{label:<10} {delivered.mu:.0f} MU per fraction; leaves up to {travel.max():.1f} mm in {turn:.1f} deg, "
            f"{allowed:.1f} mm at full gantry speed, {np.sum(travel > allowed)} of {travel.size} segments above; "
            f"beam on {seconds:.0f} s"
        )
    gaps = plan.x[model.variables.second] - plan.x[model.variables.first] - model.variables.gaps
    print(f"smallest gap of opposed leaves beyond the allowed one: {gaps.min():.4f} mm")


def draw_dvh(before: rp.Plan, plan: rp.Plan) -> Figure:
    figure = canvas(6.4, 4.4)
    axes = figure.subplots()
    for label, one, style in (("fitted", before, "--"), ("optimised", plan, "-")):
        for name, curve in one.dvh().items():
            axes.plot(curve.levels, curve.percent, style, color=COLORS[name], label=f"{name}, {label}")
    axes.set(xlabel="Physical dose [Gy]", ylabel="Volume [%]", ylim=(0, 102), xlim=(0, None))
    axes.set_title("Two arcs on TG-119: leaves fitted, and optimised with the monitor units")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def draw_apertures(plan: rp.Plan, patient, machine) -> Figure:
    fields = delivery_plan(plan.model, plan.x).fields
    chosen = [
        (field, field.points[k]) for field in fields for k in np.linspace(0, len(field.points) - 1, 5).astype(int)[:4]
    ]
    figure = canvas(12.6, 6.6)
    for axes, (field, point) in zip(figure.subplots(2, 4, sharex=True, sharey=True).ravel(), chosen, strict=True):
        rotation = beam_rotation(point.gantry, point.couch, point.collimator)
        for name in ("OuterTarget", "Core"):
            structure = patient.structures[name]
            local = world_to_beam(structure.grid.points(structure.voxels), point.isocenter, rotation)
            x, y, _ = isocentre_plane(local, machine.sad)
            seen, *edges = np.histogram2d(x, y, bins=[np.arange(-60, 61, 3.0)] * 2)
            middle = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
            axes.contourf(*middle, (seen > 0).T, levels=[0.5, 1.5], colors=COLORS[name], alpha=0.30)
            axes.contour(*middle, (seen > 0).T, levels=[0.5], colors=COLORS[name], linewidths=1.5)
        for low, high, (left, right) in zip(
            field.leaf_boundaries[:-1], field.leaf_boundaries[1:], point.leaves, strict=True
        ):
            for start, width in ((-60.0, left + 60.0), (right, 60.0 - right)):
                axes.add_patch(
                    Rectangle((start, low), width, high - low, fc="#9fb3cc", ec="#5b7291", lw=0.4, alpha=0.75)
                )
        (x1, x2), (y1, y2) = point.jaws_x, point.jaws_y
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="#e0a800", lw=1.8))
        axes.set(
            xlim=(-60, 60), ylim=(-60, 60), aspect="equal", title=f"arc {field.number}, gantry {point.gantry:.0f} deg"
        )
    figure.supxlabel("x [mm]")
    figure.supylabel("y [mm]")
    figure.suptitle("Optimised leaves (blue) and jaws (yellow) over the target (red) and the core (green)")
    return figure


def draw_slice(before: rp.Plan, plan: rp.Plan, patient) -> Figure:
    figure = canvas(10.4, 4.2)
    grid = plan.model.grid
    x, y, z = grid.axes
    k = int(np.argmin(np.abs(z)))
    ct = patient.ct.grid
    for axes, (label, one) in zip(
        figure.subplots(1, 2, sharey=True), (("leaves fitted", before), ("optimised", plan)), strict=True
    ):
        shown = axes.pcolormesh(x, y, one["physical_dose"][k], cmap="turbo", vmin=0, vmax=60, shading="nearest")
        for name in ("OuterTarget", "Core"):
            mask = patient.structures[name].mask()[int(np.argmin(np.abs(ct.axes[2])))]
            axes.contour(ct.axes[0], ct.axes[1], mask, levels=[0.5], colors="white", linewidths=1.6)
        axes.set(xlim=(-100, 100), ylim=(76, -76), aspect="equal", xlabel="x [mm]", title=label)
    figure.axes[0].set_ylabel("y [mm]")
    figure.colorbar(shown, ax=figure.axes, label="Physical dose [Gy]")
    return figure


def canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "figures")
