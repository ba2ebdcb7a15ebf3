"""Structures: named sets of voxels, who wins where they overlap, and how they look on another grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid

Floats = npt.NDArray[np.float64]
Voxels = npt.NDArray[np.int64]
Box = npt.NDArray[np.float32]
Members = tuple[Voxels, "Floats | None"]
Role = Literal["target", "oar", "external", "ignored"]
Membership = Literal["volume", "nearest"]

PRIORITY: dict[str, int] = {"target": 1, "oar": 2, "external": 3, "ignored": 4}
"""Overlap priority of each role where a structure has none of its own; 1 wins over 2."""

_SLIVER = 1e-6
"""Smallest share of a voxel that counts [1]; less is rounding of the voxel edges."""

_CRUMB = 1e-3
"""Filled part of a voxel that is no longer told from empty or from full after a geometric operation [1]."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A named set of voxels with a role in planning.

    Parameters
    ----------
    name : str
        What the structure is called.
    grid : Grid
        The grid it is drawn on, as a rule the CT's.
    voxels : array of shape (n,)
        Flat indices into `grid`; kept sorted, each once.
    fraction : array of shape (n,), optional
        The part of each voxel that belongs to the structure, in (0, 1] [1]; None means all of it.
    role : {"target", "oar", "external", "ignored"}
        The part it plays: to be irradiated, to be spared, the patient's outline, or nothing.
    priority : int, optional
        Rank where structures overlap, 1 first; None takes the role's: target 1, oar 2, external 3.
    alpha_x, beta_x : float
        Linear-quadratic parameters for photons [1/Gy], [1/Gy^2], >= 0.
    color : (float, float, float), optional
        Red, green and blue in [0, 1] for figures.

    Raises
    ------
    InputError
        When an index is outside the grid or repeated, a fraction outside (0, 1], or the role unknown.

    >>> line = Structure("line", Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), np.asarray([2, 1]))
    >>> line.voxels.tolist(), line.volume, line.effective_priority
    ([1, 2], 2.0, 2)
    """

    name: str
    grid: Grid
    voxels: Voxels
    fraction: Floats | None = None
    role: Role = "oar"
    priority: int | None = None
    alpha_x: float = 0.1
    beta_x: float = 0.05
    color: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise UnknownNameError("structure role", self.role, get_args(Role))
        voxels = np.array(self.voxels)
        if voxels.ndim != 1 or (voxels.size and not np.issubdtype(voxels.dtype, np.integer)):
            raise InputError(
                f"structure {self.name!r}: voxels must be a list of whole numbers, got {voxels.dtype} {voxels.shape}"
            )
        voxels = voxels.astype(np.int64)
        order = None if (np.diff(voxels) > 0).all() else np.argsort(voxels, kind="stable")
        voxels = voxels if order is None else voxels[order]
        if voxels.size and (voxels[0] < 0 or voxels[-1] >= self.grid.size):
            raise InputError(
                f"structure {self.name!r}: voxel indices run from {voxels[0]} to {voxels[-1]}, "
                f"the grid has 0 to {self.grid.size - 1}"
            )
        if order is not None and (np.diff(voxels) == 0).any():
            raise InputError(
                f"structure {self.name!r}: voxel {voxels[np.argmin(np.diff(voxels))]} is listed more than once"
            )
        if self.fraction is not None:
            fraction = np.asarray(self.fraction, dtype=np.float64)
            if fraction.shape != voxels.shape or not ((fraction > 0) & (fraction <= 1)).all():
                raise InputError(
                    f"structure {self.name!r}: fraction needs one number in (0, 1] for each of its {voxels.size} voxels"
                )
            object.__setattr__(self, "fraction", fraction if order is None else fraction[order])
        if not (self.alpha_x >= 0 and self.beta_x >= 0):
            raise InputError(
                f"structure {self.name!r}: alpha_x and beta_x must be >= 0, got {self.alpha_x} and {self.beta_x}"
            )
        object.__setattr__(self, "voxels", voxels)

    @classmethod
    def from_mask(
        cls,
        name: str,
        grid: Grid,
        mask: npt.ArrayLike,
        role: Role = "oar",
        priority: int | None = None,
        alpha_x: float = 0.1,
        beta_x: float = 0.05,
        color: tuple[float, float, float] | None = None,
    ) -> Structure:
        """Return the structure of the voxels where `mask` (nz, ny, nx) is true."""
        inside = np.asarray(mask, dtype=bool)
        if inside.shape != grid.shape:
            raise InputError(f"structure {name!r}: a mask of shape {inside.shape} does not fit the grid's {grid.shape}")
        return cls(name, grid, np.flatnonzero(inside), None, role, priority, alpha_x, beta_x, color)

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return the voxels of which at least half belongs to the structure, as (nz, ny, nx)."""
        inside = np.zeros(self.grid.size, dtype=bool)
        inside[self.voxels if self.fraction is None else self.voxels[self.fraction >= 0.5]] = True
        return inside.reshape(self.grid.shape)

    @property
    def volume(self) -> float:
        """Volume [mm3], partial voxels counted in part."""
        count = float(self.voxels.size) if self.fraction is None else float(self.fraction.sum())
        return count * self.grid.voxel_volume

    @property
    def effective_priority(self) -> int:
        """The overlap priority that counts: the given one, else the role's."""
        return PRIORITY[self.role] if self.priority is None else self.priority


class Structures(Mapping[str, Structure]):
    """The structures of a patient by name, in their order; a lookup that fails names the nearest one.

    Parameters
    ----------
    structures : iterable of Structure
        Each name once.
    left_out : mapping of str to str
        Structures that a file lists and that are not here, and why: "it has no contours". Asking for one says so.

    Raises
    ------
    InputError
        When a name comes twice.
    UnknownNameError
        When a name is looked up that is not there.

    >>> grid = Grid((1, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> list(Structures([Structure("Core", grid, np.asarray([0])), Structure("BODY", grid, np.asarray([0, 1]))]))
    ['Core', 'BODY']
    """

    def __init__(self, structures: Iterable[Structure] = (), left_out: Mapping[str, str] | None = None) -> None:
        held: dict[str, Structure] = {}
        for structure in structures:
            if structure.name in held:
                raise InputError(f"two structures are named {structure.name!r}; names must differ")
            held[structure.name] = structure
        self._held = held
        self.left_out = dict(left_out or {})

    def __getitem__(self, name: str) -> Structure:
        if name not in self._held:
            raise UnknownNameError("structure", name, self._held, self.why_absent(name))
        return self._held[name]

    def why_absent(self, name: str) -> str:
        """Return why a structure that the patient's file lists is not here, or nothing."""
        return f"the file lists it, but {self.left_out[name]}" if name in self.left_out else ""

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"Structures({', '.join(self._held)})"


def after_overlap(structures: Structures, names: Iterable[str]) -> dict[str, Members]:
    r"""Return each named structure less what the others of higher priority claim.

    Of a voxel, a structure keeps :math:`\max(0, f - \max_k f_k)` over the named structures k of higher priority (lower
    number), which for whole voxels is the set difference. Structures of equal priority share their overlap.
    matRad: ``matRad_setOverlapPriorities`` with the named structures as those that have objectives.

    Returns
    -------
    dict of name -> (voxels, fraction)
        Sorted flat indices (n,) on the structures' grid and the kept parts (n,) [1], or None where all are whole.
    """
    chosen = [structures[name] for name in dict.fromkeys(names)]
    if not chosen:
        return {}
    size = chosen[0].grid.size
    left: dict[str, Members] = {}
    claimed = np.zeros(size, dtype=np.float32)
    for rank in sorted({structure.effective_priority for structure in chosen}):
        peers = [structure for structure in chosen if structure.effective_priority == rank]
        for structure in peers:
            own = 1.0 if structure.fraction is None else structure.fraction
            kept = own - claimed[structure.voxels].astype(np.float64)
            stays = kept > _SLIVER
            whole = bool((kept[stays] >= 1.0).all())
            left[structure.name] = (structure.voxels[stays], None if whole else kept[stays])
        for structure in peers:
            own = 1.0 if structure.fraction is None else structure.fraction
            claimed[structure.voxels] = np.maximum(claimed[structure.voxels], own)
    return {structure.name: left[structure.name] for structure in chosen}


def resample_weights(
    grid_from: Grid,
    voxels: npt.ArrayLike,
    fraction: npt.ArrayLike | None,
    grid_to: Grid,
    method: Membership = "volume",
) -> tuple[Voxels, Floats]:
    """Return which voxels of another grid a structure covers, and how much of each.

    Parameters
    ----------
    grid_from : Grid
        The grid of `voxels`.
    voxels : array of shape (n,)
        Flat indices of the structure.
    fraction : array of shape (n,) or None
        The part of each that belongs to it [1]; None means all.
    grid_to : Grid
        The grid to express it on.
    method : {"volume", "nearest"}
        ``"volume"``: the exact share of each target voxel's box that the structure's voxel boxes fill. ``"nearest"``: a
        target voxel belongs, whole, where its centre lies in a voxel of the structure (matRad's masks).

    Returns
    -------
    voxels : array of shape (m,)
        Sorted flat indices into `grid_to`.
    coverage : array of shape (m,)
        Share of each of these voxels in (0, 1] [1].

    >>> fine = Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> coarse = Grid((1, 1, 2), (2.0, 1.0, 1.0), (0.5, 0.0, 0.0))
    >>> [a.tolist() for a in resample_weights(fine, [1, 2, 3], None, coarse)]
    [[0, 1], [0.5, 1.0]]
    """
    if method not in get_args(Membership):
        raise UnknownNameError("membership method", method, get_args(Membership))
    flat = np.asarray(voxels, dtype=np.int64)
    if flat.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    low, box = _bounding_box(grid_from, flat, fraction)
    first, covered = (
        _nearest_box(grid_from, low, box, grid_to) if method == "nearest" else _filled_box(grid_from, low, box, grid_to)
    )
    k, j, i = np.nonzero(covered > _SLIVER)
    shape = grid_to.shape
    target = ((k + first[0]) * shape[1] + (j + first[1])) * shape[2] + (i + first[2])
    return target.astype(np.int64), np.minimum(covered[k, j, i].astype(np.float64), 1.0)


def _axis(grid: Grid, dimension: int) -> tuple[float, float, int]:
    return grid.origin[2 - dimension], grid.spacing[2 - dimension], grid.shape[dimension]


def _bounding_box(grid: Grid, flat: Voxels, fraction: npt.ArrayLike | None) -> tuple[list[int], Box]:
    """Return the first index [z, y, x] and the content of the smallest box around a structure's voxels."""
    plane = grid.shape[1] * grid.shape[2]
    bottom, top = int(flat.min()) // plane, int(flat.max()) // plane + 1
    slab = np.zeros((top - bottom, *grid.shape[1:]), dtype=np.float32)
    slab.reshape(-1)[flat - bottom * plane] = 1.0 if fraction is None else np.asarray(fraction, dtype=np.float32)
    drawn = slab.max(axis=0) > 0
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    box = slab[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return [bottom, int(rows[0]), int(columns[0])], np.ascontiguousarray(box)


def _filled_box(grid_from: Grid, low: list[int], box: Box, grid_to: Grid) -> tuple[list[int], Box]:
    """Contract the structure's bounding box with one matrix of edge overlaps per axis: boxes overlap axis by axis."""
    shares = [_axis_overlap(grid_from, low, box, grid_to, dimension) for dimension in range(3)]
    (_, along_z), (_, along_y), (_, along_x) = shares
    covered = (box.reshape(-1, box.shape[2]) @ along_x.T).reshape(*box.shape[:2], -1)
    covered = np.matmul(along_y, covered)
    covered = (along_z @ covered.reshape(box.shape[0], -1)).reshape(along_z.shape[0], *covered.shape[1:])
    return [begin for begin, _ in shares], covered


def _axis_overlap(grid_from: Grid, low: list[int], box: Box, grid_to: Grid, dimension: int) -> tuple[int, Box]:
    """Return the first target voxel that may be met along an axis, and the shares (target, source) of each by each."""
    origin, spacing, _ = _axis(grid_from, dimension)
    start, step, count = _axis(grid_to, dimension)
    edge = origin + (low[dimension] - 0.5) * spacing
    end = edge + box.shape[dimension] * spacing
    begin = min(max(int(np.floor((edge - start) / step + 0.5)), 0), count)
    stop = max(min(int(np.ceil((end - start) / step + 0.5)), count), begin)
    lower = start + (np.arange(begin, stop)[:, None] - 0.5) * step
    edges = edge + np.arange(box.shape[dimension])[None, :] * spacing
    overlap = np.minimum(lower + step, edges + spacing) - np.maximum(lower, edges)
    return begin, (np.maximum(overlap, 0.0) / step).astype(np.float32)


def _nearest_box(grid_from: Grid, low: list[int], box: Box, grid_to: Grid) -> tuple[list[int], Box]:
    picks: list[npt.NDArray[np.int64]] = []
    first: list[int] = []
    for dimension in range(3):
        origin, spacing, _ = _axis(grid_from, dimension)
        start, step, count = _axis(grid_to, dimension)
        source = np.floor((start + step * np.arange(count) - origin) / spacing + 0.5).astype(np.int64) - low[dimension]
        held = np.flatnonzero((source >= 0) & (source < box.shape[dimension]))
        first.append(int(held[0]) if held.size else 0)
        picks.append(source[held])
    return first, (box[np.ix_(*picks)] >= 0.5).astype(np.float32)


def filled_box(structure: Structure, extra: tuple[int, int, int] = (0, 0, 0)) -> tuple[tuple[int, int, int], Box]:
    """Return the filled parts of the voxels in a structure's bounding box with empty layers around it.

    Parameters
    ----------
    structure : Structure
        Not empty.
    extra : (int, int, int)
        Layers to add on both sides along (z, y, x); they may lie outside the grid.

    Returns
    -------
    first : (int, int, int)
        Index [z, y, x] on the structure's grid of the box's first voxel.
    box : array of shape (nz, ny, nx)
        Filled part of each voxel in [0, 1] [1].

    >>> line = Structure("line", Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), np.asarray([1, 2]))
    >>> first, box = filled_box(line, (0, 0, 1))
    >>> first, box.tolist()
    ((0, 0, 0), [[[0.0, 1.0, 1.0, 0.0]]])
    """
    low, box = _bounding_box(structure.grid, structure.voxels, structure.fraction)
    first = (low[0] - extra[0], low[1] - extra[1], low[2] - extra[2])
    return first, np.pad(box, [(n, n) for n in extra])


def structure_from_box(like: Structure, first: tuple[int, int, int], box: npt.NDArray[Any]) -> Structure:
    """Return `like` with other voxels: those filled in a box (nz, ny, nx) that starts at index `first` [z, y, x].

    What lies outside the grid is cut off; less than a thousandth of a voxel counts as nothing.
    """
    begin = [max(0, -at) for at in first]
    end = [min(n, size - at) for n, size, at in zip(box.shape, like.grid.shape, first, strict=True)]
    part = box[tuple(slice(b, max(b, e)) for b, e in zip(begin, end, strict=True))]
    z, y, x = (at + b + np.arange(n) for at, b, n in zip(first, begin, part.shape, strict=True))
    flat = (z[:, None, None] * like.grid.shape[1] + y[:, None]) * like.grid.shape[2] + x
    held = part > _CRUMB
    voxels, fraction = rounded_off(flat[held].astype(np.int64, copy=False), part[held].astype(np.float64))
    return replace(like, voxels=voxels, fraction=fraction)


def rounded_off(voxels: Voxels, filled: Floats) -> Members:
    """Return voxels (n,) and their filled parts (n,) [1] without crumbs: a thousandth from empty or full is just that.

    >>> voxels, fraction = rounded_off(np.asarray([3, 4, 5]), np.asarray([0.0001, 0.9999, 0.5]))
    >>> voxels.tolist(), fraction.tolist()
    ([4, 5], [1.0, 0.5])
    """
    held = filled > _CRUMB
    kept = np.where(filled[held] >= 1 - _CRUMB, 1.0, filled[held])
    return voxels[held], None if (kept == 1).all() else kept
