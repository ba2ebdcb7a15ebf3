"""Leaf sequencing without tongue-and-groove underdose (Siochi): cells as rods, pushed until each holds the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.delivery.sequencing.shapes import Shapes, checked_levels, from_openings

Ints = npt.NDArray[np.int64]


def siochi(levels: npt.ArrayLike) -> Shapes:
    """Return shapes that sum to the levels exactly; neighbouring rows share all the fluence that both get.

    Every cell is a rod as long as its level. Along the leaves, bases keep where levels rise and tops where they fall,
    so that a slab at constant height is one run in every row. Up and down a column the shorter of two neighbours is
    pushed until it stands inside the longer one. Every slab is a shape; equal slabs are one.

    Parameters
    ----------
    levels : array of shape (rows, columns)
        Whole numbers >= 0.

    Raises
    ------
    InputError
        When levels are not whole numbers >= 0, or all zero.

    Notes
    -----
    Source: Siochi, Int. J. Radiat. Oncol. Biol. Phys. 43 (1999) 671.

    >>> shapes = siochi([[1, 3, 2], [2, 1, 0]])
    >>> shapes.total().tolist(), underdosed_pairs(shapes)
    ([[1, 3, 2], [2, 1, 0]], 0)
    """
    given = checked_levels(levels)
    bases = _bases(given)
    tops = bases + given - 1
    slabs: dict[bytes, tuple[int, npt.NDArray[np.bool_]]] = {}
    for height in range(1, int(tops.max()) + 1):
        slab = (bases <= height) & (height <= tops)
        if slab.any():
            count = slabs.get(slab.tobytes(), (0, slab))[0]
            slabs[slab.tobytes()] = count + 1, slab
    return from_openings([count for count, _ in slabs.values()], [slab for _, slab in slabs.values()], given.shape[1])


def underdosed_pairs(shapes: Shapes) -> int:
    """Return how many cells of neighbouring rows are open together for less than the lower level of the two.

    There the tongue of one leaf or the groove of the other covers what both should get.

    >>> underdosed_pairs(Shapes(np.asarray([1, 1]), np.asarray([[0, 0], [0, 0]]), np.asarray([[1, 0], [0, 1]]), 1))
    1
    """
    opened = shapes.openings().astype(np.int64)
    together = np.tensordot(shapes.units, opened[:, :-1] * opened[:, 1:], axes=1)
    total = shapes.total()
    return int(np.sum(together < np.minimum(total[:-1], total[1:])))


def _bases(levels: Ints) -> Ints:
    """Return at which height the rod of every cell begins, (rows, columns), >= 1."""
    bases = np.ones_like(levels)
    before, top = np.zeros(levels.shape[0], dtype=np.int64), np.zeros(levels.shape[0], dtype=np.int64)
    base = np.ones(levels.shape[0], dtype=np.int64)
    for column, level in enumerate(levels.T):
        base = np.where(level > before, base, top - level + 1)
        base = np.asarray(_contained(base.tolist(), level.tolist()), dtype=np.int64)
        top = base + level - 1
        before = level
        bases[:, column] = base
    return bases


def _contained(base: list[int], level: list[int]) -> list[int]:
    """Push rods of a column up until of two neighbours the shorter stands inside the longer."""
    rows = range(len(base) - 1)
    moved = True
    while moved:
        moved = False
        for order in (rows, reversed(rows)):
            for row in order:
                moved |= _push(base, level, row, row + 1)
    return base


def _push(base: list[int], level: list[int], one: int, other: int) -> bool:
    """Push one of two neighbouring rods up if the shorter sticks out of the longer; return whether it was."""
    if not (level[one] and level[other]):
        return False
    longer, shorter = (one, other) if level[one] >= level[other] else (other, one)
    below = base[longer] - base[shorter]
    above = base[shorter] + level[shorter] - base[longer] - level[longer]
    if below > 0:
        base[shorter] += below
    elif above > 0:
        base[longer] += above
    return below > 0 or above > 0
