"""Where the bixels of arcs lie: angles of control points, leaf rows, and what of each row sees the target.

A leaf end stays within the target's projection at its control point, grown by a margin; bounds change no faster from
one control point to the next than leaves follow, so that whatever keeps the speed of leaves can keep them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beams
from radplan.beams.control_points import Direction
from radplan.delivery.bixel_apertures import filled
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.machines.limits import MachineLimits
from radplan.machines.mlc import MLC
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_ANYWHERE = 1000.0
"""How far leaves may go while the beam is off and the gantry waits for them [mm]."""

_WIDTH = 5.0
"""Width of a bixel along the leaves [mm]."""

_STEP = 0.01
"""Bounds of leaf ends are whole multiples of it [mm]."""

_PIXEL = 1.0
"""Height of the strips across the leaves in which the target's outline is found [mm]."""

_ROUNDING = 1e-6
"""What is rounding of a position [mm]."""


@dataclass(frozen=True, eq=False)
class Arc:
    """Where one arc goes: gantry angles of its control points, in the order of delivery.

    Parameters
    ----------
    gantry : array of shape (n + 1,)
        Angles of the control points [degree], in [0, 360).
    collimator, couch : float
        IEC 61217 angles [degree].
    direction : "CW" or "CC"
        Which way round.
    avoided : tuple of int
        Segments in which the beam is off.

    >>> arc = Arc(np.asarray([358.0, 2.0]), 0.0, 0.0, "CW")
    >>> arc.travel.tolist(), arc.middles.tolist()
    ([4.0], [0.0])
    """

    gantry: Floats
    collimator: float
    couch: float
    direction: Direction
    avoided: tuple[int, ...] = ()

    @property
    def segments(self) -> int:
        """Number of segments n."""
        return int(self.gantry.size - 1)

    @property
    def lit(self) -> Bools:
        """Whether the beam is on in every segment (n,)."""
        beam: Bools = ~np.isin(np.arange(self.segments), self.avoided)
        return beam

    @property
    def travel(self) -> Floats:
        """How far the gantry turns in every segment (n,), > 0 [degree]."""
        way = np.diff(self.gantry)
        turned: Floats = (way if self.direction == "CW" else -way) % 360.0
        return turned

    @property
    def middles(self) -> Floats:
        """Gantry angle in the middle of every segment (n,) [degree]."""
        half = 0.5 * self.travel
        middle: Floats = (self.gantry[:-1] + (half if self.direction == "CW" else -half)) % 360.0
        return middle


@dataclass(frozen=True, eq=False)
class ArcBixels:
    """The bixels of all segments of arcs: of each leaf row, those that a leaf end of the segment can come to.

    They are counted through by segment, row and column; segments without beam have none.

    Parameters
    ----------
    arcs : tuple of Arc
        In the order of delivery; segments and control points are counted through.
    edges : array of shape (columns + 1,)
        Edges of the bixels along the leaves [mm].
    pairs : array of shape (rows,)
        Which leaf pair every row is.
    places : array of shape (points, rows, 2)
        Lowest and highest place of the leaf ends of each row at each control point [mm].
    isocentre : array of shape (3,)
        World position [mm].
    """

    arcs: tuple[Arc, ...]
    edges: Floats
    pairs: Ints
    places: Floats
    isocentre: Floats

    @property
    def segments(self) -> int:
        """Number of segments of all arcs."""
        return sum(arc.segments for arc in self.arcs)

    @property
    def points(self) -> int:
        """Number of control points of all arcs."""
        return self.segments + len(self.arcs)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.pairs.size)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self.edges.size - 1)

    @cached_property
    def arc_of(self) -> Ints:
        """The arc that each segment belongs to (segments,)."""
        return np.repeat(np.arange(len(self.arcs)), [arc.segments for arc in self.arcs])

    @cached_property
    def lit(self) -> Bools:
        """Whether the beam is on in each segment (segments,)."""
        return np.concatenate([arc.lit for arc in self.arcs])

    @cached_property
    def begin(self) -> Ints:
        """The control point where each segment begins (segments,); it ends at the next."""
        return np.arange(self.segments) + self.arc_of

    @cached_property
    def travel(self) -> Floats:
        """How far the gantry turns in each segment (segments,) [degree]."""
        return np.concatenate([arc.travel for arc in self.arcs])

    @cached_property
    def window(self) -> Ints:
        """First column of each row in each segment and one past its last (segments, rows, 2)."""
        before, after = self.places[self.begin], self.places[self.begin + 1]
        low, high = np.minimum(before, after)[..., 0], np.maximum(before, after)[..., 1]
        first = np.floor((low - self.edges[0] + _ROUNDING) / _WIDTH)
        stop = np.ceil((high - self.edges[0] - _ROUNDING) / _WIDTH)
        columns: Ints = np.clip(np.stack([first, stop], axis=-1), 0, self.columns).astype(np.int64)
        return np.where(self.lit[:, None, None], columns, 0)

    @cached_property
    def starts(self) -> Ints:
        """Where the bixels of each row of each segment begin, and the end of all (segments * rows + 1,)."""
        return np.concatenate([[0], np.cumsum((self.window[..., 1] - self.window[..., 0]).reshape(-1))])

    @property
    def count(self) -> int:
        """Number of bixels."""
        return int(self.starts[-1])

    @cached_property
    def lines(self) -> Ints:
        """The row of each bixel among the rows of all segments (bixels,): segment times rows plus row."""
        return np.repeat(np.arange(self.starts.size - 1), np.diff(self.starts))

    @cached_property
    def segment(self) -> Ints:
        """The segment of each bixel (bixels,)."""
        return self.lines // self.rows

    @cached_property
    def column(self) -> Ints:
        """The column of each bixel (bixels,)."""
        first = self.window.reshape(-1, 2)[self.lines, 0]
        columns: Ints = np.arange(self.count) - self.starts[self.lines] + first
        return columns

    def row_slice(self, segment: int, row: int) -> slice:
        """Return where the bixels of a row of a segment lie."""
        line = segment * self.rows + row
        return slice(int(self.starts[line]), int(self.starts[line + 1]))

    def segment_slice(self, segment: int) -> slice:
        """Return where the bixels of a segment lie."""
        return slice(int(self.starts[segment * self.rows]), int(self.starts[(segment + 1) * self.rows]))

    def row_edges(self, segment: int, row: int) -> Floats:
        """Return the edges of the bixels of a row of a segment [mm]."""
        first, stop = self.window[segment, row]
        edges: Floats = self.edges[first : stop + 1]
        return edges

    def spread(self, values: Floats, segment: int, elsewhere: float = 0.0) -> Floats:
        """Return values (bixels,) of a segment on all rows and columns (rows, columns)."""
        own = self.segment_slice(segment)
        whole = np.full((self.rows, self.columns), elsewhere)
        whole[self.lines[own] - segment * self.rows, self.column[own]] = values[own]
        return whole

    def swept(self, leaves: Floats, offset: float) -> Floats:
        """Return the mean open share of every bixel (bixels,) for leaf ends (points, rows, 2) [mm].

        Leaves let through what lies up to `offset` beyond their ends [mm].
        """
        low, high = self.edges[self.column], self.edges[self.column + 1]
        row, begin = self.lines % self.rows, self.begin[self.segment]
        before, after = leaves[begin, row], leaves[begin + 1, row]
        second = filled(before[:, 1] + offset, after[:, 1] + offset, low, high)
        first = filled(before[:, 0] - offset, after[:, 0] - offset, low, high)
        shares: Floats = (second - first) / _WIDTH
        return shares

    def leaf_bounds(self, span: float) -> tuple[Floats, Floats]:
        """Return lowest and highest places of the leaf ends (points, rows, 2) [mm].

        Leaves of one bank stay within `span` over a whole arc, since its carriage stands: those of the first bank on
        the side where they come from, those of the second on the other.

        Raises
        ------
        InputError
            When leaves could not come to all of the target then.
        """
        lower, upper = (np.repeat(self.places[..., side, None], 2, axis=2) for side in (0, 1))
        for number, arc in enumerate(self.arcs):
            first = int(self.begin[self.arc_of == number][0])
            own = slice(first, first + arc.segments + 1)
            upper[own, :, 0] = np.minimum(upper[own, :, 0], lower[own].min() + span)
            lower[own, :, 1] = np.maximum(lower[own, :, 1], upper[own, :, 1].max() - span)
            missing = float(np.max(lower[own] - upper[own]))
            if missing > 0.0:
                raise InputError(
                    f"arc {number + 1}: leaves of one bank stay within {span:g} mm, which is {missing:.0f} mm too few "
                    "to come to all of the target: turn the collimator, or plan with several isocentres"
                )
        return lower, upper


def arc_bixels(
    patient: Patient,
    targets: Sequence[str],
    machine: PhotonMachine,
    mlc: MLC,
    arcs: Sequence[Arc],
    isocentre: Floats,
    limits: MachineLimits,
    margin: float = 5.0,
) -> ArcBixels:
    """Return the bixels that see targets, or lie nearer to their projection than a margin.

    Parameters
    ----------
    patient, machine, mlc : Patient, PhotonMachine, MLC
        For whom and with what.
    targets : sequence of str
        What is treated.
    arcs : sequence of Arc
        Where they go.
    isocentre : array of shape (3,)
        World position [mm].
    limits : MachineLimits
        How leaves move, and the gantry at its fastest.
    margin : float
        Growth of the projection [mm].

    Raises
    ------
    InputError
        When the targets reach beyond the leaves.
    """
    grid = patient.ct.grid
    points = grid.points(np.unique(np.concatenate([patient.structures[name].voxels for name in targets])))
    spans = []
    for arc in arcs:
        outlines = []
        for gantry in arc.gantry:
            rotation = beam_rotation(gantry, arc.couch, arc.collimator, patient.patient_position)
            x, y, _ = isocentre_plane(world_to_beam(points, isocentre, rotation), machine.sad)
            outlines.append(_outline(x, y, mlc.boundaries, margin))
        spans.append(np.stack(outlines))
    seen = np.concatenate(spans)
    pairs = np.flatnonzero(np.isfinite(seen[..., 0]).any(axis=0))
    _check_reach(seen, pairs, mlc, limits)
    speed = limits.leaf_speed / limits.gantry_speed
    travel = [np.where(arc.lit, speed * arc.travel, _ANYWHERE) for arc in arcs]
    gap, widest = limits.dynamic_gap, float(seen[..., 1].max() - seen[..., 0].min())
    if gap > widest:
        raise InputError(
            f"leaf pairs of {limits.name} stay {gap:g} mm apart, more than the target's {widest:.0f} mm: "
            "they cannot shape it"
        )
    places = [_followable(span[:, pairs], way, gap) for span, way in zip(spans, travel, strict=True)]
    ends = np.concatenate(places)
    edges = np.arange(np.floor(ends.min() / _WIDTH), np.ceil(ends.max() / _WIDTH) + 1.0) * _WIDTH
    return ArcBixels(tuple(arcs), edges, pairs, ends, isocentre)


def _outline(x: Floats, y: Floats, boundaries: Floats, margin: float) -> Floats:
    """Return how far points reach along each leaf pair (pairs, 2), grown by a margin [mm]; infinite where none is."""
    strip = np.floor(y / _PIXEL).astype(np.int64)
    first = int(strip.min())
    low, high = np.full(int(strip.max()) - first + 1, np.inf), np.full(int(strip.max()) - first + 1, -np.inf)
    np.minimum.at(low, strip - first, x)
    np.maximum.at(high, strip - first, x)
    begin = np.floor((boundaries[:-1] - margin) / _PIXEL).astype(np.int64) - first
    stop = np.ceil((boundaries[1:] + margin) / _PIXEL).astype(np.int64) - first
    ends = np.full((boundaries.size - 1, 2), [np.inf, -np.inf])
    for pair, (one, other) in enumerate(zip(np.maximum(begin, 0), np.maximum(stop, 0), strict=True)):
        if low[one:other].size and np.isfinite(low[one:other]).any():
            ends[pair] = low[one:other].min() - margin, high[one:other].max() + margin
    return ends


def _check_reach(seen: Floats, pairs: Ints, mlc: MLC, limits: MachineLimits) -> None:
    """Refuse targets (points, pairs, 2) beyond the outermost leaves or farther than leaves travel."""
    first, last = mlc.boundaries[pairs[0]], mlc.boundaries[pairs[-1] + 1]
    if pairs[0] == 0 or pairs[-1] == mlc.pairs - 1:
        raise InputError(
            f"the target with its margin reaches from {first:g} to {last:g} mm or farther across the leaves, but MLC "
            f"{mlc.name!r} from {mlc.boundaries[0]:g} to {mlc.boundaries[-1]:g} mm: turn the collimator or move the "
            "isocentre"
        )
    low, high, reach = float(seen[..., 0].min()), float(seen[..., 1].max()), min(limits.leaf_travel)
    if low < -reach or high > reach:
        raise InputError(
            f"the target with its margin reaches from {low:.0f} to {high:.0f} mm along the leaves, beyond the "
            f"{reach:g} mm that leaves of MLC {mlc.name!r} travel"
        )


def _followable(span: Floats, travel: Floats, gap: float) -> Floats:
    """Return bounds (points, rows, 2) no narrower than given that move no farther than leaves (points - 1,) [mm].

    Where a row sees nothing, a pair stands between the places where it does; a pair at its gap fits in everywhere.
    """
    least = 0.5 * max(_WIDTH, gap)
    points, number = np.arange(span.shape[0]), span.shape[1]
    low, high = span[..., 0].copy(), span[..., 1].copy()
    for row in range(number):
        known = np.isfinite(low[:, row])
        if not known.any():
            low[:, row], high[:, row] = -least, least
            continue
        middle = np.interp(points, points[known], 0.5 * (low[known, row] + high[known, row]))
        low[~known, row], high[~known, row] = np.inf, -np.inf
        low[:, row], high[:, row] = np.minimum(low[:, row], middle - least), np.maximum(high[:, row], middle + least)
    return no_faster(np.stack([low, high], axis=-1), travel)


def no_faster(spans: Floats, travel: Floats) -> Floats:
    """Return the narrowest spans (points, k, 2) about given ones whose ends move no farther than `travel` [mm].

    Travel between control points is of shape (points - 1,); ends are whole multiples of 0.01 mm.

    >>> spans = np.asarray([[[-1.0, 1.0]], [[-9.0, 9.0]], [[-1.0, 1.0]]])
    >>> no_faster(spans, np.asarray([3.0, 3.0]))[:, 0, 1].tolist()
    [6.0, 9.0, 6.0]
    """
    low, high = np.floor(spans[..., 0] / _STEP) * _STEP, np.ceil(spans[..., 1] / _STEP) * _STEP
    way = np.concatenate([[0.0], np.cumsum(np.floor(travel / _STEP) * _STEP)])
    apart = np.abs(way[:, None] - way[None, :])[..., None]
    bounds = np.stack([np.min(low[None] + apart, axis=1), np.max(high[None] - apart, axis=1)], axis=-1)
    whole: Floats = np.round(bounds / _STEP) * _STEP
    return whole


def bixel_beams(
    patient: Patient, machine: PhotonMachine, mlc: MLC, bixels: ArcBixels, segments: Sequence[int]
) -> tuple[Beams, Ints]:
    """Return a beam for each lit one of some segments and, for each square bixel, which bixel of all it is part of.

    Leaf pairs wider than a bixel hold several squares, and columns as many as it takes where leaves are narrow.
    """
    width, centres, rows, columns = _squares(mlc, bixels.edges, bixels.pairs)
    rays, parts, segments = [], [], [segment for segment in segments if bixels.lit[segment]]
    for segment in segments:
        first, stop = bixels.window[segment, rows].T
        inside = (columns >= first) & (columns < stop)
        line = segment * bixels.rows + rows[inside]
        parts.append(bixels.starts[line] + columns[inside] - first[inside])
        rays.append(centres[inside])
    arcs = [bixels.arcs[bixels.arc_of[segment]] for segment in segments]
    middles = np.concatenate([arc.middles for arc in bixels.arcs])
    beams = Beams.from_rays(
        rays,
        gantry=[float(middles[segment]) for segment in segments],
        couch=[arc.couch for arc in arcs],
        collimator=[arc.collimator for arc in arcs],
        isocenter=bixels.isocentre,
        sad=machine.sad,
        bixel_width=width,
        machine=machine.name,
        patient_position=patient.patient_position,
    )
    return beams, np.concatenate(parts)


def _squares(mlc: MLC, edges: Floats, pairs: Ints) -> tuple[float, Floats, Ints, Ints]:
    """Return width and centres (n, 2) [mm] of square bixels on all rows, and the row and column each lies in.

    >>> from radplan.machines.mlc import library_mlc
    >>> width, centres, rows, columns = _squares(library_mlc("HD 120"), np.asarray([0.0, 5.0]), np.asarray([30]))
    >>> width, centres.tolist(), rows.tolist(), columns.tolist()
    (2.5, [[1.25, 1.25], [3.75, 1.25]], [0, 0], [0, 0])
    """
    width = float(min(edges[1] - edges[0], mlc.widths[pairs].min()))
    along = edges[0] + width * (np.arange(round((edges[-1] - edges[0]) / width)) + 0.5)
    columns = np.searchsorted(edges, along) - 1
    across = [np.arange(mlc.boundaries[p] + 0.5 * width, mlc.boundaries[p + 1], width) for p in pairs]
    centres = np.concatenate([[(x, y) for y in ys for x in along] for ys in across])
    rows = np.repeat(np.arange(pairs.size), [ys.size * along.size for ys in across])
    return width, centres, rows, np.tile(columns, sum(ys.size for ys in across))
