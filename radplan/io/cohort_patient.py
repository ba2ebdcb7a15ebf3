"""Patients of a cohort as ``radplan cohort`` writes them: CT numbers and structures on the dose grid."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from radplan.errors import FileError
from radplan.geometry.grid import Grid
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

_PREFIX = "structure_"
_EIGHTHS = 8.0


def is_cohort_patient(path: str | Path) -> bool:
    """Return whether a path is a patient's folder of a cohort, or the ``patient.npz`` in it."""
    file = _file(path)
    if file.name != "patient.npz" or not file.is_file() or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return {"hu.npy", "spacing.npy", "origin.npy"} <= set(archive.namelist())


def read_cohort_patient(path: str | Path) -> Patient:
    """Return a patient of a cohort: the dose grid is the CT's, structures have parts in eighths.

    Parameters
    ----------
    path : path-like
        The patient's folder, or the ``patient.npz`` in it.

    Raises
    ------
    FileError
        When it cannot be read or arrays do not fit each other.
    """
    file = _file(path)
    try:
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        hu = arrays["hu"].astype(np.float32)
        x, y, z = (float(step) for step in arrays["spacing"])
        ox, oy, oz = (float(value) for value in arrays["origin"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FileError(file, f"is no patient of a cohort ({error})") from None
    nz, ny, nx = hu.shape
    grid = Grid((nz, ny, nx), (x, y, z), (ox, oy, oz))
    parts = []
    for key, cube in arrays.items():
        if not key.startswith(_PREFIX):
            continue
        if cube.shape != hu.shape:
            raise FileError(file, f"{key} has shape {cube.shape}, the CT {hu.shape}")
        voxels = np.flatnonzero(cube)
        name = key.removeprefix(_PREFIX)
        role = "external" if name == "External" else "target" if name.startswith("PTV") else "oar"
        if name.startswith(("CTV", "GTV", "ITV")):
            role = "ignored"
        fraction = cube.reshape(-1)[voxels] / _EIGHTHS
        parts.append(Structure(name, grid, voxels, fraction, role))  # type: ignore[arg-type]
    folder = file.parent
    return Patient(f"{folder.parent.parent.name or 'cohort'}_{folder.name}", CT(grid, hu), Structures(parts))


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / "patient.npz" if path.is_dir() else path
