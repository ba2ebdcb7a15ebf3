"""The TG-119 C-shape from goals to RTPLAN files: fluence, sequenced as shapes and as sliding windows, and their dose.

The dose of the files is calculated again by the aperture engine, from leaves, jaws and monitor units alone. Run it as
``python docs/examples/tg119_sequenced.py [FOLDER]``; files and figures go to the folder, figures to ``docs/figures``
and files nowhere when none is given.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import radplan as rp
from radplan.delivery.fluence import field_fluence
from radplan.machines import library_mlc
from radplan.viz.fluence import draw_fluences

LINAC, MLC, GRID = "TrueBeam", "Millennium 120", 4.0
COLORS = {"OuterTarget": "#c62828", "Core": "#2e7d32"}
STYLES = {"fluence": "-", "engel, 7 levels": ":", "siochi, 7 levels": "-.", "sliding window": "--"}


def main(files: Path, figures: Path) -> None:
    began = time.process_time()
    plan = fluence_plan()
    told("fluence", plan)
    judged = {"fluence": plan}
    for method, levels in (("engel", 7), ("siochi", 7), ("engel", 15), ("sliding_window", 7)):
        delivery = rp.sequence(plan, MLC, method=method, levels=levels)
        report = rp.check_delivery(delivery, LINAC)
        report.raise_for_errors()
        path = rp.export_rtplan(delivery, plan.patient, files / f"RP_{method}_{levels}.dcm", limits=LINAC)
        again = rp.recalculate(path, plan.patient, grid=GRID)
        label = "sliding window" if method == "sliding_window" else f"{method}, {levels} levels"
        judged[label] = again.plan
        told(label, again.plan)
        points = sum(len(field.points) for field in delivery)
        print(f"{'':<18} {report.mu:.0f} MU, {report.beam_on:.0f} s under beam, {points} control points")
    collimator = library_mlc(MLC)
    draw_fluences(
        [
            (f"gantry {field.points[0].gantry:g}: {field.mu:.0f} MU", field_fluence(field, collimator))
            for field in delivery
        ]
    ).savefig(figures / "tg119_windows_fluence.png", dpi=80)
    draw_dvh(judged).savefig(figures / "tg119_sequenced_dvh.png", dpi=110)
    print(f"CPU time {time.process_time() - began:.0f} s")


def fluence_plan() -> rp.Plan:
    """Return the fluence optimum of seven beams whose bixels lie on leaf pairs."""
    patient = rp.load_patient("tg119")
    machine = rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=[0, 51, 103, 154, 206, 257, 309], bixel_width=5.0, mlc=MLC)
    dij = rp.dose_influence(patient, beams, machine, grid=GRID)
    goals = [
        rp.Goal("OuterTarget", rp.SquaredDeviation(50.0), weight=1000),
        rp.Goal("Core", rp.SquaredOverdosing(15.0), weight=300),
        rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=100),
    ]
    return rp.optimize(dij, goals, patient, fractions=30)


def told(label: str, plan: rp.Plan) -> None:
    """Print levels in the target and the core, as they are and scaled to D95 = 50 Gy."""
    rows = plan.metrics(names=["D95", "D10"])
    target, core = rows["OuterTarget"], rows["Core"]
    factor = 50.0 / target["D95"]
    print(
        f"{label:<18} target D95 {target['D95']:.2f}, D10 {target['D10']:.2f}; core D10 {core['D10']:.2f} Gy; "
        f"scaled to D95 = 50: D10 {factor * target['D10']:.2f}, core D10 {factor * core['D10']:.2f} Gy"
    )


def draw_dvh(judged: dict[str, rp.Plan]) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, style in STYLES.items():
        curves = judged[label].dvh()
        for name, color in COLORS.items():
            axes.plot(curves[name].levels, curves[name].percent, style, color=color, label=f"{name}, {label}")
    axes.set(xlabel="Physical dose [Gy]", ylabel="Volume [%]", ylim=(0, 102), xlim=(0, None))
    axes.set_title("TG-119, seven beams: fluence, and dose of the exported files")
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]), Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch), Path(__file__).resolve().parents[1] / "figures")
