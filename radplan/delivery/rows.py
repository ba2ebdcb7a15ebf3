"""Row descent: the best leaf pair of one row at one control point, all else held, over and over.

The leaf ends of a row at a control point decide what the segments on either side of it let through there; the cost of
every pair of places follows from the local quadratic of the cost. Where a gradient would have to carry a row over an
organ, this looks at all places at once. A step is kept only when the true cost falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import threadpoolctl

from radplan.delivery.arc_cost import ArcCost
from radplan.delivery.arc_matrix import ArcMatrix
from radplan.delivery.bixel_apertures import filled

Floats = npt.NDArray[np.float64]

_PITCH = 2.5
"""Distance of the places a leaf end may go to [mm]."""

_LEAST = 1e-6
"""Share of the cost that a step must promise to be tried."""


@dataclass(eq=False)
class RowDescent:
    """A plan that row descent is at work on; its arrays are its own and change as it goes.

    Parameters
    ----------
    matrix : ArcMatrix
        The arcs.
    cost : ArcCost
        What is minimised.
    leaves : array of shape (points, rows, 2)
        Leaf ends [mm].
    mu : array of shape (segments,)
        Monitor units [MU].
    gap : float
        Least gap of a pair [mm].
    bounds : (array, array)
        Lowest and highest places of leaf ends, of the shape of `leaves` [mm].
    """

    matrix: ArcMatrix
    cost: ArcCost
    leaves: Floats
    mu: Floats
    gap: float
    bounds: tuple[Floats, Floats]

    def sweep(self, travel: Floats, penalty: float | None, random: np.random.Generator) -> int:
        """Visit all control points and rows once, in random order; return how many rows moved.

        Parameters
        ----------
        travel : array of shape (segments,)
            How far a leaf may go in each segment [mm].
        penalty : float, optional
            Cost per square millimetre beyond that; None: leaves never go farther.
        random : Generator
            Of the order.
        """
        # Why: many small products; threads of BLAS would cost more than they save.
        with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
            return self._swept_once(travel, penalty, random)

    def _swept_once(self, travel: Floats, penalty: float | None, random: np.random.Generator) -> int:
        matrix = self.matrix
        self._dose = matrix.dose(self.mu, self.leaves)
        self._value, self._slope = self.cost(self._dose)
        moved = 0
        for point in random.permutation(matrix.bixels.points):
            curvature = self.cost.curvature(self._dose, self._slope).astype(np.float32)
            active = np.flatnonzero(curvature > 0)
            root = np.sqrt(curvature[active])
            sides = self._sides(int(point), travel)
            for row in random.permutation(matrix.bixels.rows):
                moved += self._improved(int(point), int(row), sides, active, root, penalty)
        return moved

    @property
    def value(self) -> float:
        """The cost after the last sweep."""
        return self._value

    def _sides(self, point: int, travel: Floats) -> list[tuple[int, int, float]]:
        """Return segment, control point at its other end, and travel on either side of a control point."""
        begin = self.matrix.bixels.begin
        before = np.flatnonzero(begin + 1 == point)
        after = np.flatnonzero(begin == point)
        return [(int(s), point - 1, float(travel[s])) for s in before] + [
            (int(s), point + 1, float(travel[s])) for s in after
        ]

    def _improved(
        self,
        point: int,
        row: int,
        sides: Sequence[tuple[int, int, float]],
        active: npt.NDArray[np.int64],
        root: npt.NDArray[np.float32],
        penalty: float | None,
    ) -> bool:
        """Move one row of one control point to its best place; return whether it moved."""
        matrix, own = self.matrix, self.leaves[point, row]
        block = np.concatenate([matrix.values[matrix.bixels.row_slice(s, row)] for s, _, _ in sides])
        slope = (block @ self._slope.astype(np.float32)).astype(np.float64)
        if penalty is None and not self._open(sides, point, row) and slope.min() >= 0.0:
            return False
        weighted = block[:, active] * root
        hessian = (weighted @ weighted.T).astype(np.float64)
        first, second = (np.append(self._places(point, row, end), own[end]) for end in (0, 1))
        change, extra, allowed = [], [], []
        for end, tried, offset in ((0, first, -matrix.leaf_offset), (1, second, matrix.leaf_offset)):
            near = [(s, self.leaves[other, row, end], reach) for s, other, reach in sides]
            swept = np.concatenate([self._swept(s, row, tried, there, offset) for s, there, _ in near], axis=1)
            change.append(swept - swept[-1])
            beyond = np.stack([np.maximum(np.abs(tried - there) - reach, 0.0) for _, there, reach in near])
            extra.append((penalty or 0.0) * np.sum(beyond**2, axis=0))
            allowed.append(np.all(beyond <= 1e-9, axis=0) if penalty is None else np.ones(tried.size, dtype=bool))
        left, right = (part @ hessian for part in change)
        value = (-change[0] @ slope + 0.5 * np.sum(left * change[0], axis=1) + extra[0] - extra[0][-1])[:, None]
        value = value + (change[1] @ slope + 0.5 * np.sum(right * change[1], axis=1) + extra[1] - extra[1][-1])
        value = value - left @ change[1].T
        fits = (second[None, :] - first[:, None] >= self.gap - 1e-9) & allowed[0][:, None] & allowed[1][None, :]
        value = np.where(fits, value, np.inf)
        i, j = divmod(int(np.argmin(value)), second.size)
        if not value[i, j] < -_LEAST * abs(self._value):
            return False
        dose = self._dose + ((change[1][j] - change[0][i]).astype(np.float32) @ block)
        found, slope_there = self.cost(dose)
        if found + extra[0][i] - extra[0][-1] + extra[1][j] - extra[1][-1] >= self._value:
            return False
        self._dose, self._value, self._slope = dose, found, slope_there
        self.leaves[point, row] = first[i], second[j]
        return True

    def _open(self, sides: Sequence[tuple[int, int, float]], point: int, row: int) -> bool:
        gaps = [np.ptp(self.leaves[p, row]) for p in (point, *(other for _, other, _ in sides))]
        return bool(max(gaps) > self.gap + 1e-6)

    def _places(self, point: int, row: int, end: int) -> Floats:
        """Return where a leaf end is tried: every few millimetres, never on an edge of a bixel [mm]."""
        edges = self.matrix.bixels.edges
        places = np.arange(edges[0] + 0.5 * _PITCH, edges[-1], _PITCH)
        low, high = (bound[point, row, end] for bound in self.bounds)
        tried: Floats = places[(places >= low) & (places <= high)]
        return tried

    def _swept(self, segment: int, row: int, tried: Floats, there: float, offset: float) -> Floats:
        """Return the weight of bixels below a leaf end that goes from each place tried to its neighbour's [MU]."""
        edges = self.matrix.bixels.row_edges(segment, row)
        low, high = edges[:-1], edges[1:]
        open_share = filled(tried[:, None] + offset, np.full((1, 1), there + offset), low, high) / (high - low)
        weights: Floats = self.mu[segment] * (1.0 - self.matrix.transmission) * open_share
        return weights
