"""Column generation: one shape for every segment of an arc, those of the best price first.

The derivative of the cost by every bixel prices every shape: per row the best interval follows from running sums of
the negative derivative. Shapes must lie within reach of those chosen before, so that leaves can follow.
Source: Romeijn et al., SIAM J. Optim. 15 (2005) 838; Men et al., Phys. Med. Biol. 52 (2007) 4333; Peng et al.,
Phys. Med. Biol. 57 (2012) 4569.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.delivery.arc_bixels import ArcBixels
from radplan.delivery.arc_cost import ArcCost, solve_mu
from radplan.delivery.arc_matrix import ArcMatrix

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BATCH = 6
"""Shapes added in a round, for each arc."""

_APART = 20
"""Shapes of a round are farther apart than an arc's segments over this."""

_NONE = -1e30


def priced_shapes(
    matrix: ArcMatrix, cost: ArcCost, travel: Floats, lower: Floats, upper: Floats, level: float
) -> tuple[Floats, Floats]:
    """Return leaf ends of a shape for every segment (segments, rows, 2) [mm] and its monitor units (segments,).

    Segments without beam have neither: NaN and 0.

    Parameters
    ----------
    matrix : ArcMatrix
        The arcs.
    cost : ArcCost
        What is minimised.
    travel : array of shape (segments,)
        How far a leaf goes in each segment [mm].
    lower, upper : array of shape (segments,)
        Bounds of the monitor units [MU].
    level : float
        Mean dose of the sampled voxels of the target that the first shapes are brought to, per fraction [Gy].
    """
    bixels = matrix.bixels
    count = bixels.segments
    ends = np.full((count, bixels.rows, 2), np.nan)
    mu, doses = np.zeros(count), np.zeros((count, matrix.voxels.size), dtype=np.float32)
    dose, chosen = np.zeros(matrix.voxels.size), ~bixels.lit
    middle = np.cumsum(travel) - 0.5 * travel
    while not chosen.all():
        gain = -matrix.pulled(cost(dose)[1])
        free = np.flatnonzero(~chosen)
        closed = -10.0 * float(np.abs(gain).max())
        found = [
            _best_shape(bixels.edges, bixels.spread(gain, k, closed), *_reach(bixels, ends, chosen, middle, k))
            for k in free.tolist()
        ]
        batch = _spread(bixels, free, np.asarray([price for _, price in found]))
        for k in batch:
            ends[free[k]] = found[k][0]
        added = free[batch]
        chosen[added] = True
        for k in added:
            doses[k] = matrix.segment_dose(int(k), _still(matrix, int(k), ends[k]))
        known = np.flatnonzero(chosen & bixels.lit)
        first = not mu.any()
        mu[added] = 1.0 if first else mu[mu > 0].mean()
        if first:
            peak = float(np.quantile(mu[known].astype(np.float32) @ doses[known], 0.95)) * cost.factor
            mu[known] *= level / max(peak, 1e-9)
        else:
            mu[known] *= (known.size - added.size) / known.size
        mu[known], dose = solve_mu(cost, doses[known], mu[known], lower[known], np.full(known.size, np.inf))
    mu, _ = solve_mu(cost, doses, mu, lower, upper)
    return ends, mu


def _still(matrix: ArcMatrix, segment: int, ends: Floats) -> Floats:
    """Return the open share of every bixel (bixels,) where leaf ends (rows, 2) of one segment stand."""
    bixels = matrix.bixels
    standing = np.zeros((bixels.points, bixels.rows, 2))
    standing[bixels.begin[segment]] = standing[bixels.begin[segment] + 1] = ends
    return bixels.swept(standing, matrix.leaf_offset)


def _reach(
    bixels: ArcBixels, ends: Floats, chosen: npt.NDArray[np.bool_], middle: Floats, k: int
) -> tuple[Floats, Floats]:
    """Return the lowest and highest place of each leaf end (rows, 2) that neighbours in the arc allow, a bit more."""
    low = np.full(ends.shape[1:], -np.inf)
    high = np.full(ends.shape[1:], np.inf)
    known = np.flatnonzero(chosen & bixels.lit & (bixels.arc_of == bixels.arc_of[k]))
    for near in (known[known < k][-1:], known[known > k][:1]):
        if near.size:
            slack = abs(middle[k] - middle[near[0]]) + 0.5 * (bixels.edges[1] - bixels.edges[0])
            low = np.maximum(low, ends[near[0]] - slack)
            high = np.minimum(high, ends[near[0]] + slack)
    return low, high


def _best_shape(edges: Floats, gain: Floats, low: Floats, high: Floats) -> tuple[Floats, float]:
    """Return the leaf ends (rows, 2) that gain most within reach, and what they gain; the middle where none is."""
    running = np.concatenate([np.zeros((gain.shape[0], 1)), np.cumsum(gain, axis=1)], axis=1)
    value = running[:, None, :] - running[:, :, None]
    first = (edges >= low[:, :1]) & (edges <= high[:, :1])
    second = (edges >= low[:, 1:]) & (edges <= high[:, 1:])
    allowed = first[:, :, None] & second[:, None, :] & (np.arange(edges.size)[:, None] <= np.arange(edges.size))
    value = np.where(allowed, value, _NONE).reshape(gain.shape[0], -1)
    best, gained = value.argmax(axis=1), value.max(axis=1)
    ends = np.stack([edges[best // edges.size], edges[best % edges.size]], axis=1)
    none = gained <= _NONE
    if none.any():
        middle = 0.5 * (np.maximum(low, edges[0]) + np.minimum(high, edges[-1]))
        middle[:, 1] = np.maximum(middle[:, 0], middle[:, 1])
        ends = np.where(none[:, None], middle, ends)
    return ends, float(gained[~none].sum())


def _spread(bixels: ArcBixels, free: Ints, prices: Floats) -> list[int]:
    """Return which free segments come next: the best priced that are not neighbours of each other."""
    wanted = _BATCH * len(bixels.arcs)
    if free.size <= wanted:
        return list(range(free.size))
    chosen: list[int] = []
    for candidate in np.argsort(prices)[::-1]:
        k, arc = free[candidate], bixels.arcs[bixels.arc_of[free[candidate]]]
        gap = max(arc.segments // _APART, 2)
        if all(bixels.arc_of[k] != bixels.arc_of[free[c]] or abs(k - free[c]) > gap for c in chosen):
            chosen.append(int(candidate))
        if len(chosen) == wanted:
            break
    return chosen
