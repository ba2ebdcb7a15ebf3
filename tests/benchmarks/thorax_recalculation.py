"""How far each uncertain part of a blind machine moves the target dose of a recalculated plan.

    python -m tests.benchmarks.thorax_recalculation [--data FOLDER] [--grid MM]

FOLDER holds ``cases/thorax-imrt``; it defaults to RADPLAN_SHARED. Prints a table of the change of the target's mean
dose, and of the largest change of an organ's mean after one factor that keeps the target's.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from radplan.engines import ApertureOptions
from radplan.io.dicom import read_case
from radplan.machines import library_machine, library_mlc
from radplan.machines.generate.photon import MODELS, make
from radplan.patient.ct import hu_table
from radplan.patient.structures import Structure
from radplan.recalc import SceneOptions, read_reference, recalculate

ROOT = Path(__file__).resolve().parents[2]
TABLE = "DVH_c2e419db-ec3d-3951-9579-a615f31783be.csv"
NAMES = {
    "PTV4140": "PTV_41.4",
    "CTVp": "ctv",
    "GTVp": "gtv",
    "LUNGS": "common lung",
    "LUNG_R": "rt lung",
    "LUNG_L": "lt lung",
    "HEART": "heart",
    "SPINALCORD": "cord",
    "LIVER": "liver",
}
TARGET, COUCH_WATER = "PTV4140", 6.0

AS_IN_WATER = ApertureOptions(density_scaling=False)
"""What is varied from: lateral widths as in water."""


def with_couch(patient, water=COUCH_WATER):
    """Return the patient on a carbon couch top 530 mm wide that attenuates like so much water [mm]."""
    grid, body = patient.ct.grid, patient.external.mask()
    x, y, _ = grid.axes
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    top = y[rows[-1]] + 4.0
    under = (y >= top) & (y <= top + 50.0)
    wide = np.abs(x - 0.5 * (x[0] + x[-1])) <= 265.0
    where = np.broadcast_to(under[None, :, None] & wide[None, None, :], grid.shape) & ~body
    voxels = np.flatnonzero(where)
    share = np.full(voxels.size, water / (under.sum() * grid.spacing[1]))
    return patient.with_density(Structure("couch top", grid, voxels, share, "ignored"), 1.0)


def variants(case):
    """Return what is varied: its name, and what `recalculate` is told."""
    mlc, model = library_mlc("HD 120"), next(m for m in MODELS if m.name == "generic_photon_6mv")
    machine = library_machine("generic_photon_6mv")
    flat = machine.with_profile(machine.profile_radius, np.ones_like(machine.profile))
    horn = 2.0 * machine.profile - 1.0
    yield "monitor unit: 1 cGy with d_max in the isocentre", {"calibration": "isocentric"}
    yield "supports seen in the CT attenuate", {"scene": SceneOptions(supports=True)}
    yield "carbon couch top, 6 mm water-equivalent", {"patient": replace(case, patient=with_couch(case.patient))}
    yield "leaf gap 0.4 mm (0.7)", {"mlc": replace(mlc, leaf_offset=0.2)}
    yield "leaf gap 1.0 mm (0.7)", {"mlc": replace(mlc, leaf_offset=0.5)}
    yield "leaf transmission 1.0 % (1.2)", {"mlc": replace(mlc, transmission=0.010)}
    yield "leaf transmission 1.4 % (1.2)", {"mlc": replace(mlc, transmission=0.014)}
    yield "no off-axis horn (7 %)", {"machine": flat}
    yield "twice the off-axis horn", {"machine": machine.with_profile(machine.profile_radius, horn)}
    yield "no head scatter, no back-scatter", {"options": replace(AS_IN_WATER, head_scatter=False, back_scatter=False)}
    yield (
        "half the head scatter",
        {"machine": replace(machine, head=replace(machine.head, scatter=0.5 * machine.head.scatter))},
    )
    yield "beam quality TPR20,10 0.667 (0.685)", {"machine": make(replace(model, quality=0.667))}
    yield "source 3.5 mm (2.5)", {"machine": replace(machine, source_fwhm=3.5)}
    yield "leaves without tongue and groove", {"options": replace(AS_IN_WATER, tongue_and_groove=False)}
    yield "lateral widths follow the density", {"options": ApertureOptions()}
    yield (
        "matRad's HU table (Schneider's)",
        {"patient": replace(case, patient=replace(case.patient, hu_table=hu_table("matrad")))},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Sensitivities of a recalculated plan.")
    parser.add_argument("--data", default=os.environ.get("RADPLAN_SHARED", str(ROOT.parent / "shared")))
    parser.add_argument("--grid", type=float, default=8.0)
    parser.add_argument("--only", default="", help="vary only what has this in its name")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    folder = Path(options.data) / "cases" / "thorax-imrt"
    if not folder.is_dir():
        print(f"{folder} is not there: nothing to recalculate")
        return
    case, reference = read_case(folder), read_reference(folder / TABLE)
    given = {
        "patient": case, "machine": "generic_photon_6mv", "grid": options.grid, "reference": reference,
        "options": AS_IN_WATER,
    }  # fmt: skip

    def means(**changed):
        found = recalculate(folder / "RTPLAN_Hashed.dcm", names=NAMES, fit_factor=TARGET, **{**given, **changed})
        return found.comparison

    start = time.process_time()
    base = means()
    print(f"{time.process_time() - start:.0f} s of processor time for one recalculation at {options.grid:g} mm")
    was = base.row(TARGET)
    excess = was.ours["Dmean"] / was.reference["Dmean"] - 1
    print(f"{TARGET} mean {was.ours['Dmean']:.2f} Gy against {was.reference['Dmean']:.2f} Gy: {100 * excess:+.2f} %\n")
    print(
        "| varied | target mean | largest change of an organ's mean at equal target mean |\n|---|---|---|", flush=True
    )
    for name, changed in variants(case):
        if options.only not in name:
            continue
        found = means(**changed)
        ratio = found.row(TARGET).ours["Dmean"] / was.ours["Dmean"]
        moved = {
            row.structure: row.ours["Dmean"] / ratio - base.row(row.structure).ours["Dmean"]
            for row in found.rows
            if row.role != "target"
        }
        most = max(moved, key=lambda organ: abs(moved[organ]))
        ends = (f"{found.row(TARGET).ours[kind] / ratio - was.ours[kind]:+.2f}" for kind in ("D2", "D95"))
        told = f"{', '.join(ends)}; {most} {moved[most]:+.2f} Gy"
        print(f"| {name} | {100 * (ratio - 1):+.2f} % | {told} |", flush=True)


if __name__ == "__main__":
    main()
