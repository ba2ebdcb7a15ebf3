"""Tissues of the voxels, and whether a biological model can be had for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.machines.particle import ParticleMachine
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tissues:
    """Tissues of the voxels, and how their images are made of a table's columns.

    Parameters
    ----------
    alpha_x, beta_x : arrays of shape (t,)
        Radiosensitivity to photons [1/Gy, 1/Gy^2].
    index : array of shape (n,)
        The tissue of each voxel, int32.

    >>> Tissues.of(np.asarray([0.1, 0.5, 0.1]), np.asarray([0.05, 0.05, 0.05])).index.tolist()
    [0, 1, 0]
    """

    alpha_x: Floats
    beta_x: Floats
    index: npt.NDArray[np.int32]

    @classmethod
    def of(cls, alpha_x: Floats, beta_x: Floats) -> Tissues:
        """Return the tissues of voxels with these parameters, each ``(n,)``."""
        # Why: patients have few tissues and many voxels; sorting these would take longer than the dose.
        index = np.full(alpha_x.size, -1, dtype=np.int32)
        firsts: list[int] = []
        while np.any(left := index < 0):
            first = int(np.argmax(left))
            index[(alpha_x == alpha_x[first]) & (beta_x == beta_x[first])] = len(firsts)
            firsts.append(first)
        return cls(alpha_x[firsts], beta_x[firsts], index)

    @property
    def count(self) -> int:
        """Number of tissues."""
        return int(self.alpha_x.size)


def tissue_rows(machine: ParticleMachine, tissues: Tissues) -> list[int | None]:
    """Return the machine's tabulated tissue for each of the voxels' tissues; None where none is declared.

    Raises
    ------
    InputError
        When a tissue is not tabulated.
    """
    known = np.stack([machine.tissue_alpha_x, machine.tissue_beta_x], axis=1)
    rows: list[int | None] = []
    for pair in np.stack([tissues.alpha_x, tissues.beta_x], axis=1):
        match = np.flatnonzero(np.all(np.isclose(known, pair, rtol=1e-6, atol=1e-12), axis=1))
        if match.size == 0 and np.any(pair != 0.0):
            listed = ", ".join(f"{a:g}/{b:g}" for a, b in known)
            raise InputError(
                f"machine {machine.name!r} tabulates alpha and beta for tissues of alpha_x/beta_x {listed} only, but "
                f"the patient has one of {pair[0]:g}/{pair[1]:g} [1/Gy, 1/Gy^2]: give the structures one of those, or "
                "choose a model of LET"
            )
        rows.append(int(match[0]) if match.size else None)
    return rows


def check_tissues(patient: Patient, model: str) -> None:
    """Raise `InputError` unless a model of alpha and beta knows what every voxel is made of.

    A structure without any radiosensitivity raises, and so do two of equal priority and different alpha_x or beta_x
    that share voxels which no structure of higher priority claims.
    """
    known = [s for s in patient.structures.values() if s.role != "ignored" and s.voxels.size]
    for structure in known:
        if structure.alpha_x <= 0.0 and structure.beta_x <= 0.0:
            raise InputError(
                f"structure {structure.name!r} has alpha_x = 0 and beta_x = 0, so the RBE model {model!r} has no "
                "meaning: give it the values of its tissue, such as alpha_x=0.1 [1/Gy] and beta_x=0.05 [1/Gy^2]"
            )
    claimed = np.zeros(patient.ct.grid.size, dtype=bool)
    for priority in sorted({s.effective_priority for s in known}):
        level = [s for s in known if s.effective_priority == priority]
        _check_level(level, claimed)
        for structure in level:
            claimed[structure.voxels] = True


def _check_level(level: Iterable[Structure], claimed: npt.NDArray[np.bool_]) -> None:
    """Raise where structures of one priority disagree about voxels that are not claimed yet."""
    owner = np.full(claimed.size, -1, dtype=np.int32)
    listed = list(level)
    for number, structure in enumerate(listed):
        free = structure.voxels[~claimed[structure.voxels]]
        for other in np.unique(owner[free]):
            first = listed[other]
            if other >= 0 and (first.alpha_x, first.beta_x) != (structure.alpha_x, structure.beta_x):
                shared = int(np.sum(owner[free] == other))
                raise InputError(
                    f"structures {first.name!r} and {structure.name!r} share {shared} voxels "
                    f"and have one priority, but alpha_x/beta_x {first.alpha_x:g}/{first.beta_x:g} and "
                    f"{structure.alpha_x:g}/{structure.beta_x:g}: give them one tissue, or one of them a priority that "
                    "goes first (a smaller number)"
                )
        owner[free] = number
