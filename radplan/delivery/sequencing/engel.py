"""Leaf sequencing with the fewest monitor units (Engel): every shape lowers the complexity by what it gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.delivery.sequencing.shapes import Shapes, checked_levels

Ints = npt.NDArray[np.int64]


def engel(levels: npt.ArrayLike) -> Shapes:
    r"""Return shapes that sum to the levels exactly with the fewest units, and few of them.

    The complexity :math:`c = \max_{rows} \sum_j \max(0, A_j - A_{j-1})` is the least sum of units. In every row an
    interval from a rising to a falling edge (heights a and b, least level m, spare :math:`g = c - c_{row}`) may be
    taken with :math:`u \le \min(m, v)`, where :math:`v = \min(a, b) + g` if :math:`g \le |a - b|`, else
    :math:`\lfloor (a + b + g) / 2 \rfloor`; a row may stay closed for :math:`u \le g`. The largest u that all rows
    allow is taken, with the intervals that remove most edges.

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
    Source: Engel, Discrete Appl. Math. 152 (2005) 35; Kalinowski, Electron. Notes Discrete Math. 19 (2005).

    >>> shapes = engel([[1, 3, 2], [2, 0, 1]])
    >>> int(shapes.units.sum()), complexity([[1, 3, 2], [2, 0, 1]]), shapes.total().tolist()
    (3, 3, [[1, 3, 2], [2, 0, 1]])
    """
    left = checked_levels(levels)
    units: list[int] = []
    firsts: list[Ints] = []
    lasts: list[Ints] = []
    while left.any():
        unit, first, last = _shape(left)
        column = np.arange(left.shape[1])
        left = left - unit * ((first[:, None] <= column) & (column < last[:, None]))
        units.append(unit)
        firsts.append(first)
        lasts.append(last)
    return Shapes(np.asarray(units), np.asarray(firsts), np.asarray(lasts), left.shape[1])


def complexity(levels: npt.ArrayLike) -> int:
    """Return the fewest units in which levels (rows, columns) can be given: the largest sum of rises of a row.

    >>> complexity([[0, 2, 1, 3]])
    4
    """
    return int(_rises(np.asarray(levels, dtype=np.int64)).max())


def _rises(levels: Ints) -> Ints:
    rises: Ints = np.maximum(np.diff(levels, axis=1, prepend=0), 0).sum(axis=1)
    return rises


def _shape(left: Ints) -> tuple[int, Ints, Ints]:
    """Return the units of the next shape, and where its rows open (rows,) and end (rows,)."""
    rows, columns = left.shape
    rises = _rises(left)
    spare = (rises.max() - rises)[:, None, None]
    edges = np.diff(left, axis=1, prepend=0, append=0)
    rise, fall = edges[:, :-1, None], -edges[:, None, 1:]
    column = np.arange(columns)
    within = column[None, :, None] <= column[None, None, :]
    least = np.minimum.accumulate(np.where(within, left[:, None, :], left.max()), axis=2)
    lower, apart = np.minimum(rise, fall), np.abs(rise - fall)
    allowed = np.where(spare <= apart, lower + spare, (rise + fall + spare) // 2)
    usable = within & (rise > 0) & (fall > 0)
    most = np.where(usable, np.minimum(allowed, least), -1)
    unit = int(np.minimum.reduce(np.maximum(most.max(axis=(1, 2)), spare[:, 0, 0])))
    removed = (rise == unit).astype(np.int64) + (fall == unit)
    length = column[None, None, :] - column[None, :, None] + 1
    rank = np.where(most >= unit, removed * (columns + 1) + length, 0).reshape(rows, -1)
    best = rank.argmax(axis=1)
    opened = rank.max(axis=1) > 0
    first = np.where(opened, best // columns, 0)
    last = np.where(opened, best % columns + 1, 0)
    return unit, first, last
