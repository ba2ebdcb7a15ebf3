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
from scipy.sparse import coo_array

from radplan.delivery.arc_bixels import ArcBixels, bixel_beams
from radplan.engines import dose_influence
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

_NEAR = ((10.0, 0.5), (30.0, 1.0 / 12.0), (np.inf, 1.0 / 80.0))
"""Probability of body voxels in the sample by their distance from the target [mm]."""

_FEW, _MANY_TARGET = 1500, 4000
"""Organs with fewer voxels than the first, and targets with fewer than the second, are taken whole."""

_MEMORY = 4e9
"""Size of the matrix above which fewer voxels are sampled [bytes]."""

_BATCH = 15
"""Segments whose sparse matrix is held at a time."""


@dataclass(frozen=True, eq=False)
class ArcMatrix:
    """Dose of the bixels of all segments in sampled voxels.

    Parameters
    ----------
    bixels : ArcBixels
        Where they lie.
    values : array of shape (bixels, voxels)
        Dose per fraction and monitor unit, float32 [Gy].
    grid : Grid
        The dose grid.
    voxels : array of shape (voxels,)
        Sorted flat indices into it.
    members : dict of str to (voxels, shares)
        The sampled voxels of every structure and their shares, which sum to 1.
    transmission, leaf_offset : float
        Of the collimator; the latter in mm.
    """

    bixels: ArcBixels
    values: Singles
    grid: Grid
    voxels: Ints
    members: Members
    transmission: float
    leaf_offset: float

    def swept(self, leaves: Floats) -> Floats:
        """Return the mean open share of every bixel (bixels,) for leaf ends (points, rows, 2) [mm]."""
        return self.bixels.swept(leaves, self.leaf_offset)

    def fluence(self, shares: Floats) -> Floats:
        """Return the fluence per monitor unit behind leaves of given open shares, of the same shape."""
        return self.transmission + (1.0 - self.transmission) * shares

    def weights(self, mu: Floats, leaves: Floats) -> Floats:
        """Return the fluence (bixels,) of monitor units (segments,) behind leaf ends (points, rows, 2) [MU]."""
        given: Floats = mu[self.bixels.segment] * self.fluence(self.swept(leaves))
        return given

    def dose(self, mu: Floats, leaves: Floats) -> Floats:
        """Return the dose (voxels,) of monitor units (segments,) behind leaf ends (points, rows, 2) [Gy]."""
        return (self.weights(mu, leaves).astype(np.float32) @ self.values).astype(np.float64)

    def columns_of(self, shares: Floats) -> Singles:
        """Return the dose per monitor unit of each segment (segments, voxels) for open shares of its bixels [Gy]."""
        return np.stack([self.segment_dose(s, shares) for s in range(self.bixels.segments)])

    def segment_dose(self, segment: int, shares: Floats) -> Singles:
        """Return the dose (voxels,) per monitor unit of one segment for open shares (bixels,) [Gy]."""
        own = self.bixels.segment_slice(segment)
        dose: Singles = self.fluence(shares[own]).astype(np.float32) @ self.values[own]
        return dose

    def pulled(self, cotangent: Floats) -> Floats:
        """Return the derivative of a cost by the weight of every bixel (bixels,)."""
        return (self.values @ cotangent.astype(np.float32)).astype(np.float64)

    @cached_property
    def dij(self) -> Dij:
        """The matrix as a forward model whose weights are the bixels, without copying it."""
        matrix = self.values.T
        parameters = {"rbe": np.ones((1, self.voxels.size))}
        rows = Rows.of(self.grid, self.voxels, parameters, dtype="float32")
        return Dij({"physical_dose": (DenseOperator(matrix),)}, rows, "photons", Variables(matrix.shape[1]))


def arc_matrix(
    patient: Patient,
    machine: PhotonMachine,
    mlc: MLC,
    bixels: ArcBixels,
    structures: Sequence[str],
    targets: Sequence[str],
    grid: Grid,
    seed: int = 0,
) -> ArcMatrix:
    """Return the matrix of arcs.

    Parameters
    ----------
    patient, machine, mlc : Patient, PhotonMachine, MLC
        For whom and with what.
    bixels : ArcBixels
        Where bixels lie.
    structures : sequence of str
        Structures that have goals; seen after overlap among them.
    targets : sequence of str
        What is treated: sampled densely.
    grid : Grid
        The dose grid.
    seed : int
        Of the sample.
    """
    members, rows = sampled_members(patient, grid, structures, targets, seed, round(_MEMORY / (4 * bixels.count)))
    values = np.zeros((bixels.count, rows.size), dtype=np.float32)
    for first in range(0, bixels.segments, _BATCH):
        segments = range(first, min(first + _BATCH, bixels.segments))
        beams, parts = bixel_beams(patient, machine, mlc, bixels, segments)
        dij = dose_influence(patient, beams, machine, grid=grid, voxels=rows)
        squares = cast(SparseOperator, dij.operators["physical_dose"][0]).to_scipy().T.tocsr()
        start, stop = int(parts.min()), int(parts.max()) + 1
        if parts.size != stop - start:
            whole = np.ones(parts.size, dtype=np.float32), (parts - start, np.arange(parts.size))
            squares = coo_array(whole).tocsr() @ squares
        values[start:stop] = squares.toarray()
    return ArcMatrix(bixels, values, grid, rows, members, mlc.transmission, mlc.leaf_offset)


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
    chances, missed = {}, np.ones(grid.size)
    for name, (voxels, _) in whole.items():
        chance = np.ones(voxels.size)
        if name in targets:
            chance *= min(1.0, _MANY_TARGET / voxels.size)
        elif voxels.size > _FEW:
            away = near.query(grid.points(voxels), distance_upper_bound=31.0)[0]
            chance = np.select([away <= limit for limit, _ in _NEAR], [share for _, share in _NEAR], _NEAR[-1][1])
            chance = np.minimum(chance * max(1.0, _FEW / chance.sum()), 1.0)
        chances[name] = chance
        missed[voxels] *= 1.0 - chance
    expected = float(np.sum(1.0 - missed))
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
