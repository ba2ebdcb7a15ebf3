"""Where a linear problem starts: uniform variables that give the targets their prescribed mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from radplan.arrays import Array, scalar, weighted_sum
from radplan.optim.terms import Term
from radplan.quantities.resolver import QuantityResolver

_ROUNDS = 20


def start_scale(
    terms: Sequence[Term],
    unit: Mapping[str, Array],
    resolver: QuantityResolver,
    additive: Mapping[Any, bool],
    targets: Sequence[str] = (),
) -> float:
    """Return the factor on the model's own start at which the goals that ask for a level get it in the mean.

    Those goals are the ones that push up to a level > 0 of an additive quantity: on targets, where the patient names
    some, else on any structure. The mean over them of (mean value / level) becomes 1. Without any, the factor is 1.

    Parameters
    ----------
    terms : sequence of Term
        The goals, bound to the model.
    unit : mapping of str to array of shape (scenarios, voxels)
        Images at the model's own start, per fraction.
    resolver : QuantityResolver
        On the images.
    additive : mapping
        Whether each quantity adds up over fractions.
    targets : sequence of str
        Names of the patient's targets.
    """
    asking = [(term, level) for term in terms if (level := _level(term, additive)) > 0.0]
    asking = [pair for pair in asking if pair[0].structure in targets] or asking
    if not asking:
        return 1.0
    keys = list(dict.fromkeys(term.quantity for term, _ in asking))

    def share(factor: float) -> float:
        values = resolver.evaluate_images({name: factor * image for name, image in unit.items()}, keys)
        means = [(term.course_values(values[term.quantity][0, :]), term, level) for term, level in asking]
        return math.fsum(scalar(weighted_sum(cut, term.weights)) / level for cut, term, level in means) / len(means)

    factor, now, power = 1.0, share(1.0), 1.0
    for _ in range(_ROUNDS):
        if not 0.0 < now < math.inf:
            return 1.0
        if abs(now - 1.0) < 1e-6:
            break
        changed = factor * now ** (-1.0 / power)
        after = share(changed)
        if after > 0.0 and changed != factor:
            power = min(max(math.log(after / now) / math.log(changed / factor), 0.25), 4.0)
        factor, now = changed, after
    return factor


def _level(term: Term, additive: Mapping[Any, bool]) -> float:
    level = term.objective.level
    if term.weight == 0.0 or not additive[term.quantity] or term.objective.pushes == "down" or level is None:
        return 0.0
    return float(level) if isinstance(level, int | float) else scalar(weighted_sum(level, term.weights))
