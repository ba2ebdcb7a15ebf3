"""The thorax patient by a robust proton plan and by one with a PTV, both in nine cases, as docs/robustness.md has it.

Run it as ``python docs/examples/robust_thorax.py [FOLDER]``; the figure goes to the folder, ``docs/figures`` when none
is given. The patient is not part of the repository: RADPLAN_SHARED names the folder that holds ``cases``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

import radplan as rp
from radplan.io.plan_file.reading import plan_spec
from radplan.plan import Plan, scenario_metrics
from radplan.plan.robustness import extremes
from radplan.workflows.planning import run

ROOT = Path(__file__).resolve().parents[2]
CASE = Path(os.environ.get("RADPLAN_SHARED", ROOT.parent / "shared")) / "cases" / "thorax-imrt"
FILE = Path(__file__).with_name("proton_thorax_robust.yaml")
TABLE = {
    "CTVp": ("D95", "D2"),
    "LUNGS": ("Dmean", "V20Gy"),
    "HEART": ("Dmean",),
    "SPINALCORD": ("Dmax",),
    "BODY": ("Dmean",),
}
SHOWN = ["CTVp", "LUNGS", "HEART", "SPINALCORD"]


def with_margins(robust: dict[str, Any]) -> dict[str, Any]:
    """Return the specification of a plan on the PTV in the nominal case."""
    goals = [{key: value for key, value in goal.items() if key != "robust"} for goal in robust["goals"]]
    for goal in goals:
        goal["structure"] = "PTV4140" if goal["structure"] == "CTVp" else goal["structure"]
    beams = {key: value for key, value in robust["beams"].items() if not key.endswith("_margin")}
    return {**robust, "goals": goals, "beams": {**beams, "margin": 6, "targets": ["PTV4140"]}, "robust": None}


def in_all_cases(outcome: Any) -> Plan:
    """Return the plan with the dose of all cases."""
    cases = rp.Scenarios.setup_and_range(setup=5.0, range=0.035)
    plan = outcome.plan
    if len(plan.model.scenarios) == len(cases):
        return plan
    return rp.evaluate(plan.model, plan.x, outcome.patient, plan.fractions, scenarios=cases)


def told(name: str, plan: Plan, seconds: float) -> None:
    """Print the nominal value of each metric, and its range over the cases."""
    print(f"{name}: {seconds:.0f} s of processor time")
    table = scenario_metrics(plan, "rbe_x_dose", list(TABLE), [metric for row in TABLE.values() for metric in row])
    for structure, metrics in TABLE.items():
        for metric in metrics:
            low, high = extremes(table, structure, metric)
            print(
                f"  {structure} {metric}: {table['nominal'][structure][metric]:.1f} ({low:.1f} to {high:.1f})",
                flush=True,
            )


def main(folder: Path) -> None:
    """Plan twice, print the tables, draw the bands beside each other."""
    stated = {**yaml.safe_load(FILE.read_text(encoding="utf-8")), "case": str(CASE)}
    figure = Figure(figsize=(12.0, 5.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, spec) in zip(panels, {"PTV": with_margins(stated), "robust": stated}.items(), strict=True):
        begun = time.process_time()
        outcome = run(plan_spec({key: value for key, value in spec.items() if value is not None}), progress=False)
        solution = outcome.plan.solution
        print(
            f"{name}: {outcome.plan.beams.count} spots, {solution.status.value} after {solution.iterations} iterations"
        )
        plan = in_all_cases(outcome)
        told(name, plan, time.process_time() - begun)
        rp.draw_dvh(plan, "rbe_x_dose", SHOWN, ax=axes)
        axes.set_title("planned on the PTV" if name == "PTV" else "planned in nine cases")
        axes.set_xlim(0.0, 48.0)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize=8, frameon=False)
    figure.savefig(folder / "robust_thorax_dvh.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "figures")
