"""What a linear operator is, and operators made of dense arrays or of other operators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device, namespace
from radplan.errors import InputError


class LinearOperator(ABC):
    """A real matrix that is applied and not looked into; immutable, on one device.

    A subclass gives `shape`, `dtype`, `target`, `apply`, `adjoint` and `squared_column_norms`. Vectors are
    ``(cols,)`` or ``(cols, k)`` and are cast to the dtype of the matrix before the product.
    """

    shape: tuple[int, int]
    dtype: str
    device: Device

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
        place = self.device
        weights = row_weights
        if weights is None:
            weights = place.xp.ones(self.shape[0], dtype=place.dtype(self.dtype), device=place.native)
        norms = self.squared_column_norms(self._as_matrix_dtype(weights, self.shape[0], "row_weights"))
        return place.xp.sqrt(norms)

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the operator of the chosen rows, a host array of row numbers ``(m,)``, in that order."""
        return SelectedRows(self, np.asarray(rows, dtype=np.int64))

    def _as_matrix_dtype(self, x: Array, length: int, what: str) -> Array:
        if x.ndim not in (1, 2) or x.shape[0] != length:
            raise InputError(f"{what} must have shape ({length},) or ({length}, k), got {tuple(x.shape)}")
        return namespace(x).astype(x, self.device.dtype(self.dtype), copy=False)


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
    def device(self) -> Device:  # type: ignore[override]
        return arrays.device_of(self.matrix)

    def apply(self, x: Array) -> Array:
        return namespace(self.matrix).matmul(self.matrix, self._as_matrix_dtype(x, self.shape[1], "x"))

    def adjoint(self, y: Array) -> Array:
        xp = namespace(self.matrix)
        return xp.matmul(xp.matrix_transpose(self.matrix), self._as_matrix_dtype(y, self.shape[0], "y"))

    def squared_column_norms(self, row_weights: Array) -> Array:
        xp = namespace(self.matrix)
        return xp.matmul(xp.matrix_transpose(self.matrix**2), row_weights)


@dataclass(frozen=True)
class SelectedRows(LinearOperator):
    """Some rows of another operator, by row numbers on the host; the operator itself is shared.

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
        object.__setattr__(self, "_index", self.operator.device.asarray(self.rows, "int64"))

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self.rows.shape[0]), self.operator.shape[1]

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return self.operator.dtype

    @cached_property
    def device(self) -> Device:  # type: ignore[override]
        return self.operator.device

    def take(self, y: Array) -> Array:
        """Return the chosen ones of all rows, ``(rows of the operator,)`` to ``(rows,)``."""
        return namespace(y).take(y, self._index, axis=0)

    def spread(self, y: Array) -> Array:
        """Return values of the chosen rows among zeros for the others, ``(rows,)`` to ``(rows of the operator,)``."""
        place = arrays.scatter if self._distinct else arrays.segment_add
        return columnwise(lambda v: place(self.operator.shape[0], self._index, v))(y)

    @cached_property
    def _distinct(self) -> bool:
        return bool(np.unique(self.rows).size == self.rows.size)

    def apply(self, x: Array) -> Array:
        return self.take(self.operator.apply(x))

    def adjoint(self, y: Array) -> Array:
        return self.operator.adjoint(self.spread(self._as_matrix_dtype(y, self.shape[0], "y")))

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
    def device(self) -> Device:  # type: ignore[override]
        return self.inner.device

    def apply(self, x: Array) -> Array:
        return self.outer.apply(self.inner.apply(x))

    def adjoint(self, y: Array) -> Array:
        return self.inner.adjoint(self.outer.adjoint(y))

    def squared_column_norms(self, row_weights: Array) -> Array:
        # Why: the columns of a product are not known without applying it, so it meets the unit vectors one by one.
        xp, columns = self.device.xp, self.shape[1]
        eye = xp.eye(columns, dtype=self.device.dtype(self.dtype), device=self.device.native)
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
    def device(self) -> Device:  # type: ignore[override]
        return self.blocks[0].device

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
        return self.device.xp.concat([block.squared_column_norms(row_weights) for block in self.blocks])

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the same blocks with only some rows."""
        return StackedOperator(tuple(block.restrict(rows) for block in self.blocks))


def columnwise(product: Any) -> Any:
    """Return a product with vectors as one that takes several side by side, ``(n, k)``, too."""

    def apply(x: Array) -> Array:
        if x.ndim == 1:
            return product(x)
        return namespace(x).stack([product(x[:, j]) for j in range(x.shape[1])], axis=1)

    return apply
