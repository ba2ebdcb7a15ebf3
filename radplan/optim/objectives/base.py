"""What an objective promises: a value and a gradient on the weighted voxels of one structure."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from numbers import Real
from typing import ClassVar, Literal, Self

from radplan.arrays import Array
from radplan.errors import InputError
from radplan.registry import Registry

Pushes = Literal["up", "down", "both"]
"""Where an objective drives the values: towards more, towards less, or towards a level from both sides."""


class Objective(ABC):
    """A penalty on the values of one quantity in one structure.

    A concrete objective is a frozen dataclass registered in `OBJECTIVES`; its fields are its parameters, in the unit
    of the quantity and as course totals. It knows nothing of fluence, scenarios or fractions. `value` and `gradient`
    are all that a new one must define.

    Voxels belong to a structure with weights >= 0 that sum to 1 (``1 / m`` each for a plain mask of m voxels), so every
    mean over voxels is a weighted sum.
    """

    name: ClassVar[str]

    @abstractmethod
    def value(self, values: Array, weights: Array) -> Array:
        """Return the penalty as a zero-dimensional array.

        Parameters
        ----------
        values : array of shape (m,)
            The quantity in the voxels of the structure [unit of the quantity, course total].
        weights : array of shape (m,)
            Share of each voxel in the structure, >= 0, sum 1.
        """

    @abstractmethod
    def gradient(self, values: Array, weights: Array) -> Array:
        """Return the derivative of `value` by each of the `values`, array of shape (m,) [1/unit of the quantity]."""

    @classmethod
    @abstractmethod
    def examples(cls) -> list[Self]:
        """Return a few instances that the conformance tests try; levels near 1 meet values between 0 and 3."""

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        """Return both at once; objectives that can share work between the two do it here."""
        return self.value(values, weights), self.gradient(values, weights)

    def curvature(self, values: Array, weights: Array) -> Array | None:
        """Return the second derivative of `value` by each of the `values`, ``(m,)``, >= 0, or None where not stated.

        Solvers measure their first steps by it; a result does not depend on it. For sums over voxels of squares; an
        objective of a mean, an equivalent dose or a smoothed extreme couples all voxels and states none.
        """
        return None

    def on_voxels(self, cut: Callable[[Array], Array]) -> Self:
        """Return this objective for the voxels of one structure.

        An objective with an array-valued parameter holds it on the dose grid; `cut` maps such an array, of shape
        (nz, ny, nx) or (nz ny nx,), to the voxels of the structure, beside the values. All others return themselves.
        """
        return self

    def measured(self, values: Array, weights: Array) -> Array:
        """Return the value as a metric reads it: the value itself unless that is smoothed."""
        return self.value(values, weights)

    def voxel_bounds(
        self, values: Array, weights: Array, lower: float, upper: float, margin: float
    ) -> tuple[Array, Array] | None:
        """Return bounds ``(m,)`` below and above on the voxels that together imply bounds on the value, or None.

        Which voxels bear them is read from `values`; the others get infinite bounds. None where the value can be held
        only as a whole.

        Parameters
        ----------
        values, weights : array of shape (m,)
            As in `value`.
        lower, upper : float
            Bounds on the value, infinite where there is none.
        margin : float
            By how much to keep away from a level that voxels are counted at [unit of the quantity].
        """
        return None

    def value_unit(self, of: str) -> str:
        """Return the unit of the value for a quantity in the unit `of`: its square unless said otherwise."""
        return f"{of}^2"

    @property
    def level(self) -> Array | float | None:
        """The value this objective steers by [unit of the quantity], a number or one per voxel, or None."""
        return None

    @property
    def pushes(self) -> Pushes:
        """Whether low values, high values or both are penalised."""
        return "both"

    def parameters(self) -> dict[str, object]:
        """Return the parameters as plain data by name, as a plan file writes them."""
        return {field.name: _plain(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


OBJECTIVES: Registry[Objective] = Registry("objective", Objective)  # type: ignore[type-abstract]
"""All objectives by name; entry points of the group ``radplan.objective`` join on first use."""


def finite_number(owner: Objective, **parameters: float) -> None:
    """Keep every parameter given by name as a Python float, or raise `InputError` unless it is a finite number.

    Numbers of any kind are taken: NumPy scalars, fractions.
    """
    for key, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise InputError(f"{owner.name}: {key} must be a finite number, got {value!r}")
        object.__setattr__(owner, key, float(value))


def volume_fraction(owner: Objective, volume: float) -> None:
    """Raise `InputError` unless `volume` is a fraction of the structure between 0 and 1."""
    finite_number(owner, volume=volume)
    if not 0.0 <= volume <= 1.0:
        hint = f"; for {volume:g} % write {volume / 100.0:g}" if 1.0 < volume <= 100.0 else ""
        raise InputError(f"{owner.name}: volume is a fraction of the structure in [0, 1], got {volume!r}{hint}")


def one_of(owner: Objective, key: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `InputError` unless `value` is among the `known` words of parameter `key`."""
    if value not in known:
        raise InputError(f"{owner.name}: {key} must be one of {', '.join(map(repr, known))}, got {value!r}")


def _plain(owner: Objective, key: str) -> object:
    value = owner.__dict__[key]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Real):
        return float(value)
    return {"array": {"shape": [int(length) for length in value.shape]}}
