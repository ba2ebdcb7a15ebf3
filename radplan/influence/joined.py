"""One forward model of several: fields of different linac models that treat the same patient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from radplan.arrays import Array, Device, namespace
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence.model import ForwardModel
from radplan.influence.scenarios import Scenarios
from radplan.influence.variables import Variables


@dataclass(frozen=True)
class JoinedVariables(Variables):
    """The variables of several models, one after the other."""

    parts: tuple[Variables, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Variables]) -> JoinedVariables:
        """Return the variables of all parts."""

        def whole(name: str) -> Any:
            return np.concatenate([np.broadcast_to(p.__dict__[name], (p.count,)).astype(np.float64) for p in parts])

        labels = tuple(dict.fromkeys(label for part in parts for label in part.labels))
        bounds = whole("lower"), whole("upper"), whole("start"), whole("scale")
        count = sum(part.count for part in parts)
        return cls(count, *bounds, labels=labels, minimum=whole("minimum"), parts=tuple(parts))

    def project(self, x: Array) -> Array:
        """Return the nearest allowed point ``(count,)``."""
        pieces = zip(self.parts, _slices([part.count for part in self.parts]), strict=True)
        return namespace(x).concat([part.project(x[piece]) for part, piece in pieces])


@dataclass(frozen=True, eq=False)
class JoinedModel:
    """The sum of the doses of several models on the same voxels.

    Parameters
    ----------
    models : tuple of ForwardModel
        Two or more.
    variables : JoinedVariables
        Theirs, one model after the other.

    Raises
    ------
    InputError
        When they lie on other grids or voxels.
    """

    models: tuple[ForwardModel, ...]
    variables: JoinedVariables

    @classmethod
    def of(cls, models: Sequence[ForwardModel]) -> JoinedModel:
        """Return the sum of some models."""
        return cls(tuple(models), JoinedVariables.of([model.variables for model in models]))

    def __post_init__(self) -> None:
        first = self.models[0]
        for other in self.models[1:]:
            if other.grid != first.grid or not np.array_equal(other.voxels, first.voxels):
                raise InputError("models to join must lie on the same voxels of the same grid")

    @property
    def grid(self) -> Grid:
        """The dose grid."""
        return self.models[0].grid

    @property
    def voxels(self) -> Any:
        """Sorted flat indices into the grid ``(n,)``."""
        return self.models[0].voxels

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images it can give."""
        return self.models[0].images

    @property
    def scenarios(self) -> Scenarios:
        """The nominal case."""
        return self.models[0].scenarios

    @property
    def radiation(self) -> str:
        """Photons."""
        return self.models[0].radiation

    @property
    def linear(self) -> bool:
        """Whether images are linear in the variables: when those of all models are."""
        return all(model.linear for model in self.models)

    @property
    def voxel_parameters(self) -> Mapping[str, Array]:
        """Arrays ``(1, n)`` on the device."""
        return self.models[0].voxel_parameters

    @property
    def device(self) -> Device:
        """Where its arrays live."""
        return self.models[0].device

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(1, voxels)`` each, summed over the models."""
        names = self.images if images is None else tuple(images)
        total: dict[str, Array] = {}
        for model, piece in self._pieces():
            for name, values in model.forward(x[piece], names).items():
                total[name] = total[name] + values if name in total else values
        return total

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images."""
        return namespace(x).concat([model.pullback(x[piece], cotangents) for model, piece in self._pieces()])

    def restrict(self, voxels: Array) -> JoinedModel:
        """Return the model of some voxels only."""
        return replace(self, models=tuple(model.restrict(voxels) for model in self.models))

    def with_voxel_parameters(self, **parameters: Array) -> JoinedModel:
        """Return the model with more voxel parameters."""
        return replace(self, models=tuple(model.with_voxel_parameters(**parameters) for model in self.models))

    def _pieces(self) -> list[tuple[ForwardModel, slice]]:
        return list(zip(self.models, _slices([model.variables.count for model in self.models]), strict=True))


def _slices(counts: Sequence[int]) -> list[slice]:
    """Return where parts of some sizes lie in the whole.

    >>> _slices([2, 3])
    [slice(0, 2, None), slice(2, 5, None)]
    """
    ends = np.cumsum([0, *counts]).tolist()
    return [slice(a, b) for a, b in pairwise(ends)]
