"""Clinical plans calculated again: the seven dynamic fields of the thorax patient, and what stands in docs/recalc.md.

Run it as ``python docs/examples/recalculated_thorax.py [FOLDER]``; the figures go to the folder, ``docs/figures`` when
none is given. The patients are not part of the repository: RADPLAN_SHARED names the folder that holds ``cases``.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

import radplan as rp
from radplan.io.dicom import read_plan
from radplan.recalc import SceneOptions, read_reference
from radplan.viz.apertures import draw_apertures
from radplan.viz.recalc import draw_dose_comparison, draw_dvh_comparison

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(os.environ.get("RADPLAN_SHARED", ROOT.parent / "shared")) / "cases"
TABLE = "DVH_c2e419db-ec3d-3951-9579-a615f31783be.csv"
NAMES = {
    "PTV4140": "PTV_41.4",
    "CTVp": "ctv",
    "GTVp": "gtv",
    "LUNGS": "common lung",
    "HEART": "heart",
    "SPINALCORD": "cord",
    "LIVER": "liver",
}
GRID = 4.0


def thorax(folder: Path) -> None:
    case = CASES / "thorax-imrt"
    began = time.process_time()
    clinical = replace(read_reference(case / TABLE), label="clinical plan")
    found = rp.recalculate(
        case / "RTPLAN_Hashed.dcm", case, grid=GRID, reference=clinical, names=NAMES, fit_factor="PTV4140"
    )
    tell("thorax", found, began)
    save(draw_dvh_comparison(found), folder / "recalc_thorax_dvh.png")


def prostate(folder: Path, calibration: str) -> None:
    case = CASES / "eclipse-prostate"
    began = time.process_time()
    found = rp.recalculate(
        case / "RP.dcm",
        case,
        calibration=calibration,
        grid=3.0,
        reference=replace(read_reference(case / "EclipseProstate_Dose.nrrd"), label="Eclipse"),
        scene=SceneOptions(water=True),
        skin=10.0,
        fit_factor=True,
    )
    tell(f"prostate, monitor unit: {calibration}", found, began)
    place = found.grid.nearest(found.delivery.fields[0].points[0].isocenter[None])
    ours, theirs = found.dose.reshape(-1)[place][0], found.comparison.dose.reshape(-1)[place][0]
    print(f"  at the voxel of the isocentre {ours:.2f} Gy, Eclipse {theirs:.2f} Gy: {100 * (ours / theirs - 1):+.2f} %")
    if calibration == "isocentric":
        save(draw_dose_comparison(found, scaled=False), folder / "recalc_prostate.png")


def arcs(folder: Path) -> None:
    fields = [
        *read_plan(CASES / "vmat-plans" / "vmat_example.dcm"),
        *read_plan(CASES / "vmat-plans" / "breast-4arc-vmat.dcm").fields[:2],
    ]
    save(draw_apertures(fields, panels=8), folder / "recalc_apertures.png")
    for path in sorted((CASES / "vmat-plans").glob("*.dcm")):
        if path.stem.endswith("rtstruct"):
            continue
        began = time.process_time()
        found = rp.recalculate(path, "cylinder", grid=5.0)
        points = sum(len(field.points) for field in found.delivery)
        print(
            f"{path.stem}: {len(found.delivery)} fields, {found.delivery.mu:.3f} MU, {points} control points, "
            f"{found.dose.max() / found.fractions:.2f} Gy at most per fraction, {time.process_time() - began:.0f} s"
        )


def save(figure: Figure, path: Path) -> None:
    """Write a figure without transparency, which keeps it small; fewer colours would make steps of the dose."""
    figure.savefig(path, dpi=90)
    with Image.open(path) as drawn:
        opaque = drawn.convert("RGB")
    opaque.save(path, optimize=True)


def tell(name: str, found: rp.Recalculation, began: float) -> None:
    compared = found.comparison
    print(f"{name}: factor {compared.factor:.4f}, {time.process_time() - began:.0f} s of processor time")
    for row in compared.rows:
        numbers = (
            f"{kind} {row.ours[kind]:.2f}; {row.reference[kind]:.2f} ({row.difference(kind, compared.factor):+.2f})"
            for kind in row.ours
        )
        print(f"  {row.structure:<16} {'  '.join(numbers)}")
    if compared.gamma is not None:
        print(f"  gamma {compared.gamma.criteria}: {compared.gamma.passing:.2f} % of {compared.gamma.points} points")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "figures"
    thorax(place)
    prostate(place, "machine")
    prostate(place, "isocentric")
    arcs(place)
