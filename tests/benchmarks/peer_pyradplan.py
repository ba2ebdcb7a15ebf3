"""The TG-119 photon case in pyRadPlan, run by an interpreter that has it; prints one JSON line, writes its matrix.

Usage: python peer_pyradplan.py OUT_FOLDER
The matrix, the voxels of its objectives and its final cost let another program optimise the very same problem.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pyRadPlan
from peer_clocks import clock_iterations
from pyRadPlan import PhotonPlan, calc_dose_influence, fluence_optimization, generate_stf, load_tg119
from pyRadPlan.optimization.problems import _nonlin_fluence as nonlin

GANTRY = [0.0, 72.0, 144.0, 216.0, 288.0]


def main(folder: Path) -> dict[str, object]:
    pyRadPlan.settings.xp.prefer_gpu = False
    pyRadPlan.settings.xp.preferred_cpu_array_backend = "numpy"
    ct, cst = load_tg119()
    plan = PhotonPlan(machine="Generic")
    plan.prop_stf = {"gantry_angles": GANTRY, "couch_angles": [0.0] * 5, "bixel_width": 5.0}
    plan.prop_opt = {"solver": "scipy", "max_iter": 500}
    stf = generate_stf(ct, cst, plan)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        dij = calc_dose_influence(ct, cst, stf, plan)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    problems = []
    solve = nonlin.NonLinearFluencePlanningProblem._solve

    def remember(self):
        problems.append(self)
        return solve(self)

    nonlin.NonLinearFluencePlanningProblem._solve = remember
    clocks = clock_iterations(problems)
    info: dict[str, object] = {}
    start = time.perf_counter()
    weights = fluence_optimization(ct, cst, stf, dij, plan, opt_info=info)
    optimise = time.perf_counter() - start
    problem = problems[0]
    matrix = dij.physical_dose.flat[0].tocsr()
    terms = {}
    goals = []
    for number, (index, objectives, *_rest) in enumerate(problem._objective_list):
        chosen = np.asarray(index)
        terms[f"voxels{number}"] = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        goals += [
            {
                "term": number,
                "name": o.name,
                "weight": float(o.priority),
                "parameters": [float(p) for p in o.parameters],
            }
            for o in objectives
        ]
    np.savez(
        folder / "peer.npz",
        indptr=matrix.indptr,
        indices=matrix.indices,
        data=matrix.data,
        shape=matrix.shape,
        weights=np.asarray(weights),
        **terms,
    )
    (folder / "goals.json").write_text(json.dumps(goals))
    return {
        "version": pyRadPlan.__version__,
        "dij_s": seconds,
        "nnz": int(matrix.nnz),
        "dij_peak_mb": peak,
        "evaluation_s": statistics.median(problem._obj_times) + statistics.median(problem._deriv_times),
        "clocks": clocks,
        "evaluation_cpu_s": clocks[-1][0] / clocks[-1][1],
        "iterations": int(info["num_iter"]),
        "objective": float(info["obj_history"][-1]),
        "optimise_s": optimise,
        "solve_s": float(problem._solve_time),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print("RESULT " + json.dumps(main(Path(sys.argv[1]))))
