"""Patients in matRad's format: the `ct` and `cst` of a .mat file, with the goals they carry."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.io.matrad.goals import read_goals
from radplan.io.matrad.struct import Fields, cells, fields, load_variables, number, text
from radplan.optim.goals import Goal
from radplan.patient.ct import CT, HUTable, hu_table
from radplan.patient.patient import Patient
from radplan.patient.structures import Role, Structure, Structures

logger = logging.getLogger(__name__)

_ROLES: dict[str, Role] = {"TARGET": "target", "OAR": "oar", "EXTERNAL": "external", "IGNORED": "ignored"}
_FRACTIONS = 30
"""Fractions of a case that does not say: those of matRad's own plans."""


def read_patient(path: str | Path, table: HUTable | str | Path = "matrad") -> Patient:
    """Read a patient from a matRad .mat file (MATLAB v5 to v7.3; `ct` and `cst`).

    Cubes come to ``[z, y, x]``; voxel lists, counted from 1 in column-major order there, come to flat C-order indices.
    The axes are ``ct.x``, ``ct.y``, ``ct.z`` where they stand, else they start at the DICOM position of the first
    slice, else at minus half the extent, as in matRad. Of several CT scenarios the first is taken, which is announced.
    A VOI that holds all others becomes the external contour when none is called that (in matRad, too, density counts
    only inside VOIs). Goals come from ``cst{:,6}`` as course totals; constraints are left out, which is announced.
    Without a `pln` in the file the patient gets the 30 fractions of matRad's own plans. The prescription is the highest
    dose that a squared deviation or underdosing asks of a target.

    Parameters
    ----------
    path : path-like
        The .mat file.
    table : HUTable, str or path-like
        HU table, by default matRad's, clipped at its ends as there.

    Raises
    ------
    FileError
        When the file is missing, damaged, not matRad's, or contradicts itself; says which and where.
    """
    path = Path(path)
    chosen = table if isinstance(table, HUTable) else hu_table(table)
    variables = load_variables(path, ("ct", "cst", "pln"))
    missing = [name for name in ("ct", "cst") if name not in variables]
    if missing:
        raise FileError(path, f"is no matRad patient: holds no variable {' or '.join(missing)}; expected ct and cst")
    try:
        ct = _read_ct(fields(path, "ct", variables["ct"]))
        rows, structures = _structures(path, ct.grid, _rows(path, variables["cst"]))
        goals = [goal for row in rows for goal in read_goals(path, row.name, row.goals)]
        fractions = _read_fractions(path, variables)
        travelling = tuple(Goal.from_spec(goal) for goal in goals)
        return Patient(path.stem, ct, structures, travelling, fractions, chosen, _prescription(structures, goals))
    except InputError as error:
        raise FileError(path, str(error)) from None


def _structures(path: Path, grid: Grid, table: npt.NDArray[Any]) -> tuple[list[_Row], Structures]:
    """Return the rows that can be read and their structures, names that repeat told apart by row; the rest is told."""
    names = Counter(text(row[1]).strip() for row in table)
    rows: list[_Row] = []
    drawn: list[Structure] = []
    left_out: dict[str, str] = {}
    first: FileError | None = None
    for index, entries in enumerate(table, start=1):
        try:
            row = _read_row(path, index, entries)
            if names[row.name] > 1:
                row = replace(row, name=f"{row.name} (row {index})")
                logger.warning("cst row %d shares its name with others and is called %s", index, row.name)
            drawn.append(_structure(path, grid, row))
            rows.append(row)
        except FileError as error:
            first = first or error
            left_out[text(entries[1]).strip() or f"row {index}"] = error.cause
            logger.warning("cst row %d is left out: %s", index, error.cause)
    if first is not None and not drawn:
        raise first
    return rows, Structures(_with_external(drawn), left_out)


@dataclass(frozen=True)
class _Row:
    """One line of `cst`: a structure as matRad writes it."""

    name: str
    role: Role
    indices: npt.NDArray[Any]
    properties: Fields
    goals: Any


def _read_ct(ct: Fields) -> CT:
    if "cubeHU" not in ct.names:
        raise FileError(
            ct.path, "ct has no cubeHU; expected Hounsfield units (matRad before 2017 stored densities only)"
        )
    cube = ct["cubeHU"]
    if isinstance(cube, np.ndarray) and cube.dtype == object:
        scenarios = cells(cube)
        if len(scenarios) > 1:
            logger.warning("%s holds %d CT scenarios: the first is taken", ct.path, len(scenarios))
        cube = scenarios[0] if scenarios else np.zeros(0)
    hu = np.asarray(cube)
    if hu.dtype.kind not in "iuf" or hu.size == 0:
        raise FileError(ct.path, f"ct.cubeHU holds no numbers ({hu.dtype}, shape {hu.shape})")
    if "cubeDim" in ct.names:
        shape = tuple(int(n) for n in np.atleast_1d(ct["cubeDim"]))
    else:
        shape = hu.shape
    shape = shape if len(shape) == 3 else (*shape, *(1,) * (3 - len(shape)))
    if int(np.prod(shape)) != hu.size or tuple(n for n in shape if n > 1) != tuple(n for n in hu.shape if n > 1):
        raise FileError(ct.path, f"ct.cubeHU has shape {hu.shape}, ct.cubeDim says {shape} [ny nx nz]")
    hu = hu.reshape(shape)
    grid = _read_grid(ct, (shape[2], shape[0], shape[1]))
    return CT(grid, np.transpose(hu, (2, 0, 1)))


def _read_grid(ct: Fields, shape: tuple[int, int, int]) -> Grid:
    counts = (shape[2], shape[1], shape[0])
    resolution = fields(ct.path, "ct.resolution", ct["resolution"])
    spacing = tuple(number(ct.path, f"ct.resolution.{axis}", resolution[axis]) for axis in "xyz")
    if all(axis in ct.names and np.size(ct[axis]) for axis in "xyz"):
        origin = tuple(_axis_start(ct, a, counts[i], spacing[i]) for i, a in enumerate("xyz"))
    elif "dicomInfo" in ct.names and "ImagePositionPatient" in fields(ct.path, "ct.dicomInfo", ct["dicomInfo"]).names:
        position = np.asarray(fields(ct.path, "ct.dicomInfo", ct["dicomInfo"])["ImagePositionPatient"], dtype=float)
        if position.shape != (3,):
            raise FileError(ct.path, f"ct.dicomInfo.ImagePositionPatient must be three positions, got {position}")
        origin = tuple(float(p) for p in position)
    else:
        origin = tuple(-0.5 * n * s for n, s in zip(counts, spacing, strict=True))
    return Grid(shape, (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))


def _axis_start(ct: Fields, axis: str, count: int, spacing: float) -> float:
    positions = np.atleast_1d(np.asarray(ct[axis], dtype=float))
    if positions.shape != (count,):
        raise FileError(ct.path, f"ct.{axis} has {positions.size} positions for {count} voxels")
    steps = np.diff(positions)
    if steps.size and not np.allclose(steps, spacing, rtol=0.0, atol=1e-3):
        raise FileError(
            ct.path,
            f"ct.{axis} is not evenly spaced at ct.resolution.{axis} = {spacing:g} mm: steps of {steps.min():g} to "
            f"{steps.max():g} mm; resample the CT to even slices",
        )
    return float(positions[0])


def _rows(path: Path, cst: Any) -> npt.NDArray[Any]:
    table = np.atleast_2d(np.asarray(cst, dtype=object))
    if table.ndim != 2 or table.shape[1] < 6:
        raise FileError(path, f"cst must be a cell array of at least 6 columns, got shape {np.shape(cst)}")
    return table


def _read_row(path: Path, index: int, row: npt.NDArray[Any]) -> _Row:
    name = text(row[1]).strip()
    kind = text(row[2]).strip().upper()
    if not name:
        raise FileError(path, f"cst row {index} has no name in column 2")
    if kind not in _ROLES:
        raise FileError(path, f"cst row {index} ({name}) has the type {kind!r}; expected one of {', '.join(_ROLES)}")
    content = row[3]
    if isinstance(content, np.ndarray) and content.dtype == object:
        scenarios = cells(content)
        content = scenarios[0] if scenarios else np.zeros(0, dtype=np.int64)
    properties = fields(path, f"cst row {index} ({name}), column 5", row[4])
    return _Row(name, _ROLES[kind], np.atleast_1d(np.asarray(content)).reshape(-1), properties, row[5])


def _structure(path: Path, grid: Grid, row: _Row) -> Structure:
    _, ny, nx = grid.shape
    if row.indices.size == 0:
        listed = np.zeros(0, dtype=np.int64)
    elif row.indices.dtype.kind not in "iuf" or not (row.indices == np.floor(row.indices)).all():
        raise FileError(path, f"the voxels of {row.name} must be whole numbers, got {row.indices.dtype}")
    else:
        listed = row.indices.astype(np.int64) - 1
        if listed.min() < 0 or listed.max() >= grid.size:
            raise FileError(
                path,
                f"the voxels of {row.name} run from {listed.min() + 1} to {listed.max() + 1}; the CT has {grid.size}",
            )
    z, rest = np.divmod(listed, ny * nx)
    x, y = np.divmod(rest, ny)
    alpha_x, beta_x = (
        number(path, f"{key} of {row.name}", row.properties[key]) if key in row.properties.names else default
        for key, default in (("alphaX", 0.1), ("betaX", 0.05))
    )
    priority = None
    if "Priority" in row.properties.names and np.size(row.properties["Priority"]):
        priority = round(number(path, f"Priority of {row.name}", row.properties["Priority"]))
    color = None
    if "visibleColor" in row.properties.names and np.size(row.properties["visibleColor"]) == 3:
        red, green, blue = (float(c) for c in np.asarray(row.properties["visibleColor"]).reshape(-1))
        color = (red, green, blue)
    voxels = np.unique((z * ny + y) * nx + x)
    return Structure(row.name, grid, voxels, None, row.role, priority, alpha_x, beta_x, color)


def _with_external(structures: list[Structure]) -> list[Structure]:
    """Make the structure that holds all others the external contour, when none is called that."""
    if not structures or any(s.role == "external" for s in structures):
        return structures
    largest = max(structures, key=lambda s: s.voxels.size)
    if largest.role != "oar" or largest.voxels.size == 0:
        return structures
    inside = largest.mask().reshape(-1)
    if not all(inside[s.voxels].all() for s in structures):
        return structures
    logger.info("%s holds all other structures and is taken as the external contour", largest.name)
    outline = Structure(
        largest.name,
        largest.grid,
        largest.voxels,
        largest.fraction,
        "external",
        largest.effective_priority,
        largest.alpha_x,
        largest.beta_x,
        largest.color,
    )
    return [outline if s is largest else s for s in structures]


def _read_fractions(path: Path, variables: dict[str, Any]) -> int:
    if "pln" not in variables:
        return _FRACTIONS
    plan = fields(path, "pln", variables["pln"])
    if "numOfFractions" not in plan.names:
        return _FRACTIONS
    return round(number(path, "pln.numOfFractions", plan["numOfFractions"]))


def _prescription(structures: Structures, goals: list[dict[str, Any]]) -> float | None:
    asked = [
        float(goal["parameters"]["reference"])
        for goal in goals
        if goal["objective"] in ("squared_deviation", "squared_underdosing")
        and structures[goal["structure"]].role == "target"
    ]
    return max(asked, default=None)
