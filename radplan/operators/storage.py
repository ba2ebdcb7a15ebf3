"""How sparse matrices are stored and multiplied, per backend."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device, namespace
from radplan.errors import InputError
from radplan.operators.base import columnwise


@dataclass(frozen=True)
class CompressedRows:
    """A sparse matrix on the host by compressed rows: ``indptr`` int64, ``indices`` int32, ``data``."""

    indptr: Array
    indices: Array
    data: Array
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.indptr.shape[0] - 1, self.columns

    def transposed(self) -> CompressedRows:
        """Return the compressed rows of the transpose."""
        from radplan.kernels import sparse

        parts = sparse.transpose(self.indptr, self.indices, self.data, self.columns)
        return CompressedRows(*parts, columns=self.shape[0])


def compressed(indptr: Array, indices: Array, data: Array, columns: int, dtype: str) -> CompressedRows:
    """Return checked compressed rows, without a copy where types fit; raise `InputError` when they do not fit."""
    if dtype not in ("float32", "float64"):
        raise InputError(f"a matrix is stored as 'float32' or 'float64', got dtype {dtype!r}")
    starts = np.ascontiguousarray(indptr, dtype=np.int64)
    places = np.ascontiguousarray(indices, dtype=np.int32)
    values = np.ascontiguousarray(data, dtype=dtype)
    if starts.ndim != 1 or starts[0] != 0 or starts[-1] != values.shape[0] or places.shape != values.shape:
        raise InputError(
            f"compressed rows do not fit together: indptr runs {starts[0]}..{starts[-1]}, "
            f"{places.shape[0]} indices, {values.shape[0]} values"
        )
    if places.size and (places.min() < 0 or places.max() >= columns):
        raise InputError(f"column numbers must lie in 0..{columns - 1}, got {places.min()}..{places.max()}")
    if values.size and not np.isfinite(values.sum(dtype=np.float64)):
        raise InputError("the matrix holds NaN or infinite values; check the data it was made from")
    return CompressedRows(starts, places, values, columns)


class Product(ABC):
    """The product with one compressed-row matrix, in the storage of one backend."""

    @abstractmethod
    def times(self, x: Array) -> Array:
        """Return matrix times `x`, of shape ``(cols,)`` or ``(cols, k)``, already in the dtype of the matrix."""

    @abstractmethod
    def with_values(self, data: Array) -> Product:
        """Return the product with a matrix of other values ``(nnz,)``, on the host; index arrays are shared."""


class _CompiledProduct(Product):
    def __init__(self, matrix: CompressedRows, place: Device) -> None:
        from radplan.kernels import sparse

        self._indptr = matrix.indptr.view(np.uint64)
        self._indices = matrix.indices.view(np.uint32)
        self._data = matrix.data
        self._chunks = sparse.row_chunks(matrix.indptr)
        self._rows = matrix.shape[0]
        self._matvec = sparse.matvec

    def times(self, x: Array) -> Array:
        return columnwise(self._one)(x)

    def with_values(self, data: Array) -> Product:
        other = copy(self)
        other._data = data
        return other

    def _one(self, x: Array) -> Array:
        out = np.empty(self._rows, dtype=self._data.dtype)
        self._matvec(self._indptr, self._indices, self._data, self._chunks, np.ascontiguousarray(x), out)
        return out


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


_PRODUCTS: dict[str, type[Any]] = {"numpy": _CompiledProduct, "torch": _TorchProduct, "cupy": _CupyProduct}


def product(matrix: CompressedRows, place: Device) -> Product:
    """Return the product with a matrix, in the storage of a device."""
    made: Product = _PRODUCTS.get(place.backend, _GenericProduct)(matrix, place)
    return made
