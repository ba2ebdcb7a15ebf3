r"""How a goal reduces scenarios to one number: nominal, expected, worst, voxel-wise worst and best, CVaR, variance.

The maximum over scenarios has a kink wherever two are equally bad, which is where its optimum lies, and line searches
end there; so has the mean of the worst ones. Both are therefore smooth, `smooth_maximum` and `smooth_tail_mean`;
everything else is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from radplan.arrays import Array, namespace, native_device, weighted_sum
from radplan.errors import InputError
from radplan.optim.objectives import Objective


def expected(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the mean of the objective over the scenarios, weighted by probability, and its gradient."""
    costs, slopes = each_scenario(objective, values, weights)
    shares = _like(probabilities, costs)
    return weighted_sum(costs, shares), _shared(slopes, shares)


def worst(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the smooth maximum of the objective over the scenarios, and its gradient: objective-wise worst case."""
    costs, slopes = each_scenario(objective, values, weights)
    value, shares = smooth_maximum(costs)
    return value, _shared(slopes, shares)


def cvar(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the smooth mean of the objective over its worst scenarios of probability `tail`, and its gradient."""
    costs, slopes = each_scenario(objective, values, weights)
    value, shares = smooth_tail_mean(costs, _like(probabilities, costs), tail)
    return value, _shared(slopes, shares)


def variance(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    r"""Return the objective of each voxel's expected value plus the mean variance of voxels, and its gradient.

    .. math:: f(\bar d) + \sum_v c_v \sum_s p_s (d_{sv} - \bar d_v)^2, \qquad \bar d_v = \sum_s p_s d_{sv}

    Source: Unkelbach and Oelfke, Phys. Med. Biol. 49 (2004) 4005 for the split into both.
    """
    xp = namespace(values)
    chances = _like(probabilities, values)
    mean = xp.matmul(chances, values)
    value, slope = objective.value_and_gradient(mean, weights)
    off = values - mean
    spread = weighted_sum(xp.matmul(chances, off * off), weights)
    return value + spread, xp.reshape(chances, (-1, 1)) * (slope + 2.0 * weights * off)


def voxelwise_worst(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the objective of the worst value of each voxel, and its gradient.

    Worst is the smallest value for an objective that pushes up, the largest for one that pushes down, and the one
    farther from the level for one that does both.
    """
    return _of_chosen(objective, values, weights, best=False)


def voxelwise_best(
    objective: Objective, values: Array, weights: Array, probabilities: Sequence[float], tail: float
) -> tuple[Array, Array]:
    """Return the objective of the best value of each voxel, and its gradient: matRad's inverse voxel-wise worst case.

    Best is the largest value for an objective that pushes up, the smallest for one that pushes down, and the one
    nearest to the level for one that does both: what is asked for must be reached in one scenario at least.
    """
    return _of_chosen(objective, values, weights, best=True)


def _of_chosen(objective: Objective, values: Array, weights: Array, best: bool) -> tuple[Array, Array]:
    """Return the objective of the best or worst value of each voxel, and its gradient."""
    xp = namespace(values)
    if objective.pushes == "down":
        badness = values
    elif objective.pushes == "up":
        badness = -values
    elif objective.level is None:
        raise InputError(
            f"objective {objective.name!r} states no level, so it has no voxel-wise worst case: use robust='worst'"
        )
    else:
        badness = xp.abs(values - objective.level)
    chosen = xp.argmin(badness, axis=0) if best else xp.argmax(badness, axis=0)
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
    "voxelwise_best": voxelwise_best,
    "cvar": cvar,
    "variance": variance,
}
"""Reductions by name: functions of objective, values ``(scenarios, m)``, weights ``(m,)``, probabilities and tail that
return the value and the gradient ``(scenarios, m)``. The nominal one looks at the first scenario alone."""


SMOOTHING = 0.01
"""Width of the smooth maximum over scenarios, in units of their mean cost."""


def smooth_maximum(costs: Array, width: float = SMOOTHING) -> tuple[Array, Array]:
    r"""Return a smooth maximum of costs ``(scenarios,)`` and its gradient ``(scenarios,)``.

    .. math:: \tau \ln \sum_s e^{f_s/\tau}, \qquad \tau = \frac{\epsilon}{n} \sum_s |f_s|

    It is at least the maximum and at most :math:`\tau \ln n` more, convex where costs are and not negative, grows in
    proportion to the costs, and is exact for one scenario. Its gradient is the softmax, and what the width changes:
    :math:`\epsilon/n` times the entropy of the softmax.

    Source: matRad 3.2.2 for the logarithm of a sum of exponentials in its composite worst case; the width is ours.

    >>> import numpy as np
    >>> value, shares = smooth_maximum(np.asarray([3.0, 1.0]))
    >>> float(value), shares.round(9).tolist()
    (3.0, [1.0, 0.0])
    """
    xp = namespace(costs)
    mean = xp.mean(xp.abs(costs))
    scale = width * xp.where(mean > 0.0, mean, xp.ones_like(mean))
    away = (costs - xp.max(costs)) / scale
    total = xp.sum(xp.exp(away))
    shares = xp.exp(away) / total
    entropy = xp.log(total) - xp.sum(shares * away)
    value = xp.max(costs) + scale * xp.log(total) * xp.astype(mean > 0.0, costs.dtype)
    return value, shares + entropy * (width / costs.shape[0]) * xp.sign(costs)


def smooth_tail_mean(costs: Array, chances: Array, tail: float, width: float = SMOOTHING) -> tuple[Array, Array]:
    r"""Return a smooth mean of the worst costs ``(scenarios,)`` of probability `tail`, and its gradient.

    .. math:: \max_q \sum_s q_s f_s - \tau \sum_s q_s \ln\frac{q_s}{p_s}, \qquad
              0 \le q_s \le \frac{p_s}{\alpha}, \quad \sum_s q_s = 1, \quad \tau = \frac{\epsilon}{n} \sum_s |f_s|

    Without its second term that is the conditional value at risk; the term makes it at most :math:`\tau \ln(1/\alpha)`
    less, and smooth. With a tail of 1 it is the expected cost.

    Source: Rockafellar and Uryasev, J. Risk 2 (2000) 21 for the conditional value at risk; the smoothing is ours.

    >>> import numpy as np
    >>> value, shares = smooth_tail_mean(np.asarray([3.0, 1.0]), np.asarray([0.5, 0.5]), 1.0)
    >>> float(value), shares.tolist()
    (2.0, [0.5, 0.5])
    """
    xp = namespace(costs)
    mean = xp.mean(xp.abs(costs))
    scale = width * xp.where(mean > 0.0, mean, xp.ones_like(mean))
    # Why: row j is the answer if all scenarios worse than j are at their cap and j is not; one row is right.
    worse = costs[None, :] > costs[:, None]
    capped = xp.sum(xp.where(worse, chances[None, :], xp.zeros_like(chances)[None, :]), axis=1)
    away = xp.where(worse, xp.zeros_like(costs)[None, :], (costs[None, :] - costs[:, None]) / scale)
    free = xp.where(worse, xp.zeros_like(chances)[None, :], chances[None, :] * xp.exp(away))
    factors = (1.0 - capped / tail) / xp.sum(free, axis=1)
    fits = (factors >= 0.0) & (factors <= (1.0 + 1e-9) / tail)
    row = xp.reshape(xp.argmax(xp.where(fits, costs, xp.full_like(costs, -float("inf")))), (1,))
    limit, factor = xp.take(costs, row), xp.take(factors, row)
    below = chances * factor * xp.exp(xp.minimum((costs - limit) / scale, xp.zeros_like(costs)))
    shares = xp.where(costs > limit, chances / tail, below)
    ratio = xp.where(
        shares > 0.0, shares / xp.where(chances > 0.0, chances, xp.ones_like(chances)), xp.ones_like(shares)
    )
    divergence = xp.sum(shares * xp.log(ratio))
    value = xp.sum(shares * costs) - scale * divergence * xp.astype(mean > 0.0, costs.dtype)
    return value, shares - divergence * (width / costs.shape[0]) * xp.sign(costs)


def each_scenario(objective: Objective, values: Array, weights: Array) -> tuple[Array, Array]:
    """Return the objective in each scenario ``(scenarios,)`` and its gradients ``(scenarios, m)``."""
    xp = namespace(values)
    pairs = [objective.value_and_gradient(values[row, :], weights) for row in range(values.shape[0])]
    return xp.stack([cost for cost, _ in pairs]), xp.stack([slope for _, slope in pairs])


def _shared(slopes: Array, shares: Array) -> Array:
    """Return the gradients ``(scenarios, m)`` of scenarios, each times its share ``(scenarios,)``."""
    xp = namespace(slopes)
    return xp.reshape(xp.astype(shares, slopes.dtype), (-1, 1)) * slopes


def _like(probabilities: Sequence[float], costs: Array) -> Array:
    return namespace(costs).asarray(list(probabilities), dtype=costs.dtype, device=native_device(costs))
