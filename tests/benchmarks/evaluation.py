"""One evaluation of cost and gradient in run blocks beside the storage before them, interleaved in one process.

    NUMBA_NUM_THREADS=1 python -m tests.benchmarks.evaluation [--data FOLDER] [--repeats N]

TG119.mat with matRad's machines, 5 mm: photons with 5 beams, carbon with 2 and the RBE-weighted dose. Processor time,
kernels warm; each at the start of the optimisation and after 60 iterations, where fewer voxels act.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.benchmarks.compressed_pair import with_compressed_pairs


def case(data: Path, radiation: str):
    """A model of TG119 and its goals."""
    import radplan as rp
    from radplan.engines import ParticlePencilBeam

    patient = rp.load_patient(str(data / "cases/tg119/TG119.mat"))
    machine = rp.load_machine(str(data / f"cases/matrad_machines/{radiation}_Generic.mat"))
    photons = radiation == "photons"
    angles = range(0, 360, 72) if photons else (90.0, 270.0)
    options = {} if photons else {"layer_spacing": 2.0}
    beams = rp.place_beams(patient, machine, gantry=angles, bixel_width=5.0, **options)
    engine = {} if photons else {"engine": ParticlePencilBeam(let=False)}
    model = rp.dose_influence(patient, beams, machine, grid=5.0, **engine)
    goals = patient.goals
    quantity = "physical_dose" if photons else "rbe_x_dose"
    return model, [replace(goal, quantity=quantity) for goal in goals], patient


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each call, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            taken[name].append(time.process_time() - begun)
    return {name: statistics.median(spent) for name, spent in taken.items()}


def bytes_of(model) -> tuple[int, int]:
    """Bytes of the matrices of a model in run blocks, and their entries."""
    stored = [operators[0].storage for operators in model.operators.values()]
    places = stored[0].firsts.nbytes + stored[0].pointers.nbytes + stored[0].rows.nbytes
    return places + sum(blocks.values.nbytes for blocks in stored), stored[0].nnz


def measure(data: Path, radiation: str, repeats: int) -> None:
    import radplan as rp
    from radplan.optim.solvers import ProjectedLBFGS

    model, goals, patient = case(data, radiation)
    problems = {
        "run blocks": rp.Problem(model, goals, patient, patient.fractions or 30),
        "compressed pair": rp.Problem(with_compressed_pairs(model), goals, patient, patient.fractions or 30),
    }
    ours, before = problems.values()
    start_norm = float(np.linalg.norm(before.value_and_gradient(before.start)[1]))
    later = ProjectedLBFGS(max_iterations=60).solve(ours).x
    stored, entries = bytes_of(model)
    pair = 2 * (4 + 4 * len(model.operators)) * entries
    print(
        f"{radiation}: {entries} entries, {len(model.operators)} images, {stored / entries:.2f} bytes per entry", end=""
    )
    print(f", {stored / pair:.3f} of the pair")
    for where, x in (("start", ours.start), ("60 iterations", later)):
        gradients = [problem.value_and_gradient(x)[1] for problem in problems.values()]
        off = float(np.linalg.norm(gradients[0] - gradients[1])) / start_norm
        calls = {name: (lambda p=problem, x=x: p.value_and_gradient(x)) for name, problem in problems.items()}
        spent = interleaved(calls, repeats)
        ratio = spent["run blocks"] / spent["compressed pair"]
        times = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in spent.items())
        print(f"  {where}: {times}, ratio {ratio:.3f}; gradients differ by {off:.1e} of the start's norm", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluation in run blocks beside compressed pairs.")
    parser.add_argument("--data", default=os.environ.get("RADPLAN_SHARED", "../shared"))
    parser.add_argument("--repeats", type=int, default=41)
    options = parser.parse_args()
    for radiation in ("photons", "carbon"):
        measure(Path(options.data), radiation, options.repeats)
