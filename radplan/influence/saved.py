"""A forward model reopened from files: the images of given variables, and the whole model when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from radplan.arrays import Array, to_numpy
from radplan.influence.model import ForwardModel, RowsModel
from radplan.influence.rows import Rows
from radplan.influence.variables import Variables


@dataclass(frozen=True, eq=False)
class SavedModel(RowsModel):
    """The images that were saved with some variables; any others make the model anew, which takes its time.

    Parameters
    ----------
    rows : Rows
        Voxels, voxel parameters and grid, on the host.
    saved : mapping of str to array
        Images ``(1, n)`` per fraction at `x`.
    x : array of shape (count,)
        The variables that they belong to.
    radiation : str
        What was delivered.
    machine : str or None
        Name of what delivers.
    build : callable
        Makes the model whose images these are; called once, and only when other variables or a gradient are wanted.
    linear : bool
        Whether that model is linear.

    >>> from radplan.geometry import Grid
    >>> rows = Rows.of(Grid((1, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    >>> model = SavedModel(rows, {"physical_dose": np.asarray([[1.0, 2.0]])}, np.ones(3), "photons", None, lambda: None)
    >>> model.forward(np.ones(3))["physical_dose"].tolist()
    [[1.0, 2.0]]
    """

    rows: Rows
    saved: Mapping[str, Any]
    x: Any
    radiation: str
    machine: str | None
    build: Callable[[], ForwardModel]
    linear: bool = True  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"SavedModel({', '.join(self.images)}: {self.rows.count} voxels, {self.radiation})"

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the saved images."""
        return tuple(self.saved)

    @property
    def variables(self) -> Variables:
        """Those of the plan, without bounds: they are what was delivered."""
        return Variables(int(np.size(self.x)), lower=-np.inf, upper=np.inf)

    @cached_property
    def original(self) -> ForwardModel:
        """The model that the images were calculated with, on the same voxels."""
        return self.build().restrict(self.voxels)

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(1, n)``: as saved for the saved variables, else calculated."""
        names = self.images if images is None else tuple(images)
        if np.array_equal(to_numpy(x), self.x) and all(name in self.saved for name in names):
            return {name: self.device.asarray(self.saved[name], self.dtype) for name in names}
        return self.original.forward(x, names)

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images."""
        return self.original.pullback(x, cotangents)

    def restrict(self, voxels: Array) -> SavedModel:
        """Return the model of some voxels only."""
        places = self.rows.places(to_numpy(voxels))
        kept = {name: np.asarray(values)[:, places] for name, values in self.saved.items()}
        return replace(self, rows=self.rows.restrict(to_numpy(voxels)), saved=kept)
