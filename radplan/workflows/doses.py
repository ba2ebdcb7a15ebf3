"""A dose to judge or to reproduce, from whatever holds one, with the patient it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.io.openkbp import DOSE_MASK, is_openkbp, read_openkbp
from radplan.io.plan_file.reading import plan_spec
from radplan.io.reference import read_reference
from radplan.io.save import read_saved_dose
from radplan.patient import Patient
from radplan.workflows.setup import named_patient


@dataclass(frozen=True, eq=False)
class GivenDose:
    """A course total on a grid, and the patient.

    Parameters
    ----------
    patient : Patient
        Whose dose it is.
    dose : array of shape grid.shape
        Course total [Gy].
    grid : Grid
        Where it is given.
    known : str, optional
        The structure in which it is given, where that is not everywhere.
    """

    patient: Patient
    dose: npt.NDArray[np.float64]
    grid: Grid
    known: str | None = None


def given_dose(source: str | Path, case: str | None = None) -> GivenDose:
    """Return the dose of a file or of a plan's folder, with its patient.

    Parameters
    ----------
    source : path-like
        An RTDOSE, an NRRD dose, an OpenKBP patient, the folder of a plan that radplan wrote, or its ``dose.npz``.
    case : str, optional
        Whose structures count; a plan's folder and an OpenKBP patient know their own.

    Raises
    ------
    FileError
        When there is no dose in it.
    InputError
        When nothing says whose dose it is.
    """
    path = Path(source)
    if path.is_dir() and (path / "dose.npz").is_file():
        return _of_plan(path, case)
    if path.exists() and is_openkbp(path):
        known = read_openkbp(path)
        dose = np.asarray(known.dose, dtype=np.float64)
        return GivenDose(known.patient, dose, known.patient.ct.grid, DOSE_MASK)
    if case is None:
        raise InputError(f"whose dose is {path}? give --patient CASE, such as the folder of its images")
    patient, dicom = named_patient(plan_spec({"case": case}))
    if path.suffix == ".npz":
        return GivenDose(patient, *read_saved_dose(path))
    image = read_reference(path, dicom).dose
    if image is None:
        raise FileError(path, "holds curves, not a dose")
    return GivenDose(patient, image.dose, image.grid)


def _of_plan(folder: Path, case: str | None) -> GivenDose:
    dose, grid = read_saved_dose(folder / "dose.npz")
    try:
        spec: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["spec"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise FileError(folder, f"holds no whole plan of radplan's ({error})") from error
    named = case or spec.get("case")
    if not named:
        raise InputError(f"the plan in {folder} does not say whose it is: give --patient CASE")
    patient, _ = named_patient(plan_spec({"case": named}))
    return GivenDose(patient, dose, grid)
