"""Second derivatives within rays as the first metric of a search, beside a search without them.

    NUMBA_NUM_THREADS=1 python -m tests.benchmarks.ray_blocks [protons|helium|carbon ...]

The built-in C-shape, two beams at 45 and 315 degrees, RBE-weighted dose. Squared goals; goals of DVH points; mimicking
a plan's dose less 3 %: cost after so many iterations, and when the search with blocks reached what the one without them
ended at. Then the same goals with core D10 <= 20 Gy(RBE). Processor time of the search, kernels warm.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import radplan as rp
from radplan.optim import Constraint, Goal, Problem, ProjectedLBFGS
from radplan.optim.objectives import DoseMimicking, MaxDVH, MinDVH, SquaredOverdosing
from radplan.optim.solvers import AugmentedLagrangian
from tests.benchmarks.settling import problem_of

ITERATIONS = 300
KINDS = ("protons", "helium", "carbon")


def goals_of(goals, dose, quantity):
    points = [
        Goal("OuterTarget", MinDVH(50.0, 0.97), 1000.0, quantity),
        Goal("OuterTarget", SquaredOverdosing(51.5), 1000.0, quantity),
        Goal("Core", MaxDVH(15.0, 0.1), 50.0, quantity),
        Goal("Ring", SquaredOverdosing(50.0), 300.0, quantity),
        Goal("BODY", SquaredOverdosing(30.0), 100.0, quantity),
    ]
    weights = {"OuterTarget": 1000.0, "Core": 50.0, "BODY": 100.0}
    mimicked = [Goal(name, DoseMimicking(0.97 * dose), weight, quantity) for name, weight in weights.items()]
    return {"squared": goals, "DVH points": points, "mimicking": mimicked}


def searched(problem, blocks: bool):
    """Cost and processor seconds after each iteration."""
    told: list[tuple[float, float]] = []
    begun = time.process_time()
    solver = ProjectedLBFGS(max_iterations=ITERATIONS, tolerance=1e-9, plan_change=0.0, blocks=blocks)
    solver.solve(problem, callback=lambda step: told.append((step.value, time.process_time() - begun)))
    return told


def measure(radiation: str) -> None:
    model, goals, patient, quantity = problem_of(radiation)
    dose = np.asarray(rp.optimize(model, goals, patient, progress=False)[quantity])
    for name, wished in goals_of(goals, dose, quantity).items():
        problem = Problem(model, wished, patient, 30)
        plain, blocked = (searched(problem, blocks) for blocks in (False, True))
        number = next((n for n, (value, _) in enumerate(blocked) if value <= plain[-1][0]), len(blocked) - 1)
        print(f"{radiation}, {name}: without {plain[-1][0]:.5g} after {len(plain)}, {plain[-1][1]:.1f} s;", end=" ")
        print(f"with {blocked[number][0]:.5g} after {number + 1}, {blocked[number][1]:.1f} s,", end=" ")
        print(f"{blocked[-1][0]:.5g} after {len(blocked)}, {blocked[-1][1]:.1f} s", flush=True)
    limit = [Constraint("Core", "D10", upper=20.0, quantity=quantity)]
    for blocks in (False, True):
        begun = time.process_time()
        solver = AugmentedLagrangian(blocks=blocks)
        solution = rp.optimize(model, goals, patient, solver=solver, constraints=limit, progress=False).solution
        print(f"{radiation}, bounded, {'with' if blocks else 'without'}: {solution.status.value},", end=" ")
        print(
            f"{solution.iterations} iterations, {time.process_time() - begun:.1f} s, cost {solution.value:.5g},",
            end=" ",
        )
        print("; ".join(map(str, solution.kept)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Searches with and without second derivatives within rays.")
    parser.add_argument("radiations", nargs="*", default=[], choices=[*KINDS, []], help="all where none is named")
    for kind in parser.parse_args().radiations or KINDS:
        measure(kind)
