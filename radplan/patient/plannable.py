"""Whether structures can carry goals at all: known from contours, priorities and grid, before dose is calculated."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, after_overlap, resample_weights


def check_plannable(patient: Patient, names: Iterable[str], grid: Grid) -> None:
    """Raise where a structure has no voxel that a goal on it could see.

    Parameters
    ----------
    patient : Patient
        The patient.
    names : iterable of str
        Structures that have goals or constraints, and contend for voxels by their priorities.
    grid : Grid
        The dose grid.

    Raises
    ------
    InputError
        When a structure is empty, wholly covered by others of higher priority, off the dose grid, or where no dose is
        calculated; says which and what to do.

    >>> from radplan.patient.phantoms import phantom
    >>> box = phantom("box")
    >>> check_plannable(box, ["OuterTarget", "BODY"], box.ct.grid)
    """
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if patient.structures[name].voxels.size == 0:
            raise InputError(f"structure {name!r} of patient {patient.name} is empty: leave out its goals, or draw it")
    kept = after_overlap(patient.structures, wanted)
    body = patient.body_voxels(grid)
    for name in wanted:
        voxels, fraction = kept[name]
        if voxels.size == 0:
            cover = ", ".join(_covering(patient, name, wanted))
            raise InputError(
                f"structure {name!r} has no voxel left for its goals: all of it belongs to {cover}, of higher "
                f"priority; leave out its goals, or state them for a copy of the rank of {cover}, such as structures: "
                f"{{{name}_copy: {{shape: {name}, priority: {_rank(patient, name, wanted)}}}}}"
            )
        where = resample_weights(patient.ct.grid, voxels, fraction, grid, patient.membership)[0]
        if where.size == 0:
            raise InputError(
                f"structure {name!r} of patient {patient.name} has no voxel on the dose grid: it lies outside, or "
                "between the voxels; enlarge or refine the grid, or leave out its goals"
            )
        if not np.isin(where, body, assume_unique=True).any():
            raise InputError(
                f"structure {name!r} of patient {patient.name} lies where no dose is calculated, outside the external "
                f"contour {patient.external.name!r}: leave out its goals, or correct one of the two"
            )


def _covering(patient: Patient, name: str, wanted: list[str]) -> list[str]:
    """Return the structures of higher priority that share voxels with one."""
    own = patient.structures[name]
    above = [patient.structures[other] for other in wanted if _ranks_above(patient.structures[other], own)]
    return [other.name for other in above if np.intersect1d(other.voxels, own.voxels, assume_unique=True).size]


def _rank(patient: Patient, name: str, wanted: list[str]) -> int:
    return min(patient.structures[other].effective_priority for other in _covering(patient, name, wanted))


def _ranks_above(first: Structure, second: Structure) -> bool:
    return first.effective_priority < second.effective_priority
