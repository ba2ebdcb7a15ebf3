"""When a plan no longer changes: dose-volume points of its goals, and how far they moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from radplan.arrays import Array, namespace, native_device, scalar
from radplan.optim.objectives.level import ranks
from radplan.optim.terms import Term
from radplan.quantities.resolver import Evaluation

_VOLUMES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Shares of the volume at which curves are read."""
_QUIET = 2
"""Times in a row that nothing may have moved."""


def dose_volume_points(terms: Sequence[Term], evaluation: Evaluation) -> Array:
    """Return D2, D5, D10 to D90, D95 and D98 of every structure and quantity that has a goal, in every scenario.

    Points of one quantity are shares of the largest of them, so that doses and LET count alike.

    Parameters
    ----------
    terms : sequence of Term
        The goals, at least one with a weight > 0.
    evaluation : Evaluation
        Their quantities.

    Returns
    -------
    array of shape (points,)
    """
    seen = {(term.structure, term.quantity): term for term in terms if term.weight > 0.0}
    by_quantity: dict[Any, list[Array]] = {}
    for term in seen.values():
        values = term.course_values(evaluation[term.quantity])
        rows = [_points(values[row, :], term.weights) for row in range(values.shape[0])]
        by_quantity.setdefault(term.quantity, []).extend(rows)
    return _joined([_shares(_joined(points)) for points in by_quantity.values()])


@dataclass(frozen=True, eq=False)
class Settling:
    """Dose-volume points read now and then, and how often in a row none of them moved.

    Parameters
    ----------
    change : float
        By how much a point may move from one reading to the next and count as still, in shares of the largest.
    points : array of shape (points,), optional
        The last reading.
    quiet : int
        Readings in a row at which every point was still.

    >>> import numpy as np
    >>> readings = [np.asarray([1.0, level]) for level in (0.5, 0.6, 0.6005, 0.601)]
    >>> settling = Settling(0.001)
    >>> for points in readings:
    ...     settling = settling.after(points)
    >>> settling.quiet, settling.settled
    (2, True)
    """

    change: float
    points: Array | None = None
    quiet: int = 0

    def after(self, points: Array | None) -> Settling:
        """Return the state after another reading; None where nothing can be read."""
        if points is None:
            return self
        still = self.points is not None and _largest_move(points, self.points) <= self.change
        return Settling(self.change, points, self.quiet + 1 if still else 0)

    @property
    def settled(self) -> bool:
        """Whether nothing has moved long enough."""
        return self.quiet >= _QUIET


def _points(values: Array, weights: Array) -> Array:
    """Return the dose-volume points of one structure in one scenario."""
    xp = namespace(values)
    order, start, end = ranks(values, weights)
    middle = xp.reshape(0.5 * (start + end), (1, -1))
    volumes = xp.asarray(_VOLUMES, dtype=middle.dtype, device=native_device(middle))
    index = xp.sum(xp.astype(middle < xp.reshape(volumes, (-1, 1)), xp.int64), axis=1)
    return xp.take(values, xp.take(order, xp.clip(index, max=values.shape[0] - 1)))


def _shares(points: Array) -> Array:
    xp = namespace(points)
    largest = xp.max(xp.abs(points))
    return points / xp.where(largest > 0.0, largest, xp.ones_like(largest))


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts)


def _largest_move(points: Array, before: Array) -> float:
    xp = namespace(points)
    return scalar(xp.max(xp.abs(points - before)))
