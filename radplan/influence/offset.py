"""Forward models that know what another one leaves out: its images and a constant on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from radplan.arrays import Array, like, namespace, to_numpy
from radplan.errors import InputError
from radplan.influence.model import ForwardModel
from radplan.influence.over import ModelOver
from radplan.influence.variables import Variables


@dataclass(frozen=True, eq=False)
class OffsetModel(ModelOver):
    r"""The images of another model plus what that leaves out, held constant: :math:`d(x) + \delta`.

    Of bixels whose fluence leaves deliver, :math:`\delta` is the delivered less the fluence's dose: leaf transmission,
    gaps, head scatter. At the variables it was taken at the sum is exact, near them as good as changes of the other
    model are.

    Parameters
    ----------
    model : ForwardModel
        What calculates.
    offset : mapping of str to array of shape (1 or scenarios, voxels)
        Per fraction, by image; an image that is missing stays as it is.

    Notes
    -----
    Source: Siebers et al., Med. Phys. 29 (2002) 952; Park et al., Oncotarget 7 (2016), of intermediate doses.
    """

    model: ForwardModel
    offset: Mapping[str, Array]

    def __post_init__(self) -> None:
        for name, values in self.offset.items():
            if name not in self.images or values.ndim != 2 or values.shape[1] != self.voxels.size:
                raise InputError(
                    f"an offset needs (1 or scenarios, {self.voxels.size}) values of one of {', '.join(self.images)}, "
                    f"got {name!r} of shape {tuple(values.shape)}"
                )

    @classmethod
    def through(cls, model: ForwardModel, x: Array, images: Mapping[str, Array]) -> OffsetModel:
        """Return the model whose images at variables ``x (count,)`` are given ones, ``(1 or scenarios, voxels)``."""
        inner = model.forward(x, images)
        return cls(model, {name: like(images[name], inner[name]) - inner[name] for name in images})

    @property
    def linear(self) -> bool:
        """Always false: without variables there is dose."""
        return False

    @property
    def variables(self) -> Variables:
        """Those of the other model."""
        return self.model.variables

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(scenarios, voxels)`` each, at variables ``x (count,)``."""
        found = self.model.forward(x, images)
        return {name: values + self.offset[name] if name in self.offset else values for name, values in found.items()}

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images: that of the other model."""
        return self.model.pullback(x, cotangents)

    def restrict(self, voxels: Array) -> Self:
        """Return the model of some voxels only: sorted flat indices into the grid."""
        places = np.searchsorted(to_numpy(self.voxels), to_numpy(voxels))
        kept = {}
        for name, values in self.offset.items():
            kept[name] = namespace(values).take(values, self.device.asarray(places, "int64"), axis=1)
        return replace(self, model=self.model.restrict(voxels), offset=kept)
