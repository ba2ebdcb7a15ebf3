"""The contours of one plane: copies count once, inner ones are holes, crossing ones are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.kernels.polygon import even_odd_coverage

Floats = npt.NDArray[np.float64]

_COPY = 0.05
"""Mean distance of two outlines that are one drawn twice [mm]; a wall of a millimetre is none."""

_NESTED = 0.9
"""Part of the smaller contour's area in the larger one from which it is a hole [1]: hand-drawn holes touch."""

_TOUCHING = 1e-6
"""Part of the smaller contour's area up to which two contours are neighbours [1]."""


@dataclass(frozen=True, eq=False)
class PlaneContours:
    """The contours of a plane by how deep they lie in others.

    Parameters
    ----------
    layers : tuple of tuples of arrays of shape (n, 2)
        Outer contours, their holes, islands in these, ...; each contour closed, in pixels.
    copies : int
        Number of contours that repeat others and are left out.
    crossing : int
        Number of pairs of one layer that overlap in part; their layer is the union.

    >>> square = np.asarray([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    >>> plane = sorted_contours([square, np.roll(square[::-1], 1, axis=0), 0.5 * square + 1.0], (1.0, 1.0))
    >>> [len(layer) for layer in plane.layers], plane.copies, plane.crossing
    ([1, 1], 1, 0)
    """

    layers: tuple[tuple[Floats, ...], ...]
    copies: int = 0
    crossing: int = 0

    @property
    def area(self) -> float:
        """Area that outlines, each winding once, enclose together without overlaps [pixel^2]."""
        return sum((-1.0) ** depth * sum(outline_area(c) for c in layer) for depth, layer in enumerate(self.layers))

    @property
    def outlines(self) -> tuple[Floats, ...]:
        """All contours, outer ones first."""
        return tuple(contour for layer in self.layers for contour in layer)

    def within(self, corner: tuple[int, int], size: tuple[int, int]) -> bool:
        """Return whether all contours lie inside a raster; see `coverage`."""
        low = np.min([contour.min(axis=0) for contour in self.outlines], axis=0)
        high = np.max([contour.max(axis=0) for contour in self.outlines], axis=0)
        return bool(np.all(low >= corner) and np.all(high <= np.add(corner, size)))

    def coverage(self, corner: tuple[int, int], size: tuple[int, int]) -> Floats:
        """Return the part of each pixel inside, shape `size`, of the raster that begins at the pixel `corner` [1]."""
        if not self.crossing:
            return even_odd(self.outlines, corner, size)
        covered = np.zeros(size)
        for depth, layer in enumerate(self.layers):
            covered += (-1.0) ** depth * _union(layer, corner, size)
        return np.clip(covered, 0.0, 1.0)


def sorted_contours(contours: Sequence[Floats], pixel: tuple[float, float]) -> PlaneContours:
    """Return the contours of a plane by layer.

    A contour that repeats another one, whatever vertex it begins at and whichever way it runs, is left out. One of
    which nine tenths lie in a larger one is a hole in it (or an island in a hole). Others that overlap are joined.

    Parameters
    ----------
    contours : sequence of arrays of shape (n, 2)
        Along rows and columns, pixel edges at whole numbers [pixel].
    pixel : (float, float)
        Size of a pixel along these axes [mm].
    """
    drawn = [folded(contour) for contour in contours]
    drawn.sort(key=outline_area, reverse=True)
    boxes = [(contour.min(axis=0), contour.max(axis=0)) for contour in drawn]
    kept: list[int] = []
    depth: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    for number, contour in enumerate(drawn):
        beside = [k for k in kept if _meet(boxes[k], boxes[number])]
        shared = {k: _shared_area(drawn[k], contour) for k in beside}
        if any(_is_copy(drawn[k], contour, shared[k], pixel) for k in beside):
            continue
        area = max(outline_area(contour), 1e-300)
        around = [k for k in beside if shared[k] >= _NESTED * area]
        depth[number] = 1 + depth[around[-1]] if around else 0
        pairs += [(k, number) for k in beside if k not in around and shared[k] > _TOUCHING * area]
        kept.append(number)
    layers = tuple(
        tuple(drawn[k] for k in kept if depth[k] == level) for level in range(max(depth.values(), default=-1) + 1)
    )
    crossing = sum(depth[a] == depth[b] for a, b in pairs)
    return PlaneContours(layers, len(drawn) - len(kept), crossing)


def folded(contour: Floats) -> Floats:
    """Return a contour (n, 2) without repeated vertices; of one that runs round several times, one round.

    >>> triangle = np.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> len(folded(np.concatenate([triangle, triangle, triangle[:1]])))
    3
    """
    moved = np.any(np.abs(contour - np.roll(contour, 1, axis=0)) > 1e-9, axis=1)
    kept = contour[moved] if moved.sum() >= 3 else contour
    for rounds in (2, 3):
        length, rest = divmod(len(kept), rounds)
        if not rest and length >= 3 and np.allclose(kept[length:], np.tile(kept[:length], (rounds - 1, 1)), atol=1e-6):
            return folded(kept[:length])
    return kept


def outline_area(contour: Floats) -> float:
    """Return the area that a closed outline (n, 2) winds around, each part as often as it is wound around.

    >>> outline_area(np.asarray([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]))
    2.0
    """
    x, y = (contour - contour[0]).T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def even_odd(contours: Sequence[Floats], corner: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Return the part of each pixel inside an odd number of contours [1]; see `PlaneContours.coverage`."""
    starts = np.cumsum([0, *(len(contour) for contour in contours)])
    vertices = np.concatenate(contours) - np.asarray(corner)
    covered: Floats = even_odd_coverage(
        np.ascontiguousarray(vertices[:, 1]), np.ascontiguousarray(vertices[:, 0]), starts, size[0], size[1]
    )
    return covered


def _meet(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> bool:
    return bool(np.all(first[0] < second[1]) and np.all(second[0] < first[1]))


def _shared_area(larger: Floats, smaller: Floats) -> float:
    """Return the area that two contours have in common [pixel^2], from the raster around the smaller one."""
    low = np.floor(smaller.min(axis=0))
    size = np.ceil(smaller.max(axis=0)) - low
    # Why: an outline far outside the images is no reason for a raster of its size.
    scale = max(1.0, float(size.max()) / 1024.0)
    window = (int(size[0] / scale) + 1, int(size[1] / scale) + 1)
    pair = [(larger - low) / scale, (smaller - low) / scale]
    alone = sum(even_odd([contour], (0, 0), window).sum() for contour in pair)
    return 0.5 * float(alone - even_odd(pair, (0, 0), window).sum()) * scale**2


def _is_copy(larger: Floats, smaller: Floats, shared: float, pixel: tuple[float, float]) -> bool:
    """Return whether two outlines run at a mean distance that is rounding."""
    steps = (smaller - np.roll(smaller, 1, axis=0)) * np.asarray(pixel)
    length = float(np.sqrt((steps**2).sum(axis=1)).sum())
    between = outline_area(larger) + outline_area(smaller) - 2.0 * shared
    return abs(between) * pixel[0] * pixel[1] <= _COPY * length


def _union(layer: Sequence[Floats], corner: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Return what a layer covers of each pixel: exact but where three outlines meet in one pixel [1]."""
    alone = [even_odd([contour], corner, size) for contour in layer]
    boxes = [(contour.min(axis=0), contour.max(axis=0)) for contour in layer]
    covered = alone[0].copy()
    for number in range(1, len(layer)):
        twice = np.zeros(size)
        for k in range(number):
            if _meet(boxes[k], boxes[number]):
                apart = even_odd([layer[k], layer[number]], corner, size)
                twice = np.maximum(twice, 0.5 * (alone[k] + alone[number] - apart))
        covered = np.clip(covered + alone[number] - twice, 0.0, 1.0)
    return covered
