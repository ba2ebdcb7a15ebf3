"""The matrix that arcs are searched on: bixels of every segment of every arc, dense, on sampled voxels.

Target voxels see nearly every bixel of an arc, so that the matrix is dense and two BLAS products evaluate a plan.
Voxels are sampled: all of targets and small organs, fewer of the body the farther they lie from the target, their
shares divided by the probability that they are in the sample.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beams
from radplan.beams.control_points import Direction
from radplan.delivery.bixel_apertures import filled
from radplan.engines import dose_influence
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.geometry.grid import Grid
from radplan.influence import Dij, Variables
from radplan.influence.rows import Rows
from radplan.machines.mlc import MLC
from radplan.machines.photon import PhotonMachine
from radplan.operators import DenseOperator, SparseOperator
from radplan.patient.patient import Patient

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Members = dict[str, tuple[Ints, Floats]]

_WIDTH = 5.0
"""Width of a bixel along the leaves [mm]."""

_NEAR = ((10.0, 0.5), (30.0, 1.0 / 12.0), (np.inf, 1.0 / 80.0))
"""Probability of body voxels in the sample by their distance from the target [mm]."""

_FEW, _MANY_TARGET = 1500, 4000
"""Organs with fewer voxels than the first, and targets with fewer than the second, are taken whole."""

_MEMORY = 4e9
"""Size of the matrix above which fewer voxels are sampled [bytes]."""

_BATCH = 15
"""Segments whose sparse matrix is held at a time."""


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

    >>> arc = Arc(np.asarray([358.0, 2.0]), 0.0, 0.0, "CW")
    >>> arc.travel.tolist(), arc.middles.tolist()
    ([4.0], [0.0])
    """

    gantry: Floats
    collimator: float
    couch: float
    direction: Direction

    @property
    def segments(self) -> int:
        """Number of segments n."""
        return int(self.gantry.size - 1)

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
class ArcMatrix:
    """Dose of the bixels of all segments, and where they lie.

    Parameters
    ----------
    arcs : tuple of Arc
        In the order of delivery; segments and control points are counted through.
    values : array of shape (segments, rows, columns, voxels)
        Dose per fraction and monitor unit, float32 [Gy].
    edges : array of shape (columns + 1,)
        Edges of the bixels along the leaves [mm].
    pairs : array of shape (rows,)
        Which leaf pair every row is.
    grid : Grid
        The dose grid.
    voxels : array of shape (voxels,)
        Sorted flat indices into it.
    members : dict of str to (voxels, shares)
        The sampled voxels of every structure and their shares, which sum to 1.
    isocentre : array of shape (3,)
        World position [mm].
    transmission, leaf_offset : float
        Of the collimator; the latter in mm.
    """

    arcs: tuple[Arc, ...]
    values: Singles
    edges: Floats
    pairs: Ints
    grid: Grid
    voxels: Ints
    members: Members
    isocentre: Floats
    transmission: float
    leaf_offset: float

    @property
    def segments(self) -> int:
        """Number of segments of all arcs."""
        return int(self.values.shape[0])

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.values.shape[1])

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self.values.shape[2])

    @cached_property
    def arc_of(self) -> Ints:
        """The arc that each segment belongs to (segments,)."""
        return np.repeat(np.arange(len(self.arcs)), [arc.segments for arc in self.arcs])

    @cached_property
    def begin(self) -> Ints:
        """The control point where each segment begins (segments,); it ends at the next."""
        return np.arange(self.segments) + self.arc_of

    @property
    def points(self) -> int:
        """Number of control points of all arcs."""
        return self.segments + len(self.arcs)

    @cached_property
    def travel(self) -> Floats:
        """How far the gantry turns in each segment (segments,) [degree]."""
        return np.concatenate([arc.travel for arc in self.arcs])

    def swept(self, leaves: Floats) -> Floats:
        """Return the mean open share of every bixel (segments, rows, columns) for leaf ends (points, rows, 2) [mm]."""
        below = self._below(leaves[..., 0] - self.leaf_offset)
        shares: Floats = (self._below(leaves[..., 1] + self.leaf_offset) - below) / np.diff(self.edges)
        return shares

    def _below(self, ends: Floats) -> Floats:
        """Return how much of every bixel lies below leaf ends (points, rows), on average over each segment [mm]."""
        first, last = ends[self.begin][..., None], ends[self.begin + 1][..., None]
        share: Floats = filled(first, last, self.edges[:-1], self.edges[1:])
        return share

    def fluence(self, shares: Floats) -> Floats:
        """Return the fluence per monitor unit behind leaves of given open shares, of the same shape."""
        return self.transmission + (1.0 - self.transmission) * shares

    def dose(self, mu: Floats, leaves: Floats) -> Floats:
        """Return the dose (voxels,) of monitor units (segments,) behind leaf ends (points, rows, 2) [Gy]."""
        weights = (mu[:, None, None] * self.fluence(self.swept(leaves))).astype(np.float32).reshape(-1)
        return (weights @ self.values.reshape(-1, self.voxels.size)).astype(np.float64)

    def columns_of(self, shares: Floats) -> Singles:
        """Return the dose per monitor unit of each segment (segments, voxels) for open shares of its bixels [Gy]."""
        fluence = self.fluence(shares).astype(np.float32).reshape(self.segments, -1)
        return np.stack([fluence[s] @ self.values[s].reshape(-1, self.voxels.size) for s in range(self.segments)])

    def pulled(self, cotangent: Floats) -> Floats:
        """Return the derivative of a cost by the weight of every bixel (segments, rows, columns)."""
        flat = self.values.reshape(-1, self.voxels.size) @ cotangent.astype(np.float32)
        return flat.astype(np.float64).reshape(self.values.shape[:3])

    @cached_property
    def dij(self) -> Dij:
        """The matrix as a forward model whose weights are the bixels, without copying it."""
        matrix = self.values.reshape(-1, self.voxels.size).T
        parameters = {"rbe": np.ones((1, self.voxels.size))}
        rows = Rows.of(self.grid, self.voxels, parameters, dtype="float32")
        return Dij({"physical_dose": (DenseOperator(matrix),)}, rows, "photons", Variables(matrix.shape[1]))


def arc_matrix(
    patient: Patient,
    machine: PhotonMachine,
    mlc: MLC,
    arcs: Sequence[Arc],
    structures: Sequence[str],
    isocentre: Floats,
    grid: Grid,
    margin: float = 5.0,
    seed: int = 0,
    targets: Sequence[str] = (),
) -> ArcMatrix:
    """Return the matrix of arcs: bixels over the targets' projections grown by a margin, rows of leaf pairs.

    Parameters
    ----------
    patient, machine, mlc : Patient, PhotonMachine, MLC
        For whom and with what.
    arcs : sequence of Arc
        Where they go.
    structures : sequence of str
        Structures that have goals; seen after overlap among them.
    isocentre : array of shape (3,)
        World position [mm].
    grid : Grid
        The dose grid.
    margin : float
        Growth of the targets' projection [mm].
    seed : int
        Of the sample.
    targets : sequence of str
        What is treated; the patient's `target_names` when empty.
    """
    names = tuple(targets) or patient.target_names
    edges, pairs = _field_of(patient, names, machine, mlc, arcs, isocentre, margin)
    bixels = sum(arc.segments for arc in arcs) * pairs.size * (edges.size - 1)
    members, rows = sampled_members(patient, grid, structures, names, seed, round(_MEMORY / (4 * bixels)))
    values = np.empty((sum(arc.segments for arc in arcs), pairs.size, edges.size - 1, rows.size), dtype=np.float32)
    first = 0
    for arc in arcs:
        block = values[first : first + arc.segments]
        _fill(block, patient, machine, arc, isocentre, grid, rows, segment_bixels(mlc, edges, pairs))
        first += arc.segments
    return ArcMatrix(
        tuple(arcs), values, edges, pairs, grid, rows, members, isocentre, mlc.transmission, mlc.leaf_offset
    )


def sampled_members(
    patient: Patient,
    grid: Grid,
    structures: Sequence[str],
    targets: Sequence[str],
    seed: int,
    most: int | None = None,
) -> tuple[Members, Ints]:
    """Return sampled voxels and shares of structures, and the sorted union of all voxels.

    Where about so many voxels or more would be sampled as may be at most, all structures are sampled less, which a
    warning says: goals are then judged on less than they should be.
    """
    from scipy.spatial import KDTree

    random, body = np.random.default_rng(seed), patient.body_voxels(grid)
    whole = {
        name: patient.structure_weights(name, grid, voxels=body, overlap_with=list(structures)) for name in structures
    }
    aims = [patient.structure_weights(name, grid, voxels=body)[0] for name in targets]
    near = KDTree(grid.points(np.unique(np.concatenate(aims))))
    chances = {}
    for name, (voxels, _) in whole.items():
        chance = np.ones(voxels.size)
        if name in targets:
            chance *= min(1.0, _MANY_TARGET / voxels.size)
        elif voxels.size > _FEW:
            away = near.query(grid.points(voxels), distance_upper_bound=31.0)[0]
            chance = np.select([away <= limit for limit, _ in _NEAR], [share for _, share in _NEAR], _NEAR[-1][1])
            chance = np.minimum(chance * max(1.0, _FEW / chance.sum()), 1.0)
        chances[name] = chance
    expected = sum(float(chance.sum()) for chance in chances.values())
    thinned = 1.0 if most is None else min(1.0, most / expected)
    if thinned < 1.0:
        logger.warning(
            "the arcs would need %.0f voxels, %d fit into %.0f GB: a larger spacing of control points or another "
            "collimator angle leaves more", expected, most, _MEMORY / 1e9,
        )  # fmt: skip
    members: Members = {}
    for name, (voxels, shares) in whole.items():
        chance = thinned * chances[name]
        kept = random.random(voxels.size) < chance
        kept[int(np.argmax(chance))] = True
        corrected = shares[kept] / chance[kept]
        members[name] = voxels[kept], corrected / corrected.sum()
    return members, np.unique(np.concatenate([voxels for voxels, _ in members.values()]))


def _field_of(
    patient: Patient,
    targets: Sequence[str],
    machine: PhotonMachine,
    mlc: MLC,
    arcs: Sequence[Arc],
    isocentre: Floats,
    margin: float,
) -> tuple[Floats, Ints]:
    """Return the edges of bixels along the leaves and the leaf pairs that see a target in any segment."""
    grid = patient.ct.grid
    points = np.concatenate([grid.points(patient.structures[name].voxels) for name in targets])
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for arc in arcs:
        for gantry in arc.middles:
            rotation = beam_rotation(gantry, arc.couch, arc.collimator, patient.patient_position)
            x, y, _ = isocentre_plane(world_to_beam(points, isocentre, rotation), machine.sad)
            low = np.minimum(low, [x.min() - margin, y.min() - margin])
            high = np.maximum(high, [x.max() + margin, y.max() + margin])
    if low[1] < mlc.boundaries[0] or high[1] > mlc.boundaries[-1]:
        raise InputError(
            f"the target reaches from {low[1]:.0f} to {high[1]:.0f} mm across the leaves, but MLC {mlc.name!r} from "
            f"{mlc.boundaries[0]:g} to {mlc.boundaries[-1]:g} mm: turn the collimator or move the isocentre"
        )
    edges = np.arange(np.floor(low[0] / _WIDTH), np.ceil(high[0] / _WIDTH) + 1.0) * _WIDTH
    pairs = np.flatnonzero((mlc.boundaries[1:] > low[1]) & (mlc.boundaries[:-1] < high[1]))
    reach = min(mlc.travel)
    if edges[0] < -reach or edges[-1] > reach:
        raise InputError(
            f"the target reaches from {edges[0]:g} to {edges[-1]:g} mm along the leaves, beyond the {reach:g} mm that "
            f"leaves of MLC {mlc.name!r} travel"
        )
    return edges, pairs


def segment_bixels(mlc: MLC, edges: Floats, pairs: Ints) -> tuple[float, Floats, Ints, Ints]:
    """Return width and centres (n, 2) [mm] of the square bixels of a segment, and the row and column each lies in.

    Leaf pairs wider than a bixel hold several, and columns as many as it takes where leaves are narrow.

    >>> from radplan.machines.mlc import library_mlc
    >>> width, centres, rows, columns = segment_bixels(library_mlc("HD 120"), np.asarray([0.0, 5.0]), np.asarray([30]))
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


def arc_beams(
    patient: Patient, machine: PhotonMachine, arc: Arc, angles: Floats, isocentre: Floats, bixels: tuple[float, Floats]
) -> Beams:
    """Return beams at some angles of an arc, all with the same bixels: their width and centres (n, 2) [mm]."""
    return Beams.from_rays(
        [bixels[1]] * angles.size,
        gantry=list(angles),
        couch=arc.couch,
        collimator=arc.collimator,
        isocenter=isocentre,
        sad=machine.sad,
        bixel_width=bixels[0],
        machine=machine.name,
        patient_position=patient.patient_position,
    )


def _fill(
    block: Singles,
    patient: Patient,
    machine: PhotonMachine,
    arc: Arc,
    isocentre: Floats,
    grid: Grid,
    voxels: Ints,
    bixels: tuple[float, Floats, Ints, Ints],
) -> None:
    """Write the dose of the bixels of one arc, as `segment_bixels` gives them, a few segments at a time."""
    width, centres, rows, columns = bixels
    cell = rows * block.shape[2] + columns
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(block.shape[1] * block.shape[2]))
    alone = cell.size == starts.size
    for first in range(0, arc.segments, _BATCH):
        angles = arc.middles[first : first + _BATCH]
        beams = arc_beams(patient, machine, arc, angles, isocentre, (width, centres))
        dij = dose_influence(patient, beams, machine, grid=grid, voxels=voxels)
        stored = cast(SparseOperator, dij.operators["physical_dose"][0])
        sparse = stored.to_scipy().T.tocsr()
        for k in range(angles.size):
            dense = sparse[k * len(centres) : (k + 1) * len(centres)].toarray()
            summed = dense if alone else np.add.reduceat(dense[order], starts, axis=0)
            block[first + k] = summed.reshape(block.shape[1:])
