"""Robust proton plans of the box by every reduction, beside a nominal and a margin plan; what nine cases cost.

    NUMBA_NUM_THREADS=1 python -m tests.benchmarks.robust_protons [REDUCTION ...]

The built-in box, two proton beams at 45 and 315 degrees, RBE-weighted dose in 30 fractions, 4 mm; setup +-5 mm and
range +-3.5 %, nine cases. Each plan is judged in all nine: target D95 in the worst and nominal case, mean of the
body in the nominal one. The nominal plan has no margins. The margin plans have a PTV and spots 6 mm about that: the
first is 5 mm about the target, for setup alone, the second by the larger of that and the distal margin for range, 3.5 %
of the greatest depth of a peak in the nominal plan and 1 mm, in all directions. Robust plans have spots 8 mm and 3.5 %
about the target. Building and evaluating nine cases is timed against one, of the same spots; processor time, kernels
warm.
"""

from __future__ import annotations

import argparse
import statistics
import time

import radplan as rp
from radplan.engines import ParticlePencilBeam
from radplan.optim import Problem
from radplan.plan import scenario_metrics
from radplan.plan.robustness import extremes

QUANTITY = "rbe_x_dose"
CASES = rp.Scenarios.setup_and_range(setup=5.0, range=0.035)
REDUCTIONS = ("expected", "worst", "composite", "voxelwise_worst", "voxelwise_best", "cvar", "variance")
ENGINE = ParticlePencilBeam(let=False)
GRID = 4.0


def goals_of(target: str, robust: str = "nominal") -> list[rp.Goal]:
    """The target at 60 Gy(RBE), the body below 40 Gy(RBE)."""
    return [
        rp.Goal(target, rp.SquaredDeviation(60.0), 100.0, QUANTITY, robust=robust),
        rp.Goal("BODY", rp.SquaredOverdosing(40.0), 2.0, QUANTITY, robust=robust),
    ]


def clocked(make):
    """What a call returns and its processor time [s]."""
    begun = time.process_time()
    result = make()
    return result, time.process_time() - begun


def influence(patient, machine, cases=None, **margins):
    """The spots' dose, in the nominal case alone when left out."""
    beams = rp.place_beams(patient, machine, gantry=[45, 315], bixel_width=6.0, layer_spacing=5.0, **margins)
    return rp.dose_influence(patient, beams, machine, GRID, ENGINE, scenarios=cases, progress=False)


def told(name, plan, model, patient, seconds):
    """Print what a plan is in all cases of a model."""
    table = scenario_metrics(rp.evaluate(model, plan.x, patient), names=["D95", "Dmean"])
    worst = extremes(table, "OuterTarget", "D95")[0]
    nominal, body = table["nominal"]["OuterTarget"]["D95"], table["nominal"]["BODY"]["Dmean"]
    solution = plan.solution
    print(f"{name}: D95 worst {worst:.2f}, nominal {nominal:.2f}; body mean {body:.2f};", end=" ")
    print(f"{solution.status.value}, {solution.iterations} iterations, {seconds:.1f} s", flush=True)


def margin_plans(patient, machine, nominal) -> None:
    """Print what plans on a PTV for setup alone, and for setup and range, are in all cases."""
    deepest = max(machine.peaks[machine.energy_index(float(beam.energies.max()))] for beam in nominal.beams)
    for name, margin in (("setup", 5.0), ("setup and range", max(5.0, 0.035 * deepest + 1.0))):
        wider = patient.with_structure("PTV", f"OuterTarget + {margin:.1f} mm", "target", 1)
        settings = {"targets": "PTV", "setup_margin": 6.0}
        goals = goals_of("PTV")
        model = influence(wider, machine, **settings)
        plan, seconds = clocked(lambda w=wider, m=model, g=goals: rp.optimize(m, g, w, progress=False))
        label = f"margin plan, {margin:.1f} mm for {name}"
        told(label, plan, influence(wider, machine, CASES, **settings), patient, seconds)


def evaluation_seconds(model, patient, robust, x, repeats: int = 7) -> float:
    """Processor time of a cost and its gradient [s], median."""
    problem = Problem(model, goals_of("OuterTarget", robust), patient, 30)
    place = model.device.asarray(x, "float64")
    return statistics.median(clocked(lambda: problem.at(place).gradient)[1] for _ in range(repeats + 2))


def costs(single, nine, patient, x) -> None:
    """Print what an evaluation of nine cases costs beside one."""
    one = evaluation_seconds(single, patient, "nominal", x)
    for robust in ("expected", "worst", "voxelwise_worst", "variance"):
        seconds = evaluation_seconds(nine, patient, robust, x)
        print(f"evaluation, {robust}: {1e3 * seconds:.0f} ms, {seconds / one:.2f} x nominal ({1e3 * one:.0f} ms)")


def measure(reductions: list[str]) -> None:
    patient, machine = rp.load_patient("box"), rp.load_machine("generic_proton")
    influence(patient, machine)
    plain = influence(patient, machine, CASES)
    plan, seconds = clocked(lambda: rp.optimize(influence(patient, machine), goals_of("OuterTarget"), patient))
    told("nominal plan", plan, plain, patient, seconds)
    margin_plans(patient, machine, plan)
    margins = {"setup_margin": 8.0, "range_margin": (0.035, 0.0)}
    single, one = clocked(lambda: influence(patient, machine, **margins))
    nine, all_cases = clocked(lambda: influence(patient, machine, CASES, **margins))
    print(f"{nine.variables.count} spots; building: {one:.2f} s, nine cases {all_cases:.2f} s, {all_cases / one:.2f} x")
    start = None
    for name in reductions:
        goals = goals_of("OuterTarget", "nominal" if name == "composite" else name)
        robust = "composite" if name == "composite" else None
        plan, seconds = clocked(lambda g=goals, r=robust: rp.optimize(nine, g, patient, robust=r, progress=False))
        start = plan if start is None else start
        told(name, plan, nine, patient, seconds)
    if start is not None:
        costs(single, nine, patient, start.x)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Robust proton plans of the box, and what nine cases cost.")
    parser.add_argument("reductions", nargs="*", help=", ".join(REDUCTIONS))
    measure(parser.parse_args().reductions or list(REDUCTIONS))
