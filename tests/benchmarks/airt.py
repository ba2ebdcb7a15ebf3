"""Arcs by networks on held-out patients: each plan's dose comes from its exported file, by the aperture engine.

Run as ``python -m tests.benchmarks.airt DATA NAME=MODEL ... [--kinds first,last,reference] [--grid 3] [--out FILE]``,
with the folder of reference arcs that the trainings used. Kinds are ``first`` and ``last`` fluence, ``rectum 0.2`` (the
correction is asked for that much less), ``slider`` (the rectum's mean by what is asked), ``apertures`` (a network of
machine parameters), and without a network ``reference`` and ``optimiser``: the arcs that ``radplan cohort run`` left in
``--arcs`` for the same patients. One line a patient, model and kind is added to FILE; what is there is not done again.
With ``--near 30`` dose is calculated in the structures and within 30 mm of the target only, and multiplied to the level
after the file was read back instead of before it was written: the same figures in a quarter of the time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from radplan.ai.airt_net import ArcInputs
from radplan.ai.airt_planner import sequenced_arc
from radplan.ai.aperture_planner import ApertureInputs, AperturePlanner
from radplan.ai.arc_cohort import arc_machine, reference_arcs
from radplan.ai.arc_reference import sequencing_loss
from radplan.ai.loading import load_model
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.arcs import scaled_mu
from radplan.delivery.check import check_delivery
from radplan.delivery.rounding import rounded_plan
from radplan.engines import aperture_model
from radplan.geometry.grid import Grid
from radplan.io.dicom.rtplan import read_plan
from radplan.io.dicom.rtplan_export import export_rtplan
from radplan.io.plan_file.reading import plan_spec
from radplan.machines.limits import machine_limits
from radplan.patient.structures import Structures
from radplan.plan import evaluate
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
    parser.add_argument("--near", type=float, help="dose in the structures and so near the target only [mm]")
    parser.add_argument("--seconds", type=float, default=np.inf, help="of processor time, after which no plan begins")
    parser.add_argument("--out", type=Path, default=Path("airt.jsonl"))
    asked = parser.parse_args()
    planners = {name: load_model(folder) for name, folder in (text.split("=") for text in asked.models)}
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
    grid = case.patient.ct.grid.with_spacing(asked.grid)
    voxels = None if asked.near is None else near_voxels(case, grid, asked.near)
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
        if voxels is None:
            figures, dose = judged(plan, case, spec, asked.grid)
        else:
            figures, dose = judged_near(plan, case, spec, grid, voxels), None
        seconds["file and dose"] = time.process_time() - began
        if kind == "optimiser":
            beside = dose
        elif beside is not None and dose is not None:
            figures |= compared(dose, beside, case.protocol.targets[case.target])
        if fluence is not None:
            figures["sequencing loss"] = sequencing_loss(case, fluence)
        yield {**row, **figures, **{f"seconds {part}": value for part, value in seconds.items()}}


def _key(row) -> tuple:
    return row["patient"], row["model"], row["kind"], row["grid"]


def _arc(planner, case, inputs, reference, kind: str, spec, seconds):
    """Return the arc of a kind, and the fluence it was made of."""
    began = time.process_time()
    if kind == "apertures":
        seen = ApertureInputs.of(case, planner.spec)
        seconds["model"], began = time.process_time() - began, time.process_time()
        plan = planner.arc(seen)
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
    return figures_of(delivered.plan, delivered.report, case), delivered.plan["physical_dose"]


def near_voxels(case, grid: Grid, near: float):
    """Return the voxels of the structures and of what lies so near the target, and their neighbours."""
    inside = np.zeros(grid.shape, dtype=bool)
    inside.reshape(-1)[case.patient.structure_weights(case.target, grid)[0]] = True
    wanted = distance_transform_edt(~inside, sampling=grid.spacing[::-1]) <= near
    for name in case.layout.structures:
        wanted.reshape(-1)[case.patient.structure_weights(name, grid)[0]] = True
    wanted = binary_dilation(wanted, np.ones((3, 3, 3), dtype=bool))  # metrics interpolate
    return np.intersect1d(np.flatnonzero(wanted), case.patient.body_voxels(grid))


def judged_near(plan: DeliveryPlan, case, spec, grid: Grid, voxels) -> dict[str, float]:
    """Return the figures of `judged` from dose in some voxels, multiplied to the level after it was calculated."""
    patient, mlc = case.patient, LIMITS.collimator()
    known = [each for each in patient.structures.values() if each.role == "external" or each.name == case.target]
    with tempfile.TemporaryDirectory() as folder:
        few = replace(patient, structures=Structures(known))
        read = read_plan(export_rtplan(plan, few, Path(folder, "RP.dcm"), LIMITS))
    model = aperture_model(patient, read, arc_machine(spec), mlc, grid, voxels=voxels, limits=LIMITS)
    given = evaluate(model, np.asarray(model.variables.start), patient, case.protocol.fractions)
    level = case.protocol.targets[case.target]
    factor = level / given.metrics(structures=[case.target], names=["Dmean"])[case.target]["Dmean"]
    levelled = rounded_plan(scaled_mu(read, factor), LIMITS)
    return figures_of(given, check_delivery(levelled, LIMITS), case, factor)


def figures_of(plan, report, case, factor: float = 1.0) -> dict[str, float]:
    """Return what is told of a plan that was read back from its file, its dose multiplied by a factor."""
    level = case.protocol.targets[case.target] / factor
    metrics = plan.metrics(structures=list(case.layout.structures), names=["Dmean", "D98", "D2", "HI"])
    target = case.patient.structures[case.target]
    seen, weights = case.patient.structure_weights(target.name, plan.model.grid)
    weights = weights * target.volume / (weights.sum() * plan.model.grid.voxel_volume)
    prescribed = plan["physical_dose"] >= 0.95 * level
    inside = float((weights * prescribed.reshape(-1)[seen]).sum())
    return {
        "HI": metrics[case.target]["HI"],
        **{name: factor * metrics[case.target][name] for name in ("D98", "D2")},
        "CI": inside**2 / (float(weights.sum()) * float(prescribed.sum())),
        **{f"{name} mean": factor * metrics[name]["Dmean"] for name in case.layout.organs},
        "MU": float(report.mu),
        "violations": len(report.violations),
    }


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
