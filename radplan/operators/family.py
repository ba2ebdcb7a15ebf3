"""Operators that are calculated together: several images of one model, for which most of the work is the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from radplan.arrays import Array, Device
from radplan.operators.base import LinearOperator, SelectedRows, columnwise


class OperatorFamily(ABC):
    """Linear maps of one shape on one device, numbered from 0, of which any can be had at the cost of about one."""

    shape: tuple[int, int]
    dtype: str
    device: Device

    @abstractmethod
    def apply_members(self, members: Sequence[int], x: Array) -> list[Array]:
        """Return the product ``(rows,)`` of each of the members with ``x (cols,)``, in the family's dtype."""

    @abstractmethod
    def adjoint_members(self, members: Sequence[int], ys: Sequence[Array]) -> Array:
        """Return the sum of the products ``(cols,)`` of the members' transposes with ``ys``, ``(rows,)`` each."""

    @abstractmethod
    def squared_column_norms(self, member: int, row_weights: Array) -> Array:
        """Return ``sum_i c_i a_ij^2`` of a member for weights ``c (rows,)``, shape ``(cols,)``."""

    @abstractmethod
    def restrict(self, rows: Any) -> OperatorFamily:
        """Return the family with the chosen rows only, distinct row numbers ``(m,)`` in this order."""


@dataclass(frozen=True)
class FamilyMember(LinearOperator):
    """One operator of a family.

    Parameters
    ----------
    family : OperatorFamily
        Whose products it takes.
    place : int
        Its number there.
    """

    family: OperatorFamily
    place: int

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.family.shape

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return self.family.dtype

    @cached_property
    def device(self) -> Device:  # type: ignore[override]
        return self.family.device

    def apply(self, x: Array) -> Array:
        product = columnwise(lambda v: self.family.apply_members([self.place], v)[0])
        return product(self._as_matrix_dtype(x, self.shape[1], "x"))

    def adjoint(self, y: Array) -> Array:
        product = columnwise(lambda v: self.family.adjoint_members([self.place], [v]))
        return product(self._as_matrix_dtype(y, self.shape[0], "y"))

    def squared_column_norms(self, row_weights: Array) -> Array:
        return self.family.squared_column_norms(self.place, row_weights)

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the member of the family with the chosen rows: the others are not calculated."""
        chosen = np.asarray(rows, dtype=np.int64)
        if np.unique(chosen).size != chosen.size:
            return SelectedRows(self, chosen)
        return FamilyMember(self.family.restrict(chosen), self.place)
