"""Sparse matrices on torch, CuPy and other backends: compressed rows, and those of the transpose.

A transpose is stored because products with a transposed matrix are atomic or slow there.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device, namespace
from radplan.errors import InputError
from radplan.operators.base import columnwise
from radplan.operators.storage import CompressedRows, Storage

KEEP_WHOLE = 0.7
"""Share of the entries above which a choice of rows is a view of the whole matrix and not a copy."""


@dataclass(frozen=True, eq=False)
class TransposedPair(Storage):
    """A matrix and its transpose on a device; the host keeps the compressed rows.

    Parameters
    ----------
    rows : CompressedRows
        On the host.
    device : Device
        Where the products run.
    forward, backward : Product
        With the matrix and with its transpose, on the device.
    """

    rows: CompressedRows
    device: Device
    forward: Product
    backward: Product

    @classmethod
    def of(cls, rows: CompressedRows, device: Device) -> TransposedPair:
        """Return the pair of a matrix on a device."""
        return cls(rows, device, product(rows, device), product(rows.transposed(), device))

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.rows.shape

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return str(self.rows.data.dtype.name)

    @property
    def nnz(self) -> int:
        return int(self.rows.data.shape[0])

    def apply(self, x: Array) -> Array:
        return self.forward.times(x)

    def adjoint(self, y: Array) -> Array:
        return self.backward.times(y)

    def column_square_sums(self, weights: Array) -> Array:
        squares = np.repeat(weights, np.diff(self.rows.indptr)) * self.rows.data.astype(np.float64) ** 2
        return np.bincount(self.rows.indices, squares, minlength=self.shape[1])

    def take(self, rows: Array) -> TransposedPair | None:
        from radplan.kernels import sparse

        indptr = self.rows.indptr
        if int(np.sum(indptr[rows + 1] - indptr[rows])) >= KEEP_WHOLE * self.nnz:
            return None
        parts = sparse.take_rows(indptr, self.rows.indices, self.rows.data, rows)
        return TransposedPair.of(CompressedRows(*parts, columns=self.shape[1]), self.device)

    def compressed(self) -> CompressedRows:
        return self.rows

    @property
    def places(self) -> Array:
        return self.rows.indices

    def sharing(self, other: Storage) -> TransposedPair:
        if not isinstance(other, TransposedPair) or (other.device, other.dtype) != (self.device, self.dtype):
            return self
        mine, theirs = self.rows, other.rows
        if mine.shape != theirs.shape or not np.array_equal(mine.indptr, theirs.indptr):
            return self
        if not np.array_equal(mine.indices, theirs.indices):
            return self
        forward, backward = other.forward.with_values(mine.data), other.backward.with_values(mine.transposed().data)
        return TransposedPair(replace(theirs, data=mine.data), self.device, forward, backward)


class Product(ABC):
    """The product with one compressed-row matrix, in the storage of one backend."""

    @abstractmethod
    def times(self, x: Array) -> Array:
        """Return matrix times `x`, of shape ``(cols,)`` or ``(cols, k)``, already in the dtype of the matrix."""

    @abstractmethod
    def with_values(self, data: Array) -> Product:
        """Return the product with a matrix of other values ``(nnz,)``, on the host; index arrays are shared."""


class _TorchProduct(Product):
    def __init__(self, matrix: CompressedRows, place: Device) -> None:
        import torch

        index = np.int32 if matrix.data.shape[0] < 2**31 else np.int64
        parts = [torch.from_numpy(a) for a in (matrix.indptr.astype(index), matrix.indices.astype(index, copy=False))]
        self._places = tuple(part.to(place.native) for part in parts)
        self._shape = matrix.shape
        self._matrix = self._with(torch.from_numpy(matrix.data).to(place.native))

    def _with(self, values: Array) -> Array:
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)", category=UserWarning)
            return torch.sparse_csr_tensor(*self._places, values, size=self._shape, check_invariants=False)

    def times(self, x: Array) -> Array:
        return self._matrix @ x

    def with_values(self, data: Array) -> Product:
        import torch

        other = copy(self)
        other._matrix = self._with(torch.from_numpy(data).to(self._places[0].device))
        return other


class _CupyProduct(Product):
    def __init__(self, matrix: CompressedRows, place: Device) -> None:
        import cupy
        import cupyx.scipy.sparse

        if matrix.data.shape[0] >= 2**31:
            raise InputError(
                f"cupy holds fewer than 2^31 entries in a matrix, got {matrix.data.shape[0]}: split the beams"
            )
        with place.native:
            parts = tuple(cupy.asarray(a) for a in (matrix.data, matrix.indices, matrix.indptr.astype(np.int32)))
            self._matrix = cupyx.scipy.sparse.csr_matrix(parts, shape=matrix.shape)

    def times(self, x: Array) -> Array:
        return self._matrix @ x

    def with_values(self, data: Array) -> Product:
        import cupy
        import cupyx.scipy.sparse

        other, mine = copy(self), self._matrix
        with mine.data.device:
            parts = (cupy.asarray(data), mine.indices, mine.indptr)
            other._matrix = cupyx.scipy.sparse.csr_matrix(parts, shape=mine.shape)
        return other


class _GenericProduct(Product):
    """Products by running sums in the array API: right on every backend, fast on none."""

    def __init__(self, matrix: CompressedRows, place: Device) -> None:
        self._indptr = place.asarray(matrix.indptr, "int64")
        self._indices = place.asarray(matrix.indices, "int64")
        self._data = place.asarray(matrix.data)
        self._place = place

    def times(self, x: Array) -> Array:
        return columnwise(self._one)(x)

    def with_values(self, data: Array) -> Product:
        other = copy(self)
        other._data = self._place.asarray(data)
        return other

    def _one(self, x: Array) -> Array:
        xp = namespace(x)
        terms = xp.astype(self._data * xp.take(x, self._indices), arrays.accumulator(x))
        sums = xp.cumulative_sum(terms, include_initial=True)
        totals = xp.take(sums, self._indptr[1:]) - xp.take(sums, self._indptr[:-1])
        return xp.astype(totals, x.dtype)


_PRODUCTS: dict[str, type[Any]] = {"torch": _TorchProduct, "cupy": _CupyProduct}


def product(matrix: CompressedRows, place: Device) -> Product:
    """Return the product with a matrix, in the storage of a device."""
    made: Product = _PRODUCTS.get(place.backend, _GenericProduct)(matrix, place)
    return made
