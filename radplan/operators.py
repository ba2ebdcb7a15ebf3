"""Linear maps with an exact transpose: the only thing an optimiser asks of a dose influence.

How a matrix is stored is hidden here, per backend: compiled products over compressed rows and the compressed rows of
the transpose on NumPy, the same pair as CSR tensors on torch and CuPy, a generic form in the array API elsewhere.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from radplan import arrays
from radplan.arrays import Array, Target, namespace, target
from radplan.errors import InputError

KEEP_WHOLE = 0.7
"""Share of the non-zeros above which a choice of rows is a view of the whole matrix and not a copy."""


class LinearOperator(ABC):
    """A real matrix that is applied and not looked into; immutable, on one device.

    A subclass gives `shape`, `dtype`, `target`, `apply`, `adjoint` and `squared_column_norms`. Vectors are
    ``(cols,)`` or ``(cols, k)`` and are cast to the dtype of the matrix before the product.
    """

    shape: tuple[int, int]
    dtype: str
    target: Target

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """Return the product ``(rows,)`` or ``(rows, k)`` with `x` of shape ``(cols,)`` or ``(cols, k)``."""

    @abstractmethod
    def adjoint(self, y: Array) -> Array:
        """Return the product ``(cols,)`` or ``(cols, k)`` of the transpose with `y`, ``(rows,)`` or ``(rows, k)``."""

    @abstractmethod
    def squared_column_norms(self, row_weights: Array) -> Array:
        """Return ``sum_i c_i a_ij^2`` for weights ``c (rows,)``, shape ``(cols,)``; an estimate where none is held."""

    def column_norms(self, row_weights: Array | None = None) -> Array:
        """Return the Euclidean norm of each column, shape ``(cols,)``, for the diagonal scaling of solvers.

        Parameters
        ----------
        row_weights : array of shape (rows,), optional
            Weights ``c_i >= 0`` of the rows in ``sqrt(sum_i c_i a_ij^2)``; 1 when left out.
        """
        place = self.target
        weights = row_weights
        if weights is None:
            weights = place.xp.ones(self.shape[0], dtype=place.dtype(self.dtype), device=place.device)
        norms = self.squared_column_norms(self._as_matrix_dtype(weights, self.shape[0], "row_weights"))
        return place.xp.sqrt(norms)

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the operator of the chosen rows, a host array of row numbers ``(m,)``, in that order."""
        return SelectedRows(self, np.asarray(rows, dtype=np.int64))

    def _as_matrix_dtype(self, x: Array, length: int, what: str) -> Array:
        if x.ndim not in (1, 2) or x.shape[0] != length:
            raise InputError(f"{what} must have shape ({length},) or ({length}, k), got {tuple(x.shape)}")
        return namespace(x).astype(x, self.target.dtype(self.dtype), copy=False)


@dataclass(frozen=True)
class DenseOperator(LinearOperator):
    """A dense matrix ``(rows, cols)`` on any backend.

    >>> DenseOperator(np.asarray([[1.0, 2.0]])).apply(np.asarray([3.0, 4.0])).tolist()
    [11.0]
    """

    matrix: Array

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self.matrix.shape[0]), int(self.matrix.shape[1])

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return str(arrays.dtype_name(self.matrix))

    @cached_property
    def target(self) -> Target:  # type: ignore[override]
        return arrays.target_of(self.matrix)

    def apply(self, x: Array) -> Array:
        return namespace(self.matrix).matmul(self.matrix, self._as_matrix_dtype(x, self.shape[1], "x"))

    def adjoint(self, y: Array) -> Array:
        xp = namespace(self.matrix)
        return xp.matmul(xp.matrix_transpose(self.matrix), self._as_matrix_dtype(y, self.shape[0], "y"))

    def squared_column_norms(self, row_weights: Array) -> Array:
        xp = namespace(self.matrix)
        return xp.matmul(xp.matrix_transpose(self.matrix**2), row_weights)


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
    target: Target
    _forward: _Product = field(repr=False)
    _backward: _Product = field(repr=False)

    @classmethod
    def from_csr(
        cls,
        indptr: Array,
        indices: Array,
        data: Array,
        shape: tuple[int, int],
        transpose: tuple[Array, Array, Array] | None = None,
        device: str | Target = "numpy",
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
        device : str or Target
            Where the products run.
        dtype : str
            ``"float32"`` or ``"float64"``.

        Raises
        ------
        InputError
            When the arrays do not describe a matrix of that shape or hold NaN.
        """
        place = device if isinstance(device, Target) else target(device)
        rows = _compressed(indptr, indices, data, shape[1], dtype)
        if rows.shape != tuple(shape):
            raise InputError(f"indptr describes {rows.shape[0]} rows, but the shape given is {tuple(shape)}")
        columns = rows.transposed() if transpose is None else _compressed(*transpose, shape[0], dtype)
        return cls(rows, columns, place, _product(rows, place), _product(columns, place))

    @classmethod
    def from_scipy(cls, matrix: Any, device: str | Target = "numpy", dtype: str = "float32") -> SparseOperator:
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
        return self.target.asarray(sums, self.dtype)

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the operator of the chosen rows: a copy, or a view where most of the matrix stays."""
        from radplan.kernels import sparse

        chosen = np.asarray(rows, dtype=np.int64)
        kept = int(np.sum(self.rows.indptr[chosen + 1] - self.rows.indptr[chosen]))
        if kept >= KEEP_WHOLE * self.nnz:
            return SelectedRows(self, chosen)
        parts = sparse.take_rows(self.rows.indptr, self.rows.indices, self.rows.data, chosen)
        shape = (chosen.shape[0], self.shape[1])
        return SparseOperator.from_csr(*parts, shape, device=self.target, dtype=self.dtype)

    def select_columns(self, columns: Array) -> SparseOperator:
        """Return the operator of the chosen columns, a host array of column numbers ``(m,)``."""
        from radplan.kernels import sparse

        chosen = np.asarray(columns, dtype=np.int64)
        parts = sparse.take_rows(self.columns.indptr, self.columns.indices, self.columns.data, chosen)
        back = CompressedRows(*parts, columns=self.shape[0])
        front = back.transposed()
        return SparseOperator(front, back, self.target, _product(front, self.target), _product(back, self.target))


@dataclass(frozen=True)
class SelectedRows(LinearOperator):
    """Some rows of another operator, by distinct row numbers on the host; the operator itself is shared.

    >>> SelectedRows(DenseOperator(np.asarray([[1.0], [2.0]])), np.asarray([1])).apply(np.asarray([5.0])).tolist()
    [10.0]
    """

    operator: LinearOperator
    rows: Array
    _index: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = self.operator.shape[0]
        if self.rows.size and (self.rows.min() < 0 or self.rows.max() >= count):
            raise InputError(f"row numbers must lie in 0..{count - 1}, got {self.rows.min()}..{self.rows.max()}")
        object.__setattr__(self, "_index", self.operator.target.asarray(self.rows, "int64"))

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self.rows.shape[0]), self.operator.shape[1]

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return self.operator.dtype

    @cached_property
    def target(self) -> Target:  # type: ignore[override]
        return self.operator.target

    def apply(self, x: Array) -> Array:
        return namespace(x).take(self.operator.apply(x), self._index, axis=0)

    def adjoint(self, y: Array) -> Array:
        whole = _columnwise(lambda v: arrays.segment_add(self.operator.shape[0], self._index, v))
        return self.operator.adjoint(whole(self._as_matrix_dtype(y, self.shape[0], "y")))

    def squared_column_norms(self, row_weights: Array) -> Array:
        return self.operator.squared_column_norms(arrays.segment_add(self.operator.shape[0], self._index, row_weights))

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the operator of some of these rows."""
        return self.operator.restrict(self.rows[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class ComposedOperator(LinearOperator):
    """The product ``outer inner`` of two operators.

    >>> double = DenseOperator(np.asarray([[2.0]]))
    >>> ComposedOperator(double, double).apply(np.asarray([1.0])).tolist()
    [4.0]
    """

    outer: LinearOperator
    inner: LinearOperator

    def __post_init__(self) -> None:
        if self.outer.shape[1] != self.inner.shape[0]:
            raise InputError(f"cannot compose shapes {self.outer.shape} and {self.inner.shape}: columns must meet rows")

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.outer.shape[0], self.inner.shape[1]

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return self.inner.dtype

    @cached_property
    def target(self) -> Target:  # type: ignore[override]
        return self.inner.target

    def apply(self, x: Array) -> Array:
        return self.outer.apply(self.inner.apply(x))

    def adjoint(self, y: Array) -> Array:
        return self.inner.adjoint(self.outer.adjoint(y))

    def squared_column_norms(self, row_weights: Array) -> Array:
        # Why: the columns of a product are not known without applying it, so it meets the unit vectors one by one.
        xp, columns = self.target.xp, self.shape[1]
        eye = xp.eye(columns, dtype=self.target.dtype(self.dtype), device=self.target.device)
        return xp.stack([xp.sum(row_weights * self.apply(eye[:, j]) ** 2) for j in range(columns)])

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the product with only some rows of the outer operator."""
        return ComposedOperator(self.outer.restrict(rows), self.inner)


@dataclass(frozen=True)
class StackedOperator(LinearOperator):
    """Operators side by side in columns, each with its own variables: ``[A B ...]``.

    >>> one = DenseOperator(np.asarray([[1.0]]))
    >>> StackedOperator((one, one)).apply(np.asarray([2.0, 3.0])).tolist()
    [5.0]
    """

    blocks: Sequence[LinearOperator]

    def __post_init__(self) -> None:
        heights = {block.shape[0] for block in self.blocks}
        if len(heights) != 1:
            raise InputError(f"operators side by side must have the same number of rows, got {sorted(heights)}")

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.blocks[0].shape[0], sum(block.shape[1] for block in self.blocks)

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return self.blocks[0].dtype

    @cached_property
    def target(self) -> Target:  # type: ignore[override]
        return self.blocks[0].target

    def apply(self, x: Array) -> Array:
        at, total = 0, None
        for block in self.blocks:
            part = block.apply(x[at : at + block.shape[1], ...])
            total = part if total is None else total + part
            at += block.shape[1]
        return total

    def adjoint(self, y: Array) -> Array:
        return namespace(y).concat([block.adjoint(y) for block in self.blocks])

    def squared_column_norms(self, row_weights: Array) -> Array:
        return self.target.xp.concat([block.squared_column_norms(row_weights) for block in self.blocks])

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the same blocks with only some rows."""
        return StackedOperator(tuple(block.restrict(rows) for block in self.blocks))


class _Product(ABC):
    """The product with one compressed-row matrix, in the storage of one backend."""

    @abstractmethod
    def times(self, x: Array) -> Array:
        """Return matrix times `x`, of shape ``(cols,)`` or ``(cols, k)``, already in the dtype of the matrix."""


class _CompiledProduct(_Product):
    def __init__(self, matrix: CompressedRows, place: Target) -> None:
        from radplan.kernels import sparse

        self._indptr = matrix.indptr.view(np.uint64)
        self._indices = matrix.indices.view(np.uint32)
        self._data = matrix.data
        self._chunks = sparse.row_chunks(matrix.indptr)
        self._rows = matrix.shape[0]
        self._matvec = sparse.matvec

    def times(self, x: Array) -> Array:
        return _columnwise(self._one)(x)

    def _one(self, x: Array) -> Array:
        out = np.empty(self._rows, dtype=self._data.dtype)
        self._matvec(self._indptr, self._indices, self._data, self._chunks, np.ascontiguousarray(x), out)
        return out


class _TorchProduct(_Product):
    def __init__(self, matrix: CompressedRows, place: Target) -> None:
        import torch

        index = np.int32 if matrix.data.shape[0] < 2**31 else np.int64
        parts = [torch.from_numpy(a) for a in (matrix.indptr.astype(index), matrix.indices.astype(index, copy=False))]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)", category=UserWarning)
            self._matrix = torch.sparse_csr_tensor(
                *(part.to(place.device) for part in parts),
                torch.from_numpy(matrix.data).to(place.device),
                size=matrix.shape,
                check_invariants=False,
            )

    def times(self, x: Array) -> Array:
        return self._matrix @ x


class _CupyProduct(_Product):
    def __init__(self, matrix: CompressedRows, place: Target) -> None:
        import cupy
        import cupyx.scipy.sparse

        if matrix.data.shape[0] >= 2**31:
            raise InputError(
                f"cupy holds fewer than 2^31 entries in a matrix, got {matrix.data.shape[0]}: split the beams"
            )
        with place.device:
            parts = tuple(cupy.asarray(a) for a in (matrix.data, matrix.indices, matrix.indptr.astype(np.int32)))
            self._matrix = cupyx.scipy.sparse.csr_matrix(parts, shape=matrix.shape)

    def times(self, x: Array) -> Array:
        return self._matrix @ x


class _GenericProduct(_Product):
    """Products by running sums in the array API: right on every backend, fast on none."""

    def __init__(self, matrix: CompressedRows, place: Target) -> None:
        self._indptr = place.asarray(matrix.indptr, "int64")
        self._indices = place.asarray(matrix.indices, "int64")
        self._data = place.asarray(matrix.data)

    def times(self, x: Array) -> Array:
        return _columnwise(self._one)(x)

    def _one(self, x: Array) -> Array:
        xp = namespace(x)
        terms = xp.astype(self._data * xp.take(x, self._indices), arrays.accumulator(x))
        sums = xp.cumulative_sum(terms, include_initial=True)
        totals = xp.take(sums, self._indptr[1:]) - xp.take(sums, self._indptr[:-1])
        return xp.astype(totals, x.dtype)


_PRODUCTS: dict[str, type[Any]] = {"numpy": _CompiledProduct, "torch": _TorchProduct, "cupy": _CupyProduct}


def _product(matrix: CompressedRows, place: Target) -> _Product:
    made: _Product = _PRODUCTS.get(place.backend, _GenericProduct)(matrix, place)
    return made


def _columnwise(product: Any) -> Any:
    def apply(x: Array) -> Array:
        if x.ndim == 1:
            return product(x)
        return namespace(x).stack([product(x[:, j]) for j in range(x.shape[1])], axis=1)

    return apply


def _compressed(indptr: Array, indices: Array, data: Array, columns: int, dtype: str) -> CompressedRows:
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
