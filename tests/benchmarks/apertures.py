"""Dose of an arc from its leaves, beside PyDoseRT 1.5.0 in one run: CPU time and peak memory.

    python -m tests.benchmarks.apertures [--peer-python PYTHON] [--control-points N] [--repeats R]

PYTHON is an interpreter that can import pydosert 1.5.0 (``pip install torch pydosert==1.5.0`` in an environment of its
own); it defaults to RADPLAN_DOSERT_PYTHON. Each step is a process of its own. The case is PyDoseRT's size: control
points all around an elliptical water patient with two denser rods, 64 x 128 x 128 voxels of 3 mm, float32, dose in the
whole body; same leaves, monitor units and geometry for both. Cold is everything from leaves and a patient to dose,
the model with its depths made in between; cached is a model that has been made. Compiled kernels come from the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.__main__ import HERE, row, run

SHAPE, SPACING, COLLIMATOR = (64, 128, 128), 3.0, 10.0


def write_case(path: Path, count: int) -> None:
    """Write leaves, monitor units and densities of an arc of so many control points."""
    rng = np.random.default_rng(1)
    centre, half = rng.normal(0.0, 6.0, (count, 60)), rng.uniform(20.0, 35.0, (count, 60))
    z, y, x = ((np.arange(n) - (n - 1) / 2) * SPACING for n in SHAPE)
    density = np.tile((y[:, None] / 110.0) ** 2 + (x / 170.0) ** 2 < 1.0, (z.size, 1, 1)).astype(np.float32)
    for rod in (-80.0, 80.0):
        density[:, y[:, None] ** 2 + (x - rod) ** 2 < 400.0] = 1.3
    np.savez(
        path,
        leaves=np.stack([centre - half, centre + half], axis=-1),
        jaws=np.tile([-45.0, 45.0], (count, 1)),
        mu=rng.uniform(2.0, 6.0, count),
        gantry=np.linspace(0.0, 359.0, count),
        collimator=COLLIMATOR,
        density=density,
        spacing=SPACING,
    )


def model_of(case: dict[str, np.ndarray], cache: bool):
    """Return a function that makes the aperture model of the case, patient and plan being there."""
    from radplan.beams.control_points import ControlPoint, TreatmentField
    from radplan.engines import ApertureOptions, aperture_model
    from radplan.geometry.grid import Grid
    from radplan.machines import library_machine
    from radplan.machines.mlc import library_mlc
    from radplan.patient.ct import CT, hu_table
    from radplan.patient.patient import Patient
    from radplan.patient.structures import Structure, Structures

    density = case["density"]
    grid = Grid(SHAPE, (SPACING,) * 3, tuple(-(n - 1) / 2 * SPACING for n in SHAPE[::-1]))
    table = hu_table("schneider")
    rods = float(np.interp(1.3, table.density, table.hu))
    hu = np.where(density > 1.1, rods, np.where(density > 0, 0.0, -1000.0))
    body = Structure.from_mask("BODY", grid, density > 0, role="external")
    patient = Patient("rods", CT(grid, hu), Structures([body]))
    mlc, points, given = library_mlc("Millennium 120"), [], 0.0
    for number, mu in enumerate(case["mu"]):
        for _ in range(2):
            points.append(
                ControlPoint(
                    given, float(case["gantry"][number]), COLLIMATOR, 0.0, np.zeros(3), [-100.0, 100.0],
                    case["jaws"][number], case["leaves"][number],
                )
            )  # fmt: skip
            given += float(mu) if len(points) % 2 else 0.0
    field = TreatmentField("arc", 1, tuple(points), 1000.0, mlc.boundaries)
    machine = library_machine("generic_photon_10mv")
    patient.density()
    options = ApertureOptions(cache_depths=cache)
    return lambda: aperture_model(patient, [field], machine, mlc, grid, options)


def ours(path: str, mode: str, cache: str, repeats: int) -> dict[str, object]:
    """Return CPU seconds cold and cached, and peak memory."""
    with np.load(path) as held:
        case = dict(held)
    few = {name: case[name][:1] for name in ("leaves", "jaws", "mu", "gantry")}
    warming = model_of({**case, **few}, True)()
    start = np.asarray(warming.variables.start)
    warming.pullback(start, warming.forward(start))
    del warming
    make = model_of(case, cache == "cached")
    cold, cached, walls = [], [], []
    for _ in range(repeats):
        begun, first = time.perf_counter(), time.process_time()
        model = None  # so that two are never held
        model = make()
        x = np.asarray(model.variables.start)
        for taken in (cold, cached):
            dose = model.forward(x)
            if mode == "both":
                model.pullback(x, dose)
            taken.append(time.process_time() - first)
            walls.append(time.perf_counter() - begun)
            begun, first = time.perf_counter(), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cold": cold, "cached": cached, "wall_s": walls, "peak_mb": peak, "voxels": int(model.voxels.size)}


def main() -> None:
    parser = argparse.ArgumentParser(description="An arc beside PyDoseRT.")
    parser.add_argument("--peer-python", default=os.environ.get("RADPLAN_DOSERT_PYTHON"))
    parser.add_argument("--control-points", type=int, default=180)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    peer, repeats = options.peer_python, str(options.repeats)
    print(f"{options.control_points} control points, load {os.getloadavg()[0]:.1f}\n")
    print("| | radplan | PyDoseRT 1.5.0 | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "arc.npz"
        write_case(case, options.control_points)
        for mode, what in (("forward", "forward"), ("both", "forward and backward")):
            theirs = run(peer, str(HERE / "peer_pydosert.py"), str(case), mode, repeats) if peer else None
            for cache in ("cached", "uncached"):
                mine = run(sys.executable, "-m", "tests.benchmarks.apertures", str(case), mode, cache, repeats)
                for kind in ("cold", "cached") if cache == "cached" else ("cold",):
                    name = f"{what}, {kind if cache == 'cached' else 'depths never kept'}, CPU"
                    compare(name, min(mine[kind]), min(theirs["cpu_s"]) if theirs else None, "s")
                compare(f"{what}, depths {cache}, peak memory", mine["peak_mb"], theirs and theirs["peak_mb"], "MB")


def compare(what: str, mine: float, theirs: float | None, unit: str) -> None:
    """Print one row of the table."""
    digits = 2 if unit == "s" else 0
    peer = "" if theirs is None else f"{theirs:.{digits}f} {unit}"
    row(what, f"{mine:.{digits}f} {unit}", peer, "" if theirs is None else f"{theirs / mine:.1f}")


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1].endswith(".npz"):
        print("RESULT " + json.dumps(ours(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        main()
