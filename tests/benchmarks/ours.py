"""radplan's side of the photon benchmark: each step in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse

GANTRY = range(0, 360, 72)


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def processor_seconds(call: Callable[[], object], repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return taken


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def dij(case: str, machine_file: str, device: str) -> dict[str, object]:
    """Dose influence of matRad's TG119 with matRad's machine: 5 beams, 5 mm bixels, 5 mm grid, float32."""
    import radplan as rp

    patient, machine = rp.load_patient(case), rp.load_machine(machine_file)
    beams = rp.place_beams(patient, machine, gantry=GANTRY, bixel_width=5.0)
    made: list[rp.Dij] = []

    def build() -> None:
        made.clear()
        made.append(rp.dose_influence(patient, beams, machine, grid=5.0, device=device))

    taken = seconds(build, 6)
    matrix = made[0].operators["physical_dose"][0]
    return {
        "first_s": taken[0],
        "dij_s": taken[1:],
        "nnz": int(matrix.nnz),
        "bixels": beams.count,
        "peak_mb": peak_mb(),
    }


def plan(case: str, machine_file: str, device: str) -> dict[str, object]:
    """The whole plan in one process: patient, beams, dose influence, optimisation; its peak memory."""
    import radplan as rp

    start = time.perf_counter()
    patient, machine = rp.load_patient(case), rp.load_machine(machine_file)
    beams = rp.place_beams(patient, machine, gantry=GANTRY, bixel_width=5.0)
    model = rp.dose_influence(patient, beams, machine, grid=5.0, device=device)
    goals = patient.goals
    made = rp.optimize(model, goals, patient, fractions=patient.fractions or 30)
    return {"total_s": time.perf_counter() - start, "value": float(made.solution.value), "peak_mb": peak_mb()}


def same_problem(folder: str, device: str) -> dict[str, object]:
    """The peer's own matrix, voxels and goals: one evaluation, and the time to the peer's final objective."""
    import radplan as rp
    from radplan.optim.solvers import ProjectedLBFGS

    peer = np.load(Path(folder) / "peer.npz")
    result = json.loads((Path(folder) / "result.json").read_text())
    shape = tuple(int(n) for n in peer["shape"])
    matrix = scipy.sparse.csr_array((peer["data"], peer["indices"], peer["indptr"]), shape=shape)
    grid = rp.Grid((1, 1, shape[0]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    model = rp.Dij.from_matrices({"physical_dose": matrix}, grid, device=device)
    kinds = {"Squared Overdosing": rp.SquaredOverdosing, "Squared Deviation": rp.SquaredDeviation}
    goals, members = [], {}
    for entry in json.loads((Path(folder) / "goals.json").read_text()):
        name = f"voxels{entry['term']}"
        goals.append(rp.Goal(name, kinds[entry["name"]](entry["parameters"][0]), weight=entry["weight"]))
        members[name] = (peer[name], None)
    problem = rp.Problem(model, goals, fractions=1, weights=members)
    place = model.device
    x = place.asarray(peer["weights"], "float64")
    at_theirs = float(problem.value_and_gradient(x)[0])
    evaluation = statistics.median(processor_seconds(lambda: float(problem.value_and_gradient(x)[0]), 41))
    goal_value = result["clocks"][-1][2]
    runs = []
    for _ in range(3):
        reached: list[float] = []
        start = time.process_time()

        def watch(step, begun: float = start, reached: list[float] = reached) -> bool:
            if step.value <= goal_value and not reached:
                reached.append(time.process_time() - begun)
            return bool(reached)

        fresh = rp.Problem(model, goals, fractions=1, weights=members)
        solution = ProjectedLBFGS().solve(fresh, callback=watch)
        runs.append((reached[0] if reached else float("inf"), solution.iterations))
    return {
        "their_value_in_ours": at_theirs,
        "evaluation_cpu_s": evaluation,
        "to_their_value_cpu_s": statistics.median(run[0] for run in runs),
        "all_runs": runs,
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    print("RESULT " + json.dumps({"dij": dij, "plan": plan, "same_problem": same_problem}[step](*arguments)))
