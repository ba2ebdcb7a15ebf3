"""Automatic plans of OpenKBP validation patients beside their reference doses, criterion by criterion.

    python -m tests.benchmarks.autoplan ../shared/cases/openkbp --count 20 --out autoplan.json

Criteria: Babier et al., Phys. Med. Biol. 67 (2022) 185012; judged on the CT's voxels inside the dose mask, ours and the
reference alike. A patient that is already in the output file is not planned again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import radplan as rp
from radplan.analysis.metrics import dose_at_cc, dose_at_volume, mean
from radplan.autoplan.planner import template_beams
from radplan.autoplan.protocol import load_protocol, understand
from radplan.autoplan.refine import published, refine
from radplan.engines import ENGINES
from radplan.geometry.resample import resample_linear
from radplan.io.openkbp import DOSE_MASK, read_openkbp

CRITERIA = {
    "Brainstem": ("D0.1cc", "<=", 50.0), "SpinalCord": ("D0.1cc", "<=", 45.0), "Mandible": ("D0.1cc", "<=", 73.5),
    "RightParotid": ("Dmean", "<=", 26.0), "LeftParotid": ("Dmean", "<=", 26.0), "Larynx": ("Dmean", "<=", 45.0),
    "Esophagus": ("Dmean", "<=", 45.0), "PTV70": ("D99", ">=", 66.5), "PTV63": ("D99", ">=", 59.9),
    "PTV56": ("D99", ">=", 53.2),
}  # fmt: skip


def judged(dose: np.ndarray, patient: rp.Patient) -> dict[str, dict[str, float]]:
    """Value of each criterion, and the mean dose, of the structures that are there."""
    inside = patient.structures[DOSE_MASK].mask().reshape(-1)
    rows = {}
    for name, (metric, _, _) in CRITERIA.items():
        if name not in patient.structures:
            continue
        voxels = patient.structures[name].voxels
        values = dose.reshape(-1)[voxels[inside[voxels]]]
        if not values.size:
            continue
        volume = values.size * patient.ct.grid.voxel_volume / 1000.0
        value = {
            "D0.1cc": lambda v=values, cc=volume: dose_at_cc(v, None, 0.1, cc),
            "Dmean": lambda v=values: mean(v),
            "D99": lambda v=values: dose_at_volume(v, None, 99.0),
        }[metric]()
        rows[name] = {"value": value, "mean": mean(values)}
    return rows


def planned(path: Path, beside: bool) -> dict:
    case, protocol = read_openkbp(path), load_protocol("head_neck")
    began = time.process_time()
    patient = understand(case.patient, protocol).patient
    machine = rp.load_machine(protocol.machine)
    beams = template_beams(patient, protocol, machine)
    engine = ENGINES.get("photon_pencil_beam")(lateral_cutoff=protocol.lateral_cutoff)
    dij = rp.dose_influence(patient, beams, machine, grid=protocol.grid, engine=engine)
    first: list[float] = []
    refinement = refine(
        patient, protocol, dij, progress=lambda _: first.append(time.process_time() - began) if not first else None
    )
    seconds = time.process_time() - began
    plan = refinement.plan
    dose = np.asarray(resample_linear(plan["physical_dose"].astype(np.float64), plan.model.grid, case.patient.ct.grid))
    row = {
        "ours": judged(dose, case.patient),
        "reference": judged(np.asarray(case.dose, dtype=np.float64), case.patient),
        "curve": refinement.curve(),
        "policies": [iterate.policy for iterate in refinement.iterates],
        "maximum": refinement.best.score.maximum,
        "gain": refinement.gain,
        "seconds": seconds,
        "first_seconds": first[0],
    }
    if beside:
        row["published"] = published(patient, protocol, dij).curve()
    return row


def met(rows: dict) -> dict[str, list[int]]:
    """Per structure: how often ours and the reference meet the criterion, of how many."""
    table = {}
    for name, (_, sign, limit) in CRITERIA.items():
        known = [row for row in rows.values() if name in row["ours"] and name in row["reference"]]
        table[name] = [
            sum((row[who][name]["value"] <= limit) == (sign == "<=") for row in known) for who in ("ours", "reference")
        ] + [len(known)]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--beside", type=int, default=10, help="for how many the published policy runs, too")
    parser.add_argument("--out", type=Path, default=Path("autoplan.json"))
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    paths = sorted((options.folder / "full" / "validation").glob("pt_*.npz"), key=lambda p: int(p.stem[3:]))
    paths = [path for path in paths if read_openkbp(path).ct_present][: options.count]
    for number, path in enumerate(paths):
        if path.stem not in rows:
            rows[path.stem] = planned(path, number < options.beside)
            options.out.write_text(json.dumps(rows, indent=1))
            row = rows[path.stem]
            curve = ", ".join(f"{value:.1f}" for value in row["curve"])
            print(f"{path.stem}: {curve} of {row['maximum']:.0f} [{row['seconds']:.0f} s]", flush=True)
    for name, (ours, reference, count) in met(rows).items():
        print(f"{name:<14} met {ours:>3} of {count:>3}, the reference {reference:>3}")
    organs = [name for name, (_, sign, _) in CRITERIA.items() if sign == "<="]
    for who in ("ours", "reference"):
        means = [row[who][name]["mean"] for row in rows.values() for name in organs if name in row[who]]
        print(f"mean of organ means, {who}: {np.mean(means):.2f} Gy")


if __name__ == "__main__":
    main()
