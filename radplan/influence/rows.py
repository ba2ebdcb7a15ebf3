"""The rows of a forward model: its voxels, what is known of each, its cases, and where its arrays live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, Device, as_device, to_numpy
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence.scenarios import Scenarios

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """The voxels of a forward model, what is known of each, the cases, and where arrays live; checked when made.

    Parameters
    ----------
    grid : Grid
        The dose grid.
    voxels : array of shape (n,)
        Sorted flat indices into the grid, on the host: the last axis of every image.
    device : Device
        Where images and voxel parameters live.
    dtype : str
        ``"float32"`` or ``"float64"``, of images and voxel parameters.
    scenarios : Scenarios
        The cases, nominal first: the first axis of every image.
    voxel_parameters : mapping of str to array
        Arrays ``(1 or scenarios, n)`` on the device: alpha_x, beta_x, rbe and a user's own.

    Raises
    ------
    InputError
        When voxels are not sorted indices into the grid, or a parameter has another shape.

    >>> rows = Rows.of(Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), [0, 2, 3], {"alpha_x": [0.1, 0.2, 0.3]})
    >>> rows.restrict([2, 3]).voxel_parameters["alpha_x"].tolist()
    [[0.2, 0.3]]
    """

    grid: Grid
    voxels: Any
    device: Device
    dtype: str
    scenarios: Scenarios = field(default_factory=Scenarios.nominal)
    voxel_parameters: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxels", sorted_voxels(self.voxels, self.grid))
        object.__setattr__(self, "voxel_parameters", dict(self.voxel_parameters))
        for name, values in self.voxel_parameters.items():
            self._check_shape(name, tuple(values.shape))

    @classmethod
    def of(
        cls,
        grid: Grid,
        voxels: npt.ArrayLike | None = None,
        voxel_parameters: Mapping[str, npt.ArrayLike] | None = None,
        scenarios: Scenarios | None = None,
        device: str | Device = "numpy",
        dtype: str = "float64",
    ) -> Rows:
        """Return rows of host values: all voxels of the grid and the nominal case where they are left out."""
        chosen = np.arange(grid.size) if voxels is None else np.asarray(voxels)
        cases = Scenarios.nominal() if scenarios is None else scenarios
        return cls(grid, chosen, as_device(device), dtype, cases).with_parameters(**(voxel_parameters or {}))

    @property
    def count(self) -> int:
        """Number of voxels."""
        return int(self.voxels.shape[0])

    def places(self, voxels: npt.ArrayLike) -> Ints:
        """Return which rows some voxels are, shape (m,): sorted flat indices into the grid, each one of these rows.

        Raises
        ------
        InputError
            When they are not sorted, or one is not among the rows.
        """
        chosen = sorted_voxels(voxels, self.grid)
        places = np.clip(np.searchsorted(self.voxels, chosen), 0, self.count - 1)
        absent = int(np.sum(self.voxels[places] != chosen))
        if absent:
            raise InputError(f"{absent} of {chosen.size} voxels asked for are not rows of this model")
        return places

    def restrict(self, voxels: npt.ArrayLike) -> Rows:
        """Return the rows of some voxels only; a model cuts the rest of itself by `places`."""
        places = self.places(voxels)
        index = self.device.asarray(places, "int64")
        kept = {name: self.device.xp.take(values, index, axis=1) for name, values in self.voxel_parameters.items()}
        return replace(self, voxels=self.voxels[places], voxel_parameters=kept)

    def with_parameters(self, **parameters: Any) -> Rows:
        """Return the rows with more voxel parameters, or other values of those there are.

        Parameters
        ----------
        parameters : array of shape (n,) or (1 or scenarios, n), or a number
            One value per voxel, or one for all.
        """
        added = {}
        for name, values in parameters.items():
            host = np.atleast_2d(to_numpy(values)).astype(self.dtype)
            if host.size == 1:
                host = np.broadcast_to(host, (1, self.count))
            self._check_shape(name, host.shape)
            added[name] = self.device.asarray(host, self.dtype)
        return replace(self, voxel_parameters={**self.voxel_parameters, **added})

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[0] not in (1, len(self.scenarios)) or shape[1] != self.count:
            raise InputError(
                f"voxel parameter {name!r} must have shape (1 or {len(self.scenarios)}, {self.count}), got {shape}"
            )


def sorted_voxels(voxels: npt.ArrayLike, grid: Grid) -> Ints:
    """Return flat grid indices ``(n,)``, n >= 1, after a check that they are sorted, without repeats, in the grid."""
    flat = np.asarray(voxels, dtype=np.int64)
    if flat.ndim != 1 or flat.size == 0:
        raise InputError(f"voxels must be a non-empty list of flat grid indices, got shape {flat.shape}")
    if np.any(np.diff(flat) <= 0):
        raise InputError("voxels must be sorted flat grid indices without repeats: numpy.unique makes them so")
    if flat[0] < 0 or flat[-1] >= grid.size:
        raise InputError(f"voxels must lie in 0..{grid.size - 1} on the dose grid, got {flat[0]}..{flat[-1]}")
    return flat
