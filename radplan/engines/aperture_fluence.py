r"""Fluence behind leaves and jaws on pixels of the isocentre plane: exact averages, and their pullback by hand.

An edge at a seen through a Gaussian source is :math:`\Phi((x - a)/\sigma)`. Its average over a pixel and over the way
of the edge from :math:`a_0` to :math:`a_1` is closed, with :math:`F = \int \Phi` and :math:`G = \int F`:
:math:`\overline F(e) = [G(e - a_0) - G(e - a_1)] / (a_1 - a_0)` at a pixel's edge e. Nothing is sampled, so that no
leaf moves without a change of the fluence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from radplan.arrays import Array, erf, namespace
from radplan.engines.aperture_head import MonitorBackScatter

_SHORT = 0.05
"""Way of an edge, in standard deviations of the source, below which its average is taken by quadrature."""

_TIE = 0.02
"""Difference of two neighbours' openings below which the smaller of both is taken smoothly."""

_NODES, _SHARES = ((np.polynomial.legendre.leggauss(2)[0] + 1) / 2, np.polynomial.legendre.leggauss(2)[1] / 2)


def edge_average(edges: Array, start: Array, end: Array, sigma: float) -> Array:
    r"""Return :math:`\overline F`, the integral of a blurred edge from minus infinity, averaged over its way.

    Parameters
    ----------
    edges : array of shape (p,)
        Where to evaluate [mm].
    start, end : array of shape (...)
        The edge at the begin and the end of its way [mm].
    sigma : float
        Standard deviation of the source in the isocentre plane, > 0 [mm].

    Returns
    -------
    array of shape (..., p) [mm]

    >>> far = edge_average(np.asarray([100.0]), np.asarray([0.0]), np.asarray([20.0]), 1.0)
    >>> round(float(far[0, 0]), 9)
    90.0
    """
    xp = namespace(edges, start)
    first, last, way, short, divisor = _ways(edges, start, end, sigma)
    swept = (
        _second_integral(first, *_blurred(first, sigma), sigma) - _second_integral(last, *_blurred(last, sigma), sigma)
    ) / divisor
    near = xp.zeros_like(first)
    for node, share in zip(_NODES.tolist(), _SHARES.tolist(), strict=True):
        place = first - node * way
        near = near + share * _integral(place, *_blurred(place, sigma))
    return xp.where(short, near, swept)


def edge_average_pullback(
    cotangent: Array, edges: Array, start: Array, end: Array, sigma: float
) -> tuple[Array, Array]:
    """Return the cotangents ``(...)`` of begin and end of the way, for one ``(..., p)`` of `edge_average`."""
    xp = namespace(edges, start)
    first, last, way, short, divisor = _ways(edges, start, end, sigma)
    at_first, at_last = _blurred(first, sigma), _blurred(last, sigma)
    mean = (_second_integral(first, *at_first, sigma) - _second_integral(last, *at_last, sigma)) / divisor
    begin, finish = (mean - _integral(first, *at_first)) / divisor, (_integral(last, *at_last) - mean) / divisor
    near_begin, near_finish = xp.zeros_like(first), xp.zeros_like(first)
    for node, share in zip(_NODES.tolist(), _SHARES.tolist(), strict=True):
        slope = share * _normal(first - node * way, sigma)
        near_begin, near_finish = near_begin - (1.0 - node) * slope, near_finish - node * slope
    begin, finish = xp.where(short, near_begin, begin), xp.where(short, near_finish, finish)
    return xp.sum(cotangent * begin, axis=-1), xp.sum(cotangent * finish, axis=-1)


def _ways(edges: Array, start: Array, end: Array, sigma: float) -> tuple[Array, Array, Array, Array, Array]:
    """Return distances from begin and end, the way, whether it is short, and what to divide by."""
    xp = namespace(edges, start)
    way = (end - start)[..., None]
    short = xp.abs(way) < _SHORT * sigma
    return edges - start[..., None], edges - end[..., None], way, short, xp.where(short, xp.ones_like(way), way)


def _blurred(u: Array, sigma: float) -> tuple[Array, Array]:
    """Return the blurred edge at a distance [mm], and its slope times the variance [mm]."""
    xp = namespace(u)
    return _normal(u, sigma), xp.exp(u * u * (-0.5 / sigma**2)) * (sigma / math.sqrt(2.0 * math.pi))


def _normal(u: Array, sigma: float) -> Array:
    return 0.5 * (1.0 + erf(u * (1.0 / (math.sqrt(2.0) * sigma))))


def _integral(u: Array, edge: Array, slope: Array) -> Array:
    return u * edge + slope


def _second_integral(u: Array, edge: Array, slope: Array, sigma: float) -> Array:
    return 0.5 * ((u * u + sigma**2) * edge + u * slope)


@dataclass(frozen=True, eq=False)
class Motion:
    """Leaves, jaws and monitor units of some segments; every array for the begin and the end.

    Parameters
    ----------
    leaves : (array, array) of shape (s, r, 2)
        Ends of the leaf pairs [mm].
    along, across : (array, array) of shape (s, 2)
        Jaws along and across the motion of the leaves [mm].
    mu : array of shape (s,)
        Monitor units [MU].
    """

    leaves: tuple[Array, Array]
    along: tuple[Array, Array]
    across: tuple[Array, Array]
    mu: Array


@dataclass(frozen=True, eq=False)
class ApertureFluence:
    r"""The map from leaves, jaws and monitor units to fluence in MU on pixels, and its pullback.

    With the opening L of the leaves, J of the jaws, and their transmissions,

    .. math:: \Phi = \sum_s S_s MU_s [T_L + (1 - T_L) L] [T_J + (1 - T_J) J],

    where the product L J is the opening that both leave: leaf ends and leaf boundaries are cut at the jaws by a smooth
    step, so that a leaf under a jaw keeps a gradient. Edges are blurred once. S is the output that monitor back-scatter
    leaves, the mean of begin and end. Where leaves interlock, a strip about their boundary is open only where both
    neighbours leave it open, :math:`\tfrac12 (a + b - \sqrt{(a - b)^2 + \epsilon^2} + \epsilon)` of their openings.

    Parameters
    ----------
    along, across : array of shape (p + 1,), (q + 1,)
        Pixel edges along and across the motion of the leaves [mm].
    boundaries : array of shape (r + 1,)
        Edges of the leaf pairs [mm].
    sigma : float
        Standard deviation of the source in the isocentre plane, > 0 [mm].
    leaf_offset : float
        How far a leaf end lets through beyond its position [mm].
    transmission, jaw_transmission : float
        Of leaves and of jaws, in [0, 1).
    softness : float
        Length over which a jaw takes over from a leaf, > 0 [mm]; edges in one place move by half of it.
    back_scatter : MonitorBackScatter, optional
        How the output depends on the jaws; not at all when left out.
    tongue_groove : float
        Width of the strip, below that of every leaf [mm]; 0: leaves do not interlock.
    """

    along: Array
    across: Array
    boundaries: Array
    sigma: float
    leaf_offset: float
    transmission: float
    jaw_transmission: float
    softness: float
    back_scatter: MonitorBackScatter | None = None
    tongue_groove: float = 0.0

    def fluence(self, motion: Motion) -> Array:
        """Return the fluence ``(p, q)`` [MU]."""
        xp = namespace(self.along)
        leaves, rows, cut, cut_rows, jaw_along, jaw_across = self._openings(motion)
        leaves, cut = self._with_strips(leaves), self._with_strips(cut)
        mu, (both, jaws_only, leaves_only, opened) = motion.mu * self._output(motion), self._shares()
        weighted = xp.reshape(cut * (opened * mu)[:, None, None], (-1, cut.shape[-1]))
        out = xp.matmul(xp.permute_dims(weighted, (1, 0)), xp.reshape(cut_rows, (-1, cut_rows.shape[-1])))
        behind_jaws = xp.sum(leaves * (leaves_only * mu)[:, None, None], axis=0)
        out = out + xp.matmul(xp.permute_dims(behind_jaws, (1, 0)), rows)
        out = out + xp.matmul(xp.permute_dims(jaw_along * (jaws_only * mu)[:, None], (1, 0)), jaw_across)
        return out + both * xp.sum(mu)

    def pullback(self, motion: Motion, cotangent: Array) -> Motion:
        """Return the cotangents of a motion for one ``(p, q)`` of the fluence."""
        xp = namespace(self.along)
        own_leaves, rows, own_cut, cut_rows, jaw_along, jaw_across = self._openings(motion)
        leaves, cut = self._with_strips(own_leaves), self._with_strips(own_cut)
        output = self._output(motion)
        mu, (both, jaws_only, leaves_only, opened) = motion.mu * output, self._shares()
        turned = xp.permute_dims(cotangent, (1, 0))
        d_cut = opened * xp.matmul(cut_rows, turned)
        d_cut_rows = opened * xp.matmul(cut, cotangent)
        d_leaves = leaves_only * xp.matmul(rows, turned)[None, ...]
        d_jaw_along, d_jaw_across = (
            jaws_only * xp.matmul(jaw_across, turned),
            jaws_only * xp.matmul(jaw_along, cotangent),
        )
        d_mu = both * xp.sum(cotangent) + xp.sum(cut * d_cut, axis=(1, 2))
        d_mu = d_mu + xp.sum(leaves * d_leaves, axis=(1, 2)) + xp.sum(jaw_along * d_jaw_along, axis=1)
        per_row, per_segment = mu[:, None, None], mu[:, None]
        ends, bounds = self._cut(motion)
        from_ends = self._opening_pullback(self._strips_pullback(per_row * d_cut, own_cut), self.along, ends)
        from_bounds = self._rows_pullback(per_row * d_cut_rows, bounds)
        d_own = self._strips_pullback(per_row * d_leaves, own_leaves)
        own = self._opening_pullback(d_own, self.along, self._leaf_ends(motion))
        jaws = self._opening_pullback(per_segment * d_jaw_along, self.along, motion.along)
        blocks = self._opening_pullback(per_segment * d_jaw_across, self.across, motion.across)
        d_ends, d_along, d_across = [], [], []
        for t, positions in enumerate(self._leaf_ends(motion)):
            through, to_jaws = self._clip_pullback(from_ends[t], positions, motion.along[t])
            d_ends.append(own[t] + through)
            d_along.append(jaws[t] + to_jaws)
            edges = self._row_edges()[None, :, None] + 0.0 * motion.across[t][:, :1, None]
            _, to_blocks = self._clip_pullback(from_bounds[t][..., None], edges, motion.across[t])
            d_across.append(blocks[t] + to_blocks)
            if self.back_scatter is not None:
                by_output = 0.5 * motion.mu * d_mu
                to_along, to_across = self.back_scatter.pullback(by_output, motion.along[t], motion.across[t])
                d_along[t], d_across[t] = d_along[t] + to_along, d_across[t] + to_across
        d_mu = output * d_mu
        return Motion((d_ends[0], d_ends[1]), (d_along[0], d_along[1]), (d_across[0], d_across[1]), d_mu)

    def _output(self, motion: Motion) -> Array:
        """Return the output of every segment (s,)."""
        if self.back_scatter is None:
            return 0.0 * motion.mu + 1.0
        begin, end = (self.back_scatter.output(motion.along[t], motion.across[t]) for t in (0, 1))
        return 0.5 * (begin + end)

    def _shares(self) -> tuple[float, float, float, float]:
        """Return what passes where both block, only leaves, only jaws, and what more where none does."""
        t, j = self.transmission, self.jaw_transmission
        return t * j, t * (1 - j), j * (1 - t), (1 - t) * (1 - j)

    def _leaf_ends(self, motion: Motion) -> tuple[Array, Array]:
        """Return where leaf ends block, begin and end, (s, r, 2)."""
        xp = namespace(self.along)
        offset = xp.stack([0.0 * self.along[0] - self.leaf_offset, 0.0 * self.along[0] + self.leaf_offset])
        return motion.leaves[0] + offset, motion.leaves[1] + offset

    def _openings(self, motion: Motion) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return leaves (s, r, p), rows and strips (m, q), both cut at the jaws, and jaws (s, p), (s, q)."""
        ends, bounds = self._cut(motion)
        still = self._row_edges()[None, :]
        return (
            self._opening(self.along, self._leaf_ends(motion)),
            self._rows((still, still))[0, ...],
            self._opening(self.along, ends),
            self._rows(bounds),
            self._opening(self.along, motion.along),
            self._opening(self.across, motion.across),
        )

    def _cut(self, motion: Motion) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Return leaf ends (s, r, 2) and edges of rows (s, m + 1) cut at the jaws, begin and end of each."""
        raw = self._leaf_ends(motion)
        ends = tuple(self._clip(raw[t], motion.along[t][:, None, None, :]) for t in (0, 1))
        bounds = tuple(self._clip(self._row_edges()[None, :], motion.across[t][:, None, :]) for t in (0, 1))
        return (ends[0], ends[1]), (bounds[0], bounds[1])

    def _interlock(self) -> bool:
        return self.tongue_groove > 0.0 and self.boundaries.shape[0] > 2

    def _row_edges(self) -> Array:
        """Return the edges (m + 1,) of leaf rows and of the strips between them."""
        if not self._interlock():
            return self.boundaries
        xp, inner, half = namespace(self.boundaries), self.boundaries[1:-1], 0.5 * self.tongue_groove
        pairs = xp.reshape(xp.stack([inner - half, inner + half], axis=1), (-1,))
        return xp.concat([self.boundaries[:1], pairs, self.boundaries[-1:]])

    def _with_strips(self, opened: Array) -> Array:
        """Return openings (s, r, p) with those of the strips between rows, (s, m, p)."""
        if not self._interlock():
            return opened
        xp, first, second = namespace(opened), opened[:, :-1, :], opened[:, 1:, :]
        apart = first - second
        strips = 0.5 * (first + second - xp.sqrt(apart * apart + _TIE**2) + _TIE)
        mixed = xp.reshape(xp.stack([first, strips], axis=2), (opened.shape[0], -1, opened.shape[2]))
        return xp.concat([mixed, opened[:, -1:, :]], axis=1)

    def _strips_pullback(self, cotangent: Array, opened: Array) -> Array:
        """Return the cotangent (s, r, p) of openings for one of rows and strips (s, m, p)."""
        if not self._interlock():
            return cotangent
        xp, shape = namespace(opened), opened.shape
        mixed = xp.reshape(cotangent[:, :-1, :], (shape[0], shape[1] - 1, 2, shape[2]))
        apart = opened[:, :-1, :] - opened[:, 1:, :]
        tilt = apart / xp.sqrt(apart * apart + _TIE**2)
        to_strips = 0.5 * mixed[:, :, 1, :]
        rows = xp.concat([mixed[:, :, 0, :] + to_strips * (1.0 - tilt), cotangent[:, -1:, :]], axis=1)
        none = xp.zeros_like(opened[:, :1, :])
        return rows + xp.concat([none, to_strips * (1.0 + tilt)], axis=1)

    def _opening(self, edges: Array, ends: tuple[Array, Array]) -> Array:
        """Return the share of every pixel (..., p) that an interval with moving ends (..., 2) leaves open."""
        passed = edge_average(edges, ends[0], ends[1], self.sigma)
        between = passed[..., 0, :] - passed[..., 1, :]
        return (between[..., 1:] - between[..., :-1]) / (edges[1:] - edges[:-1])

    def _opening_pullback(self, cotangent: Array, edges: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        xp = namespace(edges)
        at_edges = _difference_transposed(cotangent / (edges[1:] - edges[:-1]))
        return edge_average_pullback(xp.stack([at_edges, -at_edges], axis=-2), edges, ends[0], ends[1], self.sigma)

    def _rows(self, bounds: tuple[Array, Array]) -> Array:
        """Return the share of every pixel (s, m, q) that lies in a row between moving edges (s, m + 1)."""
        edges = self.across
        passed = edge_average(edges, bounds[0], bounds[1], self.sigma)
        between = passed[:, :-1, :] - passed[:, 1:, :]
        return (between[..., 1:] - between[..., :-1]) / (edges[1:] - edges[:-1])

    def _rows_pullback(self, cotangent: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        xp, edges = namespace(cotangent), self.across
        at_edges = _difference_transposed(cotangent / (edges[1:] - edges[:-1]))
        none = xp.zeros_like(at_edges[:, :1, :])
        spread = xp.concat([at_edges, none], axis=1) - xp.concat([none, at_edges], axis=1)
        return edge_average_pullback(spread, edges, bounds[0], bounds[1], self.sigma)

    def _clip(self, positions: Array, jaws: Array) -> Array:
        """Return positions moved smoothly between the jaws, the last axis of `jaws`."""
        low, high = jaws[..., 0], jaws[..., 1]
        return low + self._step(positions - low)[0] - self._step(positions - high)[0]

    def _clip_pullback(self, cotangent: Array, positions: Array, jaws: Array) -> tuple[Array, Array]:
        """Return the cotangents of positions (s, m, e) and of the jaws (s, 2) that cut them."""
        xp = namespace(cotangent)
        low = self._step(positions - jaws[:, None, None, 0])[1]
        high = self._step(positions - jaws[:, None, None, 1])[1]
        to_jaws = [xp.sum(cotangent * (1.0 - low), axis=(1, 2)), xp.sum(cotangent * high, axis=(1, 2))]
        return cotangent * (low - high), xp.stack(to_jaws, axis=-1)

    def _step(self, distance: Array) -> tuple[Array, Array]:
        """Return a smooth max(0, distance) and its slope."""
        root = namespace(distance).sqrt(distance * distance + self.softness**2)
        return 0.5 * (distance + root), 0.5 * (1.0 + distance / root)


def _difference_transposed(cotangent: Array) -> Array:
    """Return the transpose (..., p + 1) of taking differences of neighbours, (..., p)."""
    xp = namespace(cotangent)
    none = xp.zeros_like(cotangent[..., :1])
    return xp.concat([none, cotangent], axis=-1) - xp.concat([cotangent, none], axis=-1)
