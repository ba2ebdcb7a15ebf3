"""Photon beams of the C-shape chosen among 18 candidates, beside beams at equal distances; draws figures/beam_gain.png.

Run it as ``python docs/examples/beam_selection.py [FIGURE]``. What it prints stands in docs/beam_angles.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import radplan as rp
from radplan.viz.beam_gain import draw_beam_gain

COUNT = 7
SETTINGS = {"bixel_width": 8.0, "grid": 6.0}


def equally_spaced(patient, machine, count: int) -> float:
    """Return the cost of so many beams at equal distances, the first from above."""
    beams = rp.place_beams(
        patient, machine, [n * 360.0 / count for n in range(count)], bixel_width=SETTINGS["bixel_width"]
    )
    dij = rp.dose_influence(patient, beams, machine, grid=SETTINGS["grid"], progress=False)
    return rp.optimize(dij, patient.goals, patient, progress=False).solution.value


def main(figure: Path) -> None:
    """Choose the beams, print what each gains, and draw it."""
    patient, machine = rp.load_patient("tg119"), rp.load_machine("generic_photon_6mv")
    begun = time.process_time()
    chosen = rp.select_beams(patient, machine, patient.goals, COUNT, range(0, 360, 20), progress=False, **SETTINGS)
    print(f"{time.process_time() - begun:.0f} s of processor time")
    spaced = {n: equally_spaced(patient, machine, n) for n in (3, 5, 7, 9)}
    for number, (angle, cost) in enumerate(zip(chosen.gantry, chosen.costs, strict=True), start=1):
        beside = f", equally spaced {spaced[number]:.0f}" if number in spaced else ""
        print(f"{number}: gantry {angle:g}, cost {cost:.0f}{beside}")
    print(f"equally spaced, 9 beams: {spaced[9]:.0f}")
    drawn = draw_beam_gain(chosen, {"equally spaced": spaced})
    drawn.savefig(figure, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "figures" / "beam_gain.png")
