"""A recalculated plan of scanned ions as files: dose, RBE-weighted dose and LETd, DVHs, every spot, the comparison."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radplan.io.describe import rounded
from radplan.io.dicom import write_dose
from radplan.io.save import write_scenarios
from radplan.io.staging import NOTICE, staged
from radplan.recalc.files import described_comparison, plain, provenance_of, write_comparison, write_dvh
from radplan.recalc.ions import IonRecalculation

LET_COMMENT = "unrestricted LETd of protons in water [keV/um], no dose in Gy"


def save_ion_recalculation(
    recalculation: IonRecalculation, folder: str | Path, provenance: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write a recalculation into a folder, made if need be: whole or not at all.

    ``rtdose.dcm`` holds the physical dose of the course in Gy, ``rtdose_rbe_x_dose.dcm`` the RBE-weighted dose
    (DoseType EFFECTIVE), ``rtdose_let.dcm`` LETd in keV/um; ``dvh.csv`` the DVHs of the dose that is compared;
    ``spots.csv`` a row for every spot: field, layer, energy, place, MU, particles; ``comparison.csv`` ours and the
    reference's numbers side by side, ``scenarios.csv`` the metrics in each scenario, where there are any;
    ``recalc.json`` all else.

    Raises
    ------
    FileError
        When the folder cannot be written.
    """
    folder, plan = Path(folder), recalculation.plan
    names = ["recalc.json", "rtdose.dcm", "dvh.csv", "spots.csv"]
    with staged(folder) as partial:
        text = json.dumps(described_ions(recalculation, provenance), indent=2, allow_nan=False)
        (partial / "recalc.json").write_text(text + "\n", encoding="utf-8")
        said = f"recalculated, {recalculation.fractions} fractions, not for clinical use"
        _write(recalculation, partial / "rtdose.dcm", "physical_dose", said)
        for quantity, comment in (("rbe_x_dose", said), ("let", LET_COMMENT)):
            if quantity in plan.model.images or _has(recalculation, quantity):
                _write(recalculation, partial / f"rtdose_{quantity}.dcm", quantity, comment)
                names.append(f"rtdose_{quantity}.dcm")
        write_dvh(partial / "dvh.csv", recalculation.dvh())
        _write_spots(partial / "spots.csv", recalculation)
        if len(plan.model.scenarios) > 1:
            write_scenarios(partial / "scenarios.csv", plan)
            names.append("scenarios.csv")
        if recalculation.comparison is not None:
            write_comparison(partial / "comparison.csv", recalculation.comparison)
            names.append("comparison.csv")
    return tuple(folder / name for name in names)


def described_ions(recalculation: IonRecalculation, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what ``recalc.json`` says, as plain data."""
    plan, belongs, comparison = recalculation.plan, recalculation.belongs, recalculation.comparison
    return {
        "notice": NOTICE,
        "plan": {
            "name": recalculation.scanned.name,
            "instance": belongs.instance,
            "fractions": recalculation.fractions,
            "mu_per_fraction": recalculation.scanned.mu,
            "prescription_Gy": belongs.prescription,
            "fields": spot_figures(recalculation),
        },
        "machine": {
            "name": recalculation.machine.name,
            "radiation": recalculation.machine.radiation,
            "provenance": plain(dict(recalculation.machine.provenance)),
        },
        "dose": "course totals, fractions x dose per fraction, no factor applied",
        "let": "LETd of all protons (ions: of primaries and fragments), unrestricted, in water [keV/um]",
        "metrics": {name: rounded(row) for name, row in plan.metrics().items()},
        "metrics_let": {name: rounded(row) for name, row in plan.metrics("let").items()}
        if _has(recalculation, "let")
        else None,
        "compared_quantity": None if comparison is None else comparison.quantity,
        "comparison": None if comparison is None else described_comparison(comparison),
        "notes": list(recalculation.notes),
        "provenance": provenance_of(plan, provenance),
    }


def spot_figures(recalculation: IonRecalculation) -> list[dict[str, Any]]:
    """Return per field its angles, layers, spots and what they deliver: a row of figures each."""
    rows = []
    for one in recalculation.scanned:
        mu = np.concatenate([layer.mu for layer in one.layers])
        places = np.concatenate([layer.positions for layer in one.layers])
        energies = [layer.energy for layer in one.layers]
        shifters = {layer.range_shifter.thickness for layer in one.layers if layer.range_shifter is not None}
        per_unit = _particles(recalculation, one.unit)
        rows.append(
            {
                "number": one.number,
                "name": one.name,
                "gantry": one.gantry,
                "couch": one.couch,
                "isocenter_mm": [round(float(value), 3) for value in one.isocenter],
                "layers": len(one.layers),
                "spots": one.count,
                "energy": [min(energies), max(energies)],
                "mu": one.mu,
                "least_mu": float(mu[mu > 0].min()),
                "largest_mu": float(mu.max()),
                "particles_1e9": sum(float(layer.mu.sum()) * per_unit[layer.energy] for layer in one.layers) / 1e9,
                "reach_x_mm": [float(places[:, 0].min()), float(places[:, 0].max())],
                "reach_y_mm": [float(places[:, 1].min()), float(places[:, 1].max())],
                "range_shifters_mm": sorted(shifters),
            }
        )
    return rows


def _particles(recalculation: IonRecalculation, unit: str) -> dict[float, float]:
    """Return the particles per unit of each energy of the plan."""
    machine = recalculation.machine
    return {
        float(energy): machine.entry(machine.energy_index(float(energy))).particles_per_mu if unit == "MU" else 1.0
        for energy in recalculation.scanned.energies
    }


def _has(recalculation: IonRecalculation, quantity: str) -> bool:
    """Return whether the machine and the model give a quantity."""
    if quantity == "let":
        return "let_dose" in recalculation.plan.model.images
    return recalculation.machine.radiation == "protons" or "alpha_dose" in recalculation.plan.model.images


def _write(recalculation: IonRecalculation, path: Path, quantity: str, comment: str) -> None:
    case = recalculation.case
    write_dose(
        path,
        np.nan_to_num(np.maximum(np.asarray(recalculation.plan[quantity], dtype=np.float64), 0.0)),
        recalculation.grid,
        None if case is None else case.series,
        dose_type="EFFECTIVE" if quantity == "rbe_x_dose" else "PHYSICAL",
        plan=recalculation.belongs.instance,
        structure_set="" if case is None else case.structure_set,
        comment=comment,
    )


def _write_spots(path: Path, recalculation: IonRecalculation) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["field", "layer", "energy [MeV/u]", "x [mm]", "y [mm]", "MU", "particles [1e6]"])
        for one in recalculation.scanned:
            per_unit = _particles(recalculation, one.unit)
            for number, layer in enumerate(one.layers, start=1):
                for (x, y), mu in zip(layer.positions, layer.mu, strict=True):
                    number_of = mu * per_unit[layer.energy] / 1e6
                    writer.writerow(
                        [
                            one.number,
                            number,
                            f"{layer.energy:g}",
                            f"{x:.4f}",
                            f"{y:.4f}",
                            f"{mu:.6g}",
                            f"{number_of:.6g}",
                        ]
                    )
