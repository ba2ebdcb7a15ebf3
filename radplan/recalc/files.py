"""A recalculated plan as files: dose for other systems, DVHs, the comparison, and everything that made them."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import radplan
from radplan.analysis.dvh import DVH
from radplan.io.describe import rounded
from radplan.io.dicom import write_dose
from radplan.io.save import write_scenarios
from radplan.io.staging import NOTICE, staged
from radplan.machines import PhotonMachine
from radplan.plan import Plan
from radplan.recalc.comparison import METRICS, Comparison
from radplan.recalc.recalculate import Recalculation, control_points


def save_recalculation(
    recalculation: Recalculation, folder: str | Path, provenance: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write a recalculation into a folder, made if need be: whole or not at all.

    ``rtdose.dcm`` holds the dose of the course in Gy as calculated, no factor applied; ``dvh.csv`` the DVHs, levels
    down and structures across; ``comparison.csv`` ours and the reference's numbers side by side, where there is a
    reference; ``recalc.json`` machine, collimators, options, fields, numbers, factor and notes.

    Parameters
    ----------
    recalculation : Recalculation
        What to write.
    folder : path-like
        Where.
    provenance : mapping, optional
        More to write down, such as file names and timings; plain data.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    FileError
        When the folder cannot be written.
    """
    folder, case = Path(folder), recalculation.case
    names = ["recalc.json", "rtdose.dcm", "dvh.csv"]
    with staged(folder) as partial:
        text = json.dumps(described(recalculation, provenance), indent=2, allow_nan=False)
        (partial / "recalc.json").write_text(text + "\n", encoding="utf-8")
        write_dose(
            partial / "rtdose.dcm",
            recalculation.dose,
            recalculation.grid,
            None if case is None else case.series,
            plan=recalculation.belongs.instance,
            structure_set="" if case is None else case.structure_set,
            comment=f"recalculated, {recalculation.fractions} fractions, not for clinical use",
        )
        write_dvh(partial / "dvh.csv", recalculation.dvh())
        if len(recalculation.plan.model.scenarios) > 1:
            write_scenarios(partial / "scenarios.csv", recalculation.plan)
            names.append("scenarios.csv")
        if recalculation.comparison is not None:
            write_comparison(partial / "comparison.csv", recalculation.comparison)
            names.append("comparison.csv")
    return tuple(folder / name for name in names)


def described(recalculation: Recalculation, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what ``recalc.json`` says, as plain data."""
    plan, belongs = recalculation.plan, recalculation.belongs
    return {
        "notice": NOTICE,
        "plan": {
            "name": recalculation.delivery.name,
            "instance": belongs.instance,
            "fractions": recalculation.fractions,
            "mu_per_fraction": recalculation.delivery.mu,
            "prescription_Gy": belongs.prescription,
            "fields": control_points(recalculation),
        },
        "machines": {machine.name: _machine(machine) for machine in recalculation.machines},
        "mlc": {
            mlc.name: {
                "pairs": mlc.pairs,
                "transmission": mlc.transmission,
                "leaf_offset_mm": mlc.leaf_offset,
                "provenance": dict(mlc.provenance),
            }
            for mlc in recalculation.mlcs
            if mlc is not None
        },
        "options": plain(asdict(recalculation.options)),
        "dose": "physical dose of the course in Gy, fractions x dose per fraction, no factor applied",
        "metrics": {name: rounded(row) for name, row in plan.metrics().items()},
        "comparison": None if recalculation.comparison is None else described_comparison(recalculation.comparison),
        "notes": list(recalculation.notes),
        "provenance": provenance_of(plan, provenance),
    }


def provenance_of(plan: Plan, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return who made a plan's dose, with what and when, on which grid, as plain data."""
    return {
        "radplan": radplan.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "patient": plan.patient.name,
        "device": plan.model.device.name,
        "dose_grid": {
            "shape_zyx": list(plan.model.grid.shape),
            "spacing_xyz_mm": list(plan.model.grid.spacing),
            "origin_xyz_mm": list(plan.model.grid.origin),
        },
        **(more or {}),
    }


def _machine(machine: PhotonMachine) -> dict[str, Any]:
    reference = machine.reference
    return {
        "reference": None if reference is None else asdict(reference),
        "source_fwhm_mm": machine.source_fwhm,
        "provenance": plain(dict(machine.provenance)),
    }


def described_comparison(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data."""
    gamma = comparison.gamma
    return {
        "reference": comparison.label,
        "factor": comparison.factor,
        "factor_fitted_to": comparison.fitted_to or None,
        "structures": {
            row.structure: {"named": row.named, "ours": rounded(row.ours), "reference": rounded(row.reference)}
            for row in comparison.rows
        },
        "gamma": None
        if gamma is None
        else {
            "criteria": str(gamma.criteria),
            "passing_percent": round(gamma.passing, 3),
            "points": gamma.points,
            "mean": round(gamma.mean, 4),
        },
    }


def write_dvh(path: Path, curves: Mapping[str, DVH]) -> None:
    """Write DVHs of one quantity, all at the same levels: levels down, structures across."""
    first = next(iter(curves.values()))
    levels = first.levels
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f"{first.quantity} [{first.unit}]", *(f"{name} [%]" for name in curves)])
        for k, level in enumerate(levels):
            writer.writerow([f"{level:.4f}", *(f"{curve.percent[k]:.4f}" for curve in curves.values())])


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write a row per structure: each metric as ours, with the factor where there is one, and the reference's."""
    factor = comparison.factor
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        kinds = ["ours", *(["ours x factor"] if factor is not None else []), "reference"]
        writer.writerow(["structure", "in the reference", *(f"{m} {kind} [Gy]" for m in METRICS for kind in kinds)])
        for row in comparison.rows:
            numbers = [
                value
                for m in METRICS
                for value in (
                    row.ours[m],
                    *([factor * row.ours[m]] if factor is not None else []),
                    row.reference[m],
                )
            ]
            writer.writerow([row.structure, row.named, *(f"{value:.3f}" for value in numbers)])


def plain(value: Any) -> Any:
    """Return plain data: what JSON does not know becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
