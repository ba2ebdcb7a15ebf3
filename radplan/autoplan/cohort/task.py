"""One task of a cohort: a patient drawn or read, planned in all variants on one dose influence, and written down.

A task's folder appears whole or not at all, and holds the same bytes whoever made it and how often.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import radplan
from radplan.autoplan.cohort.arcs import cohort_arcs
from radplan.autoplan.cohort.generate import GENERATORS, draw
from radplan.autoplan.cohort.pareto import pareto_weights, tradeoff_problem
from radplan.autoplan.cohort.spec import ArcSpec, CohortSpec
from radplan.autoplan.planner import template_beams
from radplan.autoplan.protocol import Protocol, load_protocol, understand
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.errors import FileError, InputError, RadplanError
from radplan.influence import Dij, ForwardModel
from radplan.io import load_machine, load_patient
from radplan.patient import Patient
from radplan.plan import Plan

Floats = npt.NDArray[np.float64]


def task_folder(spec: CohortSpec, index: int) -> Path:
    """Return where the results of a patient stand."""
    return Path(spec.out) / "case" / f"{index:06d}"


def task_hash(spec: CohortSpec, index: int) -> str:
    """Return the sha256 of what decides a task's results: the spec, the number, and the version of radplan."""
    return hashlib.sha256(f"{spec.fingerprint()} {index} {radplan.__version__}".encode()).hexdigest()


def run_task(spec: CohortSpec, index: int, redo: bool = False) -> str:
    """Make one task unless it is done; returns ``"done"``, ``"skipped"`` or ``"failed"``.

    Raises
    ------
    InputError
        When a finished task was made from another specification or version; `redo` makes it again.
    FileError
        When the results cannot be written, as on a full disk; nothing of the task stays.
    """
    folder, wanted = task_folder(spec, index), task_hash(spec, index)
    state = finished(folder)
    if state is not None and not redo:
        if state != wanted:
            raise InputError(
                f"{folder} was made from another specification or version of radplan: give --redo to make it again, or "
                "another out"
            )
        return "skipped"
    try:
        return _written(spec, index, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(folder, f"cannot be written ({reason}): make room and run again, what is done stays") from error


def _written(spec: CohortSpec, index: int, folder: Path) -> str:
    """Make one task in a folder beside its own, and rename that; returns ``"done"`` or ``"failed"``."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    hashed = task_hash(spec, index)
    began = time.perf_counter()
    try:
        result = _made(spec, index, partial)
        (partial / "timing.json").write_text(json.dumps({"seconds": time.perf_counter() - began}) + "\n")
        (partial / "done.json").write_text(_json({"hash": hashed, "version": radplan.__version__, **result}))
        outcome = "done"
    except (RadplanError, ArithmeticError, MemoryError, ValueError) as error:
        for file in partial.iterdir():
            file.unlink()
        told = {"hash": hashed, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        (partial / "failed.json").write_text(_json(told))
        outcome = "failed"
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return outcome


def finished(folder: Path) -> str | None:
    """Return the hash of a finished task, None where there is none or it failed."""
    try:
        told: dict[str, Any] = json.loads((folder / "done.json").read_text())
    except (OSError, ValueError):
        return None
    return str(told.get("hash"))


def cohort_patient(spec: CohortSpec, index: int) -> tuple[Patient, int]:
    """Return a patient of a cohort, and how many anatomies were rejected before."""
    if spec.generator is not None:
        return draw(GENERATORS.get(spec.generator)(**spec.options), spec.seed, index)
    return load_patient(spec.cases[index]), 0


def variant_weights(spec: CohortSpec, index: int) -> Floats:
    """Return the factors on the weights of each group (variants, groups), by Latin hypercube; the first row is 1."""
    variants = spec.variants
    count, groups = variants.count - 1, len(variants.groups)
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([spec.seed, index, 1])))
    factors = np.ones((variants.count, groups))
    if count and groups:
        strata = np.stack([random.permutation(count) for _ in range(groups)], axis=1)
        shares = (strata + random.uniform(size=(count, groups))) / count
        low, high = np.log(variants.lowest), np.log(variants.highest)
        factors[1:] = np.exp(low + (high - low) * shares)
    return factors


def _made(spec: CohortSpec, index: int, folder: Path) -> dict[str, Any]:
    """Plan a patient and write patient and plans; returns what `done.json` tells."""
    protocol = load_protocol(spec.protocol)
    if spec.grid is not None:
        protocol = replace(protocol, grid=spec.grid)
    drawn, rejected = cohort_patient(spec, index)
    patient = understand(drawn, protocol).patient
    machine = load_machine(spec.machine or protocol.machine)
    if spec.arcs is None:
        rows = _planned_fields(spec, index, patient, protocol, machine, folder)
    else:
        rows = _planned_arcs(spec.arcs, spec, patient, protocol, machine, folder)
    return {"index": index, "patient": patient.name, "rejected": rejected, "variants": rows}


def _planned_fields(
    spec: CohortSpec, index: int, patient: Patient, protocol: Protocol, machine: Any, folder: Path
) -> list[dict[str, Any]]:
    """Plan fixed fields in all variants on one dose influence and write them; returns what is told of each."""
    beams = template_beams(patient, protocol, machine)
    engine = PhotonPencilBeam(lateral_cutoff=protocol.lateral_cutoff)
    dij = dose_influence(patient, beams, machine, grid=protocol.grid, engine=engine)
    _write_patient(folder / "patient.npz", patient, dij)
    problem = tradeoff_problem(dij, patient, protocol, spec.variants.groups)
    factors = variant_weights(spec, index)
    rows = []
    for number, x in enumerate(pareto_weights(problem, factors, spec.variants.hottest)):
        plan = Plan(x=x, model=dij, patient=patient, fractions=protocol.fractions)
        np.savez_compressed(
            folder / f"variant_{number:03d}.npz",
            dose=plan["physical_dose"].astype(np.float32),
            weights=plan.x.astype(np.float32),
            factors=factors[number],
        )
        rows.append(_row(spec, protocol, plan, factors[number]))
    _reject_dominated(spec, rows)
    return rows


def _planned_arcs(
    arcs: ArcSpec, spec: CohortSpec, patient: Patient, protocol: Protocol, machine: Any, folder: Path
) -> list[dict[str, Any]]:
    """Plan arcs and write them; returns what is told of them."""
    planned = cohort_arcs(patient, protocol, machine, arcs)
    _write_patient(folder / "patient.npz", patient, planned.plan.model)
    planned.write(folder / "arcs.npz")
    return [{**_row(spec, protocol, planned.plan, np.ones(0)), "delivery": planned.scores}]


def _reject_dominated(spec: CohortSpec, rows: list[dict[str, Any]]) -> None:
    """Say of each plan that another betters in all organs traded off and in the target which one that is."""
    organs = [name for group in spec.variants.groups.values() for name in group]
    values = np.asarray(
        [
            [row["means"][name] for name in organs if name in row["means"]]
            + [row["target"]["D5"] - row["target"]["D95"]]
            for row in rows
        ]
    )
    for row, value in zip(rows, values, strict=True):
        better = np.flatnonzero(np.all(values <= value, axis=1) & np.any(values < value, axis=1))
        if organs and better.size:
            row["rejected"].append(f"dominated by variant {better[0]}")


def _row(spec: CohortSpec, protocol: Protocol, plan: Plan, factors: Floats) -> dict[str, Any]:
    """Return what is told of a variant, and why it is no good plan where it is none."""
    target = next(name for name in protocol.targets if name in plan.patient.structures)
    dose = protocol.targets[target]
    judged = [name for name, structure in plan.patient.structures.items() if name[0] != "z" and structure.voxels.size]
    table = plan.metrics(structures=judged, names=["D5", "D95", "D98", "D2", "Dmean"])
    metrics = table[target]
    score = protocol.scorecard.score(plan)
    hottest = float(plan["physical_dose"].max())
    reasons = []
    if metrics["D5"] / metrics["D95"] >= 1.07:
        reasons.append(f"D5/D95 = {metrics['D5'] / metrics['D95']:.3f} >= 1.07")
    if hottest / metrics["D95"] >= 1.12:
        reasons.append(f"Dmax/D95 = {hottest / metrics['D95']:.3f} >= 1.12")
    if hottest > spec.variants.hottest * dose:
        reasons.append(f"body maximum {hottest / dose:.3f} of the prescription > {spec.variants.hottest:g}")
    return {
        "factors": factors.tolist(),
        "score": score.total,
        "maximum": score.maximum,
        "hottest": hottest,
        "target": metrics,
        "means": {name: row["Dmean"] for name, row in table.items()},
        "rejected": reasons,
    }


def _write_patient(path: Path, patient: Patient, model: ForwardModel) -> None:
    """Write the anatomy on the dose grid: density, part of each voxel in each structure (eighths), beams."""
    grid = model.grid
    arrays: dict[str, Any] = {
        "spacing": np.asarray(grid.spacing),
        "origin": np.asarray(grid.origin),
        "shape": np.asarray(grid.shape),
        "voxels": np.asarray(model.voxels, dtype=np.int32),
    }
    centres = grid.points(np.arange(grid.size))
    nearest = patient.ct.grid.nearest(centres)
    hu = np.where(nearest >= 0, patient.ct.hu.reshape(-1)[np.maximum(nearest, 0)], -1024.0)
    arrays["hu"] = hu.reshape(grid.shape).astype(np.int16)
    for name, structure in patient.structures.items():
        if name.startswith("z") or not structure.voxels.size:
            continue
        voxels, weights = patient.structure_weights(name, grid)
        part = weights / weights.max()
        cube = np.zeros(grid.size, dtype=np.uint8)
        cube[voxels] = np.clip(np.round(8.0 * part), 1, 8)
        arrays[f"structure_{name}"] = cube.reshape(grid.shape)
    if isinstance(model, Dij) and model.beams is not None:
        arrays["gantry"] = np.asarray([beam.gantry for beam in model.beams])
        arrays["isocenter"] = np.asarray(model.beams[0].isocenter)
    np.savez_compressed(path, **arrays)


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, sort_keys=True) + "\n"
