"""Sparse matrices as linear operators."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from radplan import arrays
from radplan.arrays import Array, Device, as_device
from radplan.errors import InputError
from radplan.operators.base import LinearOperator, SelectedRows
from radplan.operators.storage import CompressedRows, Product, compressed, product

KEEP_WHOLE = 0.7
"""Share of the non-zeros above which a choice of rows is a view of the whole matrix and not a copy."""


@dataclass(frozen=True)
class SparseOperator(LinearOperator):
    """A sparse matrix with its transpose, both by compressed rows, on one device.

    Make it with `from_csr` or `from_scipy`. Indices are 32-bit, so a matrix holds fewer than 2^31 columns and rows.

    >>> matrix = SparseOperator.from_scipy(scipy.sparse.csr_array([[1.0, 0.0], [2.0, 3.0]]))
    >>> matrix.apply(np.asarray([1.0, 1.0])).tolist(), matrix.adjoint(np.asarray([1.0, 1.0])).tolist()
    ([1.0, 5.0], [3.0, 3.0])
    """

    rows: CompressedRows
    columns: CompressedRows
    device: Device
    _forward: Product = field(repr=False)
    _backward: Product = field(repr=False)

    @classmethod
    def from_csr(
        cls,
        indptr: Array,
        indices: Array,
        data: Array,
        shape: tuple[int, int],
        transpose: tuple[Array, Array, Array] | None = None,
        device: str | Device = "numpy",
        dtype: str = "float32",
    ) -> SparseOperator:
        """Return the operator of host CSR arrays, which are used without a copy where their types fit.

        Parameters
        ----------
        indptr, indices, data : array of shape (rows + 1,), (nnz,), (nnz,)
            Compressed rows.
        shape : (int, int)
            Rows and columns.
        transpose : tuple of arrays, optional
            The compressed rows of the transpose; calculated when left out.
        device : str or Device
            Where the products run.
        dtype : str
            ``"float32"`` or ``"float64"``.

        Raises
        ------
        InputError
            When the arrays do not describe a matrix of that shape or hold NaN.
        """
        place = as_device(device)
        rows = compressed(indptr, indices, data, shape[1], dtype)
        if rows.shape != tuple(shape):
            raise InputError(f"indptr describes {rows.shape[0]} rows, but the shape given is {tuple(shape)}")
        columns = rows.transposed() if transpose is None else compressed(*transpose, shape[0], dtype)
        return cls(rows, columns, place, product(rows, place), product(columns, place))

    @classmethod
    def from_scipy(cls, matrix: Any, device: str | Device = "numpy", dtype: str = "float32") -> SparseOperator:
        """Return the operator of any SciPy sparse matrix or array, which is copied."""
        csr = scipy.sparse.csr_array(matrix, copy=True)
        csr.sum_duplicates()
        return cls.from_csr(csr.indptr, csr.indices, csr.data, csr.shape, device=device, dtype=dtype)

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.rows.shape

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return str(self.rows.data.dtype.name)

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return int(self.rows.data.shape[0])

    def to_scipy(self) -> Any:
        """Return the matrix as a `scipy.sparse.csr_array` that shares the host memory."""
        return scipy.sparse.csr_array((self.rows.data, self.rows.indices, self.rows.indptr), shape=self.shape)

    def apply(self, x: Array) -> Array:
        return self._forward.times(self._as_matrix_dtype(x, self.shape[1], "x"))

    def adjoint(self, y: Array) -> Array:
        return self._backward.times(self._as_matrix_dtype(y, self.shape[0], "y"))

    def squared_column_norms(self, row_weights: Array) -> Array:
        from radplan.kernels import sparse

        back, weights = self.columns, np.ascontiguousarray(arrays.to_numpy(row_weights), dtype=np.float64)
        sums = sparse.row_square_sums(back.indptr.view(np.uint64), back.indices.view(np.uint32), back.data, weights)
        return self.device.asarray(sums, self.dtype)

    def with_values(self, values: Array, transposed_values: Array) -> SparseOperator:
        """Return a matrix with other values in the same places: the arrays of row and column numbers are shared.

        Parameters
        ----------
        values : array of shape (nnz,)
            In the order of `rows`.
        transposed_values : array of shape (nnz,)
            The same in the order of `columns`.
        """
        pairs = ((self.rows, values), (self.columns, transposed_values))
        rows, columns = (replace(old, data=np.ascontiguousarray(new, self.dtype)) for old, new in pairs)
        forward, backward = self._forward.with_values(rows.data), self._backward.with_values(columns.data)
        return SparseOperator(rows, columns, self.device, forward, backward)

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the operator of the chosen rows: a copy, or a view where most of the matrix stays."""
        from radplan.kernels import sparse

        chosen = np.asarray(rows, dtype=np.int64)
        kept = int(np.sum(self.rows.indptr[chosen + 1] - self.rows.indptr[chosen]))
        if kept >= KEEP_WHOLE * self.nnz:
            return SelectedRows(self, chosen)
        parts = sparse.take_rows(self.rows.indptr, self.rows.indices, self.rows.data, chosen)
        shape = (chosen.shape[0], self.shape[1])
        return SparseOperator.from_csr(*parts, shape, device=self.device, dtype=self.dtype)

    def select_columns(self, columns: Array) -> SparseOperator:
        """Return the operator of the chosen columns, a host array of column numbers ``(m,)``."""
        from radplan.kernels import sparse

        chosen = np.asarray(columns, dtype=np.int64)
        parts = sparse.take_rows(self.columns.indptr, self.columns.indices, self.columns.data, chosen)
        back = CompressedRows(*parts, columns=self.shape[0])
        front = back.transposed()
        return SparseOperator(front, back, self.device, product(front, self.device), product(back, self.device))
