"""Multileaf collimators: where the leaves lie and what they let through; `MachineLimits` says how they move."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError, UnknownNameError

Floats = npt.NDArray[np.float64]

_SAME_BOUNDARY = 0.05
"""Largest departure of leaf boundaries of the same collimator [mm]."""

_SAME_EDGE = 1e-6
"""Distance below which edges of rows and leaves count as equal [mm]."""


@dataclass(frozen=True, eq=False)
class MLC:
    r"""The geometry and dosimetry of a multileaf collimator, all lengths in the isocentre plane.

    How far and how fast leaves go is a matter of the linac: `radplan.machines.MachineLimits`.

    The end of a leaf at position x blocks the fluence up to :math:`x \mp \delta`: a rounded end lets :math:`\delta`
    more through on either side, so that a pair is :math:`2\delta` (the dosimetric leaf gap) wider than it says.

    Parameters
    ----------
    name : str
        What users call it.
    boundaries : array of shape (n + 1,)
        Increasing edges of the n leaf pairs across their motion [mm].
    transmission : float
        Fluence behind leaves over open fluence, leakage between leaves included, in [0, 1).
    leaf_offset : float
        Delta: half the dosimetric leaf gap [mm], >= 0.
    tongue_groove : float
        Width about a boundary of leaves that the tongue of either neighbour covers, >= 0 and below the leaf width [mm].
    provenance : mapping
        Where the numbers come from; plain data.

    Raises
    ------
    InputError
        When a value is out of its range.

    >>> library_mlc("Millennium 120").pairs, library_mlc("HD 120").widths[[0, 30]].tolist()
    (60, [5.0, 2.5])
    """

    name: str
    boundaries: Floats
    transmission: float
    leaf_offset: float
    tongue_groove: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        edges = np.array(self.boundaries, dtype=np.float64)
        if edges.ndim != 1 or edges.size < 2 or not np.all(np.isfinite(edges)) or not np.all(np.diff(edges) > 0):
            raise InputError(f"MLC {self.name!r}: boundaries must be two or more increasing positions in mm")
        edges.setflags(write=False)
        object.__setattr__(self, "boundaries", edges)
        if not 0 <= self.transmission < 1:
            raise InputError(f"MLC {self.name!r}: transmission must lie in [0, 1), got {self.transmission}")
        if not 0 <= self.leaf_offset < np.inf:
            raise InputError(f"MLC {self.name!r}: leaf_offset must be >= 0 mm, got {self.leaf_offset}")
        if not 0 <= self.tongue_groove < np.diff(edges).min():
            raise InputError(
                f"MLC {self.name!r}: tongue_groove must be >= 0 mm and below the width of the leaves, "
                f"got {self.tongue_groove}"
            )

    @property
    def pairs(self) -> int:
        """Number of leaf pairs."""
        return int(self.boundaries.size - 1)

    @property
    def widths(self) -> Floats:
        """Widths of the leaf pairs (n,) [mm]."""
        return np.diff(self.boundaries)

    def fits(self, boundaries: npt.ArrayLike) -> bool:
        """Return whether leaf boundaries [mm] are those of this collimator."""
        given = np.asarray(boundaries, dtype=np.float64)
        return given.shape == self.boundaries.shape and bool(np.all(np.abs(given - self.boundaries) <= _SAME_BOUNDARY))

    def straddles(self, low: float, high: float) -> bool:
        """Return whether a row from one position to another [mm] is neither whole leaf pairs nor an even part of one.

        >>> library_mlc("Agility").straddles(-2.5, 2.5), library_mlc("Agility").straddles(0.0, 10.0)
        (True, False)
        """
        pair = int(np.searchsorted(self.boundaries, low + _SAME_EDGE, side="right")) - 1
        if not 0 <= pair < self.pairs:
            return True
        begin, end = self.boundaries[pair], self.boundaries[pair + 1]
        whole = abs(low - begin) <= _SAME_EDGE and np.min(np.abs(self.boundaries - high)) <= _SAME_EDGE
        parts, before = (end - begin) / (high - low), (low - begin) / (high - low)
        even = parts > 1 and max(abs(parts - round(parts)), abs(before - round(before))) < _SAME_EDGE
        return not (whole or even)

    def row_edges(self, width: float) -> Floats:
        """Return the edges (n + 1,) [mm] of rows of bixels that lie on leaf pairs, across the whole collimator.

        A row is one or several whole leaf pairs, or one of several rows of a wide pair.

        Raises
        ------
        InputError
            When rows of this width [mm] would straddle leaves; the message names widths that fit.

        >>> library_mlc("Millennium 120").row_edges(5.0)[:3].tolist()
        [-200.0, -195.0, -190.0]
        """
        edges = self._rows(width)
        if edges is None:
            fitting = [f"{usual:g}" for usual in (2.5, 5.0, 10.0) if self._rows(usual) is not None]
            leaves = " and ".join(f"{leaf:g}" for leaf in np.unique(self.widths))
            raise InputError(
                f"rows of bixels of {width:g} mm straddle the leaves of MLC {self.name!r}, which are {leaves} mm wide; "
                f"widths that fit: {', '.join(fitting) or 'none of 2.5, 5 and 10'} mm"
            )
        return edges

    def _rows(self, width: float) -> Floats | None:
        first, last = float(self.boundaries[0]), float(self.boundaries[-1])
        edges: Floats = np.asarray(first + width * np.arange(round((last - first) / width) + 1), dtype=np.float64)
        if edges.size < 2 or abs(edges[-1] - last) > _SAME_EDGE:
            return None
        return None if any(self.straddles(a, b) for a, b in itertools.pairwise(edges)) else edges


def _edges(*runs: tuple[int, float]) -> Floats:
    """Return boundaries symmetric about the axis of runs of (leaf pairs, width [mm])."""
    widths = np.concatenate([np.full(count, width) for count, width in runs])
    return np.asarray(np.concatenate([[0.0], np.cumsum(widths)]) - widths.sum() / 2)


MLCS: Mapping[str, MLC] = {
    collimator.name: collimator
    for collimator in (
        MLC(
            name="Millennium 120",
            boundaries=_edges((10, 10.0), (40, 5.0), (10, 10.0)),
            transmission=0.015,
            leaf_offset=0.7,
            tongue_groove=0.8,
            provenance={
                "geometry": "60 pairs: 10 x 10 mm, 40 x 5 mm, 10 x 10 mm",
                "transmission": "6 MV: 1.2 to 1.8 % in use, 1.5 % taken; commission your own",
                "leaf_offset": "dosimetric leaf gap 1.2 to 1.7 mm at 6 MV in use, 1.4 mm taken; commission your own",
                "tongue_groove": "estimate: a leaf side that faces an opening blocks 0.4 mm more; commission your own",
            },
        ),
        MLC(
            name="HD 120",
            boundaries=_edges((14, 5.0), (32, 2.5), (14, 5.0)),
            transmission=0.012,
            leaf_offset=0.35,
            tongue_groove=0.7,
            provenance={
                "geometry": "60 pairs: 14 x 5 mm, 32 x 2.5 mm, 14 x 5 mm",
                "transmission": "6 MV: 1.0 to 1.4 % in use, 1.2 % taken; commission your own",
                "leaf_offset": "dosimetric leaf gap 0.4 to 1.0 mm in use, 0.7 mm taken; commission your own",
                "tongue_groove": "estimate: a leaf side that faces an opening blocks 0.35 mm more; commission your own",
            },
        ),
        MLC(
            name="Agility",
            boundaries=_edges((80, 5.0)),
            transmission=0.005,
            leaf_offset=0.15,
            tongue_groove=0.6,
            provenance={
                "geometry": "80 pairs of 5 mm; Bedford et al., J. Appl. Clin. Med. Phys. 14 (2013)",
                "transmission": "below 0.5 %, Bedford et al. 2013; 0.5 % taken; commission your own",
                "leaf_offset": "rounded tip, 0.2 to 0.5 mm of gap in use, 0.3 mm taken; commission your own",
                "tongue_groove": "estimate: a leaf side that faces an opening blocks 0.3 mm more; commission your own",
            },
        ),
    )
}
"""The collimators that radplan describes, by name."""


def library_mlc(name: str) -> MLC:
    """Return the multileaf collimator of a name; upper and lower case, blanks, ``-`` and ``_`` do not matter.

    Raises
    ------
    UnknownNameError
        When there is none of that name; the message offers the nearest.

    >>> library_mlc("agility").boundaries[:2].tolist()
    [-200.0, -195.0]
    """
    known = {_folded(key): value for key, value in MLCS.items()}
    if _folded(name) not in known:
        raise UnknownNameError("multileaf collimator", name, MLCS)
    return known[_folded(name)]


def matching_mlc(boundaries: npt.ArrayLike) -> MLC:
    """Return the multileaf collimator that has these leaf boundaries ``(n + 1,)`` [mm].

    Raises
    ------
    InputError
        When none has; the message says how to describe one.

    >>> matching_mlc(np.arange(-200.0, 201.0, 5.0)).name
    'Agility'
    """
    for collimator in MLCS.values():
        if collimator.fits(boundaries):
            return collimator
    edges = np.asarray(boundaries, dtype=np.float64)
    raise InputError(
        f"no known multileaf collimator has {edges.size - 1} pairs from {edges[0]:g} to {edges[-1]:g} mm "
        f"(known: {', '.join(MLCS)}): describe it as an MLC(...) and give that"
    )


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " -_")
