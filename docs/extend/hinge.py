"""A custom objective: the mean excess over a level, linear instead of squared."""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array, namespace, weighted_sum
from radplan.optim import OBJECTIVES, Objective


@OBJECTIVES.register
@dataclass(frozen=True)
class MeanExcess(Objective):
    """Mean excess ``sum_i w_i max(x_i - reference, 0)``; convex, with a kink at the reference."""

    reference: float

    name = "mean_excess"

    def value(self, values: Array, weights: Array) -> Array:
        excess = values - self.reference
        xp = namespace(values)
        return weighted_sum(xp.where(excess > 0.0, excess, xp.zeros_like(excess)), weights)

    def gradient(self, values: Array, weights: Array) -> Array:
        xp = namespace(values)
        return xp.where(values > self.reference, weights, xp.zeros_like(weights))

    @classmethod
    def examples(cls) -> list[MeanExcess]:
        return [cls(1.0)]
