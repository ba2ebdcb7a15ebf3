"""Linear maps with an exact transpose: the only thing an optimiser asks of a dose influence.

How a matrix is stored is hidden here, per backend: compiled products over compressed rows and the compressed rows of
the transpose on NumPy, the same pair as CSR tensors on torch and CuPy, a generic form in the array API elsewhere.
"""

from __future__ import annotations

from radplan.operators.base import ComposedOperator, DenseOperator, LinearOperator, SelectedRows, StackedOperator
from radplan.operators.family import FamilyMember, OperatorFamily
from radplan.operators.sparse import SparseOperator
from radplan.operators.storage import CompressedRows
from radplan.operators.together import adjoint_sum, apply_all, restrict_all, share_places

__all__ = [
    "ComposedOperator",
    "CompressedRows",
    "DenseOperator",
    "FamilyMember",
    "LinearOperator",
    "OperatorFamily",
    "SelectedRows",
    "SparseOperator",
    "StackedOperator",
    "adjoint_sum",
    "apply_all",
    "restrict_all",
    "share_places",
]
