"""Doses that follow a wish, and plans that reproduce them, on test patients of a cohort.

Run as ``python -m tests.benchmarks.dvh_planner MODEL COHORT [--patients 46,55] [--wish rectum:mean=-20%] [--out DIR]``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from radplan.ai.dvh import Wish
from radplan.ai.dvh_planner import load_dvh_planner
from radplan.autoplan.mimic import plan_from_dose
from radplan.autoplan.planner import template_beams
from radplan.autoplan.protocol import load_protocol, understand
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.io import load_machine, load_patient
from radplan.plan.of_dose import plan_of_dose
from radplan.viz import save_figures

ORGANS = ("Bladder", "Rectum", "Femur_Head_L", "Femur_Head_R")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--patients", default="46,55")
    parser.add_argument("--wish", action="append", default=[])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    planner = load_dvh_planner(asked.model)
    protocol = load_protocol(planner.spec.protocol)
    machine = load_machine(protocol.machine)
    wishes = [Wish.parse(text) for text in asked.wish]
    first, last = map(int, asked.patients.split(","))
    away = []
    for number in range(first, last + 1):
        patient = understand(load_patient(asked.cohort / "case" / f"{number:06d}"), protocol).patient
        began = time.process_time()
        result = planner.steer(patient, wishes)
        seconds = time.process_time() - began
        for name in result.asked:
            before, wanted, reached = (result.mean(c, name) for c in (result.before, result.asked, result.reached))
            print(f"{number} {name}: usual {before:.2f}, asked {wanted:.2f}, reached {reached:.2f} Gy")
        beams = template_beams(patient, protocol, machine)
        engine = PhotonPencilBeam(lateral_cutoff=protocol.lateral_cutoff)
        dij = dose_influence(patient, beams, machine, grid=result.grid.spacing, engine=engine)
        mimicry = plan_from_dose(result.dose, result.grid, dij, patient, protocol.fractions, 150, [planner.spec.target])
        row = [r.difference("Dmean") for r in mimicry.rows if r.structure in ORGANS]
        away.append(row)
        print(f"{number}: network {seconds:.2f} s; plan less prediction, organ means [Gy]: {np.round(row, 2).tolist()}")
        if asked.out is not None:
            usual = plan_of_dose(result.usual, result.grid, patient).dvh()
            save_figures(
                plan_of_dose(result.dose, result.grid, patient), asked.out / f"{number}", beside=usual, label="usual"
            )
            save_figures(
                mimicry.plan, asked.out / f"{number}-plan", beside=plan_of_dose(result.dose, result.grid, patient).dvh()
            )
    shares = 100.0 * np.abs(away) / planner.level
    print(f"n = {len(away)}: organ means differ by {shares.mean():.2f} % of the level, {shares.max():.2f} % at most")


if __name__ == "__main__":
    main()
