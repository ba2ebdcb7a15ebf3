"""Arcs by networks on held-out patients: each plan's dose comes from its exported file, by the aperture engine.

Run as ``python -m tests.benchmarks.airt MODEL DATA [--grid 3] [--patients 28,47] [--out FILE]``, with the folder of
reference arcs that the training used. One line a patient and kind of plan is added to FILE; what is there is not done
again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from radplan.ai.airt_net import ArcInputs
from radplan.ai.airt_planner import load_airt_planner, sequenced_arc
from radplan.ai.arc_cohort import reference_arcs
from radplan.ai.arc_reference import sequencing_loss
from radplan.io.plan_file.reading import plan_spec
from radplan.machines.limits import machine_limits
from radplan.workflows.delivery import deliver_plan

SPARED = (0.0, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--grid", type=float, default=3.0)
    parser.add_argument("--patients")
    parser.add_argument("--kinds", default="first,last,reference")
    parser.add_argument("--seconds", type=float, default=np.inf, help="of processor time, after which no plan begins")
    parser.add_argument("--out", type=Path, default=Path("airt.jsonl"))
    asked = parser.parse_args()
    planner = load_airt_planner(asked.model)
    first, last = map(int, asked.patients.split(",")) if asked.patients else planner.spec.data.test
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    known = {(row["patient"], row["kind"]) for row in rows}
    for number in range(first, last + 1):
        wanted = [kind for kind in asked.kinds.split(",") if (number, kind) not in known]
        if not wanted or time.process_time() > asked.seconds:
            continue
        ((case, reference),) = reference_arcs(planner.spec, (number, number), asked.data)
        inputs = ArcInputs.of(case)
        for kind in wanted:
            if time.process_time() > asked.seconds:
                break
            row = {"patient": number, "kind": kind, **judged(planner, case, inputs, reference, kind, asked.grid)}
            rows.append(row)
            with asked.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)
    tell(rows)


def judged(planner, case, inputs, reference, kind: str, grid: float) -> dict[str, float]:
    """Plan one arc, deliver it to a file and calculate what the file gives."""
    spared = float(kind.removeprefix("rectum ")) if kind.startswith("rectum") else 0.0
    sparing = np.asarray([spared if name == "Rectum" else 0.0 for name in case.layout.structures])
    began = time.process_time()
    answer = planner.answer(case, inputs, sparing)
    networks = time.process_time() - began
    fluence = reference if kind == "reference" else answer.first if kind == "first" else answer.last
    limits = machine_limits("TrueBeam")
    began = time.process_time()
    plan = sequenced_arc(case, fluence, planner.machine, limits)
    sequenced = time.process_time() - began
    spec = plan_spec(
        {
            "fractions": case.protocol.fractions,
            "engine": {"grid": grid},
            "delivery": {"technique": "vmat", "limits": "TrueBeam", "grid": grid},
        }
    )
    level = case.target, "physical_dose", {"Dmean": case.protocol.targets[case.target]}
    began = time.process_time()
    delivered = deliver_plan(plan, spec, case.patient, planner.machine, level)
    exact = time.process_time() - began
    metrics = delivered.plan.metrics(structures=list(case.layout.structures), names=["Dmean", "D98", "D2", "HI"])
    dose = delivered.plan["physical_dose"]
    target = case.patient.structures[case.target]
    seen, weights = case.patient.structure_weights(target.name, delivered.plan.model.grid)
    weights = weights * target.volume / (weights.sum() * delivered.plan.model.grid.voxel_volume)
    prescribed = dose >= 0.95 * case.protocol.targets[case.target]
    inside = float((weights * prescribed.reshape(-1)[seen]).sum())
    report = delivered.report
    return {
        "HI": metrics[case.target]["HI"],
        "CI": inside**2 / (float(weights.sum()) * float(prescribed.sum())),
        "D98": metrics[case.target]["D98"],
        "D2": metrics[case.target]["D2"],
        **{f"{name} mean": metrics[name]["Dmean"] for name in case.layout.organs},
        "sequencing loss": sequencing_loss(case, fluence),
        "MU": float(report.mu),
        "violations": len(report.violations),
        "seconds networks": networks,
        "seconds sequencing": sequenced,
        "seconds file and dose": exact,
    }


def tell(rows: list[dict]) -> None:
    """Print means by kind of plan, and paired differences from the reference and from the first fluence."""
    from scipy.stats import wilcoxon

    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    names = [name for name in rows[0] if name not in ("patient", "kind")]
    by = {kind: {row["patient"]: row for row in rows if row["kind"] == kind} for kind in kinds}
    for kind in kinds:
        values = [[row[name] for name in names] for row in by[kind].values()]
        means, spreads = np.mean(values, axis=0), np.std(values, axis=0)
        told = "  ".join(f"{n} {m:.3f}+-{s:.3f}" for n, m, s in zip(names, means, spreads, strict=True))
        print(f"{kind} (n = {len(values)}): {told}")
    for kind, other in (("last", "first"), ("last", "reference"), ("first", "reference")):
        both = sorted(set(by.get(kind, ())) & set(by.get(other, ())))
        if len(both) < 5:
            continue
        for name in names[:9]:
            away = np.asarray([by[kind][p][name] - by[other][p][name] for p in both])
            chance = float(wilcoxon(away).pvalue) if np.any(away) else 1.0
            print(
                f"{kind} less {other}, {name}: {away.mean():+.4f} (sd {away.std():.4f}, n {len(both)}, p {chance:.3g})"
            )


if __name__ == "__main__":
    main()
