"""What the stopping rule in terms of the plan saves, and what the metrics then are: one search with it, one without.

    NUMBA_NUM_THREADS=1 python -m tests.benchmarks.settling [photons|protons|helium|carbon ...]

The built-in C-shape: `radplan plan tg119` with photons, with ions two beams at 45 and 315 degrees and the goals in
RBE-weighted dose. Processor time of the search, kernels warm; metrics after scaling to D95 = 50 Gy.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from radplan.optim import ProjectedLBFGS

METRICS = ("Dmean", "D2", "D10", "D50", "D95", "D98")
SOLVERS = {
    "plan": ProjectedLBFGS(),
    "cost alone": ProjectedLBFGS(plan_change=0.0),
    "deep": ProjectedLBFGS(plan_change=0.0, tolerance=1e-7, max_iterations=3000),
}
KINDS = ("photons", "protons", "helium", "carbon")
GOALS = [
    {"structure": "OuterTarget", "objective": "squared_deviation", "parameters": {"reference": 50}, "weight": 1000},
    {"structure": "Core", "objective": "squared_overdosing", "parameters": {"reference": 25}, "weight": 50},
    {"structure": "Ring", "objective": "squared_overdosing", "parameters": {"reference": 50}, "weight": 300},
    {"structure": "BODY", "objective": "squared_overdosing", "parameters": {"reference": 30}, "weight": 100},
]


def problem_of(radiation: str):
    """The model, patient, goals and quantity of a radiation."""
    import radplan as rp
    from radplan.io.plan_file.reading import plan_spec
    from radplan.workflows.planning import influence_of
    from radplan.workflows.radiation import machine_name
    from radplan.workflows.setup import filled, named_patient, prepare_patient, task, wanted_goals

    data = {"case": "tg119", "radiation": radiation}
    if radiation != "photons":
        data |= {"beams": {"gantry": [45, 315], "spot_spacing": 5}, "goals": GOALS}
    spec = plan_spec(data)
    machine = rp.load_machine(machine_name(spec))
    patient, _ = named_patient(spec)
    patient = prepare_patient(spec, patient)
    spec = filled(spec, patient, machine, wanted_goals(spec, patient))
    return influence_of(spec, patient, machine), task(spec, patient, machine).goals, patient, spec.quantity


def measure(radiation: str) -> None:
    import radplan as rp

    model, goals, patient, quantity = problem_of(radiation)
    rp.optimize(model, goals, patient, solver=replace(SOLVERS["plan"], max_iterations=25), progress=False)
    read = {}
    for name, solver in SOLVERS.items():
        begun = time.process_time()
        plan = rp.optimize(model, goals, patient, solver=solver, progress=False)
        seconds, solution = time.process_time() - begun, plan.solution
        print(f"{radiation}, {name}: {solution.iterations} iterations, {seconds:.2f} s,", end=" ")
        print(f"cost {solution.value:.6g}, {solution.status.value}: {solution.reason}", flush=True)
        structures = [goal.structure for goal in goals]
        read[name] = plan.scaled("OuterTarget", quantity, D95=50.0).metrics(quantity, structures, METRICS)
    print(f"  {', '.join(METRICS)}; {', '.join(SOLVERS)}")
    for structure in read["deep"]:
        told = ["/".join(f"{table[structure][metric]:.2f}" for table in read.values()) for metric in METRICS]
        print(f"  {structure}: {'  '.join(told)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Searches with and without the stopping rule in terms of the plan.")
    parser.add_argument("radiations", nargs="*", default=[], choices=[*KINDS, []], help="all where none is named")
    for kind in parser.parse_args().radiations or KINDS:
        measure(kind)
