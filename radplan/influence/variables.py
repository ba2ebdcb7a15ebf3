"""Decision variables of a forward model: how many, within which bounds, from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, namespace
from radplan.errors import InputError


@dataclass(frozen=True)
class Variables:
    """What an optimiser may change: how many numbers, within which bounds, from where.

    Parameters
    ----------
    count : int
        Number of variables, >= 1.
    lower, upper : float or array of shape (count,)
        Bounds; infinite where there is none.
    start : float or array of shape (count,)
        A feasible point to begin at when nothing better is known.
    scale : float or array of shape (count,)
        Typical size of a change, > 0; variables that hold each other share one.
    labels : tuple of str
        What kinds of variables these are, such as ``("bixel weight [MU]",)``.
    minimum : float or array of shape (count,)
        Least value other than 0 that can be delivered, 0 where there is none: no bound, as 0 stays allowed; see
        `radplan.delivery.minimum`.
    groups : array of shape (count,), optional
        Numbers, ascending, of variables that act on much the same voxels, as the energies of a ray do: a solver may
        ask for their second derivatives by each other.

    >>> Variables(2).project(np.asarray([-1.0, 3.0])).tolist()
    [0.0, 3.0]
    """

    count: int
    lower: Any = 0.0
    upper: Any = float("inf")
    start: Any = 1.0
    scale: Any = 1.0
    labels: tuple[str, ...] = ("weight",)
    minimum: Any = 0.0
    groups: Any = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"a forward model needs at least one variable, got {self.count}: were any bixels placed?")
        if self.groups is not None and (
            np.shape(self.groups) != (self.count,) or np.any(np.diff(np.asarray(self.groups)) < 0)
        ):
            raise InputError(f"groups of variables must be {self.count} ascending numbers, got {self.groups!r}")

    @property
    def separable(self) -> bool:
        """Whether bounds are all that holds a variable, whatever the others do: true unless `project` does more."""
        return type(self).project is Variables.project

    def project(self, x: Array) -> Array:
        """Return the nearest allowed point ``(count,)``: here, `x` clipped to the bounds."""
        xp = namespace(x)
        lower, upper = arrays.like(self.lower, x), arrays.like(self.upper, x)
        return xp.minimum(xp.maximum(x, lower), upper)
