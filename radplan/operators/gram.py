"""Scalar products of columns that belong together: block-diagonal parts of ``A' diag(c) A``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from radplan.arrays import Array
from radplan.operators.base import LinearOperator
from radplan.operators.blocks import RunBlocks
from radplan.operators.sparse import SparseOperator


@dataclass(frozen=True, eq=False)
class BlockDiagonal:
    """A symmetric block-diagonal matrix on the host, one block for each group of variables that follow one another.

    Parameters
    ----------
    starts : array of shape (groups + 1,)
        First variable of each group, int64.
    values : array of shape (sum of squared group sizes,)
        The blocks one after another, row by row, float64.

    >>> BlockDiagonal(np.asarray([0, 2]), np.asarray([2.0, 1.0, 1.0, 2.0])).times(np.asarray([[1.0, 0.0]])).tolist()
    [[2.0, 1.0]]
    """

    starts: Array
    values: Array

    @classmethod
    def zeros(cls, groups: Array) -> BlockDiagonal:
        """Return the zero matrix of groups by number ``(variables,)``, ascending."""
        starts = np.flatnonzero(np.concatenate([[True], np.diff(groups) != 0, [True]])).astype(np.int64)
        return cls(starts, np.zeros(int(np.sum(np.diff(starts) ** 2))))

    @property
    def offsets(self) -> Array:
        """Where each block begins, ``(groups + 1,)``."""
        return np.concatenate([[0], np.cumsum(np.diff(self.starts) ** 2)]).astype(np.int64)

    @property
    def diagonal(self) -> Array:
        """The diagonal, ``(variables,)``."""
        return self.values[self._on_diagonal]

    @property
    def _on_diagonal(self) -> Array:
        sizes = np.diff(self.starts)
        place = np.arange(int(self.starts[-1])) - np.repeat(self.starts[:-1], sizes)
        return np.repeat(self.offsets[:-1], sizes) + place * (np.repeat(sizes, sizes) + 1)

    def with_diagonal(self, diagonal: Array) -> BlockDiagonal:
        """Return the matrix with another diagonal ``(variables,)``."""
        values = self.values.copy()
        values[self._on_diagonal] = diagonal
        return replace(self, values=values)

    def scaled(self, scale: Array) -> BlockDiagonal:
        """Return ``S M S`` for a diagonal S ``(variables,)``."""
        sizes, offsets, values = np.diff(self.starts), self.offsets, self.values.copy()
        for n, size in enumerate(sizes):
            part = scale[self.starts[n] : self.starts[n] + size]
            values[offsets[n] : offsets[n + 1]] *= np.outer(part, part).ravel()
        return replace(self, values=values)

    def times(self, x: Array) -> Array:
        """Return products with vectors ``(n, variables)``."""
        from radplan.kernels import ray_blocks

        return ray_blocks.times(self.starts, self.offsets, self.values, np.ascontiguousarray(x, dtype=np.float64))

    def solve(self, x: Array, free: Array) -> Array:
        """Return what the part of the free variables maps to vectors ``(n, variables)``; zero for the others."""
        from radplan.kernels import ray_blocks

        vectors = np.ascontiguousarray(x, dtype=np.float64)
        return ray_blocks.solve(self.starts, self.offsets, self.values, np.ascontiguousarray(free), vectors)


def gram_blocks(
    operators: Sequence[LinearOperator], factors: Sequence[Array], weights: Array, groups: Array
) -> BlockDiagonal | None:
    r"""Return the blocks of :math:`G^T \mathrm{diag}(c) G`, :math:`G = \sum_k \mathrm{diag}(f_k) A_k`, by groups.

    Parameters
    ----------
    operators : sequence of LinearOperator
        K matrices A of one pattern, ``(rows, columns)``.
    factors : sequence of arrays of shape (rows,)
        What the rows of each matrix count, f.
    weights : array of shape (rows,)
        c >= 0.
    groups : array of shape (columns,)
        Number of each column's group, ascending.

    Returns
    -------
    BlockDiagonal or None
        None where the matrices are not stored by blocks of one pattern on NumPy.
    """
    stored = [operator.storage for operator in operators if isinstance(operator, SparseOperator)]
    blocks = [storage for storage in stored if isinstance(storage, RunBlocks)]
    if not blocks or len(blocks) != len(operators):
        return None
    first = blocks[0]
    if any(other.firsts is not first.firsts or other.rows is not first.rows for other in blocks):
        return None
    from radplan.kernels import ray_blocks

    total = BlockDiagonal.zeros(groups)
    numbers = np.repeat(np.arange(total.starts.size - 1), np.diff(total.starts))
    by_row = np.stack([np.asarray(factor, dtype=np.float64) for factor in factors], axis=1)
    values = tuple(storage.values for storage in blocks)
    ray_blocks.gram(
        first.pointers, first.firsts, values, first.rows, by_row, np.array(weights, dtype=np.float64), numbers,
        total.starts, total.offsets, total.values,
    )  # fmt: skip
    return total
