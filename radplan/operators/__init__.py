"""Linear maps with an exact transpose: the only thing an optimiser asks of a dose influence.

How a matrix is stored is hidden here, per backend: on NumPy one row-ordered copy in run blocks with compiled products,
on torch and CuPy CSR tensors of the matrix and of its transpose, elsewhere a generic form in the array API.
"""

from __future__ import annotations

from radplan.operators.base import ComposedOperator, DenseOperator, LinearOperator, SelectedRows, StackedOperator
from radplan.operators.blocks import BlockRows
from radplan.operators.family import FamilyMember, OperatorFamily
from radplan.operators.gram import BlockDiagonal, gram_blocks
from radplan.operators.sparse import SparseOperator, sparse_images
from radplan.operators.storage import CompressedRows
from radplan.operators.together import adjoint_sum, apply_all, restrict_all, share_places

__all__ = [
    "BlockDiagonal",
    "BlockRows",
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
    "gram_blocks",
    "restrict_all",
    "share_places",
    "sparse_images",
]
