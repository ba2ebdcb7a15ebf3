"""Forward models over another one: what changes variables or images, and leaves everything else as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from radplan.arrays import Array, Device
from radplan.geometry.grid import Grid
from radplan.influence.model import ForwardModel
from radplan.influence.scenarios import Scenarios
from radplan.influence.variables import Variables


@dataclass(frozen=True, eq=False)
class ModelOver(ABC):
    """A forward model that calculates by way of another: grid, voxels, images, scenarios and parameters are its.

    A subclass gives `linear`, `variables`, `forward` and `pullback`.

    Parameters
    ----------
    model : ForwardModel
        What calculates dose.
    """

    model: ForwardModel

    @property
    @abstractmethod
    def linear(self) -> bool:
        """Whether the images are linear in the variables."""

    @property
    @abstractmethod
    def variables(self) -> Variables:
        """What may be changed."""

    @abstractmethod
    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for (all when left out), ``(scenarios, voxels)`` each, at ``x (count,)``."""

    @abstractmethod
    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images; a missing image counts as zero."""

    @property
    def grid(self) -> Grid:
        """The dose grid."""
        return self.model.grid

    @property
    def voxels(self) -> Any:
        """Sorted flat indices of the voxels into the grid."""
        return self.model.voxels

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images it can give."""
        return self.model.images

    @property
    def scenarios(self) -> Scenarios:
        """The cases it calculates."""
        return self.model.scenarios

    @property
    def radiation(self) -> str:
        """``"photons"``, ``"protons"``, ``"helium"`` or ``"carbon"``."""
        return self.model.radiation

    @property
    def voxel_parameters(self) -> Mapping[str, Array]:
        """Named arrays ``(1 or scenarios, voxels)`` on the device."""
        return self.model.voxel_parameters

    @property
    def device(self) -> Device:
        """Where its arrays live."""
        return self.model.device

    def restrict(self, voxels: Array) -> Self:
        """Return the model of some voxels only: sorted flat indices into the grid."""
        return replace(self, model=self.model.restrict(voxels))

    def with_voxel_parameters(self, **parameters: Array) -> Self:
        """Return the model with more voxel parameters."""
        return replace(self, model=self.model.with_voxel_parameters(**parameters))
