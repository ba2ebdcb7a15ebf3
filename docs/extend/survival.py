"""A custom quantity: expected clonogens killed, as minus log10 of the surviving fraction of one fraction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from radplan.arrays import Array
from radplan.quantities import QUANTITIES, Quantity, Voxel


@QUANTITIES.register
@dataclass(frozen=True)
class LogKill(Quantity):
    """Log10 cell kill ``(alpha_x d + beta_x d^2) / ln 10`` of photon dose d [Gy per fraction]."""

    alpha_x: Voxel[Array]
    beta_x: Voxel[Array]

    name = "log_kill"
    unit = "1"
    needs = ("physical_dose",)
    additive = True

    def forward(self, physical_dose: Array) -> Array:
        return (self.alpha_x + self.beta_x * physical_dose) * physical_dose / math.log(10.0)

    def vjp(self, cotangent: Array, physical_dose: Array) -> tuple[Array, ...]:
        return (cotangent * (self.alpha_x + 2.0 * self.beta_x * physical_dose) / math.log(10.0),)
