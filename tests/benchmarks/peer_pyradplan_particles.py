"""The TG-119 particle cases in pyRadPlan, run by an interpreter that has it; prints one JSON line, writes its matrices.

Usage: python peer_pyradplan_particles.py OUT_FOLDER protons|carbon ITERATIONS
Two beams (90, 270 degrees), spots 5 mm apart, 5 mm grid, its "Generic" machine. For carbon it then optimises the
RBE-weighted dose with the objectives of its phantom; the matrices, voxels and cost that it writes let another program
optimise the very same problem.
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
from pyRadPlan import IonPlan, calc_dose_influence, fluence_optimization, generate_stf, load_tg119
from pyRadPlan.optimization.problems import _nonlin_fluence as nonlin

GANTRY = [90.0, 270.0]


def influence(radiation: str, iterations: int):
    ct, cst = load_tg119()
    plan = IonPlan(radiation_mode=radiation, machine="Generic")
    plan.prop_stf = {"gantry_angles": GANTRY, "couch_angles": [0.0, 0.0], "bixel_width": 5.0}
    plan.prop_dose_calc = {"calc_bio_dose": True} if radiation == "carbon" else {}
    plan.prop_opt = {"solver": "scipy", "max_iter": iterations}
    stf = generate_stf(ct, cst, plan)
    seconds, processor = [], []
    for _ in range(3):
        start, begun = time.perf_counter(), time.process_time()
        dij = calc_dose_influence(ct, cst, stf, plan)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - begun)
    return ct, cst, plan, stf, dij, (seconds, processor)


def write_spots(stf, folder: Path) -> None:
    """Write every spot in the order of the matrix: beam, place in the isocentre plane, energy, and the isocentre."""
    rows = [
        (number, ray.ray_pos_bev[0], ray.ray_pos_bev[2], spot.energy)
        for number, beam in enumerate(stf.beams)
        for ray in beam.rays
        for spot in ray.beamlets
    ]
    np.savez(folder / "spots.npz", spots=np.asarray(rows), isocenter=np.asarray(stf.beams[0].iso_center))


def optimise(ct, cst, plan, stf, dij, folder: Path) -> dict[str, object]:
    problems = []
    solve = nonlin.NonLinearFluencePlanningProblem._solve

    def remember(self):
        problems.append(self)
        return solve(self)

    nonlin.NonLinearFluencePlanningProblem._solve = remember
    clocks = clock_iterations(problems)
    info: dict[str, object] = {}
    begun = time.process_time()
    weights = fluence_optimization(ct, cst, stf, dij, plan, opt_info=info)
    processor = time.process_time() - begun
    problem = problems[0]
    terms, goals = {}, []
    for number, (index, objectives, *_rest) in enumerate(problem._objective_list):
        chosen = np.asarray(index)
        terms[f"voxels{number}"] = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        goals += [
            {
                "term": number,
                "name": o.name,
                "quantity": o.quantity,
                "weight": float(o.priority),
                "parameters": [float(p) for p in o.parameters],
            }
            for o in objectives
        ]
    matrices = {}
    for name in ("physical_dose", "alpha_dose", "sqrt_beta_dose"):
        matrix = getattr(dij, name).flat[0].tocsr()
        matrix.sort_indices()
        matrices[name] = matrix.data
    np.savez(
        folder / "peer.npz",
        indptr=matrix.indptr,
        indices=matrix.indices,
        shape=matrix.shape,
        alpha_x=np.asarray(dij.alphax),
        beta_x=np.asarray(dij.betax),
        weights=np.asarray(weights),
        **matrices,
        **terms,
    )
    (folder / "goals.json").write_text(json.dumps(goals))
    return {
        "objective_s": statistics.median(problem._obj_times),
        "gradient_s": statistics.median(problem._deriv_times),
        "evaluations": len(problem._obj_times),
        "clocks": clocks,
        "evaluation_cpu_s": clocks[-1][0] / clocks[-1][1],
        "iterations": int(info["num_iter"]),
        "objective": float(info["obj_history"][-1]),
        "best_objective": float(min(info["obj_history"])),
        "history": [float(value) for value in info["obj_history"]],
        "solve_s": float(problem._solve_time),
        "solve_cpu_s": processor,
    }


def main(folder: Path, radiation: str, iterations: int) -> dict[str, object]:
    pyRadPlan.settings.xp.prefer_gpu = False
    pyRadPlan.settings.xp.preferred_cpu_array_backend = "numpy"
    ct, cst, plan, stf, dij, (seconds, processor) = influence(radiation, iterations)
    write_spots(stf, folder)
    found = {
        "version": pyRadPlan.__version__,
        "dij_s": seconds,
        "dij_cpu_s": processor,
        "spots": int(stf.total_number_of_bixels),
        "nnz": int(dij.physical_dose.flat[0].nnz),
        "images": list(dij.quantities),
        "dij_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if iterations > 0:
        found |= optimise(ct, cst, plan, stf, dij, folder)
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    print("RESULT " + json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
