"""Second derivatives of a cost within groups of variables, in the Gauss-Newton approximation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radplan.arrays import Array, to_numpy
from radplan.influence import Dij, ForwardModel
from radplan.operators import BlockDiagonal, gram_blocks
from radplan.optim.terms import Term
from radplan.quantities.resolver import Evaluation

_DAMPING = 0.01
"""Share of the diagonal that is added to it."""
_FLOOR = 0.1
"""Least root of the diagonal, over its median."""


def gauss_newton_blocks(
    model: ForwardModel, curvatures: Mapping[Any, Array], evaluation: Evaluation
) -> BlockDiagonal | None:
    r"""Return :math:`\sum_i h_i g_i g_i^T` between the variables of each group, damped so that it can be inverted.

    h is the second derivative of the cost by the quantity in voxel i, g the derivative of the quantity by the
    variables, through all images.

    Parameters
    ----------
    model : ForwardModel
        Whose `Variables.groups` are looked at.
    curvatures : mapping of quantity to array of shape (scenarios, voxels)
        h per fraction, as `voxel_curvatures` gives it.
    evaluation : Evaluation
        The quantities where the second derivative is wanted.

    Returns
    -------
    BlockDiagonal or None
        None without groups, stored matrices in run blocks, or a second derivative that is not 0.
    """
    groups = model.variables.groups
    if groups is None or not isinstance(model, Dij):
        return None
    total: Any = None
    for quantity, weights in curvatures.items():
        ones = evaluation[quantity] * 0.0 + 1.0
        slopes = evaluation.image_cotangents({quantity: ones})
        for scenario in range(weights.shape[0]):
            part = _blocks(model, slopes, to_numpy(weights)[scenario], scenario, np.asarray(groups))
            if part is None:
                return None
            total = part if total is None else BlockDiagonal(total.starts, total.values + part.values)
    if total is None or not np.any(total.diagonal > 0.0):
        return None
    diagonal = total.diagonal
    floor = (_FLOOR * np.median(np.sqrt(diagonal[diagonal > 0.0]))) ** 2
    damped: BlockDiagonal = total.with_diagonal((1.0 + _DAMPING) * diagonal + floor)
    return damped


def voxel_curvatures(terms: Sequence[Term], evaluation: Evaluation) -> dict[Any, Array]:
    """Return the second derivative of the goals by each quantity ``(scenarios, voxels)`` per fraction.

    Goals whose objective states no second derivative are left out.
    """
    total: dict[Any, Array] = {}
    for term in terms:
        part = term.curvature(evaluation[term.quantity]) if term.weight > 0.0 else None
        if part is not None:
            total[term.quantity] = total[term.quantity] + part if term.quantity in total else part
    return total


def _blocks(
    model: Dij, slopes: Mapping[str, Array], weights: Array, scenario: int, groups: Array
) -> BlockDiagonal | None:
    names = list(slopes)
    if not np.any(weights > 0.0):
        return BlockDiagonal.zeros(groups)
    operators = [model.operators[name][scenario] for name in names]
    return gram_blocks(operators, [to_numpy(slopes[name])[scenario] for name in names], weights, groups)
