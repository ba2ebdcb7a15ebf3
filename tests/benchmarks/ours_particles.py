"""radplan's side of the particle benchmark: each step in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse

from tests.benchmarks.ours import peak_mb, processor_seconds, seconds

GANTRY = (90.0, 270.0)
CASE = "cases/tg119/TG119.mat"
IMAGES = ("physical_dose", "alpha_dose", "sqrt_beta_dose")


def dij(data: str, radiation: str, device: str, folder: str = "") -> dict[str, object]:
    """Dose influence of matRad's TG119 with matRad's machine: 2 beams, spots 5 mm apart, 5 mm grid, float32.

    The spots are the peer's, from `folder`; without it our own, with layers 2 mm apart.
    """
    import radplan as rp
    from radplan.engines import ParticlePencilBeam

    patient = rp.load_patient(str(Path(data) / CASE))
    machine = rp.load_machine(str(Path(data) / f"cases/matrad_machines/{radiation}_Generic.mat"))
    if folder:
        beams = peer_beams(Path(folder), machine)
    else:
        beams = rp.place_beams(patient, machine, gantry=GANTRY, bixel_width=5.0, layer_spacing=2.0)
    # The peer gives LET for protons, and for carbon alpha and beta without it.
    engine = ParticlePencilBeam(let=radiation == "protons")
    made: list[rp.Dij] = []

    def build(**options: bool) -> None:
        made.clear()
        made.append(rp.dose_influence(patient, beams, machine, grid=5.0, engine=engine, device=device, **options))

    taken = seconds(build, 5)
    begun = time.process_time()
    taken += seconds(build, 1)
    processor = time.process_time() - begun
    peak, matrix = peak_mb(), made[0].operators["physical_dose"][0]
    found: dict[str, object] = {
        "first_s": taken[0],
        "dij_s": taken[1:],
        "dij_cpu_s": processor,
        "nnz": int(matrix.nnz),
        "spots": beams.count,
        "images": made[0].images,
        "peak_mb": peak,
        "stored_pair_s": pair(made[0]),
    }
    found["one_image_s"] = pair(made[0], ["physical_dose"])
    found["fly_set_up_s"] = statistics.median(seconds(lambda: build(stored=False), 3))
    found["fly_pair_s"] = pair(made[0])
    return found


def peer_beams(folder: Path, machine):
    """The peer's spots; its machine is matRad's, so each energy is the nearest of ours."""
    import radplan as rp

    peer = np.load(folder / "spots.npz")
    spots = peer["spots"]
    nearest = machine.energies[np.argmin(np.abs(machine.energies - spots[:, 3:]), axis=1)]
    assert np.max(np.abs(nearest - spots[:, 3])) < 1e-3, "the peer's machine has other energies"
    numbers = range(len(GANTRY))
    return rp.Beams.from_rays(
        [spots[spots[:, 0] == number, 1:3] for number in numbers],
        gantry=GANTRY,
        isocenter=peer["isocenter"],
        sad=machine.sad,
        bixel_width=5.0,
        machine=machine.name,
        radiation=machine.radiation,
        energies=[nearest[spots[:, 0] == number] for number in numbers],
    )


def pair(model, images=None) -> float:
    """Seconds for images of all weights and for a pullback from them."""
    place = model.device
    x = place.asarray(np.ones(model.variables.count), "float64")

    def both() -> object:
        return float(model.pullback(x, model.forward(x, images))[0])

    return statistics.median(seconds(both, 6)[1:])


def problem_of(folder: str, device: str):
    """The peer's own matrices, voxels, tissues and goals as a problem, and the weights it ended with."""
    import radplan as rp

    peer = np.load(Path(folder) / "peer.npz")
    shape = tuple(int(n) for n in peer["shape"])
    matrices = {
        name: scipy.sparse.csr_array((peer[name], peer["indices"], peer["indptr"]), shape=shape) for name in IMAGES
    }
    grid = rp.Grid((1, 1, shape[0]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    parameters = {"alpha_x": peer["alpha_x"].reshape(-1), "beta_x": peer["beta_x"].reshape(-1)}
    model = rp.Dij.from_matrices(matrices, grid, radiation="carbon", voxel_parameters=parameters, device=device)
    rays = np.load(Path(folder) / "spots.npz")["spots"][:, :3]
    groups = np.cumsum(np.any(np.diff(rays, axis=0, prepend=rays[:1]) != 0.0, axis=1))
    model = replace(model, variables=replace(model.variables, groups=groups))
    kinds = {"Squared Overdosing": rp.SquaredOverdosing, "Squared Deviation": rp.SquaredDeviation}
    goals, members = [], {}
    for entry in json.loads((Path(folder) / "goals.json").read_text()):
        name = f"voxels{entry['term']}"
        goal = kinds[entry["name"]](entry["parameters"][0])
        goals.append(rp.Goal(name, goal, weight=entry["weight"], quantity="rbe_x_dose"))
        members[name] = (peer[name], None)

    def fresh():
        return rp.Problem(model, goals, fractions=1, weights=members)

    return fresh, model.device.asarray(peer["weights"], "float64")


def same_problem(folder: str, device: str) -> dict[str, object]:
    """One evaluation of the peer's problem, and the processor time to what it reached after so many iterations."""
    from radplan.optim.solvers import ProjectedLBFGS

    clocks = json.loads((Path(folder) / "result.json").read_text())["clocks"]
    fresh, x = problem_of(folder, device)
    problem = fresh()
    at_theirs = float(problem.value_and_gradient(x)[0])
    evaluation = statistics.median(processor_seconds(lambda: float(problem.value_and_gradient(x)[0]), 21))
    marks = [n for n in (40, 120) if n < len(clocks)] + [len(clocks)]
    ProjectedLBFGS(max_iterations=10).solve(fresh())  # kernels warm
    seen: list[tuple[float, float]] = []
    begun = time.process_time()

    def watch(step) -> bool:
        seen.append((time.process_time() - begun, step.value))
        return step.value <= clocks[-1][2]

    ProjectedLBFGS(max_iterations=2000, tolerance=1e-9).solve(fresh(), callback=watch)
    reached = {}
    for mark in marks:
        spent, _, cost = clocks[mark - 1]
        place = next((n for n, (_, value) in enumerate(seen) if value <= cost), None)
        ours = (place + 1, seen[place][0]) if place is not None else (len(seen), float("inf"))
        reached[mark] = {"cost": cost, "peer_cpu_s": spent, "iterations": ours[0], "cpu_s": ours[1]}
    return {
        "their_value_in_ours": at_theirs,
        "evaluation_cpu_s": evaluation,
        "reached": reached,
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    print("RESULT " + json.dumps({"dij": dij, "same_problem": same_problem}[step](*arguments)))
