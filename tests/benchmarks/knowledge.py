"""Knowledge-based DVHs: error on OpenKBP test patients beside that of the population's mean DVH.

python -m tests.benchmarks.knowledge ../shared/cases/openkbp
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from radplan.autoplan.knowledge import dose_at_volumes, fit_knowledge
from radplan.io.openkbp import read_openkbp
from radplan.plan import Plan
from radplan.plan.of_dose import plan_of_dose

TARGETS = ("PTV70", "PTV63", "PTV56")
ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")


def plans(folder: Path):
    for path in sorted(folder.glob("pt_*.npz"), key=lambda p: int(p.stem[3:])):
        case = read_openkbp(path)
        yield plan_of_dose(case.dose, case.patient.ct.grid, case.patient)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    began = time.process_time()
    knowledge = fit_knowledge(plans(options.folder / "half" / "train"), TARGETS, ORGANS)
    print(f"fitted in {time.process_time() - began:.0f} s of processor time")
    if options.save is not None:
        knowledge.save(options.save)
    tested: list[Plan] = list(plans(options.folder / "half" / "test"))
    ratios = []
    for organ, learned in knowledge.organs.items():
        known = [p for p in tested if organ in p.patient.structures and p.patient.structures[organ].voxels.size]
        truth = np.stack([dose_at_volumes(p, organ) for p in known])
        ours = np.stack([knowledge.estimate(p.patient, organ).middle for p in known])
        error, mean_error = np.abs(ours - truth).mean(), np.abs(learned.mean - truth).mean()
        ratios.append((error, mean_error))
        print(f"{organ:<14} {len(known):>3} patients: {error:5.2f} Gy, population mean {mean_error:5.2f} Gy, "
              f"{100 * (1 - error / mean_error):.0f} % less")  # fmt: skip
    error, mean_error = np.mean(ratios, axis=0)
    print(f"all organs: {error:.2f} against {mean_error:.2f} Gy, {100 * (1 - error / mean_error):.0f} % less")


if __name__ == "__main__":
    main()
