"""Products with several operators at once: matrices whose entries stand in the same places are read in one pass.

Matrices belong together when they hold the very same array of places, as an engine makes them for its images; so do
members of one family. Everything here gives what the operators give one by one, and works for any of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from radplan.arrays import Array
from radplan.operators.base import LinearOperator, SelectedRows
from radplan.operators.blocks import RunBlocks, adjoint_blocks, apply_blocks
from radplan.operators.family import FamilyMember
from radplan.operators.sparse import SparseOperator


def apply_all(operators: Sequence[LinearOperator], x: Array) -> list[Array]:
    """Return the product of every operator with one vector.

    Parameters
    ----------
    operators : sequence of LinearOperator
        All with the same number of columns.
    x : array of shape (cols,)
        The vector.

    Returns
    -------
    list of arrays of shape (rows,)

    >>> import scipy.sparse
    >>> one, two = (SparseOperator.from_scipy(scipy.sparse.csr_array([[n, 2.0 * n]])) for n in (1.0, 3.0))
    >>> [y.tolist() for y in apply_all([one, two], np.asarray([1.0, 1.0]))]
    [[3.0], [9.0]]
    """
    results: dict[int, Array] = {}
    for places in _groups(operators):
        first = operators[places[0]]
        if len(places) == 1:
            products = [first.apply(x)]
        elif isinstance(first, SelectedRows):
            products = [first.take(y) for y in apply_all(_inner(operators, places), x)]
        elif isinstance(first, FamilyMember):
            vector = first._as_matrix_dtype(x, first.shape[1], "x")
            products = first.family.apply_members(_members(operators, places), vector)
        else:
            products = apply_blocks(_blocks(operators, places), first._as_matrix_dtype(x, first.shape[1], "x"))
        results.update(zip(places, products, strict=True))
    return [results[place] for place in range(len(operators))]


def adjoint_sum(operators: Sequence[LinearOperator], ys: Sequence[Array]) -> Array:
    """Return the sum of the products of every operator's transpose with its own vector, shape (cols,).

    Parameters
    ----------
    operators : sequence of LinearOperator
        At least one, all with the same number of columns.
    ys : sequence of arrays of shape (rows,)
        One vector for each.

    >>> import scipy.sparse
    >>> one, two = (SparseOperator.from_scipy(scipy.sparse.csr_array([[n, 2.0 * n]])) for n in (1.0, 3.0))
    >>> adjoint_sum([one, two], [np.asarray([1.0]), np.asarray([1.0])]).tolist()
    [4.0, 8.0]
    """
    total = None
    for places in _groups(operators):
        first, theirs = operators[places[0]], [ys[place] for place in places]
        if len(places) == 1:
            part = first.adjoint(theirs[0])
        elif isinstance(first, SelectedRows):
            part = adjoint_sum(_inner(operators, places), [first.spread(y) for y in theirs])
        elif isinstance(first, FamilyMember):
            vectors = [first._as_matrix_dtype(y, first.shape[0], "y") for y in theirs]
            part = first.family.adjoint_members(_members(operators, places), vectors)
        else:
            vectors = [first._as_matrix_dtype(y, first.shape[0], "y") for y in theirs]
            part = adjoint_blocks(_blocks(operators, places), vectors)
        total = part if total is None else total + part
    return total


def share_places(operators: Sequence[LinearOperator]) -> list[LinearOperator]:
    """Return the operators, those sparse ones whose entries stand in the same places with one array of them.

    >>> import scipy.sparse
    >>> made = [SparseOperator.from_scipy(scipy.sparse.csr_array([[1.0, 2.0]]) * n) for n in (1, 2)]
    >>> one, two = share_places(made)
    >>> one.storage.places is two.storage.places
    True
    """
    made = list(operators)
    for place, first in enumerate(made):
        for later in range(place + 1, len(made)):
            other = made[later]
            if isinstance(first, SparseOperator) and isinstance(other, SparseOperator):
                made[later] = SparseOperator(other.storage.sharing(first.storage))
    return made


def restrict_all(operators: Sequence[LinearOperator], rows: Array) -> list[LinearOperator]:
    """Return every operator with the chosen rows only, a host array of row numbers ``(m,)``; groups stay together."""
    chosen = np.asarray(rows, dtype=np.int64)
    made = [operator.restrict(chosen) for operator in operators]
    for places in _groups(operators):
        first = made[places[0]]
        for place in places[1:]:
            other = made[place]
            if isinstance(first, SparseOperator) and isinstance(other, SparseOperator):
                made[place] = SparseOperator(other.storage.sharing(first.storage))
            elif isinstance(first, FamilyMember) and isinstance(other, FamilyMember):
                made[place] = FamilyMember(first.family, other.place)
    return made


def _groups(operators: Sequence[LinearOperator]) -> list[list[int]]:
    """Return the places of operators that belong together, each place once."""
    found: dict[Hashable, list[int]] = {}
    for place, operator in enumerate(operators):
        found.setdefault(_key(operator), []).append(place)
    return list(found.values())


def _key(operator: LinearOperator) -> Hashable:
    if isinstance(operator, SelectedRows):
        return ("rows", id(operator.rows), _key(operator.operator))
    if isinstance(operator, FamilyMember):
        return ("family", id(operator.family))
    if isinstance(operator, SparseOperator) and isinstance(operator.storage, RunBlocks):
        return ("pattern", id(operator.storage.firsts), id(operator.storage.rows), operator.dtype)
    return ("alone", id(operator))


def _inner(operators: Sequence[LinearOperator], places: list[int]) -> list[LinearOperator]:
    """Return the operators that choices of rows were taken from."""
    return [chosen.operator for chosen in (operators[place] for place in places) if isinstance(chosen, SelectedRows)]


def _members(operators: Sequence[LinearOperator], places: list[int]) -> list[int]:
    return [member.place for member in (operators[place] for place in places) if isinstance(member, FamilyMember)]


def _blocks(operators: Sequence[LinearOperator], places: list[int]) -> list[RunBlocks]:
    stored = [matrix.storage for matrix in (operators[n] for n in places) if isinstance(matrix, SparseOperator)]
    return [storage for storage in stored if isinstance(storage, RunBlocks)]
