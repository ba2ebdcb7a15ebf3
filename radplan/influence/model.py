"""Forward models: maps from decision variables to images, with a pullback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from radplan.arrays import Array, Device
from radplan.geometry.grid import Grid
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
