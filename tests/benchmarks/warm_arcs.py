"""Searches of arcs from a network's arc, from the target's outline, and from nothing: cost by iterations.

Run as ``python -m tests.benchmarks.warm_arcs DATA MODEL [--patients 0,2] [--starts cold:0.3,network:0.3]``. An
iteration is a sweep over rows or a step of the search of leaf ends; cost is that of the exact engine's dose, told after
each round.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np

import radplan.delivery.arc_search as arc_search
from radplan.ai.airt_net import ArcInputs
from radplan.ai.airt_planner import load_airt_planner, sequenced_arc
from radplan.ai.arc_cohort import arc_machine, reference_arcs
from radplan.autoplan.planner import arc_goals
from radplan.autoplan.policy import POLICIES, SearchState
from radplan.delivery.arcs import ArcOptions, search_arcs
from radplan.machines.limits import machine_limits

LIMITS = machine_limits("TrueBeam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--patients", default="0,2")
    parser.add_argument("--spacing", type=float, default=10.0)
    parser.add_argument("--starts", default="cold:0.3,network:0.3,outline:0.3", help="START:EFFORT")
    parser.add_argument("--out", type=Path, default=Path("warm.jsonl"))
    asked = parser.parse_args()
    planner = load_airt_planner(asked.model)
    first, last = map(int, asked.patients.split(","))
    for number in range(first, last + 1):
        ((case, _),) = reference_arcs(planner.spec, (number, number), asked.data)
        fluence = {"outline": case.maps[0]}
        proposal = planner.answer(case, ArcInputs.of(case), np.zeros(len(case.layout.structures)))
        dose = proposal.doses["last"].reshape(-1)[np.asarray(case.dij.voxels)] / 60.0
        for label, effort in (text.split(":") for text in asked.starts.split(",")):
            options, start = ArcOptions(spacing=asked.spacing, effort=float(effort), collimators=(0.0,)), None
            if label != "cold":
                maps = fluence.get(label, proposal.last)
                given = None if label in fluence else dose
                machine = arc_machine(planner.spec)
                start = sequenced_arc(case, maps, machine, LIMITS, spacing=asked.spacing, dose=given)
            row = {"patient": number, "start": label, "effort": effort, **searched(case, planner.spec, options, start)}
            with asked.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)


def searched(case, spec, options, start) -> dict:
    """Return iterations and cost after each round of a search."""
    protocol = case.protocol
    goals = arc_goals(POLICIES.get("adaptive")().goals(case.patient, protocol, SearchState(share=3.0)), protocol)
    steps, trace = [0], []
    minimize = arc_search.minimize

    def counted(*args, **named):
        found = minimize(*args, **named)
        steps[0] += int(found.nit)
        return found

    def told(event) -> None:
        if event.step == "rows":
            steps[0] += 1
        value = re.search(r"by the exact engine ([0-9.e+]+)", event.detail or "")
        if value:
            trace.append((steps[0], float(value[1])))

    arc_search.minimize = counted
    began = time.process_time()
    try:
        search_arcs(
            case.patient, goals, arc_machine(spec), limits=LIMITS, options=options, grid=8.0,
            fractions=protocol.fractions, isocenter=case.isocentre, start=start, progress=told,
        )  # fmt: skip
    finally:
        arc_search.minimize = minimize
    return {"trace": trace, "seconds": time.process_time() - began}


if __name__ == "__main__":
    main()
