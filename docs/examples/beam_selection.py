"""Photon beams of the C-shape chosen among 18 candidates, beside others; draws figures/beam_gain.png.

Beside them are beams chosen without exchanges, beams at equal distances, and those candidates that are nearest to equal
distances: 72 degrees, as of five beams, is no angle of the candidates.

Run it as ``python docs/examples/beam_selection.py [FIGURE]``. What it prints stands in docs/beam_angles.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import radplan as rp
from radplan.viz.beam_gain import draw_beam_gain

COUNT = 7
STEP = 20
SETTINGS = {"bixel_width": 8.0, "grid": 6.0}


def equally_spaced(patient, machine, count: int, step: float = 0.0) -> float:
    """Return the cost of so many beams at equal distances from above on, or of the candidates nearest to those."""
    angles = [n * 360.0 / count for n in range(count)]
    if step:
        angles = [step * round(angle / step) for angle in angles]
    beams = rp.place_beams(patient, machine, angles, bixel_width=SETTINGS["bixel_width"])
    dij = rp.dose_influence(patient, beams, machine, grid=SETTINGS["grid"], progress=False)
    return rp.optimize(dij, patient.goals, patient, progress=False).solution.value


def main(figure: Path) -> None:
    """Choose the beams, print what each gains, and draw it."""
    patient, machine = rp.load_patient("tg119"), rp.load_machine("generic_photon_6mv")
    found = {}
    for exchange in (False, True):
        begun = time.process_time()
        found[exchange] = rp.select_beams(
            patient, machine, patient.goals, COUNT, range(0, 360, STEP), exchange=exchange, progress=False, **SETTINGS
        )
        print(f"exchange {exchange}: {time.process_time() - begun:.0f} s of processor time")
    spaced = {n: equally_spaced(patient, machine, n) for n in (3, 5, 7, 9)}
    nearest = {n: equally_spaced(patient, machine, n, STEP) for n in (3, 5, 7)}
    greedy, chosen = found[False], found[True]
    for number, beams in enumerate(chosen.sets, start=1):
        beside = ""
        if number in nearest:
            beside = f", equally spaced {spaced[number]:.0f}, nearest candidates {nearest[number]:.0f}"
        angles = ", ".join(f"{angles[0]:g}" for angles in beams)
        print(f"{number}: {angles}: cost {chosen.costs[number - 1]:.0f}, greedy {greedy.costs[number - 1]:.0f}{beside}")
    print(f"equally spaced, 9 beams: {spaced[9]:.0f}")
    beside = {
        "without exchanges": dict(enumerate(greedy.costs, start=1)),
        "equally spaced": spaced,
        "candidates nearest to that": nearest,
    }
    drawn = draw_beam_gain(chosen, beside)
    drawn.savefig(figure, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "figures" / "beam_gain.png")
