"""Sparse matrices as linear operators."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from radplan import arrays
from radplan.arrays import Array, Device, as_device
from radplan.errors import InputError
from radplan.operators.base import LinearOperator, SelectedRows
from radplan.operators.blocks import BlockRows, RunBlocks, SingleEntries
from radplan.operators.pairs import TransposedPair
from radplan.operators.storage import CompressedRows, Storage, compressed


@dataclass(frozen=True)
class SparseOperator(LinearOperator):
    """A sparse matrix on one device.

    Make it with `from_csr` or `from_scipy`. Column numbers are 32-bit, so a matrix holds fewer than 2^31 columns.

    >>> matrix = SparseOperator.from_scipy(scipy.sparse.csr_array([[1.0, 0.0], [2.0, 3.0]]))
    >>> matrix.apply(np.asarray([1.0, 1.0])).tolist(), matrix.adjoint(np.asarray([1.0, 1.0])).tolist()
    ([1.0, 5.0], [3.0, 3.0])
    """

    storage: Storage

    @classmethod
    def from_csr(
        cls,
        indptr: Array,
        indices: Array,
        data: Array,
        shape: tuple[int, int],
        device: str | Device = "numpy",
        dtype: str = "float32",
    ) -> SparseOperator:
        """Return the operator of host CSR arrays; columns may be unsorted, and repeated entries are added up.

        Parameters
        ----------
        indptr, indices, data : array of shape (rows + 1,), (nnz,), (nnz,)
            Compressed rows; not changed, and not copied where a backend keeps compressed rows and types fit.
        shape : (int, int)
            Rows and columns.
        device : str or Device
            Where the products run.
        dtype : str
            ``"float32"`` or ``"float64"``.

        Raises
        ------
        InputError
            When the arrays do not describe a matrix of that shape or hold NaN.
        """
        rows = compressed(indptr, indices, data, shape[1], dtype)
        if rows.shape != tuple(shape):
            raise InputError(f"indptr describes {rows.shape[0]} rows, but the shape given is {tuple(shape)}")
        return cls(_stored(rows, as_device(device)))

    @classmethod
    def from_scipy(cls, matrix: Any, device: str | Device = "numpy", dtype: str = "float32") -> SparseOperator:
        """Return the operator of a matrix, which is copied: SciPy sparse, dense of any library, or nested lists.

        Raises
        ------
        InputError
            When it is no matrix of real numbers, or sparse of another library.
        """
        csr = scipy.sparse.csr_array(_readable(matrix), copy=True)
        return cls.from_csr(csr.indptr, csr.indices, csr.data, csr.shape, device, dtype)

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.storage.shape

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return self.storage.dtype

    @cached_property
    def device(self) -> Device:  # type: ignore[override]
        return self.storage.device

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.storage.nnz

    def to_scipy(self) -> Any:
        """Return the matrix as a `scipy.sparse.csr_array` on the host, columns ascending in each row."""
        rows = self.storage.compressed()
        matrix = scipy.sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=self.shape)
        return matrix if matrix.has_sorted_indices else matrix.sorted_indices()

    def apply(self, x: Array) -> Array:
        return self.storage.apply(self._as_matrix_dtype(x, self.shape[1], "x"))

    def adjoint(self, y: Array) -> Array:
        return self.storage.adjoint(self._as_matrix_dtype(y, self.shape[0], "y"))

    def squared_column_norms(self, row_weights: Array) -> Array:
        weights = np.ascontiguousarray(arrays.to_numpy(row_weights), dtype=np.float64)
        return self.device.asarray(self.storage.column_square_sums(weights), self.dtype)

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the operator of the chosen rows, a host array of row numbers ``(m,)``, in that order.

        On NumPy it is a list of rows of the same matrix; elsewhere a copy, or a view where most of the matrix stays.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.shape[0]):
            raise InputError(f"row numbers must lie in 0..{self.shape[0] - 1}, got {chosen.min()}..{chosen.max()}")
        taken = self.storage.take(chosen)
        return SelectedRows(self, chosen) if taken is None else SparseOperator(taken)


def _stored(rows: CompressedRows, place: Device) -> Storage:
    """Return a matrix in the storage of a device."""
    if place.backend != "numpy":
        return TransposedPair.of(rows, place)
    return RunBlocks.of(rows) or SingleEntries.of(rows)


def sparse_images(rows: BlockRows, device: str | Device, dtype: str) -> tuple[SparseOperator, ...]:
    """Return the operators of matrices of one pattern, which share their places.

    Raises
    ------
    InputError
        When `dtype` is unknown, or values are NaN or infinite.
    """
    place = as_device(device)
    if dtype not in ("float32", "float64"):
        raise InputError(f"a matrix is stored as 'float32' or 'float64', got dtype {dtype!r}")
    if not np.isfinite(rows.values.sum(dtype=np.float64)):
        raise InputError("the matrix holds NaN or infinite values; check the data it was made from")
    blocks = rows.storages(dtype) if place.backend == "numpy" else None
    if blocks is not None:
        return tuple(SparseOperator(image) for image in blocks)
    images = [_stored(image, place) for image in rows.compressed(dtype)]
    return tuple(SparseOperator(image if image is images[0] else image.sharing(images[0])) for image in images)


def _readable(matrix: Any) -> Any:
    """Return a matrix that SciPy takes: two-dimensional, of real numbers in the machine's own order of bytes."""
    values = matrix
    if not scipy.sparse.issparse(matrix):
        try:
            values = arrays.to_numpy(matrix)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(
                f"a {type(matrix).__name__} is no matrix that can be read ({error}); give a SciPy sparse matrix or a "
                "dense one, such as tensor.to_dense()"
            ) from None
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InputError(
            f"a matrix must hold real numbers in rows and columns, got {values.dtype} of shape {values.shape}"
        )
    if values.dtype.kind == "f" and values.dtype.name in ("float32", "float64"):
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    return values.astype(np.float64)
