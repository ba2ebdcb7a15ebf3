"""The checks of the course's exercises: each knows the right answer by itself, from a closed form or a table.

In a lesson: ``check("1a", answer)``. A right answer is greeted, a wrong one raises `NotYet` with a hint and never the
answer. `EXERCISES` is what the teacher's page and the tests go through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


class NotYet(AssertionError):  # noqa: N818
    """An answer that is not right yet, with a hint."""


@dataclass(frozen=True)
class Exercise:
    """One question.

    Parameters
    ----------
    lesson : int
        Which lesson asks it.
    question : str
        What is asked, in a line.
    truth : callable
        Returns the right answer, a number or a list of numbers.
    tolerance : float
        Largest relative deviation that is right (absolute where the truth is 0).
    hint : str
        What a wrong answer is told.
    """

    lesson: int
    question: str
    truth: Callable[[], Any]
    tolerance: float
    hint: str


def check(name: str, answer: Any) -> None:
    """Greet a right answer; raise `NotYet` with a hint for any other.

    >>> check("1a", (100.0 / 110.0) ** 2)
    1a is right.
    """
    if name not in EXERCISES:
        raise NotYet(f"there is no exercise {name!r}; known are {', '.join(EXERCISES)}")
    exercise = EXERCISES[name]
    right = np.atleast_1d(np.asarray(exercise.truth(), dtype=float))
    try:
        given = np.atleast_1d(np.asarray(answer, dtype=float))
    except (TypeError, ValueError):
        raise NotYet(f"{name}: a number is asked for, got {answer!r}") from None
    if given.shape != right.shape:
        raise NotYet(f"{name}: {right.size} number(s) are asked for, got {given.size}")
    allowed = exercise.tolerance * np.where(right == 0.0, 1.0, np.abs(right))
    if not np.all(np.isfinite(given)) or np.any(np.abs(given - right) > allowed):
        raise NotYet(f"{name} is not right yet: {exercise.hint}")
    print(f"{name} is right.")


def _half_value_layer() -> float:
    return math.log(2.0) / 0.0049


def _depth_ratio() -> float:
    return math.exp(-0.0049 * 100.0) * ((1000.0 + 100.0) / (1000.0 + 200.0)) ** 2


def _ramp_d95() -> float:
    return 40.0 + 0.05 * 20.0


def _least_squares() -> list[float]:
    # [[1, 0], [1, 1], [0, 1]] x = [2, 3, 2]: normal equations [[2, 1], [1, 2]] x = [5, 5].
    return [5.0 / 3.0, 5.0 / 3.0]


def _bounded() -> list[float]:
    # The second weight would be negative: with it at 0, x = (2 * 4 + 1 * 1) / (2 * 2 + 1 * 1).
    return [9.0 / 5.0, 0.0]


def _overdosing_slope() -> list[float]:
    return [0.0, 0.0, 2.0 * 5.0 / 4.0, 2.0 * 15.0 / 4.0]


def _chain() -> float:
    # Effect e = a d + b d^2 of one voxel, d = 0.5 w: de/dw = (a + 2 b d) 0.5 at w = 4.
    return (0.1 + 2.0 * 0.05 * 2.0) * 0.5


def _bragg_kleeman(energy: float) -> float:
    return 0.022 * energy**1.77


def _wedenberg() -> list[float]:
    let, alpha_x, beta_x, dose = 8.0, 0.1, 0.05, 2.0
    alpha = alpha_x + 0.434 * let * beta_x
    effect = alpha * dose + beta_x * dose**2
    photon = (-alpha_x + math.sqrt(alpha_x**2 + 4.0 * beta_x * effect)) / (2.0 * beta_x)
    return [alpha, photon / dose]


def _range_margin() -> float:
    return 0.035 * 150.0 + 1.0


def _two_cases() -> float:
    # max((x - 1)^2, (2 x - 1)^2 / 2): where both are equal, right of the second's optimum.
    return (math.sqrt(2.0) + 1.0) / (2.0 + math.sqrt(2.0))


def _rises(levels: list[int]) -> int:
    return sum(max(b - a, 0) for a, b in zip([0, *levels[:-1]], levels, strict=True))


def _gantry_time() -> float:
    return max(360.0 / 6.0, 600.0 / 600.0 * 60.0 * 2.0)


EXERCISES: dict[str, Exercise] = {
    "1a": Exercise(1, "Fluence at 110 cm over that at 100 cm from a point source", lambda: (100 / 110) ** 2, 1e-3,
                   "the same photons pass a larger sphere: areas grow with the square of the distance"),
    "1b": Exercise(1, "Water that halves fluence at 0.0049 /mm [mm]", _half_value_layer, 1e-3,
                   "solve exp(-mu t) = 1/2 for t"),
    "1c": Exercise(1, "Dose at 20 cm over dose at 10 cm depth, SSD 100 cm, both laws", _depth_ratio, 2e-3,
                   "attenuation over 100 mm times the inverse square of 1200 mm and 1100 mm"),
    "2a": Exercise(2, "D95 of doses spread evenly from 40 to 60 Gy [Gy]", _ramp_d95, 2e-3,
                   "the hottest 95 % begin 5 % of the way up"),
    "2b": Exercise(2, "V50Gy of the same [%]", lambda: 50.0, 5e-3, "which share lies at 50 Gy or above?"),
    "2c": Exercise(2, "gEUD of half at 10 Gy and half at 30 Gy, a = 2 [Gy]", lambda: math.sqrt(500.0), 1e-3,
                   "(mean of d^a)^(1/a)"),
    "3a": Exercise(3, "Weights that bring the three voxels nearest to 2, 3, 2 Gy", _least_squares, 2e-3,
                   "set the gradient 2 A'(A x - d) to zero"),
    "3b": Exercise(3, "The same for 4, 1, -4 Gy with no weight below 0", _bounded, 5e-3,
                   "where a weight would be negative it is 0, and the other is optimal given that"),
    "4a": Exercise(4, "Gradient of the mean squared excess over 20 Gy at 10, 20, 25, 35 Gy", _overdosing_slope, 1e-3,
                   "voxels below the level do not count; 2 (d - 20) / n above it"),
    "4b": Exercise(4, "d effect / d weight at w = 4, d = 0.5 w, alpha 0.1 /Gy, beta 0.05 /Gy2", _chain, 1e-3,
                   "the outer slope alpha + 2 beta d times the inner slope 0.5"),
    "5a": Exercise(5, "Gantry angle that enters a supine patient from the left [degree]", lambda: 90.0, 1e-6,
                   "IEC 61217: 0 from the front, rising clockwise seen from in front of the gantry"),
    "5b": Exercise(5, "Mean entrance dose per beam of n = 9 beams over that of n = 3, same target dose", lambda: 1 / 3,
                   1e-3, "the same sum is shared by more beams"),
    "6a": Exercise(6, "Range of 150 MeV protons by Bragg and Kleeman, 0.022 mm MeV^-1.77 [mm]",
                   lambda: _bragg_kleeman(150.0), 2e-3, "R = alpha E^p with p = 1.77"),
    "6b": Exercise(6, "Energy whose range is 200 mm [MeV]", lambda: (200.0 / 0.022) ** (1 / 1.77), 2e-3,
                   "turn the formula round"),
    "7a": Exercise(7, "Wedenberg: alpha [1/Gy] and RBE at 8 keV/um, 2 Gy, alpha_x 0.1, beta_x 0.05", _wedenberg, 2e-3,
                   "alpha = alpha_x + 0.434 L beta_x; RBE is the photon dose of the same effect over the dose"),
    "8a": Exercise(8, "Distal margin for 3.5 % and 1 mm at 150 mm depth [mm]", _range_margin, 1e-3,
                   "a share of the depth, and a constant beside it"),
    "8b": Exercise(8, "x that makes the larger of (x - 1)^2 and (2 x - 1)^2 / 2 smallest", _two_cases, 2e-3,
                   "the maximum is smallest where both are equal, between their own optima"),
    "9a": Exercise(9, "Least units of a leaf pair that gives 1, 3, 2, 4, 0", lambda: _rises([1, 3, 2, 4, 0]), 1e-6,
                   "leaves that move one way: only rises cost"),
    "9b": Exercise(9, "Seconds of an arc of 360 degrees, 1200 MU, at 6 degrees/s and 600 MU/min", _gantry_time, 1e-3,
                   "the slower of gantry and dose rate decides"),
    "10a": Exercise(10, "Parameters of a layer from 3 inputs to 50 weights, with biases", lambda: 200.0, 1e-6,
                    "a weight for each pair, and one bias for each output"),
}  # fmt: skip
"""Name -> exercise."""
