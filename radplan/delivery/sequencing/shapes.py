"""Shapes of leaves in columns of a fluence map: what sequencers return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shapes:
    """Openings one after the other; every row of a shape is open from a first column to before a last one.

    Parameters
    ----------
    units : array of shape (shapes,)
        How many levels of fluence each shape gives, > 0.
    first, last : arrays of shape (shapes, rows)
        Open columns ``first <= column < last``; both 0 where a row is closed.
    columns : int
        Number of columns of the map.

    Raises
    ------
    InputError
        When shapes do not fit one another, or an opening is not within the columns.

    >>> shapes = Shapes(np.asarray([2, 1]), np.asarray([[0], [1]]), np.asarray([[2], [3]]), 3)
    >>> shapes.total().tolist(), shapes.openings()[1].tolist(), len(shapes)
    ([[2, 3, 1]], [[False, True, True]], 2)
    """

    units: Ints
    first: Ints
    last: Ints
    columns: int

    def __post_init__(self) -> None:
        if self.first.shape != self.last.shape or self.first.shape[:1] != self.units.shape:
            raise InputError(
                f"shapes of {self.units.shape} units have openings from {self.first.shape} to {self.last.shape}"
            )
        if np.any(self.units <= 0) or np.any(self.first < 0) or np.any(self.last > self.columns):
            raise InputError(f"shapes need units > 0 and openings within {self.columns} columns")
        if np.any(self.first > self.last):
            raise InputError("an opening of a shape ends before it begins")

    def __len__(self) -> int:
        return int(self.units.size)

    def openings(self) -> Bools:
        """Return which cells are open, (shapes, rows, columns)."""
        column = np.arange(self.columns)
        inside: Bools = (self.first[..., None] <= column) & (column < self.last[..., None])
        return inside

    def total(self) -> Ints:
        """Return the levels that all shapes give together, (rows, columns)."""
        levels: Ints = np.tensordot(self.units, self.openings().astype(np.int64), axes=1)
        return levels


def from_openings(units: list[int], openings: list[Bools], columns: int) -> Shapes:
    """Return shapes of cells that are open, (rows, columns) each, where every row is one run.

    >>> shapes = from_openings([3], [np.asarray([[False, True, True], [False, False, False]])], 3)
    >>> shapes.first.tolist(), shapes.last.tolist()
    ([[1, 0]], [[3, 0]])
    """
    cells = np.asarray(openings, dtype=bool)
    some = cells.any(axis=-1)
    first = np.where(some, cells.argmax(axis=-1), 0)
    return Shapes(np.asarray(units, dtype=np.int64), first, first + cells.sum(axis=-1), columns)


def checked_levels(levels: npt.ArrayLike) -> Ints:
    """Return levels of fluence as whole numbers (rows, columns).

    Raises
    ------
    InputError
        When they are not two-dimensional, not whole, negative, or all zero.
    """
    given = np.asarray(levels)
    if given.ndim != 2 or given.size == 0:
        raise InputError(f"levels of fluence must have shape (rows, columns), got {given.shape}")
    whole = np.asarray(np.rint(given), dtype=np.int64)
    if np.any(whole != given) or np.any(whole < 0):
        raise InputError("levels of fluence must be whole numbers >= 0: quantise the map first")
    if not np.any(whole):
        raise InputError("the fluence map is zero everywhere: there is nothing to sequence")
    return whole
