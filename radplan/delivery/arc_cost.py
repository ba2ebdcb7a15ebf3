"""The cost of a dose on the sampled voxels of an arc: value, slope and curvature, corrected for the exact engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from radplan.delivery.arc_matrix import ArcMatrix
from radplan.optim import Goal, Problem

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

_PROBE = 0.3
"""Step over which the curvature of a cost is a secant, of the course's dose [Gy]."""


@dataclass(frozen=True, eq=False)
class ArcCost:
    r"""The goals of a plan as a function of the inner model's dose d, at :math:`\kappa d + \delta`.

    Parameters
    ----------
    problem : Problem
        Goals on the sampled voxels.
    factor : float
        Kappa: the exact engine's dose over the inner model's.
    offset : array of shape (voxels,)
        Delta: what it lacks then, per fraction [Gy].
    """

    problem: Problem
    factor: float
    offset: Floats

    @classmethod
    def of(cls, matrix: ArcMatrix, goals: Sequence[Goal], fractions: int) -> ArcCost:
        """Return the cost of goals on a matrix, as if the inner model were exact."""
        problem = Problem(matrix.dij, goals, fractions=fractions, weights=matrix.members)
        return cls(problem, 1.0, np.zeros(matrix.voxels.size))

    def corrected(self, inner: Floats, exact: Floats) -> ArcCost:
        """Return the cost that takes dose of the inner model for what the exact engine gives, both ``(voxels,)``.

        At the plan the two were calculated for the correction is exact; near it, as good as the inner model's changes.
        """
        factor = float(np.sum(exact * inner) / np.sum(inner**2))
        return replace(self, factor=factor, offset=exact - factor * inner)

    def __call__(self, dose: Floats) -> tuple[float, Floats]:
        """Return the cost and its derivative by the inner model's dose ``(voxels,)`` [1/Gy]."""
        point = self.problem.from_images(None, {"physical_dose": (self.factor * dose + self.offset)[None, :]})
        slope = np.asarray(point.image_cotangents["physical_dose"], dtype=np.float64)[0]
        return float(point.value), self.factor * slope

    def curvature(self, dose: Floats, slope: Floats) -> Floats:
        """Return the second derivative by the dose of each voxel alone ``(voxels,)``, >= 0: a secant upwards."""
        step = _PROBE / (self.problem.fractions * self.factor)
        rising: Floats = np.maximum(self(dose + step)[1] - slope, 0.0) / step
        return rising


def solve_mu(
    cost: ArcCost, columns: Singles, mu: Floats, lower: Floats, upper: Floats, iterations: int = 40
) -> tuple[Floats, Floats]:
    """Return the best monitor units of segments whose dose is held, and the dose they give.

    Parameters
    ----------
    cost : ArcCost
        What is minimised.
    columns : array of shape (segments, voxels)
        Dose of each segment per monitor unit [Gy].
    mu, lower, upper : array of shape (segments,)
        Where to begin, and bounds [MU].
    iterations : int
        Of SciPy's L-BFGS-B.
    """
    scale = max(float(np.mean(mu)), 1e-6)

    def value_and_gradient(scaled: Floats) -> tuple[float, Floats]:
        value, slope = cost(((scale * scaled).astype(np.float32) @ columns).astype(np.float64))
        return value, scale * (columns @ slope.astype(np.float32)).astype(np.float64)

    bounds = np.stack([lower, upper], axis=1) / scale
    start = np.clip(mu, lower, upper) / scale
    options = {"maxiter": iterations}
    found: Any = minimize(  # type: ignore[call-overload]
        value_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    best = np.clip(scale * found.x, lower, upper)
    return best, (best.astype(np.float32) @ columns).astype(np.float64)
