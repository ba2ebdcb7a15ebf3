"""Forward models: maps from decision variables to images, with a pullback."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from radplan.arrays import Array, Device
from radplan.geometry.grid import Grid
from radplan.influence.rows import Rows
from radplan.influence.scenarios import Scenarios
from radplan.influence.variables import Variables


@runtime_checkable
class ForwardModel(Protocol):
    """A map from variables to images with a pullback: what a `Problem` can optimise and a `Plan` evaluate.

    Images are per fraction, dicts from names to arrays ``(scenarios, voxels)``. Stateless: neither method remembers
    the last call.
    """

    @property
    def grid(self) -> Grid:
        """The grid the voxels belong to."""

    @property
    def voxels(self) -> Any:
        """Sorted flat indices into the grid, host int64 ``(n,)``: the last axis of every image."""

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images it can give."""

    @property
    def scenarios(self) -> Scenarios:
        """The cases it calculates."""

    @property
    def radiation(self) -> str:
        """``"photons"``, ``"protons"``, ``"helium"`` or ``"carbon"``."""

    @property
    def linear(self) -> bool:
        """Whether the images are linear in the variables."""

    @property
    def variables(self) -> Variables:
        """What may be changed."""

    @property
    def voxel_parameters(self) -> Mapping[str, Array]:
        """Named arrays ``(1 or scenarios, voxels)`` on the device: alpha_x, beta_x, rbe and a user's own."""

    @property
    def device(self) -> Device:
        """Where its arrays live."""

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for (all when left out) at ``x (count,)``."""

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images; a missing image counts as zero."""

    def restrict(self, voxels: Array) -> ForwardModel:
        """Return the model of some voxels only, sorted flat indices into the grid."""

    def with_voxel_parameters(self, **parameters: Array) -> ForwardModel:
        """Return the model with more voxel parameters."""


class RowsModel(ABC):
    """A forward model that holds its `Rows`, which give grid, voxels, scenarios, voxel parameters and device.

    An author writes a frozen dataclass with the fields or properties `rows`, `images`, `radiation` and `variables`, and
    the methods `forward` and `pullback`; `linear` where it is, and `restrict` where more than rows must be cut.

    >>> from radplan.geometry import Grid
    >>> from radplan.influence import Dij
    >>> import numpy as np
    >>> dij = Dij.from_matrices({"physical_dose": np.ones((2, 1))}, Grid((1, 1, 2), (1, 1, 1), (0, 0, 0)))
    >>> isinstance(dij, RowsModel), dij.rows.count
    (True, 2)
    """

    rows: Rows
    radiation: str
    linear: ClassVar[bool] = False

    @property
    @abstractmethod
    def images(self) -> tuple[str, ...]:
        """Names of the images it can give."""

    @property
    def grid(self) -> Grid:
        """The dose grid."""
        return self.rows.grid

    @property
    def voxels(self) -> Any:
        """Sorted flat indices into the grid ``(n,)``."""
        return self.rows.voxels

    @property
    def scenarios(self) -> Scenarios:
        """The cases it calculates."""
        return self.rows.scenarios

    @property
    def voxel_parameters(self) -> Mapping[str, Array]:
        """Arrays ``(1 or scenarios, n)`` on the device."""
        return self.rows.voxel_parameters

    @property
    def device(self) -> Device:
        """Where its arrays live."""
        return self.rows.device

    @property
    def dtype(self) -> str:
        """Name of the dtype of images."""
        return self.rows.dtype

    @abstractmethod
    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(scenarios, voxels)`` each, at ``x (count,)``."""

    @abstractmethod
    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images; a missing image counts as zero."""

    def restrict(self, voxels: Array) -> Self:
        """Return the model of some voxels only: sorted flat indices into the grid, each one of this model's."""
        return replace(self, rows=self.rows.restrict(voxels))  # type: ignore[type-var]

    def with_voxel_parameters(self, **parameters: Array) -> Self:
        """Return the model with more voxel parameters, or other values of those it has.

        Parameters
        ----------
        parameters : array of shape (n,) or (1 or scenarios, n), or a number
            One value per voxel of the model, or one for all.
        """
        return replace(self, rows=self.rows.with_parameters(**parameters))  # type: ignore[type-var]
