r"""Margins: structures grown and shrunk by millimetres, from surface to surface, on any voxel.

The grown structure is every point within the margin of the structure, :math:`A \oplus E`. E is a ball, or where the
six directions differ the union of eight octants of ellipsoids whose half-axes are the margins (left, right, anterior,
posterior, superior, inferior). Distances start on the surface inside the voxels (see `radplan.patient.surface`), and
each voxel of the result holds the part of it that the new surface cuts off, so that a margin need not be a multiple of
a voxel. Shrinking is growing what lies outside. Outside of the grid there is nothing: a structure cut off by the
grid's edge shrinks from that edge as well, and a grown one ends at it.
Source: partial-voxel cuts, Scardovelli & Zaleski, J. Comput. Phys. 164 (2000) 228.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError, UnknownNameError
from radplan.patient.structures import Box, Floats, Structure, filled_box, structure_from_box

DIRECTIONS = ("L", "R", "A", "P", "S", "I")
"""Left, right, anterior, posterior, superior, inferior: the directions a margin may differ in."""

Margin = float | Sequence[float] | Mapping[str, float]
"""A margin [mm]: one number, one each along x, y and z, or one for each direction named (`DIRECTIONS`, others none)."""

Indices = npt.NDArray[np.intp]

_LEAST = 1e-4
"""Half-axis that stands for no margin in a direction [mm]."""

_TOLERANCE = 0.05
"""Error of a distance that the gaps between surface points may cause [mm], for small margins a hundredth of them."""

_LOSS = 0.2
"""How far inside the margin of all points voxels may still be looked at one by one [voxel edges]."""

_BISECTIONS = 30


def expand(structure: Structure, margin: Margin, name: str | None = None) -> Structure:
    """Return a structure grown by a margin [mm].

    Parameters
    ----------
    structure : Structure
        What to grow.
    margin : float, (float, float, float) or mapping of direction to float
        Distance [mm], >= 0: one for all directions, those along x, y and z (an ellipsoid), or by direction, for example
        ``{"L": 5, "R": 5, "P": 3}``, 0 where not named.
    name : str, optional
        Name of the result; by default it says what was done.

    Raises
    ------
    InputError
        When a distance is negative or no number.
    UnknownNameError
        When a direction is none of L, R, A, P, S and I.

    >>> from radplan.geometry.grid import Grid
    >>> grid = Grid((1, 1, 9), (2.0, 50.0, 50.0), (0.0, 0.0, 0.0))
    >>> bar = Structure("bar", grid, np.asarray([4]))
    >>> wide = expand(bar, {"L": 3.0})
    >>> wide.voxels.tolist(), wide.fraction.tolist()
    ([4, 5, 6], [1.0, 1.0, 0.5])
    """
    low, high = _half_axes(margin)
    return _moved(structure, low, high, name or f"{structure.name} + {_told(margin)}", outward=True)


def contract(structure: Structure, margin: Margin, name: str | None = None) -> Structure:
    """Return a structure shrunk by a margin [mm]: the points that lie farther than that from everything outside.

    A direction names the side of the structure that moves: ``{"P": 3}`` takes 3 mm off its posterior side. The result
    may be empty. Parameters and errors are those of `expand`.

    >>> from radplan.geometry.grid import Grid
    >>> grid = Grid((1, 1, 9), (2.0, 50.0, 50.0), (0.0, 0.0, 0.0))
    >>> bar = Structure("bar", grid, np.asarray([3, 4, 5]))
    >>> narrow = contract(bar, {"L": 3.0})
    >>> narrow.voxels.tolist(), narrow.fraction.tolist()
    ([3, 4], [1.0, 0.5])
    """
    low, high = _half_axes(margin)
    return _moved(structure, low, high, name or f"{structure.name} - {_told(margin)}", outward=False)


def _half_axes(margin: Margin) -> tuple[Floats, Floats]:
    """Return the margins toward lower and higher x, y, z: right, anterior, inferior and left, posterior, superior."""
    if isinstance(margin, Mapping):
        for key in margin:
            if key not in DIRECTIONS:
                raise UnknownNameError("margin direction", str(key), DIRECTIONS)
        by = {direction: margin.get(direction, 0.0) for direction in DIRECTIONS}
    elif isinstance(margin, Sequence) and not isinstance(margin, str):
        if len(margin) != 3:
            raise InputError(f"a margin along the axes needs three distances, x, y and z, got {list(margin)}")
        by = dict(zip("LRAPSI", np.repeat(np.asarray(margin, dtype=object), 2), strict=True))
    else:
        by = dict.fromkeys(DIRECTIONS, margin)
    for direction, value in by.items():
        if isinstance(value, bool | str) or not (np.isfinite(value) and value >= 0):
            raise InputError(
                f"a margin must be a distance >= 0 mm, got {value!r} for {direction}; expand grows, contract shrinks"
            )
    return np.asarray([float(by[d]) for d in "RAI"]), np.asarray([float(by[d]) for d in "LPS"])


def _told(margin: Margin) -> str:
    if isinstance(margin, Mapping):
        return "(" + ", ".join(f"{direction} {value:g} mm" for direction, value in margin.items()) + ")"
    if isinstance(margin, Sequence):
        return "(" + ", ".join(f"{value:g}" for value in margin) + ") mm"
    return f"{margin:g} mm"


def _moved(structure: Structure, low: Floats, high: Floats, name: str, outward: bool) -> Structure:
    """Return the structure with its surface moved by the margins low and high, outward or inward."""
    from radplan.patient.surface import surface_points

    plain = replace(structure, name=name, role="oar", priority=None, color=None)
    if structure.voxels.size == 0 or not (low.any() or high.any()):
        return plain
    spacing = structure.grid.spacing
    extra = [2 + int(np.ceil(m / s)) if outward else 2 for m, s in zip(np.maximum(low, high), spacing, strict=True)]
    first, box = filled_box(structure, (extra[2], extra[1], extra[0]))
    error = min(_TOLERANCE, 0.01 * float(min(low.min(), high.min())))
    points = surface_points(box, spacing, max(0.5 * min(spacing), _gap(error, low, high)))
    if outward:
        moved = _grown(box, points, np.asarray(spacing), low, high)
    else:
        moved = 1.0 - _grown(1.0 - box, points, np.asarray(spacing), high, low)
    return structure_from_box(plain, first, moved)


def _gap(error: float, low: Floats, high: Floats) -> float:
    """Return how far apart surface points may lie [mm] so that no distance is off by more than an error [mm].

    A margin m half-way between two points a gap g apart is short by :math:`g^2 / 8 m`.
    """
    return float(np.sqrt(8 * error * min(low.min(), high.min())))


def _grown(box: Box, points: Floats, size: Floats, low: Floats, high: Floats) -> Box:
    """Return the filled parts after the surface has moved outward by the margins."""
    from radplan.kernels.margin_sweep import filled_by_margin, nearest_by_margin
    from radplan.patient.surface import thinned

    everywhere = bool(low.all() and high.all())
    # Why: what lies well inside the margin needs few points to be told; only its rim needs the nearest of all.
    few = thinned(points, 0.7 * _gap(_LOSS * float(size.min()), low, high))
    low, high = np.maximum(low, _LEAST), np.maximum(high, _LEAST)
    filled = filled_by_margin(few, box.shape, size, low, high)
    grown = np.where(filled, np.float32(1.0), box)
    nearest = nearest_by_margin(points, (grown < 1) & (box < 0.5), size, low, high)
    cut = np.nonzero(nearest >= 0)
    offset = np.stack(cut[::-1], axis=-1) * size - points[nearest[cut]]
    grown[cut] = np.maximum(grown[cut], _cut_by_margin(offset, size, low, high))
    partial = np.nonzero((box > 0) & (grown < 1))
    own = _partial_moved(box, partial, size, low, high) if everywhere else _shifted(box, partial, size, low, high)
    grown[partial] = np.maximum(grown[partial], own)
    return grown


def _shifted(box: Box, where: tuple[Indices, ...], size: Floats, low: Floats, high: Floats) -> Floats:
    """Return the filled parts of voxels after shifts along single axes by up to the margins, whichever fills most."""
    most = box[where].astype(np.float64)
    for axis in range(3):
        for reach, toward in ((low[axis] / size[axis], 1), (high[axis] / size[axis], -1)):
            before = box[where].astype(np.float64)
            for step in range(1, 1 + min(2, int(np.ceil(reach)))):
                at = list(where)
                at[2 - axis] = np.clip(where[2 - axis] + step * toward, 0, box.shape[2 - axis] - 1)
                part = min(reach - step + 1, 1.0)
                after = box[tuple(at)]
                most = np.maximum(most, before + part * (after - before))
                before = after.astype(np.float64)
    return most


def _cut_by_margin(offset: Floats, size: Floats, low: Floats, high: Floats) -> Floats:
    """Return the part of each voxel within the margin of a point that its centre is `offset` (n, 3) [mm] away from."""
    reach = np.minimum(low, high)
    beside = _LEAST * (
        np.arange(3) == np.argmin(reach)
    )  # Why: a centre on a surface point has no direction of its own.
    offset = np.where(np.any(offset != 0.0, axis=1)[:, None], offset, beside)
    radii = np.where(offset > 0, high, low)
    root = np.sqrt(((offset / radii) ** 2).sum(axis=1))
    slope = offset / radii**2
    steepness = np.maximum(np.linalg.norm(slope, axis=1), 1e-12)
    return _part_below(root * (root - 1) / steepness, slope / steepness[:, None] * size)


def _partial_moved(box: Box, where: tuple[Indices, ...], size: Floats, low: Floats, high: Floats) -> Floats:
    """Return the filled parts of voxels that the surface runs through, each seen as cut by a plane that moves."""
    normal = _outward_normals(box, where, size)
    support = np.sqrt(((np.where(normal > 0, high, low) * normal) ** 2).sum(axis=1))
    edges = normal * size
    lower, upper = -0.5 * np.abs(edges).sum(axis=1), 0.5 * np.abs(edges).sum(axis=1)
    part = box[where].astype(np.float64)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (lower + upper)
        fuller = _part_below(middle, edges) > part
        lower, upper = np.where(fuller, middle, lower), np.where(fuller, upper, middle)
    return np.maximum(_part_below(0.5 * (lower + upper) - support, edges), part)


def _outward_normals(box: Box, where: tuple[Indices, ...], size: Floats) -> Floats:
    """Return unit normals (n, 3) in x, y, z at some voxels, from the filled parts of their 26 neighbours."""
    normal = np.zeros((where[0].size, 3))
    for axis in range(3):
        for step in np.ndindex(2, 3, 3):
            others = [s - 1 for s in step[1:]]
            shift = others[:axis] + [1 if step[0] else -1] + others[axis:]
            weight = (1 if step[0] else -1) * (2 - abs(others[0])) * (2 - abs(others[1]))
            at = tuple(np.clip(w + s, 0, n - 1) for w, s, n in zip(where, shift, box.shape, strict=True))
            normal[:, 2 - axis] -= weight * box[at] / size[2 - axis]
    length = np.linalg.norm(normal, axis=1)
    known = length > 1e-6
    normal[~known], length[~known] = (1.0, 0.0, 0.0), 1.0
    return np.asarray(normal / length[:, None], dtype=np.float64)


def _part_below(depth: Floats, edges: Floats) -> Floats:
    """Return the part of a voxel on the inner side of a plane.

    Parameters
    ----------
    depth : array of shape (n,)
        Distance of the voxel centre from the plane, > 0 on the outer side [mm].
    edges : array of shape (n, 3)
        The voxel's edges times the components of the plane's unit normal [mm].
    """
    widths = np.abs(edges)
    widths = np.maximum(widths, 1e-4 * widths.max(axis=1, keepdims=True))
    total = np.zeros(depth.shape)
    for sides in np.ndindex(2, 2, 2):
        signs = np.asarray(sides) - 0.5
        total += (-1) ** (sum(sides) + 1) * np.maximum(-depth + widths @ signs, 0.0) ** 3
    part = np.clip(total / (6.0 * widths.prod(axis=1)), 0.0, 1.0)
    half = 0.5 * widths.sum(axis=1)
    return np.where(depth >= half, 0.0, np.where(depth <= -half, 1.0, part))
