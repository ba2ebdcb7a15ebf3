"""Leaf trajectories that a linac can follow: speed, gap, bounds and span kept by one projection with a pullback.

A leaf that may go no farther than :math:`s_c` between control points c and c + 1 is brought there by the mean of its
two Lipschitz envelopes, which is the nearest such trajectory in the largest deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array, namespace
from radplan.engines.aperture.variables import FieldLayout
from radplan.errors import InputError
from radplan.influence import Variables
from radplan.machines.limits import MachineLimits

Floats = npt.NDArray[np.float64]

_FREE = 1000.0
"""Farther than any leaf goes [mm]: its travel where the beam is off."""

_ROUNDING = 1e-9
"""Moves that are rounding of floating-point numbers [mm]: smaller ones are none."""


@dataclass(frozen=True, eq=False)
class Envelope:
    r"""The mean of the upper and lower Lipschitz envelope of trajectories ``(points, k)``.

    Up and low are :math:`\min_k (u_k + d_{ck})` and :math:`\max_k (u_k - d_{ck})`, with d the travel allowed between
    control points c and k. Trajectories that keep to the travel are left as they are; what two trajectories keep
    between them, and common bounds, stay kept.

    Parameters
    ----------
    values : array of shape (points, k)
        The mean.
    upper, lower : int arrays of shape (points, k)
        The control points whose positions decide it.

    Source: McShane, Bull. Amer. Math. Soc. 40 (1934) 837; Whitney, Trans. Amer. Math. Soc. 36 (1934) 63.
    """

    values: Array
    upper: Array
    lower: Array

    def pullback(self, gradient: Array) -> Array:
        """Return the gradient ``(points, k)`` by the trajectories: half of it goes to either deciding point."""
        xp, (points, tracks) = namespace(gradient), gradient.shape
        columns = xp.arange(tracks, dtype=self.upper.dtype, device=arrays.native_device(gradient))[None, :]
        flat = xp.concat([xp.reshape(which * tracks + columns, (-1,)) for which in (self.upper, self.lower)])
        half = xp.reshape(0.5 * gradient, (-1,))
        return xp.reshape(arrays.segment_add(points * tracks, flat, xp.concat([half, half])), (points, tracks))


def envelope(positions: Array, travel: Array) -> Envelope:
    """Return the nearest trajectories that move no farther than they may.

    Parameters
    ----------
    positions : array of shape (points, k)
        Where each of k leaf ends stands at each control point [mm].
    travel : array of shape (points - 1,)
        How far it may go between them, >= 0 [mm].

    >>> envelope(np.asarray([[0.0], [9.0], [0.0]]), np.asarray([2.0, 2.0])).values.ravel().tolist()
    [3.5, 5.5, 3.5]
    """
    xp = namespace(positions)
    travelled = xp.cumulative_sum(travel, include_initial=True)[:, None]
    up, at_up = _lowest(positions, travelled)
    low, at_low = _lowest(-positions, travelled)
    mean = 0.5 * (up - low)
    return Envelope(xp.where(xp.abs(mean - positions) <= _ROUNDING, positions, mean), at_up, at_low)


def _lowest(positions: Array, travelled: Array) -> tuple[Array, Array]:
    """Return ``min_k (u_k + d_ck)`` and which k it is, both ``(points, k)``."""
    xp = namespace(positions)
    forth, first = _running_least(positions - travelled)
    back, last = _running_least(xp.flip(positions + travelled, axis=0))
    back, last = xp.flip(back, axis=0), positions.shape[0] - 1 - xp.flip(last, axis=0)
    before, after = forth + travelled, back - travelled
    nearer = before <= after
    return xp.where(nearer, before, after), xp.where(nearer, first, last)


def _running_least(values: Array) -> tuple[Array, Array]:
    """Return the least of all rows up to each one and its row number, both (n, k), in about log2(n) steps."""
    xp, count = namespace(values), values.shape[0]
    place = arrays.native_device(values)
    rows = xp.arange(count, dtype=xp.int64, device=place)[:, None] + xp.zeros(
        values.shape, dtype=xp.int64, device=place
    )
    step = 1
    while step < count:
        better = values[:-step, :] < values[step:, :]
        least = xp.where(better, values[:-step, :], values[step:, :])
        which = xp.where(better, rows[:-step, :], rows[step:, :])
        values, rows = xp.concat([values[:step, :], least]), xp.concat([rows[:step, :], which])
        step *= 2
    return values, rows


@dataclass(frozen=True, eq=False)
class Track:
    """The leaves of one field and how far they may go between its openings.

    Parameters
    ----------
    first : int
        Position of its first leaf end among the variables.
    points, pairs : int
        Openings and leaf pairs.
    travel : array of shape (points - 1,)
        Farthest travel of a leaf end between openings [mm]; infinite where the beam is off.
    gap : float
        Least gap of a pair [mm].
    span : float
        Largest distance of two leaf ends of one bank [mm]; infinite where leaves move freely.
    moving : bool
        Whether leaves move under beam: the carriage then stands, and a bank keeps its span over the whole field.
    """

    first: int
    points: int
    pairs: int
    travel: Floats
    gap: float
    span: float
    moving: bool = False

    @property
    def stop(self) -> int:
        """One past its last leaf end."""
        return self.first + 2 * self.points * self.pairs

    def leaves(self, x: Array) -> Array:
        """Return the leaf ends ``(points, pairs, 2)`` [mm] among the variables."""
        return namespace(x).reshape(x[self.first : self.stop], (self.points, self.pairs, 2))


@dataclass(frozen=True, eq=False)
class LeafTrajectories(Variables):
    r"""Leaves, jaws and monitor units whose projection keeps gap, speed, bounds and span of a machine together.

    A pair closer than its gap opens about its centre; every leaf end is brought to the mean of its envelopes
    (`envelope`); a bank wider than its span is cut to a window about its middle. Each step keeps what those before it
    reached, so that one pass suffices, and a point that is right already stays as it is. Travel, gap and bounds are
    whole multiples of the resolution, so that rounding to it breaks none of them.

    Parameters
    ----------
    tracks : tuple of Track
        The leaves of every field.
    """

    tracks: tuple[Track, ...] = ()

    def project(self, x: Array) -> Array:
        """Return a point ``(count,)`` that a linac follows, near `x`."""
        return self._passed(x)[0]

    def pullback(self, x: Array, gradient: Array) -> Array:
        """Return the gradient ``(count,)`` by `x` of a cost with a given gradient at ``project(x)``."""
        xp = namespace(x)
        steps = self._passed(x)[1]
        lower, upper = arrays.like(self.lower, x), arrays.like(self.upper, x)
        inside = xp.logical_and(x > lower - _ROUNDING, x < upper + _ROUNDING)
        inside = xp.logical_and(inside, upper > lower)
        total = gradient
        for track, (opened, one, two, windows) in zip(self.tracks, steps, strict=True):
            pulled = track.leaves(total)
            banks = [
                moved.pullback(window.pullback(pulled[:, :, bank]))
                for bank, (moved, window) in enumerate(zip((one, two), windows, strict=True))
            ]
            mean = 0.5 * (banks[0] + banks[1])
            apart = [xp.where(opened, bank, mean) for bank in banks]
            part = xp.reshape(xp.stack(apart, axis=2), (-1,))
            total = xp.concat([total[: track.first], part, total[track.stop :]])
        return xp.where(inside, total, xp.zeros_like(total))

    def _passed(self, x: Array) -> tuple[Array, list[tuple[Array, Envelope, Envelope, tuple[_Window, _Window]]]]:
        """Return the projected point and, per field, what decided it."""
        xp, steps = namespace(x), []
        moved = xp.minimum(xp.maximum(x, arrays.like(self.lower, x)), arrays.like(self.upper, x))
        for track in self.tracks:
            leaves = track.leaves(moved)
            first, second = leaves[:, :, 0], leaves[:, :, 1]
            opened = second - first >= track.gap - _ROUNDING
            centre = 0.5 * (first + second)
            least, most = self._centres(track, x)
            centre = xp.minimum(xp.maximum(centre, least), most)
            ends = [
                xp.where(opened, end, centre + side * 0.5 * track.gap) for end, side in ((first, -1.0), (second, 1.0))
            ]
            travel = arrays.like(track.travel, x)
            one, two = (envelope(end, travel) for end in ends)
            windows = (_Window.of(one.values, track), _Window.of(two.values, track))
            part = xp.reshape(xp.stack([window.values for window in windows], axis=2), (-1,))
            moved = xp.concat([moved[: track.first], part, moved[track.stop :]])
            steps.append((opened, one, two, windows))
        return moved, steps

    def _centres(self, track: Track, x: Array) -> tuple[Array, Array]:
        """Return the lowest and highest centre of a pair at its gap that keeps both ends within bounds."""
        xp = namespace(x)
        lower, upper = (track.leaves(xp.broadcast_to(arrays.like(b, x), x.shape)) for b in (self.lower, self.upper))
        half = 0.5 * track.gap
        least = xp.maximum(lower[:, :, 0] + half, lower[:, :, 1] - half)
        return least, xp.maximum(xp.minimum(upper[:, :, 0] + half, upper[:, :, 1] - half), least)


@dataclass(frozen=True, eq=False)
class _Window:
    """Leaf ends of a bank (points, pairs) cut to a window of its span about the middle of the bank.

    One window for a field whose carriage stands, with all ends in one row; else one for each opening.
    """

    values: Array
    below: Array
    above: Array
    lowest: Array
    highest: Array

    @classmethod
    def of(cls, ends: Array, track: Track) -> _Window:
        xp, shape = namespace(ends), ends.shape
        if track.moving:
            ends = xp.reshape(ends, (1, -1))
        low, high = xp.min(ends, axis=1, keepdims=True), xp.max(ends, axis=1, keepdims=True)
        if math.isinf(track.span):
            never = xp.zeros(ends.shape, dtype=xp.bool, device=arrays.native_device(ends))
            return cls(xp.reshape(ends, shape), never, never, low, high)
        middle, half = 0.5 * (low + high), 0.5 * track.span
        below, above = ends < middle - half - _ROUNDING, ends > middle + half + _ROUNDING
        cut = xp.where(below, middle - half, xp.where(above, middle + half, ends))
        return cls(xp.reshape(cut, shape), below, above, xp.argmin(ends, axis=1), xp.argmax(ends, axis=1))

    def pullback(self, gradient: Array) -> Array:
        """Return the gradient by the ends before they were cut: a cut one goes to the outermost two, half each."""
        xp = namespace(gradient)
        cut = xp.logical_or(self.below, self.above)
        if self.lowest.ndim == 2:
            return gradient
        shape, gradient = gradient.shape, xp.reshape(gradient, self.below.shape)
        nothing = xp.zeros_like(gradient)
        shared = 0.5 * xp.sum(xp.where(cut, gradient, nothing), axis=1, keepdims=True)
        columns = xp.arange(gradient.shape[1], dtype=self.lowest.dtype, device=arrays.native_device(gradient))[None, :]
        kept = xp.where(cut, nothing, gradient)
        for outermost in (self.lowest, self.highest):
            kept = kept + xp.where(columns == outermost[:, None], shared + nothing, nothing)
        return xp.reshape(kept, shape)


def leaf_trajectories(
    variables: Variables,
    layouts: Sequence[FieldLayout],
    limits: MachineLimits,
    times: Sequence[Floats],
) -> LeafTrajectories:
    """Return variables of an aperture model whose projection keeps the limits of a machine.

    Parameters
    ----------
    variables : Variables
        Of the aperture model.
    layouts : sequence of FieldLayout
        Of the same model.
    limits : MachineLimits
        What the machine can do; ``limits.planning()`` keeps a margin of every speed.
    times : sequence of arrays of shape (segments,)
        How long each segment of each field takes [s]. Leaves of segments without monitor units go as far as they like.

    Raises
    ------
    InputError
        When the machine has a limit that this projection does not keep, or times do not fit.
    """
    if limits.neighbour_gap is not None:
        raise InputError(f"{limits.name}: leaves may not pass their neighbours, which leaf trajectories do not keep")
    whole = (variables.count,)
    lower, upper = (
        np.array(np.broadcast_to(arrays.to_numpy(bound), whole), dtype=np.float64)
        for bound in (variables.lower, variables.upper)
    )
    tracks = []
    for layout, seconds in zip(layouts, times, strict=True):
        own = layout.leaf_slice
        low, high, step = lower[own], upper[own], limits.leaf_step
        free = high - low > 2.0 * step
        lower[own] = np.where(free, np.ceil(low / step - _ROUNDING) * step, low)
        upper[own] = np.where(free, np.floor(high / step + _ROUNDING) * step, high)
        tracks.append(_track(layout, limits, np.asarray(seconds, dtype=np.float64)))
    return LeafTrajectories(
        count=variables.count,
        lower=lower,
        upper=upper,
        start=variables.start,
        scale=variables.scale,
        labels=variables.labels,
        tracks=tuple(tracks),
    )


def _track(layout: FieldLayout, limits: MachineLimits, seconds: Floats) -> Track:
    count = len(layout.field.segments)
    if seconds.shape != (count,) or not np.all(seconds >= 0.0):
        raise InputError(f"{layout.field.label}: times must be {count} numbers >= 0 s, got shape {seconds.shape}")
    points, pairs, _ = layout.leaves.shape
    step, travel = limits.leaf_step, np.full(max(points - 1, 0), _FREE)
    for segment in layout.delivering:
        begin, end = layout.openings[segment], layout.openings[segment + 1]
        if begin != end:
            travel[begin] = min(np.floor(limits.leaf_speed * seconds[segment] / step + _ROUNDING) * step, _FREE)
    moving = any(layout.openings[s] != layout.openings[s + 1] for s in layout.delivering)
    gap = np.ceil((limits.dynamic_gap if moving else limits.static_gap) / step - _ROUNDING) * step
    return Track(layout.offset, points, pairs, travel, float(gap), limits.bank_span, moving)
