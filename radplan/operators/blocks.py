"""Sparse matrices on NumPy: one row-ordered copy, in run blocks where columns follow one another, else by entries.

Both products read the same copy, rows without cotangent are not read, and a choice of rows is a list that the compiled
products walk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device
from radplan.operators.base import columnwise
from radplan.operators.storage import CompressedRows, Storage, compressed

MOST_FILL = 2.0
"""Stored values per entry above which run blocks do not pay."""

_USUAL_FILL = 1.35
"""Stored values per entry of photon matrices."""

_WAY_OUT = (
    "calculate dose on the fly (stored=False; 'stored: false' in the engine section of a plan file), on a coarser "
    "grid, with wider bixels or with fewer beams"
)

_LANES = 8
"""Values of a block, as the compiled products take them."""


@dataclass(frozen=True, eq=False)
class BlockRows:
    """Matrices of one pattern in run blocks on the host, as engines write them.

    Parameters
    ----------
    pointers : array of shape (rows + 1,)
        Where each row's blocks begin, int64.
    firsts : array of shape (blocks,)
        First column of each block, uint16 where that is enough, else uint32.
    values : array of shape (K, blocks * 8)
        float32, zeros where a matrix has no entry.
    columns : int
        Number of columns.
    """

    pointers: Array
    firsts: Array
    values: Array
    columns: int

    @classmethod
    def zeros(
        cls, per_row: Array, columns: int, images: int = 1, device: Device | None = None, dtype: str = "float32"
    ) -> BlockRows:
        """Return matrices with so many blocks in each row ``(rows,)``, all zero, to be written.

        Raises
        ------
        CalculationError
            When they will not fit into the memory that is free, with what they take and the way out.
        """
        pointers = np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64)
        count = int(pointers[-1])
        place = arrays.as_device("numpy") if device is None else device
        what = f"the matrix of {len(per_row)} voxels and {columns} weights"
        what = f"{what}, {images} images of each," if images > 1 else what
        arrays.require_memory(matrix_bytes(count, columns, images, place, dtype), place, what, _WAY_OUT)
        firsts = np.zeros(count, dtype=_block_dtype(columns))
        return cls(pointers, firsts, np.zeros((images, count * _LANES), dtype=np.float32), columns)

    def storages(self, dtype: str) -> list[RunBlocks] | None:
        """Return the storage of each matrix on NumPy, or None where blocks are mostly empty."""
        if self.values[0].size > MOST_FILL * max(int(np.count_nonzero(self.values[0])), 1):
            return None
        rows = np.arange(self.pointers.shape[0] - 1, dtype=np.uint32)
        values = [image.astype(dtype, copy=False) for image in self.values]
        return [RunBlocks(self.pointers, self.firsts, image, self.columns, rows) for image in values]

    def compressed(self, dtype: str) -> list[CompressedRows]:
        """Return the compressed rows of each matrix, which share their places."""
        from radplan.kernels import run_blocks

        rows = np.arange(self.pointers.shape[0] - 1, dtype=np.uint32)
        indptr, indices, data = run_blocks.expand(self.pointers, self.firsts, tuple(self.values), rows)
        return [compressed(indptr, indices, image, self.columns, dtype) for image in data]


@dataclass(frozen=True, eq=False)
class RunBlocks(Storage):
    """A matrix in run blocks: each row is a list of (first column, 8 consecutive values).

    Parameters
    ----------
    pointers : array of shape (all rows + 1,)
        Where each row's blocks begin, int64.
    firsts : array of shape (blocks,)
        First column of each block, uint16 where that is enough, else uint32.
    values : array of shape (blocks * 8,)
        Zeros where the matrix has no entry.
    columns : int
        Number of columns.
    rows : array of shape (m,)
        The rows that count, uint32.
    """

    pointers: Array
    firsts: Array
    values: Array
    columns: int
    rows: Array

    @classmethod
    def of(cls, matrix: CompressedRows) -> RunBlocks | None:
        """Return the blocks of a matrix with ascending columns, or None where they would be mostly empty."""
        from radplan.kernels import run_blocks

        pointers = run_blocks.count_blocks(matrix.indptr, matrix.indices)
        count = int(pointers[-1])
        if count * _LANES > MOST_FILL * max(matrix.data.shape[0], 1):
            return None
        firsts = np.empty(count, dtype=_block_dtype(matrix.columns))
        values = np.zeros(count * _LANES, dtype=matrix.data.dtype)
        run_blocks.fill_blocks(matrix.indptr, matrix.indices, matrix.data, pointers, firsts, values)
        return cls(pointers, firsts, values, matrix.columns, _all_rows(matrix))

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self.rows.shape[0]), self.columns

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return str(self.values.dtype.name)

    @cached_property
    def device(self) -> Device:  # type: ignore[override]
        return arrays.as_device("numpy")

    @cached_property
    def chunks(self) -> Array:
        """Pieces of the rows with about as many blocks."""
        from radplan.kernels import sparse

        return sparse.row_chunks(self._lengths)

    @cached_property
    def _lengths(self) -> Array:
        """Number of blocks of each row."""
        return self.pointers[self.rows + 1] - self.pointers[self.rows]

    @cached_property
    def work(self) -> int:
        """Number of stored values that a product reads."""
        return _LANES * int(self._lengths.sum())

    @cached_property
    def nnz(self) -> int:
        return int(self.compressed().data.shape[0]) if self._is_restricted else int(np.count_nonzero(self.values))

    @property
    def _is_restricted(self) -> bool:
        return int(self.rows.shape[0]) != int(self.pointers.shape[0]) - 1

    def apply(self, x: Array) -> Array:
        return apply_blocks([self], x)[0]

    def adjoint(self, y: Array) -> Array:
        return adjoint_blocks([self], [y])

    def column_square_sums(self, weights: Array) -> Array:
        from radplan.kernels import run_blocks

        parts = (self.pointers, self.firsts, self.values, self.rows)
        return run_blocks.column_square_sums(*parts, weights.copy(), self.columns)[: self.columns]

    def take(self, rows: Array) -> RunBlocks:
        return replace(self, rows=self.rows[rows])

    def compressed(self) -> CompressedRows:
        from radplan.kernels import run_blocks

        indptr, indices, data = run_blocks.expand(self.pointers, self.firsts, (self.values,), self.rows)
        return CompressedRows(indptr, indices, data[0], self.columns)

    @property
    def places(self) -> Array:
        return self.firsts

    def sharing(self, other: Storage) -> RunBlocks:
        if not isinstance(other, RunBlocks) or (other.shape, other.dtype) != (self.shape, self.dtype):
            return self
        mine, theirs = (self.pointers, self.firsts, self.rows), (other.pointers, other.firsts, other.rows)
        return replace(other, values=self.values) if _same(mine, theirs) else self


def matrix_bytes(blocks: int, columns: int, images: int, device: Device, dtype: str) -> int:
    """Return what so many run blocks of matrices will take where they are used, building included [bytes].

    On NumPy the blocks are what is used; elsewhere they are turned into compressed rows, whose number of entries is
    taken to be the blocks' values over their usual fill, and into those of the transpose.
    """
    size = np.dtype(dtype).itemsize
    written = blocks * (np.dtype(_block_dtype(columns)).itemsize + _LANES * 4 * images)
    if device.backend == "numpy":
        return written if size == 4 else written + blocks * _LANES * size * images
    return int(written + blocks * _LANES / _USUAL_FILL * 2 * (4 + size * images))


def apply_blocks(matrices: Sequence[RunBlocks], x: Array) -> list[Array]:
    """Return the product ``(rows,)`` or ``(rows, k)`` of each of several matrices of one pattern, in one pass."""
    from radplan.kernels import run_blocks, sparse

    first, values = matrices[0], tuple(matrix.values for matrix in matrices)
    vectors = np.zeros((1 if x.ndim == 1 else x.shape[1], first.columns + _LANES), dtype=first.values.dtype)
    vectors[:, : first.columns] = x.T
    out = np.empty((vectors.shape[0], len(values), first.shape[0]), dtype=first.values.dtype)
    pointers = first.pointers.view(np.uint64)
    work = first.work * len(values) * vectors.shape[0]
    kernel = run_blocks.apply if work < sparse.THREADS_FROM else run_blocks.apply_in_threads
    kernel(pointers, first.firsts, values, first.rows, first.chunks, vectors, out)
    return [out[0, k] if x.ndim == 1 else out[:, k].T for k in range(len(values))]


def adjoint_blocks(matrices: Sequence[RunBlocks], ys: Sequence[Array]) -> Array:
    """Return the sum ``(cols,)`` or ``(cols, k)`` of transposes of one pattern times a vector each, in one pass."""
    from radplan.kernels import run_blocks, sparse

    first, values = matrices[0], tuple(matrix.values for matrix in matrices)
    vectors = np.ascontiguousarray(np.stack([np.atleast_2d(y.T) for y in ys], axis=-1))
    sums = np.empty((sparse.SUMS, vectors.shape[0], first.columns + _LANES), dtype=first.values.dtype)
    pointers = first.pointers.view(np.uint64)
    work = first.work * len(values) * vectors.shape[0]
    kernel = run_blocks.adjoint if work < sparse.THREADS_FROM else run_blocks.adjoint_in_threads
    kernel(pointers, first.firsts, values, first.rows, first.chunks, vectors, sums)
    total = sums.sum(axis=0, dtype=np.float64)[:, : first.columns].astype(first.values.dtype)
    return total[0] if ys[0].ndim == 1 else total.T


@dataclass(frozen=True, eq=False)
class SingleEntries(Storage):
    """A matrix by compressed rows, for entries too scattered for run blocks.

    Parameters
    ----------
    matrix : CompressedRows
        All rows.
    rows : array of shape (m,)
        The rows that count, uint32.
    """

    matrix: CompressedRows
    rows: Array

    @classmethod
    def of(cls, matrix: CompressedRows) -> SingleEntries:
        """Return the storage of a matrix."""
        return cls(matrix, _all_rows(matrix))

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self.rows.shape[0]), self.matrix.columns

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return str(self.matrix.data.dtype.name)

    @cached_property
    def device(self) -> Device:  # type: ignore[override]
        return arrays.as_device("numpy")

    @cached_property
    def nnz(self) -> int:
        return int(np.sum(self.matrix.indptr[self.rows + 1] - self.matrix.indptr[self.rows]))

    @cached_property
    def _parts(self) -> tuple[Array, ...]:
        from radplan.kernels import sparse

        indptr = self.matrix.indptr
        chunks = sparse.row_chunks(indptr[self.rows + 1] - indptr[self.rows])
        return indptr.view(np.uint64), self.matrix.indices.view(np.uint32), self.matrix.data, self.rows, chunks

    def apply(self, x: Array) -> Array:
        return columnwise(self._apply)(x)

    def adjoint(self, y: Array) -> Array:
        return columnwise(self._adjoint)(y)

    def _apply(self, x: Array) -> Array:
        from radplan.kernels import sparse

        out = np.empty(self.shape[0], dtype=self.dtype)
        kernel = sparse.apply if self.nnz < sparse.THREADS_FROM else sparse.apply_in_threads
        kernel(*self._parts, x.copy(), out)
        return out

    def _adjoint(self, y: Array) -> Array:
        from radplan.kernels import sparse

        sums = np.empty((sparse.SUMS, self.shape[1]), dtype=self.dtype)
        kernel = sparse.adjoint if self.nnz < sparse.THREADS_FROM else sparse.adjoint_in_threads
        kernel(*self._parts, y.copy(), sums)
        return sums.sum(axis=0, dtype=np.float64).astype(self.dtype)

    def column_square_sums(self, weights: Array) -> Array:
        from radplan.kernels import sparse

        indptr, indices, data, rows, _ = self._parts
        return sparse.column_square_sums(indptr, indices, data, rows, weights.copy(), self.shape[1])

    def take(self, rows: Array) -> SingleEntries:
        return replace(self, rows=self.rows[rows])

    def compressed(self) -> CompressedRows:
        from radplan.kernels import sparse

        matrix, rows = self.matrix, self.rows.astype(np.int64)
        return CompressedRows(*sparse.take_rows(matrix.indptr, matrix.indices, matrix.data, rows), matrix.columns)

    @property
    def places(self) -> Array:
        return self.matrix.indices

    def sharing(self, other: Storage) -> SingleEntries:
        if not isinstance(other, SingleEntries) or (other.shape, other.dtype) != (self.shape, self.dtype):
            return self
        mine, theirs = ((m.matrix.indptr, m.matrix.indices, m.rows) for m in (self, other))
        return replace(other, matrix=replace(other.matrix, data=self.matrix.data)) if _same(mine, theirs) else self


def _block_dtype(columns: int) -> type[np.unsignedinteger]:
    """Return the type of first columns: 16 bits where they are enough."""
    return np.uint16 if columns <= 2**16 else np.uint32


def _all_rows(matrix: CompressedRows) -> Array:
    return np.arange(matrix.shape[0], dtype=np.uint32)


def _same(mine: tuple[Array, ...], theirs: tuple[Array, ...]) -> bool:
    return all(a is b or np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
