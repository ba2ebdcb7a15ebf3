"""Leaf sequencing by halving levels (Xia and Verhey): few steps of logic, many monitor units."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan.delivery.sequencing.shapes import Shapes, checked_levels, from_openings
from radplan.errors import InputError


def xia(levels: npt.ArrayLike, run: Literal["maximum", "first"] = "maximum") -> Shapes:
    r"""Return shapes that sum to the levels exactly, each of a power of two of them.

    With :math:`d = \max(1, 2^{\lfloor \log_2 \max A \rfloor - 1})` cells of d or more are open; of every row the run
    that holds its maximum stays. The shape is subtracted, and so on.

    Parameters
    ----------
    levels : array of shape (rows, columns)
        Whole numbers >= 0.
    run : "maximum" or "first"
        Which run of a row stays: the one that holds its maximum ("reducing level"), or the first ("sliding window").

    Raises
    ------
    InputError
        When levels are not whole numbers >= 0, all zero, or the choice is unknown.

    Notes
    -----
    Source: Xia, Verhey, Med. Phys. 25 (1998) 1424.

    >>> shapes = xia([[1, 3, 2]])
    >>> shapes.units.tolist(), shapes.total().tolist()
    ([1, 1, 1], [[1, 3, 2]])
    """
    if run not in ("maximum", "first"):
        raise InputError(f"run must be 'maximum' or 'first', got {run!r}")
    left = checked_levels(levels)
    units: list[int] = []
    openings: list[npt.NDArray[np.bool_]] = []
    while left.any():
        unit = max(1, 2 ** (int(left.max()).bit_length() - 2))
        above = left >= unit
        anchor = np.where(above, left, 0).argmax(axis=1) if run == "maximum" else above.argmax(axis=1)
        opening = _run_at(above, anchor)
        left = left - unit * opening
        units.append(unit)
        openings.append(opening)
    return from_openings(units, openings, left.shape[1])


def _run_at(cells: npt.NDArray[np.bool_], anchor: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return of every row only the run of cells that holds a column."""
    column = np.arange(cells.shape[1])
    gap = ~cells
    before = np.max(np.where(gap & (column <= anchor[:, None]), column, -1), axis=1, keepdims=True)
    behind = np.min(np.where(gap & (column >= anchor[:, None]), column, cells.shape[1]), axis=1, keepdims=True)
    kept: npt.NDArray[np.bool_] = (column > before) & (column < behind)
    return kept
