"""Constraints and Pareto fronts on the C-shape of TG-119: bounds kept, IPOPT beside, 25 plans beside their own optima.

    NUMBA_NUM_THREADS=1 python -m tests.benchmarks.tradeoffs [bounds] [ipopt] [pareto]

Processor time, kernels warm, dose voxels of 5 mm. `bounds`: 9 beams, bixels of 5 mm. `ipopt` (extra `solvers`) and
`pareto`: 5 beams, 741 bixels of 8 mm; each plan of the front beside a search of its own from scratch to a tolerance of
1e-6, and the time of the whole front beside that of its middle plan from scratch.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import radplan as rp
from radplan.optim import EUD, Constraint, Goal, Mean, Problem, ProjectedLBFGS, SquaredDeviation, SquaredOverdosing
from radplan.optim.solvers import AugmentedLagrangian, Ipopt

GOALS = [
    Goal("OuterTarget", SquaredDeviation(50.0), 1000.0),
    Goal("Core", SquaredOverdosing(15.0), 300.0),
    Goal("BODY", SquaredOverdosing(30.0), 100.0),
]
KINDS = ("bounds", "ipopt", "pareto")


def model_of(gantry, width: float):
    patient, machine = rp.load_patient("tg119"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=gantry, bixel_width=width)
    return rp.dose_influence(patient, beams, machine, grid=5.0), patient


def timed(call):
    begun = time.process_time()
    result = call()
    return result, time.process_time() - begun


def bounds() -> None:
    model, patient = model_of(range(0, 360, 40), 5.0)
    limits = [Constraint("Core", "D10", upper=15.0), Constraint("OuterTarget", "D95", lower=47.5)]
    rp.optimize(model, patient.goals, patient, 30, ProjectedLBFGS(max_iterations=3), progress=False)
    for name, kept in (("goals alone", ()), ("bounds", limits)):
        plan, seconds = timed(
            lambda kept=kept: rp.optimize(model, patient.goals, patient, 30, None, kept, progress=False)
        )
        metrics, solution = plan.metrics(), plan.solution
        told = f"core D10 {metrics['Core']['D10']:.3f}, target D95 {metrics['OuterTarget']['D95']:.3f} Gy"
        print(f"{name}: {told}; {solution.status.value}, {solution.iterations} iterations, {seconds:.1f} s", flush=True)


def ipopt() -> None:
    model, patient = model_of(range(0, 360, 72), 8.0)
    for exponent, level in ((3.5, 17.0), (8.0, 21.0)):
        limits = [
            Constraint("Core", Mean(), upper=13.0),
            Constraint("Core", EUD(exponent=exponent, form="value"), upper=level),
            Constraint("OuterTarget", EUD(exponent=-10.0, form="value"), lower=47.0),
        ]
        problem = Problem(model, GOALS, patient, 30, limits)
        for solver in (AugmentedLagrangian(max_iterations=5), Ipopt(max_iterations=5)):
            solver.solve(problem)
        for solver in (AugmentedLagrangian(), Ipopt()):
            found, seconds = timed(lambda solver=solver, problem=problem: solver.solve(problem))
            kept = "; ".join(map(str, found.kept))
            print(f"core gEUD({exponent:g}) <= {level:g}, {solver.name}: cost {found.value:.6g},", end=" ")
            print(f"{found.status.value}, {found.iterations} iterations, {seconds:.1f} s; {kept}", flush=True)


def pareto() -> None:
    model, patient = model_of(range(0, 360, 72), 8.0)
    rp.pareto(model, GOALS, patient, levels=1)
    front, seconds = timed(lambda: rp.pareto(model, GOALS, patient))
    cold, cold_seconds = timed(lambda: ProjectedLBFGS().solve(front.problem))
    print(
        f"{len(front)} plans: {sum(front.iterations)} iterations, {seconds:.1f} s, {front.dominated.sum()} dominated;",
        end=" ",
    )
    print(f"the middle one from scratch {cold.iterations}, {cold_seconds:.1f} s: {seconds / cold_seconds:.1f} times")
    weights = np.asarray([goal.weight for goal in GOALS])
    above = []
    for factors, values in zip(front.factors, front.values, strict=True):
        exact = ProjectedLBFGS(tolerance=1e-6, plan_change=0.0, max_iterations=1500)
        least = exact.solve(front.problem.weighted(factors.tolist())).value
        above.append(float(np.dot(weights * factors, values)) / least - 1.0)
    print(f"above their own optima: worst {100 * max(above):.3f} %, median {100 * float(np.median(above)):.3f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Constraints and Pareto fronts on the C-shape.")
    parser.add_argument("kinds", nargs="*", default=[], choices=[*KINDS, []], help="all where none is named")
    for kind in parser.parse_args().kinds or KINDS:
        {"bounds": bounds, "ipopt": ipopt, "pareto": pareto}[kind]()
