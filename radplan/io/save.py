"""A plan as files: what was asked, what came out, and where it came from; written whole or not at all."""

from __future__ import annotations

import csv
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radplan.errors import FileError
from radplan.influence import Dij
from radplan.io.plan_file import PlanSpec
from radplan.optim.constraints import Constraint
from radplan.optim.goals import quantity_to_spec
from radplan.plan import Plan
from radplan.quantities.base import Quantity

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase
    from radplan.io.dicom.rtdose_export import DoseType


def save_plan(
    plan: Plan,
    folder: str | Path,
    spec: PlanSpec | None = None,
    provenance: Mapping[str, Any] | None = None,
    case: DicomCase | None = None,
) -> tuple[Path, ...]:
    """Write a plan into a folder, made if need be: four files or more, each complete before its name appears.

    ``plan.json`` holds the specification, the metrics of every structure and the provenance; its ``spec`` is itself a
    plan file. ``dose.npz`` holds ``dose (nz, ny, nx)`` [Gy, course total] and its grid, and every other quantity the
    goals use under its own name; ``weights.npz`` the weights (count,) and the beam of each; ``dvh.csv`` one column of
    volume [%] per structure over the level [Gy]. For a patient that came from DICOM, or where the specification asks
    for it, ``rtdose.dcm`` holds the dose for other systems, and ``rtdose_rbe_x_dose.dcm`` the RBE-weighted dose where
    the goals use it.

    Parameters
    ----------
    plan : Plan
        What to write.
    folder : path-like
        Where; files of an earlier plan are replaced.
    spec : PlanSpec, optional
        What the plan was made from; described from the plan itself otherwise.
    provenance : mapping, optional
        More to write down about where it came from, such as the case and timings.
    case : DicomCase, optional
        The DICOM case that the patient came from.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    FileError
        The folder cannot be written.
    """
    folder = Path(folder)
    with staged(folder) as partial:
        _write_dose(partial / "dose.npz", plan)
        _write_weights(partial / "weights.npz", plan)
        _write_dvh(partial / "dvh.csv", plan)
        _write_json(partial / "plan.json", describe(plan, spec, provenance))
        asked = None if spec is None else spec.outputs.dicom
        doses = _write_rtdose(partial, plan, case) if asked or (asked is None and case is not None) else []
    return tuple(folder / name for name in ("plan.json", "dose.npz", "weights.npz", "dvh.csv", *doses))


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """Give a folder to write into whose files move to `folder` when the block ends well; otherwise nothing stays.

    Raises
    ------
    FileError
        The folder cannot be written, or is a file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with staged(Path(place, "out")) as partial:
    ...         _ = Path(partial, "note.txt").write_text("whole")
    ...     Path(place, "out", "note.txt").read_text()
    'whole'
    """
    folder = Path(folder)
    # Why: on the same file system as the folder, so that each file moves in one step.
    anchor = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not anchor.is_dir():
        raise FileError(anchor, "is a file, expected a folder to write the plan into")
    partial = None
    try:
        partial = Path(tempfile.mkdtemp(prefix=".radplan-", dir=anchor))
        yield partial
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir(), key=lambda entry: entry.stat().st_mtime_ns):
            path.replace(folder / path.name)
    except OSError as error:
        raise FileError(error.filename or folder, f"cannot be written ({error.strerror})") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def describe(plan: Plan, spec: PlanSpec | None = None, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what ``plan.json`` says, as plain data."""
    chosen = described_spec(plan) if spec is None else spec
    solution = plan.solution
    return {
        "spec": chosen.model_dump(mode="json", exclude_none=True),
        "normalization": plan.normalization,
        "metrics": {name: _rounded(values) for name, values in judged(plan, chosen.metrics).items()},
        "units": {"D*, gEUD": "Gy (course total)", "V*": "%", "HI, CI": "1"},
        "solution": None
        if solution is None
        else {
            "status": solution.status.name.lower(),
            "value": float(solution.value),
            "iterations": solution.iterations,
        },
        "beams": None
        if plan.beams is None
        else [
            {
                "gantry": float(beam.gantry),
                "couch": float(beam.couch),
                "collimator": float(beam.collimator),
                "isocenter": [float(v) for v in beam.isocenter],
                "bixels": len(beam.bixels),
            }
            for beam in plan.beams
        ],
        "provenance": {
            "radplan": _version("radplan"),
            "numpy": np.__version__,
            "python": platform.python_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "patient": plan.patient.name,
            "machine": plan.model.machine if isinstance(plan.model, Dij) else None,
            "device": plan.model.target.name,
            "dose_grid": {
                "shape_zyx": list(plan.model.grid.shape),
                "spacing_xyz_mm": list(plan.model.grid.spacing),
                "origin_xyz_mm": list(plan.model.grid.origin),
            },
            "voxels": int(np.size(plan.model.voxels)),
            "variables": int(plan.model.variables.count),
            **(provenance or {}),
        },
    }


def judged(
    plan: Plan, more: Sequence[str] = (), quantity: str | Quantity = "physical_dose"
) -> dict[str, dict[str, float]]:
    """Return the usual metrics of each structure and those asked for beside them."""
    table = plan.metrics(quantity)
    return {name: row | plan.metrics(quantity, [name], more)[name] for name, row in table.items()} if more else table


def described_spec(plan: Plan) -> PlanSpec:
    """Return the specification that a plan made by script amounts to, as far as it knows."""
    data: dict[str, Any] = {
        "fractions": plan.fractions,
        "prescription": plan.patient.prescription,
        "machine": plan.model.machine if isinstance(plan.model, Dij) else None,
        "goals": [goal.to_spec() for goal in plan.goals],
        "constraints": [_described_constraint(constraint) for constraint in plan.constraints],
        "normalize": False,
    }
    if plan.beams is not None:
        data["beams"] = {
            "gantry": [beam.gantry for beam in plan.beams],
            "couch": [beam.couch for beam in plan.beams],
            "collimator": [beam.collimator for beam in plan.beams],
            "bixel_width": plan.beams[0].bixel_width,
            "isocenter": [float(v) for v in plan.isocenter],
        }
    return PlanSpec.model_validate(data)


def _described_constraint(constraint: Constraint) -> dict[str, Any]:
    return {
        "structure": constraint.structure,
        "objective": constraint.objective.name,
        "parameters": constraint.objective.parameters(),
        "lower": constraint.lower,
        "upper": constraint.upper,
        "quantity": quantity_to_spec(constraint.quantity),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics to a tenth of a milligray; null where not a number, as JSON has none."""
    return {name: round(float(v), 4) if np.isfinite(v) else None for name, v in values.items()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_dose(path: Path, plan: Plan) -> None:
    grid = plan.model.grid
    used = {plan.quantity(goal.quantity).quantity for goal in plan.goals}
    cubes = {quantity.name: plan[quantity].astype(np.float32) for quantity in used if quantity.name != "physical_dose"}
    np.savez_compressed(
        path,
        dose=plan["physical_dose"].astype(np.float32),
        shape=np.asarray(grid.shape),
        spacing=np.asarray(grid.spacing),
        origin=np.asarray(grid.origin),
        **cubes,  # type: ignore[arg-type]
    )


def _write_rtdose(folder: Path, plan: Plan, case: DicomCase | None) -> list[str]:
    from radplan.io.dicom import write_dose

    used = {plan.quantity(goal.quantity).name for goal in plan.goals}
    kinds: dict[str, DoseType] = {"physical_dose": "PHYSICAL"}
    if "rbe_x_dose" in used:
        kinds["rbe_x_dose"] = "EFFECTIVE"
    names = []
    for quantity, kind in kinds.items():
        names.append("rtdose.dcm" if quantity == "physical_dose" else f"rtdose_{quantity}.dcm")
        # Why clip: dose on the fly comes from splines, which ring below zero by millionths of the maximum.
        write_dose(
            folder / names[-1],
            np.maximum(plan[quantity], 0.0),
            plan.model.grid,
            None if case is None else case.series,
            dose_type=kind,
            structure_set="" if case is None else case.structure_set,
            comment=f"{plan.title(quantity)}, {plan.fractions} fractions, not for clinical use",
        )
    return names


def _write_weights(path: Path, plan: Plan) -> None:
    index = plan.model.beam_index if isinstance(plan.model, Dij) else None
    known = {} if index is None else {"beam_index": np.asarray(index)}
    np.savez_compressed(path, x=plan.x, fractions=np.asarray(plan.fractions), **known)  # type: ignore[arg-type]


def _write_dvh(path: Path, plan: Plan) -> None:
    curves = plan.dvh()
    first = next(iter(curves.values()))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f"{first.quantity} [{first.unit}]", *(f"{name} [%]" for name in curves)])
        for k, level in enumerate(first.levels):
            writer.writerow([f"{level:.4f}", *(f"{curve.percent[k]:.4f}" for curve in curves.values())])
