"""Fluence maps of leaf pairs: bixel weights on the leaves of a collimator, and their levels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beam
from radplan.errors import InputError
from radplan.machines.mlc import MLC

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ROUNDING = 1e-6
"""Distance below which positions count as equal [mm]."""


@dataclass(frozen=True, eq=False)
class FluenceMap:
    """Fluence behind every leaf pair, in columns of one width along the motion of the leaves.

    Parameters
    ----------
    values : array of shape (pairs, columns)
        Fluence in units of one MU of the open field, >= 0 [MU].
    edges : array of shape (columns + 1,)
        Where columns begin and end in the isocentre plane [mm].

    >>> FluenceMap(np.ones((2, 3)), np.asarray([-7.5, -2.5, 2.5, 7.5])).columns
    3
    """

    values: Floats
    edges: Floats

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self.values.shape[1])

    @property
    def rows(self) -> slice:
        """The leaf pairs from the first to the last that have any fluence."""
        some = np.flatnonzero(self.values.any(axis=1))
        return slice(int(some[0]), int(some[-1]) + 1) if some.size else slice(0, 0)

    def split(self, widest: float, overlap: float = 20.0) -> tuple[FluenceMap, ...]:
        """Return maps that sum to this one, each at most so wide along the leaves [mm]; itself where it is.

        Neighbours cross-fade linearly over the overlap [mm], so that no junction shows.

        Raises
        ------
        InputError
            When parts of that width would hold little but overlaps.

        >>> parts = FluenceMap(np.ones((1, 30)), 5.0 * np.arange(31.0)).split(100.0)
        >>> [np.flatnonzero(part.values[0])[[0, -1]].tolist() for part in parts]
        [[0, 16], [13, 29]]
        """
        some = np.flatnonzero(self.values.any(axis=0))
        low, high = float(self.edges[some[0]]), float(self.edges[some[-1] + 1])
        if high - low <= widest:
            return (self,)
        if widest < 3.0 * overlap:
            raise InputError(
                f"a map {high - low:.0f} mm wide cannot be split into parts of {widest:.0f} mm that overlap by "
                f"{overlap:g} mm: leaves of a bank must be able to be farther apart, or turn the collimator"
            )
        count = math.ceil((high - low - overlap) / (widest - overlap))
        middles = 0.5 * (self.edges[:-1] + self.edges[1:])
        share = np.ones((count + 1, middles.size))
        share[-1] = 0.0
        for index in range(1, count):
            cut = low + (high - low) * index / count
            share[index] = np.clip((middles - cut) / overlap + 0.5, 0.0, 1.0)
        return tuple(FluenceMap(self.values * (share[k] - share[k + 1]), self.edges) for k in range(count))


def fluence_map(beam: Beam, weights: npt.ArrayLike, mlc: MLC) -> FluenceMap:
    """Return the fluence of a beam behind every leaf pair.

    A pair that several rows of bixels share gets their mean; bixels that are not there count as 0.

    Parameters
    ----------
    beam : Beam
        Square bixels whose rows lie on leaf pairs, as ``place_beams(..., mlc=)`` makes them.
    weights : array of shape (bixels,)
        Weight of every bixel, >= 0 [MU].
    mlc : MLC
        Leaves that move along x of the collimator.

    Raises
    ------
    InputError
        When weights do not fit the beam, rows straddle leaves, or columns are not of one width.
    """
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (beam.count,) or not np.all(np.isfinite(given)) or np.any(given < 0):
        raise InputError(f"weights must be {beam.count} finite numbers >= 0, got an array of shape {given.shape}")
    x, y = beam.bixels.T
    place = (x - x.min()) / beam.bixel_width
    column = np.asarray(np.rint(place), dtype=np.int64)
    if np.max(np.abs(place - column)) * beam.bixel_width > _ROUNDING:
        raise InputError(f"the beam at gantry {beam.gantry:g}: its bixels are not on columns of one width")
    share = _shares(beam, y, mlc)
    columns = int(column.max()) + 1
    values = np.zeros((mlc.pairs, columns))
    for index in range(columns):
        here = column == index
        values[:, index] = given[here] @ share[here]
    edges = x.min() + beam.bixel_width * (np.arange(columns + 1) - 0.5)
    return FluenceMap(values, edges)


def quantised(values: Floats, levels: int) -> tuple[Ints, float]:
    r"""Return fluence as whole levels :math:`A = \mathrm{round}(L\,F / \max F)`, and what one level is worth.

    Parameters
    ----------
    values : array of any shape
        Fluence, >= 0 and somewhere > 0 [MU].
    levels : int
        L: the level of the largest fluence, >= 1.

    Raises
    ------
    InputError
        When there is no fluence, or levels are fewer than one.

    >>> quantised(np.asarray([0.0, 4.0, 14.0]), 7)
    (array([0, 2, 7]), 2.0)
    """
    if int(levels) != levels or levels < 1:
        raise InputError(f"levels must be a whole number >= 1, got {levels!r}")
    largest = float(values.max())
    if not largest > 0:
        raise InputError("the fluence map is zero everywhere: there is nothing to sequence")
    return np.asarray(np.rint(levels * values / largest), dtype=np.int64), largest / levels


def _shares(beam: Beam, y: Floats, mlc: MLC) -> Floats:
    """Return with what weight every bixel counts behind every leaf pair, (bixels, pairs)."""
    half = 0.5 * beam.bixel_width
    centres = np.unique(np.round(y, 6))
    for centre in centres:
        if mlc.straddles(centre - half, centre + half):
            raise InputError(
                f"the beam at gantry {beam.gantry:g}: the row of bixels from {centre - half:g} to {centre + half:g} mm "
                f"straddles leaves of MLC {mlc.name!r}: place beams with place_beams(..., mlc=)"
            )
    low, high = mlc.boundaries[:-1], mlc.boundaries[1:]
    overlap = np.minimum(high, y[:, None] + half) - np.maximum(low, y[:, None] - half)
    shares: Floats = np.where(overlap > _ROUNDING, overlap, 0.0) / mlc.widths
    return shares
