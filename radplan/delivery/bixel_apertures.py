"""Dose of apertures by way of bixels: leaves and monitor units to bixel weights to any linear model of those bixels.

The fast model of direct aperture optimisation and of arcs. What the exact engine adds (edges of the source, head
scatter, tongue and groove) is left out; a leaf end within a bixel opens a share of it, and leaves that move during a
segment open each bixel for a share of the time, in closed form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array, Device, namespace
from radplan.beams.beam import Beam, Beams
from radplan.beams.control_points import DeliveryPlan, Segment, TreatmentField
from radplan.engines.aperture.variables import FieldLayout, aperture_variables
from radplan.errors import InputError
from radplan.influence import Dij, ForwardModel, Variables
from radplan.influence.over import ModelOver
from radplan.machines.limits import MachineLimits, leaf_limits
from radplan.machines.mlc import MLC

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_STILL = 1e-4
"""Travel of a leaf end below which it stands still [mm]: the closed form of a moving one divides by it."""

_SAME_ANGLE, _SAME_PLACE, _STRADDLE = 0.01, 0.05, 0.01
"""What is rounding: of angles [degree], of isocentres [mm], and of bixel rows that reach beyond a leaf [mm]."""


@dataclass(frozen=True, eq=False)
class BixelOpenings:
    """Which leaf ends open which bixel in which segment: one entry for each bixel of the beam of every segment.

    Parameters
    ----------
    bixel : array of shape (n,)
        Position of the bixel among the weights.
    low, high : array of shape (n,)
        Its edges along the leaves [mm].
    ends : array of shape (4, n)
        Positions among the variables of first and second leaf end where the segment begins, and where it ends.
    mu : array of shape (n,)
        Positions of the monitor units.
    within : array of shape (n,)
        Share of the bixel that the jaws leave open.
    """

    bixel: Array
    low: Array
    high: Array
    ends: Array
    mu: Array
    within: Array

    def shares(self, x: Array, offset: float) -> Array:
        """Return the mean open share of each bixel ``(n,)`` while its segment is given, in [0, 1]."""
        first, second, third, fourth = (namespace(x).take(x, self.ends[row, :]) for row in range(4))
        low, high = self.low, self.high
        opened = filled(second + offset, fourth + offset, low, high) - filled(first - offset, third - offset, low, high)
        return opened / (high - low)

    def slopes(self, x: Array, offset: float) -> tuple[Array, Array, Array, Array]:
        """Return the derivatives of `shares` by the four leaf ends, ``(n,)`` each, in the order of `ends`."""
        first, second, third, fourth = (namespace(x).take(x, self.ends[row, :]) for row in range(4))
        low, high = self.low, self.high
        width = high - low
        left = _filling(first - offset, third - offset, low, high)
        right = _filling(second + offset, fourth + offset, low, high)
        return -left[0] / width, right[0] / width, -left[1] / width, right[1] / width


@dataclass(frozen=True, eq=False)
class BixelApertures(ModelOver):
    r"""A forward model of leaves and monitor units over any linear model of bixels; make it with `bixel_apertures`.

    The weight of a bixel is :math:`\sum_s m_s\,(T + (1-T)\,o_s)`: over segments s, monitor units m, transmission T and
    the mean open share o of the bixel, linear in a leaf end within a bixel. An evaluation costs one forward and one
    adjoint of the bixel model, whatever the number of segments.

    Parameters
    ----------
    model : ForwardModel
        Linear in its weights, one for each bixel, such as a `Dij`.
    layouts : tuple of FieldLayout
        Where the variables of every field lie; the same as those of the exact `ApertureModel` of the plan.
    openings : BixelOpenings
        Which leaf ends open which bixel.
    limited : Variables
        Leaf ends [mm], jaws [mm], which stay, and monitor units [MU] of every field.
    transmission : float
        Fluence behind leaves over open fluence.
    leaf_offset : float
        How much farther than its end a leaf lets through [mm].

    Source: Shepard et al., Med. Phys. 29 (2002) 1007; Hardemark et al., RaySearch white paper (2003).
    """

    layouts: tuple[FieldLayout, ...]
    openings: BixelOpenings
    limited: Variables
    transmission: float = 0.0
    leaf_offset: float = 0.0

    @property
    def linear(self) -> bool:
        """Always false: leaf ends and monitor units multiply."""
        return False

    @property
    def variables(self) -> Variables:
        """Leaf ends and jaws [mm], and monitor units [MU]."""
        return self.limited

    def weights(self, x: Array) -> Array:
        """Return the bixel weights ``(bixels,)`` [MU] at variables ``x (count,)``."""
        wide, openings = self._wide(x), self.openings
        shares = openings.shares(wide, self.leaf_offset)
        given = namespace(wide).take(wide, openings.mu) * openings.within
        parts = given * (self.transmission + (1.0 - self.transmission) * shares)
        return arrays.segment_add(self.model.variables.count, openings.bixel, parts)

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(scenarios, voxels)`` each, at variables ``x (count,)``."""
        return self.model.forward(self.weights(x), images)

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images."""
        wide, openings, count = self._wide(x), self.openings, self.variables.count
        xp, whole = namespace(wide), self.transmission
        by_weight = arrays.like(self.model.pullback(self.weights(wide), cotangents), wide, wide.dtype)
        pulled = xp.take(by_weight, openings.bixel) * openings.within
        shares = openings.shares(wide, self.leaf_offset)
        gradient = arrays.segment_add(count, openings.mu, pulled * (whole + (1.0 - whole) * shares))
        given = pulled * xp.take(wide, openings.mu) * (1.0 - whole)
        for row, slope in enumerate(openings.slopes(wide, self.leaf_offset)):
            gradient = gradient + arrays.segment_add(count, openings.ends[row, :], given * slope)
        return gradient

    def _wide(self, x: Array) -> Array:
        if x.shape != (self.variables.count,):
            raise InputError(f"x must have shape ({self.variables.count},), got {tuple(x.shape)}")
        return namespace(x).astype(x, arrays.accumulator(x), copy=False)


def bixel_apertures(
    model: ForwardModel,
    plan: DeliveryPlan | Sequence[TreatmentField],
    mlc: MLC,
    beams: Beams | None = None,
    limits: MachineLimits | str | None = None,
) -> BixelApertures:
    """Return the model of leaves and monitor units of a plan over a linear model of bixels, starting at the plan.

    Every segment with monitor units needs a beam of the bixel model at its middle: the same gantry, collimator and
    couch angle and isocentre. Rows of bixels must lie within leaf pairs, as ``place_beams(mlc=)`` puts them. Jaws stay
    where the plan has them.

    Parameters
    ----------
    model : ForwardModel
        Linear, with one weight for each bixel.
    plan : DeliveryPlan or sequence of TreatmentField
        What is delivered.
    mlc : MLC
        Transmission and leaf offset.
    beams : Beams, optional
        The beams of the weights, where the model does not know them.
    limits : MachineLimits or str, optional
        Within which leaves move, as in `radplan.engines.aperture_model`.

    Raises
    ------
    InputError
        When the model is not linear, a segment has no beam, or rows of bixels straddle leaves.
    """
    placed = _beams_of(model, beams)
    fields = tuple(plan)
    layouts: list[FieldLayout] = []
    for one in fields:
        if one.leaf_boundaries is None or not mlc.fits(one.leaf_boundaries) or one.leaf_axis != "x":
            raise InputError(f"{one.label}: needs the leaves of MLC {mlc.name!r}, moving along x")
        layouts.append(FieldLayout.of(one, layouts[-1].stop if layouts else 0))
    return BixelApertures(
        model=model,
        layouts=tuple(layouts),
        openings=_openings(placed, layouts, mlc, model.device),
        limited=_variables(placed, layouts, leaf_limits(mlc, limits)),
        transmission=mlc.transmission,
        leaf_offset=mlc.leaf_offset,
    )


def _beams_of(model: ForwardModel, beams: Beams | None) -> Beams:
    known = model.beams if beams is None and isinstance(model, Dij) else beams
    if not model.linear:
        raise InputError("apertures over bixels need a model that is linear in its weights, such as a Dij")
    if known is None:
        raise InputError("the bixel model does not know its beams: give them with beams=")
    if known.count != model.variables.count:
        raise InputError(f"the beams have {known.count} bixels, but the model {model.variables.count} weights")
    return known


def _variables(beams: Beams, layouts: Sequence[FieldLayout], limits: MachineLimits | None) -> Variables:
    half = 0.5 * max(beam.bixel_width for beam in beams)
    reach = np.concatenate([beam.bixels for beam in beams])
    low, high = reach.min(axis=0) - half, reach.max(axis=0) + half
    box = float(low[0]), float(high[0]), float(low[1]), float(high[1])
    made = aperture_variables(layouts, [limits] * len(layouts), [box] * len(layouts), ("leaves", "mu"))
    lower, upper = np.array(made.lower), np.array(made.upper)
    for layout in layouts:
        # Why: no bixel lies beyond the box, so that leaf ends out there would have nothing to tell them apart.
        own, start = layout.leaf_slice, layout.start[: layout.leaves.size]
        lower[own] = np.maximum(lower[own], np.minimum(start, box[0]))
        upper[own] = np.minimum(upper[own], np.maximum(start, box[1]))
    return replace(made, lower=lower, upper=upper)


def _openings(beams: Beams, layouts: Sequence[FieldLayout], mlc: MLC, device: Device) -> BixelOpenings:
    firsts = np.concatenate([[0], np.cumsum([beam.count for beam in beams])])
    rows = [leaf_rows(beam, mlc) for beam in beams]
    bixels, entries, units = [], [], []
    for layout in layouts:
        for order, segment in enumerate(layout.delivering):
            number = _beam_of(beams, layout.field, layout.field.segments[segment])
            entries.append(_entries(beams[number], rows[number], layout, segment))
            bixels.append(int(firsts[number]) + rows[number][0])
            units.append(np.full(rows[number][0].size, layout.mu_slice.start + order))
    low, high, ends, within = (np.concatenate(parts, axis=-1) for parts in zip(*entries, strict=True))
    return BixelOpenings(
        bixel=device.asarray(np.concatenate(bixels), "int64"),
        low=_wide(device, low),
        high=_wide(device, high),
        ends=device.asarray(ends, "int64"),
        mu=device.asarray(np.concatenate(units), "int64"),
        within=_wide(device, within),
    )


def _entries(
    beam: Beam, rows: tuple[Ints, Ints, Floats], layout: FieldLayout, segment: int
) -> tuple[Floats, Floats, Ints, Floats]:
    """Return edges, positions of leaf ends and share of every bixel and leaf pair of a beam in a segment."""
    bixel, pair, share = rows
    low, high = (beam.bixels[bixel] + side * beam.bixel_width for side in (-0.5, 0.5))
    pairs = layout.leaves.shape[1]
    begin, end = (int(layout.openings[segment + step]) for step in (0, 1))
    first = layout.offset + 2 * (begin * pairs + pair)
    last = layout.offset + 2 * (end * pairs + pair)
    jaws = 0.5 * (layout.jaws[begin] + layout.jaws[end])
    open_share = _inside(low[:, 0], high[:, 0], jaws[0], jaws[1]) * _inside(low[:, 1], high[:, 1], jaws[2], jaws[3])
    return low[:, 0], high[:, 0], np.stack([first, first + 1, last, last + 1]), share * open_share


def leaf_rows(beam: Beam, mlc: MLC) -> tuple[Ints, Ints, Floats]:
    """Return bixels, the leaf pairs that each lies in, and what share of it each pair has, ``(n,)`` all.

    A bixel lies within one pair, or is as wide as several whole ones.

    Raises
    ------
    InputError
        When bixels straddle leaves or lie beyond them.

    >>> from radplan.machines.mlc import library_mlc
    >>> beam = Beam(0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0, 5.0, [[0.0, 2.5], [5.0, 7.5]])
    >>> [part.tolist() for part in leaf_rows(beam, library_mlc("HD 120"))]
    [[0, 0, 1, 1], [30, 31, 32, 33], [0.5, 0.5, 0.5, 0.5]]
    """
    low, high = beam.bixels[:, 1] - 0.5 * beam.bixel_width, beam.bixels[:, 1] + 0.5 * beam.bixel_width
    edges = mlc.boundaries
    first = np.searchsorted(edges, low + _STRADDLE, side="right") - 1
    last = np.searchsorted(edges, high - _STRADDLE, side="left") - 1
    beyond = (first < 0) | (last >= mlc.pairs)
    ends = edges[np.clip(first, 0, mlc.pairs - 1)], edges[np.clip(last, 0, mlc.pairs - 1) + 1]
    across = (first != last) & ((np.abs(ends[0] - low) > _STRADDLE) | (np.abs(ends[1] - high) > _STRADDLE))
    wrong = beyond | across
    if wrong.any():
        k = int(np.argmax(wrong))
        raise InputError(
            f"{np.count_nonzero(wrong)} bixels of the beam at gantry {beam.gantry:g} lie across or beyond leaves of "
            f"MLC {mlc.name!r}, such as the one from {low[k]:g} to {high[k]:g} mm: place beams with mlc= so that rows "
            "are leaf pairs"
        )
    bixel = np.repeat(np.arange(beam.count), last - first + 1)
    pair = np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)])
    alone = first[bixel] == last[bixel]
    return bixel, pair, np.where(alone, 1.0, mlc.widths[pair] / beam.bixel_width)


def _beam_of(beams: Beams, field: TreatmentField, segment: Segment) -> int:
    """Return the number of the beam that stands where a segment is in its middle."""
    wanted = segment.gantry(0.5), segment.collimator(0.5), segment.couch(0.5)
    place = segment.isocenter(0.5)
    for number, beam in enumerate(beams):
        given = beam.gantry, beam.collimator, beam.couch
        turned = max(abs((a - b + 180.0) % 360.0 - 180.0) for a, b in zip(wanted, given, strict=True))
        if turned <= _SAME_ANGLE and float(np.max(np.abs(place - beam.isocenter))) <= _SAME_PLACE:
            return number
    raise InputError(
        f"{field.label}: no beam of bixels stands at gantry {wanted[0]:g}, collimator {wanted[1]:g}, couch "
        f"{wanted[2]:g}, isocentre {place.tolist()}: calculate the Dij for the beams that are delivered"
    )


def _inside(low: Floats, high: Floats, first: float, second: float) -> Floats:
    shares: Floats = np.clip(np.minimum(high, second) - np.maximum(low, first), 0.0, None) / (high - low)
    return shares


def _wide(device: Device, values: Floats) -> Array:
    """Return values on a device in float64, float32 where it lacks that."""
    beside = device.asarray(np.zeros(1), "float32")
    return arrays.like(values, beside, arrays.accumulator(beside))


def filled(begin: Array, end: Array, low: Array, high: Array) -> Array:
    """Return how much of each bixel lies below a leaf end that moves evenly from begin to end, on average [mm]."""
    xp, travel = namespace(begin), end - begin
    moves = xp.abs(travel) > _STILL
    safe = xp.where(moves, travel, xp.ones_like(travel))
    swept = (_primitive(end, low, high) - _primitive(begin, low, high)) / safe
    still = xp.minimum(xp.maximum(0.5 * (begin + end), low), high) - low
    return xp.where(moves, swept, still)


def _filling(begin: Array, end: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return the derivatives of `filled` by begin and by end."""
    xp, travel = namespace(begin), end - begin
    moves = xp.abs(travel) > _STILL
    safe = xp.where(moves, travel, xp.ones_like(travel))
    mean = filled(begin, end, low, high)
    middle = 0.5 * (begin + end)
    half = 0.5 * xp.astype(xp.logical_and(middle >= low, middle < high), begin.dtype)
    at_begin = xp.minimum(xp.maximum(begin, low), high) - low
    at_end = xp.minimum(xp.maximum(end, low), high) - low
    return xp.where(moves, (mean - at_begin) / safe, half), xp.where(moves, (at_end - mean) / safe, half)


def _primitive(x: Array, low: Array, high: Array) -> Array:
    """Return the integral of ``clip(x, low, high) - low`` from low."""
    xp = namespace(x)
    inside = xp.minimum(xp.maximum(x, low), high) - low
    return 0.5 * inside**2 + (high - low) * xp.maximum(x - high, xp.zeros_like(x))
