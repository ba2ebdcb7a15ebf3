"""What a stored sparse matrix offers, and compressed rows on the host, from which every storage is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse

from radplan.arrays import Array, Device
from radplan.errors import InputError


@dataclass(frozen=True, eq=False)
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
    """Return checked compressed rows whose columns ascend, without a copy where types and order fit.

    Unsorted columns are sorted, and repeated entries are added up.

    Raises
    ------
    InputError
        When the arrays do not fit together, or hold NaN.
    """
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
    if np.any(np.diff(starts) < 0):
        raise InputError("compressed rows do not fit together: indptr falls in places")
    if places.size and (places.min() < 0 or places.max() >= columns):
        raise InputError(f"column numbers must lie in 0..{columns - 1}, got {places.min()}..{places.max()}")
    if values.size and not np.isfinite(values.sum(dtype=np.float64)):
        raise InputError("the matrix holds NaN or infinite values; check the data it was made from")
    return _ascending(CompressedRows(starts, places, values, columns))


def _ascending(matrix: CompressedRows) -> CompressedRows:
    """Return the matrix with ascending columns in each row, each once."""
    from radplan.kernels import sparse

    if sparse.ascends(matrix.indptr, matrix.indices):
        return matrix
    parts = (matrix.data, matrix.indices, matrix.indptr)
    ordered = scipy.sparse.csr_array(parts, shape=matrix.shape, copy=True)
    ordered.sum_duplicates()
    return CompressedRows(
        ordered.indptr.astype(np.int64, copy=False),
        ordered.indices.astype(np.int32, copy=False),
        ordered.data,
        matrix.columns,
    )


class Storage(ABC):
    """One sparse matrix as a backend multiplies it; vectors are in its dtype."""

    shape: tuple[int, int]
    dtype: str
    device: Device

    @property
    @abstractmethod
    def nnz(self) -> int:
        """Number of entries."""

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """Return matrix times `x`, ``(cols,)`` or ``(cols, k)``."""

    @abstractmethod
    def adjoint(self, y: Array) -> Array:
        """Return transpose times `y`, ``(rows,)`` or ``(rows, k)``."""

    @abstractmethod
    def column_square_sums(self, weights: Array) -> Array:
        """Return ``sum_i c_i a_ij^2`` of each column ``(cols,)`` for weights ``c (rows,)``, float64 on the host."""

    @abstractmethod
    def take(self, rows: Array) -> Self | None:
        """Return the matrix of the chosen rows, host int64 ``(m,)``; None where a view of this one does as well."""

    @abstractmethod
    def compressed(self) -> CompressedRows:
        """Return compressed rows on the host."""

    @property
    @abstractmethod
    def places(self) -> Array:
        """The array that says where entries stand, which matrices of one pattern may share."""

    @abstractmethod
    def sharing(self, other: Storage) -> Self:
        """Return the matrix with the places of another one where they are the same, else as it is."""
