r"""Structures from structures: together, in common, less, either-or, and rings.

A voxel that belongs to both in part, a to one and b to the other, is taken to share as much as it can: in common
:math:`\min(a, b)`, together :math:`\max(a, b)`, less :math:`\max(0, a - b)`, either-or :math:`|a - b|`. So a structure
less itself is empty, volumes add up (:math:`|A \cup B| = |A| + |B| - |A \cap B|`), and whole voxels follow set algebra.
Where two structures only touch inside a voxel, the result is off by less than that voxel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from radplan.errors import InputError
from radplan.patient.margins import Margin, contract, expand
from radplan.patient.structures import Floats, Structure, rounded_off

Combine = Callable[[Floats, Floats], Floats]


def union(first: Structure, *others: Structure, name: str | None = None) -> Structure:
    """Return what belongs to any of the structures.

    The result is an organ at risk with the first structure's tissue parameters, named by what was done.

    Raises
    ------
    InputError
        When the structures lie on different grids.

    >>> from radplan.geometry.grid import Grid
    >>> line = Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> a, b = Structure("a", line, np.asarray([0, 1])), Structure("b", line, np.asarray([1, 2]))
    >>> union(a, b).name, union(a, b).voxels.tolist()
    ('a | b', [0, 1, 2])
    """
    return _folded(first, others, "|", np.maximum, name)


def intersection(first: Structure, *others: Structure, name: str | None = None) -> Structure:
    """Return what belongs to all of the structures; see `union`.

    >>> from radplan.geometry.grid import Grid
    >>> line = Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> a, b = Structure("a", line, np.asarray([0, 1])), Structure("b", line, np.asarray([1, 2]))
    >>> intersection(a, b).voxels.tolist()
    [1]
    """
    return _folded(first, others, "&", np.minimum, name)


def difference(first: Structure, *others: Structure, name: str | None = None) -> Structure:
    """Return the first structure less the others; see `union`.

    >>> from radplan.geometry.grid import Grid
    >>> line = Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> a, b = Structure("a", line, np.asarray([0, 1])), Structure("b", line, np.asarray([1, 2]))
    >>> difference(a, b).voxels.tolist()
    [0]
    """
    return _folded(first, others, "-", lambda a, b: np.maximum(a - b, 0.0), name)


def symmetric_difference(first: Structure, *others: Structure, name: str | None = None) -> Structure:
    """Return what belongs to one of two structures but not to both (of more, from left to right); see `union`.

    >>> from radplan.geometry.grid import Grid
    >>> line = Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> a, b = Structure("a", line, np.asarray([0, 1])), Structure("b", line, np.asarray([1, 2]))
    >>> symmetric_difference(a, b).voxels.tolist()
    [0, 2]
    """
    return _folded(first, others, "^", lambda a, b: np.abs(a - b), name)


def ring(structure: Structure, inner: Margin, outer: Margin, name: str | None = None) -> Structure:
    """Return the shell around a structure between two distances from its surface.

    Parameters
    ----------
    structure : Structure
        What the shell surrounds.
    inner, outer : float or mapping of direction to float
        Distances at which the shell begins and ends [mm]; negative numbers lie inside the structure. Mappings are as
        in `expand`.
    name : str, optional
        Name of the result.

    Raises
    ------
    InputError
        When the shell would end before it begins.

    >>> from radplan.geometry.grid import Grid
    >>> grid = Grid((1, 1, 9), (2.0, 50.0, 50.0), (0.0, 0.0, 0.0))
    >>> bar = Structure("bar", grid, np.asarray([4]))
    >>> ring(bar, {"L": 2.0}, {"L": 6.0}).voxels.tolist()
    [6, 7]
    """
    if isinstance(inner, int | float) and isinstance(outer, int | float) and not outer > inner:
        raise InputError(f"a ring must end farther out than it begins, got {inner:g} mm to {outer:g} mm")
    shell = difference(_at(structure, outer), _at(structure, inner))
    return replace(shell, name=name or f"ring({structure.name})")


def _at(structure: Structure, distance: Margin) -> Structure:
    if isinstance(distance, int | float) and distance < 0:
        return contract(structure, -distance)
    return expand(structure, distance)


def _folded(
    first: Structure, others: tuple[Structure, ...], sign: str, combine: Combine, name: str | None
) -> Structure:
    voxels = first.voxels
    filled = np.ones(voxels.size) if first.fraction is None else first.fraction
    for other in others:
        if other.grid != first.grid:
            raise InputError(
                f"structures {first.name!r} and {other.name!r} lie on different grids, {first.grid} and {other.grid}; "
                "bring one to the other's grid first"
            )
        both = np.union1d(voxels, other.voxels)
        ours, theirs = np.zeros(both.size), np.zeros(both.size)
        ours[np.searchsorted(both, voxels)] = filled
        theirs[np.searchsorted(both, other.voxels)] = 1.0 if other.fraction is None else other.fraction
        voxels, filled = both, combine(ours, theirs)
    told = f" {sign} ".join(structure.name for structure in (first, *others))
    voxels, fraction = rounded_off(voxels, filled)
    return replace(first, name=name or told, voxels=voxels, fraction=fraction, role="oar", priority=None, color=None)
