"""Fluence behind leaves and jaws on pixels of the isocentre plane, and its pullback by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from radplan.arrays import Array, namespace, native_device, to_numpy
from radplan.engines.aperture import edges as aperture_edges
from radplan.engines.aperture.head import MonitorBackScatter

_REACH = 7.0
"""Standard deviations of the source beyond the pixels from which leaf rows are left out."""

_TIE = 0.02
"""Difference of two neighbours' openings below which the smaller of both is taken smoothly."""


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
class _Openings:
    """Shares of pixels that leaves (s, r, p) and rows with strips (m, q) leave open, alone and cut at the jaws."""

    leaves: Array
    rows: Array
    spans: Any
    cut: Array
    cut_rows: Array
    cut_spans: Any
    jaw_along: Array
    jaw_across: Array
    jaw_spans: Any


@dataclass(frozen=True, eq=False)
class ApertureFluence:
    r"""The map from leaves, jaws and monitor units to fluence in MU on pixels, and its pullback.

    With the opening L of the leaves, J of the jaws, and their transmissions,

    .. math:: \Phi = \sum_s S_s MU_s [T_L + (1 - T_L) L] \prod_J [T_J + (1 - T_J) J],

    where the product of L and J is the opening that both leave: leaf ends and leaf boundaries are cut at the jaws by a
    smooth step, so that a leaf under a jaw keeps a gradient. Edges are blurred once. S is the output that monitor
    back-scatter leaves, the mean of begin and end. Where leaves interlock, a strip about their boundary is open only
    where both neighbours leave it open,
    :math:`\tfrac12 (a + b - \sqrt{(a - b)^2 + \epsilon^2} + \epsilon)` of their openings.

    Parameters
    ----------
    along, across : array of shape (p + 1,), (q + 1,)
        Pixel edges along and across the motion of the leaves [mm].
    boundaries : array of shape (r + 1,)
        Edges of the leaf pairs [mm].
    sigma : float or (float, float)
        Standard deviation of the source in the isocentre plane, > 0 [mm]; of edges along and across where they differ.
    leaf_offset : float
        How far a leaf end lets through beyond its position [mm].
    transmission : float
        Of leaves, in [0, 1).
    jaw_transmission : float or (float, float)
        Of all jaws, or of those along and those across the motion of the leaves, in [0, 1).
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
    sigma: float | tuple[float, float]
    leaf_offset: float
    transmission: float
    jaw_transmission: float | tuple[float, float]
    softness: float
    back_scatter: MonitorBackScatter | None = None
    tongue_groove: float = 0.0
    _seen: tuple[int, int] = field(init=False, repr=False)
    _edges: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        across, edges, far = to_numpy(self.across), to_numpy(self.boundaries), _REACH * self._sigmas()[1]
        first = int(np.clip(np.searchsorted(edges, across[0] - far, side="right") - 1, 0, edges.size - 2))
        last = int(np.clip(np.searchsorted(edges, across[-1] + far), first + 1, edges.size - 1))
        object.__setattr__(self, "_seen", (first, last))
        object.__setattr__(self, "_edges", self._row_edges(self.boundaries[first : last + 1]))

    def fluence(self, motion: Motion) -> Array:
        """Return the fluence ``(p, q)`` [MU]."""
        xp, seen, mu = namespace(self.along), self._openings(motion), motion.mu * self._output(motion)
        t, (_, across) = self.transmission, self._jaws()
        lines = self._behind_jaws_along(seen) * ((1.0 - t) * mu)[:, None, None]
        out = (1.0 - across) * aperture_edges.summed_products(lines, seen.cut_rows, seen.cut_spans)
        out = out + across * aperture_edges.summed_products(xp.sum(lines, axis=0), seen.rows, seen.spans)
        jaw_along, jaw_across = self._leaking(seen)
        return out + aperture_edges.summed_products(jaw_along * (t * mu)[:, None], jaw_across, seen.jaw_spans)

    def pullback(self, motion: Motion, cotangent: Array) -> Motion:
        """Return the cotangents of a motion for one ``(p, q)`` of the fluence."""
        xp, seen, output = namespace(self.along), self._openings(motion), self._output(motion)
        t, (along, across), mu = self.transmission, self._jaws(), motion.mu * output
        lines, (jaw_along, jaw_across) = self._behind_jaws_along(seen), self._leaking(seen)
        d_lines = (1.0 - across) * aperture_edges.lines_pullback(cotangent, seen.cut_rows, seen.cut_spans)
        d_lines = d_lines + across * aperture_edges.lines_pullback(cotangent, seen.rows, seen.spans)[None, ...]
        d_lines = (1.0 - t) * d_lines
        d_cut_rows = (1.0 - t) * (1.0 - across) * aperture_edges.across_pullback(cotangent, lines, seen.cut_spans)
        d_jaw_along = t * aperture_edges.lines_pullback(cotangent, jaw_across, seen.jaw_spans)
        d_jaw_across = t * (1.0 - across) * aperture_edges.across_pullback(cotangent, jaw_along, seen.jaw_spans)
        d_mu = xp.sum(lines * d_lines, axis=(1, 2)) + xp.sum(jaw_along * d_jaw_along, axis=1)
        per_row, per_segment = mu[:, None, None], mu[:, None]
        d_cut, d_leaves = (1.0 - along) * d_lines, along * d_lines
        d_jaw_along = (1.0 - along) * d_jaw_along
        (ends, bounds), blur = self._cut(motion), self._sigmas()[0]
        d_cut, d_leaves = self._strips_pullback(per_row * d_cut, seen.cut), per_row * d_leaves
        from_ends = self._to_ends(d_cut, self.along, ends, blur)
        from_bounds = aperture_edges.rows_pullback(per_row * d_cut_rows, self.across, *bounds, self._sigmas()[1])
        own = self._to_ends(self._strips_pullback(d_leaves, seen.leaves), self.along, self._leaf_ends(motion), blur)
        jaws = self._to_ends(per_segment * d_jaw_along, self.along, motion.along, blur)
        blocks = self._to_ends(per_segment * d_jaw_across, self.across, motion.across, self._sigmas()[1])
        d_ends, d_along, d_across = [], [], []
        for t, positions in enumerate(self._leaf_ends(motion)):
            through, to_jaws = self._clip_pullback(from_ends[t], positions, motion.along[t])
            d_ends.append(own[t] + through)
            d_along.append(jaws[t] + to_jaws)
            edges = self._edges[None, :, None] + 0.0 * motion.across[t][:, :1, None]
            _, to_blocks = self._clip_pullback(from_bounds[t][..., None], edges, motion.across[t])
            d_across.append(blocks[t] + to_blocks)
            if self.back_scatter is not None:
                by_output = 0.5 * motion.mu * d_mu
                to_along, to_across = self.back_scatter.pullback(by_output, motion.along[t], motion.across[t])
                d_along[t], d_across[t] = d_along[t] + to_along, d_across[t] + to_across
            d_ends[t] = self._widened(d_ends[t])
        d_mu = output * d_mu
        return Motion((d_ends[0], d_ends[1]), (d_along[0], d_along[1]), (d_across[0], d_across[1]), d_mu)

    def _output(self, motion: Motion) -> Array:
        """Return the output of every segment (s,)."""
        if self.back_scatter is None:
            return 0.0 * motion.mu + 1.0
        begin, end = (self.back_scatter.output(motion.along[t], motion.across[t]) for t in (0, 1))
        return 0.5 * (begin + end)

    def _jaws(self) -> tuple[float, float]:
        """Return the transmissions of the jaws along and across."""
        given = self.jaw_transmission
        return given if isinstance(given, tuple) else (given, given)

    def _behind_jaws_along(self, seen: _Openings) -> Array:
        """Return what passes leaves and jaws along them, row by row and strip by strip (s, m, p)."""
        along = self._jaws()[0]
        return (1.0 - along) * self._with_strips(seen.cut) + along * self._with_strips(seen.leaves)

    def _leaking(self, seen: _Openings) -> tuple[Array, Array]:
        """Return what passes the jaws along (s, p) and across (s, q)."""
        along, across = self._jaws()
        return along + (1.0 - along) * seen.jaw_along, across + (1.0 - across) * seen.jaw_across

    def _leaf_ends(self, motion: Motion) -> tuple[Array, Array]:
        """Return where leaf ends of the rows that are seen block, begin and end, (s, r, 2)."""
        xp, (first, last) = namespace(self.along), self._seen
        offset = xp.stack([0.0 * self.along[0] - self.leaf_offset, 0.0 * self.along[0] + self.leaf_offset])
        return motion.leaves[0][:, first:last, :] + offset, motion.leaves[1][:, first:last, :] + offset

    def _widened(self, ends: Array) -> Array:
        """Return cotangents of all leaf ends from those of the rows that are seen."""
        xp, (first, last), count = namespace(ends), self._seen, self.boundaries.shape[0] - 1
        if last - first == count:
            return ends
        shapes = [(ends.shape[0], n, 2) for n in (first, count - last)]
        dark = [xp.zeros(shape, dtype=ends.dtype, device=native_device(ends)) for shape in shapes]
        return xp.concat([dark[0], ends, dark[1]], axis=1)

    def _openings(self, motion: Motion) -> _Openings:
        ends, bounds = self._cut(motion)
        still = (self._edges[None, :],) * 2
        along, across = self._sigmas()
        return _Openings(
            leaves=aperture_edges.openings(self.along, *self._leaf_ends(motion), along),
            rows=aperture_edges.rows(self.across, *still, across)[0, ...],
            spans=aperture_edges.row_spans(self.across, *still, across),
            cut=aperture_edges.openings(self.along, *ends, along),
            cut_rows=aperture_edges.rows(self.across, *bounds, across),
            cut_spans=aperture_edges.row_spans(self.across, *bounds, across),
            jaw_along=aperture_edges.openings(self.along, *motion.along, along),
            jaw_across=aperture_edges.openings(self.across, *motion.across, across),
            jaw_spans=aperture_edges.whole_spans(self.across, motion.mu.shape[0]),
        )

    def _sigmas(self) -> tuple[float, float]:
        """Return the blurs of edges along and across."""
        return self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)

    def _to_ends(self, cotangent: Array, edges: Array, ends: tuple[Array, Array], sigma: float) -> tuple[Array, Array]:
        return aperture_edges.openings_pullback(cotangent, edges, *ends, sigma)

    def _cut(self, motion: Motion) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Return leaf ends (s, r, 2) and edges of rows (s, m + 1) cut at the jaws, begin and end of each."""
        raw = self._leaf_ends(motion)
        ends = tuple(self._clip(raw[t], motion.along[t][:, None, None, :]) for t in (0, 1))
        bounds = tuple(self._clip(self._edges[None, :], motion.across[t][:, None, :]) for t in (0, 1))
        return (ends[0], ends[1]), (bounds[0], bounds[1])

    def _interlock(self) -> bool:
        return self.tongue_groove > 0.0 and self._seen[1] - self._seen[0] > 1

    def _row_edges(self, boundaries: Array) -> Array:
        """Return the edges (m + 1,) of leaf rows and of the strips between them."""
        if not self._interlock():
            return boundaries
        xp, inner, half = namespace(boundaries), boundaries[1:-1], 0.5 * self.tongue_groove
        pairs = xp.reshape(xp.stack([inner - half, inner + half], axis=1), (-1,))
        return xp.concat([boundaries[:1], pairs, boundaries[-1:]])

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
