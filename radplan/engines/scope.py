"""Where and how dose is wanted: grid, voxels, cases, device, dtype; made and checked in one place for all engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan.arrays import Device, as_device
from radplan.beams.errors import NOMINAL, SetupRangeError
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Rows, Scenarios
from radplan.influence.rows import sorted_voxels
from radplan.patient.patient import Patient

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scope:
    """Where dose is wanted, in which cases, and how it is kept; make it with `Scope.of`, which checks it.

    Parameters
    ----------
    grid : Grid
        The dose grid.
    voxels : array of shape (n,)
        Sorted flat indices into the grid: the rows.
    scenarios : Scenarios
        The cases, nominal first.
    device : Device
        Where the products run.
    dtype : str
        ``"float32"`` or ``"float64"``.
    stored : bool
        Whether matrices are stored, or dose is calculated on the fly.
    error : SetupRangeError
        What goes wrong in the case that an engine is asked for: beams come with their isocentres where they are then,
        and the engine passes radiological depths through ``error.depths``.

    >>> from radplan.patient.phantoms import phantom
    >>> scope = Scope.of(phantom("box"), grid=20.0, voxels=[5, 6])
    >>> scope.voxels.tolist(), scope.dtype, scope.device.name
    ([5, 6], 'float32', 'numpy')
    """

    grid: Grid
    voxels: Ints
    scenarios: Scenarios
    device: Device
    dtype: str
    stored: bool
    error: SetupRangeError = NOMINAL

    @classmethod
    def of(
        cls,
        patient: Patient,
        grid: float | tuple[float, float, float] | Grid = 5.0,
        voxels: Literal["body"] | npt.ArrayLike = "body",
        scenarios: Scenarios | None = None,
        device: str | Device = "numpy",
        dtype: str = "float32",
        stored: bool = True,
    ) -> Scope:
        """Return what a caller asks for, checked.

        Parameters
        ----------
        patient : Patient
            Gives the external contour, and the first voxel centre of the CT, where the dose grid starts.
        grid : float, (float, float, float) or Grid
            The dose grid, or its spacing [mm].
        voxels : "body" or array of shape (n,)
            The external contour grown by one voxel, or sorted flat indices into the grid.
        scenarios : Scenarios, optional
            The nominal case when left out.
        device : str or Device
            ``backend[:device[:index]]``, such as ``"numpy"`` or ``"torch:cuda:1"``.
        dtype : str
            ``"float32"`` or ``"float64"``.
        stored : bool
            Whether matrices are stored.

        Raises
        ------
        InputError
            When one of them cannot be used.
        UnknownNameError
            When no device has that name.
        """
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
        if not isinstance(stored, bool):
            raise InputError(f"stored must be True or False, got {stored!r}")
        cases = Scenarios.nominal() if scenarios is None else scenarios
        if not isinstance(cases, Scenarios):
            raise InputError(f"scenarios must be Scenarios or None, got {scenarios!r}")
        place = as_device(device)
        dose_grid = grid if isinstance(grid, Grid) else patient.ct.grid.with_spacing(grid)
        body = isinstance(voxels, str) and voxels == "body"
        rows = patient.body_voxels(dose_grid) if body else checked_rows(voxels, dose_grid)
        if not cases.errors:
            raise InputError(
                f"the scenarios {', '.join(cases.names)} do not say what goes wrong in each: make them with "
                "Scenarios.setup_and_range, give errors=, or join models made one by one with over_cases"
            )
        return cls(dose_grid, rows, cases, place, dtype, stored)

    def rows(self, patient: Patient, **parameters: float | npt.ArrayLike) -> Rows:
        """Return the rows of a model: the patient's alpha_x [1/Gy] and beta_x [1/Gy^2], and an engine's own parameters.

        Parameters
        ----------
        parameters : array of shape (n,), or a number
            Such as ``rbe=1.0``.
        """
        known = {**patient.voxel_parameters(self.grid, self.voxels), **parameters}
        return Rows.of(self.grid, self.voxels, known, self.scenarios, self.device, self.dtype)

    def cases(self) -> tuple[Scope, ...]:
        """Return the scope of each case by itself: what an engine is asked for."""
        return tuple(replace(self, scenarios=Scenarios.nominal(), error=error) for error in self.scenarios.errors)


def checked_rows(voxels: str | npt.ArrayLike, grid: Grid) -> Ints:
    """Return rows given by a caller as sorted flat indices into a grid, shape (n,)."""
    if isinstance(voxels, str):
        raise InputError(f"voxels must be 'body' or flat grid indices (n,), got {voxels!r}")
    given = np.asarray(voxels)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
        raise InputError(
            f"voxels must be 'body' or whole numbers of shape (n,), n >= 1; got {given.dtype} of shape {given.shape}"
        )
    return sorted_voxels(given, grid)
