"""Arcs by networks on held-out patients: each plan's dose comes from its exported file, by the aperture engine.

Run as ``python -m tests.benchmarks.airt DATA NAME=MODEL ... [--kinds first,last,reference] [--grid 3] [--out FILE]``,
with the folder of reference arcs that the trainings used. Kinds are ``first`` and ``last`` fluence, ``rectum 0.2`` (the
correction is asked for that much less), ``slider`` (the rectum's mean by what is asked), ``apertures`` (a network of
machine parameters), and without a network ``reference`` and ``optimiser``: the arcs that ``radplan cohort run`` left in
``--arcs`` for the same patients. One line a patient, model and kind is added to FILE; what is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from radplan.ai.airt_net import ArcInputs
from radplan.ai.airt_planner import load_airt_planner, sequenced_arc
from radplan.ai.aperture_planner import ApertureInputs, AperturePlanner, load_aperture_planner
from radplan.ai.arc_cohort import arc_machine, reference_arcs
from radplan.ai.arc_reference import sequencing_loss
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.io.plan_file.reading import plan_spec
from radplan.machines.limits import machine_limits
from radplan.workflows.delivery import deliver_plan

LIMITS = machine_limits("TrueBeam")
ALONE = ("reference", "optimiser")
SPARED = (0.0, 0.05, 0.1, 0.2, 0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", help="NAME=MODEL; the first tells the patients")
    parser.add_argument("--kinds", default="last")
    parser.add_argument("--grid", type=float, default=3.0)
    parser.add_argument("--patients", help="first,last")
    parser.add_argument("--arcs", type=Path, help="folder of a cohort of arcs of the same patients")
    parser.add_argument("--seconds", type=float, default=np.inf, help="of processor time, after which no plan begins")
    parser.add_argument("--out", type=Path, default=Path("airt.jsonl"))
    asked = parser.parse_args()
    planners = {name: _planner(folder) for name, folder in (text.split("=") for text in asked.models)}
    spec = next(iter(planners.values())).spec
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    known = {_key(row) for row in rows}
    first, last = map(int, asked.patients.split(",")) if asked.patients else spec.data.test
    for number in range(first, last + 1):
        for row in planned(asked, planners, spec, number, known):
            rows.append(row)
            with asked.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)
    tell([row for row in rows if row["grid"] == asked.grid and "HI" in row])


def planned(asked, planners, spec, number: int, known):
    """Yield the rows of a patient that are not known yet."""
    kinds = asked.kinds.split(",")
    wanted = [("", kind) for kind in ALONE if kind in kinds]
    wanted += [
        (name, kind)
        for name, planner in planners.items()
        for kind in kinds
        if kind not in ALONE and (kind == "apertures") == isinstance(planner, AperturePlanner)
    ]
    wanted = [pair for pair in wanted if (number, *pair, asked.grid) not in known]
    if not wanted or time.process_time() > asked.seconds:
        return
    ((case, reference),) = reference_arcs(spec, (number, number), asked.data)
    inputs = ArcInputs.of(case)
    beside = None
    for name, kind in wanted:
        if time.process_time() > asked.seconds:
            return
        row = {"patient": number, "model": name, "kind": kind, "grid": asked.grid}
        seconds = {}
        if kind == "slider":
            yield {**row, "rectum": followed(planners[name], case, inputs)}
            continue
        if kind == "optimiser":
            plan, fluence = optimised(asked.arcs, number, case, spec), None
        else:
            plan, fluence = _arc(planners.get(name), case, inputs, reference, kind, spec, seconds)
        began = time.process_time()
        figures, dose = judged(plan, case, spec, asked.grid)
        seconds["file and dose"] = time.process_time() - began
        if kind == "optimiser":
            beside = dose
        elif beside is not None:
            figures |= compared(dose, beside, case.protocol.targets[case.target])
        if fluence is not None:
            figures["sequencing loss"] = sequencing_loss(case, fluence)
        yield {**row, **figures, **{f"seconds {part}": value for part, value in seconds.items()}}


def _planner(folder: str):
    kind = json.loads((Path(folder) / "model.json").read_text())["format"] if Path(folder).is_dir() else "AIRT"
    return load_airt_planner(folder) if "AIRT" in kind else load_aperture_planner(folder)


def _key(row) -> tuple:
    return row["patient"], row["model"], row["kind"], row["grid"]


def _arc(planner, case, inputs, reference, kind: str, spec, seconds):
    """Return the arc of a kind, and the fluence it was made of."""
    began = time.process_time()
    if kind == "apertures":
        seen = ApertureInputs.of(case, planner.spec, LIMITS)
        seconds["model"], began = time.process_time() - began, time.process_time()
        plan = planner.arc(seen, LIMITS)
        seconds["networks"] = time.process_time() - began
        return plan, None
    if kind == "reference":
        return sequenced_arc(case, reference, arc_machine(spec), LIMITS), reference
    spared = float(kind.removeprefix("rectum ")) if kind.startswith("rectum") else 0.0
    sparing = np.asarray([spared if name == "Rectum" else 0.0 for name in case.layout.structures])
    proposal = planner.answer(case, inputs, sparing)
    seconds["networks"], began = time.process_time() - began, time.process_time()
    plan = proposal.arc(planner.machine, LIMITS, corrected=kind != "first")
    seconds["sequencing"] = time.process_time() - began
    return plan, proposal.first if kind == "first" else proposal.last


def followed(planner, case, inputs) -> list[float]:
    """Return the rectum's mean [Gy] by the dose influence for each share of `SPARED`."""
    rectum = case.layout.structures.index("Rectum")
    means = []
    for share in SPARED:
        sparing = np.zeros(len(case.layout.structures))
        sparing[rectum] = share
        dose = planner.answer(case, inputs, sparing).doses["last"].reshape(-1)[np.asarray(case.dij.voxels)]
        means.append(float(dose @ case.shares[rectum]))
    return means


def optimised(folder: Path, number: int, case, spec) -> DeliveryPlan:
    """Return the arc that a cohort's run left for a patient."""
    with np.load(folder / "case" / f"{number:06d}" / "arcs.npz") as kept:
        arrays = dict(kept)
    count = len(arrays["gantry"])
    points = [
        ControlPoint(
            float(arrays["meterset"][k]), float(arrays["gantry"][k]), float(arrays["collimator"][k]), 0.0,
            arrays["isocenter"], arrays["jaws_x"][k], arrays["jaws_y"][k], arrays["leaves"][k],
            "NONE" if k == count - 1 else "CW",
        )
        for k in range(count)
    ]  # fmt: skip
    machine = arc_machine(spec)
    field = TreatmentField(
        "1 arc", 1, tuple(points), machine.sad, arrays["leaf_boundaries"], energy=machine.energy, machine=machine.name
    )
    return DeliveryPlan("optimised", (field,), case.protocol.fractions)


def judged(plan: DeliveryPlan, case, spec, grid: float):
    """Deliver an arc to a file and return the figures of what the file gives, and its dose [Gy]."""
    wanted = plan_spec(
        {
            "fractions": case.protocol.fractions,
            "engine": {"grid": grid},
            "delivery": {"technique": "vmat", "limits": "TrueBeam", "grid": grid},
        }
    )
    level = case.target, "physical_dose", {"Dmean": case.protocol.targets[case.target]}
    delivered = deliver_plan(plan, wanted, case.patient, arc_machine(spec), level)
    metrics = delivered.plan.metrics(structures=list(case.layout.structures), names=["Dmean", "D98", "D2", "HI"])
    dose = delivered.plan["physical_dose"]
    target = case.patient.structures[case.target]
    seen, weights = case.patient.structure_weights(target.name, delivered.plan.model.grid)
    weights = weights * target.volume / (weights.sum() * delivered.plan.model.grid.voxel_volume)
    prescribed = dose >= 0.95 * case.protocol.targets[case.target]
    inside = float((weights * prescribed.reshape(-1)[seen]).sum())
    report = delivered.report
    figures = {
        "HI": metrics[case.target]["HI"],
        "CI": inside**2 / (float(weights.sum()) * float(prescribed.sum())),
        "D98": metrics[case.target]["D98"],
        "D2": metrics[case.target]["D2"],
        **{f"{name} mean": metrics[name]["Dmean"] for name in case.layout.organs},
        "MU": float(report.mu),
        "violations": len(report.violations),
    }
    return figures, dose


def compared(dose, beside, level: float) -> dict[str, float]:
    """Return Dice of the isodoses at 50 and 95 % of the level, and the mean absolute difference above a tenth [Gy]."""
    figures = {}
    for percent in (50, 95):
        ours, theirs = (values >= 0.01 * percent * level for values in (dose, beside))
        figures[f"Dice {percent}"] = 2.0 * float((ours & theirs).sum()) / float(ours.sum() + theirs.sum())
    body = np.maximum(dose, beside) > 0.1 * level
    figures["mean difference"] = float(np.abs(dose - beside)[body].mean())
    return figures


def tell(rows: list[dict]) -> None:
    """Print means by model and kind, and paired differences from the optimiser, the reference and the first model."""
    from scipy.stats import wilcoxon

    labels = list(dict.fromkeys((row["model"], row["kind"]) for row in rows))
    by = {label: {r["patient"]: r for r in rows if (r["model"], r["kind"]) == label} for label in labels}
    for label in labels:
        names = [name for name, value in next(iter(by[label].values())).items() if isinstance(value, float)]
        values = np.asarray([[row.get(name, np.nan) for name in names] for row in by[label].values()])
        told = "  ".join(
            f"{n} {m:.3f}+-{s:.3f}" for n, m, s in zip(names, values.mean(axis=0), values.std(axis=0), strict=True)
        )
        print(f"{' '.join(label)} (n = {len(values)}): {told}")
    for label in labels:
        for other in labels[: labels.index(label)]:
            both = sorted(set(by[label]) & set(by[other]))
            if len(both) < 5:
                continue
            for name in ("HI", "CI", "Bladder mean", "Rectum mean", "sequencing loss", "MU"):
                if any(name not in by[one][p] for one in (label, other) for p in both):
                    continue
                away = np.asarray([by[label][p][name] - by[other][p][name] for p in both])
                chance = float(wilcoxon(away).pvalue) if np.any(away) else 1.0
                print(
                    f"{' '.join(label)} less {' '.join(other)}, {name}: {away.mean():+.4f} "
                    f"(sd {away.std():.4f}, n {len(both)}, p {chance:.3g})"
                )


if __name__ == "__main__":
    main()
