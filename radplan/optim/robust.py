"""How a goal reduces the scenarios of a model to one number: nominal, expected, worst, voxel-wise worst, CVaR."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from radplan.arrays import Array, namespace, native_device, weighted_sum
from radplan.errors import InputError
from radplan.optim.objectives import Objective
from radplan.optim.objectives.dvh import weights_without_largest


def expected(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the mean of the objective over the scenarios, weighted by probability, and its gradient."""
    costs, slopes = each_scenario(objective, values, weights)
    return _combine(costs, slopes, _like(probabilities, costs))


def worst(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the objective of the scenario where it is largest, and the gradient there."""
    costs, slopes = each_scenario(objective, values, weights)
    xp = namespace(costs)
    scenarios = xp.arange(costs.shape[0], device=native_device(costs))
    return _combine(costs, slopes, xp.astype(scenarios == xp.argmax(costs), costs.dtype))


def cvar(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the mean of the objective over its worst scenarios of probability `tail`, and its gradient.

    Source: Rockafellar and Uryasev, J. Risk 2 (2000) 21.
    """
    costs, slopes = each_scenario(objective, values, weights)
    chances = _like(probabilities, costs)
    return _combine(costs, slopes, (chances - weights_without_largest(costs, chances, tail)) / tail)


def voxelwise_worst(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the objective of the worst value of each voxel, and its gradient.

    Worst is the smallest value for an objective that pushes up, the largest for one that pushes down, and the one
    farther from the level for one that does both.
    """
    xp = namespace(values)
    highest, lowest = xp.argmax(values, axis=0), xp.argmin(values, axis=0)
    if objective.pushes == "down":
        chosen = highest
    elif objective.pushes == "up":
        chosen = lowest
    elif objective.level is None:
        raise InputError(
            f"objective {objective.name!r} states no level, so it has no voxel-wise worst case: use robust='worst'"
        )
    else:
        level = objective.level
        above, below = xp.max(values, axis=0) - level, level - xp.min(values, axis=0)
        chosen = xp.where(above >= below, highest, lowest)
    scenarios = xp.reshape(xp.arange(values.shape[0], device=native_device(values)), (-1, 1))
    mask = xp.astype(scenarios == xp.reshape(chosen, (1, -1)), values.dtype)
    value, slope = objective.value_and_gradient(xp.sum(mask * values, axis=0), weights)
    return value, mask * xp.reshape(slope, (1, -1))


Reduction = Callable[[Objective, Array, Array, Sequence[float], float], tuple[Array, Array]]

REDUCTIONS: dict[str, Reduction | None] = {
    "nominal": None,
    "expected": expected,
    "worst": worst,
    "voxelwise_worst": voxelwise_worst,
    "cvar": cvar,
}
"""Reductions by name: functions of objective, values ``(scenarios, m)``, weights ``(m,)``, probabilities and tail that
return the value and the gradient ``(scenarios, m)``. The nominal one looks at the first scenario alone."""


def each_scenario(objective: Objective, values: Array, weights: Array) -> tuple[Array, Array]:
    """Return the objective in each scenario ``(scenarios,)`` and its gradients ``(scenarios, m)``."""
    xp = namespace(values)
    pairs = [objective.value_and_gradient(values[row, :], weights) for row in range(values.shape[0])]
    return xp.stack([cost for cost, _ in pairs]), xp.stack([slope for _, slope in pairs])


def _combine(costs: Array, slopes: Array, shares: Array) -> tuple[Array, Array]:
    xp = namespace(costs)
    return weighted_sum(costs, shares), xp.reshape(xp.astype(shares, slopes.dtype), (-1, 1)) * slopes


def _like(probabilities: Sequence[float], costs: Array) -> Array:
    return namespace(costs).asarray(list(probabilities), dtype=costs.dtype, device=native_device(costs))
