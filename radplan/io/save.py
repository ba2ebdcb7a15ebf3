"""A plan as files: what was asked, what came out, and where it came from; written whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from radplan.arrays.npz import read_npz
from radplan.beams.scanned import scanned_plan
from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.io.describe import describe
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.saved_images import write_images
from radplan.io.staging import staged
from radplan.machines import MACHINES, ParticleMachine, library_machine
from radplan.plan import Plan, scenario_metrics
from radplan.quantities.base import Quantity

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase
    from radplan.io.dicom.rtdose_export import DoseType

_HELD = ("dose", "shape", "spacing", "origin")
"""What ``dose.npz`` holds besides quantities under their own names."""


def save_plan(
    plan: Plan,
    folder: str | Path,
    spec: PlanSpec | None = None,
    provenance: Mapping[str, Any] | None = None,
    case: DicomCase | None = None,
    machine: ParticleMachine | None = None,
) -> tuple[Path, ...]:
    """Write a plan into a folder, made if need be: five files or more, each complete before its name appears.

    ``plan.json`` holds the specification, the metrics of every structure and the provenance; its ``spec`` is itself a
    plan file. ``dose.npz`` holds the physical ``dose (nz, ny, nx)`` [Gy, course total] and its grid, and every other
    quantity that the plan tells of (`Plan.told`) under its own name; ``weights.npz`` the weights (count,) and the beam
    of each; ``images.npz`` what `radplan.load_plan` reopens the plan from; ``dvh.csv`` one column of volume [%] per
    structure over the level of the prescribed quantity. For a patient that came from DICOM, or where the specification
    asks for it, ``rtdose.dcm`` holds the dose for other systems, and ``rtdose_rbe_x_dose.dcm`` the RBE-weighted dose
    where the plan tells of it.

    Plans of particles also get ``spots.csv``, a row for each spot that is used, ``RP.dcm``, an RT Ion Plan of them
    (with ``RS.dcm``, the structures of a patient that came from no files), unless the specification says ``dicom:
    false``, and a ``dvh_QUANTITY.csv`` for each other quantity.

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
    machine : ParticleMachine, optional
        Gives the monitor units of the spots; a built-in machine is found by its name.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    FileError
        The folder cannot be written.
    InputError
        Two quantities would be written under one name.
    """
    folder = Path(folder)
    told = plan.told(None if spec is None else spec.outputs.quantities)
    for quantity in told:
        if quantity.name in _HELD:
            raise InputError(
                f"a quantity named {quantity.name!r} cannot be saved, dose.npz holds something else under that name: "
                "register it under another one"
            )
    with staged(folder) as partial:
        _write_dose(partial / "dose.npz", plan, told)
        _write_weights(partial / "weights.npz", plan)
        write_images(partial / "images.npz", plan)
        names = _write_dvhs(partial, plan, told)
        if plan.beams is not None and plan.beams[0].energies is not None:
            names += _write_spots(partial / "spots.csv", plan, machine or _built_in(plan))
            asked = None if spec is None else spec.outputs.dicom
            if asked is not False:
                names += _write_ion_plan(partial / "RP.dcm", plan, machine or _built_in(plan), case)
        if len(plan.model.scenarios) > 1:
            write_scenarios(partial / "scenarios.csv", plan)
            names.append("scenarios.csv")
        _write_json(partial / "plan.json", describe(plan, spec, provenance))
        asked = None if spec is None else spec.outputs.dicom
        names += _write_rtdose(partial, plan, told, case) if asked or (asked is None and case is not None) else []
    return tuple(folder / name for name in ("plan.json", "dose.npz", "weights.npz", "images.npz", *names))


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_dose(path: Path, plan: Plan, told: Sequence[Quantity]) -> None:
    others = {quantity.name: plan[quantity] for quantity in told if quantity.name != "physical_dose"}
    write_saved_dose(path, plan["physical_dose"], plan.model.grid, others)


def write_saved_dose(
    path: Path, dose: npt.NDArray[Any], grid: Grid, others: Mapping[str, npt.NDArray[Any]] | None = None
) -> Path:
    """Write a dose as `read_saved_dose` reads it, single precision.

    Parameters
    ----------
    path : Path
        The ``.npz`` file.
    dose : array of shape grid.shape
        Physical dose of a course [Gy].
    grid : Grid
        Where it is given.
    others : mapping of str to array, optional
        What is kept beside it, by name.
    """
    cubes = {name: np.asarray(values, dtype=np.float32) for name, values in {"dose": dose, **(others or {})}.items()}
    places = {"shape": np.asarray(grid.shape), "spacing": np.asarray(grid.spacing), "origin": np.asarray(grid.origin)}
    np.savez_compressed(path, **cubes, **places)  # type: ignore[arg-type]
    return path


def read_saved_dose(path: Path) -> tuple[npt.NDArray[np.float64], Grid]:
    """Return the physical dose (nz, ny, nx) [Gy] of a course, and its grid, of the ``dose.npz`` of a plan.

    Raises
    ------
    FileError
        When the file is missing, damaged, or holds no finite dose on a grid.
    """
    held = read_npz(path, _HELD)
    try:
        shape = [int(length) for length in held["shape"].tolist()]
        spacing, origin = ([float(value) for value in held[name].tolist()] for name in ("spacing", "origin"))
        grid = Grid((shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2]), (*origin,))  # type: ignore[arg-type]
        dose = held["dose"].astype(np.float64, casting="same_kind")
    except (InputError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise FileError(path, f"is no dose of an earlier plan as save_plan writes it ({error})") from None
    if dose.shape != grid.shape or not np.isfinite(dose).all():
        raise FileError(path, f"holds a dose {dose.shape} for a grid {grid.shape}, or NaN")
    return dose, grid


def _write_rtdose(folder: Path, plan: Plan, told: Sequence[Quantity], case: DicomCase | None) -> list[str]:
    from radplan.io.dicom import write_dose

    kinds: dict[str, DoseType] = {"physical_dose": "PHYSICAL"}
    if "rbe_x_dose" in [quantity.name for quantity in told]:
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
    if plan.background is not None:
        known["background"] = np.asarray(plan.background)
    np.savez_compressed(path, x=plan.x, fractions=np.asarray(plan.fractions), **known)  # type: ignore[arg-type]


def _write_dvhs(folder: Path, plan: Plan, told: Sequence[Quantity]) -> list[str]:
    """One table for the prescribed quantity, and of particles one for each other."""
    tables: dict[str, str | Quantity] = {"dvh.csv": plan.prescribed}
    if plan.model.radiation != "photons":
        tables |= {f"dvh_{quantity.name}.csv": quantity for quantity in told if quantity.name != plan.prescribed}
    for name, quantity in tables.items():
        write_dvh(folder / name, plan, quantity)
    return list(tables)


def write_scenarios(path: Path, plan: Plan) -> None:
    """Write a row for each scenario and structure: its probability and the usual metrics in the prescribed quantity."""
    table = scenario_metrics(plan)
    chances = dict(zip(plan.model.scenarios.names, plan.model.scenarios.probabilities, strict=True))
    metrics = list(dict.fromkeys(name for rows in table.values() for row in rows.values() for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "probability", "structure", *metrics])
        for case, rows in table.items():
            for structure, row in rows.items():
                values = [f"{row[name]:.4f}" if name in row else "" for name in metrics]
                writer.writerow([case, f"{chances[case]:.6f}", structure, *values])


def write_dvh(path: Path, plan: Plan, quantity: str | Quantity, structures: Sequence[str] | None = None) -> None:
    """Write a column of volume [%] for each structure over the level of a quantity (CSV)."""
    curves = plan.dvh(quantity, structures)
    first = next(iter(curves.values()))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f"{first.quantity} [{first.unit}]", *(f"{name} [%]" for name in curves)])
        for k, level in enumerate(first.levels):
            writer.writerow([f"{level:.4f}", *(f"{curve.percent[k]:.4f}" for curve in curves.values())])


def _write_ion_plan(path: Path, plan: Plan, machine: ParticleMachine | None, case: DicomCase | None) -> list[str]:
    """Write an RT Ion Plan, where there is a machine for ions and a spot with a weight; return the files' names."""
    from radplan.io.dicom import RTPlanOptions, export_ion_plan
    from radplan.io.dicom.rtplan_export import structures_path

    if machine is None or machine.radiation == "VHEE" or plan.beams is None or not plan.x.any():
        return []
    patient = plan.patient
    said = RTPlanOptions(
        prescription=patient.prescription, target=patient.target_names[0] if patient.target_names else ""
    )
    scanned = scanned_plan(plan.beams, plan.x, machine, plan.fractions, patient.name)
    export_ion_plan(scanned, patient if case is None else replace(case, patient=patient), path, said)
    return [name.name for name in (path, structures_path(path)) if name.exists()]


def _write_spots(path: Path, plan: Plan, machine: ParticleMachine | None) -> list[str]:
    """Write a row for each spot with a weight: beam by beam, deep layers first."""
    assert plan.beams is not None
    heads = [
        "beam",
        "gantry [deg]",
        "couch [deg]",
        "energy [MeV/u]",
        "x [mm]",
        "y [mm]",
        "particles per fraction [1e6]",
    ]
    first = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heads if machine is None else [*heads, "particles per MU [1e6]", "MU"])
        for number, beam in enumerate(plan.beams):
            weights, first = plan.x[first : first + beam.count], first + beam.count
            assert beam.energies is not None
            for spot in np.lexsort((beam.bixels[:, 1], beam.bixels[:, 0], -beam.energies)):
                if not weights[spot] > 0.0:
                    continue
                energy = float(beam.energies[spot])
                row = [number + 1, f"{beam.gantry:g}", f"{beam.couch:g}", f"{energy:.4f}"]
                row += [f"{beam.bixels[spot, 0]:.3f}", f"{beam.bixels[spot, 1]:.3f}", f"{weights[spot]:.6g}"]
                if machine is not None:
                    per_mu = machine.entry(machine.energy_index(energy)).particles_per_mu / 1e6
                    row += [f"{per_mu:.6g}", f"{weights[spot] / per_mu:.6g}"]
                writer.writerow(row)
    return [path.name]


def _built_in(plan: Plan) -> ParticleMachine | None:
    name = plan.model.machine if isinstance(plan.model, Dij) else None
    machine = library_machine(name) if name is not None and name in MACHINES else None
    return machine if isinstance(machine, ParticleMachine) else None
