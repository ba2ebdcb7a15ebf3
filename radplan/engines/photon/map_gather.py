"""Reading maps of the isocentre plane at the voxels of a beam, and the exact transpose.

Compiled on NumPy and on torch's CPU tensors, in the array API elsewhere. Maps have shape ``(K, nx, ny)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array, Device, namespace
from radplan.engines.photon.terms import Floats, Ints
from radplan.errors import InputError

Interpolation = Literal["cubic", "linear"]

SPLINES = {
    "cubic": np.asarray([[1.0, -3.0, 3.0, -1.0], [4.0, 0.0, -6.0, 3.0], [1.0, 3.0, 3.0, -3.0], [0.0, 0.0, 0.0, 1.0]])
    / 6,
    "linear": np.asarray([[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]),
}
"""Shares of four neighbouring pixels (rows) as polynomials of the fraction past the second (columns: powers)."""

MARGIN = 2
"""Pixels that a map must extend beyond every place that is read."""


def spline_response(frequency: Array, interpolation: Interpolation) -> Floats:
    """Return the factor by which a spline with the samples as coefficients changes a frequency [cycles per pixel].

    Coefficients whose spline passes through given samples have the samples' spectrum divided by it.

    >>> spline_response(np.asarray([0.0, 0.5]), "cubic").round(9).tolist()
    [1.0, 0.333333333]
    """
    if interpolation == "linear":
        return np.ones(frequency.shape)
    return np.asarray((2.0 + np.cos(2.0 * np.pi * frequency)) / 3.0)


@dataclass(frozen=True, eq=False)
class MapGather:
    r"""The map from K maps to voxels, :math:`d_v = \sum_k w_k(v) \, M_k(x_v, y_v)`, with M read by B-splines.

    Make it with `MapGather.of`.

    Parameters
    ----------
    shape : (int, int)
        Pixels of a map along x and y.
    count : int
        Number of voxels n of the result.
    rows : array of shape (m,)
        Those that are read, host int32, each once; the others are zero.
    corners : array of shape (m,)
        First of the 4 x 4 pixels each is read from, int32 on the device.
    fractions : array of shape (m, 2)
        How far it lies past the second of them along x and y [pixel].
    weights : array of shape (m, K)
        w_k.
    spline : array of shape (4, 4)
        One of `SPLINES`.
    device : Device
        Where it lives.

    >>> read = MapGather.of(np.asarray([2.5]), np.asarray([2.0]), np.ones((1, 1)), np.asarray([1]), 2, (5, 5), "linear",
    ...                     arrays.as_device("numpy"), "float64")
    >>> read.gather(np.arange(25.0).reshape(1, 5, 5)).tolist()
    [0.0, 14.5]
    """

    shape: tuple[int, int]
    count: int
    rows: npt.NDArray[np.int32]
    corners: Array
    fractions: Array
    weights: Array
    spline: Array
    device: Device
    _rows: Array = field(init=False, repr=False)
    _places: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places = None
        if self.device.backend != "numpy":
            found = np.full(self.count, self.rows.size, dtype=np.int32)
            found[self.rows] = np.arange(self.rows.size, dtype=np.int32)
            places = self.device.asarray(found)
        object.__setattr__(self, "_rows", self.device.asarray(self.rows))
        object.__setattr__(self, "_places", places)

    @classmethod
    def of(
        cls,
        x: Floats,
        y: Floats,
        weights: Floats,
        rows: Ints,
        count: int,
        shape: tuple[int, int],
        interpolation: Interpolation,
        place: Device,
        dtype: str = "float32",
    ) -> MapGather:
        """Return the gather of voxels `rows` at pixel positions `x`, `y` ``(m,)`` with weights ``(K, m)``.

        Raises
        ------
        InputError
            When a position lies nearer than `MARGIN` pixels to the edge of the maps.
        """
        i, j = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        if x.size and (min(i.min(), j.min()) < 1 or i.max() > shape[0] - 3 or j.max() > shape[1] - 3):
            raise InputError(
                f"voxels lie outside maps of {shape[0]} x {shape[1]} pixels or nearer than 2 to their edge"
            )
        return cls(
            shape=shape,
            count=count,
            rows=rows.astype(np.int32),
            corners=place.asarray((i - 1) * shape[1] + j - 1, "int32"),
            fractions=place.asarray(np.stack([x - i, y - j], axis=1), dtype),
            weights=place.asarray(weights.T, dtype),
            spline=place.asarray(SPLINES[interpolation], dtype),
            device=place,
        )

    @property
    def functions(self) -> int:
        """Number of maps K."""
        return int(self.weights.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        index = self.rows.nbytes + (0 if self._places is None else 4 * (self.count + self.rows.size))
        size = np.dtype(arrays.dtype_name(self.weights)).itemsize
        return int(index + self.rows.size * (4 + (2 + self.functions) * size))

    def gather(self, maps: Array) -> Array:
        """Return the voxels ``(n,)`` of maps ``(K, nx, ny)``."""
        if self._in_host_memory(maps):
            return self.device.asarray(self._gather_compiled(arrays.to_numpy(maps)))
        xp = namespace(maps)
        flat = xp.reshape(xp.permute_dims(maps, (1, 2, 0)), (-1, self.functions))
        read = xp.zeros_like(self.weights)
        for offset, share in self._taps():
            read = read + share[:, None] * xp.take(flat, self.corners + offset, axis=0)
        values = xp.sum(read * self.weights, axis=1)
        return xp.take(xp.concat([values, xp.zeros_like(self.spline[0, :1])]), self._places)

    def scatter(self, values: Array) -> Array:
        """Return the maps ``(K, nx, ny)`` that the transpose makes of voxels ``(n,)``."""
        if self._in_host_memory(values):
            return self.device.asarray(self._scatter_compiled(arrays.to_numpy(values)))
        xp = namespace(values)
        functions, pixels = self.functions, self.shape[0] * self.shape[1]
        parts = xp.take(values, self._rows)[:, None] * self.weights
        lanes = xp.arange(functions, dtype=self.corners.dtype, device=self.device.native)
        first = (self.corners * functions)[:, None] + lanes[None, :]
        flat = xp.zeros(pixels * functions, dtype=values.dtype, device=self.device.native)
        for offset, share in self._taps():
            index, added = xp.reshape(first + offset * functions, (-1,)), xp.reshape(share[:, None] * parts, (-1,))
            flat = flat + arrays.segment_add(pixels * functions, index, added)
        return xp.permute_dims(xp.reshape(flat, (*self.shape, functions)), (2, 0, 1))

    def restrict(self, rows: Ints) -> MapGather:
        """Return the gather of some voxels only, in the order given; none twice."""
        number = np.full(self.count, -1, dtype=np.int32)
        number[rows] = np.arange(rows.size, dtype=np.int32)
        now = number[self.rows]
        kept = np.flatnonzero(now >= 0)
        xp, index = self.device.xp, self.device.asarray(kept, "int64")
        return replace(
            self,
            count=int(rows.size),
            rows=now[kept],
            corners=xp.take(self.corners, index),
            fractions=xp.take(self.fractions, index, axis=0),
            weights=xp.take(self.weights, index, axis=0),
        )

    def squared(self) -> MapGather:
        r"""Return the gather of maps of products: :math:`(\sum_k w_k M_k)^2 = \sum_{k \le l} c_{kl} M_k M_l`."""
        xp, columns = self.device.xp, []
        for k in range(self.functions):
            for other in range(k, self.functions):
                product = self.weights[:, k] * self.weights[:, other]
                columns.append(product if other == k else 2.0 * product)
        return replace(self, weights=xp.stack(columns, axis=1))

    def _taps(self) -> list[tuple[int, Array]]:
        """Return offset in pixels and share ``(m,)`` of each of the 16 pixels a voxel is read from."""
        along = []
        for axis in (0, 1):
            f, s = self.fractions[:, axis], self.spline
            along.append([((s[t, 3] * f + s[t, 2]) * f + s[t, 1]) * f + s[t, 0] for t in range(4)])
        return [(i * self.shape[1] + j, along[0][i] * along[1][j]) for i in range(4) for j in range(4)]

    def _in_host_memory(self, values: Array) -> bool:
        """Return whether compiled code can read the arrays where they lie, and nobody wants to trace what it does."""
        if self.device.backend == "torch":
            return values.device.type == "cpu" and not values.requires_grad
        return self.device.backend == "numpy"

    @cached_property
    def _tables(self) -> tuple[Array, Array, Array, Array]:
        """Corners, fractions, weights and spline as host arrays: views, not copies, where they lie on the host."""
        corners, fractions, weights, spline = (
            arrays.to_numpy(table) for table in (self.corners, self.fractions, self.weights, self.spline)
        )
        return corners, fractions, weights, spline

    def _gather_compiled(self, maps: Array) -> Array:
        from radplan.kernels import gather

        functions, pixels, dtype = self.functions, self.shape[0] * self.shape[1], self._tables[2].dtype
        flat = np.empty(pixels * functions + gather.LANES, dtype=dtype)
        flat[pixels * functions :] = 0.0
        flat[: pixels * functions].reshape(*self.shape, functions)[...] = np.moveaxis(maps, 0, 2)
        out = np.zeros(self.count, dtype=dtype)
        read = gather.gather_few if self.rows.size < gather.FEW else gather.gather_maps
        read(flat, self.shape[1], *self._tables, self.rows, out)
        return out

    def _scatter_compiled(self, values: Array) -> Array:
        from radplan.kernels import gather

        write = gather.scatter_few if self.rows.size < gather.FEW else gather.scatter_maps
        flat = write(
            np.ascontiguousarray(values), self.shape[1], *self._tables, self.rows, self.shape[0] * self.shape[1]
        )
        return flat.reshape(self.functions, *self.shape)
